#!/bin/sh
# Process 1 in the initramfs: mounts the machine's root under an overlay and goes there.
# /conf sets SHARE (virtiofs or 9p), RELEASE, KERNEL (the kernel's tree on the machine) and the
# function each_rw, which calls its argument with a tag and a directory for each writable one.
fail() {
    echo "vm: $*" >/dev/console
    poweroff -f
}
share() { # tag, directory, ro or rw
    case $SHARE in
    virtiofs) mount -t virtiofs -o "$3" "$1" "$2" ;;
    9p)
        cache=none
        [ "$3" = ro ] && cache=loose
        mount -t 9p -o "$3,trans=virtio,version=9p2000.L,msize=512000,cache=$cache" "$1" "$2"
        ;;
    esac || fail "cannot mount $1"
}
writable() { # tag, directory
    mkdir -p "/new$2"
    share "$1" "/new$2" rw
}

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module" || fail "cannot load $module"
done
. /conf

mkdir -p /low /over /new
share root /low ro
mount -t tmpfs -o mode=755 tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/low,upperdir=/over/upper,workdir=/over/work overlay /new ||
    fail "cannot mount the overlay"
each_rw writable

mkdir -p "/new/lib/modules/$RELEASE" /new/boot
mount -o bind "/low$KERNEL/lib/modules/$RELEASE" "/new/lib/modules/$RELEASE" ||
    fail "cannot see the kernel's modules"
cp "/low$KERNEL/config" "/new/boot/config-$RELEASE"

cd /new || fail "no root"
mkdir -p proc sys dev run tmp
for dir in proc sys dev; do
    mount -o move "/$dir" "/new/$dir"
done
mkdir -p dev/pts dev/shm
mount -t devpts -o ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock run/netns run/vm
# What is built as a module is not there yet: nothing depends on these.
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t debugfs debugfs sys/kernel/debug
mount -t tracefs tracefs sys/kernel/tracing
ln -sf /proc/self/fd dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -sf "/proc/self/fd/${stream%:*}" "dev/${stream#*:}"
done
cp /bin/busybox /stage2 /job run/vm/
exec switch_root /new /run/vm/busybox sh /run/vm/stage2
