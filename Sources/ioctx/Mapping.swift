// What a process has mapped, as /proc lists it.

import Glibc

/// A line of /proc/PID/maps (proc_pid_maps(5)) that has a name.
struct Mapping {
    let start: UInt
    let isExecutable: Bool
    /// With " (deleted)" behind it where the file has this name no more.
    let name: Path
    /// What may lead to its file, best first.
    private let files: [Path]

    /// Those of a process, in the order of their addresses.
    static func all(of pid: pid_t) throws(Failure) -> [Mapping] {
        guard let text = SystemFile.contents(of: "/proc/\(pid)/maps") else {
            throw ProcessFile.unreadable(pid, errno)
        }
        if text.isEmpty {
            throw Failure(
                "process \(pid) has no memory: it has ended, or is one of the kernel's; "
                    + "look for its number with pgrep")
        }
        return text.split(separator: UInt8(ascii: "\n")).compactMap { Mapping($0, of: pid) }
    }

    init?(_ line: ArraySlice<UInt8>, of pid: pid_t) {
        let blank = UInt8(ascii: " ")
        let fields = line.split(separator: blank, maxSplits: 5)
        guard fields.count == 6 else { return nil }
        let addresses = String(decoding: fields[0], as: UTF8.self).split(separator: "-")
            .compactMap { UInt($0, radix: 16) }
        guard addresses.count == 2 else { return nil }
        start = addresses[0]
        isExecutable = fields[1].contains(UInt8(ascii: "x"))
        // The kernel writes a line's end so, and nothing else.
        name = Path(bytes: fields[5].drop { $0 == blank }.replacing("\\012".utf8, with: "\n".utf8))
        // The first is the very file, for root alone. By its name it may be another by now, if it
        // was replaced, and is looked for by the process's own root, which may be a container's.
        let mark = Array(" (deleted)".utf8)
        let isMarked = name.bytes.suffix(mark.count).elementsEqual(mark)
        let named = name.bytes.dropLast(isMarked ? mark.count : 0)
        let range = addresses.map { String($0, radix: 16) }.joined(separator: "-")
        files = [
            Path("/proc/\(pid)/map_files/\(range)"),
            Path(bytes: Array("/proc/\(pid)/root".utf8) + named), Path(bytes: named),
        ]
    }

    /// Nil for what cannot be read or is no 64-bit ELF file.
    func object() -> ObjectFile? {
        // No lazy map: that would look a second time at what it has found, which may be gone.
        for file in files {
            if let object = ObjectFile(file) { return object }
        }
        return nil
    }
}
