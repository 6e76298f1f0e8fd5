# bench/: measurements of mmu/ alone, no /dev/kvm.
MMU_BENCH := $(B)/mmu-bench
$(MMU_BENCH): $(B)/bench/mmu_bench.o $(B)/libumbra-mmu.a
	$(call say,LD)$(CC) -o $@ $^ $(ULDFLAGS)
ALL += $(MMU_BENCH)

bench-mmu: $(MMU_BENCH)         ## what mmu/ costs: ns per fill, update, resync, prebuild
	$(Q)$(MMU_BENCH)
.PHONY: bench-mmu
