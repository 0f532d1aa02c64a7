#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: hack/images/build.sh [IMAGE...]      (loader, operator, callback, and OLM's bundle; default: the first three)
#
# Builds the images with buildah, podman or docker, whichever is there, from what git has at HEAD: the same commit, the same
# packages of Debian and the same tool give the same image. Each is tagged $REGISTRY/ebpfdump-IMAGE:$VERSION and said.
#
#   NAME      the whole name with its tag, of one image; else it is made of
#   REGISTRY  prefix of the names (default ghcr.io/dynatrace-oss)
#   VERSION   tag (default: the Makefile's)
#   BASE      image to build on (default docker.io/library/debian:trixie-slim)
#   PLATFORM  linux/amd64 (default: this machine's) or linux/arm64
#   BUILDER   the tool
#   SOURCE_DATE_EPOCH  time of all files (default: of the commit)
#   PUSH=1    pushes them as well
#   FRESH=1   uses no layer of an earlier build
set -euo pipefail
cd "$(dirname "$0")/../.."
registry=${REGISTRY:-ghcr.io/dynatrace-oss}
version=${VERSION:-$(sed -n 's/^VERSION := //p' Makefile)}
revision=$(git -c safe.directory="$PWD" rev-parse HEAD)
epoch=${SOURCE_DATE_EPOCH:-$(git -c safe.directory="$PWD" log -1 --format=%ct)}
builder=${BUILDER:-}
for tool in buildah podman docker; do
	[ -z "$builder" ] && command -v $tool >/dev/null && builder=$tool
done
[ -n "$builder" ] || { echo 'build.sh: neither buildah nor podman nor docker is there (apt-get install buildah)' >&2; exit 1; }
[ $# -gt 0 ] || set -- loader operator callback
[ -z "${NAME:-}" ] || [ $# -eq 1 ] || { echo 'build.sh: NAME is of one image' >&2; exit 2; }
[ -z "$(git -c safe.directory="$PWD" status --porcelain)" ] ||
	echo 'build.sh: what is not committed is not in the images' >&2

# The context is what git has, and nothing that lies around.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git -c safe.directory="$PWD" archive HEAD | tar -x -C "$context"

for image in "$@"; do
	name=${NAME:-$registry/ebpfdump-$image:$version}
	arguments=(--file "$context/hack/images/Dockerfile" --target "$image" --tag "$name"
		--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
	[ "$image" != bundle ] || arguments=(--file "$context/hack/images/bundle.Dockerfile" --tag "$name")
	[ -z "${BASE:-}" ] || arguments+=(--build-arg "BASE=$BASE")
	[ "${FRESH:-}" != 1 ] || arguments+=(--no-cache)
	[ -z "${PLATFORM:-}" ] || arguments+=(--platform "$PLATFORM")
	case $builder in
	*docker) SOURCE_DATE_EPOCH=$epoch docker buildx build --load --build-arg "SOURCE_DATE_EPOCH=$epoch" "${arguments[@]}" "$context" ;;
	*) "$builder" build --layers --timestamp "$epoch" "${arguments[@]}" "$context" ;;
	esac
	echo "built $name"
	[ "${PUSH:-}" != 1 ] || "$builder" push "$name"
done
