/*
 * cpuid.c - what the guest sees of the processor: the host's own CPUID, masked by cpuid_features.c, with the guest's
 * topology, TSC and XSAVE sizes, and Xen's leaves (xen/arch-x86/cpuid.h).
 *
 * The base is what this process sees, not KVM_GET_SUPPORTED_CPUID: on a PVM host user code executes CPUID natively and
 * KVM does not list what it cannot intercept. Elsewhere what KVM cannot offer is taken out again.
 */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/cpuid.h"
#include "vmm/emulate.h"
#include "vmm/xen_clock.h"

#define TABLE_MAX	96u	/* entries; build() makes about 50 */
#define SUPPORTED_MAX	256u

#define LEAF_BASIC_MAX	0x16u	/* the TSC and processor frequencies */
#define LEAF_EXT_MAX	0x80000008u
#define LEAF_EXT_AMD	0x80000021u

#define BIT_HYPERVISOR	(1u << 31)
#define BIT_XSAVE	(1u << 26)
#define BIT_OSXSAVE	(1u << 27)
#define BIT_HTT		(1u << 28)
#define BIT_ARAT	(1u << 2)
#define BIT_CONST_TSC	(1u << 8)
#define BIT_CMP_LEGACY	(1u << 1)
#define E1D_FROM_1D	0x0183f3ffu	/* bits that AMD repeats in 8000_0001h EDX */

#define XEN_MAJOR	4u
#define XEN_MINOR	17u
#define XEN_MSR_BASE	0x40000000u

struct builder {
	const struct cpuid_source *s;
	struct kvm_cpuid2 *t;
	uint64_t xcr0;
	bool amd;
	uint32_t apic_ids;	/* vCPUs, rounded up to a power of two */
	uint32_t words[CPUID_WORDS];
};

/* ---- tables --------------------------------------------------------------------------------------------------- */

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *t, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < t->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &t->entries[i];

		if (e->function == leaf && (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == sub))
			return e;
	}
	return NULL;
}

void cpuid_lookup(const struct kvm_cpuid2 *t, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	const struct kvm_cpuid_entry2 *e = find(t, leaf, sub);

	out[0] = e ? e->eax : 0;
	out[1] = e ? e->ebx : 0;
	out[2] = e ? e->ecx : 0;
	out[3] = e ? e->edx : 0;
}

static void add(struct builder *b, uint32_t leaf, uint32_t sub, bool indexed, const uint32_t r[4])
{
	if (b->t->nent == TABLE_MAX)
		abort();	/* build() lays out a bounded number of leaves */
	b->t->entries[b->t->nent++] = (struct kvm_cpuid_entry2){
		.function = leaf, .index = sub, .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = r[0], .ebx = r[1], .ecx = r[2], .edx = r[3],
	};
}

static void add4(struct builder *b, uint32_t leaf, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	add(b, leaf, 0, false, (const uint32_t[4]){ eax, ebx, ecx, edx });
}

/* ---- features ------------------------------------------------------------------------------------------------- */

static uint32_t native_max(const struct cpuid_source *s, uint32_t base)
{
	uint32_t r[4];

	s->native(base, 0, r);
	return r[0] >= base && r[0] < base + 0x10000 ? r[0] : base;
}

static bool has_leaf(const struct cpuid_source *s, uint32_t leaf)
{
	return leaf <= native_max(s, leaf & 0x80000000);
}

static uint32_t feature_word(const struct builder *b, enum cpuid_word w)
{
	const struct cpuid_place *p = &cpuid_places[w];
	uint32_t native[4], kvm[4], show = 0, word;

	if (!has_leaf(b->s, p->leaf))
		return 0;
	for (unsigned i = 0; i < cpuid_nr_features; i++) {
		const struct cpuid_feature *f = &cpuid_features[i];

		if (f->word == w && !f->hidden && !(f->xcr0 & ~b->xcr0))
			show |= 1u << f->bit;
	}
	b->s->native(p->leaf, p->sub, native);
	word = native[p->reg] & show;
	if (b->s->supported) {
		cpuid_lookup(b->s->supported, p->leaf, p->sub, kvm);
		/* Not the processor's own, so KVM's list does not decide about them. */
		if (w == CPUID_1C)
			kvm[p->reg] |= BIT_HYPERVISOR | BIT_OSXSAVE;
		else if (w == CPUID_E7D)
			kvm[p->reg] |= BIT_CONST_TSC;
		word &= kvm[p->reg];
	}
	return word;
}

static uint64_t offered_xcr0(const struct cpuid_source *s)
{
	uint32_t r[4], kvm[4];
	uint64_t x;

	s->native(1, 0, r);
	if (!(r[2] & BIT_XSAVE) || !has_leaf(s, 0xd))
		return 0;
	if (s->supported) {
		cpuid_lookup(s->supported, 1, 0, kvm);
		if (!(kvm[2] & BIT_XSAVE))
			return 0;
	}
	s->native(0xd, 0, r);
	x = r[0] & XCR0_OFFERED;
	if (s->supported) {
		cpuid_lookup(s->supported, 0xd, 0, kvm);
		x &= kvm[0];
	}
	if ((x & XCR0_AVX512) != XCR0_AVX512 || !(x & XCR0_AVX))
		x &= ~(uint64_t)XCR0_AVX512;
	return (x & (XCR0_FP | XCR0_SSE)) == (XCR0_FP | XCR0_SSE) ? x : 0;
}

static void find_features(struct builder *b)
{
	uint32_t *w = b->words;

	for (unsigned i = 0; i < CPUID_WORDS; i++)
		w[i] = feature_word(b, i);
	w[CPUID_1C] |= BIT_HYPERVISOR;
	/* PV kernels take OSXSAVE for 'Xen allows XSAVE' and have no CR4 to set it in before they look. */
	w[CPUID_1C] = w[CPUID_1C] & BIT_XSAVE ? w[CPUID_1C] | BIT_OSXSAVE : w[CPUID_1C] & ~BIT_OSXSAVE;
	if (b->s->vcpus > 1)
		w[CPUID_1D] |= BIT_HTT;
	if (b->amd) {
		w[CPUID_E1D] |= w[CPUID_1D] & E1D_FROM_1D;
		if (b->s->vcpus > 1)
			w[CPUID_E1C] |= BIT_CMP_LEGACY;
	}
	if (!b->s->tsc_constant)
		w[CPUID_E7D] &= ~BIT_CONST_TSC;
}

/* ---- XSAVE ---------------------------------------------------------------------------------------------------- */

uint32_t cpuid_area_bytes(const struct kvm_cpuid2 *t, uint64_t xcr0, bool compacted)
{
	uint32_t end = 576, r[4];	/* legacy region and header */

	for (unsigned i = 2; i < 63; i++) {
		if (!(xcr0 >> i & 1))
			continue;
		cpuid_lookup(t, 0xd, i, r);
		if (!compacted)
			end = r[1] + r[0] > end ? r[1] + r[0] : end;
		else
			end = (r[2] & 2 ? (end + 63) & ~63u : end) + r[0];
	}
	return end;
}

/* Components first: the sizes in subleaves 0 and 1 are computed from them. */
static void add_xsave(struct builder *b)
{
	uint32_t r[4];

	if (!b->xcr0)
		return;
	for (unsigned i = 2; i < 63; i++) {
		if (!(b->xcr0 >> i & 1))
			continue;
		b->s->native(0xd, i, r);
		add(b, 0xd, i, true, (const uint32_t[4]){ r[0], r[1], r[2] & 2, 0 });
	}
	add(b, 0xd, 0, true, (const uint32_t[4]){ b->xcr0, cpuid_area_bytes(b->t, b->xcr0, false),
						  cpuid_area_bytes(b->t, b->xcr0, false), b->xcr0 >> 32 });
	add(b, 0xd, 1, true, (const uint32_t[4]){ b->words[CPUID_D1A],
			     b->words[CPUID_D1A] & 2 ? cpuid_area_bytes(b->t, b->xcr0, true) : 0, 0, 0 });
}

/* ---- topology: one package, one thread per core, the last level of cache shared ------------------------------- */

static void add_caches(struct builder *b)
{
	uint32_t r[4];

	if (b->amd)
		return;
	for (unsigned i = 0; i < 8; i++) {
		b->s->native(4, i, r);
		if (!(r[0] & 0x1f))
			break;
		r[0] &= 0x3fff;
		if ((r[0] >> 5 & 7) >= 3)
			r[0] |= (b->apic_ids - 1) << 14;
		r[0] |= (b->apic_ids - 1 < 63 ? b->apic_ids - 1 : 63) << 26;
		add(b, 4, i, true, r);
	}
}

static void add_topology(struct builder *b)
{
	unsigned bits = __builtin_ctz(b->apic_ids);

	add(b, 0xb, 0, true, (const uint32_t[4]){ 0, 1, 1 << 8, 0 });			/* threads */
	add(b, 0xb, 1, true, (const uint32_t[4]){ bits, b->s->vcpus, 2 << 8 | 1, 0 });	/* cores */
}

/* ---- leaves --------------------------------------------------------------------------------------------------- */

static void add_basic(struct builder *b)
{
	const struct cpuid_source *s = b->s;
	uint32_t r[4];

	s->native(0, 0, r);
	add4(b, 0, LEAF_BASIC_MAX, r[1], r[2], r[3]);
	s->native(1, 0, r);
	/* The APIC ID is 0 on every vCPU, as with Xen: a PV guest numbers its vCPUs itself. */
	add4(b, 1, r[0], (b->apic_ids & 0xff) << 16 | (r[1] & 0xff00), b->words[CPUID_1C], b->words[CPUID_1D]);
	if (has_leaf(s, 2) && !b->amd) {
		s->native(2, 0, r);
		add(b, 2, 0, false, r);
	}
	add_caches(b);
	if (has_leaf(s, 6)) {
		s->native(6, 0, r);
		add4(b, 6, r[0] & BIT_ARAT, 0, 0, 0);
	}
	add(b, 7, 0, true, (const uint32_t[4]){ b->words[CPUID_71A] ? 1 : 0, b->words[CPUID_7B], b->words[CPUID_7C],
						b->words[CPUID_7D] });
	if (b->words[CPUID_71A])
		add(b, 7, 1, true, (const uint32_t[4]){ b->words[CPUID_71A], 0, 0, 0 });
	add_topology(b);
	add_xsave(b);
	if (s->tsc_khz) {	/* a crystal of 1 MHz; without them, kernels try to calibrate against a PIT */
		add4(b, 0x15, 1000, s->tsc_khz, 1000000, 0);
		add4(b, 0x16, s->tsc_khz / 1000, s->tsc_khz / 1000, 100, 0);
	}
}

static uint32_t phys_bits(const struct cpuid_source *s)
{
	uint32_t r[4], kvm[4], bits = 36;

	if (has_leaf(s, 0x80000008)) {
		s->native(0x80000008, 0, r);
		bits = r[0] & 0xff;
	}
	if (s->supported) {
		cpuid_lookup(s->supported, 0x80000008, 0, kvm);
		if ((kvm[0] & 0xff) && (kvm[0] & 0xff) < bits)
			bits = kvm[0] & 0xff;
	}
	return bits;
}

static void add_extended(struct builder *b)
{
	const struct cpuid_source *s = b->s;
	bool far = b->amd && has_leaf(s, LEAF_EXT_AMD);
	uint32_t r[4];

	s->native(0x80000000, 0, r);
	add4(b, 0x80000000, far ? LEAF_EXT_AMD : LEAF_EXT_MAX, r[1], r[2], r[3]);
	s->native(0x80000001, 0, r);
	add4(b, 0x80000001, r[0], r[1], b->words[CPUID_E1C], b->words[CPUID_E1D]);
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++) {	/* brand string, caches */
		if (!has_leaf(s, leaf))
			continue;
		s->native(leaf, 0, r);
		add(b, leaf, 0, false, r);
	}
	add4(b, 0x80000007, 0, 0, 0, b->words[CPUID_E7D]);
	add4(b, 0x80000008, phys_bits(s) | 48 << 8, b->words[CPUID_E8B],
	     b->amd ? (uint32_t)__builtin_ctz(b->apic_ids) << 12 | (s->vcpus - 1) : 0, 0);
	if (far)
		add4(b, LEAF_EXT_AMD, b->words[CPUID_E21A], 0, 0, 0);
}

static void add_xen(struct builder *b)
{
	const struct cpuid_source *s = b->s;
	uint64_t khz = s->tsc_khz ? s->tsc_khz : 1000000;
	struct time_scale scale = time_scale_from_khz(khz);
	uint32_t rdtscp = b->words[CPUID_E1D] >> 27 & 1;

	add4(b, XEN_CPUID_LEAF(0), XEN_CPUID_LEAF(XEN_CPUID_MAX_NUM_LEAVES), XEN_CPUID_SIGNATURE_EBX,
	     XEN_CPUID_SIGNATURE_ECX, XEN_CPUID_SIGNATURE_EDX);
	add4(b, XEN_CPUID_LEAF(1), XEN_MAJOR << 16 | XEN_MINOR, 0, 0, 0);
	add4(b, XEN_CPUID_LEAF(2), 1, XEN_MSR_BASE, XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD, 0);
	/* tsc_mode 2, never emulated: tells a kernel that it may use the TSC as its clock. */
	add(b, XEN_CPUID_LEAF(3), 0, true, (const uint32_t[4]){ (s->tsc_constant ? 2 : 0) | rdtscp << 2,
								s->tsc_constant ? 2 : 0, s->tsc_khz, 0 });
	add(b, XEN_CPUID_LEAF(3), 1, true, (const uint32_t[4]){ 0, 0, scale.mul, (uint32_t)scale.shift });
	add(b, XEN_CPUID_LEAF(3), 2, true, (const uint32_t[4]){ s->tsc_khz, 0, 0, 0 });
	add4(b, XEN_CPUID_LEAF(4), 0, 0, 0, 0);		/* HVM's */
	add(b, XEN_CPUID_LEAF(5), 0, true, (const uint32_t[4]){ 0, phys_bits(s), 0, 0 });
}

static bool is_amd(const struct cpuid_source *s)
{
	uint32_t r[4];

	s->native(0, 0, r);
	return (r[1] == signature_AMD_ebx && r[3] == signature_AMD_edx) || (r[1] == 0x6f677948 && r[3] == 0x6e65476e);
}

int cpuid_policy(const struct cpuid_source *s, struct kvm_cpuid2 **out)
{
	struct builder b = { .s = s, .xcr0 = offered_xcr0(s), .amd = is_amd(s), .apic_ids = 1 };

	b.t = calloc(1, sizeof *b.t + TABLE_MAX * sizeof b.t->entries[0]);
	if (!b.t)
		return -ENOMEM;
	while (b.apic_ids < s->vcpus)
		b.apic_ids *= 2;
	find_features(&b);
	add_basic(&b);
	add_extended(&b);
	add_xen(&b);
	*out = b.t;
	return 0;
}

/* ---- the VM's ------------------------------------------------------------------------------------------------- */

static void native(uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	__cpuid_count(leaf, sub, out[0], out[1], out[2], out[3]);
}

int cpuid_build(struct vm *vm)
{
	struct cpuid_source s = {
		.native = native, .tsc_khz = vm->tsc_khz, .tsc_constant = vm->host.tsc_constant,
		.vcpus = vm->config->vcpus ? vm->config->vcpus : 1,
	};
	struct kvm_cpuid2 *supported = NULL;
	int r;

	if (vm->host.kind != VMM_HOST_PVM) {
		supported = calloc(1, sizeof *supported + SUPPORTED_MAX * sizeof supported->entries[0]);
		if (!supported)
			return -ENOMEM;
		supported->nent = SUPPORTED_MAX;
		if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, supported) < 0) {
			r = -errno;
			goto out;
		}
		s.supported = supported;
	}
	r = cpuid_policy(&s, &vm->cpuid);
out:
	free(supported);
	return r;
}

void cpuid_read(struct vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	cpuid_lookup(vm->cpuid, leaf, subleaf, out);
}

uint64_t cpuid_xcr0(struct vm *vm)
{
	uint32_t r[4];

	cpuid_lookup(vm->cpuid, 0xd, 0, r);
	return (uint64_t)r[3] << 32 | r[0];
}

uint32_t cpuid_xsave_bytes(struct vm *vm, uint64_t xcr0, bool compacted)
{
	return cpuid_area_bytes(vm->cpuid, xcr0, compacted);
}
