// What the cases about bad pointers and spoilt rings give without IOCTX_STRICT=1.
//
// A library that asks the kernel about each pointer pays a system call for it. Without the
// variable the layer uses pointers as they come, and a bad one crashes as in any library.

enum Lenient {
    static func difference(of name: String) -> Difference? {
        if asTheKernel.contains(name) { return nil }
        if let lines = answered[name] {
            return Difference(reason: "only IOCTX_STRICT=1 looks", layer: .transcript(lines))
        }
        return Difference(
            reason: "a pointer that cannot be used crashes; IOCTX_STRICT=1 answers as the kernel",
            layer: .endsWith("died of SEGV"))
    }

    /// Pointers that are not used, or may be.
    private static let asTheKernel: Set = [
        "pointer/timeout-read-only", "pointer/events-unmapped-and-none-ready",
        "pointer/cancel-read-only-iocb", "pointer/iocb-read-only-closed",
    ]

    private static let answered: [String: [String]] = [
        // The ring is the layer's own; what the program did to its view of it is not looked at.
        "ring/no-access": [
            "io_setup(8) = 0",
            "io_submit(ctx, 1, {PREAD file 1@0}) = 1",
            "io_getevents(ctx, 0, 8, 0.0 s) = 1",
            "event: PREAD file 1@0: 1, data f70c4715",
            "io_cancel(ctx, {}) = -22 EINVAL",
            "io_destroy(ctx) = 0",
            "io_submit(ctx, 1, {PREAD file 1@0}) = -22 EINVAL",
        ],
        "ring/unmapped": [
            "io_setup(8) = 0",
            "io_submit(ctx, 1, {PREAD file 1@0}) = 1",
            "io_getevents(ctx, 0, 8, 0.0 s) = 1",
            "event: PREAD file 1@0: 1, data f70c4715",
            "io_destroy(ctx) = 0",
            "io_setup(8) = 0",
            "io_submit(ctx, 1, {PREAD file 1@0}) = 1",
            "event: PREAD file 1@0: 1, data f70c4715",
        ],
        // Both addresses are the context's until io_destroy.
        "ring/moved": [
            "io_setup(8) = 0",
            "io_submit(ctx, 1, {PREAD file 1@0}) = 1",
            "moved: yes",
            "io_submit(old, 1, {PREAD file 2@0}) = 1",
            "io_submit(new, 1, {PREAD file 3@0}) = 1",
            "event: PREAD file 1@0: 1, data f70c4715",
            "event: PREAD file 2@0: 2, data cf5530a5",
            "io_destroy(old) = -22 EINVAL",
            "io_destroy(new) = 0",
        ],
        // The page holds the kernel's key already, so the layer stores none.
        "pointer/iocb-read-only-read-and-key-zero": [
            "io_setup(8) = 0", "io_submit = 1", "events: 1",
        ],
    ]
}
