#!/bin/sh
# PostgreSQL for the tests, in the foreground: a server of its own, with its files in
# DIRECTORY, on a socket there and on PORT of loopback.
#
#   postgres.sh DIRECTORY PORT [SETTING=VALUE]...
#
# What is in DIRECTORY from a run before is gone on with. The user tmpcred has the password
# "tmpcred-password", may log in over TCP with that and over the socket without, and owns
# the databases that it makes. PostgreSQL refuses to be run by root, so root becomes the
# user postgres.
set -eu
dir=$1 port=$2
shift 2
for bin in /usr/lib/postgresql/*/bin; do PATH=$bin:$PATH; done
as() { "$@"; }
become=
if [ "$(id -u)" = 0 ]; then
    become='setpriv --reuid=postgres --regid=postgres --init-groups'
    chown postgres "$dir"
    as() { $become "$@"; }
fi
export LC_ALL=C
cd "$dir"
if [ ! -f "$dir/data/PG_VERSION" ]; then
    echo tmpcred-password | as sh -c 'umask 077; cat >password'
    as initdb --pgdata="$dir/data" --username=tmpcred --pwfile="$dir/password" --no-sync \
        --auth-local=trust --auth-host=scram-sha-256 --wal-segsize=1 --encoding=UTF8 --locale=C >/dev/null
fi
for setting; do
    set -- "$@" -c "$setting"
    shift
done
# What is said last counts.
exec $become postgres -D "$dir/data" -c listen_addresses=127.0.0.1 -c port="$port" \
    -c unix_socket_directories="$dir" -c shared_buffers=16MB -c max_wal_size=64MB \
    -c max_connections=60 "$@"
