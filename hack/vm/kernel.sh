#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/vm/kernel.sh SUITE [ARCHITECTURE] | --list
#
# Fetches the newest cloud kernel (amd64, or arm64) of a Debian suite, unpacks it into a cache outside the
# tree and prints the folder: `vmlinuz`, `modules/` and a file `version` are in it. Nothing is
# installed. The work is apt's own, on a private state: it uses this machine's mirror and proxy and
# checks the archive's signature and each package's SHA256.
#
# Without a network the newest cached kernel of the suite is used, and said so on standard error.
#
#   EBPFDUMP_CACHE      where kernels are kept (default ~/.cache/ebpfdump)
#   EBPFDUMP_KERNEL_TTL minutes for which a fetched kernel counts as the newest (default 1440)
set -eu
umask 022

# suite, kernel, name of the package that holds the image. `linux-binary` is what sid's unsigned
# image is called since the signed one became a shell.
TABLE='
bullseye 5.10 ^linux-image-5\.10\.0-[0-9]+-cloud-ARCH$
bookworm 6.1  ^linux-image-6\.1\.0-[0-9]+-cloud-ARCH$
trixie   6.12 ^linux-image-6\.12\.[^-]*-cloud-ARCH$
sid      new  ^linux-binary-[0-9][^-]*-cloud-ARCH$
'

say() { echo "kernel.sh: $*" >&2; }
die() { say "$*"; exit 1; }

case ${1:-} in
--list) echo "$TABLE" | awk 'NF {print $1, $2}'; exit ;;
'' | -*) die "usage: hack/vm/kernel.sh SUITE (one of: $(echo "$TABLE" | awk 'NF {printf "%s ", $1}'))" ;;
esac
suite=$1 arch=${2:-amd64}
case $arch in amd64 | arm64) ;; *) die "unknown architecture '$arch' (amd64 or arm64)" ;; esac
pattern=$(echo "$TABLE" | awk -v s="$suite" '$1 == s {print $3}' | sed "s/ARCH/$arch/")
[ -n "$pattern" ] || die "unknown suite '$suite' (one of: $(echo "$TABLE" | awk 'NF {printf "%s ", $1}'))"

cache=${EBPFDUMP_CACHE:-${HOME:-/root}/.cache/ebpfdump}
mkdir -p "$cache/kernels" || die "cannot write to the cache $cache (EBPFDUMP_CACHE names another)"
name=$suite
[ "$arch" = amd64 ] || name=$suite-$arch
newest=$cache/kernels/$name # a symbolic link to the folder of the newest version

usable() { [ -s "$1/vmlinuz" ] && [ -d "$1/modules" ] && [ -s "$1/version" ]; }

fresh() {
	usable "$newest" && [ -n "$(find "$newest" -maxdepth 0 -mmin "-${EBPFDUMP_KERNEL_TTL:-1440}")" ]
}

# One at a time: two may ask for the same suite.
exec 9>"$cache/kernels/.$name.lock"
flock 9
if fresh; then
	readlink -f "$newest"
	exit
fi

tmp=$(mktemp -d "$cache/kernels/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM

# What apt on this machine calls Debian's mirrors; deb.debian.org where it names none.
mirror() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
		grep -v '^[[:space:]]*#' | grep -oE "https?://[^ ]+$1/?([[:space:]]|$)" | head -n 1 |
		tr -d '[:space:]'
}
main=$(mirror /debian)
security=$(mirror /debian-security)
: "${main:=http://deb.debian.org/debian}" "${security:=http://deb.debian.org/debian-security}"

state=$tmp/apt
mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/sources.d" "$state/etc"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keys ] || die "$keys is missing: install debian-archive-keyring"
echo "deb [arch=$arch signed-by=$keys] $main $suite main" >"$state/sources.list"
[ "$suite" = sid ] ||
	echo "deb [arch=$arch signed-by=$keys] $security $suite-security main" >>"$state/sources.list"
: >"$state/status"

run_apt() {
	tool=$1
	shift
	"$tool" -qq -o Dir::State="$state" -o Dir::State::lists="$state/lists" \
		-o Dir::State::status="$state/status" -o Dir::Cache="$state" \
		-o Dir::Cache::archives="$state/archives" -o Dir::Etc::sourcelist="$state/sources.list" \
		-o Dir::Etc::sourceparts="$state/sources.d" -o Dir::Etc::preferencesparts="$state/etc" \
		-o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User="$(id -un)" \
		-o APT::Update::Post-Invoke-Success= -o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
		-o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o APT::Get::List-Cleanup=false "$@"
}

# The cached kernel instead of the newest one.
fall_back() {
	usable "$newest" || die "$suite: $1, and no cached kernel in $cache/kernels"
	say "$suite: $1; using the cached $(cat "$newest/version")"
	readlink -f "$newest"
	exit 0
}

run_apt apt-get update >"$tmp/log" 2>&1 || fall_back "package lists cannot be had: $(tail -n 1 "$tmp/log")"
run_apt apt-cache pkgnames linux- >"$tmp/names"
package=$(grep -E "$pattern" "$tmp/names" | sed 's/^\(.*-\)\([0-9][^-]*.*\)$/\2 &/' | sort -V | tail -n 1 |
	cut -d' ' -f2)
[ -n "$package" ] || fall_back "the archive has no package like $pattern"

# sid keeps the modules in a package of their own.
modules=$(grep -Fx "linux-modules-${package#linux-binary-}" "$tmp/names" || true)

# shellcheck disable=SC2086 # none, or one
(cd "$tmp" && run_apt apt-get download "$package" $modules) >"$tmp/log" 2>&1 ||
	fall_back "$package cannot be fetched: $(tail -n 1 "$tmp/log")"
version=$(dpkg-deb -f "$(find "$tmp" -maxdepth 1 -name "${package}_*.deb")" Version)
[ "$arch" = amd64 ] || version=$version-$arch
folder=$cache/kernels/$version

if ! usable "$folder"; then
	for deb in "$tmp"/*.deb; do
		dpkg -x "$deb" "$tmp/root" || fall_back "$(basename "$deb") cannot be unpacked"
	done
	mkdir "$tmp/out"
	image=$(find "$tmp/root" -name 'vmlinuz*' -type f | head -n 1)
	modules=$(find "$tmp/root" -path '*/lib/modules/*' -prune -type d | head -n 1)
	if [ -z "$image" ] || [ -z "$modules" ]; then
		die "$package holds no kernel image or no modules"
	fi
	mv "$image" "$tmp/out/vmlinuz"
	mv "$modules" "$tmp/out/modules"
	basename "$modules" >"$tmp/out/version"
	rm -rf "$folder"
	mv "$tmp/out" "$folder"
fi
ln -sfn "$version" "$newest"
touch -h "$newest"
usable "$newest" || die "$folder is not complete"
readlink -f "$newest"
