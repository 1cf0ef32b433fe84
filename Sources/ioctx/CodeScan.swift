// Numbers of system calls in machine code.

/// Looks for numbers in x86-64 code as compilers write it: a constant is loaded shortly before it
/// is used. What is computed, or far away, is not found; a constant that means something else may
/// be.
struct CodeScan {
    /// The numbers with which the system call instruction is executed.
    private(set) var executed: Set<Int32> = []
    /// The numbers that are handed to the function as its first argument.
    private(set) var handed: Set<Int32> = []

    /// Between the constant and its use, at most.
    private static let reachBytes = 48
    /// Of the longest use that is looked for.
    private static let instructionBytes = 6
    private static let loadEAX: UInt8 = 0xb8
    private static let loadEDI: UInt8 = 0xbf
    private static let loadRAX: [UInt8] = [0x48, 0xc7, 0xc0]

    private let segment: ELFReader.Segment
    private let code: UnsafeRawBufferPointer
    private let slots: Set<Int>

    /// The function is known by the addresses where the loader stores its own.
    init(_ segment: ELFReader.Segment, _ numbers: Set<Int32>, function slots: Set<Int>) {
        self.segment = segment
        self.slots = slots
        code = segment.contents
        guard code.count > 3 + Self.instructionBytes + 4 else { return }
        // Constants are small: zero bytes are rare, and so the first thing to look for.
        for offset in 3..<code.count - Self.instructionBytes - 4 {
            if code[offset + 3] != 0 || code[offset + 2] != 0 { continue }
            let number = integer(at: offset)
            guard numbers.contains(number) else { continue }
            let start = offset + 4
            let after = start..<min(start + Self.reachBytes, code.count - Self.instructionBytes)
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

    /// True for a call or jump to the function, through its slot or by way of a stub that jumps
    /// there.
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

    /// True for a call or jump to a function of the program's own that executes `syscall` at once,
    /// as the C library's does in a static program.
    private func callsWrapper(_ offset: Int) -> Bool {
        guard code[offset] == 0xe8 || code[offset] == 0xe9 else { return false }
        let wrapper = offset + 5 + Int(integer(at: offset + 1))
        guard wrapper >= 0, wrapper < code.count - Self.reachBytes else { return false }
        let body = code[wrapper..<wrapper + Self.reachBytes].prefix { $0 != 0xc3 }
        return body.indices.dropLast().contains { code[$0] == 0x0f && code[$0 + 1] == 0x05 }
    }

    /// True when the distance at `offset`, from the instruction's end, leads to a slot.
    private func isSlot(_ offset: Int) -> Bool {
        slots.contains(segment.address &+ (offset + 4 + Int(integer(at: offset))))
    }
}
