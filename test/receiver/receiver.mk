# SPDX-License-Identifier: Apache-2.0
# ebpfdump-callback as a program: real curl, wrong inputs, faults.

receiver: ## the receiver against curl, wrong inputs, slow and rude clients (RECEIVER='stream token' for some)
	$(Q)$(MAKE) --no-print-directory SAN= $(BUILD)/ebpfdump-callback
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined $(BUILD)/san-address-undefined/ebpfdump-callback
	$(Q)test/receiver/run.py $(BUILD)/ebpfdump-callback $(BUILD)/san-address-undefined/ebpfdump-callback $(RECEIVER)

.PHONY: receiver
