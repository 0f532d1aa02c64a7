#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/build/checks.sh
#
# What must hold of a build, tried on a clean copy of the tree, by a user who is not root: it works
# out of order, writes to build/ alone, knows what depends on what, installs, links what it should,
# compiles for arm64. Ends with `N passed, N failed`.
set -uo pipefail

cd "$(dirname "$0")/../.." || exit 1
# Shared libraries that the programs may need.
ALLOWED='libbpf\.so\.1|libelf\.so\.1|libz\.so\.1|libmicrohttpd\.so\.12|libcurl\.so\.4|libjson-c\.so\.5|libcrypto\.so\.3|libc\.so\.6|libpthread\.so\.0|ld-linux-.*'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
src=$work/src
passed=0 failed=0

result() { # STATUS NAME; on failure the log is shown
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok $2"
	else
		failed=$((failed + 1))
		echo "not ok $2"
		grep -E 'error:|warning:|^make: \*\*\*|denied' "$work/log" | head -n 40
		tail -n 15 "$work/log" | sed 's/^/    /'
	fi
}

# Runs in the copy as nobody, whose home is an empty folder.
run() {
	local drop=()
	[ "$(id -u)" -ne 0 ] || drop=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	(cd "$src" && env -i PATH="$PATH" HOME="$work/home" LC_ALL=C "${drop[@]}" "$@") >"$work/log" 2>&1
}

build() {
	run make --no-print-directory "$@"
}

files() {
	(cd "$src" && find . -path ./build -prune -o -type f -exec sha256sum {} + | sort -k 2)
	find "$work/home" -mindepth 1
}

steps() { # how many of the steps of the last build were of the kinds $1, as in 'CC|AR'
	grep -cE "^  ($1) " "$work/log"
}

mkdir "$src" "$work/home"
test/build/export.sh "$src" || exit 1
[ "$(id -u)" -ne 0 ] || chown -R 65534:65534 "$work"
chmod 755 "$work"
files >"$work/before"

build -j8 all
result $? 'a clean copy builds, by a user who is not root, out of order'

files >"$work/after"
diff "$work/before" "$work/after" >"$work/log"
result $? 'nothing is written but to build/'

build all && [ "$(steps '[A-Z]+')" -eq 0 ]
result $? 'there is nothing left to do'

# A file's steps, when it is newer than all that was made of it.
after_change() { # FILE KINDS
	run touch "$1" && build -j2 all && [ "$(steps "$2")" -gt 0 ]
	result $? "a change of $1 is noticed"
}
after_change pkg/base/num.c CC
after_change pkg/base/base.h CC
after_change bpf/capture.h BPF
after_change bpf/methods.h BPF

run build/ebpfdump-loader --version && grep -q '^ebpfdump-loader [0-9]' "$work/log"
result $? 'the program starts'

for program in "$src"/build/ebpfdump-*; do
	name=$(basename "$program")
	readelf -dW "$program" >"$work/log"
	needed=$(sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' "$work/log")
	echo "needs: $needed" >>"$work/log"
	[ -n "$needed" ] && ! grep -qvxE "$ALLOWED" <<<"$needed"
	result $? "$name needs no other library than allowed"
	! grep -qE 'RPATH|RUNPATH|TEXTREL' "$work/log"
	result $? "$name has no search path and no text relocation"
	readelf -lW "$program" >"$work/log" && grep -q 'GNU_STACK.* RW ' "$work/log"
	result $? "$name has no executable stack"
done

build install DESTDIR="$work/home/root" PREFIX=/usr
status=$?
{ (cd "$src/build" && find . -maxdepth 1 -type f -name "ebpfdump-*" -printf "/usr/sbin/%f 755\n"); echo /usr/bin/kubectl-ebpfdump 755; } | sort >"$work/want"
find "$work/home/root" -type f -printf '/%P %m\n' | sort | diff "$work/want" - >>"$work/log" || status=1
result $status 'make install DESTDIR= PREFIX= installs the programs, and them alone'
build uninstall DESTDIR="$work/home/root" PREFIX=/usr && [ -z "$(find "$work/home/root" -type f)" ]
result $? 'make uninstall DESTDIR= PREFIX= removes them'
rm -rf "$work/home/root"

build help && [ "$(grep -cE '^  [a-z-]+ +[^ ]' "$work/log")" -ge 12 ] &&
	! (for t in all run demo test unit kernel bench fuzz format lint clean install; do
		grep -qE "^  $t +[^ ]" "$work/log" || echo "no $t"
	done | tee -a "$work/log" | grep -q .)
result $? 'make help lists the targets'

build clean && [ ! -e "$src/build" ] && files | diff "$work/before" - >>"$work/log"
result $? 'make clean leaves what was there before'

echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
