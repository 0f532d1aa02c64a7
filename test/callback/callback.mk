# SPDX-License-Identifier: Apache-2.0
# The callback sink against receivers that misbehave, and some that are not ours.

$(B)/test/callback/driver: $(B)/test/callback/driver.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

callback-programs: $(B)/ebpfdump-loader $(B)/test/callback/driver

callback: ## the callback against receivers that misbehave (CALLBACK='refused tls' for some)
	$(Q)$(MAKE) --no-print-directory callback-programs
	$(Q)test/callback/run.py $(B) $(CALLBACK)

.PHONY: callback callback-programs
