#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: hack/sysroot.sh ARCHITECTURE          (Debian's name of it: arm64)
#
# Debian's libraries and headers of another architecture, for `make ARCH=arm64`: unpacked into a cache outside the tree, nothing is
# installed. Prints the folder. The suite is this machine's, so that compiler and libraries fit.
#
#   EBPFDUMP_CACHE  where it is kept (default ~/.cache/ebpfdump)
set -euo pipefail
umask 022

die() { echo "sysroot.sh: $*" >&2; exit 1; }

[ "$*" = arm64 ] || die 'usage: hack/sysroot.sh arm64'
arch=$1
suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
[ -n "$suite" ] || die 'this is no release of Debian'
packages='libbpf-dev libelf-dev zlib1g-dev libmicrohttpd-dev libcurl4-openssl-dev libssl-dev libjson-c-dev check libc6-dev busybox-static'

cache=${EBPFDUMP_CACHE:-${HOME:-/root}/.cache/ebpfdump}/sysroot
root=$cache/$suite-$arch
mkdir -p "$cache" || die "cannot write to the cache $cache (EBPFDUMP_CACHE names another)"
exec 9>"$cache/.$suite-$arch.lock"
flock 9
if [ "$(cat "$root/packages" 2>/dev/null)" = "$packages" ]; then
	echo "$root"
	exit
fi
[ "$(id -u)" -eq 0 ] || die 'debootstrap needs root to make the folder the first time'
command -v debootstrap >/dev/null || die 'debootstrap is missing: hack/deps.sh test installs it'

mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^[[:space:]]*#' |
	grep -oE 'https?://[^ ]+/debian/?([[:space:]]|$)' | head -n 1 | tr -d '[:space:]' || true)
tmp=$(mktemp -d "$cache/.new.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM
# The first stage fetches the packages with all that they depend on; the second would run them.
debootstrap --foreign --arch="$arch" --variant=minbase --include="${packages// /,}" "$suite" "$tmp/base" \
	"${mirror:-http://deb.debian.org/debian}" >"$tmp/log" 2>&1 || { tail -n 5 "$tmp/log" >&2; die 'debootstrap failed'; }
mkdir "$tmp/root"
# as usrmerge has it
for d in bin sbin lib; do
	mkdir -p "$tmp/root/usr/$d"
	ln -s "usr/$d" "$tmp/root/$d"
done
for deb in "$tmp"/base/var/cache/apt/archives/*.deb; do
	dpkg --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$tmp/root"
done
# A linker takes absolute links for this machine's.
find "$tmp/root" -type l -lname '/*' -printf '%p\t%l\n' | while IFS=$'\t' read -r link to; do
	ln -sfnr "$tmp/root$to" "$link"
done
echo "$packages" >"$tmp/root/packages"
rm -rf "$root"
mv "$tmp/root" "$root"
echo "$root"
