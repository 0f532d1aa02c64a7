# SPDX-License-Identifier: Apache-2.0
# Into a cluster and out of it, with kubectl alone. IMG=, LOADER_IMG=, CALLBACK_IMG= are the images; ENV= is a folder of config/
# (default, demo, openshift).

IMAGE_OF     = $(REGISTRY)/ebpfdump-$(1):$(VERSION)
IMG          ?= $(call IMAGE_OF,operator)
LOADER_IMG   ?= $(call IMAGE_OF,loader)
CALLBACK_IMG ?= $(call IMAGE_OF,callback)
BUNDLE_IMG   ?= $(call IMAGE_OF,bundle)
ENV          ?= default
KUBECTL      ?= kubectl
RENDER       = KUBECTL='$(KUBECTL)' hack/render.sh

install-crd:
	$(RENDER) crd | $(KUBECTL) apply --server-side -f - || \
		{ echo 'make install PREFIX=/usr/local installs the programs on this machine'; exit 1; }

uninstall: ## out of a cluster: the definition, and with it every EbpfDump
	$(RENDER) crd | $(KUBECTL) delete --ignore-not-found -f -

deploy: ## into a cluster: everything (ENV=demo, ENV=openshift, IMG=, LOADER_IMG=)
	$(RENDER) $(ENV) $(IMG) $(LOADER_IMG) $(CALLBACK_IMG) | $(KUBECTL) apply --server-side -f -

undeploy: ## out of a cluster: everything
	$(RENDER) $(ENV) | $(KUBECTL) delete --ignore-not-found -f -

build-installer: ## write config/install.yaml, the installation in one file
	$(Q)$(RENDER) default $(IMG) $(LOADER_IMG) $(CALLBACK_IMG) >$(BUILD)/install.yaml
	$(Q)mv $(BUILD)/install.yaml config/install.yaml

bundle: all ## write bundle/ for the Operator Lifecycle Manager, from config/
	$(Q)KUBECTL='$(KUBECTL)' hack/bundle.py write

bundle-validate: ## check bundle/ as the validators and the scorecard do offline
	$(Q)hack/bundle.py validate bundle

bundle-build: ## build the bundle's image (BUNDLE_IMG=)
	$(Q)hack/images/build.sh bundle

.PHONY: uninstall deploy undeploy build-installer bundle bundle-validate bundle-build
