#!/usr/bin/env bash
# Proves that btreplay, which replays a record of a device's requests through libaio, writes and reads on
# the layer what the record says and nothing else. The record is made here: the container's kernel
# cannot trace.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_packages blktrace
need_commands losetup:mount

device=
remove_device() {
    if [[ -n $device ]]; then losetup -d "$device"; fi
}

make_device() {
    ((EUID == 0)) || skip "a loop device wants root"
    head -c 32M /dev/urandom >disk
    device=$(losetup -f --show disk) ||
        skip "there is no loop device here: $(losetup -f 2>&1 || true)"
    trap remove_device EXIT
}

little_endian() {
    local value=$1 bytes=$2 i
    for ((i = 0; i < bytes; i++)); do
        # shellcheck disable=SC2059  # the format is the value
        printf "\\x$(printf %02x $((value >> 8 * i & 255)))"
    done
}

# record COUNT READ FIRST: requests of 4 KiB, eight at a time, on every second block from FIRST on.
# blktrace's btrecord.h: a header (version, start, bunches, requests), then bunches (requests, time)
# of requests (sector, bytes, 1 for a read).
record() {
    local i
    little_endian $((0x010000)) 8
    little_endian 0 8
    little_endian $(($1 / 8)) 8
    little_endian "$1" 8
    for ((i = 0; i < $1; i++)); do
        if ((i % 8 == 0)); then
            little_endian 8 8
            little_endian $((i * 1000)) 8
        fi
        little_endian $(($3 * 8 + i * 16)) 8
        little_endian 4096 8
        little_endian "$2" 4
        little_endian 0 4
    done
}

# btreplay loses a wake-up between its own threads now and then, on the kernel too, and never ends.
replay() {
    local status=0 i
    record "$1" "$2" "$3" >"${device#/dev/}.replay.0"
    for i in {1..10}; do
        status=0
        limit=2 grace=1 layer btreplay -N -F -W >out || status=$?
        if ((status != 124 && status != 137)); then break; fi
    done
    ((status == 0)) || fail "exit status $status: $(tail -2 out)"
}

reads() {
    make_device
    replay "$count" 1 0
}

writes() {
    make_device
    cp disk expected
    # It writes its buffers as they are: zeros.
    local i
    for ((i = 0; i < count; i++)); do
        dd if=/dev/zero of=expected bs=4096 seek=$((1 + 2 * i)) count=1 conv=notrunc status=none
    done
    replay "$count" 0 1
    sync disk
    cmp disk expected
}

served() {
    make_device
    if [[ $engine == kernel ]]; then return; fi
    export LD_DEBUG=bindings LD_DEBUG_OUTPUT=$work/bindings
    replay 64 1 0
    unset LD_DEBUG LD_DEBUG_OUTPUT
    grep -qh "to $preloaded .*normal symbol .io_submit'" "$work"/bindings.* ||
        fail "io_submit is not bound to $preloaded"
}

count=512
if is_short; then count=128; fi
try btreplay_is_served served
try btreplay_reads reads
try btreplay_writes writes
finish
