#!/bin/sh
# vif.sh PORT MAC ADDRESS: a namespace for a guest, plugged in; an echo server in it.
set -e
/oxbow/ip netns add "$1"
/oxbow/ip link add "to-$1" type veth peer name eth0 netns "$1"
/oxbow/ip -n "$1" link set lo up
/oxbow/ip -n "$1" link set eth0 address "$2" up
/oxbow/ip -n "$1" addr add "$3/24" dev eth0
/oxbow/ip link set "to-$1" up
ovs-vsctl --db=unix:/run/ovs/db.sock --timeout=60 add-port br-int "to-$1" -- set Interface "to-$1" external_ids:iface-id="$1"
/oxbow/ip netns exec "$1" nc -ll -p 7000 -e cat </dev/null >/dev/null 2>&1 &
