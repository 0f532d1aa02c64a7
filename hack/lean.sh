#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: hack/lean.sh
#
# libcurl and libmicrohttpd for plain HTTP and nothing else, as static libraries, of this Debian's own source packages with Debian's
# patches: what the operator needs of them, which speaks to 127.0.0.1. Debian's shared ones bring TLS, Kerberos, LDAP, SSH, RTMP and more,
# 25 libraries, into a process that has the cluster's credential. Prints the folder: include/, lib/, share/doc/ (licences), versions.
#
# Made once for each version of the two; then nothing is fetched or built. Installs nothing: hack/deps.sh lean does.
#
#   EBPFDUMP_CACHE  where it is kept (default ~/.cache/ebpfdump)
#
# Exits with 75 where the sources cannot be had.
set -euo pipefail
umask 022

# The caller may be a make of its own flags; a language changes what programs say.
[ -n "${EBPFDUMP_LEAN:-}" ] || exec env -i EBPFDUMP_LEAN=1 PATH="$PATH" HOME="${HOME:-/root}" LC_ALL=C.UTF-8 \
	${EBPFDUMP_CACHE:+EBPFDUMP_CACHE="$EBPFDUMP_CACHE"} "$(realpath "$0")" "$@"

die() { echo "lean.sh: $*" >&2; exit 1; }
[ $# -eq 0 ] || die 'usage: hack/lean.sh'

suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
[ -n "$suite" ] || die 'this is no release of Debian'
arch=$(dpkg --print-architecture)
recipe=$(sha256sum "$0" | cut -c1-8)
cache=${EBPFDUMP_CACHE:-$HOME/.cache/ebpfdump}/lean

folder() { # VERSION-OF-CURL VERSION-OF-LIBMICROHTTPD
	echo "$cache/$arch-$suite-curl-${1#*:}-libmicrohttpd-${2#*:}-$recipe"
}

# Of the packages with the headers that are installed; "" if it is not.
installed() { dpkg-query -W -f '${source:Version}' "$1" 2>/dev/null || true; }
curl=$(installed libcurl4-openssl-dev)
libmicrohttpd=$(installed libmicrohttpd-dev)
wanted=$(folder "$curl" "$libmicrohttpd")

there() { # FOLDER: prints it and ends, if it is complete
	[ ! -e "$1/versions" ] || { realpath "$1"; exit 0; }
}
there "$wanted"

mkdir -p "$cache" || die "cannot write to the cache $cache (EBPFDUMP_CACHE names another)"
exec 9>"$cache/.lock"
flock 9
there "$wanted"
command -v dpkg-source >/dev/null || die 'dpkg-source is missing: hack/deps.sh lean installs it'

# Left behind by one that was killed: the lock is ours.
rm -rf "$cache"/.new.*
work=$(mktemp -d "$cache/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
chmod 755 "$work"

unavailable() {
	echo "lean.sh: $1" >&2
	tail -n 20 "$work/log" | sed 's/^/    /' >&2
	exit 75
}

# ---- the sources: apt with a state of its own, from where this machine has its packages. It checks signatures and checksums. ----

# "URL SUITE" of Debian's own archives among what apt has; a mirror is known by its path.
archives() {
	# shellcheck disable=SC2016
	apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
		sed -nE "s#^([^ ]+/debian(-security)?/) (($suite|stable)(-updates|-security)?) main\$#\1 \3#p" | sort -u
}

# The version whose headers are installed; else the newest that can be had, which brings its own: an archive keeps no older one, and a
# mirror may be behind.
fetch_one() { # SOURCE
	local version
	for version in ${!1:-} $(apt-cache showsrc "$1" | sed -n 's/^Version: //p' | sort -Vru); do
		apt-get source --download-only "$1=$version" >>"$work/log" 2>&1 && return
		echo "lean.sh: $1 $version cannot be had" >&2
	done
	return 1
}

fetch() {
	local apt=$work/apt list
	list=$(archives)
	mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
		"$apt"/var/lib/apt/lists/partial "$apt"/var/lib/dpkg "$apt"/var/cache/apt/archives/partial
	: >"$apt/var/lib/dpkg/status"
	sed 's#^#deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] #; s#$# main#' \
		<<<"${list:-http://deb.debian.org/debian/ $suite}" >"$apt/etc/apt/sources.list"
	# Proxies and retries of this machine's apt hold here too.
	apt-config dump --format '%f "%v";%n' | grep -E '^Acquire::(https?|Retries|Check-)' >"$apt/etc/apt/apt.conf.d/50machine" || true
	cat >"$apt/etc/apt/apt.conf" <<-EOF
		Dir "$apt";
		Dir::State::status "$apt/var/lib/dpkg/status";
		Dir::Bin::Methods "/usr/lib/apt/methods";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		APT::Update::Error-Mode "any";
	EOF
	export APT_CONFIG=$apt/etc/apt/apt.conf
	apt-get update >"$work/log" 2>&1 || unavailable 'the list of Debian'"'"'s sources cannot be had'
	for name in curl libmicrohttpd; do
		(cd "$work" && fetch_one $name) || unavailable "the source of $name cannot be had"
	done
	unset APT_CONFIG
}

version() { # SOURCE
	sed -n 's/^Version: //p' "$work/$1"_*.dsc | head -n 1
}

# ---- the build ----

flags="-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2 -ffile-prefix-map=$work=."

# One HTTP client and one HTTP server without TLS, authentication, compression, cookies; a version that does not know a word warns.
make_curl() {
	./configure --prefix="$work/out" CFLAGS="$flags" --disable-shared --enable-static --disable-dependency-tracking --without-ssl \
		--without-zlib --without-brotli --without-zstd --without-libpsl --without-libidn2 --without-nghttp2 --without-librtmp \
		--without-libssh2 --without-gssapi --disable-ldap --disable-ldaps --disable-ftp --disable-file --disable-dict --disable-telnet \
		--disable-tftp --disable-pop3 --disable-imap --disable-smb --disable-smtp --disable-gopher --disable-mqtt --disable-rtsp \
		--disable-ipfs --disable-manual --disable-docs --disable-libcurl-option --disable-cookies --disable-alt-svc --disable-hsts \
		--disable-doh --disable-netrc --disable-mime --disable-form-api --disable-ntlm --disable-crypto-auth --disable-basic-auth \
		--disable-bearer-auth --disable-digest-auth --disable-kerberos-auth --disable-negotiate-auth --disable-aws --disable-tls-srp \
		--disable-websockets &&
		make -j"$(nproc)" -C lib install && make -C include install
}

make_libmicrohttpd() {
	./configure --prefix="$work/out" CFLAGS="$flags" --disable-shared --enable-static --disable-dependency-tracking --disable-https \
		--disable-bauth --disable-dauth --disable-postprocessor --disable-httpupgrade --disable-curl --disable-doc --disable-examples \
		--disable-tools &&
		make -j"$(nproc)" -C src/microhttpd libmicrohttpd.la && make -C src/microhttpd install && make -C src/include install
}

# In a folder of a name that does not depend on the version. Patches touch what configure was made of, which is not made anew.
build() { # SOURCE
	dpkg-source --no-check -x "$work/$1"_*.dsc "$work/$1" && cd "$work/$1" &&
		find . \( -name '*.m4' -o -name configure.ac -o -name Makefile.am \) -exec touch -d @1 {} + &&
		"make_$1" && install -D -m 644 COPYING "$work/out/share/doc/$1/COPYING"
}

fetch
curl=$(version curl) libmicrohttpd=$(version libmicrohttpd)
out=$(folder "$curl" "$libmicrohttpd")
# Where it is of other versions than the installed ones, the next call finds it without asking the archive.
[ "$out" = "$wanted" ] || ln -sfn "$(basename "$out")" "$wanted"
there "$wanted"
echo "lean.sh: building curl $curl and libmicrohttpd $libmicrohttpd for plain HTTP" >&2

(build curl) >"$work/curl.log" 2>&1 9>&- &
first=$!
failed=''
(build libmicrohttpd) >"$work/libmicrohttpd.log" 2>&1 9>&- || failed=libmicrohttpd
wait $first || failed=curl
[ -z "$failed" ] || { tail -n 30 "$work/$failed.log" >&2; die "$failed does not build"; }

rm -rf "$work"/out/{bin,share/man,share/aclocal,lib/pkgconfig,lib/*.la}
printf 'curl %s\nlibmicrohttpd %s\n' "$curl" "$libmicrohttpd" >"$work/out/versions"
rm -rf "$out"
mv "$work/out" "$out"
there "$out"
