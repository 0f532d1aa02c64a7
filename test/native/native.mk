# SPDX-License-Identifier: Apache-2.0
# Real programs against the loader on this machine's own kernel.

native: all ## real programs against the loader on this machine's kernel (NATIVE='ledger curl' for some)
	$(Q)$(SUDO) test/native/run.py $(B)/ebpfdump-loader $(NATIVE)

.PHONY: native
