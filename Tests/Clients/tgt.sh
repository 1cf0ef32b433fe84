#!/usr/bin/env bash
# Proves that tgt, an iSCSI target that counts completions by an eventfd, serves a file through the
# layer to initiators in user space.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_packages tgt libiscsi-bin qemu-block-extra
need_commands qemu-img:qemu-utils qemu-io:qemu-utils
((EUID == 0)) || {
    printf 'skip tgt: tgtd wants root\n'
    exit
}

target=iqn.2006-11.org.example:disk
mkdir -p /run/tgtd

admin() {
    tgtadm -C "$control" --lld iscsi "$@"
}

# start_target FILE COMMAND...: COMMAND stands before tgtd.
start_target() {
    local file=$1
    shift
    # Below what a system gives to who asks for any port, and apart from server.sh's.
    control=$((1000 + $$ % 30000)) port=$((25000 + $$ % 5000))
    "$@" tgtd -f -C "$control" --iscsi portal="127.0.0.1:$port" >tgtd.log 2>&1 &
    server=$!
    answers "$server" admin --op show --mode system || fail "tgtd does not answer: $(tail -3 tgtd.log)"
    admin --op new --mode target --tid 1 -T "$target"
    admin --op new --mode logicalunit --tid 1 --lun 1 --bstype aio -b "$file"
    admin --op bind --mode target --tid 1 -I ALL
    disk="iscsi://127.0.0.1:$port/$target/1"
}

stop_target() {
    admin --op unbind --mode target --tid 1 -I ALL
    admin --op delete --mode target --tid 1 --force
    admin --op delete --mode system
    wait "$server" || true
}

copies() {
    local megabytes=48
    if is_short; then megabytes=16; fi
    head -c "${megabytes}M" /dev/urandom >image
    cp image before
    start_target "$PWD/image" layer
    qemu-img convert -f raw -O raw "$disk" copy
    cmp before copy
    head -c "${megabytes}M" /dev/urandom >other
    qemu-img convert -n -f raw -O raw other "$disk"
    qemu-img compare -f raw -F raw other "$disk"
    stop_target
    cmp other image
}

random_io() {
    local i count=600
    if is_short; then count=200; fi
    truncate -s 64M image
    for ((i = 0; i < count; i++)); do
        printf 'aio_write -q -P %d %dk %dk\n' $((1 + i % 250)) $((i * 96)) $((4 * (1 + i % 24)))
    done >writes
    sed 's/write/read/' writes >reads
    printf 'aio_flush\nflush\n' >flush
    start_target "$PWD/image" layer
    cat writes flush reads flush | qemu-io -f raw "$disk" >out 2>&1
    ! grep -i 'fail\|error' out || fail "qemu-io saw wrong data or an error"
    stop_target
    sed 's/^aio_//' reads | qemu-io -f raw image >out 2>&1
    ! grep -i 'fail\|error' out || fail "the file is wrong when read without the layer"
}

# The initiator's own test of a target: what reads, writes and flushes must do.
compliance() {
    truncate -s 64M image
    start_target "$PWD/image" layer
    local test
    for test in Read10 Read16 Write10.Simple Write16.Simple ReadCapacity10 TestUnitReady; do
        iscsi-test-cu --dataloss --test="SCSI.$test" "$disk" >"cu.$test" 2>&1 ||
            fail "SCSI.$test: $(grep -m1 FAILED "cu.$test" || tail -1 "cu.$test")"
    done
    stop_target
}

served() {
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    "$root/Tests/Programs/build" seccomp
    head -c 1M /dev/urandom >image
    cp image before
    if (start_target "$PWD/image" "${no_kernel_aio[@]}" && qemu-img convert -O raw "$disk" copy); then
        fail "tgtd makes no AIO calls"
    fi
    start_target "$PWD/image" layer "${no_kernel_aio[@]}"
    qemu-img convert -f raw -O raw "$disk" copy
    cmp before copy
    stop_target
}

try tgt_is_served served
try tgt_copies copies
try tgt_random_io random_io
if ! is_short; then try tgt_compliance compliance; fi
finish
