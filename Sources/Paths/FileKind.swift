// The kinds of files, which decide the paths of requests: what a look at the file tells
// (FileFacts.swift), and what its last requests have told (FileHints.swift).

/// What decides the path of a request on a file.
enum FileKind: UInt32 {
    case unknown = 0
    /// Regular file or block device through the page cache; RWF_NOWAIT works.
    case cached
    /// The same on a file system without RWF_NOWAIT; the last plain read was quick.
    case quick
    /// The same; the last plain read was slow, so reads go to a daemon.
    case slow
    /// RWF_NOWAIT works, but was in vain for many reads: they go to a daemon untried.
    case cold
    /// Memory-backed, through the page cache or not: never blocks.
    case memory
    /// Regular file or block device with O_DIRECT.
    case direct
    /// Pipe, socket, terminal, eventfd and the like: waits for readiness.
    case stream
    case directory
    /// An eventfd that was named to be signalled; as a file to read it is a stream.
    case eventfd

    /// Through the page cache, or memory-backed.
    @inline(__always)
    var isBuffered: Bool {
        rawValue >= FileKind.cached.rawValue && rawValue <= FileKind.memory.rawValue
    }
}
