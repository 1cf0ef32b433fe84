#!/usr/bin/env bash
# Proves that a Swift program runs with the library preloaded: two Swift runtimes, the program's and
# the few functions inside the library, must not meet.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_swift

host=$root/.build-tests/SwiftHost

build_host() {
    [[ $host -nt $root/Tests/Clients/SwiftHost.swift ]] ||
        swiftc -O -parse-as-library "$root/Tests/Clients/SwiftHost.swift" -o "$host"
}

expected() {
    "$host" | grep -v '^aio'
}

without_aio() {
    layer "$host" | grep -v '^aio' >out
    expect_equal "output" "$(expected)" "$(<out)"
}

with_aio() {
    head -c 4096 /dev/urandom >data
    # The program is linked with no AIO at all; the reference is preloaded too.
    if [[ $engine == kernel ]]; then export LD_PRELOAD=libaio.so.1; fi
    layer "$host" data >out
    unset LD_PRELOAD
    expect_equal "its last line" "aio: 64 reads of 512 bytes, all equal" "$(tail -1 out)"
    grep -v '^aio' out >rest
    expect_equal "output" "$(expected)" "$(<rest)"
}

try swift_host_builds build_host
try swift_host_runs without_aio
try swift_host_uses_aio with_aio
finish
