// The root page: one per process, empty in a forked child.

import CLibAIO
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import JobTable

/// Shared with the child; what it found.
private struct ChildReport {
    var hadRoot: Int32
    var jobTable: UInt
    var engine: UInt
    var linuxFace: UInt
    var foundTable: Int32
    var tookLock: Int32
    /// What mincore(2) says of memory that the parent mapped.
    var tableMemory: Int
    /// Of which the parent's table lies.
    var tableAddress: UInt
}

extension JobTable {
    /// The process's table, or nil before the first call that makes it.
    fileprivate static var current: Ref<JobTable>? {
        guard let root = ProcessRoot.current else { return nil }
        return Ref(address: root.it.jobTable.load(ordering: .acquiring))
    }
}

@Suite struct ProcessRootTests {
    @Test("Nothing exists before it is asked for, and then there is one root for all threads")
    func oneRoot() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            #expect(ProcessRoot.current == nil)
            #expect(JobTable.current == nil)
            var roots = Array(repeating: UInt(0), count: 4)
            roots.withUnsafeMutableBufferPointer { roots in
                let base = UInt(bitPattern: roots.baseAddress)
                concurrently(4) { thread in
                    Ref<UInt>(address: base + UInt(thread * 8))!.it =
                        ProcessRoot.create()?.address ?? 0
                }
            }
            #expect(roots[0] != 0)
            #expect(Set(roots).count == 1)
            #expect(ProcessRoot.current?.address == roots[0])
            #expect(JobTable.current == nil)
        }
    }

    /// The child is a raw clone: no atfork handler has a say.
    @Test("A forked child finds no table, free locks, and none of the parent's memory")
    func wipedInChild() async {
        await #expect(processExitsWith: .success) {
            boundedInTime()
            let page = mmap(
                nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)!
            let report = Ref<ChildReport>(address: UInt(bitPattern: page))!
            let root = ProcessRoot.create()!
            let table = JobTable.createLocked(in: root)!
            root.it.engine.store(1, ordering: .relaxed)
            root.it.linuxFace.store(2, ordering: .relaxed)
            root.it.creationLock.lock()
            report.it.jobTable = 99
            report.it.tableAddress = table.address
            let status = ioctx_run_in_child(
                { argument in
                    let report = Ref<ChildReport>(address: UInt(bitPattern: argument))!
                    let root = ProcessRoot.current
                    report.it.hadRoot = root == nil ? 0 : 1
                    report.it.foundTable = JobTable.current == nil ? 0 : 1
                    guard let root else { return }
                    report.it.jobTable = root.it.jobTable.load(ordering: .relaxed)
                    report.it.engine = root.it.engine.load(ordering: .relaxed)
                    report.it.linuxFace = root.it.linuxFace.load(ordering: .relaxed)
                    alarm(10)
                    root.it.creationLock.lock()
                    root.it.creationLock.unlock()
                    report.it.tookLock = 1
                    var residency: UInt64 = 0
                    report.it.tableMemory = withAddress(of: &residency) {
                        systemCall(
                            Int32(SYS_mincore), Int(bitPattern: report.it.tableAddress), 4096, $0)
                    }
                }, page)
            root.it.creationLock.unlock()
            #expect(status == 0)
            #expect(report.it.hadRoot == 1, "the page is there, and empty")
            #expect(report.it.jobTable == 0 && report.it.engine == 0 && report.it.linuxFace == 0)
            #expect(report.it.foundTable == 0)
            #expect(report.it.tookLock == 1)
            #expect(report.it.tableMemory == failure(ENOMEM), "MADV_DONTFORK")
            #expect(JobTable.current == table, "the parent has what it had")
            root.it.linuxFace.store(0, ordering: .relaxed)
        }
    }
}
