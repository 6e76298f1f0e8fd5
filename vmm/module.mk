# vmm/: the virtual machine monitor.
VMM_LIB  := $(B)/libumbra-vmm.a
VMM_LIBS := -lZydis -ljansson -lz -llzma -lzstd -llz4 -llzo2 -lbz2 -lnuma -lm
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

# What runs inside the guest: no vectors, no stack protector, no calls out of its section.
EXTRA_vmm_shim_code := -O2 -ffreestanding -fno-stack-protector -fcf-protection=none -mgeneral-regs-only -mfsgsbase \
	-fno-jump-tables -fPIE -fno-asynchronous-unwind-tables -fno-sanitize=all -Wno-missing-prototypes
