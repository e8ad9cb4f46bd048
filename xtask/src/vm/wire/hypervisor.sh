#!/bin/sh
# hypervisor.sh NAME ENCAP-ADDRESS SB-REMOTE: an Open_vSwitch database and oxbow-node, without ovs-vswitchd.
set -e
export OVS_RUNDIR=/run/ovs OVS_LOGDIR=/run/ovs OVN_RUNDIR=/run/ovs OVN_LOGDIR=/run/ovs
mkdir -p /run/ovs
mount -t bpf bpf /sys/fs/bpf
ovsdb-tool create /run/ovs/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server --detach --no-chdir --pidfile=/run/ovs/ovsdb.pid --log-file=/run/ovs/ovsdb.log --unixctl=/run/ovs/ovsdb.ctl \
    --remote=punix:/run/ovs/db.sock /run/ovs/conf.db
ovs-vsctl --db=unix:/run/ovs/db.sock --no-wait init
ovs-vsctl --db=unix:/run/ovs/db.sock --no-wait set Open_vSwitch . external_ids:system-id="$1" external_ids:hostname="$1" \
    external_ids:ovn-remote="$3" external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip="$2"
oxbow-node --detach --no-chdir --pidfile=/run/ovs/node.pid --log-file=/run/ovs/node.log --unixctl=/run/ovs/node.ctl \
    unix:/run/ovs/db.sock
