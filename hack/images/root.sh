#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/images/root.sh FOLDER PROGRAM...
# Makes FOLDER what the root of an image from scratch is: the programs in /usr/bin, the shared libraries that they need where they
# look for them, certificates, accounts, and nothing else. Part of the build of hack/images/Dockerfile.
#
#   LINKED  folder of hack/lean.sh's libraries, where a program is linked with them: their licences and versions go along
set -eu
[ $# -ge 2 ] || { echo 'usage: hack/images/root.sh FOLDER PROGRAM...' >&2; exit 2; }
root=$1
shift

# As merged /usr has it: /lib and /lib64 are links.
mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/etc/ssl/certs" "$root/tmp"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
chmod 1777 "$root/tmp"

for program in "$@"; do
	install -m 755 "$program" "$root/usr/bin/$(basename "$program")"
	libraries=$(ldd "$program" 2>&1) || case $libraries in
	*'not a dynamic executable'*) continue ;;
	*) echo "root.sh: ldd $program: $libraries" >&2; exit 1 ;;
	esac
	case $libraries in
	*'not found'*) echo "root.sh: $program: $libraries" >&2; exit 1 ;;
	esac
	# "libx.so.1 => /lib/.../libx.so.1 (0x...)", or "/lib64/ld-linux-x86-64.so.2 (0x...)"
	for library in $(printf '%s\n' "$libraries" | grep -oE '/[^ ]+ \(0x' | cut -d' ' -f1); do
		case $library in /usr/*) to=$root$library ;; *) to=$root/usr$library ;; esac
		mkdir -p "$(dirname "$to")"
		[ -e "$to" ] || install -m 755 "$library" "$to"
	done
done

printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# What the licences ask for.
install -D -m 644 LICENSE.txt "$root/usr/share/doc/ebpfdump/LICENSE.txt"
install -D -m 644 bpf/LICENSE.txt "$root/usr/share/doc/ebpfdump/LICENSE.bpf.txt"
if [ -n "${LINKED:-}" ]; then
	cp -r "$LINKED/share/doc/." "$root/usr/share/doc/"
	install -m 644 "$LINKED/versions" "$root/usr/share/doc/ebpfdump/linked"
fi
