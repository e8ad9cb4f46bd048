#!/bin/sh
# dump.sh: all there is to know about this machine's part of the cloud.
for command in status debug/problems debug/ports debug/dataplane drops; do
    echo "\$ appctl $command"
    ovn-appctl -t /run/ovs/node.ctl $command
done
/oxbow/ip -s addr
/oxbow/ip route
/oxbow/ip neigh
tail -n 40 /run/ovs/node.log
if [ -d /run/ovn ]; then
    ovn-nbctl --db=unix:/run/ovn/nb.sock show
    ovn-sbctl --db=unix:/run/ovn/sb.sock show
    tail -n 20 /run/ovn/northd.log
fi
dmesg | tail -n 20
