# SPDX-License-Identifier: Apache-2.0
# The operator's program against a scripted API server, as built and with sanitizers. SCENARIOS='life drift' for some.

test-operator: all ## the operator against a scripted API server: faults, crash points, two operators
	$(Q)test/operator/operator.py $(B)/ebpfdump-operator $(SCENARIOS)

operator-lean: ## the same of the operator as its image has it
	$(Q)BUILD=$(B) test/operator/lean.sh $(SCENARIOS)

run-operator: all ## run the operator outside a cluster, with your kubeconfig (ARGS='--loader-image ... --namespace ...')
	$(B)/ebpfdump-operator --log-format text --namespace ebpfdump-operator-system --deployment '' \
		--loader-image $(REGISTRY)/ebpfdump-loader:$(VERSION) $(ARGS)

.PHONY: test-operator operator-lean run-operator
