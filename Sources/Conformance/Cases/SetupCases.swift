// io_setup, io_destroy and the look-up of contexts in the other calls.

import CTestBed
import CLibAIO
import Glibc

enum SetupCases {
    static let kernelHalf: UInt = 0xffff_8000_0000_0000

    static let all: [Case] = arguments + lookups + contexts

    private static let arguments: [Case] =
        [
            ("zero", 0), ("minus-one", 0xffff_ffff), ("int-max", 0x7fff_ffff),
            ("int-min", 0x8000_0000),
            ("over-max-nr", 65537), ("largest-before-einval", 4_194_304),
            ("smallest-einval", 4_194_305),
        ].map { (name: String, count: UInt32) in
            Case("setup/count-\(name)") { s in
                s.setup(count)
            }
        } + [
            Case("setup/context-not-zero") { s in
                var context: UInt = 1
                s.record("io_setup(8, &1)", s.quietSetup(8, &context))
                context = s.setup()
                s.record("io_setup(8, &ctx)", s.quietSetup(8, &context))
                s.record("io_setup(0, &ctx)", s.quietSetup(0, &context))
            },
            Case("setup/null-pointer") { s in
                s.record("io_setup(8, NULL)", s.aio.setup(8, 0))
                s.record("io_setup(0, NULL)", s.aio.setup(0, 0))
                s.record("io_setup(-1, NULL)", s.aio.setup(0xffff_ffff, 0))
            },
            Case("setup/kernel-pointer") { s in
                s.record("io_setup(8, kernel half)", s.aio.setup(8, kernelHalf))
                s.record("io_setup(0, kernel half)", s.aio.setup(0, kernelHalf))
            },
            Case("setup/refused-leaves-pointer") { s in
                var context: UInt = 0
                s.record("io_setup(0)", s.quietSetup(0, &context))
                s.fact("still zero", context == 0)
                s.record("io_setup(-1)", s.quietSetup(0xffff_ffff, &context))
                s.fact("still zero", context == 0)
            },
        ]

    /// A context that is none, in every call that takes one.
    private static let notContexts: [(String, @Sendable (Scene) -> UInt)] = [
        ("zero", { _ in 0 }), ("minus-one", { _ in UInt.max }), ("four", { _ in 4 }),
        ("kernel-half", { _ in kernelHalf }),
        (
            "stale",
            { s in
                let context = s.setup()
                s.destroy(context)
                return context
            }
        ),
        ("off-by-one", { s in s.setup() + 1 }),
        ("second-page", { s in s.setup() + 4096 }),
        (
            "own-memory-of-zeros",
            { s in
                let buffer = Buffer(8192)
                memset(buffer.pointer, 0, buffer.count)
                return buffer.address
            }
        ),
        (
            "copy-of-a-ring",
            { s in
                let buffer = Buffer(8192)
                memcpy(buffer.pointer, UnsafeRawPointer(bitPattern: s.setup())!, 4096)
                return buffer.address
            }
        ),
    ]

    private static let lookups: [Case] = notContexts.map { name, make in
        Case("lookup/\(name)") { s in
            let context = make(s)
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, [request], context: "it")
            s.submit(context, [], context: "it")
            s.submit(context, [s.pread(s.closed())], context: "it")
            s.record("io_submit(it, -1)", s.aio.submit(context, -1, 0))
            s.getevents(context, 0, 1, seconds: 0)
            s.getevents(context, 0, 0, seconds: nil)
            s.getevents(context, 2, 1, seconds: 0)
            s.record("io_pgetevents(it)", s.aio.pgetevents(context, 0, 1, 0, 0, 0))
            s.cancel(context, request)
            s.destroy(context, "it")
        }
    }

    private static let contexts: [Case] = [
        Case("setup/ids-count-up") { s in
            let contexts = (0..<20).map { _ -> UInt in
                var context: UInt = 0
                _ = s.quietSetup(1, &context)
                return context
            }
            s.line("ids: \(contexts.map { RingView($0).id })")
            s.destroy(contexts[3])
            s.destroy(contexts[7])
            var again: UInt = 0
            _ = s.quietSetup(1, &again)
            s.line("after two were destroyed: \(RingView(again).id)")
        },
        Case("setup/ring-header") { s in
            let ring = RingView(s.setup())
            s.line("magic \(String(ring.magic, radix: 16)), compat \(ring.compat)")
            s.line("incompat \(ring.incompat), header \(ring.headerLength)")
            s.line("id \(ring.id), head \(ring.head), tail \(ring.tail)")
        },
        Case("destroy/twice") { s in
            let context = s.setup()
            s.destroy(context)
            s.destroy(context)
        },
        Case("destroy/many-rounds") { s in
            var refused = 0
            for _ in 0..<50 {
                var context: UInt = 0
                if s.quietSetup(4, &context) != 0 || s.aio.destroy(context) != 0 { refused += 1 }
            }
            s.line("refused: \(refused)")
        },
    ]
}

/// The ring at a context's address, as programs read it.
struct RingView {
    let address: UInt

    init(_ context: UInt) {
        address = context
    }

    private func field(_ index: UInt) -> UInt32 {
        testbed_load(UnsafeRawPointer(bitPattern: address + index * 4))
    }

    private func set(_ index: UInt, _ value: UInt32) {
        testbed_store(UnsafeMutableRawPointer(bitPattern: address + index * 4), value)
    }

    var id: UInt32 {
        get { field(0) }
        nonmutating set { set(0, newValue) }
    }
    var nr: UInt32 {
        get { field(1) }
        nonmutating set { set(1, newValue) }
    }
    var head: UInt32 {
        get { field(2) }
        nonmutating set { set(2, newValue) }
    }
    var tail: UInt32 {
        get { field(3) }
        nonmutating set { set(3, newValue) }
    }
    var magic: UInt32 {
        get { field(4) }
        nonmutating set { set(4, newValue) }
    }
    var compat: UInt32 { field(5) }
    var incompat: UInt32 { field(6) }
    var headerLength: UInt32 { field(7) }

    /// Events that are there and not yet taken.
    var count: UInt32 {
        let (nr, head, tail) = (nr, head, tail)
        return nr == 0 ? 0 : (tail + nr - head % nr) % nr
    }

    func event(_ index: UInt32) -> io_event {
        UnsafeRawPointer(bitPattern: address + 32 + UInt(index) * 32)!.load(as: io_event.self)
    }

    /// Takes events as QEMU does: without a system call, by moving head.
    func take(_ most: Int = .max) -> [io_event] {
        var events: [io_event] = []
        var head = head
        while head != tail && events.count < most {
            events.append(event(head))
            head = (head + 1) % nr
        }
        self.head = head
        return events
    }
}
