# shellcheck shell=bash
# What a drop-in must be, for the build and for the tests of what is installed; read with `source` after
# lib.sh.

size_max_bytes=$((300 * 1024))
glibc_max=2.34
libaio_symbols="\
io_cancel@@LIBAIO_0.4
io_cancel@LIBAIO_0.1
io_destroy@@LIBAIO_0.4
io_getevents@@LIBAIO_0.4
io_getevents@LIBAIO_0.1
io_pgetevents@@LIBAIO_0.5
io_queue_init@@LIBAIO_0.1
io_queue_release@@LIBAIO_0.1
io_queue_run@@LIBAIO_0.1
io_queue_wait@@LIBAIO_0.4
io_queue_wait@LIBAIO_0.1
io_setup@@LIBAIO_0.4
io_submit@@LIBAIO_0.1"
# What libioctx.so has beside them, for programs that bypass libaio.
interposed_symbols="\
ioctx_aio_call@@IOCTX_PRIVATE
ioctx_syscall_function@@IOCTX_PRIVATE
syscall@@GLIBC_2.2.5"
seccomp_symbols=$(
    printf '%s@@GLIBC_2.32\n' pthread_attr_setsigmask_np pthread_sigmask
    printf '%s@GLIBC_2.2.5\n' pthread_sigmask
    printf '%s@@GLIBC_2.2.5\n' __sigaction __sysv_signal bsd_signal sigaction sigblock sighold \
        sigignore signal sigprocmask sigset sigsetmask ssignal syscall sysv_signal
)
# POSIX AIO: each name of the C library's, old and new, and what FreeBSD has beyond it.
posix_symbols=$(
    printf '%s@@IOCTX_0.1\n' aio_readv aio_waitcomplete aio_writev
    printf '%s@GLIBC_2.4\n' lio_listio lio_listio64
    for name in aio_{cancel,error,fsync,read,return,suspend,write}{,64} aio_init lio_listio{,64}; do
        printf '%s@@GLIBC_2.34\n%s@GLIBC_2.2.5\n' "$name" "$name"
    done
)

# check_library FILE NAME: what programs and distributions rely on in the library of that name, and what
# creeps in unseen.
check_library() {
    local file=$1 wanted needs=libc.so.6 needed soname symbols newest size

    case $2 in
    libaio.so.1 | libaio.so.1.0.2) expect_library libaio.so.1 "$libaio_symbols" ;;
    libaio.so.1t64) expect_library libaio.so.1t64 "$libaio_symbols" ;;
    # The name that a program asks for, so that the system's library is not loaded beside it.
    libioctx.so)
        expect_library libaio.so.1 "$libaio_symbols" "$interposed_symbols" "$posix_symbols"
        ;;
    libposixaio.so.1) expect_library libposixaio.so.1 "$posix_symbols" ;;
    # It stands on libioctx.so, under the name that this one takes from libaio.
    libioctx-seccomp.so)
        expect_library libioctx-seccomp.so "$seccomp_symbols"
        needs=libaio.so.1$'\n'libc.so.6
        ;;
    *) die "there is no library '$2'" ;;
    esac
    [[ $(dynamic_entries "$file" SONAME) == "$soname" ]] ||
        die "$file has the soname '$(dynamic_entries "$file" SONAME)' and not '$soname'"
    needed=$(dynamic_entries "$file" NEEDED)
    [[ $needed == "$needs" ]] ||
        die "$file needs '${needed//$'\n'/ }' and not '${needs//$'\n'/ }': find what brings it in"
    [[ -z $(dynamic_entries "$file" 'R.*PATH') ]] ||
        die "$file looks for libraries in '$(dynamic_entries "$file" 'R.*PATH')'"
    newest=$(readelf -VW "$file" | sed -n 's/.*Name: GLIBC_\([A-Z0-9.]*\).*/\1/p' |
        sort -V | tail -1)
    [[ $(printf '%s\n' "$newest" "$glibc_max" | sort -V | tail -1) == "$glibc_max" ]] ||
        die "$file needs GLIBC_$newest, newer than $glibc_max: find the call with 'nm -D $file'"
    symbols=$(exported_symbols "$file")
    [[ $symbols == "$wanted" ]] ||
        die "$file exports other symbols than it should (< has, > should have):" \
            "$(diff <(printf '%s\n' "$symbols") <(printf '%s\n' "$wanted") |
                grep '^[<>]' | tr '\n' ' ')"
    size=$(stat -Lc %s "$file")
    ((size < size_max_bytes)) || die "$file has $size bytes, more than $size_max_bytes"
}

# expect_library SONAME SYMBOLS...: sets check_library's expectations.
expect_library() {
    soname=$1
    wanted=$(printf '%s\n' "${@:2}" | LC_ALL=C sort)
}

dynamic_entries() {
    readelf -dW "$1" | sed -n "s/.*($2).*\[\(.*\)\]/\1/p"
}

exported_symbols() {
    nm -D --defined-only --with-symbol-versions "$1" | awk '$2 != "A" { print $NF }' | LC_ALL=C sort
}
