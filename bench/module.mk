# bench/: measurements. mmu-bench: mmu/ alone, no /dev/kvm. The rest: guests in several modes, and their peers, as
# `umbra bench` and `umbra compare`.
MMU_BENCH := $(B)/mmu-bench
$(MMU_BENCH): $(B)/bench/mmu_bench.o $(B)/libumbra-mmu.a
	$(call say,LD)$(CC) -o $@ $^ $(ULDFLAGS)

BENCH_LIB := $(B)/libumbra-bench.a
$(BENCH_LIB): $(filter-out %/mmu_bench.o,$(call objs,bench))
ALL += $(MMU_BENCH) $(BENCH_LIB)

COMPILE_IMAGE := $(B)/compile.cpio.gz
$(COMPILE_IMAGE): $(WORKLOAD) bench/compile-initrd scripts/guest-initrd tests/workload/init
	$(call say,INITRD)bench/compile-initrd -o $@ -d $(B)/compile $(WORKLOAD)

bench-mmu: $(MMU_BENCH)         ## what mmu/ costs: ns per fill, update, resync, prebuild
	$(Q)$(MMU_BENCH)

# Each job also leaves its samples: $(B)/bench-JOB.json
bench_run = $(B)/umbra bench $(1) --json $(B)/bench-$(firstword $(1)).json $(if $(N),-n $(N))

bench:                          ## forks, boot, spin and system calls in several modes, native and QEMU beside; N=rounds
	$(Q)scripts/deps build run test
	$(Q)$(MAKE) -s all initrd kernel
	$(Q)$(call bench_run,forks -n 3)
	$(Q)echo; $(call bench_run,boot -n 3 --modes off-lazy$(comma)shim$(comma)shim-eager-8$(comma)gates-eager-8$(comma)tcg)
	$(Q)echo; $(call bench_run,spin -n 3)
	$(Q)echo; $(call bench_run,micro -n 1)

bench-compile:                  ## 5 C files through cc1 -O2 and as, the same way; N=rounds
	$(Q)scripts/deps build run test bench
	$(Q)$(MAKE) -s all kernel $(COMPILE_IMAGE)
	$(Q)$(call bench_run,compile -n 3)

bench-kbuild:                   ## a Linux kernel build, the same way; SIZE=small, tiny or defconfig, N=rounds (hours)
	$(Q)scripts/deps build run test kbuild
	$(Q)$(MAKE) -s all initrd kernel
	$(Q)scripts/guest-image $(if $(filter defconfig,$(SIZE)),--full)
	$(Q)$(call bench_run,kbuild=$(or $(SIZE),small) -n 3)
.PHONY: bench-mmu bench bench-compile bench-kbuild
