# SPDX-License-Identifier: Apache-2.0
# The kernel checks: one program, run on this machine's own kernel and on others in virtual machines.

KERNEL_SRC := $(wildcard test/kernel/*.c)
KERNEL_OBJ := $(KERNEL_SRC:%.c=$(B)/%.o)
KERNELS    ?=

$(B)/test/kernel-checks: $(KERNEL_OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -ljson-c -lpthread -o $@

kernel: kernel-native kernel-vm ## kernel checks: on this machine's kernel, then on others

kernel-native: $(B)/ebpfdump-loader $(B)/test/kernel-checks ## kernel checks on this machine's kernel
	$(Q)$(if $(filter 0,$(shell id -u)),,sudo) $(B)/test/kernel-checks --alone chk0 -- $(B)/ebpfdump-loader

kernel-vm: $(B)/ebpfdump-loader $(B)/test/kernel-checks ## kernel checks in virtual machines (KERNELS="trixie sid")
	$(Q)test/kernel/matrix.sh $(B)/ebpfdump-loader $(B)/test/kernel-checks $(B)/kernel $(KERNELS)

.PHONY: kernel kernel-native kernel-vm

arm64: ## cross-build for arm64, and the kernel checks on Debian's arm64 kernel
	$(Q)$(MAKE) --no-print-directory ARCH=arm64 all build/arm64/test/kernel-checks
	$(Q)test/kernel/arm64.sh build/arm64

.PHONY: arm64
