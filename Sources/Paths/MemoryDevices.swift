// Block devices that are memory: zram, brd and pmem.
//
// They have no queue: whoever asks, does the work, be it through the kernel's AIO or not. So a
// request is done at once, by the shorter way. Their names tell them, for they have nothing else in
// common (drivers/block/zram, drivers/block/brd.c, drivers/nvdimm/pmem.c). A zram device that
// writes pages back to a disk would have to wait for them, and is like any other.

import CLibAIO
import JobTable
import Synchronization

/// The device that was looked up last, shifted left, and whether it is memory.
private let lastDevice = Atomic<UInt64>(0)

enum MemoryDevices {
    /// True for the number of a device that is memory; twelve bits for the major and twenty for the
    /// minor, as makedev(3) places them.
    static func contains(_ device: UInt64) -> Bool {
        let known = lastDevice.load(ordering: .relaxed)
        if known >> 1 == device { return known & 1 != 0 }
        let isMemory = isInMemory(device)
        lastDevice.store(device << 1 | (isMemory ? 1 : 0), ordering: .relaxed)
        return isMemory
    }

    /// What a link leads to, and at least 16 zeros after it.
    private typealias Target = InlineArray<256, UInt8>

    private static func isInMemory(_ device: UInt64) -> Bool {
        var path = ShortPath("/sys/dev/block/")
        path.append(UInt32(truncatingIfNeeded: (device >> 8) & 0xfff))
        path.append(":")
        path.append(UInt32(truncatingIfNeeded: device & 0xff | (device >> 12) & 0xfff00))
        var target = Target(repeating: 0)
        let room = target.count &- 16
        let length = withAddress(of: &target) { path.readLink(into: $0, room: room) }
        if length <= 0 || length >= room { return false }
        var start = length
        while start > 0 && target[start &- 1] != 47 { start &-= 1 }
        if !(begins(target, start, "zram") || begins(target, start, "ram")
            || begins(target, start, "pmem"))
        {
            return false
        }
        // "none", or no such file where the kernel cannot write back.
        path.append("/backing_dev")
        var backing = InlineArray<4, UInt8>(repeating: 0)
        let read = withAddress(of: &backing) { path.readFile(into: $0, room: 4) }
        return read == failure(ENOENT)
            || read == 4 && backing[0] == 110 && backing[1] == 111 && backing[3] == 101
    }

    /// True when the text at `start` is that word and a number.
    private static func begins(
        _ text: Target, _ start: Int, _ word: StaticString
    ) -> Bool {
        let count = word.utf8CodeUnitCount
        for index in 0..<count where unsafe word.utf8Start[index] != text[start &+ index] {
            return false
        }
        let digit = text[start &+ count]
        return digit >= 48 && digit <= 57
    }
}
