/*
 * test_vmm_cpuid.c - what the guest sees of processors that have everything, little, or this host's features.
 */
#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/cpuid.h"
#include "vmm/xen.h"

/* ---- processors ----------------------------------------------------------------------------------------------- */

static uint64_t host_xcr0;	/* of the synthetic processors */

/* Offsets and sizes of the components, as on every processor that has them (SDM vol. 1, 13.5; Linux: xstate.h). */
static void xsave_leaf(uint32_t sub, uint32_t out[4])
{
	static const uint32_t sizes[][3] = {	/* component: size, offset, flags */
		[2] = { 256, 576, 0 }, [5] = { 64, 1088, 0 }, [6] = { 512, 1152, 0 }, [7] = { 1024, 1664, 0 },
		[9] = { 8, 2688, 0 }, [17] = { 64, 2752, 2 }, [18] = { 8192, 2816, 6 },
	};

	memset(out, 0, 16);
	if (sub == 0) {
		out[0] = host_xcr0;
	} else if (sub == 1) {
		out[0] = 0x1f;
	} else if (sub < sizeof sizes / sizeof *sizes && host_xcr0 >> sub & 1) {
		out[0] = sizes[sub][0];
		out[1] = sizes[sub][1];
		out[2] = sizes[sub][2];
	}
}

/* An Intel processor with every feature bit set, known or not. */
static void everything(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	memset(out, 0xff, 16);
	switch (leaf) {
	case 0:
		out[0] = 0x20;
		out[1] = signature_INTEL_ebx;
		out[2] = signature_INTEL_ecx;
		out[3] = signature_INTEL_edx;
		break;
	case 1:
		out[0] = 0x000a0678;
		break;
	case 4:		/* L1d, L1i, L2, L3, shared by 64 and 128 threads */
		memset(out, 0, 16);
		if (sub < 4)
			out[0] = (sub == 0 ? 1 : sub == 1 ? 2 : 3) | (sub < 2 ? 1 : sub) << 5 | 63u << 26 |
				 127 << 14 | 1 << 8;
		break;
	case 7:
		if (sub == 0)
			out[0] = 2;
		break;
	case 0xd:
		xsave_leaf(sub, out);
		break;
	case 0x80000000:
		out[0] = 0x80000028;
		break;
	case 0x80000008:
		out[0] = 46 | 57 << 8;
		break;
	}
}

static void everything_amd(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	everything(leaf, sub, out);
	if (leaf == 0) {
		out[0] = 0x10;
		out[1] = signature_AMD_ebx;
		out[2] = signature_AMD_ecx;
		out[3] = signature_AMD_edx;
	}
}

/* The least a 64-bit processor has; leaves beyond its largest answer with garbage, as Intel's do. */
static void small(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	memset(out, 0xa5, 16);
	switch (leaf) {
	case 0:
		out[0] = 2;
		break;
	case 1:
		out[0] = 0x6f0;
		out[2] = 0x2001;
		out[3] = 0x0febfbff;
		break;
	case 4:
		memset(out, 0, 16);
		break;
	case 0x80000000:
		out[0] = 0x80000004;
		break;
	case 0x80000001:
		out[2] = 1;
		out[3] = 0x20100800;
		break;
	}
}

static void this_host(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	__cpuid_count(leaf, sub, out[0], out[1], out[2], out[3]);
}

static struct kvm_cpuid2 *policy(void (*native)(uint32_t, uint32_t, uint32_t[4]), const struct kvm_cpuid2 *supported,
				 unsigned vcpus)
{
	struct cpuid_source s = {
		.native = native, .supported = supported, .tsc_khz = 2345678, .tsc_constant = true, .vcpus = vcpus,
	};
	struct kvm_cpuid2 *t = NULL;

	assert_int_equal(cpuid_policy(&s, &t), 0);
	return t;
}

static uint32_t reg(const struct kvm_cpuid2 *t, uint32_t leaf, uint32_t sub, unsigned r)
{
	uint32_t out[4];

	cpuid_lookup(t, leaf, sub, out);
	return out[r];
}

static uint32_t word(const struct kvm_cpuid2 *t, enum cpuid_word w)
{
	return reg(t, cpuid_places[w].leaf, cpuid_places[w].sub, cpuid_places[w].reg);
}

static bool has(const struct kvm_cpuid2 *t, const char *name)
{
	for (unsigned i = 0; i < cpuid_nr_features; i++) {
		const struct cpuid_feature *f = &cpuid_features[i];

		if (!strcmp(f->name, name) && word(t, f->word) >> f->bit & 1)
			return true;
	}
	return false;
}

/* ---- the table itself ----------------------------------------------------------------------------------------- */

static void test_rows_are_unique(void **state)
{
	for (unsigned i = 0; i < cpuid_nr_features; i++) {
		const struct cpuid_feature *f = &cpuid_features[i];

		assert_true(f->word < CPUID_WORDS && f->bit < 32 && f->name);
		assert_true(!f->hidden || f->hidden[0]);
		for (unsigned k = 0; k < i; k++)
			assert_false(cpuid_features[k].word == f->word && cpuid_features[k].bit == f->bit);
	}
}

/* Bits the guest may have that need no row: filled in by the topology, or repeated by AMD. */
static uint32_t extra_bits(enum cpuid_word w, bool amd, unsigned vcpus)
{
	if (w == CPUID_1D && vcpus > 1)
		return 1u << 28;
	if (w == CPUID_E1D && amd)
		return 0x0183f3ff;
	return w == CPUID_E1C && amd && vcpus > 1 ? 2 : 0;
}

static void check_shown_exactly(void (*native)(uint32_t, uint32_t, uint32_t[4]), bool amd, unsigned vcpus,
				uint64_t xcr0)
{
	struct kvm_cpuid2 *t;

	host_xcr0 = xcr0;
	t = policy(native, NULL, vcpus);
	for (unsigned w = 0; w < CPUID_WORDS; w++) {
		uint32_t want = 0, got = word(t, w) & ~extra_bits(w, amd, vcpus);

		if (w == CPUID_E21A && !amd)
			continue;
		for (unsigned i = 0; i < cpuid_nr_features; i++) {
			const struct cpuid_feature *f = &cpuid_features[i];

			if (f->word == w && !f->hidden && !(f->xcr0 & ~xcr0))
				want |= 1u << f->bit;
		}
		assert_int_equal(got, want & ~extra_bits(w, amd, vcpus));
	}
	free(t);
}

/* A processor with all bits set gives away every feature that is shown, and no other bit. */
static void test_everything(void **state)
{
	for (unsigned n = 1; n <= 3; n++) {
		check_shown_exactly(everything, false, n, 0xe7);
		check_shown_exactly(everything_amd, true, n, 0xe7);
		check_shown_exactly(everything, false, n, 0x7);
		check_shown_exactly(everything, false, n, 0x3);
	}
}

static void test_never_shown(void **state)
{
	static const char *const names[] = {
		"monitor", "vmx", "svm", "pcid", "pdcm", "dtes64", "x2apic", "tsc_deadline", "vme", "pse", "mce", "mca",
		"mtrr", "pge", "pse36", "ds", "fsgsbase", "smep", "smap", "invpcid", "umip", "pku", "ospke", "la57",
		"rdpid", "cet_ss", "cet_ibt", "amx_bf16", "amx_tile", "amx_int8", "xsaves", "pdpe1gb", "topoext", "sep",
		"hle", "rtm",
	};
	struct kvm_cpuid2 *t;

	host_xcr0 = 0x602e7;
	t = policy(everything, NULL, 1);
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		unsigned rows = 0;

		for (unsigned k = 0; k < cpuid_nr_features; k++)
			rows += !strcmp(cpuid_features[k].name, names[i]);
		assert_int_equal(rows, 1);
		assert_false(has(t, names[i]));
	}
	assert_int_equal(reg(t, 0xa, 0, 0), 0);		/* no performance counters */
	assert_int_equal(reg(t, 5, 0, 2), 0);		/* no mwait */
	assert_int_equal(reg(t, 0x14, 0, 0), 0);
	assert_int_equal(reg(t, 7, 2, 3), 0);
	assert_true(has(t, "hypervisor"));
	assert_true(has(t, "apic"));
	free(t);
}

/* ---- what goes together --------------------------------------------------------------------------------------- */

static void test_xsave_dependencies(void **state)
{
	struct kvm_cpuid2 *t;

	host_xcr0 = 0x602e7;	/* AMX and PKU are not passed on */
	t = policy(everything, NULL, 1);
	assert_int_equal(reg(t, 0xd, 0, 0), 0xe7);
	assert_true(has(t, "avx512f") && has(t, "avx2") && has(t, "xsave") && has(t, "osxsave"));
	assert_int_equal(reg(t, 0xd, 0, 2), 2688);
	assert_int_equal(reg(t, 0xd, 1, 1), 576 + 256 + 64 + 512 + 1024);
	assert_int_equal(reg(t, 0xd, 9, 0) | reg(t, 0xd, 17, 0) | reg(t, 0xd, 18, 0), 0);
	free(t);

	host_xcr0 = 0x67;	/* half of AVX-512 is none */
	t = policy(everything, NULL, 1);
	assert_int_equal(reg(t, 0xd, 0, 0), 0x7);
	assert_true(has(t, "avx2") && !has(t, "avx512f") && !has(t, "avx512_vnni"));
	assert_int_equal(reg(t, 0xd, 0, 2), 832);
	free(t);

	host_xcr0 = 0x3;
	t = policy(everything, NULL, 1);
	assert_true(has(t, "xsave") && !has(t, "avx") && !has(t, "fma") && !has(t, "vaes") && !has(t, "f16c"));
	assert_int_equal(reg(t, 0xd, 0, 2), 576);
	free(t);

	host_xcr0 = 0;
	t = policy(everything, NULL, 1);
	assert_false(has(t, "xsave") || has(t, "osxsave") || has(t, "avx") || has(t, "xsaveopt"));
	assert_int_equal(reg(t, 0xd, 0, 0), 0);
	free(t);
}

static void test_area_sizes(void **state)
{
	static const struct {
		uint64_t xcr0;
		uint32_t standard, compacted;
	} sizes[] = {
		{ 1, 576, 576 }, { 3, 576, 576 }, { 7, 832, 832 }, { 0xe7, 2688, 2432 }, { 0xe3, 2688, 2176 },
	};
	struct kvm_cpuid2 *t;

	host_xcr0 = 0xe7;
	t = policy(everything, NULL, 1);
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		assert_int_equal(cpuid_area_bytes(t, sizes[i].xcr0, false), sizes[i].standard);
		assert_int_equal(cpuid_area_bytes(t, sizes[i].xcr0, true), sizes[i].compacted);
	}
	free(t);
}

/* What KVM cannot offer is taken out, but for the bits that are not the processor's. */
static void test_supported_masks(void **state)
{
	struct kvm_cpuid2 *all, *some, *t;

	host_xcr0 = 0xe7;
	all = policy(everything, NULL, 1);
	some = malloc(sizeof *some + all->nent * sizeof all->entries[0]);
	memcpy(some, all, sizeof *some + all->nent * sizeof all->entries[0]);
	t = policy(everything, all, 1);
	for (unsigned w = 0; w < CPUID_WORDS; w++)
		assert_int_equal(word(t, w), word(all, w));
	free(t);

	for (unsigned i = 0; i < some->nent; i++) {
		struct kvm_cpuid_entry2 *e = &some->entries[i];

		if (e->function == 1)
			e->ecx &= ~(1u << 25 | 1u << 31 | 1u << 27);	/* aes; hypervisor and osxsave come back */
		if (e->function == 7 && e->index == 0)
			e->ebx = 0;
		if (e->function == 0xd && e->index == 0)
			e->eax = 7;
		if (e->function == 0x80000008)
			e->eax = 39 | 48 << 8;
	}
	t = policy(everything, some, 1);
	assert_true(!has(t, "aes") && has(t, "hypervisor") && has(t, "osxsave") && has(t, "ssse3"));
	assert_true(!has(t, "avx512f") && !has(t, "bmi1"));
	assert_int_equal(reg(t, 0xd, 0, 0), 7);
	assert_int_equal(reg(t, 0x80000008, 0, 0), 39 | 48 << 8);
	free(t);
	free(some);
	free(all);
}

/* ---- topology, Xen, odd processors ---------------------------------------------------------------------------- */

static void test_topology(void **state)
{
	static const struct {
		unsigned vcpus, ids;
	} sizes[] = { { 1, 1 }, { 2, 2 }, { 3, 4 }, { 8, 8 }, { 9, 16 }, { 32, 32 } };

	host_xcr0 = 7;
	for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		unsigned n = sizes[i].vcpus, ids = sizes[i].ids;
		struct kvm_cpuid2 *t = policy(everything, NULL, n);

		assert_int_equal(reg(t, 1, 0, 1) >> 16, ids);
		assert_int_equal(has(t, "htt"), n > 1);
		for (unsigned c = 0; c < 4; c++) {
			uint32_t eax = reg(t, 4, c, 0);

			assert_int_equal((eax >> 26) + 1, ids);
			assert_int_equal((eax >> 14 & 0xfff) + 1, c == 3 ? ids : 1);
		}
		assert_int_equal(reg(t, 4, 4, 0), 0);
		assert_int_equal(reg(t, 0xb, 1, 1), n);
		assert_int_equal(1u << reg(t, 0xb, 1, 0), ids);
		assert_int_equal(reg(t, 0xb, 1, 2), 2 << 8 | 1);
		free(t);

		t = policy(everything_amd, NULL, n);
		assert_int_equal((reg(t, 0x80000008, 0, 2) & 0xff) + 1, n);
		assert_int_equal(1u << (reg(t, 0x80000008, 0, 2) >> 12), ids);
		assert_int_equal(has(t, "cmp_legacy"), n > 1);
		free(t);
	}
}

static void test_xen_leaves(void **state)
{
	char name[13] = "";
	struct kvm_cpuid2 *t;

	host_xcr0 = 7;
	t = policy(everything, NULL, 1);
	for (unsigned i = 0; i < 3; i++)
		memcpy(name + i * 4, &(uint32_t){ reg(t, 0x40000000, 0, i + 1) }, 4);
	assert_string_equal(name, "XenVMMXenVMM");
	assert_true(reg(t, 0x40000000, 0, 0) >= 0x40000002);
	assert_int_equal(reg(t, 0x40000001, 0, 0), 4 << 16 | 17);
	assert_int_equal(reg(t, 0x40000002, 0, 2) & 1, 1);
	assert_int_equal(reg(t, 0x40000003, 0, 2), 2345678);
	assert_int_equal(reg(t, 0x40000003, 2, 0), 2345678);
	assert_int_equal(reg(t, 0x40000005, 0, 1), 46);
	/* The TSC from the crystal: ECX * EBX / EAX (SDM vol. 2A, leaf 15h). */
	assert_int_equal((uint64_t)reg(t, 0x15, 0, 2) * reg(t, 0x15, 0, 1) / reg(t, 0x15, 0, 0), 2345678000ull);
	assert_int_equal(reg(t, 0x16, 0, 0), 2345);
	free(t);
}

static void test_small_processor(void **state)
{
	struct kvm_cpuid2 *t;

	host_xcr0 = 0;
	t = policy(small, NULL, 1);
	assert_int_equal(word(t, CPUID_7B) | word(t, CPUID_7C) | word(t, CPUID_7D) | word(t, CPUID_71A), 0);
	assert_int_equal(word(t, CPUID_D1A) | word(t, CPUID_E7D) | word(t, CPUID_E8B), 0);
	assert_false(has(t, "xsave"));
	assert_true(has(t, "sse3") && has(t, "cx16") && has(t, "lm") && has(t, "nx") && has(t, "syscall"));
	assert_int_equal(reg(t, 0x80000008, 0, 0), 36 | 48 << 8);
	assert_int_equal(reg(t, 0x80000005, 0, 0), 0);
	free(t);
}

static void check_well_formed(const struct kvm_cpuid2 *t)
{
	for (unsigned i = 0; i < t->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &t->entries[i];

		for (unsigned k = 0; k < i; k++)
			assert_false(t->entries[k].function == e->function &&
				     (t->entries[k].index == e->index ||
				      !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)));
		if (e->function < 0x40000000)
			assert_true(e->function <= reg(t, 0, 0, 0));
		else if (e->function >= 0x80000000)
			assert_true(e->function <= reg(t, 0x80000000, 0, 0));
		else
			assert_true(e->function <= reg(t, 0x40000000, 0, 0));
	}
}

static void test_well_formed(void **state)
{
	void (*const hosts[])(uint32_t, uint32_t, uint32_t[4]) = { everything, everything_amd, small, this_host };

	host_xcr0 = 0x602e7;
	for (unsigned i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		struct kvm_cpuid2 *t = policy(hosts[i], NULL, 5);

		check_well_formed(t);
		for (uint32_t leaf = 0x17; leaf < 0x30; leaf++)
			for (unsigned r = 0; r < 4; r++)
				assert_int_equal(reg(t, leaf, 0, r), 0);
		assert_int_equal(reg(t, 0x40000100, 0, 0) | reg(t, 0xffffffff, 0, 0), 0);
		free(t);
	}
}

/* Nothing is shown that this processor does not have. */
static void test_this_host(void **state)
{
	struct kvm_cpuid2 *t = policy(this_host, NULL, 1);
	uint32_t out[4], lo, hi;

	for (unsigned w = 0; w < CPUID_WORDS; w++) {
		if (!word(t, w))
			continue;
		this_host(cpuid_places[w].leaf, cpuid_places[w].sub, out);
		assert_int_equal(word(t, w) & ~out[cpuid_places[w].reg] & ~(w == CPUID_1C ? 1u << 31 : 0), 0);
	}
	/* Where exactly the offered features are on, the processor's own sizes are known. */
	this_host(1, 0, out);
	if (out[2] & 1 << 27) {
		asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		this_host(0xd, 0, out);
		if (lo == reg(t, 0xd, 0, 0) && !hi)
			assert_int_equal(out[1], cpuid_area_bytes(t, lo, false));
	}
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_are_unique),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_never_shown),
		cmocka_unit_test(test_xsave_dependencies),
		cmocka_unit_test(test_area_sizes),
		cmocka_unit_test(test_supported_masks),
		cmocka_unit_test(test_topology),
		cmocka_unit_test(test_xen_leaves),
		cmocka_unit_test(test_small_processor),
		cmocka_unit_test(test_well_formed),
		cmocka_unit_test(test_this_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
