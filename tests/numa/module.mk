# tests/numa: what a guest's placement is worth. numa-record runs tests/guests/numa.c and writes down where its pages are;
# scripts/numa-share computes from that.
NUMA_RECORD := $(B)/numa-record
$(NUMA_RECORD): $(call objs,tests/numa)
	$(call say,LD)$(CC) -o $@ $^ $(ULDFLAGS)
ALL += $(NUMA_RECORD)
