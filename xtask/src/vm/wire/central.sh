#!/bin/sh
# central.sh ADDRESS: NB, SB (which listens at ADDRESS too) and oxbow-northd.
set -e
mkdir -p /run/ovn
for db in nb sb; do
    ovsdb-tool create /run/ovn/$db.db /usr/share/ovn/ovn-$db.ovsschema
    case $db in
        nb) remote= ;;
        sb) remote=--remote=ptcp:6642:$1 ;;
    esac
    ovsdb-server --detach --no-chdir --pidfile=/run/ovn/$db.pid --log-file=/run/ovn/$db.log --unixctl=/run/ovn/$db.ctl \
        --remote=punix:/run/ovn/$db.sock $remote /run/ovn/$db.db
done
ovn-nbctl --db=unix:/run/ovn/nb.sock init
ovn-sbctl --db=unix:/run/ovn/sb.sock init
oxbow-northd --detach --no-chdir --pidfile=/run/ovn/northd.pid --log-file=/run/ovn/northd.log \
    --ovnnb-db=unix:/run/ovn/nb.sock --ovnsb-db=unix:/run/ovn/sb.sock --unixctl=/run/ovn/northd.ctl
