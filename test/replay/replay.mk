# SPDX-License-Identifier: Apache-2.0
# Files of capture records replayed: golden lines, other pieces, valgrind, damaged files.

replay: ## golden test of --replay, valgrind, damaged files
	$(Q)$(MAKE) --no-print-directory SAN= all
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined all
	$(Q)test/replay/replay.py $(BUILD)/ebpfdump-loader \
		$(BUILD)/san-address-undefined/ebpfdump-loader $(BUILD)/replay

.PHONY: replay
