# SPDX-License-Identifier: Apache-2.0
# The API server's faults, played by a scripted one, against the room as a process.

$(B)/test/kube/driver: $(B)/test/kube/driver.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

kube-driver: $(B)/test/kube/driver

kube: ## list, watch, lease, events and the proxy's supervisor against a scripted API server (KUBE='lease' for some)
	$(Q)$(MAKE) --no-print-directory SAN= kube-driver
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined kube-driver
	$(Q)test/kube/run.py $(BUILD)/test/kube/driver $(BUILD)/san-address-undefined/test/kube/driver $(KUBE)

.PHONY: kube kube-driver
