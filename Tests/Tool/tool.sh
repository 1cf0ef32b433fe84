#!/usr/bin/env bash
# Proves that `ioctx run` gives a program nothing but the library, that its exit status is the
# program's or says what went wrong, and that help, version and probe answer.

source "$(dirname "${BASH_SOURCE[0]}")/../Clients/client.sh"
need_commands jq:jq gcc:gcc

# status WANTED COMMAND...
status() {
    local wanted=$1 got=0
    shift
    timeout -k 5 30 "$@" >out 2>err || got=$?
    expect_equal "status of $*" "$wanted" "$got"
}

exit_statuses() {
    status 0 "$tool" run -- true
    status 1 "$tool" run -- false
    status 42 "$tool" run -- sh -c 'exit 42'
    status 42 "$tool" run sh -c 'exit 42'
    status 127 "$tool" run -- no-such-program
    status 127 "$tool" run -- ./no-such-program
    touch data
    status 126 "$tool" run -- ./data
    status 125 "$tool" run
    status 125 "$tool" run --no-such-option -- true
    IOCTX_LIBRARY=$PWD/none status 125 "$tool" run -- true
    [[ -s err ]] || fail "no word about the missing library"
}

arguments_pass_through() {
    "$tool" run -- printf '<%s>' '' 'a b' --engine $'new\nline' -- >out
    expect_equal "arguments" "$(printf '<%s>' '' 'a b' --engine $'new\nline' --)" "$(<out)"
    expect_equal "stdin" hello "$(printf hello | "$tool" run -- cat)"
}

environment() {
    expect_equal LD_PRELOAD "$preloaded" "$("$tool" run -- printenv LD_PRELOAD)"
    expect_equal IOCTX_ENGINE threads "$("$tool" run --engine threads -- printenv IOCTX_ENGINE)"
    local other
    other=$(ldconfig -p | awk '/libm\.so\.6/ && !found { print $NF; found = 1 }')
    LD_PRELOAD=$other "$tool" run -- printenv LD_PRELOAD >out
    if ! grep -q "$preloaded" out || ! grep -q "$other" out; then
        fail "LD_PRELOAD became $(<out)"
    fi
}

# Those that are closed stay closed.
descriptors() {
    # shellcheck disable=SC2016  # for the inner shell
    expect_equal "open descriptors" 1 "$("$tool" run -- bash -c \
        'for n in 0 1 2; do if [[ -e /dev/fd/$n ]]; then echo $n; fi; done' <&- 2>&-)"
}

# As in a chroot(2), the arguments and the library are found all the same.
without_proc() {
    ((EUID == 0)) || skip "hiding /proc needs root"
    hidden() {
        # shellcheck disable=SC2016  # for the inner shell
        status "$1" unshare -m sh -c 'umount -l /proc && exec "$@"' sh "${@:2}"
    }
    unshare -m umount -l /proc 2>/dev/null || skip "/proc cannot be hidden here"
    hidden 7 "$tool" run -- sh -c 'printenv LD_PRELOAD; exit 7'
    expect_equal LD_PRELOAD "$preloaded" "$(<out)"
    PATH=$dist/bin:$PATH hidden 0 ioctx run -- printenv LD_PRELOAD
    expect_equal LD_PRELOAD "$preloaded" "$(<out)"
    hidden 64 "$tool" no-such-subcommand
    head -c 100000 /dev/urandom >source
    hidden 0 "$tool" cp --verify source copy
    cmp source copy
}

# What README.md says of installing: a copy of bin and lib, and a link to the tool.
works_elsewhere() {
    mkdir copy
    cp -a "$dist/bin" "$dist/lib" copy/
    ln -s copy/bin/ioctx ioctx
    expect_equal LD_PRELOAD "$(pwd -P)/copy/lib/libioctx.so" \
        "$(./ioctx run -- printenv LD_PRELOAD)"
    expect_equal "with the filter" \
        "$(pwd -P)/copy/lib/libioctx-seccomp.so:$(pwd -P)/copy/lib/libioctx.so" \
        "$(./ioctx run --intercept seccomp -- printenv LD_PRELOAD)"
}

# A program that makes the system calls by the instruction, as fio through the test programs' libaio.
intercepts() {
    "$root/Tests/Programs/build" bypass seccomp
    need_commands fio:fio
    local job=(fio --name=job --ioengine=libaio --rw=randrw --size=1m --bs=4k --verify=crc32c)
    # shellcheck disable=SC2016  # for the inner shell
    "$tool" run --intercept seccomp -- sh -c 'LD_PRELOAD=$0:$LD_PRELOAD exec "$@"' \
        "$root/.build-tests/programs/libbypass_inline.so" "${job[@]}" >out
    "$tool" run --intercept=seccomp -- printenv LD_PRELOAD >out
    expect_equal LD_PRELOAD "${preloaded%.so}-seccomp.so:$preloaded" "$(<out)"
    # One filter, however often the tool is used on itself.
    "$tool" run --intercept seccomp -- "$tool" run --intercept seccomp -- sh -c \
        'grep Seccomp_filters /proc/self/status' >out
    expect_equal filters 1 "$(awk '{ print $2 }' out)"
    status 125 "$tool" run --intercept nonsense -- true
}

# The program would run, and its calls go to the kernel, without a word.
refuses_without_filters() {
    printf '%s\n' '#include <errno.h>' '#include <linux/filter.h>' '#include <linux/seccomp.h>' \
        '#include <stddef.h>' '#include <sys/prctl.h>' '#include <sys/syscall.h>' '#include <unistd.h>' \
        'int main(int count, char **a) { (void)count; struct sock_filter f[] = {' \
        '{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},' \
        '{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_seccomp}, {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},' \
        '{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}}; struct sock_fprog p = {4, f};' \
        'prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p);' \
        'execvp(a[1], a + 1); return 1; }' >closed.c
    gcc -o closed closed.c
    status 125 ./closed "$tool" run --intercept seccomp -- true
    expect_equal words "ioctx run: --intercept seccomp cannot be had here: seccomp(2) fails: Operation not \
permitted; without it, calls through the C library's syscall() are served all the same" "$(<err)"
    status 0 ./closed "$tool" run -- true
}

# Its limits: a child that is not linked dynamically is killed, and no other.
kills_what_it_cannot_serve() {
    printf '%s\n' '#include <sys/syscall.h>' '#include <unistd.h>' 'int main(int count, char **a) {' \
        'long c = 0; (void)a; return count > 1 && syscall(SYS_io_setup, 1, &c) == 0 ? 7 : 0; }' >aio.c
    gcc -static -o static aio.c 2>/dev/null || skip "gcc cannot link statically here"
    gcc -o dynamic aio.c
    status 0 "$tool" run --intercept seccomp -- sh -c ./static
    status 159 "$tool" run --intercept seccomp -- sh -c './static aio; exit $?'
    status 7 "$tool" run --intercept seccomp -- sh -c './dynamic aio; exit $?'
    status 7 "$tool" run -- sh -c './static aio; exit $?'
}

signals() {
    status 143 "$tool" run -- sh -c 'kill -TERM $$'
    "$tool" run -- sleep 60 &
    local pid=$! got=0 i
    for ((i = 0; i < 100; i++)); do
        if [[ $(cat "/proc/$pid/comm") == sleep ]]; then break; fi
        sleep 0.1
    done
    expect_equal "the program in ioctx's place" sleep "$(cat "/proc/$pid/comm")"
    kill -INT "$pid" 2>/dev/null || true
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" || got=$?
    ((got > 128)) || fail "status $got after a signal"
}

# Where the library cannot be preloaded, running the program without it would be a lie.
refusals() {
    printf 'int main(void) { return 0; }\n' >empty.c
    gcc -static -o static empty.c 2>/dev/null || skip "gcc cannot link statically here"
    status 125 "$tool" run -- ./static
    grep -qi static err || fail "the reason is not given: $(<err)"
    if ((EUID == 0)); then
        gcc -o setuid empty.c
        chown nobody setuid
        chmod 4755 setuid
        status 125 "$tool" run -- ./setuid
        grep -qi 'set-\?uid' err || fail "the reason is not given: $(<err)"
    fi
}

# expect_needs WANTED STATUS PROGRAM
expect_needs() {
    status "$2" "$tool" doctor --json "$3"
    expect_equal "what $3 needs" "$1" "$(jq -r .needs out)"
}

# make_program NAME CALL OPTIONS...: a program that makes a context as CALL does, and then sleeps.
make_program() {
    local source='
        #include <libaio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(void) {
            io_context_t context = 0;
            long number = SYS_io_setup;
            (void)number;
            MAKE_CONTEXT
            sleep(20);
            return 0;
        }'
    printf '%s\n' "${source/MAKE_CONTEXT/"$2"}" >"$1.c"
    gcc -O1 -o "$1" "$1.c" "${@:3}"
}

# One for each way of asking for AIO.
make_programs() {
    make_program none '(void)context;'
    make_program libaio 'io_setup(1, &context);' -laio
    make_program raw 'syscall(SYS_io_setup, 1, &context);'
    make_program inline '__asm__ volatile("syscall" : "+a"(number) : "D"(1), "S"(&context)
        : "rcx", "r11", "memory");'
}

diagnoses_programs() {
    make_programs
    expect_needs none 0 ./none
    expect_needs libaio 0 ./libaio
    expect_needs syscall 0 ./raw
    expect_needs instruction 0 ./inline
    status 0 "$tool" doctor ./inline
    grep -q -- '--intercept seccomp' out || fail "no word on what to do: $(<out)"
    status 1 "$tool" doctor no-such-program
    gcc -O1 -static -o fixed raw.c 2>/dev/null || skip "gcc cannot link statically here"
    expect_needs instruction 1 ./fixed
    status 1 "$tool" doctor ./fixed
    grep -q static out || fail "the reason is not given: $(<out)"
}

# What cannot run needs something else than the layer, and run and doctor say what.
diagnoses_what_cannot_run() {
    local program words

    make_programs
    head -c 100 none >damaged
    printf '#!/no/such/interpreter\n' >script
    chmod +x damaged script
    for program in damaged:'is it damaged' script:'/no/such/interpreter.*cannot be run'; do
        words=${program#*:} program=${program%%:*}
        status 126 "$tool" run -- "./$program"
        grep -q "$words" err || fail "run does not give the reason: $(<err)"
        status 1 "$tool" doctor "./$program"
        grep -q "cannot be served.*$words" out || fail "doctor does not give the reason: $(<out)"
    done
}

# A shared library is no program, and need not be executable; a program may be linked like one.
diagnoses_libraries() {
    make_programs
    gcc -O1 -shared -fPIC -o libaio-user.so libaio.c -laio
    chmod -x libaio-user.so
    expect_needs libaio 0 ./libaio-user.so
    expect_equal "its imports" io_setup "$(jq -r '.objects[].libaio[]' out)"
    expect_needs libaio 0 libaio-user.so
    status 0 "$tool" doctor ./libaio-user.so
    grep -q 'shared library' out || fail "not said to be a library: $(<out)"
    ! grep -q 'static' out || fail "called static: $(<out)"
    gcc -O1 -shared -fPIC -o inline.so inline.c
    status 0 "$tool" doctor ./inline.so
    grep -q -- '--intercept seccomp' out || fail "no word on what to do: $(<out)"
    gcc -O1 -shared -fPIC -o none.so none.c
    expect_needs none 0 ./none.so
    status 125 "$tool" run -- ./inline.so
    grep -q 'shared library' err || fail "the reason is not given: $(<err)"
    gcc -O1 -static-pie -o movable raw.c 2>/dev/null || skip "gcc cannot link static-pie here"
    status 1 "$tool" doctor ./movable
    grep -q static out || fail "the reason is not given: $(<out)"
}

# Running: served, and not.
diagnoses_processes() {
    local program

    make_programs
    for program in libaio raw; do
        expect_running 0 "$tool" run -- "./$program"
        expect_running 1 "./$program"
    done
    expect_running 1 "$tool" run -- ./inline
    expect_running 0 "$tool" run --intercept seccomp -- ./inline
    # Who runs it without is told so.
    timeout 1 "$tool" run -- ./inline 2>err || true
    grep -q -- '--intercept seccomp' err || fail "no warning: $(<err)"
}

# The library may be gone, be another by now, or be where only the process sees it; and its name may
# be of two lines.
diagnoses_replaced_libraries() {
    local library=$PWD/$'two\nlines/libioctx.so' how as user

    ((EUID == 0)) || skip "only root can look at a file that has no name"
    unshare -m true 2>/dev/null || skip "no mount namespace can be made here"
    make_programs
    mkdir "$(dirname "$library")"
    cp "$tool" ioctx.copy
    # For nobody, whose look is by the name.
    chmod -R go+rX "$work"
    for as in '' 'setpriv --reuid=65534 --clear-groups'; do
        read -r -a user <<<"$as"
        for how in as_it_was removed replaced elsewhere; do
            cp "$preloaded" "$library"
            # shellcheck disable=SC2016  # for the inner shell
            start_sleeper unshare -m sh -c 'if [ $0 = elsewhere ]; then
                mount -t tmpfs ioctx-test "${1%/*}" && chmod go+rx "${1%/*}" && cp "$2" "$1" || exit
                fi; LD_PRELOAD=$1; export LD_PRELOAD; shift 2; exec "$@"' \
                "$how" "$library" "$preloaded" "${user[@]}" ./libaio
            case $how in
            removed | elsewhere) rm "$library" ;;
            replaced)
                cp "$preloaded" new
                mv new "$library"
                ;;
            esac
            if [[ $how == removed && -n $as ]]; then
                status 1 "${user[@]}" ./ioctx.copy doctor "$sleeper"
                grep -q 'cannot be told' out || fail "not said to be unknown: $(<out)"
            else
                status 0 "${user[@]}" ./ioctx.copy doctor "$sleeper"
            fi
            end_sleeper
        done
    done
}

# A file's loader may be anything: it is run to list libraries only where it is the system's.
runs_no_strange_loader() {
    local tool_loader=$PWD/ld-strange
    printf '#!/bin/sh\ntouch "%s/has-run"\n' "$PWD" >"$tool_loader"
    chmod +x "$tool_loader"
    printf 'int main(void) { return 0; }\n' >empty.c
    gcc -Wl,--dynamic-linker="$tool_loader" -o strange empty.c
    status 0 "$tool" doctor ./strange
    [[ ! -e has-run ]] || fail "the program's own loader was run"
}

# expect_running STATUS COMMAND...: what the doctor answers for the process.
expect_running() {
    local wanted=$1 pid
    shift
    "$@" 2>/dev/null &
    pid=$!
    # Until the program has taken the tool's place, made its context and sleeps (call 230).
    wait_until 10 grep -q '^230 ' "/proc/$pid/syscall"
    status "$wanted" "$tool" doctor "$pid"
    kill "$pid"
    wait "$pid" || true
}

# A program that reads an empty pipe and a cached block and then sleeps, or with an argument only sleeps.
make_counted() {
    cat >counted.c <<'PROGRAM'
        #include <fcntl.h>
        #include <libaio.h>
        #include <unistd.h>
        int main(int count, char **arguments) {
            static char buffer[512], byte;
            struct iocb block, pipe_read, *list[] = {&block, &pipe_read};
            struct io_event event;
            io_context_t context = 0;
            int pipes[2], file = open("counted.c", O_RDONLY);
            if (count > 1) { sleep(20); return 0; }
            if (pipe(pipes) < 0 || io_setup(10, &context) < 0) return 1;
            io_prep_pread(&block, file, buffer, 512, 0);
            io_prep_pread(&pipe_read, pipes[0], &byte, 1, 0);
            if (io_submit(context, 2, list) != 2) return 2;
            if (io_getevents(context, 1, 1, &event, 0) != 1) return 3;
            sleep(20);
            return 0;
        }
PROGRAM
    gcc -O1 -o counted counted.c -laio
}

# A process that has written over its counters, with the byte of its argument.
counts_written_over() {
    cat >hostile.c <<'PROGRAM'
        #define _GNU_SOURCE
        #include <stdint.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/mman.h>
        #include <unistd.h>
        int main(int count, char **arguments) {
            int file = memfd_create("ioctx", 0);
            if (count < 2 || ftruncate(file, 4096) < 0) return 1;
            char *block = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
            memset(block, atoi(arguments[1]), 4096);
            memcpy(block, "ioctxcnt\1\0\0", 12);
            sleep(20);
            return 0;
        }
PROGRAM
    gcc -O1 -o hostile hostile.c
    for byte in 255 127 1; do
        start_sleeper ./hostile "$byte"
        refuses_limits 'written over' "$tool" limits "$sleeper" --contexts
        end_sleeper
    done
    start_sleeper ./hostile 0
    status 0 "$tool" limits "$sleeper" --json
    end_sleeper
}

counts() {
    make_counted
    IOCTX_MAX_AIO_PROCS=6 start_sleeper "$tool" run -- ./counted
    status 0 "$tool" limits "$sleeper"
    grep -q '^max_aio_procs *6 ' out || fail "not the process's limit: $(<out)"
    status 0 "$tool" limits "$sleeper" --contexts --json
    expect_equal requests '[2,1,1,1,1,0,0,0]' "$(jq -c '.requests.linux |
        [.submitted, .completed, .in_flight, .inline, .readiness, .daemon, .adopted, .eagain]' out)"
    expect_equal contexts '[1,1,"layer",10,2,1,0]' "$(jq -c '[.gauges.contexts.now] +
        (.contexts | [length] + (.[0] |
        [.ring, .events, .requests.submitted, .requests.in_flight, .unreaped]))' out)"
    expect_equal "the limit" '[6,32]' "$(jq -c '.limits.max_aio_procs | [.value, .default]' out)"
    expect_equal "the queue" 1 "$(jq .gauges.num_queue_count.now out)"
    expect_equal "name" counted "$(jq -r .process.name out)"
    if ((EUID == 0)) && command -v setpriv >/dev/null; then
        cp "$tool" ioctx.copy
        chmod 755 . ioctx.copy
        refuses_limits 'cannot read the memory' setpriv --reuid=65534 --clear-groups ./ioctx.copy \
            limits "$sleeper"
    fi
    end_sleeper
}

# Who is on the layer and silent, not on it, or has ended; and nobody at all.
refuses_to_count() {
    make_counted
    start_sleeper "$tool" run -- ./counted silent
    refuses_limits 'no request yet' "$tool" limits "$sleeper"
    end_sleeper
    start_sleeper ./counted silent
    refuses_limits 'not on the layer' "$tool" limits "$sleeper"
    end_sleeper
    refuses_limits 'no process' "$tool" limits "$sleeper"
    # Ended, with a parent that does not know yet.
    # shellcheck disable=SC2016  # for the inner shell
    start_sleeper sh -c 'sleep 20 & echo $! >ended; exec sleep 20'
    kill -KILL "$(<ended)"
    wait_until 10 grep -q zombie "/proc/$(<ended)/status"
    refuses_limits 'has ended' "$tool" limits "$(<ended)"
    end_sleeper
    refuses_limits 'no process' "$tool" limits 0
    status 64 "$tool" limits x
    status 64 "$tool" limits --contexts
}

limits_alone() {
    status 0 "$tool" limits
    status 0 "$tool" limits --json
    jq -e '.limits.aio_max_nr.variable == "IOCTX_AIO_MAX_NR" and (has("process") | not)' out \
        >/dev/null || fail "without a process: $(<out)"
}

# start_sleeper COMMAND...: in the background, until it sleeps (call 230); its number in `sleeper`.
start_sleeper() {
    "$@" &
    sleeper=$!
    wait_until 10 grep -q '^230 ' "/proc/$sleeper/syscall"
}

end_sleeper() {
    kill "$sleeper" 2>/dev/null || true
    wait "$sleeper" || true
}

# refuses_limits WORDS COMMAND...: status 1, and one line that has the words.
refuses_limits() {
    local words=$1
    shift
    status 1 "$@"
    grep -q "$words" err || fail "no '$words' in: $(<err)"
    expect_equal "lines" 1 "$(wc -l <err)"
}

helps() {
    local subcommand
    status 0 "$tool" --help
    status 0 "$tool" --version
    [[ -s out ]]
    for subcommand in run doctor probe cp bench verify limits; do
        status 0 "$tool" "$subcommand" --help
        grep -qi example out || fail "$subcommand --help has no example"
    done
    for subcommand in bash zsh fish; do
        status 0 "$tool" --generate-completion-script "$subcommand"
        [[ -s out ]]
    done
    status 64 "$tool" no-such-subcommand
}

# Whatever the tool prints, it notices that it cannot.
unwritable_stdout() {
    local arguments given wanted got
    for arguments in --help --version 'help cp' 'run --help' '--generate-completion-script bash' probe \
        limits 'doctor true'; do
        read -r -a given <<<"$arguments"
        wanted=1 got=0
        if [[ $arguments == run* ]]; then wanted=125; fi
        "$tool" "${given[@]}" >/dev/full 2>err || got=$?
        expect_equal "status of $arguments on a full disk" "$wanted" "$got"
        expect_equal "lines" 1 "$(grep -c 'cannot write the output' err)"
        got=0
        "$tool" "${given[@]}" >&- 2>err || got=$?
        ((got > 0)) || fail "$arguments without stdout succeeds"
    done
}

# One line, and nothing that a terminal obeys, whatever a name is.
strange_names() {
    local name=$'two\nlines\e[1m'

    status 1 "$tool" cp "$name" copy
    expect_equal "cp" 'two\nlines\u{1B}[1m' "$(sed "s/^[^']*'//; s/'.*//" err)"
    status 127 "$tool" run -- "$name"
    expect_equal "run" 'two\nlines\u{1B}[1m' "$(sed "s/^[^']*'//; s/'.*//" err)"
    cp "$(type -P true)" "$name"
    status 0 "$tool" doctor "./$name"
    expect_equal "doctor" './two\nlines\u{1B}[1m' "$(awk '/^program/ { print $2 }' out)"
}

probe() {
    status 0 "$tool" probe
    [[ -s out ]]
    status 0 "$tool" probe --json
    jq -e 'type == "object"' out >/dev/null
    ! grep -q $'\e' out || fail "colours in JSON"
}

probe_under_seccomp() {
    "$root/Tests/Programs/build" seccomp
    local action
    for action in EPERM ENOSYS KILL; do
        status 0 "$root/.build-tests/programs/seccomp" "$action" both -- "$tool" probe --json
        jq -e 'type == "object"' out >/dev/null || fail "probe under $action: $(cat out err)"
    done
}

try run_exit_statuses exit_statuses
try run_passes_arguments_through arguments_pass_through
try run_sets_the_environment environment
try run_leaves_descriptors_closed descriptors
try run_works_where_it_is_copied_to works_elsewhere
try tool_without_proc without_proc
try run_intercepts_by_seccomp intercepts
try run_says_that_no_filter_can_be_had refuses_without_filters
try run_seccomp_limits kills_what_it_cannot_serve
try run_leaves_signals_to_the_program signals
try run_refuses_what_it_cannot_preload refusals
try doctor_diagnoses_programs diagnoses_programs
try doctor_diagnoses_what_cannot_run diagnoses_what_cannot_run
try doctor_diagnoses_libraries diagnoses_libraries
try doctor_runs_no_strange_loader runs_no_strange_loader
try doctor_diagnoses_processes diagnoses_processes
try doctor_diagnoses_replaced_libraries diagnoses_replaced_libraries
try limits_of_a_process counts
try limits_of_counters_written_over counts_written_over
try limits_refuses_others refuses_to_count
try limits_without_a_process limits_alone
try tool_help_version_completions helps
try tool_with_unwritable_stdout unwritable_stdout
try tool_shows_strange_names strange_names
try tool_probe probe
try tool_probe_under_seccomp probe_under_seccomp
finish
