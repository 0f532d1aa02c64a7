#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/bench/manager/build.sh
# Compiles main.go beside it in the chroot that test/api/build.sh keeps (call that first), and prints the program's path. It is kept by
# the sources' checksum.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
cache=${EBPFDUMP_CACHE:-${HOME:-/root}/.cache/ebpfdump}/api
root=$cache/sid
out=$cache/manager-$(cat "$here"/main.go "$root/versions" | sha256sum | cut -c1-16)

[ ! -x "$out" ] || { echo "$out"; exit; }
if [ "$(id -u)" -ne 0 ]; then
	exec sudo EBPFDUMP_CACHE="${EBPFDUMP_CACHE:-$HOME/.cache/ebpfdump}" "$0"
fi
# Mounts of the chroot are this script's own, and gone with it.
if [ -z "${EBPFDUMP_UNSHARED:-}" ]; then
	exec env EBPFDUMP_UNSHARED=1 unshare --mount --propagation private "$0"
fi
exec 9>"$cache/.lock"
flock 9
mkdir -p "$root/build/src/ebpfdump/manager"
cp "$here/main.go" "$root/build/src/ebpfdump/manager/"
: >>"$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mount -t proc proc "$root/proc"
env -i PATH=/usr/bin HOME=/root LC_ALL=C.UTF-8 GO111MODULE=off CGO_ENABLED=0 GOTOOLCHAIN=local GOPATH=/build:/usr/share/gocode \
	/usr/sbin/chroot "$root" /usr/bin/go build -ldflags '-s -w' -o /build/manager ebpfdump/manager >&2
rm -f "$cache"/manager-*
mv "$root/build/manager" "$out"
echo "$out"
