// io_getevents and io_pgetevents: reaping events, and sleeping until there are enough.

import CLibAIO
import JobTable
import Paths
import Synchronization

/// What one call of io_getevents or io_pgetevents wants.
struct Reaping {
    let context: ContextRef
    let minimum: Int
    let maximum: Int
    let events: UInt
    /// On the monotonic clock; 0: do not wait, UInt64.max: for ever.
    var deadlineNs: UInt64
    /// Address of a signal mask of eight bytes, or 0.
    let sigmask: UInt
    /// Address of the program's timespec, or 0.
    let timeout: UInt
    var taken = 0

    /// Events still wanted before the call may return, for a sleep: half of the ring at most, which
    /// are then taken, so that it does not fill up.
    var wanted: UInt32 {
        UInt32(clamping: min(minimum &- taken, Int(context.it.ring.nr) / 2))
    }
}

extension Ref where Pointee == LinuxFace {
    /// The deadline for a relative time-out. fs/aio.c does not check the values: a negative time
    /// means for ever, too many seconds do (ktime_set), and sums may wrap around.
    static func deadline(_ timeout: timespec) -> UInt64 {
        let secondsMax = Int64.max / 1_000_000_000
        if Int64(timeout.tv_sec) >= secondsMax { return .max }
        let relative = Int64(timeout.tv_sec) &* 1_000_000_000 &+ Int64(timeout.tv_nsec)
        if relative < 0 { return .max }
        if relative == 0 { return 0 }
        return System.monotonicNs() &+ UInt64(relative)
    }

    /// The usual cases of io_getevents: enough events are there, or none are wanted, or the kernel
    /// has to be asked. The result, or nil where it takes a longer look.
    @inline(__always)
    func takeReady(
        _ address: UInt, _ minimum: Int, _ maximum: Int, _ events: UInt, timeout: UInt
    ) -> Int? {
        // A negative minimum is, without its sign, greater than every maximum that is not.
        if maximum <= 0 || UInt(bitPattern: minimum) > UInt(bitPattern: maximum) || !it.isUsual
            || Memory.isOutsideUserSpace(events)
        {
            return nil
        }
        guard let context = findUnpinned(address) else { return nil }
        context.it.lock.lock()
        if !context.isLocked(named: address) {
            return reapLocked(context, address, minimum, maximum, events, timeout: timeout)
        }
        context.expectCalls()
        let taken = context.it.ring.take(into: events, count: maximum, minimum: minimum)
        let isAll = context.it.overdue == 0 && context.it.kernelJobs == 0
        if taken &+ Int(context.it.overdue) >= Context.plenty { context.expectReaping() }
        context.it.lock.unlock()
        if taken == 0 && (minimum > 0 || !isAll) { return nil }
        it.engine.startReads()
        return taken
    }

    /// The same of a record whose lock is held, and given back: that of an adopted context perhaps.
    @inline(never)
    private func reapLocked(
        _ context: ContextRef, _ address: UInt, _ minimum: Int, _ maximum: Int, _ events: UInt,
        timeout: UInt
    ) -> Int? {
        if !context.isAdopted || context.isDying
            || context.it.address.load(ordering: .relaxed) != address
        {
            context.it.lock.unlock()
            return nil
        }
        // Before the lock is free again, which whoever frees the record takes.
        context.it.pins.wrappingAdd(1, ordering: .sequentiallyConsistent)
        rememberInThread(context)
        let result = reapAdoptedLocked(
            Reaping(
                context: context, minimum: minimum, maximum: maximum, events: events,
                deadlineNs: 0, sigmask: 0, timeout: timeout))
        if isStillThere { unpin(context) }
        return result
    }

    /// Reaps from a pinned context. The number of events, or a negated errno.
    func reap(_ reaping: inout Reaping) -> Int {
        var mayTakeFromKernel = true
        var mayRead = true
        var mayWatch = true
        var hasSlept = false
        // A handler may have interrupted the very thread that takes events.
        var mayAwaitTaker = CurrentThread().isNested ? 0 : 10
        reaping.context.expectCalls()
        while true {
            let context = reaping.context
            context.it.lock.lock()
            if context.isAdopted { return reapAdoptedLocked(reaping) }
            if context.isDying {
                context.it.lock.unlock()
                return reaping.taken > 0 ? reaping.taken : failure(EINVAL)
            }
            // A poll (zero time-out, or no minimum) waits for nothing but what the kernel would
            // have had ready.
            let isPoll = reaping.deadlineNs == 0 || reaping.minimum == 0
            // Who sleeps is woken for what others want, too, and leaves it to them until there are
            // enough for him (fs/aio.c, aio_complete).
            let mustLeave = hasSlept && !isPoll && context.it.ring.available < reaping.wanted
            let result = mustLeave ? 0 : takeLocked(&reaping)
            // Before any return: the kernel's io_getevents takes what is there, with no minimum,
            // too.
            if result >= 0 && reaping.taken < reaping.maximum
                && (mayTakeFromKernel || isPoll && reaping.taken == 0 && mayAwaitTaker > 0)
                && context.it.kernelJobs > 0 && it.engine.hasKernelEvents()
            {
                context.it.lock.unlock()
                if mayTakeFromKernel {
                    // Nothing, when somebody else is at it.
                    mayTakeFromKernel = it.engine.takeKernelEvents() > 0
                } else {
                    // He is quick, and a poll finds what was there when it began.
                    mayAwaitTaker &-= 1
                    System.sleep(nanoseconds: 20_000)
                }
                continue
            }
            if result < 0 || reaping.taken >= reaping.minimum && !mustAwaitOverdue(reaping) {
                context.it.lock.unlock()
                return finish(reaping, result)
            }
            mayTakeFromKernel = true
            if isPoll && !mustAwaitOverdue(reaping) {
                context.it.lock.unlock()
                return finish(reaping, 0)
            }
            if context.it.overdue > 0 { context.expectReaping() }
            if mayRead && isEndedByOverdueLocked(reaping) {
                let isLone = context.it.jobs == 1
                context.it.lock.unlock()
                mayRead = doColdReads(of: context, isLone: isLone)
                if !isStillThere { return failure(EINTR) }
                continue
            }
            mayRead = true
            hasSlept = true
            let slept: Int
            if reaping.sigmask != 0 && !isPoll {
                slept = sleepMaskedLocked(reaping)
            } else if mayWatch && !isPoll, let watch = watchLocked(context) {
                slept = sleepLocked(reaping, watch, &mayWatch)
            } else {
                slept = sleepLocked(reaping, isPoll: isPoll)
            }
            if slept == failure(EINTR) && !isStillThere { return slept }
            // A poll is over soon and is no wait to its caller: nothing interrupts it.
            if isPoll && slept == failure(EINTR) { continue }
            // So is what is left of this call: however short its time, the kernel's io_submit would
            // have taken what the overdue requests take.
            if slept == failure(ETIMEDOUT) && mustAwaitOverdueNow(reaping) {
                reaping.deadlineNs = 0
                continue
            }
            if slept == failure(EINTR) || slept == failure(ETIMEDOUT) {
                return takeLast(&reaping, slept)
            }
        }
    }

    /// True when requests that the kernel's io_submit would have waited for are all that is on its
    /// way to the context, are enough for the call, and this thread has submitted them: it may wait
    /// for the disk as that io_submit would, and misses nothing.
    private func isEndedByOverdueLocked(_ reaping: Reaping) -> Bool {
        let context = reaping.context
        return reaping.sigmask == 0 && context.it.overdue > 0
            && context.it.overdue == context.it.jobs
            && context.it.submitter == CurrentThread().name
            && min(max(reaping.minimum, 1), reaping.maximum) &- reaping.taken
                <= Int(context.it.overdue)
    }

    /// Waits for a read that was left to whoever waits, and does it. False when none was done. Who
    /// has nothing else in flight (`isLone`) has waited for what comes first, however long.
    private func doColdReads(of context: ContextRef, isLone: Bool) -> Bool {
        guard let waitedNs = it.engine.awaitColdRead(of: context.address) else { return false }
        if !isStillThere { return false }
        if waitedNs > ColdReads.slowNs && !isLone { context.expectSlowReads() }
        let hasDoneSome = it.engine.doColdReads(of: context.address)
        if !hasDoneSome || !isStillThere { return false }
        // Who fell asleep meanwhile has not seen those that were taken and left again.
        if context.it.sleepers.load(ordering: .sequentiallyConsistent) != 0 { it.engine.nudge() }
        return true
    }

    private func takeLocked(_ reaping: inout Reaping) -> Int {
        let left = reaping.maximum &- reaping.taken
        if left == 0 || reaping.context.it.ring.available == 0 { return 0 }
        let target = reaping.events &+ UInt(bitPattern: reaping.taken &* AioRing.eventBytes)
        if Memory.isOutsideUserSpace(target) {
            return reaping.taken > 0 ? 0 : failure(EFAULT)
        }
        let ring = reaping.context.it.ring
        let result =
            it.memory.isStrict
            ? ring.takeStrictly(into: target, count: left) : ring.take(into: target, count: left)
        if result < 0 { return reaping.taken > 0 ? 0 : result }
        reaping.taken &+= result
        return 0
    }

    /// True while fewer events were reaped than wanted and a request is on its way that the
    /// kernel's io_submit would have completed: whoever polls after a buffered submit must find
    /// its event.
    private func mustAwaitOverdue(_ reaping: Reaping) -> Bool {
        // A handler may have interrupted the very io_submit that has yet to hand it over.
        reaping.taken < min(max(reaping.minimum, 1), reaping.maximum)
            && reaping.context.it.overdue > 0 && !CurrentThread().isNested
    }

    /// The same of a caller that holds no lock.
    private func mustAwaitOverdueNow(_ reaping: Reaping) -> Bool {
        reaping.context.it.lock.lock()
        defer { reaping.context.it.lock.unlock() }
        return !reaping.context.isDying && mustAwaitOverdue(reaping)
    }

    /// After a signal or the end of the time: what is there is taken once more.
    private func takeLast(_ reaping: inout Reaping, _ reason: Int) -> Int {
        reaping.context.it.lock.lock()
        let isDying = reaping.context.isDying
        let result = isDying ? 0 : takeLocked(&reaping)
        reaping.context.it.lock.unlock()
        if result < 0 { return result }
        if reaping.taken > 0 { return reaping.taken }
        if isDying { return failure(EINVAL) }
        return reason == failure(EINTR) ? reason : 0
    }

    /// Lets signals that only the caller's mask allows be delivered, as the kernel does even
    /// when the call did not sleep.
    func finish(_ reaping: Reaping, _ result: Int) -> Int {
        if result < 0 { return result }
        if reaping.sigmask != 0 {
            var none = timespec(tv_sec: 0, tv_nsec: 0)
            let polled = withAddress(of: &none) {
                systemCall(
                    Int32(SYS_ppoll), 0, 0, $0, Int(bitPattern: reaping.sigmask), 8)
            }
            if polled == failure(EINTR) && reaping.taken == 0 { return polled }
        }
        return reaping.taken
    }

    // MARK: Sleeping

    /// Sleeps until enough events are there, or something else happened. Enters with the
    /// context's lock held and leaves without it.
    private func sleepLocked(_ reaping: Reaping, isPoll: Bool) -> Int {
        let context = reaping.context
        let seen = context.it.changes.load(ordering: .sequentiallyConsistent)
        // A poll wakes at every publication: the last overdue request may be another reaper's.
        context.it.wantedLeast = min(context.it.wantedLeast, isPoll ? 0 : reaping.wanted)
        context.it.sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        let isWithKernel = context.it.kernelJobs > 0
        context.it.lock.unlock()
        if isWithKernel { it.engine.ensureKernelReaper() }
        it.engine.nudgeAndStartReads()
        let deadlineNs = isPoll ? .max : reaping.deadlineNs
        let isOver = context.it.patience.look(
            while: { it.engine.worksElsewhere && System.monotonicNs() < deadlineNs },
            until: { context.it.changes.load(ordering: .relaxed) != seen })
        let result = isOver ? 0 : context.it.changes.wait(while: seen, until: deadlineNs)
        if result == failure(EINTR) && !isStillThere { return result }
        context.it.lock.lock()
        forgetSleeperLocked(context)
        context.it.lock.unlock()
        return result
    }

    /// The right to sleep in the kernel, if all that the context waits for is there, and this very
    /// thread has sent the first and the last of it: others are likely to send more.
    private func watchLocked(_ context: ContextRef) -> KernelWatch? {
        if context.it.kernelJobs == 0 || context.it.kernelJobs != context.it.jobs { return nil }
        let thread = CurrentThread().name
        return it.table.job(at: context.it.jobsHead).it.submitter == thread
            && it.table.job(at: context.it.jobsTail).it.submitter == thread
            ? it.engine.watchKernel(thread, among: UInt32.max) : nil
    }

    /// Sleeps in the kernel, as a watcher. `mayWatch` becomes false when the kernel had nothing:
    /// it may go on longer than a watch does.
    private func sleepLocked(
        _ reaping: Reaping, _ watch: KernelWatch, _ mayWatch: inout Bool
    ) -> Int {
        let context = reaping.context
        context.it.wantedLeast = min(context.it.wantedLeast, reaping.wanted)
        context.it.sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
        context.it.watchers &+= 1
        context.it.lock.unlock()
        let slept = watch.sleep(until: reaping.deadlineNs)
        if slept == failure(EINTR) && !isStillThere { return slept }
        context.it.lock.lock()
        context.it.watchers &-= 1
        forgetSleeperLocked(context)
        context.it.lock.unlock()
        mayWatch = watch.end() > 0
        return slept == 0 && System.isPast(reaping.deadlineNs) ? failure(ETIMEDOUT) : slept
    }

    private func forgetSleeperLocked(_ context: ContextRef) {
        let sleepers = context.it.sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
        if sleepers.newValue == 0 { context.it.wantedLeast = .max }
    }

    /// Sleeps in ppoll with the caller's signal mask.
    private func sleepMaskedLocked(_ reaping: Reaping) -> Int {
        let context = reaping.context
        context.it.lock.unlock()
        it.engine.nudgeAndStartReads()
        guard let notifier = Notifier(it.engine) else { return sleepInSlices(reaping) }
        var sleeper = MaskedSleeper(next: 0, wanted: reaping.wanted, notifier: notifier)
        return withAddress(of: &sleeper) { sleeperAddress in
            context.it.lock.lock()
            guard let sleeper = Ref<MaskedSleeper>(address: UInt(bitPattern: sleeperAddress))
            else { return 0 }
            sleeper.it.next = context.it.maskedSleepers
            context.it.maskedSleepers = sleeper.address
            context.it.sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
            let isReady =
                context.it.ring.available >= sleeper.it.wanted
                || context.isDying || context.isAdopted
            let isWithKernel = context.it.kernelJobs > 0
            context.it.lock.unlock()
            if isWithKernel { it.engine.ensureKernelReaper() }
            it.engine.nudgeAndStartReads()
            let result = isReady ? 0 : pollMasked(reaping, sleeper.it.notifier.descriptor)
            if result == failure(EINTR) && !isStillThere { return result }
            context.it.lock.lock()
            removeLocked(sleeper, from: context)
            forgetSleeperLocked(context)
            context.it.lock.unlock()
            sleeper.it.notifier.finish()
            return result
        }
    }

    private func removeLocked(_ sleeper: Ref<MaskedSleeper>, from context: ContextRef) {
        if context.it.maskedSleepers == sleeper.address {
            context.it.maskedSleepers = sleeper.it.next
            return
        }
        var previous = Ref<MaskedSleeper>(address: context.it.maskedSleepers)
        while let current = previous {
            if current.it.next == sleeper.address {
                current.it.next = sleeper.it.next
                return
            }
            previous = Ref<MaskedSleeper>(address: current.it.next)
        }
    }

    private func pollMasked(_ reaping: Reaping, _ descriptor: Int32) -> Int {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return withAddress(of: &entry) { ppoll(reaping, entry: $0, count: 1, sliceNs: .max) }
    }

    /// Without a daemon that could signal an eventfd: short sleeps with the caller's mask.
    func sleepInSlices(_ reaping: Reaping) -> Int {
        let result = ppoll(reaping, entry: 0, count: 0, sliceNs: 1_000_000)
        return result == failure(ETIMEDOUT) && System.monotonicNs() < reaping.deadlineNs
            ? 0 : result
    }

    /// ppoll with the caller's mask, until the deadline or for `sliceNs`; for a millisecond where a
    /// filter refuses it. 0, -EINTR, -ETIMEDOUT.
    private func ppoll(_ reaping: Reaping, entry: Int, count: Int, sliceNs: UInt64) -> Int {
        let now = System.monotonicNs()
        let left = reaping.deadlineNs > now ? reaping.deadlineNs &- now : 0
        var time = timespec(nanoseconds: min(left, sliceNs))
        let result = withAddress(of: &time) {
            systemCall(
                Int32(SYS_ppoll), entry, count, $0, Int(bitPattern: reaping.sigmask), 8)
        }
        if result >= 0 { return result == 0 ? failure(ETIMEDOUT) : 0 }
        if result == failure(EINTR) { return result }
        let slept = sleepWithMask(reaping.sigmask, nanoseconds: min(left, sliceNs, 1_000_000))
        return slept == 0 && System.isPast(reaping.deadlineNs) ? failure(ETIMEDOUT) : slept
    }

    /// A handler that runs between the calls is not noticed.
    private func sleepWithMask(_ sigmask: UInt, nanoseconds: UInt64) -> Int {
        var before: UInt64 = 0
        return withAddress(of: &before) { beforeAddress in
            _ = systemCall(
                Int32(SYS_rt_sigprocmask), Int(SIG_SETMASK), Int(bitPattern: sigmask),
                beforeAddress, 8)
            let slept = System.sleep(nanoseconds: nanoseconds)
            _ = systemCall(
                Int32(SYS_rt_sigprocmask), Int(SIG_SETMASK), beforeAddress, 0, 8)
            return slept
        }
    }
}
