# SPDX-License-Identifier: Apache-2.0
# Into a cluster and out of it, with kubectl alone. IMG=, LOADER_IMG=, CALLBACK_IMG= are the images; ENV= is a folder of config/
# (default, demo, openshift; callback, prometheus and network-policy beside one of these).

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

# As `make install`: with PREFIX or DESTDIR it is about this machine, and no cluster is touched.
ifneq ($(PREFIX)$(DESTDIR),)
uninstall:
	rm -f $(PROGRAMS:$(B)/%=$(DESTDIR)$(or $(PREFIX),/usr/local)/sbin/%) $(DESTDIR)$(or $(PREFIX),/usr/local)/bin/kubectl-ebpfdump
else
uninstall: ## PREFIX=/usr/local: remove the programs. Without PREFIX, out of a cluster: the definition, and with it every EbpfDump
	$(RENDER) crd | $(KUBECTL) delete --ignore-not-found -f -
endif

deploy: ## into a cluster: everything (ENV=demo, ENV=openshift, IMG=, LOADER_IMG=)
	$(RENDER) $(ENV) $(IMG) $(LOADER_IMG) $(CALLBACK_IMG) | $(KUBECTL) apply --server-side -f -

undeploy: ## out of a cluster: everything
	$(RENDER) $(ENV) | $(KUBECTL) delete --ignore-not-found -f -

build-installer: ## write config/install.yaml, the installation in one file
	$(Q)$(RENDER) default $(IMG) $(LOADER_IMG) $(CALLBACK_IMG) >$(BUILD)/install.yaml
	$(Q)mv $(BUILD)/install.yaml config/install.yaml

bundle: all ## write bundle/ for the Operator Lifecycle Manager, from config/ (IMG=, LOADER_IMG=, CALLBACK_IMG=, BUNDLE_IMG=)
	$(Q)KUBECTL='$(KUBECTL)' IMG='$(IMG)' LOADER_IMG='$(LOADER_IMG)' CALLBACK_IMG='$(CALLBACK_IMG)' BUNDLE_IMG='$(BUNDLE_IMG)' hack/bundle.py write

bundle-validate: ## check bundle/ as the validators and the scorecard do offline
	$(Q)hack/bundle.py validate bundle

bundle-build: ## build the bundle's image (BUNDLE_IMG=), of what is committed
	$(Q)NAME='$(BUNDLE_IMG)' hack/images/build.sh bundle

bundle-push: ## build the bundle's image, and push it
	$(Q)NAME='$(BUNDLE_IMG)' PUSH=1 hack/images/build.sh bundle

# As operator-sdk's users call them; here each image has its name: IMG=, LOADER_IMG=, CALLBACK_IMG=.
docker-build docker-push:
	$(Q)PUSH=$(if $(filter %-push,$@),1) NAME='$(IMG)' hack/images/build.sh operator
	$(Q)PUSH=$(if $(filter %-push,$@),1) NAME='$(LOADER_IMG)' hack/images/build.sh loader
	$(Q)PUSH=$(if $(filter %-push,$@),1) NAME='$(CALLBACK_IMG)' hack/images/build.sh callback

manifests: crd

.PHONY: uninstall deploy undeploy build-installer bundle bundle-validate bundle-build bundle-push docker-build docker-push manifests
