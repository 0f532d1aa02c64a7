#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/operator/lean.sh [SCENARIO...]
#
# The operator as its image has it, of hack/lean.sh's libraries: what it needs, and the scenarios named against the scripted API server;
# default: those that go through the two libraries' ways (all of them, with the shared ones: `make test-operator`). Sources that cannot
# be had are a failure if CI=true, else skipped, aloud. Ends with `N passed, N failed`.
#
#   BUILD, EBPFDUMP_CACHE  as for make and hack/lean.sh
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
program=${BUILD:-build}/lean/ebpfdump-operator
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
passed=0 failed=0

result() { # STATUS NAME
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok $2"
	else
		failed=$((failed + 1))
		echo "not ok $2"
	fi
}

end() {
	echo "$passed passed, $failed failed${1:-}"
	[ $failed -eq 0 ]
	exit
}

# Two at once, as two builds on one machine.
hack/lean.sh >"$work/one" &
hack/lean.sh >"$work/two"
status=$?
wait $!
if [ $status -eq 75 ] && [ "${CI:-}" != true ]; then
	echo "SKIPPED: Debian's sources of curl and libmicrohttpd cannot be had"
	end ', 1 skipped'
fi
[ $status -eq 0 ] && [ "$(wc -l <"$work/one")" -eq 1 ] && cmp "$work/one" "$work/two"
result $? 'the libraries, wanted by two at once, are one folder' || end
lean=$(cat "$work/one")

# What is there is taken: no archive, no compiler.
(PATH=$work:/usr/bin:/bin && for p in apt-get dpkg-source make gcc; do ln -s /bin/false "$work/$p"; done && [ "$(hack/lean.sh)" = "$lean" ])
result $? 'a second time nothing is fetched or built'

make --no-print-directory lean LEAN="$lean" >"$work/log" 2>&1 || { tail -n 20 "$work/log"; false; }
result $? 'the operator builds with them'
[ $failed -eq 0 ] || end

needed=$(readelf -dW "$program" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | sort | tr '\n' ' ')
[ "$needed" = 'libc.so.6 libjson-c.so.5 ' ]
result $? "it needs C's and json-c's library: $needed"

# The debugger's data name the folders of the headers.
objects=(pkg/kube/client.o pkg/telemetry/telemetry.o)
[ "$(cd "${program%/*}" && grep -laF "$lean/include" "${objects[@]}" | wc -l)" -eq 2 ] &&
	[ "$(cd "${program%/*}" && grep -laE '/usr/include/(x86_64-linux-gnu/|aarch64-linux-gnu/)?(curl|microhttpd)' "${objects[@]}" | wc -l)" -eq 0 ]
result $? 'it is compiled with the headers of these libraries'

! grep -qaE 'OpenSSL|GnuTLS|gss_init_sec_context|ldap_init|ftp://' "$program"
result $? 'there is no TLS, Kerberos, LDAP or FTP in it'

[ $# -gt 0 ] || set -- life drift server_away storm_of_410 garbage proxy ends_with_a_request_that_hangs two_operators many telemetry flags
test/operator/operator.py "$program" "$@" | tee "$work/log"
read -r p f < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed.*/\1 \2/p' "$work/log" | tail -n 1)
[ "${p:-0}" -gt 0 ] || f=1
passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1}))
end
