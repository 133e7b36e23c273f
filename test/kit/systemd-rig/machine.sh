#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# machine.sh STAGE DIRECTORY: boots systemd as pid 1 of a machine of its own. Each stage runs the next one.
#
#   hold    in a mount namespace of its own: keeps the machine's changes and boots again after a reboot
#   enter   pid 1 of the machine: goes into the control groups that DIRECTORY/cgroups names
#   start   makes those the root of what the machine sees, lays out its files, and becomes systemd
#
# The machine's root is the host's, read-only below a layer in memory; DIRECTORY/disk holds the folders that must
# be on a real disk. DIRECTORY/hierarchies has one line per control group hierarchy: type, options, folder.
set -eu
stage=$1
directory=$2
layer=$directory/layer
root=$directory/root
REBOOTED=129 # a pid namespace that is told to reboot ends its first process by SIGHUP

case $stage in
hold)
  mount -t tmpfs -o size=1g,mode=755 layer "$layer"
  mkdir "$layer/upper" "$layer/work"
  while :; do
    status=0
    unshare --pid --mount --uts --ipc --propagation private --fork --kill-child -- \
      sh "$0" enter "$directory" || status=$?
    [ $status -eq $REBOOTED ] || exit $status
  done
  ;;

enter)
  while read -r group; do echo 0 >"$group/cgroup.procs"; done <"$directory/cgroups"
  exec unshare --cgroup -- sh "$0" start "$directory"
  ;;

start)
  mount -t overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" root "$root"
  mount -t proc proc "$root/proc"
  # Most of the kernel's settings are the host's too.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  if [ "$(wc -l <"$directory/hierarchies")" -gt 1 ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
  fi
  while read -r type options folder; do
    mkdir -p "$root/sys/fs/cgroup/$folder"
    mount -t "$type" -o "$options" cgroup "$root/sys/fs/cgroup/$folder"
  done <"$directory/hierarchies"

  for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
  chmod 1777 "$root/tmp"
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"; done

  if [ ! -e "$layer/installed" ]; then
    # Nothing of what the host starts, mounts or configures.
    rm -rf "$root"/etc/systemd/system "$root"/etc/systemd/*.conf.d "$root"/etc/init.d "$root"/etc/rc?.d \
      "$root"/etc/fstab "$root"/etc/crypttab "$root"/etc/containerd "$root"/var/lib/systemd
    mkdir -p "$root/etc/systemd/system"
    (cd "$directory/disk" && find . -mindepth 1 -type d -exec mkdir -p "$root/{}" \;)
    cp -r "$directory/files/." "$root/"
    touch "$layer/installed"
  fi
  while read -r path; do
    mount --bind "$directory/disk/$path" "$root/$path"
  done <"$directory/on-disk"
  ip link set lo up

  cd "$root"
  mkdir -p .host
  pivot_root . .host
  umount -l /.host
  exec env -i container=rig PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=console --log-level=info --show-status=0
  ;;
esac
