// The run queue: jobs handed over and not yet won by a daemon, in the order of their priority and,
// among equals, first in, first out.

public import Synchronization

/// Jobs on their way to a daemon, linked by `queueNext`: by priority, and first come first served.
public struct RunQueue: ~Copyable {
    /// (q) guards the links; held for a few instructions only.
    let lock: FutexLock
    private var head: UInt32
    private var tail: UInt32
    /// (q) to write; read without it to see whether there is anything at all.
    public let count: Atomic<UInt32>

    /// An empty queue.
    public init() {
        lock = FutexLock()
        head = Job.none
        tail = Job.none
        count = Atomic(0)
    }

    /// Appends a chain of jobs in state queued, linked by `queueNext` from `first` to `last`, all
    /// of one priority.
    public mutating func append(
        _ table: Ref<JobTable>, first: JobRef, last: JobRef, count added: UInt32
    ) {
        lock.lock()
        let previous = predecessorLocked(table, priority: first.it.priority)
        if previous == Job.none {
            last.it.queueNext = head
            head = first.it.index
        } else {
            last.it.queueNext = table.job(at: previous).it.queueNext
            table.job(at: previous).it.queueNext = first.it.index
        }
        if previous == tail { tail = last.it.index }
        // Sequentially consistent: pairs with the daemon's look at the count after it has said
        // that it sleeps.
        count.wrappingAdd(added, ordering: .sequentiallyConsistent)
        lock.unlock()
    }

    /// The last job that comes before a new one of that priority: the tail, as a rule.
    private func predecessorLocked(_ table: Ref<JobTable>, priority: UInt8) -> UInt32 {
        if tail == Job.none || table.job(at: tail).it.priority <= priority { return tail }
        var previous = Job.none
        var next = head
        while next != Job.none && table.job(at: next).it.priority <= priority {
            previous = next
            next = table.job(at: next).it.queueNext
        }
        return previous
    }

    /// Takes the first job, or nil when there is none or it is not wanted. Its `queueNext` is its
    /// former successor.
    @inline(__always)
    public mutating func takeFirst(
        _ table: Ref<JobTable>, if isWanted: (JobRef) -> Bool = { _ in true }
    ) -> JobRef? {
        lock.lock()
        defer { lock.unlock() }
        if head == Job.none { return nil }
        let job = table.job(at: head)
        if !isWanted(job) { return nil }
        head = job.it.queueNext
        if head == Job.none { tail = Job.none }
        count.wrappingSubtract(1, ordering: .relaxed)
        return job
    }

    /// Takes up to `most` jobs for which `isWanted` answers true, a chain linked by `queueNext`;
    /// nil when there is none. `isWanted` may change what (q) guards and must be quick.
    public mutating func take(
        _ most: UInt32, _ table: Ref<JobTable>, where isWanted: (JobRef) -> Bool
    ) -> JobRef? {
        if count.load(ordering: .relaxed) == 0 { return nil }
        lock.lock()
        defer { lock.unlock() }
        var first: JobRef?
        var last: JobRef?
        var taken: UInt32 = 0
        var previous = Job.none
        var next = head
        while next != Job.none && taken < most {
            let job = table.job(at: next)
            next = job.it.queueNext
            if !isWanted(job) {
                previous = job.it.index
                continue
            }
            if previous == Job.none {
                head = next
            } else {
                table.job(at: previous).it.queueNext = next
            }
            if next == Job.none { tail = previous }
            job.it.queueNext = Job.none
            if let last { last.it.queueNext = job.it.index } else { first = job }
            last = job
            taken &+= 1
        }
        count.wrappingSubtract(taken, ordering: .relaxed)
        return first
    }

    /// Puts a job in state queued back before all others, of which none may come before it by its
    /// priority.
    public mutating func putBack(_ table: Ref<JobTable>, _ job: JobRef) {
        lock.lock()
        job.it.queueNext = head
        if head == Job.none { tail = job.it.index }
        head = job.it.index
        // As in `append`.
        count.wrappingAdd(1, ordering: .sequentiallyConsistent)
        lock.unlock()
    }

    /// Looks at the jobs in their order for as long as `body` answers true. It may change what (q)
    /// guards and must be quick.
    public func forEach(_ table: Ref<JobTable>, _ body: (JobRef) -> Bool) {
        lock.lock()
        defer { lock.unlock() }
        var next = head
        while next != Job.none {
            let job = table.job(at: next)
            if !body(job) { return }
            next = job.it.queueNext
        }
    }

    /// Takes the whole chain, linked by `queueNext`; nil when empty.
    public mutating func takeAll(_ table: Ref<JobTable>) -> JobRef? {
        if count.load(ordering: .relaxed) == 0 { return nil }
        lock.lock()
        defer { lock.unlock() }
        if head == Job.none { return nil }
        let job = table.job(at: head)
        head = Job.none
        tail = Job.none
        count.store(0, ordering: .relaxed)
        return job
    }
}
