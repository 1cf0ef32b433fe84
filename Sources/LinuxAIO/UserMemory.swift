// Reading and writing the program's memory.
//
// The kernel answers -EFAULT where its copies fault. Here NULL and addresses in the kernel's half
// are always -EFAULT; any other bad pointer crashes, as it would in every library, unless
// IOCTX_STRICT=1: then all copies go through the kernel (process_vm_readv and _writev on the
// process itself), which refuses instead of crashing.

import CLibAIO
import JobTable

struct UserMemory {
    let isStrict: Bool

    static func fromEnvironment() -> UserMemory {
        guard let value = unsafe environmentValue("IOCTX_STRICT") else {
            return UserMemory(isStrict: false)
        }
        // Set, and neither empty nor 0.
        return UserMemory(isStrict: unsafe value[0] != 0 && value[0] != 48)
    }

    /// True when process_vm_readv may be called: a seccomp filter could kill for it, and only
    /// who asks for strictness takes that on.
    var mayLook: Bool {
        isStrict || !System.isFiltered
    }

    /// Copies a value in. False for -EFAULT.
    @inline(__always)
    func read<T>(at address: UInt, into value: inout T) -> Bool {
        if Memory.isOutsideUserSpace(address) { return false }
        if isStrict { return Self.copyIn(address, &value) == MemoryLayout<T>.size }
        guard let source = Ref<T>(address: address) else { return false }
        value = source.it
        return true
    }

    /// Copies a value out. False for -EFAULT.
    @inline(__always)
    func write<T>(_ value: T, at address: UInt) -> Bool {
        if Memory.isOutsideUserSpace(address) { return false }
        if isStrict {
            var value = value
            return withAddress(of: &value) {
                Self.copyOut(UInt(bitPattern: $0), MemoryLayout<T>.size, address)
            } == MemoryLayout<T>.size
        }
        Ref<T>(address: address)?.it = value
        return true
    }

    /// The bytes copied from the program's memory, or a negated errno: -EFAULT for a bad address,
    /// another where a sandbox forbids the call.
    static func copyIn<T>(_ address: UInt, _ value: inout T) -> Int {
        withAddress(of: &value) {
            copy(Int32(SYS_process_vm_readv), UInt(bitPattern: $0), address, MemoryLayout<T>.size)
        }
    }

    static func copyOut(_ source: UInt, _ bytes: Int, _ address: UInt) -> Int {
        copy(Int32(SYS_process_vm_writev), source, address, bytes)
    }

    private static func copy(_ call: Int32, _ ours: UInt, _ theirs: UInt, _ bytes: Int) -> Int {
        var local = Vector(base: ours, length: bytes)
        var remote = Vector(base: theirs, length: bytes)
        return withAddress(of: &local) { localAddress in
            withAddress(of: &remote) {
                systemCall(
                    call, systemCall(Int32(SYS_getpid)), localAddress, 1, $0, 1, 0)
            }
        }
    }
}
