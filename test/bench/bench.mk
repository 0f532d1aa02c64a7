# SPDX-License-Identifier: Apache-2.0
# Measurements: each program prints JSON, bench.py runs them and makes the table.

BENCH          := kernel replay connections spool kube receiver
BENCH_PROGRAMS := $(BENCH:%=$(B)/test/bench/bench-%)

$(BUILD)/test/bench/%.bpf.o: test/bench/%.bpf.c bpf/kernel.h
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c $< -o $@.tmp
	$(Q)$(BPFTOOL) gen object $@ $@.tmp && rm -f $@.tmp

$(BUILD)/test/bench/%.skel.h: $(BUILD)/test/bench/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@

$(B)/test/bench/kernel.o: $(BUILD)/test/bench/reference.skel.h
$(B)/test/bench/%.o: CPPFLAGS += -I$(BUILD)

$(B)/test/bench/bench-%: $(B)/test/bench/%.o $(LIB)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

bench-programs: all lean $(B)/test/callback/driver $(BENCH_PROGRAMS)

bench: ## install what is missing, measure, print a table (PARTS='kernel replay web memory callback spool kube operator vm' for some)
	@hack/deps.sh test bench
	@hack/mounts.sh
	@$(MAKE) --no-print-directory bench-programs
	$(Q)$(SUDO) $(if $(OPERATOR_SECONDS),env OPERATOR_SECONDS=$(OPERATOR_SECONDS)) test/bench/bench.py --build $(B) --json $(B)/bench.json $(PARTS)

.PHONY: bench bench-programs
