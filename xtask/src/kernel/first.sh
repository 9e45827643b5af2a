#!/bin/busybox sh
# The initial file system's only program: loads what the host's files come by, and goes over to them.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in virtio_pci virtio_console virtio_rng 9pnet_virtio 9p overlay; do
    /bin/busybox modprobe $module
done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose,access=client /dev/root /root
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in init=*) next=${word#init=} ;; esac
done
/bin/busybox umount /sys
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root "$next"
