# cli/: the `umbra` command, one file per subcommand. All but main() is a library, for the tests.
CLI_LIB := $(B)/libumbra-cli.a
$(CLI_LIB): $(filter-out %/umbra.o,$(call objs,cli))

UMBRA := $(B)/umbra
$(UMBRA): $(B)/cli/umbra.o $(CLI_LIB) $(B)/libumbra-report.a $(B)/libumbra-bench.a $(B)/libumbra-vmm.a $(B)/libumbra-helper.a $(B)/libumbra-numa.a $(B)/libumbra-mmu.a
	$(call say,LD)$(CC) -o $@ $^ $(ULDFLAGS) $(VMM_LIBS)
ALL += $(CLI_LIB) $(UMBRA)
