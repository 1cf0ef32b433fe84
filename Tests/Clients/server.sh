#!/usr/bin/env bash
# Proves that a server with nginx's pattern (file_server.c: one thread, epoll, eventfd, raw calls) sends
# every byte of a thousand files on the layer, cold and cached, and is never held up in epoll_wait.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands gcc:gcc

programs=$root/.build-tests/programs

# start_server COMMAND...: COMMAND stands before the server.
start_server() {
    # Below what a system gives to who asks for any port, and apart from tgt.sh's.
    port=$((20000 + ($$ + RANDOM) % 5000))
    "$@" "$programs/file_server" "$port" files >pid 2>server.log &
    server=$!
    answers "$server" eval "exec 3<>/dev/tcp/127.0.0.1/$port" || fail "$(tail -1 server.log)"
}

stop_server() {
    kill "$(<pid)"
    wait "$server" || true
    [[ ! -s server.log ]] || fail "the server says: $(<server.log)"
}

# serve BYTES CONNECTIONS cold|cached
serve() {
    mkdir files
    "$programs/file_load" make files "$count" "$1"
    start_server layer
    if [[ $3 == cold ]]; then "$programs/file_load" cold files "$count"; fi
    local status=0
    "$programs/file_load" get "$port" "$count" "$1" "$2" || status=$?
    "$programs/file_load" get "$port" "$count" "$1" "$2" || status=$?
    stop_server
    return "$status"
}

served() {
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    "$root/Tests/Programs/build" seccomp
    mkdir files
    "$programs/file_load" make files 50 4096
    if (start_server "${no_kernel_aio[@]}") >alone.log 2>&1; then fail "the server makes no AIO calls"; fi
    rm -f server.log
    start_server layer "${no_kernel_aio[@]}"
    "$programs/file_load" get "$port" 50 4096 8
    stop_server
}

count=1000
try server_builds compile file_server file_load
try server_is_served served
try server_cold_files serve 16384 64 cold
try server_cached_files serve 16384 64 cached
if ! is_short; then
    try server_large_files serve 300000 16 cold
    try server_one_connection serve 16384 1 cold
fi
finish
