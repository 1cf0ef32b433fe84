// Proves which values of the layer's variables are reported.

import Testing

@testable import ioctx

@Suite struct LayerVariablesTests {
    private func remarks(_ values: [String: String]) -> [String] {
        LayerVariables.remarks { values[$0] }
    }

    @Test func valuesThatTheLayerTakesAreNot() {
        #expect(remarks([:]).isEmpty)
        #expect(
            remarks([
                "IOCTX_MAX_AIO_PROCS": "64", "IOCTX_AIOD_TIMEOUT": "", "IOCTX_ENGINE": "threads",
                "IOCTX_WRITES": "async",
            ]).isEmpty)
    }

    @Test(arguments: [
        ("IOCTX_MAX_AIO_PROCS", "abc", "counts as unset"), ("IOCTX_AIO_MAX_NR", "64k", "as 64"),
        ("IOCTX_MAX_BUF_AIO", "-1", "counts as unset"), ("IOCTX_ENGINE", "fast", "as auto"),
        ("IOCTX_WRITES", "later", "as inline"),
    ])
    func othersAre(_ name: String, _ value: String, _ meaning: String) throws {
        let remark = try #require(remarks([name: value]).first)
        #expect(remark.hasPrefix("\(name) is '\(value)'"))
        #expect(remark.contains(meaning))
    }
}
