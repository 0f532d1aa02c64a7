# SPDX-License-Identifier: Apache-2.0
# ebpfdump: one Makefile, not recursive. All output is in build/. `make help` lists the targets.

.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all

VERSION := 0.1.0
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CLANG   ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
say      = @printf '  %-7s %s\n' $(1) $(2)

# SAN=address,undefined or SAN=thread: a second tree of objects beside the first.
SAN     ?=
comma   := ,
BUILD   ?= build
B       := $(BUILD)$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

WARN    := -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wundef \
           -Wpointer-arith -Wwrite-strings -Wformat=2 -Wno-unused-parameter
OPT     := $(if $(SAN),-O1 -fno-omit-frame-pointer,-O2)
CFLAGS  := -std=gnu11 $(OPT) -g $(WARN) -fno-strict-aliasing -fstack-protector-strong $(EXTRA_CFLAGS)
CPPFLAGS := -I. -I$(B) -D_GNU_SOURCE -DEBPFDUMP_VERSION='"$(VERSION)"'
LDFLAGS := $(EXTRA_LDFLAGS)
ifneq ($(SAN),)
CFLAGS  += -fsanitize=$(SAN) $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
LDFLAGS += -fsanitize=$(SAN)
endif
LIBS    := -lbpf -lelf -lz -lmicrohttpd -lpthread

# ---- sources ---------------------------------------------------------------------------------------

ROOMS   := base http dump flow spec sink telemetry probe
LIB_SRC := $(foreach r,$(ROOMS),$(wildcard pkg/$(r)/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
LIB     := $(B)/libebpfdump.a
PROGRAMS := $(B)/ebpfdump-loader

# Anything that changes how objects are compiled rebuilds them.
FLAGS_STAMP := $(B)/.flags
flags_now   := $(CC) $(CFLAGS) $(CPPFLAGS) $(LDFLAGS)
$(shell mkdir -p $(B); [ "$$(cat $(FLAGS_STAMP) 2>/dev/null)" = '$(subst ','"'"',$(flags_now))' ] || \
	printf '%s\n' '$(subst ','"'"',$(flags_now))' > $(FLAGS_STAMP))

all: $(PROGRAMS) ## build the programs

$(B)/%.o: %.c $(FLAGS_STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(CPPFLAGS) -MMD -MP -c $< -o $@

$(LIB): $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/ebpfdump-%: $(B)/cmd/%/main.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

# ---- eBPF: compiled with clang, embedded as a skeleton ------------------------------------------------

BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(shell uname -m)))
BPF_CFLAGS := -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -DEBPFDUMP_BPF -O2 -g -Wall -Werror -I. \
              -Wno-missing-declarations -mcpu=v2 -idirafter /usr/include/$(shell gcc -print-multiarch)

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h)
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c $< -o $@.tmp
	$(Q)$(BPFTOOL) gen object $@ $@.tmp && rm -f $@.tmp

$(BUILD)/bpf/%.skel.h: $(BUILD)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(subst .,_,$*)_bpf > $@

$(B)/pkg/probe/%.o: CPPFLAGS += -I$(BUILD)
$(LIB_OBJ): | $(if $(wildcard bpf/capture.bpf.c),$(BUILD)/bpf/capture.skel.h)

# ---- unit tests: one program per room (Check) --------------------------------------------------------

UNIT_SRC := $(wildcard test/unit/*_test.c)
UNIT     := $(UNIT_SRC:test/unit/%.c=$(B)/test/unit/%)
CHECK_LIBS = $(shell pkg-config --libs check)

$(B)/test/unit/%_test: $(B)/test/unit/%_test.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) $(CHECK_LIBS) -ljson-c -o $@

unit: $(UNIT) ## unit tests
	$(Q)hack/run-unit.sh $(UNIT)

# ---- house -------------------------------------------------------------------------------------------

clean: ## remove build/
	rm -rf $(BUILD)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: all unit clean help
-include $(LIB_OBJ:.o=.d) $(patsubst %,$(B)/%.d,$(basename $(wildcard cmd/*/*.c test/*/*.c)))
