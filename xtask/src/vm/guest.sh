#!/bin/sh
# Process 1 of the machine: plays every topology and says how it ended, one line each: @@ NAME CODE
export PATH=/bin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/net
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
ulimit -n 20000
while read -r module; do
    insmod "/lib/modules/$module" || echo "cannot load $module"
done </lib/modules/order
ip link set lo up
echo "Linux $(uname -r), $(grep -c ^processor /proc/cpuinfo) processors"
for topology in /topologies/*.yaml; do
    name=${topology##*/}
    russet lab run "$topology" 2>&1
    echo "@@ $name $?"
done
poweroff -f
