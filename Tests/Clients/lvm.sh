#!/usr/bin/env bash
# Proves that LVM's tools, which scan devices through libaio, see and write the same on the layer as on
# the kernel. Logical volumes are not made active: that takes the kernel's device mapper.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_packages lvm2
need_commands losetup:mount

device=
remove_device() {
    if [[ -n $device ]]; then losetup -d "$device"; fi
}

make_device() {
    ((EUID == 0)) || skip "a loop device wants root"
    truncate -s 64M disk
    device=$(losetup -f --show disk) ||
        skip "there is no loop device here: $(losetup -f 2>&1 || true)"
    trap remove_device EXIT
}

# lvm_in [PREFIX...] : COMMAND...: no device but ours, and nothing written outside this folder.
lvm_in() {
    local prefix=()
    while [[ $1 != : ]]; do
        prefix+=("$1")
        shift
    done
    LVM_SUPPRESS_FD_WARNINGS=1 LVM_SYSTEM_DIR=$PWD "${prefix[@]}" lvm "${@:2}" --config "
        devices { filter=[\"a|^$device\$|\", \"r|.*|\"] use_devicesfile=0 }
        global { use_lvmpolld=0 event_activation=0 locking_dir=\"$PWD\" }
        activation { udev_sync=0 udev_rules=0 }
        backup { backup=0 archive=0 }"
}

# Whatever the two sides print about the volume must be equal.
compare() {
    lvm_in : "$@" >kernel.out
    lvm_in layer : "$@" >layer.out
    cmp kernel.out layer.out
    [[ -s layer.out ]] || fail "$* prints nothing"
}

volumes() {
    make_device
    lvm_in layer : pvcreate -q -y "$device"
    lvm_in layer : vgcreate -q store "$device"
    local i
    for i in 1 2 3 4 5; do
        lvm_in layer : vgchange -q --addtag "tag$i" store
    done
    compare pvs -o +all "$device"
    compare vgs -o +all store
    compare pvck "$device"
    compare pvck --dump headers "$device"
    compare pvck --dump metadata_all "$device"
    expect_equal "tags" tag1,tag2,tag3,tag4,tag5 \
        "$(lvm_in : vgs --noheadings -o tags store | tr -d ' ')"
    # The check itself must be able to fail.
    dd if=/dev/urandom of=disk bs=512 seek=1 count=1 conv=notrunc status=none
    ! lvm_in layer : pvck "$device" >out 2>&1 || fail "damage went unseen: $(<out)"
}

served() {
    make_device
    lvm_in : pvcreate -q -y "$device"
    [[ $engine != kernel ]] || skip "the kernel serves its own"
    LD_DEBUG=bindings LD_DEBUG_OUTPUT=$work/bindings lvm_in layer : pvs "$device"
    grep -qh "to $preloaded .*normal symbol .io_submit'" "$work"/bindings.* ||
        fail "io_submit is not bound to $preloaded"
    # And it does call it.
    "$root/Tests/Programs/build" seccomp
    ! lvm_in "${no_kernel_aio[@]}" : pvs "$device" >alone.log 2>&1 ||
        fail "pvs makes no AIO calls"
    lvm_in layer "${no_kernel_aio[@]}" : pvs "$device" >out
    grep -q "$device" out
}

try lvm_is_served served
try lvm_volumes volumes
finish
