// How io_setup's argument becomes a ring, and how many requests the ring takes.
//
// The numbers depend on the machine's CPUs, so what is written down is whether they follow the
// kernel's rule: e = max(n, 4 CPUs) * 2 + 2 events and a header, rounded up to pages.

import CLibAIO
import CTestBed
import Glibc
import TestBed

enum SizingCases {
    static let all: [Case] = rings + capacities + quota

    private static let counts: [UInt32] = [
        1, 2, 7, 16, 32, 63, 64, 100, 127, 128, 256, 1000, 1024, 2047, 4096, 10000,
    ]

    private static func slots(for count: UInt32) -> UInt32 {
        let cpus = UInt32(possibleCPUs())
        let events = max(count, 4 * cpus) * 2 + 2
        let pages = (32 + 32 * events + 4095) / 4096
        return (pages * 4096 - 32) / 32
    }

    /// sysconf counts those that are there; the kernel those that may come.
    private static func possibleCPUs() -> Int {
        let file = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC)
        var text = [UInt8](repeating: 0, count: 64)
        let got = read(file, &text, text.count)
        close(file)
        let last = String(decoding: text.prefix(max(got - 1, 0)), as: UTF8.self)
            .split { "-,".contains($0) }.last.flatMap { Int($0) }
        return (last ?? sysconf(Int32(_SC_NPROCESSORS_CONF)) - 1) + 1
    }

    private static let rings: [Case] = counts.map { count in
        Case("sizing/ring-\(count)") { s in
            let ring = RingView(s.setup(count))
            s.fact("nr follows the rule", ring.nr == slots(for: count))
        }
    }

    /// A layer may give every slot; the kernel rounds down to batches per CPU.
    private static let capacities: [Case] = [1, 64, 128, 256].map { (count: UInt32) in
        Case("sizing/capacity-\(count)") { s in
            stayOnOneCPU()
            let context = s.setup(count)
            let file = try s.regular()
            let request = s.pread(file, 1)
            let all = slots(for: count) - 1
            let batch = max(1, all / (4 * UInt32(possibleCPUs())))
            var taken: UInt32 = 0
            while taken <= all, s.quietSubmit(context, [request]) == 1 { taken += 1 }
            s.fact("as many as the slots", taken <= all && taken >= all / batch * batch)
            s.submit(context, request)
            s.line("taken back: \(s.quietEvents(context, least: 1, most: 1, seconds: 0).result)")
            var again = 0
            while again < 4 * Int(batch), s.quietSubmit(context, [request]) == 1 { again += 1 }
            s.fact("a slot came free, at the latest with a batch", again <= Int(batch))
            let (got, _) = s.quietEvents(context, least: 1, most: Int(all) + 5, seconds: 0)
            s.fact("all events were there", got == Int(taken) - 1 + again)
            s.run(context, request)
        }
    }

    static func stayOnOneCPU() {
        var set = cpu_set_t()
        set.__bits.0 = 1
        sched_setaffinity(0, MemoryLayout<cpu_set_t>.size, &set)
    }

    private static let quota: [Case] = [
        Case("sizing/submit-is-clamped") { s in
            stayOnOneCPU()
            let context = s.setup(4)
            let file = try s.regular()
            let list = (0..<3000).map { _ in s.pread(file, 1) }
            let nr = Int(RingView(context).nr)
            let taken = s.quietSubmit(context, list)
            s.fact("no more than the ring holds", taken > nr / 2 && taken < nr)
            s.line("events: \(s.quietEvents(context, least: 1, most: 1, seconds: 0).result)")
        },
        Case("sizing/submit-of-many-in-pieces") { s in
            let context = s.setup(4)
            let file = try s.regular()
            let list = (0..<1000).map { _ in s.pread(file, 1) }
            var (sent, seen) = (0, 0)
            while sent < list.count {
                let result = s.quietSubmit(context, Array(list[sent...]))
                if result < 0 && result != -Int(EAGAIN) { break }
                sent += max(result, 0)
                seen += max(s.quietEvents(context, least: 0, most: 500, seconds: 0).result, 0)
            }
            seen += max(s.quietEvents(context, least: 0, most: 500, seconds: 0).result, 0)
            s.line("sent \(sent), seen \(seen)")
        },
        // What other programs hold counts in the kernel and not in the layer: it must be nothing.
        Case("quota/whole") { s in
            let most = try wholeQuota(s)
            var whole: UInt = 0
            var one: UInt = 0
            s.record("io_setup(all)", s.quietSetup(UInt32(most), &whole))
            s.record("io_setup(1)", s.quietSetup(1, &one))
            s.destroy(whole)
            s.record("io_setup(1)", s.quietSetup(1, &one))
            s.record("io_setup(all)", s.quietSetup(UInt32(most), &whole))
            s.destroy(one)
            s.record("io_setup(all)", s.quietSetup(UInt32(most), &whole))
        }.alone,
        Case("quota/counts-what-was-asked") { s in
            let most = try wholeQuota(s)
            var contexts = [UInt](repeating: 0, count: 5)
            for index in 0..<4 {
                s.record("io_setup(a quarter)", s.quietSetup(UInt32(most / 4), &contexts[index]))
            }
            s.record("io_setup(1)", s.quietSetup(1, &contexts[4]))
            s.destroy(contexts[2])
            s.record("io_setup(a quarter + 1)", s.quietSetup(UInt32(most / 4 + 1), &contexts[4]))
            s.record("io_setup(a quarter)", s.quietSetup(UInt32(most / 4), &contexts[4]))
        }.alone,
        Case("quota/refused-by-pointer-is-given-back") { s in
            let most = try wholeQuota(s)
            var whole: UInt = 0
            let page = mmap(nil, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            s.record("io_setup(all, read-only)", s.aio.setup(UInt32(most), UInt(bitPattern: page)))
            s.record("io_setup(all)", s.quietSetup(UInt32(most), &whole))
        }.strict.alone,
        Case("quota/much-over") { s in
            let most = try numberIn("/proc/sys/fs/aio-max-nr")
            guard most < 1 << 22 else { throw Skip("aio-max-nr is too large") }
            var context: UInt = 0
            s.record("io_setup(max + 1)", s.quietSetup(UInt32(most + 1), &context))
        },
    ]

    /// All of fs.aio-max-nr, which the reference shares with other programs.
    private static func wholeQuota(_ s: Scene) throws -> Int {
        let most = try numberIn("/proc/sys/fs/aio-max-nr")
        guard most <= 1 << 20 else { throw Skip("aio-max-nr is too large") }
        if try !s.isLibrary && numberIn("/proc/sys/fs/aio-nr") != 0 {
            throw Skip("other programs hold contexts")
        }
        return most
    }

    static func numberIn(_ path: String) throws -> Int {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw Skip("cannot read \(path)") }
        defer { close(file) }
        var text = [UInt8](repeating: 0, count: 64)
        let got = read(file, &text, text.count)
        let digits = String(decoding: text.prefix(max(got, 0)), as: UTF8.self).prefix { $0 != "\n" }
        return Int(digits) ?? 0
    }
}
