// What else a process does around its contexts: shared memory with a child, identities,
// cancellation of threads, priorities, and memory that is locked or advised away.

import CTestBed
import CLibAIO
import Glibc
import TestBed

enum ProcessCases {
    /// What a child that shares memory is told, and what it found.
    private final class Shared {
        let scene: Scene
        let context: UInt
        let list = UnsafeMutablePointer<UInt>.allocate(capacity: 1)
        var result = 0

        init(_ scene: Scene, _ context: UInt, _ request: Request) {
            (self.scene, self.context) = (scene, context)
            list.pointee = request.address
            request.remember([:])
        }

        static let submit: @convention(c) (UnsafeMutableRawPointer?) -> Int32 = {
            let it = Unmanaged<Shared>.fromOpaque($0!).takeUnretainedValue()
            it.result = it.scene.aio.submit(it.context, 1, UInt(bitPattern: it.list))
            return 0
        }
    }

    private static func submitted(
        _ name: String,
        _ start:
            @escaping @Sendable (
                @convention(c) (UnsafeMutableRawPointer?) -> Int32,
                UnsafeMutableRawPointer
            ) -> Int32
    ) -> Case {
        Case("process/\(name)-shares-contexts") { s in
            let context = s.setup()
            let shared = Shared(s, context, s.pread(try s.regular(), 5))
            let child = start(Shared.submit, Unmanaged.passUnretained(shared).toOpaque())
            s.line("child \(s.ending(of: child))")
            s.record("io_submit in the child", shared.result)
            s.line("events: \(s.quietEvents(context, least: 1, most: 1, seconds: 2).result)")
            s.run(context, s.fsync(try s.regular(name: "other")))
            s.destroy(context)
        }
    }

    static let all: [Case] = [
        submitted("vfork") { testbed_vfork($0, $1) },
        submitted("clone-vm") { testbed_clone_vm($0, $1) },
        Case("process/another-user-after-setup") { s in
            try s.needRoot()
            let file = try s.direct()
            let context = s.setup(64)
            s.run(context, s.pread(file))
            s.record("setuid", Int(setuid(65534)))
            s.submit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
            s.reap(context, 9)
            s.run(context, s.pwrite(file))
            s.destroy(context)
            s.run(s.setup(), s.pread(file))
        },
        Case("process/working-folder-removed") { s in
            let file = try s.direct()
            mkdir("\(s.folder)/gone", 0o700)
            chdir("\(s.folder)/gone")
            rmdir("\(s.folder)/gone")
            s.run(s.setup(), s.pread(file))
        },
        Case("process/root-changed") { s in
            try s.needRoot()
            let file = try s.direct()
            s.record("chroot", Int(chroot(s.folder)))
            let context = s.setup(64)
            s.submit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
            s.reap(context, 9)
        },
        Case("process/thread-is-not-cancelled-in-the-call") { s in
            let context = s.setup()
            let thread = Worker {
                let (result, _) = s.quietEvents(context, least: 1, most: 1, seconds: 0.3)
                s.record("io_getevents", result)
            }
            Clock.sleep(0.1)
            thread.cancel()
            s.fact("ended", thread.join(seconds: 2))
        },
        Case("process/submitter-at-low-priority") { s in
            let context = s.setup(64)
            let file = try s.direct()
            nice(19)
            s.submit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) })
            s.reap(context, 8)
        },
        Case("process/all-memory-locked") { s in
            let context = s.setup(64)
            let file = try s.direct()
            mlockall(Int32(MCL_CURRENT) | Int32(MCL_FUTURE))
            s.submit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
            s.reap(context, 9)
            s.run(s.setup(64), s.pread(file))
        },
        Case("process/buffer-unmapped-while-reading") { s in
            let context = s.setup(64)
            let file = try s.direct()
            let room = mmap(
                nil, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            let request = s.request(Int(IOCB_CMD_PREAD), file, count: 65536)
            request.iocb.pointee.aio_buf = UInt64(UInt(bitPattern: room))
            s.submit(context, request)
            // Not a hole, into which a thread's stack could come: a layer that reads later than
            // io_submit writes to whatever is there by then.
            mmap(room, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
            let events = s.quietEvents(context, least: 1, most: 1, seconds: 3).events
            // Whether the pages were pinned in time is a race; that an event comes is not.
            s.line("events: \(events.count)")
            s.fact("read or refused", events.allSatisfy { $0.res == 65536 || $0.res == -14 })
        },
        Case("process/timers-and-alarms-undisturbed") { s in
            testbed_catch(SIGALRM, SA_RESTART)
            let context = s.setup(64)
            let file = try s.direct()
            alarm(1)
            for _ in 0..<20 {
                _ = s.quietSubmit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) })
                _ = s.quietEvents(context, least: 8, most: 8, seconds: 2)
            }
            s.fact("the alarm is still to come", testbed_caught() == 0 && alarm(0) > 0)
        },
        Case("process/children-are-not-ours") { s in
            testbed_catch(SIGCHLD, 0)
            let context = s.setup(64)
            let file = try s.direct()
            s.submit(context, (0..<8).map { s.pread(file, 4096, at: $0 * 4096) } + [s.fsync(file)])
            s.reap(context, 9)
            var status: Int32 = 0
            s.record("waitpid", Int(waitpid(-1, &status, WNOHANG)) < 0 ? -Int(errno) : 0)
            s.line("signals caught: \(testbed_caught())")
        },
    ]
}
