#!/usr/bin/env bash
# Proves that programs written for the C library's POSIX AIO, unmodified, read back through the layer
# exactly what they wrote: fio with its posixaio engine, and stress-ng.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands fio:fio stress-ng:stress-ng gcc:gcc

# job FILES OPTIONS...: writes and verifies; every block is read once.
job() {
    local files=$1 fields
    shift
    layer fio --name=job --directory=. --ioengine=posixaio --rw=randrw --verify=crc32c \
        --verify_fatal=1 --size=8m --nrfiles="$files" --bs=4k --randseed=20070425 --minimal --disk_util=0 \
        "$@" >out 2>err || fail "fio: $(cat err out)"
    IFS=';' read -r -a fields <<<"$(grep '^3;' out)"
    expect_equal "fio's error" 0 "${fields[4]}"
    expect_equal "KiB read" 8192 "${fields[5]}"
    [[ ! -s err ]] || fail "fio complained: $(cat err)"
}

direct_job() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT"
    job "$@" --direct=1
}

fio_served() {
    expect_posix_served fio --name=job --ioengine=posixaio --rw=randrw --size=1m --bs=4k \
        --output=out
}

# aio_read, aio_write and aio_fsync with signals, each worker checking what it reads.
stress() {
    layer stress-ng --aio 2 --aio-requests 32 --aio-ops 20000 --verify --temp-path . \
        --metrics-brief >out 2>&1 || fail "$(cat out)"
    ! grep -qiE 'fail|error' out || fail "$(cat out)"
}

stress_served() {
    expect_posix_served stress-ng --aio 1 --aio-ops 100 --temp-path . --quiet
}

try posixaio_fio_is_served fio_served
for depth in 1 32 256; do
    try "posixaio_fio_one_file_depth_$depth" job 1 --iodepth="$depth"
    try "posixaio_fio_many_files_depth_$depth" job 64 --iodepth="$depth"
    try "posixaio_fio_direct_depth_$depth" direct_job 1 --iodepth="$depth"
done
try posixaio_fio_fsync job 4 --iodepth=16 --fsync=32
try posixaio_fio_threads job 16 --iodepth=16 --numjobs=1 --thread
try posixaio_stress_ng_is_served stress_served
try posixaio_stress_ng_verifies stress
finish
