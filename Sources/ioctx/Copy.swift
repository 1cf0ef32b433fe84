// `ioctx cp`: copies one file through the layer, as a use of it and as a check on it.

import ArgumentParser
import CLibAIO
import Glibc

struct Copy: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cp",
        abstract: "Copy a file through the layer.",
        usage: "ioctx cp [<options>] <src> <dst>",
        discussion: """
            A regular destination appears under its name when it is complete and on the
            disk: until then it has a temporary name in the same folder, and is removed
            when the copy fails or is interrupted. Devices and pipes are written as they
            are. Holes in a regular file stay holes. The copy has the source's permissions.

            Examples:
              ioctx cp image.raw /mnt/backup/
              ioctx cp --direct --depth 64 --block-size 1m --verify image.raw copy.raw
              ioctx cp --size 1g /dev/zero zeroes
              ioctx cp --engine threads --quiet in out && echo copied

            Sizes take the suffixes k, m, g and t, powers of 1024.
            Exit status: 0 when the copy is complete, 1 when it is not,
            64 for wrong options.
            """)

    @Option(
        help: "Blocks on their way at a time. (default: 32)", transform: NumberArgument.whole)
    var depth = 32

    @Option(
        name: .customLong("block-size"), help: "Bytes in one request. (default: 256k)",
        transform: NumberArgument.bytes)
    var blockSize = ByteCount(bytes: 256 << 10)

    @Option(
        help: "Bytes to copy; needed for a source without an end, such as /dev/zero.",
        transform: NumberArgument.bytes)
    var size: ByteCount?

    @Flag(help: "Open both files with O_DIRECT, where they are files or disks.")
    var direct = false

    @Flag(help: "Read the copy again and compare it with what was read from the source.")
    var verify = false

    @Flag(name: .shortAndLong, help: "Show neither progress nor the result.")
    var quiet = false

    @Option(help: "Which way of doing I/O the layer may take.")
    var engine: ServingEngine?

    @Argument(help: ArgumentHelp("The file to copy.", valueName: "src"))
    var source: String

    @Argument(help: ArgumentHelp("The name for the copy, or its folder.", valueName: "dst"))
    var destination: String

    private static let depthMax = 65536
    private static let blockBytesMax = 1 << 30

    func validate() throws {
        guard !destination.isEmpty else {
            throw ValidationError("the name for the copy is an empty string: give it one")
        }
        guard (1...Self.depthMax).contains(depth) else {
            throw ValidationError("--depth must be 1 to \(Self.depthMax), not \(depth).")
        }
        guard (1...Self.blockBytesMax).contains(blockSize.bytes) else {
            throw ValidationError("--block-size must be 1 to 1g, not \(blockSize.bytes).")
        }
        guard !direct || blockSize.bytes % OpenFile.alignmentBytes == 0 else {
            throw ValidationError(
                "--block-size must be a multiple of \(OpenFile.alignmentBytes) with --direct, "
                    + "not \(blockSize.bytes).")
        }
    }

    func run() throws {
        engine?.select()
        try copy()
    }

    private func copy() throws(Failure) {
        let input = try OpenFile(
            RawArguments.path(source), flags: O_RDONLY, direct: direct)
        let length = try length(of: input)
        let output = try Destination(
            RawArguments.path(destination), source: input, direct: direct, readBack: verify)
        defer { output.discard() }
        guard !verify || output.file.length != nil || output.file.kind == .regular else {
            throw Failure(
                "'\(destination)' cannot be read again: leave out --verify")
        }
        let interruption = Interruption("ioctx cp") { output.discard() }

        let isOrdered = length == nil || !input.isPositioned || !output.file.isPositioned
        let blocks = length.map { $0 / blockSize.bytes + ($0 % blockSize.bytes == 0 ? 0 : 1) } ?? 1
        let slots = isOrdered ? 1 : max(1, min(depth, blocks))
        let buffers = try BlockBuffers(count: slots, blockBytes: blockSize.bytes)
        let queue = try RequestQueue(depth: slots, buffers: buffers)
        let isShown = !quiet && Progress.terminalCanShowIt
        let progress = Progress(
            "copying", total: length, isShown: isShown, interruption: interruption)
        let transfer = Transfer(
            from: input, to: .write(output.file),
            blocks: BlockList(
                of: input, length: length, blockBytes: blockSize.bytes,
                skippingHoles: input.kind == .regular && input.length != nil
                    && output.file.kind == .regular),
            queue: queue, notes: verify, progress: progress)
        try transfer.run()
        try flush(output.file, queue, progress, transfer.bytesDone)
        let seconds = progress.seconds
        progress.clear()

        if verify {
            // What is on the disk is to be compared, not what is in memory.
            posix_fadvise(output.file.descriptor, 0, 0, POSIX_FADV_DONTNEED)
            let checking = Progress(
                "verifying", total: transfer.bytesDone, isShown: isShown,
                interruption: interruption)
            try Transfer(
                from: output.file, to: .compare,
                blocks: BlockList(records: transfer.records, blockBytes: blockSize.bytes),
                queue: queue, progress: checking
            ).run()
        }
        try output.commit(length: length)
        if !quiet && !isStandardOutput(output.file) {
            try report(length ?? transfer.bytesDone, transfer.bytesDone, seconds)
        }
    }

    /// True where the report would be added to the copy.
    private func isStandardOutput(_ file: OpenFile) -> Bool {
        var (one, other) = (stat(), stat())
        return fstat(file.descriptor, &one) == 0 && fstat(STDOUT_FILENO, &other) == 0
            && one.st_dev == other.st_dev && one.st_ino == other.st_ino
    }

    /// How much there is to copy; nil when only reading tells.
    private func length(of input: OpenFile) throws(Failure) -> Int? {
        if let size {
            if let length = input.length, length < size.bytes {
                throw Failure(
                    "'\(source)' has \(length) bytes, fewer than --size \(size.bytes)")
            }
            return size.bytes
        }
        if input.kind == .characterDevice {
            throw Failure("'\(source)' has no end: say how much to copy with --size")
        }
        return input.length
    }

    private func flush(
        _ file: OpenFile, _ queue: RequestQueue, _ progress: Progress, _ bytes: Int
    ) throws(Failure) {
        guard file.kind == .regular || file.kind == .blockDevice else { return }
        queue.prepare(.fsync, slot: 0, descriptor: file.descriptor)
        queue.submit()
        while queue.inFlight > 0 {
            for completion in try queue.wait() where completion.result < 0 {
                throw Failure.system(
                    "cannot bring '\(file.name)' to the disk", Int32(-completion.result))
            }
            progress.step(bytes)
        }
    }

    private func report(_ length: Int, _ moved: Int, _ seconds: Double) throws(Failure) {
        let rate = ByteCount.text(Double(moved) / max(seconds, 1e-6))
        let holes = length > moved ? ", \(ByteCount.text(Double(length - moved))) of it holes" : ""
        let time =
            seconds < 1 ? "\(Int(seconds * 1000)) ms" : "\(ByteCount.tenths(seconds)) s"
        try Output.write(
            "copied \(ByteCount.text(Double(length)))\(holes) in \(time), "
                + "\(rate)/s\(verify ? ", verified" : "")\n")
    }
}
