# SPDX-License-Identifier: Apache-2.0
# Images: building them, and their test.

REGISTRY ?= ghcr.io/dynatrace-oss
IMAGES   ?= $(patsubst cmd/%/main.c,%,$(wildcard cmd/*/main.c))

images: ## build the images with buildah, podman or docker (REGISTRY=, IMAGES='loader callback', PLATFORM=linux/arm64)
	$(Q)REGISTRY=$(REGISTRY) VERSION=$(VERSION) hack/images/build.sh $(IMAGES)

push: ## build the images and push them to REGISTRY
	$(Q)REGISTRY=$(REGISTRY) VERSION=$(VERSION) PUSH=1 hack/images/build.sh $(IMAGES)

test-images: ## build the images offline, on a base made by debootstrap, and start each
	$(Q)test/images/images.sh $(IMAGES)

.PHONY: images push test-images
