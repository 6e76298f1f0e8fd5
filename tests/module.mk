# Unit tests: every tests/unit/test_*.c is a cmocka program, linked with the other files there. test_<module>_* is
# linked with the library of that module alone if there is one, any other test with all of them.
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(sort $(wildcard tests/unit/test_*.c)))
# An archive, so that a test gets only the helpers it uses, and the libraries only what those need.
UNIT_HELP_LIB := $(B)/tests/unit/help.a
$(UNIT_HELP_LIB): $(filter-out $(UNIT_TESTS:%=%.o),$(call objs,tests/unit))

# What a module's library is linked with besides, when it is tested alone.
UNIT_LD_bench := -ljansson -lm
UNIT_LD_report := -ljansson -lm
UNIT_ALSO_report := $(B)/libumbra-bench.a
UNIT_LD_cli := -ljansson
UNIT_LD_numa := -lnuma
UNIT_ALSO_cli := $(B)/libumbra-helper.a $(B)/libumbra-numa.a $(B)/libumbra-mmu.a

# The libraries are known only once every fragment was read.
unit_module = $(word 2,$(subst _, ,$(notdir $(1))))
unit_libs = $(or $(filter $(B)/libumbra-$(call unit_module,$(1)).a,$(ALL)),$(filter $(B)/libumbra-%.a,$(ALL))) \
	$(UNIT_ALSO_$(call unit_module,$(1)))
.SECONDEXPANSION:
$(UNIT_TESTS): $(B)/%: $(B)/%.o $(UNIT_HELP_LIB) $$(call unit_libs,$$@)
	$(call say,LD)$(CC) $(UCFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group \
		$(ULDFLAGS) -lcmocka $(if $(filter %-vmm.a,$^),$(VMM_LIBS)) $(UNIT_LD_$(call unit_module,$@))

# A failure stops the rest, shows the log and names the binary to run again. UMBRA_SEED and UMBRA_STEPS reach the
# random programs.
unit: $(UNIT_TESTS)             ## run the unit tests
	$(Q)for t in $(UNIT_TESTS); do \
		start=$${EPOCHREALTIME/./}; \
		$$t >$$t.log 2>&1 || { cat $$t.log; echo "unit: $$t failed" >&2; exit 1; }; \
		printf '  %-24s ok  %3d tests %6d ms\n' $${t##*/} $$(grep -c '^\[       OK \]' $$t.log) \
			$$((($${EPOCHREALTIME/./} - start) / 1000)); \
	done

check-asan:                     ## run the unit tests under AddressSanitizer and UBSan
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined B=$(B)-address-undefined unit
check-tsan:                     ## run the unit tests under ThreadSanitizer
	$(Q)$(MAKE) --no-print-directory SAN=thread B=$(B)-thread unit

.PHONY: unit check-asan check-tsan
