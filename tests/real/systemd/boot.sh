#!/bin/bash
# Boots a system's own systemd as PID 1 of namespaces of its own, on an overlay of its root that is thrown away. Run by
# box.py as root. Arguments: a folder for pid, log and what box.py put there; a cgroup; the root (/ is this machine's);
# then SOURCE:TARGET, mounted read-only. NETWORK=host leaves it in this machine's network. It returns when unshare(1)
# does, which is when the box has ended.
set -euo pipefail
folder=$1 cgroup=$2 lower=$3
shift 3
echo $$ >"$cgroup/cgroup.procs"
for each in "$@"; do echo "$each"; done >"$folder/mounts"
export folder lower
net=--net
[[ ${NETWORK:-} != host ]] || net=
exec unshare --pid --mount --uts --ipc $net --cgroup --fork --kill-child=KILL --propagation private bash -c '
set -eu
work=$(mktemp -d); mount -t tmpfs -o mode=755,size=1g box "$work"
mkdir "$work"/{upper,work,root}; root=$work/root
mount -t overlay overlay -o lowerdir="$lower",upperdir="$work/upper",workdir="$work/work" "$root"
mkdir -p "$root"/{proc,sys,dev,run,tmp}
# what would reach the shared kernel, or only costs time
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-pstore systemd-udevd systemd-udev-trigger \
    systemd-random-seed systemd-update-utmp systemd-timesyncd systemd-binfmt systemd-hwdb-update kmod-static-nodes \
    e2scrub_reap apt-daily apt-daily-upgrade; do ln -sf /dev/null "$root/etc/systemd/system/$unit.service"; done
for unit in systemd-journald-audit.socket systemd-udevd-kernel.socket systemd-udevd-control.socket \
    sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount apt-daily.timer apt-daily-upgrade.timer \
    e2scrub_all.timer fstrim.timer man-db.timer dpkg-db-backup.timer; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
rm -f "$root"/etc/systemd/system/multi-user.target.wants/* "$root/etc/machine-id"
: >"$root/etc/fstab"; tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
rm -rf "$root"/var/log/journal "$root"/var/lib/brokerd "$root"/etc/brokerd
while IFS=: read -r source target; do
  mkdir -p "$root$target"; mount --bind "$source" "$root$target"; mount -o remount,ro,bind "$root$target"
done <"$folder/mounts"
cp -a "$folder"/files/. "$root/"; chown -R 0:0 "$root/etc/brokerd" 2>/dev/null || true
mount -t proc -o nosuid,noexec,nodev proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"; mount -o remount,ro,bind "$root/proc/sys"
mount -t sysfs -o nosuid,noexec,nodev,ro sysfs "$root/sys"
mount -t cgroup2 -o nosuid,noexec,nodev cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  : >"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mkdir "$root"/dev/{pts,shm}; mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"; mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"; ln -s /proc/self/fd "$root/dev/fd"
hostname box
[ "${NETWORK:-}" = host ] || ip link set lo up
cd "$root"; mkdir -p old; pivot_root . old; cd /; umount -l /old; rmdir /old
mount --make-rshared /   # else LoadCredential= comes up as an empty directory
exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb LANG=C.UTF-8 \
  /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=no' >>"$folder/log" 2>&1 </dev/null
