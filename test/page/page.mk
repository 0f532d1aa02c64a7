# SPDX-License-Identifier: Apache-2.0
# The receiver's page in headless Chromium. The browser is Debian's; what drives it comes from npm, into build/.

PLAYWRIGHT := 1.55.0
PAGE_NODE  := $(BUILD)/page/node_modules/playwright-core/package.json

$(PAGE_NODE): test/page/page.mk
	$(call say,NPM,playwright-core)
	@mkdir -p $(BUILD)/page
	$(Q)cd $(BUILD)/page && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm install --silent --no-audit --no-fund --no-save \
		--prefix . playwright-core@$(PLAYWRIGHT)
	@touch $@

page: $(B)/ebpfdump-callback $(PAGE_NODE) ## the receiver's page in a browser (PAGE='filter curl' for some)
	$(Q)node test/page/run.mjs $(B)/ebpfdump-callback $(BUILD)/page $(PAGE)

page-pictures: $(B)/ebpfdump-callback $(PAGE_NODE) ## take docs/page*.png anew
	$(Q)node test/page/pictures.mjs $(B)/ebpfdump-callback $(BUILD)/page docs

.PHONY: page page-pictures
