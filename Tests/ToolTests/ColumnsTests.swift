// Proves how lines of columns are set.

import Testing

@testable import ioctx

@Suite struct ColumnsTests {
    private let columns = Columns(.left(4), .right(3))

    @Test(arguments: [
        (["ab", "1", "rest"], "ab      1  rest"), (["abcdef", "1234"], "abcdef  1234"),
        (["ab", ""], "ab"), (["", "1"], "        1"), ([], ""),
    ])
    func lines(_ cells: [String], _ line: String) {
        #expect(columns.line(cells) == line + "\n")
    }
}
