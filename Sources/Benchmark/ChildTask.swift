// The measurement itself, in the process that the runner has started for it.

import CBenchmark
import FoundationEssentials
import Glibc
import TestBed

/// What a child is told, as JSON among its arguments.
public struct ChildTask: Codable, Sendable {
    let name: String
    /// The path of a library; nil for the system calls, or the C library's POSIX AIO.
    let library: String?
    let folder: String
    let file: String
    let device: String?
    /// Of one measurement.
    let seconds: Double
    let seed: UInt64
    /// Whether a tracer waits to count system calls.
    let isCounted: Bool

    public init(json: String) throws {
        self = try JSONDecoder().decode(ChildTask.self, from: Data(json.utf8))
    }

    init(
        name: String, library: String?, folder: String, file: String, device: String?,
        seconds: Double, seed: UInt64, isCounted: Bool
    ) {
        self.name = name
        self.library = library
        self.folder = folder
        self.file = file
        self.device = device
        self.seconds = seconds
        self.seed = seed
        self.isCounted = isCounted
    }

    /// Far more than a case takes.
    var limitSeconds: UInt32 { 60 + UInt32(seconds * 20) }

    public func run() -> Never {
        // Neither a measurement that hangs nor one whose starter has gone stays.
        alarm(limitSeconds)
        benchmark_die_with_parent()
        if isCounted { kill(getpid(), SIGSTOP) }
        let answer = answer()
        Self.say((try? JSONEncoder().encode(answer)) ?? Data())
        // Without the exit handlers: they are not what the case is about.
        _exit(0)
    }

    private func answer() -> ChildAnswer {
        guard let found = Catalog.all.first(where: { $0.name == name }) else {
            return .trouble("there is no case '\(name)'")
        }
        for (variable, value) in found.environment { setenv(variable, value, 1) }
        do {
            return .measured(try found.measure(Setting(task: self)))
        } catch let skip as Skip {
            return .skipped(skip.reason)
        } catch {
            return .trouble("\(error)")
        }
    }

    /// Says that what was asked for is done, and waits for leave to measure. False when that was
    /// all.
    static func awaitTurn() -> Bool {
        var byte = Child.byte
        say(Data([byte]))
        return read(STDIN_FILENO, &byte, 1) == 1
    }

    private static func say(_ data: Data) {
        data.withUnsafeBytes { bytes in
            var done = 0
            while done < bytes.count {
                let count = write(STDOUT_FILENO, bytes.baseAddress! + done, bytes.count - done)
                if count <= 0 { break }
                done += count
            }
        }
    }
}

enum ChildAnswer: Codable, Sendable {
    case measured(Measurement)
    case skipped(String)
    case trouble(String)
}
