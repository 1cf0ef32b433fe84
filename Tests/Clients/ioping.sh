#!/usr/bin/env bash
# Proves that ioping, which makes the system calls through syscall(), reads and writes on the layer.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands ioping:ioping

# requests OPTIONS...: a number of requests as fast as they go; ioping counts those that succeeded.
requests() {
    local count=2000
    if is_short; then count=300; fi
    head -c 16M /dev/urandom >data
    cp data before
    layer ioping -A -B -i 0 -c "$count" -s 4k -S 16m "$@" data >out
    # The first raw statistic is the number of requests; the first request only warms up.
    expect_equal "requests" $((count - 1)) "$(awk '{ print $1 }' out)"
}

reads() {
    requests "$@"
    cmp data before
}

writes() {
    requests -WWW "$@"
    expect_equal "bytes" 16777216 "$(stat -c %s data)"
    ! cmp -s data before || fail "nothing was written"
}

served() {
    head -c 1M /dev/urandom >data
    expect_served_without_kernel ioping -A -q -i 0 -c 50 data
}

try ioping_is_served served
try ioping_reads_cached reads -C
try ioping_reads reads
try ioping_reads_direct reads -D
try ioping_writes writes
try ioping_writes_direct writes -D
try ioping_writes_synchronously writes -Y
finish
