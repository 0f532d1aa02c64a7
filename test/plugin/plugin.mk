# SPDX-License-Identifier: Apache-2.0
# The kubectl plug-in.

plugin: ## the kubectl plug-in against a kubectl that answers from files
	$(Q)test/plugin/plugin.py

.PHONY: plugin
