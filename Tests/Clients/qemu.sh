#!/usr/bin/env bash
# Proves that QEMU's tools, which read the aio_ring themselves and never call io_getevents, copy,
# write and read images through the layer without a wrong byte.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands qemu-img:qemu-utils qemu-io:qemu-utils

direct_needed() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT, without which QEMU does not use AIO"
}

# A raw image with random data, holes and an odd number of blocks.
source_image() {
    head -c 48M /dev/urandom >source.raw
    truncate -s 80M source.raw
    head -c 3M /dev/urandom >>source.raw
    truncate -s +4096 source.raw
}

native() {
    printf 'driver=%s,cache.direct=on,file.driver=file,file.filename=%s,file.aio=native,file.cache.direct=on' \
        "$1" "$2"
}

convert() {
    layer qemu-img convert --image-opts --target-image-opts -n "${@:3}" "$1" "$2"
}

raw_to_raw() {
    direct_needed
    source_image
    truncate -s "$(stat -c %s source.raw)" copy.raw
    convert "$(native raw source.raw)" "$(native raw copy.raw)" "$@"
    cmp source.raw copy.raw
    qemu-img compare -f raw -F raw source.raw copy.raw
}

through_qcow2() {
    direct_needed
    source_image
    local size
    size=$(stat -c %s source.raw)
    qemu-img create -q -f qcow2 "${1:--ocluster_size=64k}" image.qcow2 "$size"
    convert "$(native raw source.raw)" "$(native qcow2 image.qcow2)" -W -m 16
    qemu-img check -q image.qcow2
    qemu-img compare -f raw -F qcow2 source.raw image.qcow2
    truncate -s "$size" back.raw
    convert "$(native qcow2 image.qcow2)" "$(native raw back.raw)"
    cmp source.raw back.raw
}

# As people write it: the cache modes on the command line, the AIO mode QEMU's own choice.
plain_convert() {
    direct_needed
    source_image
    truncate -s +512 source.raw
    layer qemu-img convert -t none -T none -f raw -O qcow2 source.raw image.qcow2
    layer qemu-img convert -t none -T none -f qcow2 -O raw image.qcow2 back.raw
    cmp source.raw back.raw
}

bench_reads() {
    direct_needed
    head -c 32M /dev/urandom >image.raw
    sha256sum image.raw >before
    layer qemu-img bench -i native -t none -f raw -c "$1" -d "$2" -s "$3" image.raw
    sha256sum -c --quiet before
}

# It writes its pattern block by block from the start: afterwards that much is pattern, the rest not.
bench_writes() {
    direct_needed
    local bytes=$((4096 * 4096))
    head -c 32M /dev/urandom >image.raw
    cp image.raw expected.raw
    head -c "$bytes" /dev/zero | tr '\0' 'Z' | dd of=expected.raw conv=notrunc bs=1M status=none
    layer qemu-img bench -w -i native -t none -f raw -c 4096 -d 64 -s 4096 --pattern=0x5a \
        "$@" image.raw
    cmp expected.raw image.raw
}

# Hundreds of requests outstanding at once, then all of them checked, by the layer and by the kernel.
io_patterns() {
    direct_needed
    local i size=$1 pattern
    truncate -s 64M image.raw
    for ((i = 0; i < 400; i++)); do
        pattern=$((1 + i * 37 % 255))
        printf 'aio_write -q -P %d %d %d\n' "$pattern" $((i * 131072)) "$size" >>writes
        printf 'aio_read -q -P %d %d %d\n' "$pattern" $((i * 131072)) "$size" >>reads
        printf 'read -q -P %d %d %d\n' "$pattern" $((i * 131072)) "$size" >>check
    done
    printf 'aio_flush\n' >flush
    cat writes flush reads flush | layer qemu-io -n -i native -f raw image.raw >out 2>&1
    ! grep -i 'fail\|error' out || fail "qemu-io saw wrong data or an error"
    # The check itself must be able to fail.
    qemu-io -f raw image.raw <check >out 2>&1
    ! grep -i 'fail\|error' out || fail "the image is wrong when read without the layer"
    printf 'read -P 254 0 %d\n' "$size" | qemu-io -f raw image.raw >out 2>&1 || true
    grep -q 'verification failed' out
}

# Reads and writes of many sizes in flight together with flushes between them.
io_mixture() {
    direct_needed
    local i
    truncate -s 64M image.raw
    for ((i = 0; i < 300; i++)); do
        printf 'aio_write -q -P %d %d %d\n' $((1 + i % 250)) $((i * 204800)) $((4096 * (1 + i % 50)))
        if ((i % 16 == 15)); then printf 'aio_flush\n'; fi
        if ((i >= 32)); then
            printf 'aio_read -q -P %d %d %d\n' $((1 + (i - 32) % 250)) $(((i - 32) * 204800)) \
                $((4096 * (1 + (i - 32) % 50)))
        fi
    done >commands
    printf 'aio_flush\n' >>commands
    layer qemu-io -n -i native -f raw image.raw <commands >out 2>&1
    ! grep -i 'fail\|error' out || fail "qemu-io saw wrong data or an error"
}

served() {
    direct_needed
    head -c 1M /dev/zero >image.raw
    expect_served qemu-img bench -i native -t none -f raw -c 100 -d 8 image.raw
}

try qemu_is_served served
try qemu_convert_raw_to_raw raw_to_raw
try qemu_convert_out_of_order raw_to_raw -W -m 16
try qemu_convert_through_qcow2 through_qcow2
try qemu_convert_through_small_clusters through_qcow2 -ocluster_size=4k
try qemu_convert_as_usual plain_convert
try qemu_bench_reads bench_reads 20000 64 4096
try qemu_bench_reads_depth_1 bench_reads 3000 1 4096
try qemu_bench_large_reads bench_reads 2000 32 262144
try qemu_bench_writes bench_writes
try qemu_bench_writes_with_flushes bench_writes --flush-interval=64
try qemu_io_patterns_4k io_patterns 4096
try qemu_io_patterns_64k io_patterns 65536
try qemu_io_mixture io_mixture
finish
