#!/usr/bin/env bash
# Proves that `ioctx bench` measures, prints and writes what it says, refuses what it cannot do with
# one line, and leaves nothing behind, however it ends.

source "$(dirname "${BASH_SOURCE[0]}")/../Clients/client.sh"
need_commands jq:jq

# bench WANTED OPTIONS...: short rounds in a folder of the case's own, and the exit status.
bench() {
    local wanted=$1 got=0
    shift
    mkdir -p files
    timeout -k 5 60 "$tool" bench --dir files --seconds 0.02 --size 16m "$@" >out 2>err || got=$?
    ((got == wanted)) || fail "status of bench $*: expected $wanted got $got: $(cat err)"
    [[ -z $(ls -A files) ]] || fail "left behind: $(ls -A files)"
}

# refused WORD OPTIONS...: one line on stderr, which has the word in it.
refused() {
    local word=$1
    shift
    "$@"
    expect_equal "lines on stderr" 1 "$(wc -l <err)"
    grep -q -- "$word" err || fail "no '$word' in: $(<err)"
    [[ ! -s out ]] || fail "a table all the same: $(<out)"
}

measures() {
    bench 0 cached/depth-1 pipes/poll --rounds 2 --json results.json --html page.html
    grep -Eq '^cached/depth-1, per second( +[0-9.]+ [kM]){2} +[0-9.]+ ' out ||
        fail "no line: $(<out)"
    jq -e '.schema == 1 and .rounds == 2 and (.cases | length == 2)
        and all(.cases[]; .status == "measured" and (.lines[0].ratio.median > 0)
            and (.lines[0].ratio.least <= .lines[0].ratio.median)
            and (.layer.per_second | length == 2) and (.other.per_second | length == 2))
        and (.cases[0].layer.submit.p99 >= .cases[0].layer.submit.p50)' results.json >/dev/null ||
        fail "the JSON: $(jq -c 'del(.cases[].lines)' results.json | head -c 600)"
    grep -q '<svg' page.html || fail "no plot"
    ! grep -Eq 'src=|href=|url\(' page.html || fail "the page fetches something"
    [[ ! -s err ]] || fail "on stderr: $(<err)"
}

# Each cached read is one system call of the layer's, and two of the kernel's.
counts_calls() {
    bench 0 cached/depth-1 --rounds 1 --json results.json
    if ! jq -e '.cases[0].layer.system_calls_each' results.json >/dev/null; then
        skip "nothing may be traced here"
    fi
    jq -e '.cases[0] | (.other.system_calls_each.io_submit == 1)
        and (.layer.system_calls_each.preadv2 >= 0.9)
        and (.layer.system_calls_each.io_submit == null)' results.json >/dev/null ||
        fail "$(jq -c '.cases[0] | .other.system_calls_each, .layer.system_calls_each' results.json)"
}

# The other side of posix/* is the C library, whose helper threads read with pread64.
posix_sides() {
    bench 0 posix/cached-depth-1 posix/list-64 posix/signal --rounds 1 --json results.json
    jq -e 'all(.cases[]; .status == "measured" and .lines[0].ratio.median > 0)
        and (.cases[0].lines | map(.quantity) == ["rate", "completion_p50"])' results.json \
        >/dev/null || fail "the JSON: $(head -c 600 results.json)"
    if ! jq -e '.cases[0].layer.system_calls_each' results.json >/dev/null; then
        skip "nothing may be traced here"
    fi
    jq -e '.cases[0] | (.other.system_calls_each.pread64 >= 0.9)
        and (.layer.system_calls_each.preadv2 >= 0.9)
        and (.layer.system_calls_each.pread64 == null)' results.json >/dev/null ||
        fail "$(jq -c '.cases[0] | .other.system_calls_each, .layer.system_calls_each' results.json)"
}

# What is measured is the library that is named, on both sides.
against_a_library() {
    bench 0 cached/depth-1 --rounds 1 --against "$dist/lib/libaio.so.1" --json results.json
    # Where nothing may be traced there are no counts at all.
    jq -e '.cases[0].other.system_calls_each | . == null or (.preadv2 >= 0.9 and .io_submit == null)' \
        results.json >/dev/null || fail "the other side calls the kernel's io_submit"
    refused nothing bench 1 cached/depth-1 --against nothing.so
    refused nothing bench 1 cached/depth-1 --library nothing.so
    # The functions of another library that it needs are not its own.
    bench 0 posix/cached-depth-1 --rounds 1 --against "$dist/lib/libaio.so.1"
    grep -q '^posix/cached-depth-1: skipped, .* has no aio_read' out || fail "$(<out)"
    bench 0 posix/cached-depth-1 --rounds 1 --against "$dist/lib/libioctx.so"
    # A library that is none.
    bench 1 cached/depth-1 --against /etc/passwd
    grep -q FAILED out || fail "no failure: $(<out)"
}

refusals() {
    refused no-such-case bench 1 no-such-case
    refused rounds bench 64 --rounds 0
    refused seconds bench 64 --seconds nan
    refused size bench 64 --size 0
    refused none/results bench 1 cached/depth-1 --json none/results.json
    refused none/page bench 1 cached/depth-1 --html none/page.html
    refused no-such-file bench 1 cached/depth-1 --file no-such-file
    refused no-such-folder bench 1 cached/depth-1 --dir no-such-folder
}

# A disk that takes 2 ms for a transfer does no more than 500 in a second one after the other, and
# many more when they are under way together.
a_slow_disk() {
    if ((EUID != 0)) || [[ ! -e /dev/fuse || ! -e /dev/loop-control ]]; then
        skip "needs root, FUSE and loop devices"
    fi
    need_commands mkfs.ext4:e2fsprogs
    bench 0 direct/disk-depth-1 direct/disk-depth-32 cold/random --rounds 1 --slow-disk 2000 \
        --seconds 0.2 --json results.json
    jq -e 'all(.cases[]; .status == "measured")
        and .file == "a disk of 2000 us" and .machine.file_system == "ext4"
        and (.cases[0] | .other.per_second[0] <= 500 and .layer.per_second[0] <= 500)
        and (.cases[1].layer.per_second[0] > 500)
        and (.cases[2].name == "cold/random" and .cases[2].other.per_second[0] <= 500)' \
        results.json >/dev/null || fail "$(jq -c '[.file, .machine, (.cases[] |
            [.name, .other.per_second, .layer.per_second])]' results.json)"
    ! grep -q "$PWD" /proc/self/mounts || fail "a mount is left"
    ! pgrep -f -- '--slow-disk 2000' >/dev/null || fail "a process is left"
    refused slow-disk bench 64 cold/random --slow-disk 0
    refused --file bench 64 cold/random --slow-disk 100 --file data
}

a_file_of_ones_own() {
    dd if=/dev/zero of=data bs=1M count=4 status=none
    local before
    before=$(stat -c '%y %s' data)
    bench 0 cached/depth-1 write/batch-8 --rounds 1 --file data
    grep -q '^write/batch-8: skipped, --file is only read from' out || fail "$(<out)"
    expect_equal "the file" "$before" "$(stat -c '%y %s' data)"
}

interrupted() {
    local pair status pid child children i
    for pair in INT:130 TERM:143; do
        mkdir -p files
        status=0
        # A shell starts its background programs with SIGINT ignored.
        env --default-signal=INT "$tool" bench cached/depth-1 --dir files --seconds 20 \
            --json results.json >out 2>err &
        pid=$!
        for ((i = 0; i < 100; i++)); do
            if children=$(pgrep -P "$pid"); then break; fi
            sleep 0.1
        done
        kill -"${pair%:*}" "$pid"
        wait "$pid" || status=$?
        expect_equal "status after SIG${pair%:*}" "${pair#*:}" "$status"
        expect_equal "lines on stderr" 1 "$(wc -l <err)"
        [[ -z $(ls -A files) ]] || fail "left behind: $(ls -A files)"
        [[ ! -e results.json ]] || fail "a results.json without results"
        for child in $children; do
            [[ ! -d /proc/$child ]] || fail "child $child still runs"
        done
    done
}

lists() {
    bench 0 --list
    grep -qx cold/random out || fail "no cold/random"
    bench 0 --list 'overlay/*'
    expect_equal "cases of overlay/*" 2 "$(wc -l <out)"
}

try bench_measures measures
try bench_counts_system_calls counts_calls
try bench_posix_measures_the_c_library posix_sides
try bench_against_a_library against_a_library
try bench_refuses_in_one_line refusals
try bench_on_a_slow_disk a_slow_disk
try bench_reads_a_file_of_ones_own a_file_of_ones_own
try bench_interrupted_leaves_nothing interrupted
try bench_lists lists
finish
