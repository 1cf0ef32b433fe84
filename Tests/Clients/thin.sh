#!/usr/bin/env bash
# Proves that thin-provisioning-tools, which read and write their metadata through libaio, make on the
# layer byte for byte what they make on the kernel, and find damage in it.

source "$(dirname "${BASH_SOURCE[0]}")/client.sh"
need_packages thin-provisioning-tools

thin_xml() {
    awk -v devices="$1" 'BEGIN {
        print "<superblock uuid=\"\" time=\"1\" transaction=\"1\" flags=\"0\" version=\"2\"" \
            " data_block_size=\"128\" nr_data_blocks=\"1000000\">"
        for (d = 0; d < devices; d++) {
            print "<device dev_id=\"" d "\" mapped_blocks=\"50\" transaction=\"0\"" \
                " creation_time=\"0\" snap_time=\"0\">"
            for (i = 0; i < 50; i++)
                print "<single_mapping origin_block=\"" 3 * i "\" data_block=\"" block++ "\" time=\"0\"/>"
            print "</device>"
        }
        print "</superblock>"
    }'
}

cache_xml() {
    awk -v blocks="$1" 'BEGIN {
        print "<superblock uuid=\"\" block_size=\"128\" nr_cache_blocks=\"" blocks \
            "\" policy=\"smq\" hint_width=\"4\"><mappings>"
        for (i = 0; i < blocks; i++)
            print "<mapping cache_block=\"" i "\" origin_block=\"" 7 * i \
                "\" dirty=\"" (i % 3 ? "true" : "false") "\"/>"
        print "</mappings><hints></hints></superblock>"
    }'
}

# metadata KIND COUNT: restore, check, dump and repair, by the layer and by the kernel.
metadata() {
    local kind=$1
    "${kind}_xml" "$2" >wanted.xml
    truncate -s 16M kernel layer repaired damaged
    "${kind}_restore" -q -i wanted.xml -o kernel
    layer "${kind}_restore" -q -i wanted.xml -o layer
    cmp kernel layer
    layer "${kind}_check" layer >out || fail "$(tail -2 out)"
    "${kind}_dump" kernel >kernel.xml
    layer "${kind}_dump" layer >layer.xml
    cmp kernel.xml layer.xml
    layer "${kind}_repair" -i layer -o repaired >out
    "${kind}_dump" repaired | cmp - kernel.xml
    # The check itself must be able to fail: a block of the tree is lost.
    cp layer damaged
    head -c 8192 /dev/urandom | dd of=damaged bs=4096 seek=3 conv=notrunc status=none
    ! layer "${kind}_check" damaged >out 2>&1 || fail "damage went unseen"
}

served() {
    truncate -s 16M metadata
    thin_xml 10 >xml
    thin_restore -q -i xml -o metadata
    expect_served thin_check metadata
}

count=400
if is_short; then count=100; fi
try thin_is_served served
try thin_metadata metadata thin "$count"
try cache_metadata metadata cache $((count * 20))
finish
