#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs Check programs given as arguments; prints their failures and ends with `N passed, N failed`.
passed=0 failed=0
programs="$*"
for t in $programs; do
	out=$(CK_VERBOSITY=normal "$t" 2>&1)
	rc=$?
	# Check's own line: "100%: Checks: 12, Failures: 0, Errors: 0"
	set -- $(printf '%s\n' "$out" | sed -nE 's/^[0-9]+%: Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+)$/\1 \2 \3/p' |
		awk '{c+=$1; f+=$2+$3} END {print c+0, f+0}')
	bad=$2
	if [ $rc -ne 0 ] && [ "$bad" -eq 0 ] || [ "$1" -eq 0 ]; then
		bad=$((bad + 1))
	fi
	passed=$((passed + $1 - $2)) failed=$((failed + bad))
	if [ $bad -ne 0 ]; then
		printf '%s: exit status %d\n%s\n' "$t" $rc "$out"
	else
		printf 'ok   %-50s %d checks\n' "$t" "$1"
	fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
