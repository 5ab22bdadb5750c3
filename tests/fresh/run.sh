#!/bin/bash
# A fresh Debian root with only git, make, gcc and Python: `make run` must end in the ready line, kcat must write and
# read, and `make test` must pass. Needs root and debootstrap (apt-get install debootstrap kcat).
# usage: tests/fresh/run.sh [ROOT] [run|test|all]     ROOT: an empty place, default build/fresh; kept, remove it yourself
# SUITE=bookworm picks the release. The host's certificates and package settings are copied, so that package registries
# are reached as they are on the host.
set -euo pipefail
here=$(dirname "$(realpath "$0")")/../..
root=$(realpath -m "${1:-build/fresh}")
what=${2:-all}
suite=${SUITE:-bookworm}
port=19092

inside() {
    chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DEFAULT_TIMEOUT=180 bash -c "$1"
}
finish() {
    [ -z "${broker:-}" ] || kill -- -"$broker" 2>/dev/null || true
    for place in proc sys dev/shm dev; do
        mountpoint -q "$root/$place" && umount -l "$root/$place" || true
    done
}
trap finish EXIT

if [ ! -e "$root/etc/debian_version" ]; then
    debootstrap --variant=minbase --include=git,make,gcc,libc6-dev,python3,ca-certificates "$suite" "$root"
fi
mkdir -p "$root/dev/shm"
for place in proc sys dev dev/shm; do
    mountpoint -q "$root/$place" || mount --bind "/$place" "$root/$place"
done
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cp -rL /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
rm -f "$root"/etc/apt/apt.conf.d/{20packagekit,50appstream}
[ ! -e /etc/pip.conf ] || cp -L /etc/pip.conf "$root/etc/pip.conf"
rm -rf "$root/srv/penstock"
git clone -q "$here" "$root/srv/penstock"

if [ "$what" != test ]; then
    setsid chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DEFAULT_TIMEOUT=180 \
        make -C /srv/penstock run ARGS="--set listeners=PLAINTEXT://127.0.0.1:$port" >"$root/run.log" 2>&1 &
    broker=$!
    for _ in $(seq 900); do
        grep -q 'ready: bootstrap' "$root/run.log" && break
        kill -0 "$broker" 2>/dev/null || { tail -n 30 "$root/run.log"; exit 1; }
        sleep 1
    done
    grep 'ready: bootstrap' "$root/run.log"
    echo "first light" | kcat -b "127.0.0.1:$port" -t greetings -P
    [ "$(kcat -b "127.0.0.1:$port" -t greetings -C -e -q)" = "first light" ]
    echo "make run: ready, and kcat wrote and read"
    kill -- -"$broker"
    wait "$broker" || true
    broker=
fi
if [ "$what" != run ]; then
    inside "cd /srv/penstock && make test"
    echo "make test: passed"
fi
