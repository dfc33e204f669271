#!/bin/bash
# systemd as the first process of a machine of its own: process ids, mounts, control groups and
# host name are its own, the files are those of this machine under a layer that is gone when it
# ends, and nothing starts in it but what is asked for. Network and kernel are this machine's.
#
#   systemd.sh NAME SHARED PROGRAM
#
# SHARED is a directory: what is in its `root` goes over the files of this machine, and its
# `boot.target` is what is reached. PROGRAM is put in the place of /usr/local/bin/tmpcred.
# Its `kek` is sealed to that machine, as /etc/tmpcred-broker/kek.cred. Takes root, and lives
# until it is killed.
set -euo pipefail
name=$1 shared=$2 program=$3

groups=$shared/groups
if [ "${4:-}" = '' ]; then
    # What is mounted here is gone with this process.
    exec unshare --mount "$0" "$name" "$shared" "$program" grouped
elif [ "$4" = grouped ]; then
    # Control groups are below one of ours, or systemd would take those of this machine.
    mkdir -p "$groups"
    mount -t cgroup2 cgroup2 "$groups"
    # Of those that were killed before they could put theirs away.
    for old in "$groups"/tmpcred-tests-*; do
        [ ! -d "$old" ] || [ -e "/proc/${old##*-}" ] || find "$old" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    group=$groups/tmpcred-tests-$name-$$
    mkdir "$group"
    # Puts it away once all of that has ended, however it did; by then its path may be gone.
    setsid --fork bash -c '
        cd "$2/.."
        while [ -e "/proc/$1" ]; do sleep 0.2; done
        for attempt in {1..50}; do
            find "${2##*/}" -depth -type d -exec rmdir {} + && break
            sleep 0.2
        done' putting-away $$ "$group" </dev/null >/dev/null 2>&1
    echo $$ >"$group/cgroup.procs"
    exec unshare --cgroup --pid --mount --ipc --uts --fork --kill-child "$0" "$name" "$shared" "$program" inside
fi

layer=$shared/layer root=$shared/machine
mkdir -p "$layer" "$root"
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for directory in run tmp dev var/tmp; do mount -t tmpfs tmpfs "$root/$directory"; done
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts" "$root/run/lock"
ln -s pts/ptmx "$root/dev/ptmx"

# Nothing of what this machine starts, or makes up units from.
rm -rf "$root"/etc/systemd/system "$root"/usr/lib/systemd/system/*.wants \
    "$root"/usr/lib/systemd/system-generators "$root"/etc/machine-id "$root"/var/lib/tmpcred-broker
mkdir "$root/etc/systemd/system"
printf '%032d\n' "$$" >"$root/etc/machine-id"
printf '[Journal]\nStorage=volatile\nReadKMsg=no\n' >"$root/etc/systemd/journald.conf"
cp -r "$shared/files/." "$root/"
cp "$shared/boot.target" "$root/etc/systemd/system/boot.target"
touch "$root/usr/local/bin/tmpcred"
mount --bind "$program" "$root/usr/local/bin/tmpcred"
chroot "$root" systemd-creds encrypt --quiet --with-key=host --name=kek - /etc/tmpcred-broker/kek.cred <"$shared/kek"

# (Whoever is only shown another root may not make namespaces of users.)
cd "$root"
mkdir .before
pivot_root . .before
umount --lazy /.before
# As it would do itself where it was the first of a whole machine: credentials are mounted by
# another process than the one that shows them to the unit.
mount --make-rshared /
exec env -i container=tmpcred PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=boot.target --show-status=no
