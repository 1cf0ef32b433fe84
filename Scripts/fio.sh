# shellcheck shell=bash
# Runs of fio on a scratch file, for the scripts that compare; read with `source` after lib.sh.
# Sets `scratch` to a folder that goes with the script.

# make_scratch FOLDER MIB: a file of so many MiB in a new folder there.
make_scratch() {
    local folder=$1 size_mib=$2 free_mib

    [[ -d $folder && -w $folder ]] ||
        die "'$folder' is no folder that you may write: choose a --dir"
    free_mib=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
    ((free_mib > size_mib + 64)) ||
        die "'$folder' has $free_mib MiB free, too little for $size_mib: choose another --dir," \
            "or a smaller --size"
    case $(stat -f -c %T "$folder") in
    tmpfs | ramfs) die "'$folder' is in memory, where no read is cold: choose a --dir on a disk" ;;
    esac
    child=
    # In this order: a signal ends the running fio, and whatever ends the script tidies up.
    trap tidy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    scratch=$(mktemp -d "$folder/ioctx-fio.XXXXXX")
    scratch=$(cd "$scratch" && pwd -P)
    say "writing a file of $size_mib MiB"
    in_background dd if=/dev/urandom of="$scratch/file" bs=1M count="$size_mib" status=none
    sync "$scratch/file"
}

tidy() {
    if [[ -n ${child:-} ]]; then kill "$child" 2>/dev/null || true; fi
    if [[ -n ${scratch:-} ]]; then rm -rf "$scratch"; fi
}

# A foreground program would keep bash from seeing a signal until it has ended.
in_background() {
    local status=0

    "$@" &
    child=$!
    wait "$child" || status=$?
    child=
    return "$status"
}

# Without the right to do so, fio's invalidate empties the cache of its one file.
empty_cache() {
    [[ -w /proc/sys/vm/drop_caches ]] || return 0
    sync
    (echo 3 >/proc/sys/vm/drop_caches) 2>/dev/null || true
}

# run_fio OUTPUT RUNNER... ::: OPTIONS...: one job on the scratch file, its JSON to OUTPUT. RUNNER
# is what fio is run with, such as `ioctx run --`, or nothing.
run_fio() {
    local output=$1 runner=()
    shift
    while [[ $1 != ::: ]]; do
        runner+=("$1")
        shift
    done
    shift
    in_background env -u LD_PRELOAD -u IOCTX_ENGINE "${runner[@]}" fio --name=job \
        --filename="$scratch/file" --invalidate=1 --randseed="$RANDOM" --slat_percentiles=1 \
        --clat_percentiles=1 --percentile_list=50:99 --output-format=json --output="$output" "$@"
}
