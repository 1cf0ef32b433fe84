// What can be seen of a program's use of AIO in an ELF file: the functions that it imports, and the
// numbers of the io_* system calls in its code.

import CLibAIO
import Glibc

/// The six system calls, by number.
enum AIOCall: Int32, CaseIterable {
    case io_setup, io_destroy, io_getevents, io_submit, io_cancel, io_pgetevents

    var number: Int32 {
        switch self {
        case .io_setup: Int32(SYS_io_setup)
        case .io_destroy: Int32(SYS_io_destroy)
        case .io_getevents: Int32(SYS_io_getevents)
        case .io_submit: Int32(SYS_io_submit)
        case .io_cancel: Int32(SYS_io_cancel)
        case .io_pgetevents: Int32(SYS_io_pgetevents)
        }
    }

    var name: String { "\(self)" }
}

/// An ELF file of this machine's class and byte order, mapped for as long as it is looked at.
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
        let descriptor = path.withCString { open($0, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            status.st_size > 0,
            let memory = mmap(nil, Int(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0),
            memory != MAP_FAILED
        else { return nil }
        defer { munmap(memory, Int(status.st_size)) }
        let bytes = UnsafeRawBufferPointer(start: memory, count: Int(status.st_size))
        guard bytes.count >= 64, bytes.starts(with: [0x7f] + Array("ELF".utf8)), bytes[4] == 2,
            bytes[5] == 1
        else { return nil }
        let reader = ELFReader(bytes: bytes)
        let imports = reader.imports()
        for name in imports.keys.sorted() {
            if name.hasPrefix("io_"), Self.isLibaio(name) { libaio.append(name) }
            if Self.posixNames.contains(name.replacing("64", with: "")) { posix.append(name) }
            if name == "syscall" { importsSyscall = true }
        }
        #if arch(x86_64)
            for code in reader.executableParts() {
                let scan = CodeScan(
                    code, Set(AIOCall.allCases.map(\.number)), function: imports["syscall"] ?? [])
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

/// The parts of an ELF file that matter here, every offset checked; from elf(5).
private struct ELFReader {
    let bytes: UnsafeRawBufferPointer

    private func integer<T: FixedWidthInteger>(at offset: Int, _: T.Type) -> Int {
        guard offset >= 0, offset <= bytes.count - MemoryLayout<T>.size else { return 0 }
        return Int(
            truncatingIfNeeded: T(
                littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self)))
    }

    private func part(from offset: Int, _ length: Int) -> UnsafeRawBufferPointer? {
        guard offset >= 0, length > 0, offset <= bytes.count, length <= bytes.count - offset else {
            return nil
        }
        return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length])
    }

    private struct Section {
        let type: Int
        let link: Int
        let contents: UnsafeRawBufferPointer
    }

    private func sections() -> [Section?] {
        let headers = integer(at: 40, UInt64.self)
        let stride = integer(at: 58, UInt16.self)
        return (0..<integer(at: 60, UInt16.self)).map { index in
            let header = headers &+ index &* stride
            return part(
                from: integer(at: header &+ 24, UInt64.self),
                integer(at: header &+ 32, UInt64.self)
            ).map {
                Section(
                    type: integer(at: header &+ 4, UInt32.self),
                    link: integer(at: header &+ 40, UInt32.self), contents: $0)
            }
        }
    }

    /// The undefined dynamic symbols, each with the addresses that the loader fills in with its own.
    func imports() -> [String: Set<Int>] {
        let dynamicSymbols = 11
        let relocations = 4
        let entryBytes = 24
        let sections = sections()
        guard
            let symbols = sections.lazy.compactMap({ $0 }).first(where: {
                $0.type == dynamicSymbols
            }),
            symbols.link < sections.count, let text = sections[symbols.link]?.contents
        else { return [:] }
        var names: [Int: String] = [:]
        for index in 0..<symbols.contents.count / entryBytes {
            let start = index * entryBytes
            let section = symbols.contents.loadUnaligned(fromByteOffset: start + 6, as: UInt16.self)
            let name = Int(symbols.contents.loadUnaligned(fromByteOffset: start, as: UInt32.self))
            if section != 0 || name >= text.count { continue }
            names[index] = String(decoding: text[name...].prefix { $0 != 0 }, as: UTF8.self)
        }
        var slots = Dictionary(names.values.map { ($0, Set<Int>()) }) { one, _ in one }
        for section in sections.lazy.compactMap({ $0 }) where section.type == relocations {
            for start in stride(
                from: 0, to: section.contents.count - entryBytes + 1, by: entryBytes)
            {
                let symbol = section.contents.loadUnaligned(
                    fromByteOffset: start + 12, as: UInt32.self)
                guard let name = names[Int(symbol)] else { continue }
                let slot = section.contents.loadUnaligned(fromByteOffset: start, as: UInt64.self)
                slots[name]?.insert(Int(truncatingIfNeeded: slot))
            }
        }
        return slots
    }

    func contains(_ word: String) -> Bool {
        let word = Array(word.utf8)
        var start = bytes.startIndex
        while let found = bytes[start...].firstIndex(of: word[0]) {
            if bytes[found...].starts(with: word) { return true }
            start = found + 1
        }
        return false
    }

    /// True where the linker made a shared object and did not mark it as a program, as it does
    /// one that is linked statically and may be loaded anywhere.
    func isLibrary() -> Bool {
        let sharedObject = 3
        let dynamic = 6
        let moreFlags = 0x6fff_fffb
        let positionIndependentProgram = 0x0800_0000
        let entryBytes = 16
        guard integer(at: 16, UInt16.self) == sharedObject,
            let entries = sections().lazy.compactMap({ $0 }).first(where: { $0.type == dynamic })
        else { return false }
        return !stride(from: 0, through: entries.contents.count - entryBytes, by: entryBytes)
            .contains { start in
                let tag = entries.contents.loadUnaligned(fromByteOffset: start, as: Int.self)
                let value = entries.contents.loadUnaligned(fromByteOffset: start + 8, as: Int.self)
                return tag == moreFlags && value & positionIndependentProgram != 0
            }
    }

    /// The segments that may be executed, with their addresses.
    func executableParts() -> [CodeSegment] {
        let load = 1
        let executable = 1
        let headers = integer(at: 32, UInt64.self)
        let stride = integer(at: 54, UInt16.self)
        return (0..<integer(at: 56, UInt16.self)).compactMap { index in
            let header = headers &+ index &* stride
            guard integer(at: header, UInt32.self) == load,
                integer(at: header &+ 4, UInt32.self) & executable != 0
            else { return nil }
            return part(
                from: integer(at: header &+ 8, UInt64.self),
                integer(at: header &+ 32, UInt64.self)
            ).map { CodeSegment(address: integer(at: header &+ 16, UInt64.self), bytes: $0) }
        }
    }
}

private struct CodeSegment {
    let address: Int
    let bytes: UnsafeRawBufferPointer
}

/// Looks for numbers in x86-64 code as compilers write it: a constant is loaded shortly before it is
/// used. What is computed, or far away, is not found; a constant that means something else may be.
private struct CodeScan {
    /// The numbers with which the system call instruction is executed.
    private(set) var executed: Set<Int32> = []
    /// The numbers that are handed to the function as its first argument.
    private(set) var handed: Set<Int32> = []

    /// Between the constant and its use, at most.
    private static let reachBytes = 48
    private static let loadEAX: UInt8 = 0xb8
    private static let loadEDI: UInt8 = 0xbf
    private static let loadRAX: [UInt8] = [0x48, 0xc7, 0xc0]

    private let segment: CodeSegment
    private let code: UnsafeRawBufferPointer
    private let slots: Set<Int>

    /// The function is known by the addresses where the loader stores its own.
    init(_ segment: CodeSegment, _ numbers: Set<Int32>, function slots: Set<Int>) {
        self.segment = segment
        self.slots = slots
        code = segment.bytes
        guard code.count > 8 else { return }
        // Constants are small: zero bytes are rare, and so the first thing to look for.
        for offset in 3..<code.count - 4 {
            if code[offset + 3] != 0 || code[offset + 2] != 0 { continue }
            let number = integer(at: offset)
            guard numbers.contains(number) else { continue }
            let after = offset + 4..<min(offset + 4 + Self.reachBytes, code.count - 6)
            let opcode = code[offset - 1]
            if opcode == Self.loadEAX || code[offset - 3..<offset].elementsEqual(Self.loadRAX) {
                if meetsInstruction(after) { executed.insert(number) }
            } else if opcode == Self.loadEDI {
                if after.contains(where: callsFunction) { handed.insert(number) }
                if after.contains(where: callsWrapper) { executed.insert(number) }
            }
        }
    }

    private func integer(at offset: Int) -> Int32 {
        Int32(littleEndian: code.loadUnaligned(fromByteOffset: offset, as: Int32.self))
    }

    /// True when `syscall` comes before another number is loaded.
    private func meetsInstruction(_ range: Range<Int>) -> Bool {
        let use = range.first { code[$0] == 0x0f && code[$0 + 1] == 0x05 }
        return use.map { !code[range.lowerBound..<$0].contains(Self.loadEAX) } ?? false
    }

    /// True for a call or jump to the function, through its slot or by way of a stub that jumps there.
    private func callsFunction(_ offset: Int) -> Bool {
        switch (code[offset], code[offset + 1]) {
        case (0xff, 0x15), (0xff, 0x25): return isSlot(offset + 2)
        case (0xe8, _), (0xe9, _):
            let stub = offset + 5 + Int(integer(at: offset + 1))
            guard stub >= 0, stub < code.count - 16 else { return false }
            // An endbr64 or a prefix may come first.
            return (stub..<stub + 8).contains {
                code[$0] == 0xff && code[$0 + 1] == 0x25 && isSlot($0 + 2)
            }
        default: return false
        }
    }

    /// True for a call or jump to a function of the program's own that executes `syscall` at once, as
    /// the C library's does in a static program.
    private func callsWrapper(_ offset: Int) -> Bool {
        guard code[offset] == 0xe8 || code[offset] == 0xe9 else { return false }
        let wrapper = offset + 5 + Int(integer(at: offset + 1))
        guard wrapper >= 0, wrapper < code.count - Self.reachBytes else { return false }
        let body = code[wrapper..<wrapper + Self.reachBytes]
        let end = body.firstIndex(of: 0xc3) ?? body.endIndex
        return (wrapper..<end - 1).contains { code[$0] == 0x0f && code[$0 + 1] == 0x05 }
    }

    /// True when the distance at `offset`, from the instruction's end, leads to a slot.
    private func isSlot(_ offset: Int) -> Bool {
        slots.contains(segment.address + offset + 4 + Int(integer(at: offset)))
    }
}
