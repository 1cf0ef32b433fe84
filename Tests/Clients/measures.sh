#!/usr/bin/env bash
# How fast real programs are on the layer, beside the kernel: the two take turns, and the ratio of the
# medians is printed. Called by `Scripts/clients --bench [SUBJECT]...`.

set -- auto "$@"
source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_commands gcc:gcc

rounds=5
programs=$root/.build-tests/programs
subjects=("${@:2}")
if ((${#subjects[@]} == 0)); then subjects=(syscall server qemu mariadb); fi

# on SIDE COMMAND...
on() {
    local side=$1
    shift
    if [[ $side == kernel ]]; then
        "$@"
    else
        "$tool" run -- "$@"
    fi
}

median() {
    LC_ALL=C sort -g "$1" | awk '{ line[NR] = $1 }
        END { print (line[int((NR + 1) / 2)] + line[int((NR + 2) / 2)]) / 2 }'
}

# compare TITLE WANTED FUNCTION ARGUMENTS...: FUNCTION SIDE ARGUMENTS... prints a figure, more is better.
compare() {
    local title=$1 wanted=$2 round side
    shift 2
    rm -f "$work/kernel" "$work/layer"
    for ((round = 0; round < rounds; round++)); do
        for side in kernel layer; do
            "$1" "$side" "${@:2}" >>"$work/$side"
        done
    done
    LC_ALL=C awk -v title="$title" -v kernel="$(median "$work/kernel")" \
        -v layer="$(median "$work/layer")" -v wanted="$wanted" 'BEGIN {
            printf "%-52s kernel %8.0f  layer %8.0f  ratio %5.2f", title, kernel, layer, layer / kernel
            print wanted ? "  (wanted: " wanted ")" : "" }'
}

# What the ways in cost: calls of others through syscall(), and with the filter also those that it traps.
measure_syscall() {
    gcc -O2 -o syscall "$root/Scripts/syscall.c"
    compare_times "syscall(SYS_getppid)" "< 5" syscall ./syscall
    compare_times "the same, --intercept seccomp" "" seccomp ./syscall
    compare_times "io_destroy by the instruction, --intercept seccomp" "" seccomp ./syscall trapped
}

# compare_times TITLE WANTED HOW COMMAND...: COMMAND prints nanoseconds, alone and on the layer.
compare_times() {
    local title=$1 wanted=$2 how=$3 round
    shift 3
    rm -f without with
    for ((round = 0; round < rounds; round++)); do
        "$@" >>without
        "$tool" run --intercept "$how" -- "$@" >>with 2>errors || fail "$title: $(<errors)"
    done
    LC_ALL=C awk -v title="$title" -v plain="$(median without)" -v ours="$(median with)" \
        -v wanted="$wanted" 'BEGIN {
            printf "%-52s plain %.1f ns, layer %.1f ns, difference %.1f ns", title, plain, ours, ours - plain
            print wanted ? "  (wanted: " wanted ")" : "" }'
}

server_rate() {
    local side=$1 count=20000 port=$((20000 + RANDOM)) server
    on "$side" "$programs/file_server" "$port" files >pid &
    server=$!
    answers "$server" eval "exec 3<>/dev/tcp/127.0.0.1/$port"
    "$programs/file_load" cold files "$count"
    "$programs/file_load" get "$port" "$count" 4096 128
    kill "$(<pid)"
    wait "$server" || true
}

measure_server() {
    compile file_server file_load
    mkdir files
    "$programs/file_load" make files 20000 4096
    compare "file server, cold files of 4 KiB, requests/s" ">= 3" server_rate
}

qemu_rate() {
    local side=$1 depth=$2 count=$3 write=${4:-}
    on "$side" qemu-img bench -i native -t none -f raw -c "$count" -d "$depth" -s 4096 \
        ${write:+"$write"} image.raw |
        awk -v count="$count" '/Run completed/ { print count / $4 }'
}

measure_qemu() {
    need_commands qemu-img:qemu-utils
    head -c 256M /dev/urandom >image.raw
    compare "qemu-img bench, depth 1, requests/s" "" qemu_rate 1 10000
    compare "qemu-img bench, depth 32, requests/s" ">= 0.97" qemu_rate 32 100000
    compare "qemu-img bench, depth 64, requests/s" ">= 0.97" qemu_rate 64 100000
    compare "qemu-img bench, depth 32, writes, requests/s" ">= 0.97" qemu_rate 32 50000 -w
}

mariadb_rate() {
    local side=$1 server options
    options=(--no-defaults --datadir="$PWD/data" --socket="$PWD/socket" --skip-networking
        --pid-file="$PWD/pid" --innodb-use-native-aio=1 --loose-innodb-linux-aio=aio
        --innodb-flush-method=O_DIRECT --innodb-buffer-pool-size=32M
        --innodb-log-file-size=256M --skip-log-bin --innodb-flush-log-at-trx-commit=2)
    if ((EUID == 0)); then options+=(--user=root); fi
    on "$side" mariadbd "${options[@]}" >server.log 2>&1 &
    server=$!
    answers "$server" query 'SELECT 1' || fail "$(tail -3 server.log)"
    if [[ ! -e prepared ]]; then
        query 'CREATE DATABASE store'
        load prepare >load.log
        touch prepared
    fi
    load --time=2 run >load.log
    load --time="$seconds" run | sed -n 's/.*transactions: .*(\(.*\) per sec.*/\1/p'
    query SHUTDOWN
    wait "$server"
}

query() {
    mariadb --no-defaults --socket="$PWD/socket" -N -B -e "$1"
}

load() {
    sysbench oltp_read_write --db-driver=mysql --mysql-socket="$PWD/socket" --mysql-user=root \
        --mysql-db=store --tables=4 --table-size=100000 --threads=4 --rand-type=uniform "$@"
}

measure_mariadb() {
    need_commands mariadbd:mariadb-server-core mariadb:mariadb-client-core sysbench:sysbench
    seconds=4
    mariadb-install-db --no-defaults --datadir="$PWD/data" --skip-test-db \
        --auth-root-authentication-method=normal ${EUID:+--user="$(id -un)"} >install.log 2>&1
    compare "MariaDB, sysbench oltp_read_write, 4 threads, tps" ">= 0.97" mariadb_rate
}

for subject in "${subjects[@]}"; do
    declare -F "measure_$subject" >/dev/null || die "there is no subject '$subject'"
    mkdir "$work/$subject"
    cd "$work/$subject"
    "measure_$subject"
done
