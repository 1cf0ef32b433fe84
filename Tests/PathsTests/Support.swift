// What the tests of this module share: descriptors, engines of their own, and an outbox that
// takes the place of a face.

import CLibAIO
import Glibc
import JobTable
import Synchronization

@testable import Paths

/// The first line of every exit test: whatever hangs ends with SIGALRM, which is a failure.
func boundedInTime() { alarm(100) }

/// The engines that have a daemon.
enum DaemonEngine: String, Codable, Sendable, CaseIterable {
    case uring
    case threads

    var choice: Engine { self == .uring ? .uring : .threads }

    /// Those that this machine allows. Tried here and not in a child, as Engine.survey() does: a
    /// child of a process with many threads may find a lock of the sanitizer's taken for ever.
    static let available: [DaemonEngine] =
        UringProbe.tryUring() == 0 ? [.uring, .threads] : [.threads]
}

func makeEngine(_ choice: Engine) -> Ref<EngineRecord> {
    let root = Memory.record(ProcessRoot.self)!
    let table = JobTable.createLocked(in: root)!
    table.it.linuxHooks = FaceHooks(
        publish: { Outbox.publish($0) }, wake: { Outbox.wake($0) })
    return EngineRecord.createLocked(in: root, table: table, choice: choice)!
}

/// Where jobs deliver their results: `userData` says at which place.
struct Outbox: ~Copyable {
    static let places = 1024
    let published: Atomic<UInt32>
    let announced: Atomic<UInt32>
    var results: InlineArray<1024, Int64>
    var deliveries: InlineArray<1024, UInt32>

    static func make() -> Ref<Outbox> { Memory.record(Outbox.self)! }

    static func publish(_ address: UInt) {
        guard let job = JobRef(address: address), let outbox = Ref<Outbox>(address: job.it.owner)
        else { return }
        outbox.it.results[Int(job.it.userData)] = job.it.result
        outbox.it.deliveries[Int(job.it.userData)] += 1
        outbox.it.published.add(1, ordering: .acquiringAndReleasing)
    }

    static func wake(_ address: UInt) {
        guard let outbox = Ref<Outbox>(address: address) else { return }
        outbox.it.announced.add(1, ordering: .acquiringAndReleasing)
        outbox.it.announced.wake()
    }
}

extension Ref where Pointee == Outbox {
    /// Waits for so many jobs altogether; without a bound of its own.
    func await(_ count: UInt32) {
        while true {
            let seen = it.announced.load(ordering: .acquiring)
            if seen >= count { return }
            _ = it.announced.wait(while: seen, until: .max)
        }
    }

    var count: UInt32 { it.published.load(ordering: .acquiring) }

    /// The only result at that place; nil when there was none, or more than one.
    func result(at place: Int) -> Int64? {
        it.deliveries[place] == 1 ? it.results[place] : nil
    }
}

extension Ref where Pointee == EngineRecord {
    /// Starts a request that a face would have made. A deferred one is handed over, and delivers
    /// to that place of the outbox.
    func run(_ request: Request, to outbox: Ref<Outbox>, at place: Int) -> Started {
        var request = request
        var batch = Batch()
        let started: Started
        switch start(&request, &batch) {
        case .completed(let result): started = .completed(result)
        case .refused(let result): started = .refused(result)
        case .deferred(let job):
            job.it.owner = outbox.address
            job.it.userData = UInt64(place)
            // After the hand-over the job is the daemon's.
            started = .deferred(job.name)
        }
        handOver(&batch)
        return started
    }
}

enum Started: Equatable {
    case completed(Int)
    case refused(Int)
    case deferred(UInt64)

    var isDeferred: Bool { if case .deferred = self { true } else { false } }
}

/// A buffer with its one vector, as a request needs them.
final class Buffer {
    let bytes: UnsafeMutableRawBufferPointer
    private let vector: UnsafeMutablePointer<Vector>

    init(_ count: Int, filledWith value: UInt8 = 0) {
        bytes = .allocate(byteCount: count, alignment: 4096)
        bytes.initializeMemory(as: UInt8.self, repeating: value)
        vector = .allocate(capacity: 1)
        vector.initialize(
            to: Vector(base: UInt(bitPattern: bytes.baseAddress), length: count))
    }

    deinit {
        bytes.deallocate()
        vector.deallocate()
    }

    func request(_ operation: JobOperation, _ descriptor: Int32, offset: Int64 = 0) -> Request {
        var request = Request(operation: operation, descriptor: descriptor)
        request.vectors = UInt(bitPattern: vector)
        request.vectorCount = 1
        request.length = bytes.count
        request.offset = offset
        return request
    }

    func isFilled(with value: UInt8, _ count: Int) -> Bool {
        bytes[..<count].allSatisfy { $0 == value }
    }
}

/// A descriptor that is closed with its last use.
final class Descriptor {
    let number: Int32

    init(_ number: Int32) {
        precondition(number >= 0, "no descriptor")
        self.number = number
    }

    deinit { close(number) }

    /// Makes this number mean another file, as after a close and an open, in one step: other
    /// tests of the process open files as well.
    func reuse(for other: Descriptor) {
        precondition(dup2(other.number, number) == number)
    }
}

enum Files {
    /// A regular file without a name, of `count` bytes of that value, on a disk.
    static func regular(_ count: Int, of value: UInt8 = 0x5a, flags: Int32 = O_RDWR) -> Descriptor {
        var path = Array("\(folder)/ioctx-unit-XXXXXX".utf8CString)
        let made = mkstemp(&path)
        precondition(made >= 0, "no temporary file")
        let block = [UInt8](repeating: value, count: 65_536)
        var left = count
        while left > 0 { left -= write(made, block, min(left, block.count)) }
        fsync(made)
        let opened = open(path, flags)
        unlink(path)
        close(made)
        return Descriptor(opened)
    }

    /// Where temporary files lie: TMPDIR, or a folder that is on a disk almost everywhere.
    static var folder: String { getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp" }

    static let directFlag = Int32(IOCTX_O_DIRECT)

    /// True when files of the folder take O_DIRECT.
    static let haveDirect: Bool = {
        var path = Array("\(folder)/ioctx-unit-XXXXXX".utf8CString)
        let made = mkstemp(&path)
        let opened = open(path, O_RDWR | directFlag)
        unlink(path)
        close(made)
        if opened >= 0 { close(opened) }
        return opened >= 0
    }()

    static func pipe() -> (read: Descriptor, write: Descriptor) {
        var ends: [Int32] = [0, 0]
        precondition(Glibc.pipe(&ends) == 0)
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    static func socketPair() -> (Descriptor, Descriptor) {
        var ends: [Int32] = [0, 0]
        precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    static func device(_ path: String, _ flags: Int32 = O_RDWR) -> Descriptor {
        Descriptor(open(path, flags))
    }

    static func make(_ number: Int32, _ a: Int = 0, _ b: Int = 0) -> Descriptor {
        Descriptor(Int32(systemCall(number, a, b)))
    }

    static func eventfd(_ count: Int = 0, flags: Int32 = O_NONBLOCK) -> Descriptor {
        make(Int32(SYS_eventfd2), count, Int(flags))
    }

    static func epoll() -> Descriptor { make(Int32(SYS_epoll_create1)) }
    static func timerfd() -> Descriptor { make(Int32(SYS_timerfd_create), Int(CLOCK_MONOTONIC)) }

    static func signalfd() -> Descriptor {
        var mask: UInt64 = 0
        return withAddress(of: &mask) {
            Descriptor(Int32(systemCall(Int32(SYS_signalfd4), -1, $0, 8, 0)))
        }
    }

    static func memfd(_ count: Int = 0, of value: UInt8 = 0x5a) -> Descriptor {
        let name: StaticString = "unit"
        let made = make(Int32(SYS_memfd_create), Int(bitPattern: name.utf8Start))
        let block = [UInt8](repeating: value, count: count)
        precondition(write(made.number, block, count) == count)
        return made
    }

    /// The count of an eventfd, which is 0 afterwards.
    static func take(_ eventfd: Descriptor) -> UInt64 {
        var value: UInt64 = 0
        return read(eventfd.number, &value, 8) == 8 ? value : 0
    }
}

private final class ThreadBody {
    let body: (Int) -> Void
    let index: Int

    init(_ body: @escaping (Int) -> Void, _ index: Int) {
        self.body = body
        self.index = index
    }
}

/// Runs body(0) ... body(count - 1), each in a thread of its own, and waits for all of them.
func concurrently(_ count: Int, _ body: (Int) -> Void) {
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
