# SPDX-License-Identifier: Apache-2.0
# config/ and bundle/.

config: all ## check config/ and bundle/: rendered, up to date, consistent, and that faults are found
	$(Q)KUBECTL=$$(command -v kubectl || echo "$$(test/api/build.sh)/kubectl") test/config/config.py $(B)

dashboard-picture: all ## photograph the dashboard's panels on this machine's traffic: docs/dashboard.png
	$(Q)$(SUDO) test/config/picture.py $(B) docs/dashboard.png

.PHONY: config dashboard-picture
