# SPDX-License-Identifier: Apache-2.0
# README and docs/.

docs-checks: check-docs ## check README and docs/: generated parts, links, names, commands
	$(Q)command -v kubectl >/dev/null || PATH=$$PATH:$$(test/api/build.sh); test/docs/docs.py $(B)

.PHONY: docs-checks
