// Proves which system calls are seen in machine code: those whose number is loaded shortly before
// the instruction, or is handed to syscall().

#if arch(x86_64)
    import Testing

    @testable import ioctx

    @Suite struct CodeScanTests {
        private static let address = 0x40_0000
        /// Where the loader puts the address of syscall().
        private static let slot = 0x60_0000

        private static let load: [UInt8] = [0xb8, 206, 0, 0, 0]  // mov $206, %eax
        private static let loadWide: [UInt8] = [0x48, 0xc7, 0xc0, 206, 0, 0, 0]  // mov $206, %rax
        private static let hand: [UInt8] = [0xbf, 206, 0, 0, 0]  // mov $206, %edi
        private static let instruction: [UInt8] = [0x0f, 0x05]  // syscall
        private static let nothing = [UInt8](repeating: 0x90, count: 64)  // nop

        /// A call through the slot, in code that begins with `before`.
        private static func call(after before: [UInt8], operation: UInt8 = 0x15) -> [UInt8] {
            let end = address + nothing.count + before.count + 6
            let distance = Int32(slot - end)
            return [0xff, operation] + withUnsafeBytes(of: distance.littleEndian) { Array($0) }
        }

        private func scan(_ code: [UInt8], look body: (CodeScan) -> Void) {
            let whole = Self.nothing + code + Self.nothing
            whole.withUnsafeBytes { bytes in
                let segment = ELFReader.Segment(
                    type: 1, flags: 1, address: Self.address, contents: bytes)
                body(CodeScan(segment, [206, 207], function: [Self.slot]))
            }
        }

        @Test func numbersOfTheInstruction() {
            for load in [Self.load, Self.loadWide] {
                scan(load + [0x90] + Self.instruction) {
                    #expect($0.executed == [206])
                    #expect($0.handed.isEmpty)
                }
            }
        }

        @Test func anotherNumberComesBetween() {
            scan(Self.load + [0xb8, 1, 0, 0, 0] + Self.instruction) {
                #expect($0.executed.isEmpty)
            }
        }

        @Test func theInstructionIsTooFarAway() {
            scan(Self.load + Self.nothing + Self.instruction) { #expect($0.executed.isEmpty) }
        }

        @Test(arguments: 0..<20) func codeMayEndAnywhere(_ rest: Int) {
            let code = Self.nothing + Self.hand + Self.load + [UInt8](repeating: 0x90, count: rest)
            code.withUnsafeBytes { bytes in
                let segment = ELFReader.Segment(
                    type: 1, flags: 1, address: Self.address, contents: bytes)
                #expect(CodeScan(segment, [206], function: []).executed.isEmpty)
            }
        }

        @Test func otherNumbersDoNotCount() {
            scan([0xb8, 208, 0, 0, 0] + Self.instruction) { #expect($0.executed.isEmpty) }
            scan([0xba, 206, 0, 0, 0] + Self.instruction) { #expect($0.executed.isEmpty) }
        }

        @Test func numbersForTheFunction() {
            scan(Self.hand + Self.call(after: Self.hand)) {
                #expect($0.handed == [206])
                #expect($0.executed.isEmpty)
            }
            // Another function's slot.
            scan(Self.hand + [0xff, 0x15, 0, 0, 0, 0]) { #expect($0.handed.isEmpty) }
        }

        /// A call of a stub that jumps through the slot, as linkers make them.
        @Test func numbersForTheFunctionsStub() {
            let before = Self.hand + [0xe8, 64, 0, 0, 0] + Self.nothing
            scan(before + Self.call(after: before, operation: 0x25)) {
                #expect($0.handed == [206])
            }
        }

        /// A call of the program's own syscall(), as in a static program.
        @Test func numbersForAWrapper() {
            let code = Self.hand + [0xe8, 64, 0, 0, 0] + Self.nothing
            scan(code + [0x48, 0x89, 0xf8] + Self.instruction + [0xc3]) {
                #expect($0.executed == [206])
            }
            scan(code + [0xc3] + Self.instruction) { #expect($0.executed.isEmpty) }
        }
    }
#endif
