# What the scripts here and in Tests/Tool share; read with `source`. A script's first argument is the
# engine: one of IOCTX_ENGINE's values, or `kernel` to run the same cases on the kernel's own AIO as the
# reference.

# shellcheck source=../../Scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../Scripts/lib.sh"

engine=${1:-auto}
# IOCTX_DIST names another build to test, such as an installed one.
dist=${IOCTX_DIST:-$root/dist}
tool=$dist/bin/ioctx
preloaded=$dist/lib/libioctx.so
failures=0

# O_DIRECT and cold reads need a disk, which /tmp often is not.
mkdir -p "${TMPDIR:-$root/.build-tests}"
work=$(mktemp -d "${TMPDIR:-$root/.build-tests}/client-XXXXXX")
# A second signal, from a `timeout` that is ended too, must not end the cleaning up.
trap 'trap "" TERM; end_leftovers; rm -rf "$work"' EXIT
trap 'exit 143' TERM

# layer COMMAND...: runs a program on the engine under test, bounded in time.
layer() {
    if [[ $engine == kernel ]]; then
        timeout -k "${grace:-5}" "${limit:-60}" "$@"
    else
        timeout -k "${grace:-5}" "${limit:-60}" "$tool" run --engine "$engine" -- "$@"
    fi
}

# try NAME FUNCTION [ARGUMENTS]: one case. It fails at the function's first failing command; what it
# printed is shown then.
try() {
    local name=$1 status=0
    shift
    rm -f "$work/reason" "$work/last"
    mkdir -p "$work/case"
    # In the background, because `set -e` does not hold inside a condition.
    (
        set -e
        cd "$work/case"
        "$@"
    ) >"$work/log" 2>&1 &
    wait "$!" || status=$?
    if ((status != 0)); then
        printf 'FAIL %s: expected exit status 0 got %d: %s\n' "$name" "$status" "$(last_line)"
        sed 's/^/    /' "$work/log" | tail -12
        failures=$((failures + 1))
    elif [[ -s $work/reason ]]; then
        printf 'skip %s: %s\n' "$name" "$(<"$work/reason")"
    else
        printf 'ok %s\n' "$name"
    fi
    end_leftovers
    rm -rf "$work/case"
}

# fio's jobs are in sessions of their own, where a time-out does not reach them. What still runs in
# the case's folder, the case has started.
end_leftovers() {
    local process
    for process in /proc/[0-9]*; do
        if [[ $(readlink "$process/cwd" 2>/dev/null) == "$work"/case* ]]; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
}

last_line() {
    tail -1 "$work/log" | tr -d '\r'
}

# Within a case.
skip() {
    printf '%s\n' "$*" >"$work/reason"
    exit 0
}

fail() {
    printf '%s\n' "$*"
    exit 1
}

expect_equal() {
    [[ $2 == "$3" ]] || fail "$1: expected '$2' got '$3'"
}

# Proves that a program's io_* calls are bound to the library under test and the system's libaio is
# not even mapped: the dynamic linker says which symbol went where.
expect_served() {
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    expect_bound '\(io_setup\|io_queue_init\)' io_submit -- "$@"
    if grep -h "calling init: .*/libaio\.so" "$work"/bindings.*; then
        fail "the system's libaio is loaded too"
    fi
}

# expect_bound SYMBOL... -- COMMAND...
expect_bound() {
    local symbol symbols=()
    while [[ $1 != -- ]]; do
        symbols+=("$1")
        shift
    done
    rm -f "$work"/bindings.*
    LD_DEBUG=bindings,files LD_DEBUG_OUTPUT=$work/bindings layer "${@:2}"
    for symbol in "${symbols[@]}"; do
        grep -qh "to $preloaded .*normal symbol .$symbol'" "$work"/bindings.* ||
            fail "$symbol is not bound to $preloaded"
    done
}

# The same for POSIX AIO, of which nothing may be the C library's.
expect_posix_served() {
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    rm -f "$work"/bindings.*
    LD_DEBUG=bindings LD_DEBUG_OUTPUT=$work/bindings layer "$@"
    grep -qhE "to $preloaded .*normal symbol .aio_read(64)?'" "$work"/bindings.* ||
        fail "aio_read is not bound to $preloaded"
    if grep -hE "to .*/libc\.so.*normal symbol .(aio_|lio_)" "$work"/bindings.*; then
        fail "something of POSIX AIO is bound to the C library"
    fi
}

no_kernel_aio=("$root/.build-tests/programs/seccomp" KILL aio --)

# Proves that a program uses Linux AIO, and on the layer not the kernel's: a filter ends whoever makes
# one of the kernel's io_* calls, so the program alone comes to grief, and on the layer to its end.
expect_served_without_kernel() {
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    local status=0
    "$root/Tests/Programs/build" seccomp
    timeout -k 5 "${limit:-60}" "${no_kernel_aio[@]}" "$@" >alone.log 2>&1 || status=$?
    ((status != 0)) || fail "the program makes no AIO calls: $(tail -1 alone.log)"
    layer "${no_kernel_aio[@]}" "$@"
}

# wait_until SECONDS COMMAND...: until it succeeds; fails when the time is up.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# answers PID COMMAND...: waits until a server answers; fails at once when it has ended.
answers() {
    local server=$1
    shift
    over() {
        "$@" || ! kill -0 "$server"
    }
    wait_until 60 over "$@" && "$@" >/dev/null
}

# compile NAME...: Tests/Clients/NAME.c into .build-tests/programs.
compile() {
    local name programs=$root/.build-tests/programs
    mkdir -p "$programs"
    for name in "$@"; do
        if [[ $programs/$name -nt $root/Tests/Clients/$name.c ]]; then continue; fi
        gcc -std=gnu11 -O2 -Wall -Wextra -Werror "$root/Tests/Clients/$name.c" -lpthread \
            -o "$programs/$name.new"
        mv "$programs/$name.new" "$programs/$name"
    done
}

# The short form of a client is for every run of the tests, the long one for the matrix.
is_short() {
    [[ -n ${CLIENTS_SHORT:-} ]]
}

finish() {
    exit "$((failures > 0))"
}
