# cli/: the `umbra` command, one file per subcommand.
UMBRA := $(B)/umbra
$(UMBRA): $(call objs,cli) $(B)/libumbra-vmm.a $(B)/libumbra-mmu.a
	$(call say,LD)$(CC) -o $@ $^ $(ULDFLAGS) $(VMM_LIBS)
ALL += $(UMBRA)
