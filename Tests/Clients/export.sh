#!/usr/bin/env bash
# Proves that an image which QEMU exports over NBD, its requests made as a guest's disk makes them, is
# read and written through the layer without a wrong byte.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands qemu-nbd:qemu-utils qemu-img:qemu-utils qemu-io:qemu-utils

image_kb=$((64 * 1024))

direct_needed() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT, without which QEMU does not use AIO"
}

# start_export FILE FORMAT COMMAND...: COMMAND stands before qemu-nbd.
start_export() {
    local file=$1 format=$2
    shift 2
    "$@" qemu-nbd --aio=native --cache=none --persistent --shared=4 --format="$format" \
        --pid-file="$PWD/pid" --socket="$PWD/socket" "$file" >nbd.log 2>&1 &
    server=$!
    disk="nbd+unix:///?socket=$PWD/socket"
    answers "$server" qemu-img info "$disk" || fail "the export does not answer: $(tail -3 nbd.log)"
}

stop_export() {
    kill "$(<pid)"
    wait "$server" || true
    [[ ! -s nbd.log ]] || fail "qemu-nbd complained: $(<nbd.log)"
}

# What a guest does: blocks of 4 to 128 KiB at random places, many in flight, flushes between them.
commands() {
    local i count=1500 pattern kb at
    if is_short; then count=400; fi
    RANDOM=20061125
    for ((i = 0; i < count; i++)); do
        pattern=$((1 + i % 250)) kb=$((4 * (1 + RANDOM % 32)))
        # Requests in flight may be done in any order: each of the eight has a part of its own.
        at=$((i % 8 * image_kb / 8 + 4 * ((RANDOM * 32768 + RANDOM) % ((image_kb / 8 - 128) / 4))))
        if ((i % 8 == 0)); then printf 'aio_flush\n'; fi
        printf 'aio_write -q -P %d %dk %dk\n' "$pattern" "$at" "$kb"
        if ((i % 2)); then printf 'aio_flush\naio_read -q -P %d %dk %dk\n' "$pattern" "$at" "$kb"; fi
        if ((i % 32 == 31)); then printf 'aio_flush\nflush\n'; fi
    done
    printf 'aio_flush\nflush\n'
}

random_io() {
    local format=$1
    direct_needed
    head -c "${image_kb}k" /dev/urandom >expected.raw
    qemu-img convert -f raw -O "$format" expected.raw image
    commands >script
    start_export image "$format" layer
    qemu-io -f raw "$disk" <script >out 2>&1
    ! grep -i 'fail\|error' out || fail "qemu-io saw wrong data or an error"
    stop_export
    sed -e '/^aio_flush/d' -e 's/^aio_//' script | qemu-io -f raw expected.raw >out 2>&1
    qemu-img compare -f "$format" -F raw image expected.raw
}

# Four readers and writers at once, then the whole image against the kernel's view of the file.
many_guests() {
    direct_needed
    head -c "${image_kb}k" /dev/urandom >image
    start_export image raw layer
    local guest guests=() count=4000
    if is_short; then count=500; fi
    for guest in 0 1 2; do
        qemu-img bench -t none -f raw -c "$count" -d 32 -s 8192 "$disk" >"bench.$guest" &
        guests+=("$!")
    done
    qemu-img bench -t none -f raw -w --pattern=0x5a -c 2048 -d 32 -s 8192 --flush-interval=64 \
        "$disk" >bench.write
    for guest in "${guests[@]}"; do wait "$guest"; done
    qemu-img convert -f raw -O raw "$disk" copy
    stop_export
    cmp image copy
    head -c 16M /dev/zero | tr '\0' 'Z' | cmp -n 16777216 - image
}

served() {
    direct_needed
    "$root/Tests/Programs/build" seccomp
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    head -c 1M /dev/zero >image
    if (start_export image raw "${no_kernel_aio[@]}" && qemu-io -f raw -c 'read 0 4k' "$disk"); then
        fail "qemu-nbd makes no AIO calls"
    fi
    start_export image raw layer "${no_kernel_aio[@]}"
    qemu-io -f raw -c 'write -P 7 0 64k' -c 'read -P 7 0 64k' "$disk"
    stop_export
    head -c 64K /dev/zero | tr '\0' '\7' | cmp -n 65536 - image
}

try export_is_served served
try export_random_io_raw random_io raw
try export_random_io_qcow2 random_io qcow2
try export_many_guests many_guests
finish
