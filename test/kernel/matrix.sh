#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/kernel/matrix.sh LOADER KERNEL-CHECKS LOG-FOLDER [SUITE...]
#
# The kernel checks on other kernels, each booted once in an emulated machine, two at a time. Every
# row of the table of hooks is run somewhere; the rest of a kernel is what it must refuse, and how.
# Whole logs are in LOG-FOLDER. Ends with `N passed, N failed`.
#
# A kernel that cannot be had is a failure if CI=true, else it is skipped, aloud.
set -euo pipefail

# Of these, sid's preempts itself: there auto takes kprobes before fentry and fexit.
# suites, hooks in use, how much, hooks that count as missing, flags of the loader
ROWS='
bullseye,trixie              kprobe+cleanup        full  -                              --hook=kprobe
bookworm                     kprobe+cleanup        quick -                              --hook=kprobe
sid                          kprobe+cleanup        quick -                              --hook=auto
bookworm                     fentry+fexit          full  -                              --hook=auto
bullseye,trixie              fentry+fexit          quick -                              --hook=auto
bullseye,sid                 fentry+fexit          quick -                              --hook=fentry
sid                          kprobe+kretprobe      quick cleanup                        --hook=kprobe
bookworm                     fentry+kretprobe      quick fexit,cleanup                  --hook=auto
bullseye,trixie              fentry+cgroup_skb     quick fexit,cleanup,kretprobe        --hook=auto
bookworm                     kprobe+cgroup_skb     quick fentry,fexit,cleanup,kretprobe --hook=auto
trixie                       kprobe+fexit          quick fentry                         --hook=auto
sid                          tracepoint+fexit      quick fentry,kprobe,cleanup,kretprobe --hook=auto
sid                          tracepoint+cgroup_skb full  -                              --hook=tracepoint
'
VM_SECONDS=${EBPFDUMP_VM_SECONDS:-1200}

here=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 3 ] || { echo "usage: test/kernel/matrix.sh LOADER KERNEL-CHECKS LOG-FOLDER [SUITE...]" >&2; exit 2; }
loader=$(realpath "$1") checks=$(realpath "$2")
mkdir -p "$3"
logs=$(realpath "$3")
shift 3
suites=("$@")
[ ${#suites[@]} -gt 0 ] || mapfile -t suites < <("$here/hack/vm/kernel.sh" --list | cut -d' ' -f1)

# The guest's script: each row, and what must be refused.
guest_script() {
	local suite=$1 on hooks much missing flags
	echo "run() { echo \"# \$*\"; \"\$@\" || failed=1; cut -d' ' -f1 /proc/uptime | sed 's/^/# at /'; }"
	echo "checks=/bin/$(basename "$checks") loader=/bin/$(basename "$loader") failed=0"
	while read -r on hooks much missing flags; do
		case ,$on, in *,"$suite",*) ;; *) continue ;; esac
		[ "$missing" != - ] || missing=''
		echo "export EBPFDUMP_TEST_MISSING=$missing"
		echo "run \$checks --expect $hooks $([ "$much" = full ] || echo --quick) -- \$loader $flags"
	done <<<"$ROWS"
	cat <<-'SCRIPT'
		export EBPFDUMP_TEST_MISSING=fentry,kprobe,tracepoint,fexit,cleanup,kretprobe,cgroup_skb
		run $checks --refused 'tcp_sendmsg' -- $loader
		unset EBPFDUMP_TEST_MISSING
		run $checks --refused 'permi' --unprivileged -- $loader
		mount -t tmpfs none /sys/kernel/btf
		run $checks --refused 'BTF' -- $loader
		umount /sys/kernel/btf
		exit $failed
	SCRIPT
}

run_suite() {
	local suite=$1 log=$logs/$1.log kernel
	if ! kernel=$("$here/hack/vm/kernel.sh" "$suite" 2>"$log.fetch"); then
		cat "$log.fetch" >"$log"
		if [ "${CI:-}" = true ]; then
			echo "not ok - $suite: this kernel cannot be had" >>"$log"
		else
			echo "SKIPPED: the kernel of $suite cannot be had" >>"$log"
		fi
		return
	fi
	cat "$log.fetch" >&2
	guest_script "$suite" >"$logs/$suite.sh"
	# Not ok without a line that says so: the machine died.
	"$here/hack/vm/run.sh" --timeout "$VM_SECONDS" --console "$logs/$suite.console" --module veth \
		--program "$loader" --program "$checks" --file "$logs/$suite.sh:/checks.sh" \
		"$kernel" -- sh /checks.sh >"$log" 2>&1 ||
		grep -q '^not ok' "$log" || echo "not ok - $suite: the machine died, or its time was over" >>"$log"
	grep -q '^ok' "$log" || echo "not ok - $suite: nothing was checked" >>"$log"
}

report() {
	local suite=$1 log=$logs/$1.log
	echo "== $suite: $("$here/hack/vm/kernel.sh" --list | awk -v s="$suite" '$1 == s {print $2}'):" \
		"$(grep -c '^ok' "$log" || true) ok, $(grep -c '^not ok' "$log" || true) not ok," \
		"$(grep -c '^ok.*# skip' "$log" || true) of these skipped ($log)"
	grep -E '^SKIPPED|# skip' "$log" || true
	# The failures, each with its row and its reasons.
	awk '/^# / {row = $0} /^not ok/ {if (row) print row; row = ""; print; show = 1; next}
		/^(ok|#|[0-9]+ passed)/ {show = 0} show || /^run\.sh:/' "$log"
}

declare -A running=()
for suite in "${suites[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge 2 ]; do
		wait -n || true
	done
	run_suite "$suite" &
	running[$suite]=$!
done
for suite in "${suites[@]}"; do
	wait "${running[$suite]}" || true
	report "$suite"
done

passed=0 failed=0
for suite in "${suites[@]}"; do
	passed=$((passed + $(grep '^ok' "$logs/$suite.log" | grep -vc '# skip' || true)))
	failed=$((failed + $(grep -c '^not ok' "$logs/$suite.log" || true)))
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
