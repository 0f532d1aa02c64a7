#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: hack/render.sh OVERLAY [OPERATOR-IMAGE LOADER-IMAGE CALLBACK-IMAGE]
# Prints a folder of config/ as kubectl kustomize renders it, with these images instead of the ones that it names.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo 'usage: hack/render.sh OVERLAY [OPERATOR-IMAGE LOADER-IMAGE CALLBACK-IMAGE]' >&2; exit 2; }
if [ ! -f "config/$1/kustomization.yaml" ]; then
	echo "render.sh: config/$1 is no overlay; there are: $(cd config && echo */kustomization.yaml | sed 's|/kustomization.yaml||g')" >&2
	exit 2
fi
echo '# SPDX-License-Identifier: Apache-2.0'
# into a variable first: a failure must not look like an empty file
rendered=$(${KUBECTL:-kubectl} kustomize "config/$1")
printf '%s\n' "$rendered" |
	sed -E "s|ghcr\.io/dynatrace-oss/ebpfdump-operator:[^[:space:]\"]+|${2:-&}|; s|ghcr\.io/dynatrace-oss/ebpfdump-loader:[^[:space:]\"]+|${3:-&}|;
		s|ghcr\.io/dynatrace-oss/ebpfdump-callback:[^[:space:]\"]+|${4:-&}|"
