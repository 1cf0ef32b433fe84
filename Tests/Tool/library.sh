#!/usr/bin/env bash
# Proves that the libraries are what a distribution and the dynamic linker expect of a libaio, that
# they take the system's place, and that IOCTX_ENGINE is read as documented.

source "$(dirname "${BASH_SOURCE[0]}")/../Clients/client.sh"
need_commands gcc:gcc readelf:binutils nm:binutils ldconfig:libc-bin

# shellcheck source=../../Scripts/library.sh
source "$root/Scripts/library.sh"

lib=$dist/lib
libraries=(libaio.so.1 libaio.so.1t64 libioctx.so libposixaio.so.1 libioctx-seccomp.so)
programs=$root/.build-tests/programs

system_libaio() {
    ldconfig -p | awk '/libaio\.so\.1(t64)? .*(x86-64|AArch64)/ && !found { print $NF; found = 1 }'
}

# The list that the libraries are checked against is the system's own.
libaios_symbols() {
    [[ -e $(system_libaio) ]] || fail "the system's libaio is not installed"
    diff <(exported_symbols "$(system_libaio)") <(LC_ALL=C sort <<<"$libaio_symbols") ||
        fail "Scripts/library.sh names other symbols (< the system's, > ours)"
}

# And that of POSIX AIO has each name and version that the C library has.
c_librarys_symbols() {
    exported_symbols "$(ldd "$lib/libposixaio.so.1" | awk '$1 == "libc.so.6" { print $3 }')" |
        grep -E '^(aio_|lio_)' >system || fail "the C library has no POSIX AIO"
    diff system <(LC_ALL=C sort <<<"$posix_symbols" | grep -v '@IOCTX_') ||
        fail "Scripts/library.sh names other symbols (< the C library's, > ours)"
}

# A program of one's own: the header, and linking.
posix_program() {
    cat >program.c <<'PROGRAM'
#include <fcntl.h>
#include <posixaio.h>
#include <stdio.h>

int main(void)
{
    char text[6] = "";
    struct aiocb *done, request = {.aio_buf = text, .aio_nbytes = 5};

    request.aio_fildes = open("data", O_RDONLY);
    request.aio_sigevent.sigev_notify = SIGEV_NONE;
    if (aio_read(&request) || aio_waitcomplete(&done, NULL) != 5 || done != &request)
        return 1;
    puts(text);
    return 0;
}
PROGRAM
    printf hello >data
    gcc -Wall -Werror -I"$dist/include" program.c -L"$lib" -lposixaio -o program
    expect_equal "output" hello "$(LD_LIBRARY_PATH=$lib ./program)"
}

# The build has checked what it made; another's may be installed.
what_it_must_be() {
    local library
    for library in "${libraries[@]}"; do check_library "$lib/$library" "$library"; done
}

hardened() {
    local library
    for library in "${libraries[@]}"; do
        readelf -lW "$lib/$library" >segments
        grep -q 'GNU_STACK.* RW ' segments || fail "$library has an executable stack"
        ! grep -q 'LOAD.* RWE ' segments || fail "$library has a segment to write and to execute"
        readelf -dW "$lib/$library" >dynamic
        ! grep -q TEXTREL dynamic || fail "$library has text relocations"
        # Its threads outlive a dlclose.
        grep -q 'FLAGS_1.*NODELETE' dynamic || fail "$library can be unloaded"
    done
}

takes_the_systems_place() {
    expect_served "$programs/every_function" contexts_have_a_ring pread_reads_what_is_there
    # And by its name alone, as a distribution would install it.
    local library
    for library in libaio.so.1 libaio.so.1t64; do
        mkdir -p "$library"
        cp -L "$lib/$library" "$library/libaio.so.1"
        LD_LIBRARY_PATH=$PWD/$library LD_DEBUG=bindings LD_DEBUG_OUTPUT=$PWD/bound \
            AIO_UNDER_TEST=$PWD/$library/libaio.so.1 "$programs/every_function"
        grep -qh "to $PWD/$library/libaio.so.1 .*normal symbol .io_submit'" bound.* ||
            fail "io_submit is not bound to $library"
        rm -f bound.*
    done
}

switched_off() {
    LD_PRELOAD=$preloaded AIO_UNDER_TEST=$preloaded "$programs/switched_off" >out || fail "$(<out)"
    expect_equal "cases" 2 "$(grep -c '^ok' out)"
}

# Stderr is the program's, or a file of its: whoever runs it by the tool hears of what is not known.
unknown_engine() {
    local engine
    for engine in nonsense auto uring threads; do
        IOCTX_ENGINE=$engine IOCTX_WRITES=$engine LD_PRELOAD=$preloaded \
            AIO_UNDER_TEST=$preloaded "$programs/every_function" contexts_have_a_ring >out 2>err ||
            fail "$(cat out err)"
        expect_equal "stderr with $engine" "" "$(<err)"
    done
    IOCTX_ENGINE=nonsense "$tool" run -- true 2>err
    expect_equal "lines of the tool" 1 "$(wc -l <err)"
    grep -q IOCTX_ENGINE err || fail "the complaint does not name the variable: $(<err)"
}

try library_test_programs_build "$root/Tests/Programs/build" every_function switched_off
try library_has_libaios_symbols libaios_symbols
try library_has_the_c_librarys_posix_aio c_librarys_symbols
try library_links_posix_programs posix_program
try library_is_what_it_must_be what_it_must_be
try library_is_hardened hardened
try library_takes_the_systems_place takes_the_systems_place
try library_can_be_switched_off switched_off
try library_takes_an_unknown_engine_for_auto unknown_engine
finish
