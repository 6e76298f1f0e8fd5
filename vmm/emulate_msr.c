/*
 * emulate_msr.c - rdmsr and wrmsr of the guest kernel. What is not here is #GP: kernels probe with a handler in place.
 */
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "vmm/emulate.h"

#define MSR_TSC			0x10
#define MSR_APIC_BASE		0x1b
#define MSR_UCODE_REV		0x8b
#define MSR_EFER		0xc0000080
#define MSR_FS_BASE		0xc0000100
#define MSR_GS_BASE		0xc0000101
#define MSR_KERNEL_GS_BASE	0xc0000102
#define MSR_TSC_AUX		0xc0000103

/* MSRs that read as a constant. A write of that same value is accepted; any other is #GP, or ignored. */
static const struct msr_constant {
	uint32_t msr;
	bool ignore_writes;
	uint64_t value;
} constants[] = {
	{ 0x17, false, 0 },				/* PLATFORM_ID */
	{ 0x3a, false, 1 },				/* FEATURE_CONTROL: locked, nothing on */
	{ MSR_UCODE_REV, true, 1ull << 32 },		/* written with 0 before it is read: SDM vol. 3A, 10.11.7.1 */
	{ 0xce, false, 0 },				/* PLATFORM_INFO: no CPUID faulting */
	{ 0x140, false, 0 },				/* MISC_FEATURES_ENABLES */
	/* MISC_ENABLE: fast strings; BTS and PEBS unavailable, xTPR off (Xen: guest_misc_enable()) */
	{ 0x1a0, true, 1ull | 1ull << 11 | 1ull << 12 | 1ull << 23 },
	{ 0x277, false, 0x0007040600070406 },		/* PAT: what the processor has at reset, and keeps */
	{ 0x345, false, 0 },				/* PERF_CAPABILITIES */
	{ MSR_EFER, false, 0xd01 },			/* SCE LME LMA NXE */
	{ 0xc0010015, true, 1ull << 24 },		/* AMD HWCR: the TSC counts at P0's frequency */
};

static const struct msr_constant *constant(uint32_t msr)
{
	for (unsigned i = 0; i < sizeof constants / sizeof *constants; i++)
		if (constants[i].msr == msr)
			return &constants[i];
	return NULL;
}

static bool read_msr(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	const struct msr_constant *c = constant(msr);

	switch (msr) {
	case MSR_TSC:
		*value = __rdtsc();
		return true;
	case MSR_APIC_BASE:		/* enabled at the usual place; the boot processor says so */
		*value = 0xfee00800 | (v->id == 0 ? 0x100 : 0);
		return true;
	case MSR_FS_BASE:
		*value = v->fs_base;
		return true;
	case MSR_GS_BASE:
		*value = v->gs_base[MMU_KERNEL];
		return true;
	case MSR_KERNEL_GS_BASE:
		*value = v->gs_base[MMU_USER];
		return true;
	default:
		if (c)
			*value = c->value;
		return c;
	}
}

/* RDTSCP and RDPID read it at ring 3, where the processor has to have it. */
static bool write_tsc_aux(struct vcpu *v, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[1];
	} msrs = { .head.nmsrs = 1, .e = { { .index = MSR_TSC_AUX, .data = value } } };

	return value >> 32 == 0 && ioctl(v->fd, KVM_SET_MSRS, &msrs) == 1;
}

static bool set_base(struct vcpu *v, unsigned which, uint64_t value)
{
	return xen_set_segment_base(v, (const uint64_t[6]){ which, value }) == 0;
}

static bool write_msr(struct vcpu *v, uint32_t msr, uint64_t value)
{
	const struct msr_constant *c = constant(msr);
	uint64_t old;

	switch (msr) {
	case MSR_FS_BASE:
		return set_base(v, SEGBASE_FS, value);
	case MSR_GS_BASE:
		return set_base(v, SEGBASE_GS_KERNEL, value);
	case MSR_KERNEL_GS_BASE:
		return set_base(v, SEGBASE_GS_USER, value);
	case MSR_TSC_AUX:
		return write_tsc_aux(v, value);
	case MSR_TSC:
		return true;		/* Xen: the guest's clock is not the TSC, and the TSC is not its own */
	default:
		return (c && c->ignore_writes) || (read_msr(v, msr, &old) && old == value);
	}
}

enum emul_step emul_rdmsr(struct vcpu *v, const struct emul_insn *in)
{
	uint64_t value;

	if (!read_msr(v, v->regs.r.rcx, &value))
		return STEP_REFUSE;
	v->regs.r.rax = (uint32_t)value;
	v->regs.r.rdx = value >> 32;
	return STEP_RETIRE;
}

enum emul_step emul_wrmsr(struct vcpu *v, const struct emul_insn *in)
{
	uint64_t value = (uint32_t)v->regs.r.rax | v->regs.r.rdx << 32;

	return write_msr(v, v->regs.r.rcx, value) ? STEP_RETIRE : STEP_REFUSE;
}
