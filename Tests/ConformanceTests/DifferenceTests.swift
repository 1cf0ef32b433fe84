// Proves that a documented difference allows what it says, and nothing else.

import Testing

@testable import Conformance

@Suite struct DifferenceTests {
    @Test func linesReadOtherwise() {
        let difference = Difference(
            reason: "", layer: .lines([("old", "new"), ("one", "two\nthree")]))
        let kernel = ["first", "old", "one", "old"]
        #expect(difference.allows(["first", "new", "two", "three", "new"], where: kernel))
        #expect(!difference.allows(["first", "new", "two", "three", "old"], where: kernel))
        #expect(!difference.allows(kernel, where: kernel))
        // Where the kernel does not answer so, there is nothing to differ from.
        #expect(!difference.allows(["first", "new"], where: ["first", "old"]))
    }

    @Test func allOfItReadsOtherwise() {
        let difference = Difference(reason: "", layer: .transcript(["a", "b"]))
        #expect(difference.allows(["a", "b"], where: ["a", "c"]))
        #expect(!difference.allows(["a"], where: ["a", "c"]))
        #expect(!difference.allows(["a", "b"], where: ["a", "b"]))
    }

    @Test func itEndsEarly() {
        let difference = Difference(reason: "", layer: .endsWith("died of SEGV"))
        let kernel = ["a", "b", "c"]
        #expect(difference.allows(["a", "died of SEGV"], where: kernel))
        #expect(difference.allows(["died of SEGV"], where: kernel))
        #expect(!difference.allows(["b", "died of SEGV"], where: kernel))
        #expect(!difference.allows(["a", "b", "c", "died of SEGV"], where: kernel))
        #expect(!difference.allows(kernel, where: kernel))
    }
}
