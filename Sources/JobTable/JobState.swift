// The states of a job and the only edges between them.
//
//     free ─► preparing ─► queued ─► running ─► finished ─► free
//                 │         │  ▲      │  ▲         ▲
//                 ▼         ▼  └──────┤  │         │
//               free    cancelled     ▼  │         │
//                           │       waiting ───────┤
//                           └──────────────────────┘
//
// The ancestor's names: queued is JOBQGLOBAL, running JOBRUNNING, finished JOBFINISHED, waiting
// the socket queue; preparing is its QUEUEING flag, cancelled its CANCELLED flag.

/// Where a job is in its life. Raw values are stored in `Job.state`.
public enum JobState: UInt32, CaseIterable, Sendable {
    /// In the table's free list.
    case free = 0
    /// Being filled in by its submitter; nobody else knows it.
    case preparing
    /// In the run queue; no daemon has won it, so it can be taken back.
    case queued
    /// Taken back while queued; its daemon will finish it with -ECANCELED.
    case cancelled
    /// Won by a daemon.
    case running
    /// A daemon waits for its file to become ready; no thread is held.
    case waiting
    /// The result is set; the face publishes it. Or the kernel has refused the request.
    case finished

    /// True when a job may go from this state to `next`.
    public func allows(_ next: JobState) -> Bool {
        switch (self, next) {
        case (.free, .preparing), (.preparing, .queued), (.preparing, .free),
            (.queued, .running), (.queued, .cancelled), (.cancelled, .finished),
            (.running, .queued), (.running, .waiting), (.running, .finished),
            (.waiting, .running), (.waiting, .finished), (.finished, .free):
            return true
        default:
            return false
        }
    }
}
