#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/deps.sh [build|test|bench|image|lean]...
# Installs what is missing for the purposes named (default: build), from Debian's packages. Needs root or
# sudo, and only if something is missing. Services that packages bring are not started.
set -eu

build='gcc libc6-dev make clang llvm bpftool libbpf-dev libelf-dev zlib1g-dev libmicrohttpd-dev libcurl4-openssl-dev
libssl-dev libjson-c-dev pkg-config'
test="check curl ca-certificates nginx-light python3 iproute2 procps openssl socat valgrind
qemu-system-x86 busybox-static cpio xz-utils dpkg prometheus clang-format cppcheck shellcheck git
debootstrap python3-yaml gcc-aarch64-linux-gnu qemu-system-arm buildah nftables nodejs perl
chromium fonts-dejavu-core jq faketime dpkg-dev"
bench='wrk nginx-light tcpdump ngrep tshark iproute2 python3 python3-requests curl procps'

# inside the build of the images
image='kubectl ca-certificates binutils'

# hack/lean.sh: unpacks Debian's source packages
lean='dpkg-dev'

wanted=''
for purpose in "${@:-build}"; do
	case $purpose in
	build) wanted="$wanted $build" ;;
	test) wanted="$wanted $build $test" ;;
	bench) wanted="$wanted $build $bench" ;;
	image) wanted="$wanted $image" ;;
	lean) wanted="$wanted $lean" ;;
	*) echo "deps.sh: unknown purpose '$purpose': build, test, bench, image or lean" >&2; exit 2 ;;
	esac
done

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

missing_of() {
	for p in "$@"; do
		installed "$p" || printf '%s ' "$p"
	done
}

# The sanitizers' and libFuzzer's runtime goes by clang's version, which is known once clang is there.
runtime() {
	case " $wanted " in *" check "*) ;; *) return 0 ;; esac
	command -v clang >/dev/null || return 0
	echo "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

# Node.js may be there from elsewhere, with an npm of its own that Debian's would exclude.
driver() {
	case " $wanted " in *" chromium "*) ;; *) return 0 ;; esac
	command -v node >/dev/null || echo nodejs
	command -v npm >/dev/null || echo npm
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "deps.sh: root or sudo is needed to install: $missing" >&2
		exit 1
	fi
}

install() {
	missing=$(missing_of "$@")
	[ -n "$missing" ] || return 0
	echo "deps.sh: installing $missing"
	policy=''
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
	fi
	status=0
	# shellcheck disable=SC2086
	{ as_root apt-get update -qq &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
		status=$?
	[ -z "$policy" ] || as_root rm -f "$policy"
	if [ "$status" -ne 0 ]; then
		echo "deps.sh: apt-get could not install: $missing" >&2
		exit 1
	fi
}

# shellcheck disable=SC2086
install $wanted
# shellcheck disable=SC2046
install $(runtime) $(driver)
