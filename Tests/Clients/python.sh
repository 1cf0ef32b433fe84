#!/usr/bin/env bash
# Proves that Python programs that use caio, which makes the system calls through syscall() and waits on
# an eventfd, and aiofile on top of it, read back what they wrote.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"

python=$root/.build-tests/python/bin/python
packages=(caio==0.12.10 aiofile==3.12.3)

make_environment() {
    if "$python" -c 'import aiofile, caio.linux_aio' 2>/dev/null; then return; fi
    need_packages python3-venv
    rm -rf "${python%/bin/python}"
    # The distribution's Python, whatever else is on PATH.
    /usr/bin/python3 -m venv "${python%/bin/python}"
    "$python" -m pip install -q "${packages[@]}" ||
        skip "pip cannot install ${packages[*]} here: $(uname -m), $("$python" --version)"
}

public_use() {
    "$python" -c 'import aiofile' || skip "caio and aiofile are not installed"
    CAIO_IMPL=linux layer "$python" "$root/Tests/Clients/python.py" "$@"
}

served() {
    "$python" -c 'import aiofile' || skip "caio and aiofile are not installed"
    CAIO_IMPL=linux expect_served_without_kernel "$python" "$root/Tests/Clients/python.py" blocks 32
}

scale=8
if is_short; then scale=1; fi
try python_environment make_environment
try python_is_served served
try python_caio_blocks public_use blocks $((scale * 128))
try python_caio_errors public_use errors $((scale * 32))
try python_aiofile_files public_use files $((scale * 16))
try python_aiofile_append public_use append $((scale * 32))
finish
