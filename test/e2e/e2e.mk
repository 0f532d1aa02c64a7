# SPDX-License-Identifier: Apache-2.0
# From kubectl apply to messages and back to nothing.

e2e: all ## a real API server, the operator, and the loader as its DaemonSet has it started
	$(Q)$(SUDO) env EBPFDUMP_CACHE="$${EBPFDUMP_CACHE:-$$HOME/.cache/ebpfdump}" test/e2e/run.py $(B)

.PHONY: e2e
