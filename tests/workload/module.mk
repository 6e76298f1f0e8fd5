# tests/workload/: the program that guests run. Static and stripped; the same on the host, to compare with.
# Sanitizers do not apply: it is no part of the VMM, and they have no static run-time.
WORKLOAD     := $(B)/workload
WORKLOAD_SRC := $(filter-out tests/workload/compat32.c,$(sort $(wildcard tests/workload/*.c)))
WORKLOAD_CC   = $(CC) -std=gnu17 $(WARN) -O2 -ffile-prefix-map=$(CURDIR)=.

$(WORKLOAD): $(WORKLOAD_SRC) $(wildcard tests/workload/*.h) tests/workload/compat32_elf.S $(B)/compat32
	@mkdir -p $(@D)
	$(call say,LD)$(WORKLOAD_CC) -static -pthread -D_GNU_SOURCE -s '-DCOMPAT32="$(B)/compat32"' \
		-o $@ $(filter %.c %.S,$^)

$(B)/compat32: tests/workload/compat32.c
	@mkdir -p $(@D)
	$(call say,LD)$(WORKLOAD_CC) -m32 -march=i686 -mno-sse -fno-pic -no-pie -fno-stack-protector -ffreestanding \
		-nostdlib -static -s -o $@ $<

ALL += $(WORKLOAD)
