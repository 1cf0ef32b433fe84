// What libaio adds to the system calls: io_queue_*, the old versions of three functions, and that
// no function touches errno. The reference is the system's libaio.

import CLibAIO
import Glibc
import TestBed

enum LibraryCases {
    private typealias Init = @convention(c) (Int32, UInt) -> Int32
    private typealias Release = @convention(c) (UInt) -> Int32
    private typealias Wait = @convention(c) (UInt, UInt) -> Int32
    private typealias OldGetEvents = @convention(c) (UInt, Int, UInt, UInt) -> Int32
    private typealias OldCancel = @convention(c) (UInt, UInt) -> Int32

    static let all: [Case] = (queues + versions + conventions).map(\.ofLibrary)

    private static let queues: [Case] = [
        Case("library/queue-init") { s in
            let queueInit = try s.aio.function("io_queue_init", as: Init.self)
            for count in [8, 1, 0, -1, .min] as [Int32] {
                var context: UInt = 77
                let result = withUnsafeMutablePointer(to: &context) {
                    queueInit(count, UInt(bitPattern: $0))
                }
                s.record("io_queue_init(\(count))", Int(result))
                s.fact("a context", context != 0 && context != 77)
                s.fact("zero", context == 0)
            }
        },
        Case("library/queue-release") { s in
            let release = try s.aio.function("io_queue_release", as: Release.self)
            let context = s.setup()
            s.record("io_queue_release", Int(release(context)))
            s.destroy(context)
        },
        Case("library/queue-run") { s in
            let run = try s.aio.function("io_queue_run", as: Release.self)
            let context = s.setup()
            let file = try s.regular()
            s.record("io_queue_run of none", Int(run(context)))
            let requests = (1...3).map { s.pread(file, $0 * 10) }
            let callback: @convention(c) (UInt, UInt, Int, Int) -> Void = {
                context, iocb, res, res2 in
                let number = UnsafePointer<iocb_alias>(bitPattern: iocb)!.pointee.aio_nbytes
                Transcript.write("L", "callback: \(number) bytes wanted, res \(res), res2 \(res2)")
            }
            for request in requests {
                request.iocb.pointee.aio_data = UInt64(
                    UInt(bitPattern: unsafeBitCast(callback, to: Int.self)))
            }
            s.submit(context, requests)
            s.record("io_queue_run", Int(run(context)))
            s.record("io_queue_run", Int(run(context)))
            s.line("left: \(RingView(context).count)")
        },
        Case("library/queue-wait") { s in
            let wait = try s.aio.function("io_queue_wait", as: Wait.self)
            let context = s.setup()
            s.record("io_queue_wait, none", Int(wait(context, 0)))
            s.submit(context, s.pread(try s.regular(), 5))
            s.record("io_queue_wait, one", Int(wait(context, 0)))
            var time = Clock.timespec(1)
            let start = Clock.now
            s.record(
                "io_queue_wait, timed",
                withUnsafeMutablePointer(to: &time) { Int(wait(context, UInt(bitPattern: $0))) })
            s.fact("took long", Clock.now - start > 0.9)
            s.reap(context, 1)
        },
        Case("library/queue-run-of-a-stale-context") { s in
            let run = try s.aio.function("io_queue_run", as: Release.self)
            let release = try s.aio.function("io_queue_release", as: Release.self)
            s.record("io_queue_release(0)", Int(release(0)))
            let context = s.setup()
            RingView(context).magic = 0
            RingView(context).id = 99
            s.record("io_queue_run", Int(run(context)))
        },
    ]

    private static let versions: [Case] = [
        Case("library/old-getevents") { s in
            let old = try s.aio.function(
                "io_getevents", version: "LIBAIO_0.1", as: OldGetEvents.self)
            let context = s.setup()
            let file = try s.regular()
            s.submit(context, s.pread(file, 5), s.pread(file, 6))
            let room = Buffer(320)
            s.record("io_getevents(ctx, 8, events, NULL)", Int(old(context, 8, room.address, 0)))
            var time = Clock.timespec(0.1)
            let start = Clock.now
            let result = withUnsafeMutablePointer(to: &time) {
                old(context, 8, room.address, UInt(bitPattern: $0))
            }
            s.record("io_getevents(ctx, 8, events, 0.1 s)", Int(result))
            s.fact("waited for one", Clock.now - start >= 0.1)
        },
        Case("library/old-cancel") { s in
            let old = try s.aio.function("io_cancel", version: "LIBAIO_0.1", as: OldCancel.self)
            let context = s.setup()
            let request = s.poll(try s.counter(), POLLIN)
            s.submit(context, request)
            s.record("io_cancel(ctx, iocb)", Int(old(context, request.address)))
            s.reap(context, 1)
            s.record("io_cancel(ctx, iocb)", Int(old(context, request.address)))
        },
        Case("library/old-queue-wait") { s in
            let old = try s.aio.function("io_queue_wait", version: "LIBAIO_0.1", as: Wait.self)
            let context = s.setup()
            s.record("io_queue_wait, none", Int(old(context, 0)))
            s.submit(context, s.pread(try s.regular(), 5))
            s.record("io_queue_wait, one", Int(old(context, 0)))
            s.reap(context, 1)
        },
        Case("library/all-versions-are-there") { s in
            let names = [
                ("io_queue_init", "LIBAIO_0.1"), ("io_queue_run", "LIBAIO_0.1"),
                ("io_queue_wait", "LIBAIO_0.1"), ("io_queue_release", "LIBAIO_0.1"),
                ("io_cancel", "LIBAIO_0.1"), ("io_submit", "LIBAIO_0.1"),
                ("io_getevents", "LIBAIO_0.1"), ("io_setup", "LIBAIO_0.4"),
                ("io_destroy", "LIBAIO_0.4"), ("io_cancel", "LIBAIO_0.4"),
                ("io_getevents", "LIBAIO_0.4"), ("io_queue_wait", "LIBAIO_0.4"),
                ("io_pgetevents", "LIBAIO_0.5"), ("io_pgetevents", "LIBAIO_0.4"),
                ("io_submit", "LIBAIO_0.4"), ("io_setup", "LIBAIO_0.1"),
            ]
            for (name, version) in names {
                let found = try? s.aio.function(name, version: version, as: Release.self)
                s.fact("\(name)@\(version)", found != nil)
            }
        },
    ]

    private static let conventions: [Case] = [
        Case("library/errno-is-not-touched") { s in
            let context = s.setup()
            let closed = s.pread(s.closed())
            errno = 4242
            let results = [
                s.aio.setup(0, 0), s.aio.destroy(0), s.aio.submit(0, 1, 0),
                s.quietSubmit(context, [closed]), s.aio.cancel(context, closed.address, 0),
                s.aio.pgetevents(0, 0, 1, 0, 0, 0),
            ]
            let after = errno
            s.line("results: \(results)")
            s.fact("errno as it was", after == 4242)
        },
        Case("library/loaded-and-unloaded") { s in
            // dlclose must not end what is under way.
            let context = s.setup()
            s.run(context, s.fsync(try s.regular()))
            s.destroy(context)
        },
    ]
}

private typealias iocb_alias = CLibAIO.iocb
