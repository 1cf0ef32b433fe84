#!/usr/bin/env bash
# Proves that stressapptest, whose disk threads write patterns through libaio and read them back, finds
# no wrong word on the layer.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_packages stressapptest

# disk OPTIONS...: a file in a disk's place.
disk() {
    local seconds=8
    if is_short; then seconds=1; fi
    truncate -s 64M disk disk2
    layer stressapptest -s "$seconds" -M 32 -m 1 -C 0 -i 0 -d disk "$@" >out 2>&1 ||
        fail "$(grep -iE 'error|fail' out | head -2)"
    grep -q 'Status: PASS' out || fail "$(tail -3 out)"
    grep -q 'Found 0 hardware incidents' out || fail "$(grep incidents out)"
    # The megabytes that the disk threads moved.
    awk '/Stats: Disk:/ { found = $3 + 0 > 0 } END { exit !found }' out || fail "$(grep Disk: out)"
}

served() {
    truncate -s 64M disk
    expect_served stressapptest -s 1 -M 32 -m 1 -d disk
}

try stressapptest_is_served served
try stressapptest_disk disk
if ! is_short; then
    try stressapptest_two_disks disk -d disk2
    try stressapptest_large_blocks disk --read-block-size 65536 --write-block-size 65536
    try stressapptest_random_order disk --random-threads 2
fi
finish
