#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/api/build.sh
#
# Makes a Kubernetes API server for the tests, with etcd and kubectl beside it, of Debian sid's packages, and prints the
# folder that holds the three. The server is test/api/server/ over Kubernetes' own libraries; where it stands in for what is
# in no package, its main.go says.
#
# The packages are fetched by apt with a state of its own and unpacked into a cache outside the tree; nothing is installed.
# The compiler runs in a chroot there. What was built is kept by the sources' checksum: the first time takes three minutes
# on two cores, then a rebuild takes ten seconds and what is there takes none.
#
# Exits with 75 if the packages cannot be had on this day (sid moves). A server that does not compile is a failure.
#
#   EBPFDUMP_CACHE   where it is kept (default ~/.cache/ebpfdump)
set -euo pipefail
umask 022

self=$(realpath "$0")
here=$(dirname "$self")
cache=${EBPFDUMP_CACHE:-${HOME:-/root}/.cache/ebpfdump}/api
key=$(cd "$here" && cat build.sh server/*.go | sha256sum | cut -c1-16)
out=$cache/built-$key
root=$cache/sid

[ -e "$out/versions" ] && { echo "$out"; exit; }

if [ "$(id -u)" -ne 0 ]; then
	exec sudo EBPFDUMP_CACHE="${EBPFDUMP_CACHE:-$HOME/.cache/ebpfdump}" "$self"
fi
# Mounts of the chroot are this script's own, and gone with it.
if [ -z "${EBPFDUMP_UNSHARED:-}" ]; then
	exec env EBPFDUMP_UNSHARED=1 unshare --mount --propagation private "$self"
fi

say() { echo "api: $*" >&2; }

unavailable() {
	say "$1"
	[ ! -s "$work/log" ] || tail -n 20 "$work/log" | sed 's/^/    /' >&2
	exit 75
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
mkdir -p "$cache" || unavailable "cannot write to the cache $cache"
exec 9>"$cache/.lock"
flock 9
[ -e "$out/versions" ] && { echo "$out"; exit; }

# The packages of Kubernetes that the server is made of bring all they need with them.
packages='golang-go golang-k8s-apiextensions-apiserver-dev golang-k8s-apiserver-dev kube-openapi etcd-server kubectl libc6'
# Of all those, what is not part of a build: clients of clouds (0.8 GB), tools.
needless='^golang-(github-aws|google-api-|google-cloud|golang-x-tools_)'

fetch() {
	local apt=$work/apt mirror
	mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^[[:space:]]*#' |
		grep -oE 'https?://[^ ]+/debian/?([[:space:]]|$)' | head -n 1 | tr -d '[:space:]' || true)
	mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
		"$apt"/var/lib/apt/lists/partial "$apt"/var/lib/dpkg "$apt"/var/cache/apt/archives/partial
	: >"$apt/var/lib/dpkg/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} sid main" \
		>"$apt/etc/apt/sources.list"
	# Proxies and retries of this machine's apt hold here too.
	apt-config dump --format '%f "%v";%n' | grep -E '^Acquire::(https?|Retries|Check-)' >"$apt/etc/apt/apt.conf.d/50machine" || true
	cat >"$apt/etc/apt/apt.conf" <<-EOF
		Dir "$apt";
		Dir::State::status "$apt/var/lib/dpkg/status";
		Dir::Bin::Methods "/usr/lib/apt/methods";
		APT::Install-Recommends "false";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
	EOF
	export APT_CONFIG=$apt/etc/apt/apt.conf
	say 'fetching the packages (0.4 GB)'
	apt-get update >"$work/log" 2>&1 || unavailable 'the list of packages of Debian sid cannot be had'
	# shellcheck disable=SC2086
	apt-get install -y --download-only $packages >"$work/log" 2>&1 || unavailable 'packages of Debian sid cannot be had'
	unset APT_CONFIG
}

unpack() {
	local tmp=$cache/.new d
	rm -rf "$tmp"
	mkdir -p "$tmp"/{dev,proc,tmp,root,usr/bin,usr/sbin,usr/lib,usr/lib64}
	# as usrmerge has it
	for d in bin sbin lib lib64; do ln -s "usr/$d" "$tmp/$d"; done
	say 'unpacking'
	(cd "$work/apt/var/cache/apt/archives" &&
		find . -name '*.deb' -printf '%P\n' | grep -E '^(golang-|libc6_|kubectl_|etcd-server_|kube-openapi_)' | grep -vE "$needless" |
		xargs -P "$(nproc)" -n 1 sh -c "dpkg --fsys-tarfile \"\$0\" | tar -x -C '$tmp' --keep-directory-symlink --no-same-owner \
			--exclude='*_test.go' --exclude=./usr/share/doc --exclude=./usr/share/man") >"$work/log" 2>&1 ||
		unavailable 'packages could not be unpacked'
	(cd "$work/apt/var/cache/apt/archives" && for d in golang-k8s-apiserver-dev etcd-server kubectl golang-go; do
		find . -name "${d}_*.deb" -printf '%f\n' | sed -E 's/^([^_]*)_([^_]*)_.*/\1 \2/; s/%3a/:/g'
	done) >"$tmp/versions"
	rm -rf "$root" "$work/apt"
	mv "$tmp" "$root"
}

[ -e "$root/versions" ] || { fetch && unpack; }

: >>"$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mount -t proc proc "$root/proc"
in_chroot() {
	env -i PATH=/usr/bin HOME=/root LC_ALL=C.UTF-8 GO111MODULE=off CGO_ENABLED=0 GOTOOLCHAIN=local \
		GOPATH=/build:/usr/share/gocode /usr/sbin/chroot "$root" "$@"
}

package=ebpfdump/apiserver
src=$root/build/src/$package
rm -rf "$root/build"
mkdir -p "$src/openapi"
cp "$here"/server/*.go "$src/"
echo 'package openapi' >"$src/openapi/doc.go"
: >"$root/tmp/header"
k8s=$(sed -nE 's/^golang-k8s-apiserver-dev 0?\.?([0-9]+\.[0-9]+).*/v1.\1/p' "$root/versions")

# The schemas of the built-in kinds, with the keys of their lists: server-side apply goes by them.
api='core apps coordination events rbac policy networking scheduling authorization'
machinery='apis/meta/v1 runtime util/intstr api/resource version'
# shellcheck disable=SC2046,SC2086
in_chroot /usr/bin/openapi-gen --output-dir "/build/src/$package/openapi" --output-pkg "$package/openapi" --output-file generated.go \
	--go-header-file /tmp/header --report-filename /tmp/violations $(printf 'k8s.io/api/%s/v1 ' $api) \
	$(printf 'k8s.io/apimachinery/pkg/%s ' $machinery) k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 >"$work/log" 2>&1 ||
	{ cat "$work/log" >&2; say 'no schemas of the built-in kinds'; exit 1; }
say "compiling the API server ($k8s)"
v=k8s.io/component-base/version
in_chroot /usr/bin/go build -ldflags "-s -w -X $v.gitVersion=$k8s -X $v.gitMajor=1 -X $v.gitMinor=$(cut -d. -f2 <<<"$k8s")" \
	-o /build/apiserver "$package" >&2

mkdir -p "$out.new"
mv "$root/build/apiserver" "$out.new/"
cp "$root/usr/bin/kubectl" "$out.new/"
cp "$root/usr/bin/etcd" "$out.new/"
# Where this machine's C library is too old for sid's programs, they get sid's.
for p in kubectl etcd; do
	if ! "$out.new/$p" --help >/dev/null 2>&1; then
		mkdir -p "$out.new/lib"
		cp -L "$root"/usr/lib/x86_64-linux-gnu/{libc.so.6,libresolv.so.2,libpthread.so.0,libdl.so.2,libm.so.6} \
			"$root/lib64/ld-linux-x86-64.so.2" "$out.new/lib/"
		mv "$out.new/$p" "$out.new/lib/$p"
		# shellcheck disable=SC2016
		printf '#!/bin/sh\nd=$(dirname "$(readlink -f "$0")")/lib\nexec "$d/ld-linux-x86-64.so.2" --library-path "$d" "$d/%s" "$@"\n' "$p" >"$out.new/$p"
		chmod 755 "$out.new/$p"
	fi
done
cp "$root/versions" "$out.new/"
# Older ones are of sources that are gone; one that a test uses just now stays.
find "$cache" -maxdepth 1 -name 'built-*' -not -path "$out*" -mtime +7 -exec rm -rf {} +
rm -rf "$out"
mv "$out.new" "$out"
echo "$out"
