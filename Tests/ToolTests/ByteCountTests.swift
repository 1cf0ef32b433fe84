// Proves how sizes are read and written.

import Testing

@testable import ioctx

@Suite struct ByteCountTests {
    @Test(arguments: [
        ("0", 0), ("512", 512), ("4k", 4096), ("4K", 4096), ("1m", 1 << 20), ("3g", 3 << 30),
        ("2t", 2 << 40),
    ])
    func valid(_ text: String, _ bytes: Int) {
        #expect(ByteCount(text)?.bytes == bytes)
    }

    @Test(arguments: [
        "", "k", "10x", "1.5m", "-1", "+1", " 1", "1 k", "1kk", "٣", "9223372036854775808",
        "9999999999t",
    ])
    func invalid(_ text: String) {
        #expect(ByteCount(text) == nil)
        #expect(throws: (any Error).self) { try NumberArgument.bytes(text) }
    }

    @Test(arguments: [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"), (4096 << 40, "4096.0 TiB"),
    ])
    func written(_ bytes: Int, _ text: String) {
        #expect(ByteCount.text(Double(bytes)) == text)
    }
}
