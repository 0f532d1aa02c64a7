# SPDX-License-Identifier: Apache-2.0
# What must hold of a build, here and on Debian trixie.

build-checks: ## check a clean build: dependencies, installation, libraries, arm64
	$(Q)test/build/checks.sh

trixie: ## build and unit tests on Debian trixie, in a chroot
	$(Q)test/build/trixie.sh

.PHONY: build-checks trixie
