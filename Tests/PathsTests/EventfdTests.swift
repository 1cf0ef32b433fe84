// Telling an eventfd from everything else, and never writing into anything else.

import CLibAIO
import Glibc
import JobTable
import TestSupport
import Testing

@testable import Paths

@Suite struct EventfdTests {
    @Test("An eventfd is one, at every number of digits") func eventfds() {
        for flags in [0, O_NONBLOCK, 1] {
            let eventfd = Files.eventfd(3, flags: flags)
            #expect(Eventfd.check(eventfd.number) == 0)
            #expect(Files.take(eventfd) > 0, "and the check takes nothing from it")
        }
        let eventfd = Files.eventfd()
        for number: Int32 in [900, 901] {
            let copy = Descriptor(fcntl(eventfd.number, F_DUPFD, number))
            #expect(copy.number >= number)
            #expect(Eventfd.check(copy.number) == 0)
        }
    }

    @Test("Nothing else is one: -EINVAL") func others() {
        let (pipeRead, pipeWrite) = Files.pipe()
        let (socket, _) = Files.socketPair()
        let others: [(String, Descriptor)] = [
            ("pipe's end", pipeRead), ("pipe's other end", pipeWrite), ("socket", socket),
            ("epoll", Files.epoll()), ("timerfd", Files.timerfd()),
            ("signalfd", Files.signalfd()), ("memfd", Files.memfd()),
            ("regular", Files.regular(10)), ("directory", Files.device("/", O_RDONLY)),
            ("null", Files.device("/dev/null")),
        ]
        for (name, other) in others {
            #expect(Eventfd.check(other.number) == failure(EINVAL), "\(name)")
        }
    }

    @Test("A closed descriptor, or one that is only a path, is none: -EBADF") func closed() {
        #expect(Eventfd.check(-1) == failure(EBADF))
        #expect(Eventfd.check(Int32.max) == failure(EBADF))
        let path = Files.device("/dev/null", Int32(IOCTX_O_PATH))
        #expect(Eventfd.check(path.number) == failure(EBADF))
    }

    @Test("A signal adds exactly its count") func signalAdds() {
        let eventfd = Files.eventfd()
        Eventfd.signal(eventfd.number, count: 1)
        Eventfd.signal(eventfd.number, count: 32)
        #expect(Files.take(eventfd) == 33)
    }

    /// The number was an eventfd when the request was checked, and is a stranger's by now.
    @Test("A signal never writes into a file") func signalWritesNowhereElse() {
        let (pipeRead, pipeWrite) = Files.pipe()
        let (socket, peer) = Files.socketPair()
        let regular = Files.regular(4, of: 7)
        let memfd = Files.memfd(4, of: 7)
        let eventfd = Files.eventfd()
        for stranger in [pipeWrite, socket, regular, memfd, Files.timerfd(), Files.epoll()] {
            eventfd.reuse(for: stranger)
            Eventfd.signal(eventfd.number, count: 1)
        }
        Eventfd.signal(-1, count: 1)
        var byte: UInt8 = 0
        _ = fcntl(pipeRead.number, F_SETFL, O_NONBLOCK)
        #expect(read(pipeRead.number, &byte, 1) == -1, "nothing came through the pipe")
        #expect(recv(peer.number, &byte, 1, Int32(MSG_DONTWAIT)) == -1)
        for file in [regular, memfd] {
            var status = stat()
            fstat(file.number, &status)
            #expect(status.st_size == 4)
            var content: UInt32 = 0
            #expect(pread(file.number, &content, 4, 0) == 4 && content == 0x0707_0707)
        }
    }

    // MARK: Numbers that are reused

    @Test("A number that was an eventfd's and is reused is looked at again") func reusedNumbers() {
        let eventfd = Files.eventfd()
        let number = Descriptor(dup(eventfd.number))
        #expect(Eventfd.check(number.number) == 0)
        number.reuse(for: Files.regular(1))
        #expect(Eventfd.check(number.number) == failure(EINVAL))
        number.reuse(for: Files.pipe().read)
        #expect(Eventfd.check(number.number) == failure(EINVAL))
        number.reuse(for: eventfd)
        #expect(Eventfd.check(number.number) == 0)
        #expect(Eventfd.check(-1) == failure(EBADF))
    }

    /// These have no inode of their own either.
    @Test("An eventfd's number that became a timerfd or an epoll set is refused")
    func reusedNumbersAmongAnonymousFiles() {
        for other in [Files.timerfd(), Files.epoll(), Files.signalfd()] {
            let number = Files.eventfd()
            #expect(Eventfd.check(number.number) == 0)
            number.reuse(for: other)
            #expect(Eventfd.check(number.number) == failure(EINVAL))
        }
    }
}
