#!/usr/bin/env bash
# Proves that `ioctx cp` copies every byte through the layer, whatever the file's size, and that a copy
# which cannot be finished says so and leaves nothing under the destination's name.

source "$(dirname "${BASH_SOURCE[0]}")/../Clients/client.sh"
if [[ $engine == kernel ]]; then die "ioctx cp has no reference: name an engine"; fi

copy() {
    IOCTX_ENGINE=$engine timeout -k 5 "${limit:-60}" "$tool" cp "$@"
}

same() {
    copy "${@:3}" "$1" "$2"
    cmp "$1" "$2"
}

large_file() {
    local before after bytes=$((1 << 28))
    (($(df --output=avail -B1M . | tail -1) > 1024)) || skip "less than 1 GiB is free in $PWD"
    head -c "$bytes" /dev/urandom >source
    before=$(sha256sum <source)
    copy source copy
    after=$(sha256sum <copy)
    expect_equal "sha256" "$before" "$after"
    expect_equal "size" "$bytes" "$(stat -c %s copy)"
    copy --direct --depth 8 --block-size 1m source direct
    expect_equal "sha256 of the direct copy" "$before" "$(sha256sum <direct)"
}

# Offsets that 32 bits do not hold: nearly all of it is a hole, in the source and in the copy.
beyond_4_gib() {
    head -c 1M /dev/urandom >source
    truncate -s 4G source
    head -c 1000001 /dev/urandom >>source
    copy source copy
    expect_equal "size" "$(stat -c %s source)" "$(stat -c %s copy)"
    cmp -n 2M source copy
    cmp <(tail -c 2M source) <(tail -c 2M copy)
}

odd_sizes() {
    local size
    for size in 0 1 511 512 513 4095 4096 4097 65535 65536 65537 1048577 10000019; do
        head -c "$size" /dev/urandom >source
        same source copy
        same source copy2 --depth 1 --block-size 4k
        same source copy3 --depth 128 --block-size 64k --verify
    done
}

direct_odd_sizes() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT"
    local size
    for size in 0 1 513 4096 4097 1048577; do
        head -c "$size" /dev/urandom >source
        same source copy --direct
    done
}

sparse() {
    head -c 1M /dev/urandom >source
    truncate -s 20M source
    head -c 777 /dev/urandom >>source
    same source copy --verify
}

from_zero() {
    copy --size 10m /dev/zero copy
    head -c 10M /dev/zero | cmp - copy
    copy --size 12345 /dev/zero copy
    head -c 12345 /dev/zero | cmp - copy
}

# Their lengths are 0 and 4096, whatever is in them.
from_proc_and_sys() {
    local source=/sys/kernel/mm/transparent_hugepage/enabled
    same /proc/version copy
    [[ -r $source ]] || skip "there is no $source here"
    same "$source" copy2 --verify
    same "$source" copy3 --block-size 10
}

overwrites() {
    head -c 5M /dev/urandom >source
    head -c 9M /dev/urandom >copy
    same source copy
}

quiet_without_terminal() {
    head -c 1M /dev/urandom >source
    copy source copy >out 2>err
    if grep -q $'[\r\e]' err; then fail "a progress bar went to a file"; fi
}

# Nothing of the tool's may be at their numbers, where it writes its messages.
closed_descriptors() {
    local status=0
    head -c 1M /dev/urandom >source
    copy source copy <&- >&- 2>err || status=$?
    expect_equal "status without stdout" 1 "$status"
    grep -q 'cannot write the output' err || fail "no word about stdout: $(<err)"
    cmp source copy
    copy source copy2 >&- 2>&- || true
    cmp source copy2
    copy --quiet source copy3 <&- >&- 2>&-
    cmp source copy3
    if copy --quiet source /dev/stdout >&- 2>err; then fail "a copy went to a closed stdout"; fi
}

standard_output_as_target() {
    printf 'the bytes' >source
    copy source /dev/stdout | cat >got
    cmp source got
    copy source /dev/stdout >got
    cmp source got
}

# The line must be shorter than the terminal is wide: a longer one stays, and each redraw adds one.
narrow_terminal() {
    need_commands script:bsdutils
    local columns
    for columns in 200 50 30 10; do
        # shellcheck disable=SC2016  # for the inner shell
        TERM=xterm WIDTH=$columns TOOL=$tool IOCTX_ENGINE=$engine script -qec 'stty cols $WIDTH
            { printf 12345; sleep 0.5; printf 12345; } |
                "$TOOL" cp --size 10 --block-size 5 /dev/stdin copy' drawn >/dev/null </dev/null
        # What is drawn is between a return and the code that clears the rest of the line.
        grep -o $'\r[^\r\e]*\e' drawn | tr -d $'\r\e' | grep . >lines || fail "no progress is drawn"
        grep -q '50%' lines || fail "no share with $columns columns: $(<lines)"
        ! grep -qE "^.{$columns}" lines || fail "wider than $columns columns: $(<lines)"
    done
}

refused() {
    local status=0
    copy "$@" >out 2>err || status=$?
    ((status != 0 && status != 124 && status != 137)) || fail "expected a failure got status $status"
    [[ -s err ]] || fail "it failed without a word"
}

missing_source() {
    refused nothing copy
    [[ ! -e copy ]]
    mkdir folder
    refused folder copy
    [[ ! -e copy ]]
}

full_disk() {
    ((EUID == 0)) || skip "mounting a small tmpfs needs root"
    mkdir small
    mount -t tmpfs -o size=2m ioctx-test small 2>/dev/null || skip "tmpfs cannot be mounted here"
    # shellcheck disable=SC2064  # the folder as it is now
    trap "umount '$PWD/small'" EXIT
    head -c 8M /dev/urandom >source
    refused source small/copy
    expect_equal "left in the destination's folder" "" "$(ls -A small)"
    echo kept >small/old
    refused source small/old
    expect_equal "the old file" kept "$(cat small/old)"
    grep -qi 'space' err || fail "the message does not say that the disk is full: $(cat err)"
}

# One that its owner may not write is copied as one that nobody may write, also by who is not root.
read_only_source() {
    dd if=/dev/zero of=direct bs=4096 count=1 oflag=direct 2>/dev/null ||
        skip "the file system of $PWD refuses O_DIRECT"
    local as=()
    if ((EUID == 0)); then
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
        chmod 777 .
        cp "$tool" ioctx.copy
        cp -r "$(dirname "$tool")/../lib" lib
        chmod -R go+rX ioctx.copy lib
    else
        cp "$tool" ioctx.copy
    fi
    head -c 100001 /dev/urandom >source
    chmod 444 source
    "${as[@]}" env IOCTX_ENGINE="$engine" IOCTX_LIBRARY="$PWD/lib/libioctx.so" \
        ./ioctx.copy cp --direct source copy
    cmp source copy
    expect_equal "mode" 444 "$(stat -c %a copy)"
    expect_equal "files left" "" "$(find . -name '.ioctx-cp*')"
}

# The numbers at which a sum of offset and block would be none.
greatest_size() {
    local size
    for size in 9223372036854775807 9223372036854513664; do
        if (ulimit -f 64 && trap '' XFSZ && copy --size "$size" /dev/zero copy 2>err); then
            fail "copied $size bytes"
        fi
        grep -q '^ioctx cp: ' err || fail "no message: $(<err)"
        expect_equal "files left" "" "$(find . -name '.ioctx-cp*')"
    done
}

# One letter in two spellings, and two bytes that are no letters: four names.
similar_names() {
    local name names=($'caf\u00e9' $'cafe\u0301' $'f\xff' $'f\xfe')
    for name in "${names[@]}"; do printf '%s' "$name" >"$name"; done
    copy "${names[0]}" "${names[1]}"
    copy "${names[2]}" "${names[3]}"
    cmp "${names[0]}" "${names[1]}"
    cmp "${names[2]}" "${names[3]}"
    expect_equal "names" 4 "$(find . -type f -name '[cf]*' | wc -l)"
}

# ramfs has no O_DIRECT.
direct_refused() {
    ((EUID == 0)) || skip "mounting a ramfs needs root"
    mkdir ram
    mount -t ramfs ioctx-test ram 2>/dev/null || skip "ramfs cannot be mounted here"
    # shellcheck disable=SC2064  # the folder of now
    trap "umount '$PWD/ram'" EXIT
    head -c 10000 /dev/urandom >source
    if copy --direct source ram/copy 2>err; then fail "copied by O_DIRECT"; fi
    grep -q 'leave out --direct' err || fail "not said what to do: $(<err)"
    expect_equal "files left" "" "$(ls -A ram)"
}

try cp_a_large_file large_file
try cp_beyond_4_gib beyond_4_gib
try cp_odd_sizes odd_sizes
try cp_direct_odd_sizes direct_odd_sizes
try cp_sparse sparse
try cp_from_dev_zero from_zero
try cp_from_proc_and_sys from_proc_and_sys
try cp_over_a_longer_file overwrites
try cp_is_quiet_without_a_terminal quiet_without_terminal
try cp_in_a_narrow_terminal narrow_terminal
try cp_with_closed_descriptors closed_descriptors
try cp_to_standard_output standard_output_as_target
try cp_refuses_what_it_cannot_read missing_source
try cp_on_a_full_disk_leaves_nothing full_disk
try cp_direct_where_it_is_refused_leaves_nothing direct_refused
try cp_direct_of_a_read_only_file read_only_source
try cp_of_the_greatest_size greatest_size
try cp_of_similar_names similar_names
finish
