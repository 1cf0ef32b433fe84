// The parts of a 64-bit little-endian ELF file that matter to the tool, from elf(5).

struct ELFReader {
    struct Segment {
        let type: Int
        let flags: Int
        let address: Int
        let contents: UnsafeRawBufferPointer
    }

    struct Section {
        let type: Int
        /// The index of the section that this one refers to.
        let link: Int
        let contents: UnsafeRawBufferPointer
    }

    static let isLoaded = 1
    static let namesLoader = 3
    static let isExecutable = 1

    #if arch(x86_64)
        static let machineHere = 62
    #elseif arch(arm64)
        static let machineHere = 183
    #endif

    // The file's memory is there as long as its reader.
    private let file: LoadedFile
    private var bytes: UnsafeRawBufferPointer { file.bytes }

    /// Nil for what is no ELF file.
    init?(_ file: LoadedFile) {
        guard file.bytes.count >= Header.bytes,
            file.bytes.starts(with: [0x7f] + Array("ELF".utf8))
        else { return nil }
        self.file = file
    }

    var is64Bit: Bool { bytes[Header.elfClass] == 2 }
    var isLittleEndian: Bool { bytes[Header.data] == 1 }
    var machine: Int { bytes.integer(at: Header.machine, UInt16.self) }

    // MARK: Segments and sections

    /// What the loader goes by; nil where their list is not all in the file.
    func segments() -> [Segment]? {
        let start = bytes.integer(at: Header.segments, UInt64.self)
        let stride = bytes.integer(at: Header.segmentStride, UInt16.self)
        let count = bytes.integer(at: Header.segmentCount, UInt16.self)
        if count > 0 && bytes.part(from: start, count * stride) == nil { return nil }
        return (0..<count).compactMap { index in
            let header = start + index * stride
            guard
                let contents = bytes.part(
                    from: bytes.integer(at: header + SegmentHeader.offset, UInt64.self),
                    bytes.integer(at: header + SegmentHeader.fileBytes, UInt64.self))
            else { return nil }
            return Segment(
                type: bytes.integer(at: header + SegmentHeader.type, UInt32.self),
                flags: bytes.integer(at: header + SegmentHeader.flags, UInt32.self),
                address: bytes.integer(at: header + SegmentHeader.address, UInt64.self),
                contents: contents)
        }
    }

    /// What the linker goes by, with nil for those without contents.
    private func sections() -> [Section?] {
        let start = bytes.integer(at: Header.sections, UInt64.self)
        let stride = bytes.integer(at: Header.sectionStride, UInt16.self)
        return (0..<bytes.integer(at: Header.sectionCount, UInt16.self)).map { index in
            let header = start &+ index &* stride
            return bytes.part(
                from: bytes.integer(at: header &+ SectionHeader.offset, UInt64.self),
                bytes.integer(at: header &+ SectionHeader.size, UInt64.self)
            ).map {
                Section(
                    type: bytes.integer(at: header &+ SectionHeader.type, UInt32.self),
                    link: bytes.integer(at: header &+ SectionHeader.link, UInt32.self), contents: $0
                )
            }
        }
    }

    // MARK: Contents

    /// The undefined dynamic symbols, each with the addresses that the loader fills in with its
    /// own.
    func imports() -> [String: Set<Int>] {
        let sections = sections()
        guard
            let symbols = sections.lazy.compactMap({ $0 }).first(where: {
                $0.type == SectionHeader.dynamicSymbols
            }),
            symbols.link < sections.count, let text = sections[symbols.link]?.contents
        else { return [:] }
        var names: [Int: String] = [:]
        for index in 0..<symbols.contents.count / Symbol.bytes {
            let start = index * Symbol.bytes
            let name = symbols.contents.integer(at: start + Symbol.name, UInt32.self)
            let isDefined = symbols.contents.integer(at: start + Symbol.section, UInt16.self) != 0
            if isDefined || name >= text.count { continue }
            names[index] = String(decoding: text.string(at: name), as: UTF8.self)
        }
        var slots = Dictionary(names.values.map { ($0, Set<Int>()) }) { one, _ in one }
        for section in sections.lazy.compactMap({ $0 })
        where section.type == SectionHeader.relocations {
            let contents = section.contents
            for start in stride(from: 0, to: contents.count, by: Relocation.bytes) {
                let symbol = contents.integer(at: start + Relocation.symbol, UInt32.self)
                guard let name = names[symbol] else { continue }
                slots[name]?.insert(contents.integer(at: start + Relocation.slot, UInt64.self))
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
        guard bytes.integer(at: Header.type, UInt16.self) == Header.sharedObject,
            let entries = sections().lazy.compactMap({ $0 }).first(where: {
                $0.type == SectionHeader.dynamic
            })?.contents
        else { return false }
        return !stride(from: 0, to: entries.count, by: DynamicEntry.bytes).contains { start in
            let value = entries.integer(at: start + DynamicEntry.value, Int.self)
            return entries.integer(at: start + DynamicEntry.tag, Int.self) == DynamicEntry.moreFlags
                && value & DynamicEntry.positionIndependentProgram != 0
        }
    }
}

// MARK: - Offsets and values

extension ELFReader {
    private enum Header {
        static let bytes = 64
        static let elfClass = 4
        static let data = 5
        static let type = 16
        static let machine = 18
        static let segments = 32
        static let sections = 40
        static let segmentStride = 54
        static let segmentCount = 56
        static let sectionStride = 58
        static let sectionCount = 60

        static let sharedObject = 3
    }

    private enum SegmentHeader {
        static let type = 0
        static let flags = 4
        static let offset = 8
        static let address = 16
        static let fileBytes = 32
    }

    private enum SectionHeader {
        static let type = 4
        static let offset = 24
        static let size = 32
        static let link = 40

        static let relocations = 4
        static let dynamic = 6
        static let dynamicSymbols = 11
    }

    private enum Symbol {
        static let bytes = 24
        static let name = 0
        static let section = 6
    }

    private enum Relocation {
        static let bytes = 24
        static let slot = 0
        static let symbol = 12
    }

    private enum DynamicEntry {
        static let bytes = 16
        static let tag = 0
        static let value = 8

        static let moreFlags = 0x6fff_fffb
        static let positionIndependentProgram = 0x0800_0000
    }
}
