// Proves that the progress bar says what there is room for.

import Testing

@testable import ioctx

@Suite struct ProgressTests {
    @Test(arguments: [
        (Int.max, "abcdef"), (7, "abcdef"), (6, "abc"), (4, "abc"), (3, "a"), (1, ""),
    ])
    func fits(_ columns: Int, _ line: String) {
        #expect(Progress.fitting(["abcdef", "abc", "a"], columns: columns) == line)
    }
}
