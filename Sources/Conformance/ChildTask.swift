// A case in this process: what the runner starts for each side.

import Glibc
import TestBed

/// How a case's process is told what to do; the tool hands its arguments over as they came.
public struct ChildTask: Sendable {
    public let name: String
    /// "kernel", or the path of a library.
    public let side: String
    public let folder: String
    public let engine: String?

    public init(name: String, side: String, folder: String, engine: String?) {
        self.name = name
        self.side = side
        self.folder = folder
        self.engine = engine
    }

    /// Writes the transcript to stdout. "E" is the last line: without it the case did not end.
    public func run() -> Never {
        guard let found = (Catalog.all + Catalog.posix).first(where: { $0.name == name }) else {
            Transcript.write("S", "there is no case '\(name)'")
            _exit(EXIT_FAILURE)
        }
        if side != "kernel" && side != "glibc" {
            if let engine { setenv("IOCTX_ENGINE", engine, 1) }
            for (variable, value) in found.environment { setenv(variable, value, 1) }
        }
        do {
            let isPosix = found.reference == .glibc || found.reference == .standard
            // A case of POSIX AIO has calls of its own.
            let aio = side == "kernel" || isPosix ? AIO() : try AIO(library: side)
            try found.body(Scene(aio, folder: folder, side: side))
            Transcript.write("E", "")
        } catch let skip as Skip {
            Transcript.write("S", skip.reason)
        } catch {
            Transcript.write("S", "\(error)")
        }
        // Without the exit handlers: they are not what the case is about.
        _exit(0)
    }
}
