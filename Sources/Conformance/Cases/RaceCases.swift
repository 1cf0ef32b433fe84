// Calls that meet each other. Each case repeats, within a bound, and writes down what must hold for
// every order in which they can meet.

import CTestBed
import CLibAIO
import Glibc
import TestBed

enum RaceCases {
    static let all: [Case] = [
        Case("race/poll-wake-against-submit") { s in
            var wrong = 0
            let context = s.setup()
            let counter = try s.counter(flags: Int32(EFD_NONBLOCK))
            for round in 0..<300 {
                let waker = Worker {
                    if round % 3 == 0 { sched_yield() }
                    counter.feed()
                }
                if s.quietSubmit(context, [s.poll(counter, POLLIN)]) != 1 { wrong += 1 }
                let events = s.quietEvents(context, least: 1, most: 1, seconds: 2).events
                if events.first.map({ $0.res & 1 }) != 1 { wrong += 1 }
                try waker.end()
                counter.drain()
            }
            s.line("wrong: \(wrong)")
        },
        Case("race/poll-cancel-against-wake") { s in
            var wrong = 0
            let context = s.setup()
            let counter = try s.counter(flags: Int32(EFD_NONBLOCK))
            for _ in 0..<300 {
                let request = s.poll(counter, POLLIN)
                _ = s.quietSubmit(context, [request])
                let waker = Worker { counter.feed() }
                let answer = s.aio.cancel(context, request.address, 0)
                if answer != -Int(EINVAL) && answer != -Int(EINPROGRESS) { wrong += 1 }
                // One event in any case, and not a second one.
                let events = s.quietEvents(context, least: 1, most: 2, seconds: 2).events
                if events.count != 1 { wrong += 1 }
                try waker.end()
                wrong += s.quietEvents(context, least: 0, most: 2, seconds: 0).events.count
                counter.drain()
            }
            s.line("wrong: \(wrong)")
        },
        Case("race/destroy-against-sleeper") { s in
            var wrong = 0
            for round in 0..<60 {
                var context: UInt = 0
                if s.quietSetup(4, &context) != 0 { wrong += 1 }
                let own = context
                let destroyer = Worker {
                    if round % 2 == 0 { usleep(UInt32(round * 10)) }
                    if s.aio.destroy(own) != 0 { wrong += 1 }
                }
                let (result, _) = s.quietEvents(context, least: 1, most: 1, seconds: 3)
                if result != -Int(EINVAL) { wrong += 1 }
                try destroyer.end()
            }
            s.line("wrong: \(wrong)")
        }.limit(seconds: 25),
        Case("race/destroy-twice-at-once") { s in
            var wrong = 0
            for _ in 0..<60 {
                var context: UInt = 0
                _ = s.quietSetup(4, &context)
                let own = context
                nonisolated(unsafe) var other = 0
                let destroyer = Worker { other = s.aio.destroy(own) }
                let mine = s.aio.destroy(own)
                try destroyer.end()
                if [mine, other].sorted() != [-Int(EINVAL), 0] { wrong += 1 }
            }
            s.line("wrong: \(wrong)")
        }.limit(seconds: 25),
        Case("race/destroy-against-submit") { s in
            var wrong = 0
            let file = try s.regular()
            for _ in 0..<40 {
                var context: UInt = 0
                _ = s.quietSetup(32, &context)
                let own = context
                let destroyer = Worker { _ = s.aio.destroy(own) }
                let request = s.pread(file, 512)
                for _ in 0..<60 {
                    let result = s.quietSubmit(own, [request])
                    if result != 1 && result != -Int(EINVAL) && result != -Int(EAGAIN) {
                        wrong += 1
                    }
                }
                try destroyer.end()
                if s.quietSubmit(own, [request]) != -Int(EINVAL) { wrong += 1 }
            }
            s.line("wrong: \(wrong)")
        }.limit(seconds: 25),
        Case("race/setup-and-destroy-in-threads") { s in
            nonisolated(unsafe) var wrong = 0
            let workers = (0..<4).map { _ in
                Worker {
                    for _ in 0..<25 {
                        var context: UInt = 0
                        if s.quietSetup(2, &context) != 0 { wrong += 1 }
                        if s.aio.destroy(context) != 0 { wrong += 1 }
                    }
                }
            }
            for worker in workers { try worker.end(seconds: 20) }
            s.line("wrong: \(wrong)")
        }.limit(seconds: 25),
        Case("race/slots-at-a-full-ring") { s in
            // Two threads submit, one reaps: every accepted request has one event, whatever EAGAIN.
            let context = s.setup(1)
            let file = try s.regular()
            let accepted = UnsafeMutablePointer<Int>.allocate(capacity: 2)
            accepted.initialize(repeating: 0, count: 2)
            nonisolated(unsafe) var odd = 0
            let until = Clock.now + 0.5
            let workers = (0..<2).map { index in
                let request = s.pread(file, 8, at: index)
                request.iocb.pointee.aio_data = UInt64(index)
                request.remember([:])
                return Worker {
                    var address = request.address
                    while Clock.now < until {
                        let result = withUnsafeMutablePointer(to: &address) {
                            s.aio.submit(context, 1, UInt(bitPattern: $0))
                        }
                        if result == 1 {
                            accepted[index] += 1
                        } else if result != -Int(EAGAIN) {
                            odd += 1
                        }
                    }
                }
            }
            var seen = [0, 0]
            var most = 0
            let nr = Int(RingView(context).nr)
            func take(_ events: [io_event]) {
                for event in events { seen[Int(event.data & 1)] += 1 }
            }
            while Clock.now < until {
                most = max(most, Int(RingView(context).count))
                take(s.quietEvents(context, least: 0, most: 200, seconds: 0).events)
            }
            for worker in workers { try worker.end() }
            while true {
                let got = s.quietEvents(context, least: 0, most: 200, seconds: 0).events
                if got.isEmpty { break }
                take(got)
            }
            s.fact("every request has its event", seen == [accepted[0], accepted[1]])
            s.fact("never more than the slots", most < nr)
            s.line("odd answers: \(odd)")
        },
        Case("race/two-reapers") { s in
            let context = s.setup(64)
            let file = try s.regular()
            let requests = (0..<10).map { s.pread(file, 8, at: $0) }
            let seen = UnsafeMutablePointer<Int>.allocate(capacity: 2)
            seen.initialize(repeating: 0, count: 2)
            nonisolated(unsafe) var stop = false
            let reapers = (0..<2).map { index in
                Worker {
                    while true {
                        let (result, _) = s.quietEvents(context, least: 1, most: 3, seconds: 0.05)
                        if result > 0 { seen[index] += result }
                        if result == 0 && stop { break }
                    }
                }
            }
            var sent = 0
            for _ in 0..<300 {
                let result = s.quietSubmit(context, requests)
                if result > 0 { sent += result } else { usleep(100) }
            }
            Clock.sleep(0.05)
            stop = true
            for reaper in reapers { try reaper.end() }
            s.fact("every event once", seen[0] + seen[1] == sent)
        },
        Case("race/ring-reader-against-submitter") { s in
            // A program that only looks at the ring sees each event once and whole.
            let context = s.setup(16)
            let ring = RingView(context)
            let file = try s.regular()
            nonisolated(unsafe) var sent = 0
            nonisolated(unsafe) var done = false
            let request = s.pread(file, 8)
            request.remember([:])
            let submitter = Worker {
                var address = request.address
                let until = Clock.now + 0.4
                while Clock.now < until {
                    request.iocb.pointee.aio_data = UInt64(sent)
                    let result = withUnsafeMutablePointer(to: &address) {
                        s.aio.submit(context, 1, UInt(bitPattern: $0))
                    }
                    if result == 1 { sent += 1 }
                }
                done = true
            }
            var (seen, wrong) = (0, 0)
            while true {
                let last = done
                let events = ring.take()
                for event in events {
                    if event.data != UInt64(seen) || event.res != 8
                        || event.obj != UInt64(request.address)
                    {
                        wrong += 1
                    }
                    seen += 1
                }
                if last && events.isEmpty { break }
            }
            try submitter.end()
            s.fact("all seen", seen == sent)
            s.line("wrong: \(wrong)")
        },
        Case("race/ring-reader-of-direct-reads") { s in
            let context = s.setup(64)
            let ring = RingView(context)
            let file = try s.direct()
            let counter = try s.counter(flags: Int32(EFD_NONBLOCK))
            var (sent, seen, signals) = (0, 0, 0)
            let requests = (0..<16).map { index in
                s.pread(file, 4096, at: index * 4096).change {
                    $0.aio_flags = UInt32(IOCB_FLAG_RESFD)
                    $0.aio_resfd = counter.descriptor
                }
            }
            let until = Clock.now + 3
            for _ in 0..<50 {
                sent += max(s.quietSubmit(context, requests), 0)
                while seen < sent && Clock.now < until { seen += ring.take().count }
            }
            while signals < sent && Clock.now < until {
                var value: UInt64 = 0
                if read(counter.descriptor, &value, 8) == 8 { signals += Int(value) }
            }
            s.line("sent \(sent), seen \(seen), signalled \(signals)")
        },
        Case("race/signal-handler-that-submits") { s in
            final class State {
                var scene: Scene?
                var context: UInt = 0
                var list = UnsafeMutablePointer<UInt>.allocate(capacity: 1)
                var sent = 0
                var odd = 0
            }
            let state = State()
            let context = s.setup(256)
            let file = try s.regular()
            let request = s.pread(file, 8)
            request.remember([:])
            (state.scene, state.context) = (s, context)
            state.list.pointee = request.address
            let raw = Unmanaged.passRetained(state).toOpaque()
            testbed_on_signal(
                SIGALRM, SA_RESTART,
                {
                    let state = Unmanaged<State>.fromOpaque($0!).takeUnretainedValue()
                    let result = state.scene!.aio.submit(
                        state.context, 1, UInt(bitPattern: state.list))
                    if result == 1 {
                        state.sent += 1
                    } else if result != -Int(EAGAIN) {
                        state.odd += 1
                    }
                }, raw)
            testbed_alarm_every(200)
            let own = s.pread(file, 16)
            var (sent, seen, odd) = (0, 0, 0)
            let until = Clock.now + 0.5
            while Clock.now < until {
                let result = s.quietSubmit(context, [own])
                if result == 1 { sent += 1 } else if result != -Int(EAGAIN) { odd += 1 }
                let got = s.quietEvents(context, least: 0, most: 64, seconds: 0).result
                if got >= 0 { seen += got } else if got != -Int(EINTR) { odd += 1 }
            }
            testbed_alarm_every(0)
            while true {
                let got = s.quietEvents(context, least: 0, most: 64, seconds: 0).result
                if got <= 0 { break }
                seen += got
            }
            s.fact("every event once", seen == sent + state.sent)
            s.fact("the handler submitted", state.sent > 0)
            s.line("odd answers: \(odd + state.odd)")
        },
        Case("race/pollers-and-closers") { s in
            let context = s.setup(64)
            var wrong = 0
            for _ in 0..<100 {
                let pipe = try s.pipe()
                _ = s.quietSubmit(context, [s.poll(pipe.reader, POLLIN)])
                let closer = Worker { pipe.writer.close() }
                let events = s.quietEvents(context, least: 1, most: 1, seconds: 2).events
                if events.first.map({ $0.res & 0x10 }) != 0x10 { wrong += 1 }
                try closer.end()
                pipe.reader.close()
            }
            s.line("wrong: \(wrong)")
        },
    ]
}
