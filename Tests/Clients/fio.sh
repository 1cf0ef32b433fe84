#!/usr/bin/env bash
# Proves that fio, unmodified, reads back through the layer exactly what it wrote: every block size and
# depth, buffered and direct, from processes and threads, with each way of reaping.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands fio:fio

# job SIZE OPTIONS...: four writers and verifiers; fio's exit status and its counts must be right.
# It complains of a disk that goes while it looks for the file's: disk_util has it look for none.
job() {
    local size_kb=$1 line fields
    shift
    layer fio --name=job --directory=. --ioengine=libaio --rw=randrw --verify=crc32c \
        --verify_fatal=1 --size="${size_kb}k" --numjobs=4 --randseed=20061125 --minimal \
        --disk_util=0 \
        "$@" >out 2>err || fail "fio: $(cat err out)"
    # Terse fields 5, 6 and 47: the error, and the KiB read and written. Every block is read once:
    # either by the random part or when a written one is verified.
    grep '^3;' out >lines || fail "fio printed no result: $(cat err)"
    expect_equal "jobs reported" 4 "$(wc -l <lines)"
    while IFS= read -r line; do
        IFS=';' read -r -a fields <<<"$line"
        expect_equal "fio's error" 0 "${fields[4]}"
        expect_equal "KiB read" "$size_kb" "${fields[5]}"
        ((fields[46] > 0 && fields[46] < size_kb)) || fail "KiB written: ${fields[46]} of $size_kb"
    done <lines
    [[ ! -s err ]] || fail "fio complained: $(cat err)"
    rm -f job.*
}

direct_possible() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT"
    [[ $1 != 512 ]] || dd if=/dev/zero of=direct bs=512 count=1 oflag=direct 2>/dev/null ||
        skip "the disk's blocks are larger than 512 bytes"
}

buffered() {
    job "$2" --bs="$1" --iodepth="$3" --direct=0 "${@:4}"
}

direct() {
    direct_possible "$1"
    job "$2" --bs="$1" --iodepth="$3" --direct=1 "${@:4}"
}

matrix() {
    local kind cell depth
    for kind in buffered direct; do
        for depth in 1 32 256; do
            for cell in 512:1024 4k:4096 64k:8192 1m:16384; do
                try "fio_${kind}_${cell%:*}_depth_$depth" "$kind" "${cell%:*}" "${cell#*:}" "$depth"
            done
            # Who submits is the same whatever the size.
            try "fio_${kind}_4k_depth_${depth}_threads" "$kind" 4k 4096 "$depth" --thread
        done
    done
}

# Writes first, then reads with an empty page cache.
cold() {
    layer fio --name=job --directory=. --ioengine=libaio --rw=randwrite --verify=crc32c --size=32m \
        --bs=4k --iodepth=32 --do_verify=0 --end_fsync=1 --output=out
    layer fio --name=job --directory=. --ioengine=libaio --rw=randread --verify=crc32c --size=32m \
        --bs=4k --iodepth="$1" --invalidate=1 --verify_fatal=1 --minimal >out
    expect_equal "error" 0 "$(cut -d';' -f5 out)"
    expect_equal "KiB read" 32768 "$(cut -d';' -f6 out)"
}

served() {
    expect_served fio --name=job --ioengine=libaio --rw=randrw --size=1m --bs=4k --output=out
}

try fio_is_served served
matrix
for depth in 1 32 256; do
    try "fio_cold_reads_depth_$depth" cold "$depth"
done
for kind in buffered direct; do
    try "fio_${kind}_userspace_reap" "$kind" 4k 4096 32 --userspace_reap --iodepth_batch_complete_min=0
    try "fio_${kind}_userspace_reap_threads" "$kind" 4k 4096 256 --userspace_reap \
        --iodepth_batch_complete_min=0 --thread
    try "fio_${kind}_fsync_every_32" "$kind" 4k 4096 32 --fsync=32
    try "fio_${kind}_fdatasync_every_32" "$kind" 4k 4096 32 --fdatasync=32 --thread
    try "fio_${kind}_batches" "$kind" 4k 4096 64 --iodepth_batch_submit=16 \
        --iodepth_batch_complete_min=4 --iodepth_batch_complete_max=32
done
try fio_direct_priorities direct 4k 4096 32 --cmdprio_percentage=50 --cmdprio_class=2 --cmdprio=4
finish
