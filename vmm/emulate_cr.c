/* emulate_cr.c - control and debug registers, XCR0, invlpg. The guest kernel's only. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/emulate.h"

#define CR0_TS		(1ull << 3)
#define CR4_TSD		(1ull << 2)
#define CR4_DE		(1ull << 3)
#define CR4_OSFXSR	(1ull << 9)
#define CR4_OSXMMEXCPT	(1ull << 10)
#define CR4_OSXSAVE	(1ull << 18)
/* What a PV guest may flip in its CR4 (Xen: PV_CR4_GUEST_MASK). It changes only what the guest reads back. */
#define CR4_GUEST	(CR4_TSD | CR4_DE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE)

static void set_ts(struct vcpu *v, bool on)
{
	xen_fpu_taskswitch(v, (const uint64_t[6]){ on });
}

static enum emul_step read_cr(struct vcpu *v, unsigned n, __u64 *value)
{
	switch (n) {
	case 0:
		*value = v->cr0;
		return STEP_RETIRE;
	case 2:
		*value = atomic_load(&v->info)->arch.cr2;
		return STEP_RETIRE;
	case 3:
		*value = v->l4[MMU_KERNEL].n << 12;
		return STEP_RETIRE;
	case 4:
		*value = v->cr4;
		return STEP_RETIRE;
	default:
		return STEP_REFUSE;
	}
}

static enum emul_step write_cr(struct vcpu *v, unsigned n, uint64_t value)
{
	switch (n) {
	case 0:
		if ((value ^ v->cr0) & ~CR0_TS)
			return STEP_REFUSE;
		set_ts(v, value & CR0_TS);
		return STEP_RETIRE;
	case 2:
		atomic_load(&v->info)->arch.cr2 = value;
		return STEP_RETIRE;
	case 3:
		return xen_new_baseptr(v, (gfn_t){ value >> 12 }) ? STEP_REFUSE : STEP_RETIRE;
	case 4:
		v->cr4 = (v->cr4 & ~CR4_GUEST) | (value & CR4_GUEST);
		return STEP_RETIRE;
	default:
		return STEP_REFUSE;
	}
}

static enum emul_step read_dr(struct vcpu *v, unsigned n, __u64 *value)
{
	long r = xen_get_debugreg(v, (const uint64_t[6]){ n });

	if (r < 0 && r > -4096)
		return STEP_REFUSE;
	*value = r;
	return STEP_RETIRE;
}

static enum emul_step write_dr(struct vcpu *v, unsigned n, uint64_t value)
{
	return xen_set_debugreg(v, (const uint64_t[6]){ n, value }) ? STEP_REFUSE : STEP_RETIRE;
}

static enum emul_step counted(uint64_t *counter, enum emul_step s)
{
	*counter += s != STEP_REFUSE;
	return s;
}

/* mov to or from CRn, DRn; the table sees every other mov, too. */
enum emul_step emul_mov(struct vcpu *v, const struct emul_insn *in)
{
	ZydisRegister to = in->op[0].reg.value, from = in->op[1].reg.value;
	__u64 *gpr;

	if (in->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER || in->op[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return STEP_REFUSE;
	if (to >= ZYDIS_REGISTER_CR0 && to <= ZYDIS_REGISTER_CR15 && (gpr = emul_gpr(v, from)))
		return counted(&v->counters.emulated.cr, write_cr(v, to - ZYDIS_REGISTER_CR0, *gpr));
	if (from >= ZYDIS_REGISTER_CR0 && from <= ZYDIS_REGISTER_CR15 && (gpr = emul_gpr(v, to)))
		return counted(&v->counters.emulated.cr, read_cr(v, from - ZYDIS_REGISTER_CR0, gpr));
	if (to >= ZYDIS_REGISTER_DR0 && to <= ZYDIS_REGISTER_DR15 && (gpr = emul_gpr(v, from)))
		return counted(&v->counters.emulated.dr, write_dr(v, to - ZYDIS_REGISTER_DR0, *gpr));
	if (from >= ZYDIS_REGISTER_DR0 && from <= ZYDIS_REGISTER_DR15 && (gpr = emul_gpr(v, to)))
		return counted(&v->counters.emulated.dr, read_dr(v, from - ZYDIS_REGISTER_DR0, gpr));
	return STEP_REFUSE;
}

enum emul_step emul_clts(struct vcpu *v, const struct emul_insn *in)
{
	set_ts(v, false);
	return STEP_RETIRE;
}

/* Beyond Xen. Loads CR0 bits 0-3, of which only TS may change (and PE could not be cleared). */
enum emul_step emul_lmsw(struct vcpu *v, const struct emul_insn *in)
{
	uint64_t at;
	__u64 *gpr;
	uint16_t msw;

	if (in->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		gpr = emul_gpr(v, in->op[0].reg.value);
		if (!gpr)
			return STEP_REFUSE;
		msw = *gpr;
	} else {
		at = emul_address(v, in, &in->op[0]);
		if (guest_get(v, at, &msw))
			return emul_page_fault(v, at, 0);
	}
	return write_cr(v, 0, (v->cr0 & ~0xeull) | (msw & 0xe));
}

/* Beyond Xen, which knows only the hypercall. */
enum emul_step emul_invlpg(struct vcpu *v, const struct emul_insn *in)
{
	v->vm->paging->invlpg(v, (gva_t){ emul_address(v, in, &in->op[0]) });
	return STEP_RETIRE;
}

/* ---- XCR0 ----------------------------------------------------------------------------------------------------- */

static bool xcr0_valid(uint64_t allowed, uint64_t x)
{
	const uint64_t fp = 1, sse = 2, avx = 4, avx512 = 0xe0;

	return !(x & ~allowed) && x & fp && (!(x & avx) || x & sse) &&
	       (!(x & avx512) || ((x & avx512) == avx512 && x & avx));
}

enum emul_step emul_xsetbv(struct vcpu *v, const struct emul_insn *in)
{
	uint64_t value = (uint32_t)v->regs.r.rax | v->regs.r.rdx << 32;
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0] = { .xcr = 0, .value = value } };

	if ((uint32_t)v->regs.r.rcx != 0 || !xcr0_valid(cpuid_xcr0(v->vm), value))
		return STEP_REFUSE;
	if (value != v->xcr0 && ioctl(v->fd, KVM_SET_XCRS, &x) < 0) {
		vm_stop(v->vm, VMM_EXIT_ERROR, "KVM refuses XCR0 %#llx, which it had offered: %s",
			(unsigned long long)value, strerror(errno));
		return STEP_AGAIN;
	}
	v->xcr0 = value;
	return STEP_RETIRE;
}

/* Faults only where OSXSAVE is off in the processor. */
enum emul_step emul_xgetbv(struct vcpu *v, const struct emul_insn *in)
{
	if ((uint32_t)v->regs.r.rcx != 0 || !v->xcr0)
		return STEP_REFUSE;
	v->regs.r.rax = (uint32_t)v->xcr0;
	v->regs.r.rdx = v->xcr0 >> 32;
	return STEP_RETIRE;
}
