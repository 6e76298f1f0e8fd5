# Fuzzers; they belong in a sanitizer build: make SAN=address,undefined fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 20
$(B)/tests/fuzz/fuzz_image: $(B)/tests/fuzz/fuzz_image.o $(B)/libumbra-vmm.a
	$(call say,LD)$(CC) $(UCFLAGS) -o $@ $< $(B)/libumbra-vmm.a $(ULDFLAGS) $(VMM_LIBS)

fuzz: $(B)/tests/fuzz/fuzz_image ## throw damaged kernels at the loader
	$(Q)$< $(FUZZ_SECONDS)

.PHONY: fuzz
