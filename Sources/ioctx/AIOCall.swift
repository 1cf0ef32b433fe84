// The six system calls of Linux AIO, by number.

import CLibAIO
import Glibc

enum AIOCall: Int32, CaseIterable {
    case io_setup, io_destroy, io_getevents, io_submit, io_cancel, io_pgetevents

    var number: Int32 {
        switch self {
        case .io_setup: Int32(SYS_io_setup)
        case .io_destroy: Int32(SYS_io_destroy)
        case .io_getevents: Int32(SYS_io_getevents)
        case .io_submit: Int32(SYS_io_submit)
        case .io_cancel: Int32(SYS_io_cancel)
        case .io_pgetevents: Int32(SYS_io_pgetevents)
        }
    }

    var name: String { "\(self)" }
}
