# SPDX-License-Identifier: Apache-2.0
# config/ and bundle/.

config: all ## check config/ and bundle/: rendered, up to date, consistent, and that faults are found
	$(Q)test/config/config.py $(B)

.PHONY: config
