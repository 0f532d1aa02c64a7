#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: hack/lint.sh
# The house rules that a machine can check. Each finding is a line; ends with `N passed, N failed`, N being rules.
set -u
shopt -s lastpipe # a rule counts in this shell, behind its pipe
passed=0 failed=0
mapfile -t c_files < <(git ls-files '*.c' '*.h' | grep -v '^bpf/.*\.bpf\.c$')
mapfile -t all_c < <(git ls-files '*.c' '*.h')
mapfile -t room_c < <(git ls-files 'pkg/*.c')
mapfile -t program_c < <(git ls-files 'pkg/*.c' 'cmd/*.c')
mapfile -t code < <(git ls-files '*.c' '*.h' '*.sh' '*.py' Makefile | grep -v '^hack/lint.sh$')
mapfile -t scripts < <(git ls-files | xargs grep -lE '^#!/bin/(ba)?sh' 2>/dev/null)

rule() { # NAME, findings on standard input
	local name=$1 findings
	findings=$(cat)
	if [ -n "$findings" ]; then
		printf 'not ok %s\n%s\n' "$name" "$findings"
		failed=$((failed + 1))
	else
		printf 'ok %s\n' "$name"
		passed=$((passed + 1))
	fi
}

for f in "${all_c[@]}"; do
	clang-format --dry-run --Werror "$f" >/dev/null 2>&1 || echo "$f: make format changes it"
done | rule 'clang-format'

# LICENSE files and data carry no comments.
git ls-files | grep -vE '(^|/)LICENSE\.txt$|^\.gitignore$|/corpus/|/data/|\.json$|\.png$|\.md$' |
	while read -r f; do
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: ' || echo "$f: no SPDX line"
	done | rule 'SPDX line in every file'

git ls-files | cut -d/ -f1 | sort -u |
	grep -vxE 'Makefile|cmd|pkg|bpf|hack|config|bundle|test|docs|LICENSE\.txt|README\.md|\..*' |
	sed 's/$/: not a room of the house/' | rule 'top level'

grep -nwE 'sprintf|vsprintf|strcpy|strcat|strncpy|atoi|atol|strtok|gets|system|popen|alloca' "${program_c[@]}" |
	grep -vE '^[^:]+:[0-9]+:\s*(/?\*|//)|".*\b(system|gets)\b.*"' | rule 'banned functions'

grep -nE '\b(strtol|strtoul|strtoll|strtoull|strtod)\(' "${c_files[@]}" |
	grep -vE '^(pkg/base/num\.c|test/)' | rule 'numbers are parsed in base only'

grep -nE '\bexit\(|\babort\(' "${room_c[@]}" | rule 'a room never ends the process'

grep -nE '\bbpf_ringbuf_(reserve|submit|output|discard)\(' bpf/*.c |
	awk -F: '$2 > 0' | wc -l | awk '$1 > 5 {print "bpf/: " $1 " places use the ring buffer"}' |
	rule 'the ring buffer is used in one place'

grep -nE '\b(TODO|FIXME|XXX)\b' "${code[@]}" |
	rule 'nothing is left for later'

shellcheck -S info "${scripts[@]}" | rule 'shellcheck'

# It does not know the cleanup attribute (memleak), follows err == NULL into sizeof (ctunullpointer), and doubts that NULL is a
# pointer (varFuncNullUB).
cppcheck --quiet --std=c11 --enable=warning,portability,performance --inline-suppr \
	--suppress=missingIncludeSystem --suppress=unknownMacro --error-exitcode=1 \
	--suppress=memleak --suppress=ctunullpointer --suppress=nullPointerRedundantCheck --suppress=varFuncNullUB \
	-I. -D_GNU_SOURCE -DEBPFDUMP_VERSION='""' "${program_c[@]}" 2>&1 | rule 'cppcheck'

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
