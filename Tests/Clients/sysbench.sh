#!/usr/bin/env bash
# Proves that sysbench's file test writes and reads through libaio. In asynchronous mode it checks a
# block before it has been read, also on the kernel, so the checksums that it writes are checked
# afterwards, by its synchronous mode.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands sysbench:sysbench

common=(--file-num=8 --file-total-size=32M --file-block-size=4096 --threads=4 --file-async-backlog=64)

# files MODE OPTIONS...
files() {
    local mode=$1 seconds=4
    shift
    if is_short; then seconds=1; fi
    sysbench fileio "${common[@]}" --validate=on --file-test-mode=seqwr prepare >out
    layer sysbench fileio "${common[@]}" --file-io-mode=async --time="$seconds" \
        --file-test-mode="$mode" "$@" run >out || fail "$(grep FATAL out || tail -1 out)"
    ! grep FATAL out || fail "it met an error"
    # Requests a second, of reads and of writes.
    awk '/(reads|writes)\/s:/ { sum += $2 } END { exit !(sum > 0) }' out ||
        fail "it made no requests: $(<out)"
    sysbench fileio "${common[@]}" --validate=on --time=0 --events=8192 \
        --file-test-mode=seqrd run >out || fail "$(grep FATAL out | head -1)"
}

direct() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT"
    files "$@" --file-extra-flags=direct
}

# The check itself must be able to fail.
checksums() {
    files rndrd
    printf x | dd of=test_file.5 bs=1 seek=40960 conv=notrunc status=none
    ! sysbench fileio "${common[@]}" --validate=on --time=0 --events=8192 \
        --file-test-mode=seqrd run >out || fail "a wrong byte went unseen"
}

served() {
    sysbench fileio "${common[@]}" --file-test-mode=rndrd prepare >out
    expect_served sysbench fileio "${common[@]}" --file-io-mode=async --events=100 \
        --file-test-mode=rndrd run
}

try sysbench_is_served served
try sysbench_reads checksums
try sysbench_writes files rndwr --validate=on
if ! is_short; then
    try sysbench_reads_direct direct rndrd
    try sysbench_sequential_reads files seqrd
    try sysbench_rewrites files seqrewr --validate=on
    try sysbench_flushes files rndwr --validate=on --file-fsync-freq=10
fi
finish
