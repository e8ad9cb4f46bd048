#!/bin/busybox sh
# The guest's first program: brings devices up, then runs what comes through the control port.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
# What is there already (the real ip, say) comes first in PATH.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
hostname guest
CONTROL=/dev/vport0p1

failed=
for module in /modules/*.ko; do
    insmod "$module" || failed="$failed $module"
done

ip link set lo up
for word in $(cat /proc/cmdline); do
    case "$word" in
        oxbow.address=*) ip addr add "${word#oxbow.address=}" dev eth0 ;;
    esac
done
ip link set eth0 up

# What the TCP probes connect to.
nc -ll -p 7000 -e cat </dev/null >/dev/null 2>&1 &

# The driver learns of its ports after it is inserted.
looks=0
until [ -c "$CONTROL" ]; do
    looks=$((looks + 1))
    if [ $looks -gt 3000 ]; then
        echo "there is no control port $CONTROL; cannot insert:$failed"
        poweroff -f
    fi
    usleep 20000
done
# It can be opened once. Writing waits until the host has it open too.
exec 0<>"$CONTROL" 1>&0 2>&1
# The host waits for one of the two words.
if [ -n "$failed" ]; then
    echo "cannot insert$failed"
    poweroff -f
fi
echo "ready"
while read -r number command; do
    eval "$command" </dev/null
    printf '\n=%s %s\n' "$number" "$?"
done
poweroff -f
