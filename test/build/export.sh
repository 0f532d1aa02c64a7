#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test/build/export.sh FOLDER
# Copies the files that git knows into FOLDER, as they are now: what a commit of all changes would hold.
set -euo pipefail
[ $# -eq 1 ] || { echo 'usage: test/build/export.sh FOLDER' >&2; exit 2; }
folder=$(realpath "$1")
cd "$(dirname "$0")/../.."
git -c safe.directory="$PWD" ls-files -z --deduplicate |
	while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done |
	tar -c --null -T - | tar -x --no-same-owner -C "$folder"
