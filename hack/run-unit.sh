#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/run-unit.sh PROGRAM...
# Runs Check programs; shows what failed; ends with `N passed, N failed`. A program that checks nothing has failed.
passed=0 failed=0
for program in "$@"; do
	# generous: the machine may be busy with other things
	out=$(CK_VERBOSITY=normal CK_DEFAULT_TIMEOUT=120 "$program" 2>&1)
	status=$?
	# Check's own line: "100%: Checks: 12, Failures: 0, Errors: 0", one for each suite runner
	checks=$(printf '%s\n' "$out" | awk -F'[:,]' '/^[0-9]+%: Checks:/ {n += $3} END {print n + 0}')
	bad=$(printf '%s\n' "$out" | awk -F'[:,]' '/^[0-9]+%: Checks:/ {n += $5 + $7} END {print n + 0}')
	passed=$((passed + checks - bad))
	if [ "$bad" -eq 0 ] && { [ $status -ne 0 ] || [ "$checks" -eq 0 ]; }; then
		bad=1
	fi
	failed=$((failed + bad))
	if [ "$bad" -ne 0 ]; then
		printf '%s: exit status %d\n%s\n' "$program" $status "$out"
	else
		printf 'ok   %-50s %d checks\n' "$program" "$checks"
	fi
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
