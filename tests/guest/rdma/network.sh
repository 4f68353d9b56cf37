# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# The guest's network, sourced by its first script: 10.99.0.1 and 10.99.0.2 on one dummy device, or, joined
# to another guest, the address it was given on the virtio device.  A soft-RoCE device lies on it.

ip link set lo up

if [[ -z ${GUEST_ADDRESS-} ]]; then
    device=dummy0
    addresses=(10.99.0.1 10.99.0.2)
else
    device=
    for path in /sys/class/net/*; do
        [[ $(<"$path/address") != "$GUEST_MAC" ]] || device=${path##*/}
    done
    [[ -n $device ]] || echo "network.sh: no network device has the address $GUEST_MAC" >&2
    addresses=("$GUEST_ADDRESS")
fi

# Frames of 9000 bytes are what RDMA packets of 4096 bytes need.
ip link set "$device" mtu 9000 up
for address in "${addresses[@]}"; do
    ip address add "$address/24" dev "$device"
done
rdma link add rxe0 type rxe netdev "$device"
ulimit -l unlimited
