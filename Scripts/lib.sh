# shellcheck shell=bash
# What the scripts share; read with `source`. Sets `root` to the project's folder.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
script=$(realpath --relative-to="$root" "$0")

say() {
    printf '%s: %s\n' "$script" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# need_packages NAME...: installs the Debian packages that are missing.
need_packages() {
    local package missing=()

    command -v dpkg-query >/dev/null || die "this is no Debian system: install what the packages" \
        "$* contain, and put what they bring on PATH"
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            [[ " ${missing[*]} " == *" $package "* ]] || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then return; fi
    ((EUID == 0)) || die "packages are missing; run: sudo apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    install_quietly update || say "the package lists could not be updated; trying without"
    install_quietly install -y --no-install-recommends "${missing[@]}" ||
        die "apt-get could not install ${missing[*]}: see above"
}

# need_commands COMMAND:PACKAGE...: the same, for whoever has the command from elsewhere.
need_commands() {
    local pair packages=()

    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
    if ((${#packages[@]} > 0)); then need_packages "${packages[@]}"; fi
}

# Of two scripts at a time, one waits for the other: apt-get itself does not.
install_quietly() {
    quietly flock /var/lib/dpkg env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"
}

# quietly COMMAND...: shows what the command prints only when it fails, or with `verbose` set.
quietly() {
    local output status=0

    if [[ -n ${verbose:-} ]]; then
        "$@" >&2
        return
    fi
    output=$("$@" 2>&1) || status=$?
    ((status == 0)) || printf '%s\n' "$output" >&2
    return "$status"
}

# interruptibly COMMAND...: so that Ctrl-C ends the wait for it at once. `timeout` puts what it runs
# out of the terminal's reach, and a shell in the background would have it ignore the signal.
interruptibly() {
    env --default-signal=INT,QUIT "$@" &
    wait "$!"
}

# abreast COUNT FUNCTION WORD...: calls FUNCTION with each WORD, in a subshell, COUNT at a time.
abreast() {
    local count=$1 function=$2 word ended
    local -A running=()

    for word in "${@:3}"; do
        if ((${#running[@]} == count)); then
            wait -n -p ended "${!running[@]}" || true
            unset "running[$ended]"
        fi
        "$function" "$word" &
        running[$!]=1
    done
    wait "${!running[@]}" || true
}

# end_jobs: ends what this shell has in the background; for traps on EXIT.
end_jobs() {
    local job

    for job in $(jobs -pr); do end_tree "$job"; done
}

# end_tree PROCESS: with all that descend from it, for a build and `timeout` make process groups of
# their own.
end_tree() {
    local child

    # One that is stopped starts nothing more meanwhile.
    kill -STOP "$1" 2>/dev/null || return 0
    for child in $(pgrep -P "$1"); do end_tree "$child"; done
    kill -TERM "$1" 2>/dev/null || true
    kill -CONT "$1" 2>/dev/null || true
}

# median_of COLUMN FILE
median_of() {
    cut -f "$1" "$2" | LC_ALL=C sort -g | awk '{ line[NR] = $1 }
        END { printf "%.15g\n", (line[int((NR + 1) / 2)] + line[int((NR + 2) / 2)]) / 2 }'
}

need_swift() {
    command -v swift >/dev/null || die "swift is not on PATH: install Swift 6.3 or newer" \
        "(https://www.swift.org/install/linux) and put its bin folder on PATH"
}

# build_if_stale: runs Scripts/build when dist/ is missing or older than the sources.
build_if_stale() {
    dist_is_fresh || "$root/Scripts/build"
}

dist_is_fresh() {
    local stamp=$root/dist/.built file

    for file in bin/ioctx lib/libaio.so.1 lib/libaio.so.1t64 lib/libioctx.so \
        lib/libposixaio.so.1 lib/libioctx-seccomp.so; do
        [[ -e $root/dist/$file ]] || return 1
    done
    [[ -e $stamp ]] &&
        [[ -z $(find "$root/Sources" "$root/Package.swift" "$root/Scripts/build" \
            "$root/Scripts/library.sh" "$root/Scripts/lib.sh" -newer "$stamp" -print -quit) ]]
}
