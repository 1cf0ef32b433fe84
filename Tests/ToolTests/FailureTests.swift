// Proves that a message is one line, whatever names are in it.

import Testing

@testable import ioctx

@Suite struct FailureTests {
    @Test(arguments: [
        ("'a b' and 'ü€'", "'a b' and 'ü€'"), ("a\nb\tc", #"a\nb\tc"#),
        ("\u{1b}[1m\r\n", #"\u{1B}[1m\r\n"#), ("\u{9b}", #"\u{009B}"#),
    ])
    func controlCharactersAreSeen(_ text: String, _ shown: String) {
        #expect(text.onOneLine == shown)
    }
}
