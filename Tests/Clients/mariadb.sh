#!/usr/bin/env bash
# Proves that a MariaDB server, which sets up and submits through libaio, reaps by the system call and
# is woken by io_destroy, loses nothing on the layer: tables under load, kill -9, recovery, checks.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands mariadbd:mariadb-server-core mariadb:mariadb-client-core sysbench:sysbench

server=

# start_server OPTIONS...: `launch` is the command before it, the layer unless a case says otherwise.
launch=(layer)
start_server() {
    local options=(--no-defaults --datadir="$PWD/data" --socket="$PWD/socket" --skip-networking
        --pid-file="$PWD/pid" --innodb-use-native-aio=1 --loose-innodb-linux-aio=aio
        --innodb-flush-method=O_DIRECT
        --innodb-buffer-pool-size=16M --innodb-log-file-size=32M --skip-log-bin)
    if ((EUID == 0)); then options+=(--user=root); fi
    limit=300 "${launch[@]}" mariadbd "${options[@]}" "$@" >>server.log 2>&1 &
    server=$!
    answers "$server" sql 'SELECT 1' || fail "the server does not answer: $(tail -3 server.log)"
}

sql() {
    mariadb --no-defaults --socket="$PWD/socket" -N -B -e "$1" "${2:-}"
}

# The files of an empty server; once for all cases.
new_data() {
    if [[ ! -d $work/empty ]]; then
        mariadb-install-db --no-defaults --datadir="$work/empty" --skip-test-db \
            --auth-root-authentication-method=normal ${EUID:+--user="$(id -un)"} >install.log 2>&1 ||
            fail "$(tail -3 install.log)"
    fi
    cp -r "$work/empty" data
}

load() {
    sysbench oltp_read_write --db-driver=mysql --mysql-socket="$PWD/socket" --mysql-user=root \
        --mysql-db=store --tables=4 --table-size="$rows" --threads=4 --rand-type=uniform "$@"
}

sizes() {
    rows=20000 seconds=8
    if is_short; then rows=4000 seconds=2; fi
}

# The server's own word on what it uses, and the threads of a pool when there is no native AIO.
expect_native() {
    expect_equal innodb_use_native_aio 1 "$(sql 'SELECT @@innodb_use_native_aio')"
    ! grep -q 'Linux Native AIO disabled\|io_setup() failed\|returned EAGAIN' server.log ||
        fail "$(grep 'AIO\|io_setup' server.log)"
    grep -q 'Using Linux native AIO' server.log || fail "the server does not say that it uses AIO"
}

checksums() {
    sql 'CHECKSUM TABLE sbtest1, sbtest2, sbtest3, sbtest4' store
}

expect_sound() {
    sql 'CHECK TABLE sbtest1, sbtest2, sbtest3, sbtest4 EXTENDED' store >check
    expect_equal "tables that are OK" 4 "$(grep -c 'status[[:space:]]OK' check)"
    ! grep -qi 'corrupt\|\[ERROR\]' server.log || fail "$(grep -i 'corrupt\|ERROR' server.log)"
}

stop_server() {
    sql SHUTDOWN
    wait "$server" || fail "the server's exit status is $?: $(tail -3 server.log)"
}

under_load() {
    sizes
    new_data
    start_server "$@"
    expect_native
    sql 'CREATE DATABASE store'
    load prepare >load.log
    load --time="$seconds" run >load.log || fail "$(grep FATAL load.log)"
    local before
    before=$(checksums)
    expect_sound
    stop_server
    # What is in the files: read without the layer.
    launch=(env)
    start_server "$@"
    expect_equal "checksums after a restart" "$before" "$(checksums)"
    expect_sound
    stop_server
}

killed() {
    sizes
    new_data
    start_server "$@"
    sql 'CREATE DATABASE store'
    load prepare >load.log
    # Rows that are committed while it runs must be there afterwards.
    sql 'CREATE TABLE committed (id INT PRIMARY KEY) ENGINE=InnoDB' store
    load --time=60 run >load.log 2>&1 &
    local loader=$! i last=0
    for ((i = 1; i <= (seconds * 40); i++)); do
        sql "INSERT INTO committed VALUES ($i)" store && last=$i
    done
    kill -KILL "$(<pid)"
    wait "$server" "$loader" || true
    start_server "$@"
    grep -q 'Starting crash recovery\|InnoDB: Starting final batch' server.log ||
        fail "the server did not recover: it was not killed in the midst of work"
    expect_equal "rows that were committed" "$last" "$(sql 'SELECT COUNT(*) FROM committed' store)"
    expect_sound
    local before
    before=$(checksums)
    stop_server
    launch=(env)
    start_server "$@"
    expect_equal "checksums after a restart" "$before" "$(checksums)"
    stop_server
}

# The server's kernel calls would end it; alone it does not even start.
served() {
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    sizes
    new_data
    "$root/Tests/Programs/build" seccomp
    launch=("${no_kernel_aio[@]}")
    if (start_server) >alone.log 2>&1; then fail "the server makes no AIO calls"; fi
    rm -f server.log
    launch=(layer "${no_kernel_aio[@]}")
    start_server
    expect_native
    sql 'CREATE DATABASE store'
    load prepare >load.log
    load --time=1 run >load.log || fail "$(grep FATAL load.log)"
    expect_sound
    stop_server
}

try mariadb_is_served served
try mariadb_under_load under_load
try mariadb_killed_recovers killed
if ! is_short; then
    try mariadb_under_load_buffered under_load --innodb-flush-method=fsync
    try mariadb_with_a_small_page under_load --innodb-read-io-threads=8 --innodb-write-io-threads=8
fi
finish
