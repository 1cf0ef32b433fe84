#!/usr/bin/env bash
# Proves that stress-ng's AIO stressors, which make the system calls through syscall(), find what they
# verify.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands stress-ng:stress-ng

# stress STRESSOR OPERATIONS: so many operations by two workers, all of them verified.
stress() {
    local operations=$2
    if is_short; then operations=$(($2 / 8)); fi
    layer stress-ng "--$1" 2 "--$1-ops" "$operations" --verify --temp-path . --metrics-brief \
        --timeout 50 >out 2>&1 || fail "$(grep -v 'info:' out || tail -5 out)"
    ! grep -qiE ' (fail|error):' out || fail "$(grep -iE ' (fail|error):' out | head -1)"
    # The column after the stressor's name counts the operations that it made.
    local made
    made=$(awk -v name="$1" '$4 == name && $5 ~ /^[0-9]+$/ { print $5 }' out)
    ((made >= operations)) || fail "$made of $operations operations were made: $(tail -3 out)"
}

served() {
    expect_served_without_kernel stress-ng --aiol 1 --aiol-ops 64 --temp-path .
}

posix_served() {
    expect_posix_served stress-ng --aio 1 --aio-ops 64 --temp-path .
}

try stress_aiol_is_served served
try stress_aiol stress aiol 4096
try stress_aiol_requests stress aiol 4096 --aiol-requests 64
try stress_aio_is_served posix_served
try stress_aio stress aio 4096
finish
