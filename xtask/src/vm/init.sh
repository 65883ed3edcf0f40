#!/bin/sh
# The first process of a test machine: makes the system that lastpacket expects, asks it what this
# kernel shows, runs the command, says how it ended, and powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LASTPACKET_BIN=/usr/bin/lastpacket
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
echo "+memory" > /sys/fs/cgroup/cgroup.subtree_control
mount -t tracefs trace /sys/kernel/tracing
mkdir -p /run/netns
hostname "vm-$(uname -r | cut -d. -f1-2)"
ip link set lo up
for module in /modules/*.ko; do
    [ -e "$module" ] && { insmod "$module" || echo "cannot load $module"; }
done
exec 2>&1
echo "lastpacket-vm: release $(uname -r)"
echo "lastpacket-vm: check $(lastpacket check --format json)"
/bin/sh /command
echo "lastpacket-vm: exit $?"
sync
poweroff -f
