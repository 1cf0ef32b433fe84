// The lock, and what a thread knows of itself.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

private struct Guarded: ~Copyable {
    let lock = FutexLock()
    var value = 0
    let word = Atomic<UInt32>(0)
}

private func makeGuarded() -> Ref<Guarded> {
    let record = Memory.record(Guarded.self)!
    record.pointer.initialize(to: Guarded())
    return record
}

@Suite struct FutexLockTests {
    /// A plain addition under the lock: two holders at once lose one, and ThreadSanitizer tells.
    @Test("The lock has one holder at a time, also when others sleep over it")
    func mutualExclusion() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let guarded = makeGuarded()
            concurrently(4) { thread in
                for round in 0..<20_000 {
                    guarded.it.lock.lock()
                    let before = guarded.it.value
                    // Now and then hold it long enough for the others to fall asleep.
                    if thread == 0 && round % 1000 == 0 { usleep(100) }
                    guarded.it.value = before + 1
                    guarded.it.lock.unlock()
                }
            }
            #expect(guarded.it.value == 80_000)
        }
    }

    @Test("Zeroed memory is a free lock") func zeroIsFree() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let guarded = Memory.record(Guarded.self)!
            guarded.it.lock.lock()
            guarded.it.lock.unlock()
        }
    }

    @Test("A call that interrupted a critical section of this very thread knows it")
    func criticalSectionsAreCounted() {
        let outer = makeGuarded()
        let inner = makeGuarded()
        #expect(!CurrentThread().interruptedLayer)
        outer.it.lock.lock()
        #expect(CurrentThread().interruptedLayer)
        var elsewhere = true
        concurrently(1) { _ in elsewhere = CurrentThread().interruptedLayer }
        #expect(!elsewhere, "another thread has interrupted nothing")
        inner.it.lock.lock()
        inner.it.lock.unlock()
        #expect(CurrentThread().interruptedLayer, "the outer lock is still held")
        outer.it.lock.unlock()
        #expect(!CurrentThread().interruptedLayer)
    }

    @Test("A call inside a call is nested; daemons know their station, threads their context")
    func calls() {
        concurrently(1) { _ in
            let thread = CurrentThread()
            #expect(!thread.isNested && thread.station == 0 && thread.context == 0)
            thread.enterCall()
            #expect(!thread.isNested)
            thread.enterCall()
            #expect(thread.isNested)
            thread.leaveCall()
            #expect(!thread.isNested)
            thread.leaveCall()
            thread.station = 7
            thread.context = 8
            #expect(CurrentThread().station == 7 && CurrentThread().context == 8)
        }
        #expect(CurrentThread().station == 0)
    }

    @Test("A hint is doubted once in 61 requests of a thread") func doubts() {
        concurrently(1) { _ in
            let doubts = (0..<610).filter { _ in CurrentThread().isTimeToDoubt() }
            #expect(doubts.count == 10)
        }
    }
}

@Suite struct FutexTests {
    @Test("A wait ends at once when the word has changed, and at its deadline otherwise")
    func results() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let guarded = makeGuarded()
            #expect(guarded.it.word.wait(while: 1, until: .max) == failure(EAGAIN))
            #expect(guarded.it.word.wait(while: 0, until: 0) == failure(ETIMEDOUT))
            let deadline = System.monotonicNs() + 5_000_000
            #expect(guarded.it.word.wait(while: 0, until: deadline) == failure(ETIMEDOUT))
            #expect(System.monotonicNs() >= deadline)
        }
    }

    @Test("A waiter without a deadline is woken") func wake() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let guarded = makeGuarded()
            concurrently(3) { thread in
                if thread > 0 {
                    while guarded.it.word.load(ordering: .acquiring) == 0 {
                        _ = guarded.it.word.wait(while: 0, until: .max)
                    }
                    return
                }
                usleep(10_000)
                guarded.it.word.store(1, ordering: .releasing)
                guarded.it.word.wake()
            }
        }
    }
}
