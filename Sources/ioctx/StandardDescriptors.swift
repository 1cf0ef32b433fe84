// The descriptors 0 to 2, which whoever starts the tool may have closed.

import CLibAIO
import Glibc

enum StandardDescriptors {
    /// Occupies those that are closed, so that no file of the tool's is opened there, where its
    /// messages go. An epoll instance can be neither read nor written, nor opened as /dev/stdout,
    /// so that all of these fail as before. A program in the tool's place finds them closed.
    static func reserve() throws(Failure) {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            // The lowest number that is free: this one.
            let result = ioctx_syscall(Int(SYS_epoll_create1), Int(O_CLOEXEC), 0, 0, 0, 0, 0)
            guard result >= 0 else {
                throw Failure(
                    "descriptor \(descriptor) is closed, and nothing can take its place: "
                        + "\(Failure.describe(Int32(-result))); start ioctx with it open")
            }
        }
    }
}
