// What can be seen of a program's use of AIO in an ELF file: the functions that it imports, and the
// numbers of the io_* system calls in its code.

/// A file of this machine's class and byte order.
struct ObjectFile {
    /// Functions of libaio that are imported.
    private(set) var libaio: [String] = []
    /// Functions of POSIX AIO that are imported.
    private(set) var posix: [String] = []
    /// Whether syscall() is imported, and the io_* numbers that are handed to a function.
    private(set) var importsSyscall = false
    private(set) var handedNumbers: [String] = []
    /// The io_* numbers with which the system call instruction is executed.
    private(set) var instructionNumbers: [String] = []
    /// Whether it is the layer itself, which names its variables.
    private(set) var isLayer = false
    /// Whether it is made to be loaded and not run, if it names no loader itself.
    private(set) var isLibrary = false

    private static let posixNames: Set<String> = [
        "aio_read", "aio_write", "aio_fsync", "aio_error", "aio_return", "aio_suspend",
        "aio_cancel", "lio_listio",
    ]

    /// Nil for what cannot be read or is no 64-bit ELF file.
    init?(_ path: Path) {
        guard let file = LoadedFile(path), let reader = ELFReader(file), reader.is64Bit,
            reader.isLittleEndian
        else { return nil }
        let imports = reader.imports()
        for name in imports.keys.sorted() {
            if name.hasPrefix("io_"), Self.isLibaio(name) { libaio.append(name) }
            if Self.posixNames.contains(name.replacing("64", with: "")) { posix.append(name) }
            if name == "syscall" { importsSyscall = true }
        }
        #if arch(x86_64)
            for segment in reader.segments() ?? []
            where segment.type == ELFReader.isLoaded
                && segment.flags & ELFReader.isExecutable != 0
            {
                let scan = CodeScan(
                    segment, Set(AIOCall.allCases.map(\.number)), function: imports["syscall"] ?? []
                )
                for call in AIOCall.allCases {
                    if scan.executed.contains(call.number) { add(call, &instructionNumbers) }
                    if scan.handed.contains(call.number) {
                        add(call, &handedNumbers)
                    }
                }
            }
        #endif
        isLibrary = reader.isLibrary()
        isLayer = reader.contains("IOCTX_ENGINE") && libaio.isEmpty
    }

    private func add(_ call: AIOCall, _ list: inout [String]) {
        if !list.contains(call.name) { list.append(call.name) }
    }

    private static func isLibaio(_ name: String) -> Bool {
        name.hasPrefix("io_queue_") || AIOCall.allCases.contains { $0.name == name }
    }

    var usesAIO: Bool { !libaio.isEmpty || !handedNumbers.isEmpty || !instructionNumbers.isEmpty }
}
