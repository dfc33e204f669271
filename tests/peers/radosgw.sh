#!/bin/sh
# Ceph's object gateway (S3, IAM, STS) on loopback, for the tests: a monitor, a
# store in memory and the gateway, in one process group.
#
#   radosgw.sh DIRECTORY PORT MONITOR_PORT
#
# The gateway grants sessions of one second and more. Its administrator has the
# access key ADMIN and the secret key adminsecret. Nothing listens on PORT before
# it can be used.
set -eu
dir=$1 port=$2 monitor=$3
export CEPH_CONF="$dir/ceph.conf"
mkdir "$dir/mon" "$dir/osd" "$dir/rgw" "$dir/run"
uuid() { cat /proc/sys/kernel/random/uuid; }
fsid=$(uuid)

cat >"$CEPH_CONF" <<END
[global]
fsid = $fsid
mon host = v2:127.0.0.1:$monitor
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
keyring = $dir/keyring
run dir = $dir/run
admin socket =
pid file =
log file =
log to stderr = true
debug rocksdb = 0
setuser match path =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd max object name len = 256
mon allow pool size one = true
mon data avail warn = 2
mon data avail crit = 1
mon max pg per osd = 1000
paxos propose interval = 0.01
paxos min wait = 0.01
[mon.a]
mon data = $dir/mon
[osd.0]
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = 268435456
[client.rgw]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$port
rgw sts key = abcdefghijklmnop
rgw s3 auth use sts = true
rgw sts min session duration = 1
rgw thread pool size = 16
rgw enable usage log = false
rgw crypt require ssl = false
END

ceph-authtool --create-keyring "$dir/keyring" --gen-key --name mon. --cap mon 'allow *' >&2
for name in client.admin client.rgw osd.0; do
    ceph-authtool "$dir/keyring" --gen-key --name "$name" --cap mon 'allow *' --cap osd 'allow *' >&2
done
monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$monitor]" "$dir/monmap" >&2
ceph-mon --id a --mkfs --monmap "$dir/monmap" --keyring "$dir/keyring" 2>"$dir/mkfs.log" || {
    cat "$dir/mkfs.log" >&2
    exit 1
}
ceph-mon --id a --foreground 2>"$dir/mon.log" &

osd=$(uuid)
ceph osd new "$osd" >&2
ceph auth import --in-file "$dir/keyring" >&2
ceph-osd --id 0 --mkfs --osd-uuid "$osd" 2>"$dir/mkfs.log" || {
    cat "$dir/mkfs.log" >&2
    exit 1
}
ceph-osd --id 0 --foreground 2>"$dir/osd.log" &
ceph osd crush add osd.0 1.0 root=default host=here >&2
radosgw-admin user create --uid admin --display-name admin --access-key ADMIN --secret-key adminsecret \
    --caps 'roles=*;oidc-provider=*;user-policy=*' >"$dir/user.json" 2>"$dir/user.log" || {
    cat "$dir/user.log" >&2
    exit 1
}
exec radosgw --name client.rgw --foreground >&2
