// A measurement in another process, as the runner sees it.
//
// The child says that it is ready with a byte, measures once for each byte that it is given, and
// answers with a byte then. At the end of its input it writes what it has measured, as JSON.

import CBenchmark
import CTestBed
import FoundationEssentials
import Glibc
import TestBed

final class Child {
    static let byte = UInt8(ascii: ".")

    private let name: String
    private let process: pid_t
    private let limitSeconds: UInt32
    private let scratch: Scratch
    private let look: () -> Void
    private var input: Int32
    private let output: Int32
    private var status: Int32?
    private var said: [UInt8] = []

    /// `name` is whose measurement it is, `look` is called while there is nothing else to do.
    init(
        _ name: String, _ tool: String, _ task: ChildTask, _ scratch: Scratch,
        look: @escaping () -> Void
    ) throws {
        self.name = name
        limitSeconds = task.limitSeconds
        self.scratch = scratch
        self.look = look
        var inputs: [Int32] = [0, 0]
        var outputs: [Int32] = [0, 0]
        var error = testbed_pipe(&inputs, O_CLOEXEC)
        if error < 0 { throw Trouble("a pipe to a child: \(Trouble.words(error))") }
        error = testbed_pipe(&outputs, O_CLOEXEC)
        if error < 0 {
            close(inputs[0])
            close(inputs[1])
            throw Trouble("a pipe from a child: \(Trouble.words(error))")
        }
        (input, output) = (inputs[1], outputs[0])
        let json = String(decoding: try JSONEncoder().encode(task), as: UTF8.self)
        let arguments = [tool, "bench", "--child", json]
        let words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        process = testbed_spawn(tool, words, inputs[0], outputs[1])
        for word in words { free(word) }
        close(inputs[0])
        close(outputs[1])
        if process < 0 { throw Trouble("starting '\(tool)': \(Trouble.words(process))") }
        scratch.children.insert(process)
    }

    deinit {
        if input >= 0 { close(input) }
        close(output)
    }

    func awaitReady() throws {
        while said.isEmpty && readMore() {}
        guard said.first == Self.byte else { throw failure() }
        said.removeFirst()
    }

    /// Has it measure once.
    func turn() throws {
        allow()
        try awaitReady()
    }

    private func allow() {
        var byte = Self.byte
        // Where it has gone, its answer tells why.
        _ = write(input, &byte, 1)
    }

    /// Has it measure once and counts the system calls of it; nil where that is not allowed.
    func trace(_ isInterrupted: @escaping () -> Bool) throws -> benchmark_calls? {
        allow()
        endInput()
        var calls = benchmark_calls()
        var ask = isInterrupted
        let result = withUnsafeMutablePointer(to: &ask) {
            benchmark_trace(
                process, &calls,
                { $0!.assumingMemoryBound(to: (() -> Bool).self).pointee() ? 1 : 0 }, $0)
        }
        // Where it cannot be followed, it has been killed.
        reaped(result < 0 ? SIGKILL : result)
        if result == -EPERM { return nil }
        try awaitReady()
        try awaitReady()
        return calls
    }

    /// Has it end, and returns what it has measured.
    func end() throws -> Measurement {
        switch answer() {
        case .measured(let measurement): return measurement
        case .skipped(let reason): throw Skip(reason)
        case .trouble(let words): throw Trouble("\(name): \(words)")
        case nil: throw Trouble("\(name): \(wayOut)")
        }
    }

    /// Why it did not say what it should: it has said so itself, or ended.
    private func failure() -> any Error {
        do {
            _ = try end()
            return Trouble("\(name): \(wayOut)")
        } catch {
            return error
        }
    }

    /// What it says at its end, which is awaited.
    private func answer() -> ChildAnswer? {
        endInput()
        while readMore() {}
        if status == nil {
            var value: Int32 = 0
            waitpid(process, &value, 0)
            reaped(value)
        }
        return try? JSONDecoder().decode(ChildAnswer.self, from: Data(said))
    }

    private var wayOut: String {
        let signal = (status ?? 0) & 0x7f
        if signal == SIGALRM { return "no end within \(limitSeconds) s" }
        if signal != 0 { return "died, \(String(cString: strsignal(signal)))" }
        return "ended with \((status ?? 0) >> 8 & 0xff)"
    }

    private func endInput() {
        if input >= 0 { close(input) }
        input = -1
    }

    private func reaped(_ status: Int32) {
        self.status = status
        scratch.children.remove(process)
    }

    /// False at the end of what it says.
    private func readMore() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            var state = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
            if poll(&state, 1, 100) == 1 {
                let got = read(output, &chunk, chunk.count)
                said += chunk.prefix(max(got, 0))
                look()
                return got > 0
            }
            look()
        }
    }
}
