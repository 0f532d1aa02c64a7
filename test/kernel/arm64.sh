#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/kernel/arm64.sh BUILD-FOLDER
#
# The programs that `make ARCH=arm64` made, on Debian's arm64 kernel in an emulated machine: each starts, and the loader captures
# there by two of its hooks. Ends with `N passed, N failed`.
set -uo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -eq 1 ] || { echo 'usage: test/kernel/arm64.sh BUILD-FOLDER' >&2; exit 2; }
build=$(realpath "$1")
log=$build/kernel-arm64.log

if ! sysroot=$("$here/hack/sysroot.sh" arm64) || ! kernel=$("$here/hack/vm/kernel.sh" trixie arm64); then
	echo 'not ok - arm64: its libraries or its kernel cannot be had'
	echo '0 passed, 1 failed'
	exit 1
fi
arguments=(--sysroot "$sysroot" --module veth --timeout "${EBPFDUMP_VM_SECONDS:-600}" --program "$build/test/kernel-checks")
versions=''
for program in "$build"/ebpfdump-*; do
	arguments+=(--program "$program")
	versions="$versions $(basename "$program")"
done
cat >"$build/guest.sh" <<SCRIPT
for p in$versions; do
	\$p --version | grep -q "^\$p [0-9]" && echo "ok - \$p starts" || echo "not ok - \$p starts"
done
checks=/bin/kernel-checks loader=/bin/ebpfdump-loader failed=0
\$checks --expect fentry+fexit --quick -- \$loader --hook=auto || failed=1
\$checks --expect kprobe+cleanup --quick -- \$loader --hook=kprobe || failed=1
exit \$failed
SCRIPT
"$here/hack/vm/run.sh" "${arguments[@]}" --file "$build/guest.sh:/checks.sh" "$kernel" -- sh /checks.sh >"$log" 2>&1 ||
	grep -q '^not ok' "$log" || echo 'not ok - arm64: the machine died, or its time was over' >>"$log"
grep -vE '^[0-9]+ passed' "$log"
echo "$(grep -c '^ok' "$log") passed, $(grep -c '^not ok' "$log") failed"
! grep -q '^not ok' "$log"
