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

# ARCH=arm64: built with Debian's cross compiler against Debian's libraries of that architecture (hack/sysroot.sh).
ARCH    ?=
ifneq ($(ARCH),)
ifneq ($(ARCH),arm64)
$(error ARCH=$(ARCH): only arm64 can be cross-built; leave it out for this machine's own)
endif
SYSROOT := $(or $(shell hack/sysroot.sh $(ARCH)),$(error no libraries for ARCH=$(ARCH)))
CC      := aarch64-linux-gnu-gcc --sysroot=$(SYSROOT)
BUILD   := build/$(ARCH)
endif

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
# Each program links what it uses of them.
LIBS    := -Wl,--as-needed -lbpf -lelf -lmicrohttpd -lcurl -ljson-c -lcrypto -lz -lpthread

# ---- sources ---------------------------------------------------------------------------------------

LIB_SRC := $(wildcard pkg/*/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
LIB     := $(B)/libebpfdump.a
PROGRAMS := $(patsubst cmd/%/main.c,$(B)/ebpfdump-%,$(wildcard cmd/*/main.c))
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)

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

# The assembler reads these in, which the compiler does not see.
$(B)/cmd/callback/page.o: $(wildcard cmd/callback/page/*)

# One program for each folder of cmd/.
define program_rule
$(B)/ebpfdump-$(1): $(patsubst %.c,$(B)/%.o,$(wildcard cmd/$(1)/*.c)) $(LIB)
	$$(call say,LINK,$$@)
	$$(Q)$$(CC) $$(CFLAGS) $$(LDFLAGS) $$^ $$(LIBS) -o $$@
endef
$(foreach p,$(patsubst cmd/%/main.c,%,$(wildcard cmd/*/main.c)),$(eval $(call program_rule,$(p))))

# The operator as its image has it: libcurl and libmicrohttpd made for plain HTTP (hack/lean.sh) and linked in. They bring their own
# headers, hence a tree of its own, of the rooms that it uses. LEAN=FOLDER: such libraries from elsewhere.
LEAN     ?=
LEAN_B   := $(B)/lean
LEAN_OBJ := $(patsubst %.c,$(LEAN_B)/%.o,$(wildcard cmd/operator/*.c $(addprefix pkg/,$(addsuffix /*.c,base spec kube operator telemetry))))

lean: ## build the operator as its image has it, build/lean/ebpfdump-operator
	@lean='$(LEAN)'; [ -n "$$lean" ] || lean=$$(hack/lean.sh) && \
		$(MAKE) --no-print-directory LEAN="$$lean" $(LEAN_B)/ebpfdump-operator

ifneq ($(LEAN),)
$(shell mkdir -p $(LEAN_B); [ "$$(cat $(LEAN_B)/.flags 2>/dev/null)" = '$(LEAN)' ] || echo '$(LEAN)' >$(LEAN_B)/.flags)

$(LEAN_B)/%.o: %.c $(FLAGS_STAMP) $(LEAN_B)/.flags
	$(call say,LEANCC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -isystem $(LEAN)/include $(CPPFLAGS) -MMD -MP -c $< -o $@

$(LEAN_B)/ebpfdump-operator: $(LEAN_OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LEAN)/lib/libmicrohttpd.a $(LEAN)/lib/libcurl.a -Wl,--as-needed -ljson-c -lpthread -o $@
endif

run: ## install what is missing, build, and capture this machine's HTTP (ARGS='--interface lo')
	@hack/deps.sh build
	@hack/mounts.sh
	@$(MAKE) --no-print-directory all
	$(SUDO) $(B)/ebpfdump-loader $(ARGS)

demo: all ## show the loader on a small web server and client, in namespaces of their own
	@hack/demo.sh $(B)/ebpfdump-loader

# `make install` means two things: to C programmers, the programs on this machine; to users of operator-sdk, the definition of the
# resource in a cluster (hack/deploy.mk). PREFIX or DESTDIR say which.
ifneq ($(PREFIX)$(DESTDIR),)
install: all ## PREFIX=/usr/local: install the programs and the kubectl plug-in. Without PREFIX: EbpfDump's definition into a cluster
	install -D -m 755 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/sbin $(PROGRAMS)
	install -D -m 755 -t $(DESTDIR)$(or $(PREFIX),/usr/local)/bin hack/kubectl-ebpfdump
else
install: install-crd
endif

# ---- eBPF: compiled with clang, embedded as a skeleton ------------------------------------------------

BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(or $(ARCH),$(shell uname -m))))
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
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) $(CHECK_LIBS) -o $@

unit: $(UNIT) ## unit tests
	$(Q)hack/run-unit.sh $(UNIT)

# ---- fuzzers: libFuzzer with ASan and UBSan; test/fuzz/NAME_fuzz.c, its corpus in test/fuzz/corpus/NAME -----

FUZZ_SECONDS ?= 600
FUZZ_SRC     := $(wildcard test/fuzz/*_fuzz.c)
FUZZ_NAMES   := $(FUZZ_SRC:test/fuzz/%_fuzz.c=%)
FUZZ_B       := $(BUILD)/fuzz
FUZZ_CFLAGS  := -std=gnu11 -O1 -g $(WARN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined \
                -fsanitize=address,undefined
FUZZ_LIB     := $(FUZZ_B)/libebpfdump.a

$(FUZZ_B)/%.o: %.c
	$(call say,FUZZCC,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link $(CPPFLAGS) -MMD -MP -c $< -o $@

$(FUZZ_B)/pkg/probe/%.o: CPPFLAGS += -I$(BUILD)
$(FUZZ_B)/pkg/probe/probe.o: | $(BUILD)/bpf/capture.skel.h

$(FUZZ_LIB): $(LIB_SRC:%.c=$(FUZZ_B)/%.o)
	$(Q)rm -f $@ && ar rcs $@ $^

$(FUZZ_B)/%_fuzz: $(FUZZ_B)/test/fuzz/%_fuzz.o $(FUZZ_LIB)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer $^ $(LIBS) -o $@

# In `make test`: the parsers of what strangers send get FUZZ_SECONDS, the others a quarter.
FUZZ_MAIN := http flow replay
fuzz_seconds = $(if $(filter $(FUZZ_MAIN),$*),$(FUZZ_SECONDS),$(shell expr $(FUZZ_SECONDS) / 4))

# New inputs go to build/; those worth keeping are merged into the corpus by hand (libFuzzer's -merge=1).
fuzz-%: $(FUZZ_B)/%_fuzz
	@mkdir -p $(FUZZ_B)/new/$* test/fuzz/corpus/$*
	$(Q)$< -max_total_time=$(fuzz_seconds) -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix=$(FUZZ_B)/ -verbosity=0 $(FUZZ_B)/new/$* test/fuzz/corpus/$* \
		>$(FUZZ_B)/$*.log 2>&1 || { tail -n 50 $(FUZZ_B)/$*.log; echo "not ok fuzz $*"; exit 1; }
	@runs=$$(sed -n 's/^stat::number_of_executed_units: *//p' $(FUZZ_B)/$*.log); \
		echo "ok fuzz $*: $$runs inputs in $(fuzz_seconds) s"; [ "$$runs" -gt 1000 ]

fuzz: $(FUZZ_NAMES:%=fuzz-%) ## fuzz every parser for FUZZ_SECONDS (600), or a quarter of it
	@echo "$(words $^) passed, 0 failed"

# ---- the whole ------------------------------------------------------------------------------------------

-include $(wildcard test/*/*.mk) hack/deploy.mk

test: ## install what is missing, and run everything (SUITES='unit lint' for some)
	@hack/deps.sh test
	@hack/mounts.sh
	@test/run.sh $(SUITES)

docs: all ## write the generated part of docs/REFERENCE.md
	@hack/reference.sh $(B)/ebpfdump-loader docs/REFERENCE.md >$(B)/REFERENCE.md && mv $(B)/REFERENCE.md docs/REFERENCE.md
	@hack/reference.sh $(B)/ebpfdump-operator docs/OPERATOR.md >$(B)/OPERATOR.md && mv $(B)/OPERATOR.md docs/OPERATOR.md
	@hack/reference.sh $(B)/ebpfdump-callback docs/RECEIVER.md >$(B)/RECEIVER.md && mv $(B)/RECEIVER.md docs/RECEIVER.md

CRD := config/crd/bases/research.dynatrace.com_ebpfdumps.yaml
crd: all ## write the CustomResourceDefinition, config/crd/bases
	@$(B)/ebpfdump-operator --crd >$(B)/crd.yaml && mv $(B)/crd.yaml $(CRD)

check-docs: all
	@$(B)/ebpfdump-operator --crd | diff $(CRD) - || \
		{ echo 'not ok $(CRD) is not what the options table says: make crd'; exit 1; }
	@hack/reference.sh $(B)/ebpfdump-loader docs/REFERENCE.md | diff docs/REFERENCE.md - || \
		{ echo 'not ok docs/REFERENCE.md is not what the loader says: make docs'; exit 1; }
	@hack/reference.sh $(B)/ebpfdump-operator docs/OPERATOR.md | diff docs/OPERATOR.md - || \
		{ echo 'not ok docs/OPERATOR.md is not what the operator says: make docs'; exit 1; }
	@hack/reference.sh $(B)/ebpfdump-callback docs/RECEIVER.md | diff docs/RECEIVER.md - || \
		{ echo 'not ok docs/RECEIVER.md is not what the receiver says: make docs'; exit 1; }

format: ## format the sources
	clang-format -i $(shell git ls-files '*.c' '*.h')

lint: ## check the house rules
	@hack/lint.sh

# ---- house -------------------------------------------------------------------------------------------

clean: ## remove build/
	rm -rf $(BUILD)

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort | awk -F'\t' '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: all lean run demo install install-crd unit fuzz test docs crd check-docs format lint clean help
-include $(LIB_OBJ:.o=.d) $(LEAN_OBJ:.o=.d) $(patsubst %,$(B)/%.d,$(basename $(wildcard cmd/*/*.c test/*/*.c)))
-include $(patsubst %.c,$(FUZZ_B)/%.d,$(FUZZ_SRC) $(LIB_SRC))
