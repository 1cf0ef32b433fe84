// A bound in time, and threads, for the tests of every module.

import Glibc

/// The first line of every exit test: whatever hangs ends with SIGALRM, which is a failure.
public func boundedInTime() { alarm(100) }

private final class ThreadBody {
    let body: (Int) -> Void
    let index: Int

    init(_ body: @escaping (Int) -> Void, _ index: Int) {
        self.body = body
        self.index = index
    }
}

/// Runs body(0) ... body(count - 1), each in a thread of its own, and waits for all of them.
public func concurrently(_ count: Int, _ body: (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
        let threads = (0..<count).map { index in
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(ThreadBody(body, index)).toOpaque()
            let error = pthread_create(
                &thread, nil,
                { argument in
                    let body = Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue()
                    body.body(body.index)
                    return nil
                }, argument)
            precondition(error == 0, "no thread")
            return thread
        }
        for thread in threads { pthread_join(thread, nil) }
    }
}
