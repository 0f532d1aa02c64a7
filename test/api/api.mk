# SPDX-License-Identifier: Apache-2.0
# The resource and the operator against a real API server of Kubernetes, which the first run builds.

api: all ## the resource and the operator against a real API server (API='status lease' for some)
	$(Q)test/api/run.py $(B)/ebpfdump-operator $(API)

.PHONY: api
