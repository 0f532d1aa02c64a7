#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/reference.sh LOADER FILE
# Prints FILE (docs/REFERENCE.md) with its generated part as this loader has it.
set -eu
awk -v loader="$1" '
	/^<!-- the end of what is generated -->$/ {inside = 0}
	!inside {print}
	/^<!-- generated from here on: make docs -->$/ {
		inside = 1
		command = loader " --reference"
		while ((command | getline line) > 0) print line
	}
' "$2"
