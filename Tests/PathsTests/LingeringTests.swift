// The offers of workers that look at the queue once more.

import Glibc
import JobTable
import TestSupport
import Testing

@testable import Paths

@Suite struct LingeringTests {
    @Test("An offer is taken once: by a submitter, or by who made it") func offers() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            guard let station = makeEngine(.threads).acquireStationForBlocking() else {
                Issue.record("no pool could be started")
                return
            }
            #expect(!station.takeOffer(), "there is none")
            station.offer()
            station.offer()
            #expect(station.takeOffer() && station.takeOffer())
            #expect(!station.takeOffer())
        }
    }

    @Test("Whoever lingers in vain withdraws its offer; when that is taken, it looks again")
    func lingering() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            guard let station = makeEngine(.threads).acquireStationForBlocking() else {
                Issue.record("no pool could be started")
                return
            }
            station.offer()
            #expect(!station.linger())
            #expect(!station.takeOffer(), "it is withdrawn")
            station.offer()
            #expect(station.takeOffer(), "a submitter has queued something")
            #expect(station.linger())
        }
    }

    @Test("Writes one after the other are all done, whoever counts on whom") func counting() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            setenv("IOCTX_WRITES", "async", 1)
            let engine = makeEngine(.threads)
            let file = Files.regular(0)
            let outbox = Outbox.make()
            let buffer = Buffer(64, filledWith: 7)
            for place in 0..<Outbox.places {
                let request = buffer.request(.write, file.number, offset: Int64(place * 64))
                #expect(engine.run(request, to: outbox, at: place).isDeferred)
                outbox.await(UInt32(place + 1))
                #expect(outbox.result(at: place) == 64)
            }
        }
    }
}
