# SPDX-License-Identifier: Apache-2.0
# Loaders that see their own POSTs, on this machine's own kernel.

feedback: all ## a callback does not feed itself (FEEDBACK='nat proxy' for some)
	$(Q)$(SUDO) test/feedback/run.py $(B)/ebpfdump-loader $(FEEDBACK)

.PHONY: feedback
