/*
 * cpuid.h - between cpuid.c, cpuid_features.c and their tests: what the guest sees of the processor.
 */
#ifndef UMBRA_VMM_CPUID_H
#define UMBRA_VMM_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/kvm.h>

/* XCR0 (SDM vol. 1, 13.3). What a guest is ever offered: AVX-512 is all three bits or none. */
#define XCR0_FP		0x1u
#define XCR0_SSE	0x2u
#define XCR0_AVX	0x4u
#define XCR0_AVX512	0xe0u
#define XCR0_OFFERED	(XCR0_FP | XCR0_SSE | XCR0_AVX | XCR0_AVX512)

/* The 32-bit words in which CPUID reports features. */
enum cpuid_word {
	CPUID_1C, CPUID_1D, CPUID_7B, CPUID_7C, CPUID_7D, CPUID_71A, CPUID_D1A, CPUID_E1C, CPUID_E1D, CPUID_E7D,
	CPUID_E8B, CPUID_E21A, CPUID_WORDS
};

/* One feature bit. A bit without a row is hidden. */
struct cpuid_feature {
	uint8_t word, bit;
	uint8_t xcr0;		/* needs these XCR0 bits */
	const char *name;
	const char *hidden;	/* why the guest does not get it; NULL: it does, if the processor has it */
};

extern const struct cpuid_feature cpuid_features[];
extern const unsigned cpuid_nr_features;
/* Where a word stands: leaf, subleaf, register 0-3. */
extern const struct cpuid_place {
	uint32_t leaf, sub;
	uint8_t reg;
} cpuid_places[CPUID_WORDS];

struct cpuid_source {
	void (*native)(uint32_t leaf, uint32_t sub, uint32_t out[4]);
	const struct kvm_cpuid2 *supported;	/* KVM_GET_SUPPORTED_CPUID, NULL: the guest executes CPUID natively */
	uint64_t tsc_khz;			/* 0: unknown */
	bool tsc_constant;
	unsigned vcpus;
};

/* Makes the table that a guest sees. To be freed. -ENOMEM. */
int cpuid_policy(const struct cpuid_source *s, struct kvm_cpuid2 **out);
/* Leaf and subleaf of a table; zeros if it has none (as Xen, and AMD's processors). */
void cpuid_lookup(const struct kvm_cpuid2 *t, uint32_t leaf, uint32_t sub, uint32_t out[4]);
/* See cpuid_xsave_bytes() in emulate.h. */
uint32_t cpuid_area_bytes(const struct kvm_cpuid2 *t, uint64_t xcr0, bool compacted);

#endif
