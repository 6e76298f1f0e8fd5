/*
 * debugreg.c - the guest's debug registers.
 *
 * On bare VT-x and SVM the processor has them while the guest runs. Elsewhere - a PVM host, QEMU's emulation of SVM -
 * KVM accepts them and no breakpoint ever fires. There the guest is single-stepped while a breakpoint of its DR7 can
 * fire: before each instruction its address and memory operands are held against the registers, after it #DB is
 * delivered if one matched. Slow, an exit per instruction, and only while the guest has armed one.
 *
 * What stepping covers: breakpoints on user addresses while the guest's user mode runs, and on kernel addresses while
 * its kernel does. The kernel's own accesses to a watched user address go unseen: stepping every syscall of a debugged
 * process would be a standstill. A guest that has no user mode counts as one half. Vector-indexed (gather) operands and
 * the areas of XSAVE and FXSAVE are held against their first bytes only.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/emulate.h"

#define RFLAGS_TF	(1ull << 8)
#define RFLAGS_RF	(1ull << 16)

/* SDM vol. 3B, 17.2 */
#define DR6_HITS	0xfull
#define DR6_STEP	(1ull << 14)
#define DR6_STICKY	0xe000ull	/* BD, BS, BT: set by the processor, cleared by nobody but the guest */
#define DR6_FIXED	0xffff0ff0ull
#define DR6_WRITABLE	0xe00full
#define DR7_FIXED	0x400ull
#define DR7_WRITABLE	0xffff03ffull
#define DR7_DETECT	0x2000ull	/* GD: traps every access to a debug register */
#define DR7_ENABLE	0xffull

#define VEC_DB		1

enum watch { WATCH_FETCH, WATCH_WRITE, WATCH_IO, WATCH_ACCESS };	/* R/W field of DR7 */

/* ---- DR7 -------------------------------------------------------------------------------------------------------- */

static bool enabled(const struct vcpu *v, unsigned i)
{
	return v->debugreg[7] >> (i * 2) & 3;
}

static enum watch watch_of(const struct vcpu *v, unsigned i)
{
	return v->debugreg[7] >> (16 + i * 4) & 3;
}

static unsigned bytes_of(const struct vcpu *v, unsigned i)
{
	static const uint8_t bytes[4] = { 1, 2, 8, 4 };

	return bytes[v->debugreg[7] >> (18 + i * 4) & 3];
}

/* Whether breakpoint `i` is watched by stepping in the mode that is about to run. */
static bool watched(const struct vcpu *v, unsigned i)
{
	bool kernel_half = v->debugreg[i] >> 63;

	if (!enabled(v, i))
		return false;
	return kernel_half == (v->mode == MMU_KERNEL) || v->l4[MMU_USER].n == MMU_NO_GFN.n;
}

static bool stepping_wanted(const struct vcpu *v)
{
	if (v->vm->host.breakpoints || !(v->debugreg[7] & DR7_ENABLE))
		return false;
	for (unsigned i = 0; i < 4; i++)
		if (watched(v, i))
			return true;
	return false;
}

/* ---- what the next instruction will touch --------------------------------------------------------------------------- */

static uint64_t fetch_hits(const struct vcpu *v)
{
	uint64_t hits = 0;

	for (unsigned i = 0; i < 4; i++)
		if (watched(v, i) && watch_of(v, i) == WATCH_FETCH && v->debugreg[i] == v->regs.r.rip)
			hits |= 1u << i;
	return hits;
}

static uint64_t operand_hits(const struct vcpu *v, uint64_t at, uint64_t bytes, bool write)
{
	uint64_t hits = 0;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t len = bytes_of(v, i), first = v->debugreg[i] & ~(len - 1);	/* low bits count as 0 */
		enum watch w = watch_of(v, i);

		if (watched(v, i) && (w == WATCH_ACCESS || (w == WATCH_WRITE && write)) &&
		    at < first + len && first < at + bytes)
			hits |= 1u << i;
	}
	return hits;
}

static uint64_t data_hits(struct vcpu *v, const struct emul_insn *in)
{
	uint64_t hits = 0, at, bytes;

	if (in->i.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE) && !v->regs.r.rcx)
		return 0;
	for (unsigned i = 0; i < in->i.operand_count; i++) {
		const ZydisDecodedOperand *op = &in->op[i];
		bool write = op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
			continue;
		bytes = op->size ? op->size / 8 : 1;
		at = emul_address(v, in, op);
		/* A push stores below the RSP that it starts with. */
		if (write && op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && op->mem.base == ZYDIS_REGISTER_RSP)
			at -= bytes;
		hits |= operand_hits(v, at, bytes, write);
	}
	return hits;
}

/* ---- around every run of the guest ----------------------------------------------------------------------------------- */

static void raise(struct vcpu *v, uint64_t bits)
{
	v->debugreg[6] = (v->debugreg[6] & ~DR6_HITS) | bits;
	bounce_trap(v, VEC_DB, 0, false);
}

void debugreg_before_run(struct vcpu *v)
{
	struct emul_insn in;
	uint64_t hits;

	if (v->state == VCPU_MID_GATE)
		return;
	v->step.on = v->step.done = false;
	if (!stepping_wanted(v))
		return;
	/* A breakpoint on an instruction comes before it, unless RF says that it came already. */
	hits = v->regs.r.rflags & RFLAGS_RF ? 0 : fetch_hits(v);
	if (hits) {
		raise(v, hits);
		if (!stepping_wanted(v))
			return;
	}
	v->step = (struct debug_step){ .on = true, .rip = v->regs.r.rip, .flags = v->regs.r.rflags };
	if (emul_decode(v, &in, NULL) == 0) {
		v->step.hits = data_hits(v, &in);
		v->step.pushes_flags = in.i.mnemonic == ZYDIS_MNEMONIC_PUSHFQ || in.i.mnemonic == ZYDIS_MNEMONIC_PUSHFD ||
				       in.i.mnemonic == ZYDIS_MNEMONIC_PUSHF;
		v->step.loads_flags = in.i.mnemonic == ZYDIS_MNEMONIC_POPFQ || in.i.mnemonic == ZYDIS_MNEMONIC_POPFD ||
				      in.i.mnemonic == ZYDIS_MNEMONIC_POPF || in.i.mnemonic == ZYDIS_MNEMONIC_IRETQ ||
				      in.i.mnemonic == ZYDIS_MNEMONIC_IRETD || in.i.mnemonic == ZYDIS_MNEMONIC_IRET;
	}
	v->regs.r.rflags |= RFLAGS_TF;
}

/* The flags that a pushf of a stepped guest has just stored: without our TF. */
static void mend_pushed_flags(struct vcpu *v)
{
	uint16_t flags;

	if (guest_get(v, v->regs.r.rsp, &flags) == 0) {
		flags &= ~RFLAGS_TF;
		guest_put(v, v->regs.r.rsp, &flags);
	}
}

/* Takes our TF out of the context again, and out of where the instruction may have put it. */
void debugreg_after_run(struct vcpu *v, const struct gate_exit *e)
{
	bool trap = e->event == GATE_EXCEPTION && e->vector == VEC_DB, own = !(v->step.flags & RFLAGS_TF);
	bool moved = v->regs.r.rip != v->step.rip;

	if (!v->step.on || v->state == VCPU_MID_GATE)
		return;
	v->step.on = false;
	v->step.done = trap;
	if (own && !(v->step.loads_flags && moved))
		v->regs.r.rflags &= ~RFLAGS_TF;
	if (own && (e->event == GATE_SYSCALL_IN || e->event == GATE_SYSCALL32_IN))
		v->regs.r.r11 &= ~RFLAGS_TF;
	if (own && trap && v->step.pushes_flags)
		mend_pushed_flags(v);
	/* A fault saves RF = 1 (SDM vol. 3B, 17.3.1.1); a host that emulates the delivery may forget it. */
	if (e->event == GATE_EXCEPTION && !trap && !moved)
		v->regs.r.rflags |= v->step.flags & RFLAGS_RF;
}

/* A #DB of the processor's: the guest's too? */
void debugreg_trap(struct vcpu *v)
{
	struct kvm_debugregs d;
	uint64_t bits = 0;

	if (ioctl(v->fd, KVM_GET_DEBUGREGS, &d) == 0)
		bits = d.dr6 & DR6_WRITABLE;
	if (!v->vm->host.breakpoints) {
		/* KVM's DR6 is ours alone here, and the processor only adds to it. */
		d.dr6 = DR6_FIXED;
		ioctl(v->fd, KVM_SET_DEBUGREGS, &d);
		bits &= DR6_STICKY;
	}
	if (v->step.done) {
		if (!(v->step.flags & RFLAGS_TF))
			bits &= ~DR6_STEP;
		bits |= v->step.hits;
		if (!bits)
			return;
	}
	raise(v, bits);
}

/* ---- hypercalls -------------------------------------------------------------------------------------------------------- */

static int load(struct vcpu *v)
{
	struct kvm_debugregs d = { .dr6 = v->debugreg[6], .dr7 = v->debugreg[7] };

	memcpy(d.db, v->debugreg, sizeof d.db);
	return ioctl(v->fd, KVM_SET_DEBUGREGS, &d) < 0 ? -errno : 0;
}

/* Rules of Xen's set_debugreg() (xen/arch/x86/traps.c): addresses outside the hole, no general detect, no I/O breakpoints
 * (Xen wants CR4.DE for those, which our guests cannot set). */
long xen_set_debugreg(struct vcpu *v, const uint64_t a[6])
{
	uint64_t n = a[0], val = a[1];

	switch (n) {
	case 0 ... 3:
		if (!is_canonical(val) || in_hole(val))
			return -EPERM;
		break;
	case 6:
		if (val >> 32)
			return -EPERM;
		val = (val & DR6_WRITABLE) | DR6_FIXED;
		break;
	case 7:
		if (val >> 32 || val & DR7_DETECT)
			return -EPERM;
		val = (val & DR7_WRITABLE) | DR7_FIXED;
		for (unsigned i = 0; i < 4; i++)
			if ((val >> (16 + i * 4) & 3) == WATCH_IO)
				return -EPERM;
		break;
	default:
		return -ENODEV;
	}
	v->debugreg[n] = val;
	if (!v->vm->host.breakpoints)
		return 0;
	/* Only DR7 arms anything; DR6 has to reach the processor because it accumulates there. */
	return n >= 6 || (v->debugreg[7] & DR7_ENABLE) ? load(v) : 0;
}

long xen_get_debugreg(struct vcpu *v, const uint64_t a[6])
{
	return a[0] < 8 && a[0] != 4 && a[0] != 5 ? (long)v->debugreg[a[0]] : -ENODEV;
}
