# mmu/: shadow paging as a library; needs neither KVM nor Xen headers.
MMU_LIB := $(B)/libumbra-mmu.a
$(MMU_LIB): $(call objs,mmu)
ALL += $(MMU_LIB)
