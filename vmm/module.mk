# vmm/: the virtual machine monitor.
VMM_LIB  := $(B)/libumbra-vmm.a
VMM_LIBS := -lZydis -ljansson -lz -llzma -lzstd -llz4 -llzo2 -lbz2 -lm
$(VMM_LIB): $(call objs,vmm)
ALL += $(VMM_LIB)

# version.h is written anew only when it differs, so that version.o follows `git describe` and nothing else does.
EXTRA_vmm_version := -I$(B)
$(B)/vmm/version.o: $(B)/version.h
$(B)/version.h: FORCE
	@mkdir -p $(@D)
	@echo '#define UMBRA_VERSION "$(VERSION)"' | cmp -s - $@ || echo '#define UMBRA_VERSION "$(VERSION)"' > $@
FORCE:
.PHONY: FORCE
