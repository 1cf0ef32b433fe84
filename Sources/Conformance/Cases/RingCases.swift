// The ring as programs use it: read without a system call, head moved, everything scribbled over,
// and its mapping protected, moved and taken away.

import CLibAIO
import Glibc
import TestBed

enum RingCases {
    static let all: [Case] = reading + scribbling + mapping

    private static let reading: [Case] = [
        Case("ring/read-without-a-call") { s in
            let context = s.setup()
            let ring = RingView(context)
            let file = try s.regular()
            s.submit(context, s.pread(file), s.pread(file, at: 4096), s.pread(file, at: 8192))
            s.line("head \(ring.head), tail \(ring.tail)")
            s.write(ring.take(), inOrder: true)
            s.line("head \(ring.head), tail \(ring.tail)")
            s.getevents(context, 0, 8, seconds: 0)
        },
        Case("ring/asynchronous-without-a-call") { s in
            let context = s.setup(64)
            let ring = RingView(context)
            let file = try s.direct()
            s.submit(context, (0..<16).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
            wait(for: 17, in: ring)
            s.line("there: \(ring.count)")
            s.write(ring.take())
        },
        Case("ring/poll-wakes-without-a-call") { s in
            let context = s.setup()
            let counter = try s.counter()
            s.submit(context, s.poll(counter, POLLIN))
            s.line("there: \(RingView(context).count)")
            counter.feed()
            wait(for: 1, in: RingView(context))
            s.write(RingView(context).take())
        },
        Case("ring/wraps-around") { s in
            let context = s.setup(1)
            let ring = RingView(context)
            let file = try s.regular()
            let requests = (0..<7).map { s.pread(file, 8, at: $0 * 8) }
            var (seen, wrong) = (0, 0)
            for _ in 0..<500 {
                if s.quietSubmit(context, requests) != 7 { wrong += 1 }
                wait(for: 7, in: ring)
                let events = ring.take()
                seen += events.count
                if events.map(\.data) != requests.map({ UInt64($0.number) }) { wrong += 1 }
            }
            s.line("seen \(seen), wrong \(wrong)")
        },
        Case("ring/both-ways-of-reaping") { s in
            let context = s.setup(1)
            let ring = RingView(context)
            let file = try s.regular()
            let requests = (0..<10).map { s.pread(file, 8, at: $0 * 8) }
            var seen: [UInt64] = []
            for _ in 0..<100 {
                _ = s.quietSubmit(context, requests)
                wait(for: 10, in: ring)
                seen += ring.take(3).map(\.data)
                seen += s.quietEvents(context, least: 1, most: 4, seconds: 1).events.map(\.data)
                seen += ring.take(1).map(\.data)
                seen += s.quietEvents(context, least: 2, most: 9, seconds: 1).events.map(\.data)
            }
            s.line("seen \(seen.count)")
            let expected = (0..<100).flatMap { _ in requests.map { UInt64($0.number) } }
            s.fact("in order", seen == expected)
        },
        Case("ring/head-moved-frees-slots") { s in
            SizingCases.stayOnOneCPU()
            let context = s.setup(1)
            let ring = RingView(context)
            let request = s.pread(try s.regular(), 1)
            var taken = 0
            while s.quietSubmit(context, [request]) == 1 { taken += 1 }
            s.submit(context, request)
            let events = ring.take()
            s.fact("all were there", events.count == taken)
            var again = 0
            while s.quietSubmit(context, [request]) == 1 { again += 1 }
            s.fact("as many again", again == taken)
        },
        Case("ring/tail-only-counts-finished") { s in
            let context = s.setup()
            let trigger = try s.counter()
            let file = try s.regular()
            s.submit(context, s.poll(trigger, POLLIN), s.pread(file))
            s.line("head \(RingView(context).head), tail \(RingView(context).tail)")
            trigger.feed()
            s.reap(context, 2, inOrder: true)
            s.line("head \(RingView(context).head), tail \(RingView(context).tail)")
        },
    ]

    private static func wait(for count: UInt32, in ring: RingView) {
        let deadline = Clock.now + 5
        while ring.count < count && Clock.now < deadline { sched_yield() }
    }

    private static func scribble(
        _ name: String, _ change: @escaping @Sendable (RingView) -> Void
    ) -> Case {
        Case("ring/scribble-\(name)") { s in
            // Large enough that the number of CPUs has no say in the ring's size.
            let context = s.setup(1024)
            let ring = RingView(context)
            let file = try s.regular()
            s.submit(context, s.pread(file, 1), s.pread(file, 2))
            change(ring)
            s.submit(context, s.pread(file, 3))
            s.getevents(context, 0, 8, seconds: 0)
            s.submit(context, s.pread(file, 4))
            s.getevents(context, 0, 8, seconds: 0)
            s.line("head \(ring.head), tail \(ring.tail), nr \(ring.nr)")
            s.destroy(context)
        }
    }

    private static let scribbling: [Case] = [
        scribble("head") { $0.head = 0xdead_beef },
        scribble("head-to-nr") { $0.head = $0.nr },
        scribble("head-beyond-tail") { $0.head = 5 },
        scribble("tail") { $0.tail = 0xdead_beef },
        scribble("tail-to-zero") { $0.tail = 0 },
        scribble("tail-far") { $0.tail = 50 },
        scribble("nr") { $0.nr = 3 },
        scribble("nr-zero") { $0.nr = 0 },
        scribble("magic") { $0.magic = 0 },
        scribble("id") { $0.id = 7 },
        scribble("id-large") { $0.id = 0xffff_ffff },
        scribble("events") {
            memset(UnsafeMutableRawPointer(bitPattern: $0.address + 32 + 64)!, 0xff, 1024)
        },
        scribble("everything") {
            memset(UnsafeMutableRawPointer(bitPattern: $0.address)!, 0xff, 4096)
        },
        Case("ring/id-restored") { s in
            let context = s.setup()
            let ring = RingView(context)
            let file = try s.regular()
            ring.id = 9
            s.submit(context, s.pread(file, 1))
            s.destroy(context)
            ring.id = 0
            s.run(context, s.pread(file, 2))
            s.destroy(context)
        },
        Case("ring/another's-id") { s in
            let (one, two) = (s.setup(), s.setup())
            let file = try s.regular()
            RingView(one).id = RingView(two).id
            s.submit(one, s.pread(file, 1))
            s.run(two, s.pread(file, 2))
        },
        Case("ring/event-overwritten-before-reaping") { s in
            let context = s.setup()
            let request = s.pread(try s.regular(), 5)
            s.submit(context, request)
            let slot = UnsafeMutableRawPointer(bitPattern: context + 32)!
            slot.storeBytes(of: 4242, toByteOffset: 16, as: Int64.self)
            let events = s.quietEvents(context, least: 1, most: 1, seconds: 1).events
            s.line("res \(events.first?.res ?? -1)")
        },
    ]

    // MARK: The mapping

    private static func ringBytes(_ context: UInt) -> Int {
        (Int(RingView(context).nr) * 32 + 32 + 4095) / 4096 * 4096
    }

    private static func move(_ from: UInt, _ old: Int, _ new: Int, _ flags: Int) -> Int {
        ioctx_syscall(Int(SYS_mremap), Int(bitPattern: from), old, new, flags, 0, 0)
    }

    private static let mapping: [Case] = [
        Case("ring/read-only") { s in
            let context = s.setup()
            let file = try s.regular()
            mprotect(UnsafeMutableRawPointer(bitPattern: context), 4096, PROT_READ)
            s.run(context, s.pread(file, 1))
            s.submit(context, s.pread(file, 2))
            s.line("in the ring: \(RingView(context).count)")
            s.getevents(context, 0, 8, seconds: 0)
            s.destroy(context)
        },
        Case("ring/no-access") { s in
            let context = s.setup()
            let file = try s.regular()
            mprotect(UnsafeMutableRawPointer(bitPattern: context), 4096, PROT_NONE)
            s.submit(context, s.pread(file, 1))
            s.getevents(context, 0, 8, seconds: 0)
            s.cancel(context, s.pread(file, 1))
            s.destroy(context)
            mprotect(UnsafeMutableRawPointer(bitPattern: context), 4096, PROT_READ | PROT_WRITE)
            s.run(context, s.pread(file, 1))
        }.strict,
        Case("ring/unmapped") { s in
            let context = s.setup()
            let file = try s.regular()
            munmap(UnsafeMutableRawPointer(bitPattern: context), ringBytes(context))
            s.submit(context, s.pread(file, 1))
            s.getevents(context, 0, 8, seconds: 0)
            s.destroy(context)
            s.run(s.setup(), s.pread(file, 1))
        }.strict,
        Case("ring/unmapped-with-requests") { s in
            let context = s.setup()
            let file = try s.direct()
            let trigger = try s.counter()
            let request = s.pread(file)
            s.submit(context, s.poll(trigger, POLLIN), request)
            munmap(UnsafeMutableRawPointer(bitPattern: context), ringBytes(context))
            trigger.feed()
            Clock.sleep(0.05)
            s.line("data \(request.dataHash)")
            let fresh = s.setup()
            s.run(fresh, s.pread(file))
        },
        Case("ring/moved") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 1))
            let bytes = ringBytes(context)
            let room = mmap(nil, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            let moved = ioctx_syscall(
                Int(SYS_mremap), Int(bitPattern: context), bytes, bytes, 3,
                Int(bitPattern: room), 0)
            s.fact("moved", moved == Int(bitPattern: room))
            let new = UInt(bitPattern: moved)
            s.submit(context, [s.pread(file, 2)], context: "old")
            s.submit(new, [s.pread(file, 3)], context: "new")
            s.reap(new, 2)
            s.destroy(context, "old")
            s.destroy(new, "new")
        }.strict,
        Case("ring/grown") { s in
            let context = s.setup()
            let bytes = ringBytes(context)
            s.fact("grown", move(context, bytes, bytes * 2, 1) > 0)
        }.differs(
            "a mapping of the program's cannot be kept from growing", ("grown: no", "grown: yes")),
        Case("ring/page-dropped") { s in
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 1))
            madvise(UnsafeMutableRawPointer(bitPattern: context), 4096, MADV_DONTNEED)
            s.line("in the ring: \(RingView(context).count)")
            s.submit(context, s.pread(file, 2))
            s.getevents(context, 0, 8, seconds: 0)
        },
        Case("ring/mapping-flags") { s in
            let context = s.setup()
            let start = String(context, radix: 16)
            let words = TextFile.lines("/proc/self/maps").lazy
                .map { $0.split(whereSeparator: { " -".contains($0) }) }
                .first { $0.first.map(String.init) == start }
            s.line("readable and writable: \(words?[2].prefix(2) ?? "")")
        },
    ]
}
