// A Swift program to preload the library into: classes, strings, dictionaries, closures,
// existentials, tasks and actors, so that a wrong swift_retain shows; and, given a file, AIO from
// Swift itself.

import Glibc

protocol Shape {
    var area: Double { get }
    func describe() -> String
}

final class Square: Shape {
    let side: Double
    init(side: Double) { self.side = side }
    var area: Double { side * side }
    func describe() -> String { "square of \(side)" }
}

final class Circle: Shape {
    let radius: Double
    weak var twin: Circle?
    init(radius: Double) { self.radius = radius }
    var area: Double { 3 * radius * radius }
    func describe() -> String { "circle of \(radius), \(twin == nil ? "alone" : "with a twin")" }
}

actor Ledger {
    private var entries: [String: Int] = [:]
    func add(_ name: String, _ amount: Int) { entries[name, default: 0] += amount }
    func total() -> Int { entries.values.reduce(0, +) }
    func names() -> [String] { entries.keys.sorted() }
}

struct Refused: Error { let reason: String }

func check(_ number: Int) throws -> Int {
    if number % 7 == 3 { throw Refused(reason: "number \(number)") }
    return number
}

func classesAndStrings() -> String {
    let twin = Circle(radius: 2)
    let first = Circle(radius: 1)
    first.twin = twin
    let shapes: [any Shape] = [Square(side: 2), first, twin, Square(side: 3)]
    var words: [String: Set<String>] = [:]
    for index in 0..<2000 {
        let word = String(repeating: "äöü€😀", count: index % 5) + String(index, radix: 36)
        words[String(word.prefix(1)), default: []].insert(word.uppercased())
    }
    let refused = (0..<100).reduce(into: 0) { count, number in
        do { _ = try check(number) } catch { count += (error as? Refused)?.reason.count ?? 0 }
    }
    let lines =
        shapes.map { $0.describe() } + ["\(words.count) \(words.values.map(\.count).max()!)"]
    return lines.joined(separator: "; ") + "; \(refused)"
}

func tasks() async -> String {
    let ledger = Ledger()
    await withTaskGroup(of: Void.self) { group in
        for worker in 0..<16 {
            group.addTask {
                for step in 0..<200 { await ledger.add("worker \(worker % 4)", step) }
            }
        }
    }
    return "\(await ledger.total()) \(await ledger.names().joined(separator: ","))"
}

// The program is not linked with libaio, so its functions are found only when preloaded.
func function<T>(_ name: String, as type: T.Type) -> T? {
    guard let symbol = dlsym(nil, name) else { return nil }
    return unsafeBitCast(symbol, to: type)
}

func readWithAIO(_ path: String) -> String {
    typealias Setup = @convention(c) (CInt, UnsafeMutablePointer<UnsafeMutableRawPointer?>) -> CInt
    typealias Submit =
        @convention(c) (
            UnsafeMutableRawPointer?, Int, UnsafeMutablePointer<UnsafeMutableRawPointer?>
        ) -> CInt
    typealias GetEvents =
        @convention(c) (
            UnsafeMutableRawPointer?, Int, Int, UnsafeMutableRawPointer, UnsafeMutableRawPointer?
        ) -> CInt
    typealias Destroy = @convention(c) (UnsafeMutableRawPointer?) -> CInt
    guard let setup = function("io_setup", as: Setup.self),
        let submit = function("io_submit", as: Submit.self),
        let getEvents = function("io_getevents", as: GetEvents.self),
        let destroy = function("io_destroy", as: Destroy.self)
    else { return "no io_setup" }
    let file = open(path, O_RDONLY)
    var context: UnsafeMutableRawPointer?
    guard file >= 0, setup(64, &context) == 0 else { return "cannot begin" }
    var equal = 0
    for turn in 0..<64 {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 512)
        let expected = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 512)
        let offset = turn % 8 * 512
        let iocb = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 8)
        let event = UnsafeMutableRawPointer.allocate(byteCount: 32, alignment: 8)
        memset(iocb, 0, 64)
        // struct iocb: the descriptor at 20, buffer, length and offset from 24 on; opcode 0 is
        // PREAD.
        iocb.storeBytes(of: file, toByteOffset: 20, as: CInt.self)
        iocb.storeBytes(of: buffer, toByteOffset: 24, as: UnsafeMutableRawPointer.self)
        iocb.storeBytes(of: 512, toByteOffset: 32, as: UInt64.self)
        iocb.storeBytes(of: Int64(offset), toByteOffset: 40, as: Int64.self)
        var list: UnsafeMutableRawPointer? = iocb
        let read = pread(file, expected, 512, offset)
        if submit(context, 1, &list) == 1, getEvents(context, 1, 1, event, nil) == 1,
            event.load(fromByteOffset: 16, as: Int64.self) == 512, read == 512,
            memcmp(buffer, expected, 512) == 0
        {
            equal += 1
        }
        for memory in [buffer, expected, iocb, event] { memory.deallocate() }
    }
    guard destroy(context) == 0 else { return "io_destroy failed" }
    return "\(equal) reads of 512 bytes, \(equal == 64 ? "all equal" : "not all equal")"
}

@main
struct SwiftHost {
    static func main() async {
        for _ in 0..<3 {
            print(classesAndStrings())
            print(await tasks())
        }
        if CommandLine.arguments.count > 1 {
            print("aio: \(readWithAIO(CommandLine.arguments[1]))")
        }
    }
}
