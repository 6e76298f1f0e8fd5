# numa/: host topology, and where the guest's memory and vCPUs are put.
NUMA_LIB := $(B)/libumbra-numa.a
$(NUMA_LIB): $(call objs,numa)
ALL += $(NUMA_LIB)
