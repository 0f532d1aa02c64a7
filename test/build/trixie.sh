#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/build/trixie.sh
#
# Builds the project on Debian trixie, in a chroot made by debootstrap: with gcc, its unit tests,
# and with clang. Ends with `N passed, N failed`. Needs root or sudo.
#
# The chroot is kept in a cache outside the tree and only ever gains packages: sources and objects
# are in a tmpfs. That, /proc and /dev are mounted in a mount namespace of this script's own, and
# its processes are in a pid namespace: when it ends, however it ends, they are gone.
#
# A chroot that cannot be had is a failure if CI=true, else it is skipped, aloud.
#
#   EBPFDUMP_CACHE   where it is kept (default ~/.cache/ebpfdump)
#   EBPFDUMP_JOBS    processes at once (default: the CPUs)
set -euo pipefail

suite=trixie
# what unit tests need beside what `hack/deps.sh build` installs
more='check'

if [ "$(id -u)" -ne 0 ]; then
	exec sudo EBPFDUMP_CACHE="${EBPFDUMP_CACHE:-$HOME/.cache/ebpfdump}" CI="${CI:-}" \
		EBPFDUMP_JOBS="${EBPFDUMP_JOBS:-}" "$0" "$@"
fi
self=$(realpath "$0")
cd "$(dirname "$self")/../.."
if [ -z "${EBPFDUMP_UNSHARED:-}" ]; then
	exec env EBPFDUMP_UNSHARED=1 unshare --mount --propagation private --pid --fork \
		--kill-child=KILL "$self" "$@"
fi

cache=${EBPFDUMP_CACHE:-${HOME:-/root}/.cache/ebpfdump}/chroot
root=$cache/$suite
jobs=${EBPFDUMP_JOBS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0

result() { # STATUS COUNT NAME
	if [ "$1" -eq 0 ]; then
		passed=$((passed + $2))
		echo "ok $3"
	else
		failed=$((failed + 1))
		echo "not ok $3"
	fi
}

unavailable() {
	echo "$suite: $1"
	tail -n 20 "$work/log" 2>/dev/null | sed 's/^/    /'
	if [ "${CI:-}" = true ]; then
		echo "not ok $suite: the chroot cannot be had"
		echo '0 passed, 1 failed'
		exit 1
	fi
	echo "SKIPPED: no chroot of $suite"
	echo '0 passed, 0 failed, 1 skipped'
	exit 0
}

# What apt on this machine calls Debian's mirror.
mirror() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
		grep -v '^[[:space:]]*#' | grep -oE 'https?://[^ ]+/debian/?([[:space:]]|$)' |
		head -n 1 | tr -d '[:space:]' || true
}

# Proxies and retries of this machine's apt hold in the chroot too.
apt_settings() {
	apt-config dump --format '%f "%v";%n' | grep -E '^Acquire::(https?|Retries|Check-)' || true
	echo 'APT::Install-Recommends "false";'
	echo 'Acquire::Languages "none";'
}

make_chroot() {
	local tmp
	command -v debootstrap >/dev/null ||
		unavailable 'debootstrap is missing: hack/deps.sh test installs it'
	# left behind by one that was killed: the lock is ours
	rm -rf "$cache/.new.$suite".*
	tmp=$(mktemp -d "$cache/.new.$suite.XXXXXX")
	chmod 755 "$tmp"
	echo "$suite: making the chroot $root"
	if ! debootstrap --variant=minbase "$suite" "$tmp" "$mirror" >"$work/log" 2>&1; then
		rm -rf "$tmp"
		unavailable 'debootstrap failed'
	fi
	mv "$tmp" "$root"
}

in_chroot() {
	chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive "$@"
}

install_packages() {
	apt_settings >"$root/etc/apt/apt.conf.d/50ebpfdump"
	cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
	printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
	# shellcheck disable=SC2086
	in_chroot /work/src/hack/deps.sh build lean >"$work/log" 2>&1 &&
		{ in_chroot dpkg-query -W $more >/dev/null 2>&1 ||
			in_chroot apt-get install -y -qq $more >>"$work/log" 2>&1; } &&
		in_chroot apt-get clean
}

mirror=$(mirror)
: "${mirror:=http://deb.debian.org/debian}"
mkdir -p "$cache" || unavailable "cannot write to the cache $cache"

# One at a time: the lock is kept to the end, packages may come while another builds.
exec 9>"$cache/.$suite.lock"
flock 9
[ -x "$root/usr/bin/apt-get" ] || make_chroot

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/work"
mount -t tmpfs -o mode=755 ebpfdump "$root/work"

mkdir "$root/work/src"
test/build/export.sh "$root/work/src"

install_packages || unavailable 'packages could not be installed'
# shellcheck disable=SC2016
in_chroot dpkg-query -W -f '    ${Package} ${Version}\n' gcc clang bpftool libbpf-dev \
	libmicrohttpd-dev libjson-c-dev check make

build() { # NAME MAKE-ARGUMENTS...
	local name=$1 status=0 count=1
	shift
	in_chroot make -C /work/src --no-print-directory -j"$jobs" "$@" >"$work/log" 2>&1 9>&- ||
		status=$?
	if [ $status -ne 0 ]; then
		# each test that failed once, however many of its loops did
		grep -aE 'error:|warning:|^not ok|:[FE]:|^make: \*\*\*' "$work/log" |
			awk -F: '!/:[FE]:/ || !seen[$1, $4, $5]++' | cut -c1-200 | head -n 40 || true
		echo '    ...'
		tail -n 12 "$work/log" | cut -c1-200
	fi
	case " $* " in
	*' unit '*)
		count=$(sed -nE 's/^([0-9]+) passed, [0-9]+ failed.*/\1/p' "$work/log" | tail -n 1)
		[ "${count:-0}" -gt 0 ] || status=1
		;;
	esac
	result $status "${count:-0}" "$suite: $name"
}

build 'gcc, all' all
build 'gcc, unit tests' -k unit
build 'clang, all' all CC=clang BUILD=build/clang
if in_chroot /work/src/build/ebpfdump-loader --version >/dev/null; then
	result 0 1 "$suite: it starts"
else
	result 1 1 "$suite: it starts"
fi

# The libraries stay in the chroot, which test/images builds on.
status=0
in_chroot /work/src/hack/lean.sh >"$work/log" 2>&1 9>&- || status=$?
if [ $status -eq 75 ] && [ "${CI:-}" != true ]; then
	echo "SKIPPED: $suite: no operator as its image has it, the sources of its libraries cannot be had"
	skipped=', 1 skipped'
else
	build 'gcc, the operator as its image has it' lean
fi

echo "$passed passed, $failed failed${skipped:-}"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
