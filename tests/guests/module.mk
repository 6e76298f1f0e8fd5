# Tiny PV64 kernels: `make guests` builds $(B)/guests/KERNEL.elf. A kernel is KERNEL.c, or several files named below, and
# the library, in one or more flavours; the first flavour keeps the plain name, others are KERNEL-FLAVOUR.elf.
#   high   linked at -2 GiB like Linux, `syscall` inline          page   the same, calls through the hypercall page
#   low    linked in the lower half, at 1 GiB                     old    at 0, hypercall page, __xen_guest section, no notes
GUEST_DIR     := $(B)/guests
GUEST_KERNELS := hello:high,page,low,old traps:high,low user:high,page mmu:high,old events:page,high hostile:high wait:high shim:page,high hostile_shim:page smp:page,high stress:page,high moves:page,high numa:page,high nested:high,page vnuma:page,high
GUEST_SOURCES_traps := exceptions privileged debug breakpoints
GUEST_SOURCES_user  := user user_segments user_compat
GUEST_SOURCES_events := events timers
GUEST_SOURCES_hostile := hostile hostile_cpu
GUEST_SOURCES_shim  := shim shim_frames shim_events
GUEST_SOURCES_mmu   := mmu_calls mmu_access mmu_tables

GUEST_CFLAGS := -std=gnu17 $(WARN) -Wno-address-of-packed-member -O2 -g -ffreestanding -fno-strict-aliasing -fno-pie \
	-fno-stack-protector -fno-asynchronous-unwind-tables -fno-toplevel-reorder -fcf-protection=none -mno-red-zone -mgeneral-regs-only \
	-D__XEN_INTERFACE_VERSION__=0x00040d00 -Itests/guests -I.
GUEST_FLAGS_high := -mcmodel=kernel
GUEST_FLAGS_page := -mcmodel=kernel -DHYPERCALL_BY_PAGE
GUEST_FLAGS_low  := -mcmodel=small -DBARE_SYSCALL
GUEST_FLAGS_old  := -mcmodel=small -DHYPERCALL_BY_PAGE -DOLD_GUEST_SECTION
GUEST_BASE_high  := 0xffffffff80000000
GUEST_BASE_page  := 0xffffffff80000000
GUEST_BASE_low   := 0x40000000
GUEST_BASE_old   := 0

GUEST_ELFS :=
guest_lib = $(patsubst tests/guests/%,$(GUEST_DIR)/obj-$(1)/%.o,$(basename $(filter-out %.lds.S,$(wildcard tests/guests/lib/*.[cS]))))

define guest_flavour
$(GUEST_DIR)/obj-$(1)/%.o: tests/guests/%.c
	@mkdir -p $$(@D)
	$$(call say,CC)$$(CC) $$(GUEST_CFLAGS) $$(GUEST_FLAGS_$(1)) -MMD -MP -c -o $$@ $$<
$(GUEST_DIR)/obj-$(1)/%.o: tests/guests/%.S
	@mkdir -p $$(@D)
	$$(call say,AS)$$(CC) $$(GUEST_CFLAGS) $$(GUEST_FLAGS_$(1)) -MMD -MP -c -o $$@ $$<
$(GUEST_DIR)/obj-$(1)/guest.lds: tests/guests/lib/guest.lds.S
	@mkdir -p $$(@D)
	$$(call say,LDS)$$(CC) -E -P -x assembler-with-cpp -DVIRT_BASE=$$(GUEST_BASE_$(1)) -o $$@ $$<
endef
$(foreach f,high page low old,$(eval $(call guest_flavour,$(f))))

# $(1) kernel, $(2) flavour, $(3) name of the image
define guest_kernel
GUEST_ELFS += $(GUEST_DIR)/$(3).elf
$(GUEST_DIR)/$(3).elf: $(GUEST_DIR)/obj-$(2)/guest.lds $(patsubst %,$(GUEST_DIR)/obj-$(2)/%.o,$(or $(GUEST_SOURCES_$(1)),$(1))) $(call guest_lib,$(2))
	$$(call say,LD)$$(CC) -static -nostdlib -no-pie -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments -o $$@ \
		-T $$< $$(filter %.o,$$^)
endef
guest_split = $(subst $(comma), ,$(lastword $(subst :, ,$(1))))
$(foreach k,$(GUEST_KERNELS),$(foreach n,$(firstword $(subst :, ,$(k))),$(foreach f,$(call guest_split,$(k)), \
	$(eval $(call guest_kernel,$(n),$(f),$(n)$(if $(filter-out $(firstword $(call guest_split,$(k))),$(f)),-$(f)))))))

guests: $(GUEST_ELFS)           ## build the tiny test kernels
.PHONY: guests
