#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/images/images.sh [IMAGE...]
#
# Builds the images offline and starts each: buildah, on a base made of the trixie chroot that test/build/trixie.sh keeps (no
# registry can be reached where this runs). Ends with `N passed, N failed`. Needs root.
#
#   EBPFDUMP_CACHE  as in test/build/trixie.sh
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
[ "$(id -u)" -eq 0 ] || exec sudo EBPFDUMP_CACHE="${EBPFDUMP_CACHE:-$HOME/.cache/ebpfdump}" CI="${CI:-}" "$0" "$@"

chroot=${EBPFDUMP_CACHE:-${HOME:-/root}/.cache/ebpfdump}/chroot/trixie
work=$(mktemp -d)
# everything that buildah keeps is in this folder, and goes with it
driver=vfs
grep -qw overlay /proc/filesystems && driver=overlay
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=$driver
printf '[storage]\ndriver = "'$driver'"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' "$work" "$work" >"$work/storage.conf"
export CONTAINERS_STORAGE_CONF=$work/storage.conf
export REGISTRY=localhost VERSION=test BUILDER=buildah BASE=localhost/base:trixie
passed=0 failed=0
servers=()

clean() {
	for p in ${servers[@]+"${servers[@]}"}; do kill "$p" 2>/dev/null; done
	buildah rm --all >/dev/null 2>&1
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' INT TERM

result() { # STATUS NAME, what it said in $work/log
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok $2"
	else
		failed=$((failed + 1))
		echo "not ok $2"
		tail -n 25 "$work/log" | sed 's/^/    /'
	fi
	return "$1"
}

run() { # log
	"$@" >"$work/log" 2>&1
}

[ -x "$chroot/usr/bin/make" ] || {
	echo "images: $chroot is missing: test/build/trixie.sh (make trixie) makes it"
	echo 'not ok images: no base'
	echo '0 passed, 1 failed'
	exit 1
}

base() {
	local container root
	container=$(buildah from scratch) && root=$(buildah mount "$container") || return
	# What the chroot has is the image's but for what is mounted there while others build.
	tar -C "$chroot" --one-file-system --exclude=./work -cf - . | tar -C "$root" -xf - || return
	mkdir -p "$root/proc" "$root/dev" "$root/sys"
	buildah config --env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$container" &&
		buildah commit --rm "$container" "$BASE"
}
run base
result $? 'a base image' || exit 1

[ $# -gt 0 ] || set -- loader callback operator

for image in "$@"; do
	run hack/images/build.sh "$image"
	result $? "$image: it builds" || continue
	name=localhost/ebpfdump-$image:test
	container=$(buildah from "$name" 2>"$work/log")
	root=$(buildah mount "$container" 2>>"$work/log")
	[ -n "$root" ] && mib=$(du -sm "$root" | cut -f1)
	echo "    $image: ${mib:-?} MiB"
	if [ "$image" != operator ]; then
		[ "${mib:-99}" -le 25 ]
		result $? "$image: at most 25 MiB"
	fi
	find "$root" -type f -perm /111 -path '*bin*' | sed "s|^$root||" | sort >"$work/programs"
	{ echo "/usr/bin/ebpfdump-$image"; [ "$image" != operator ] || echo /usr/bin/kubectl; } | sort |
		run diff - "$work/programs"
	result $? "$image: no other programs than its own"
	if [ "$image" = operator ]; then
		find "$root" -name '*.so*' -printf '%f\n' | sort -u >"$work/log"
		grep -qx 'libjson-c\.so\.5' "$work/log" && ! grep -vxE '(libc|libresolv|libpthread|libdl)\.so\.[0-9]|libjson-c\.so\.5|ld-linux-.*' "$work/log"
		result $? "$image: no library but C's and json-c's: $(tr '\n' ' ' <"$work/log")"
		run cat "$root"/usr/share/doc/{curl,libmicrohttpd}/COPYING "$root/usr/share/doc/ebpfdump/linked" && grep -q '^curl [0-9]' "$work/log"
		result $? "$image: licences and versions of what is linked in"
	fi
	run buildah run "$container" -- "/usr/bin/ebpfdump-$image" --version
	grep -q "^ebpfdump-$image [0-9]" "$work/log"
	result $? "$image: --version"
	run buildah run "$container" -- "/usr/bin/ebpfdump-$image" --help
	grep -q -- '--' "$work/log"
	result $? "$image: --help"
	buildah inspect --type image "$name" >"$work/log"
	[ "$(grep -cE '"org\.opencontainers\.image\.(title|description|source|licenses|version|revision)": "[^"]' "$work/log")" -ge 6 ]
	result $? "$image: labels"
	user=$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$name")
	case $image in loader) [ "$user" = 0:0 ] ;; *) [ "$user" = 65532:65532 ] ;; esac
	result $? "$image: its user"
done

# It starts, and answers.
health() { # IMAGE PATH ARGUMENTS...
	local image=$1 path=$2 container tries=0
	shift 2
	port=$((port + 1))
	container=$(buildah from --security-opt seccomp=unconfined "localhost/ebpfdump-$image:test")
	rm -f "$work/answer"
	# the loader's capabilities are those of its pod; the others have none
	buildah run --cap-add CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN "$container" -- "/usr/bin/ebpfdump-$image" \
		--listen "127.0.0.1:$port" "$@" >"$work/log" 2>&1 </dev/null &
	servers+=($!)
	until curl -fsS -o "$work/answer" "http://127.0.0.1:$port$path" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || break
		sleep 0.3
	done
	[ -e "$work/answer" ]
	result $? "$image: $path answers"
	pkill -TERM -f "^/usr/bin/ebpfdump-$image --listen 127.0.0.1:$port"
}

port=$((10000 + $$ % 20000)) # below those that connections are given
for image in "$@"; do
	case $image in
	loader)
		container=$(buildah from --security-opt seccomp=unconfined localhost/ebpfdump-loader:test)
		run buildah run --cap-add CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN "$container" -- /usr/bin/ebpfdump-loader --check
		grep -q 'tcp_sendmsg' "$work/log"
		result $? 'loader: --check says what this kernel can do'
		health loader /readyz --interface lo --message request
		;;
	callback)
		health callback /healthz
		;;
	operator)
		run buildah run "$(buildah from localhost/ebpfdump-operator:test)" -- /usr/bin/kubectl version --client
		grep -qi 'client version' "$work/log"
		result $? 'operator: kubectl'
		# alive also where no API server is
		health operator /livez --namespace test --loader-image test --server http://127.0.0.1:1
		;;
	esac
done

run hack/images/build.sh bundle
result $? 'bundle: it builds'
root=$(buildah mount "$(buildah from localhost/ebpfdump-bundle:test)")
(cd "$root" && find . -type f | sort) >"$work/log"
(cd bundle && find ./manifests ./metadata ./tests -type f | sort) | diff - "$work/log" >"$work/diff"
result $? 'bundle: what OLM reads is in it'

# The same commit again, without what was kept of the first build: the same bytes. Of the image with the most steps.
twice=$1
[[ " $* " != *' operator '* ]] || twice=operator
identity() { buildah inspect --type image --format '{{.FromImageID}}' "localhost/ebpfdump-$1:test"; }
before=$(identity "$twice")
FRESH=1 run hack/images/build.sh "$twice" && [ -n "$before" ] && [ "$(identity "$twice")" = "$before" ]
result $? "$twice: built twice, it is the same"

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
