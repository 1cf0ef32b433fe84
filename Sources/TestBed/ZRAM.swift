// Compressed disks in memory, which root may add.

import Glibc

public struct ZRAM: Sendable {
    /// As in its name.
    public let number: String

    public var path: String { "/dev/zram\(number)" }

    /// One that the system has added before.
    public init(number: String) {
        self.number = number
    }

    /// Adds one of `bytes`.
    public init(bytes: Int) throws {
        let control = Glibc.open("/sys/class/zram-control/hot_add", O_RDONLY | O_CLOEXEC)
        guard control >= 0 else { throw Skip("needs zram") }
        // To read the file is to add a device.
        var text = [UInt8](repeating: 0, count: 16)
        let got = read(control, &text, text.count)
        close(control)
        number = String(decoding: text.prefix(max(got - 1, 0)), as: UTF8.self)
        guard Int(number) != nil else { throw Skip("no zram device can be added") }
        Folder.write("\(bytes)", to: "/sys/block/zram\(number)/disksize")
    }

    /// Takes it away again, once nobody has it open.
    public func remove() {
        // The last file of a dead process may be on its way out.
        for _ in 0..<100 {
            Folder.write("1", to: "/sys/block/zram\(number)/reset")
            if Folder.write(number, to: "/sys/class/zram-control/hot_remove") { break }
            usleep(10_000)
        }
    }
}
