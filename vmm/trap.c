/* trap.c - exceptions and syscalls of the guest: ours to mend, or to be reflected into its kernel. */
#include <sched.h>

#include "vmm/faultmap.h"
#include "vmm/vm.h"

#define VEC_DB	1
#define VEC_BP	3
#define VEC_UD	6
#define VEC_NM	7
#define VEC_GP	13
#define VEC_PF	14

#define STORM_FLUSH	16	/* the same spurious fault so often in a row: flush the TLB ... */
#define STORM_CRASH	100000	/* ... and give up */

static void reflect_page_fault(struct vcpu *v, uint64_t va, uint32_t error_code)
{
	atomic_load(&v->info)->arch.cr2 = va;
	bounce_trap(v, VEC_PF, error_code, true);
}

/* A fault the shadow says cannot be: harmless once (another thread filled it), a broken kick if it stays. */
static void spurious(struct vcpu *v, uint64_t va)
{
	if (v->storm_rip != v->regs.r.rip || v->storm_va != va) {
		v->storm_rip = v->regs.r.rip;
		v->storm_va = va;
		v->storm = 0;
		return;
	}
	v->storm++;
	if (v->storm % STORM_FLUSH == 0)
		v->flush = true;
	if (v->storm == STORM_CRASH)
		vcpu_crash(v, "the same fault at %#llx comes back although the shadow allows it: the kick method '%s' does "
			   "not work on this host, try another --kick", (unsigned long long)va, v->vm->kick->name);
}

/* For --fault-map. */
static void map_fault(struct vcpu *v, uint64_t va, enum mmu_verdict verdict)
{
	static const enum faultmap_class classes[] = {
		[MMU_HIDDEN] = FAULTMAP_hidden, [MMU_SPURIOUS] = FAULTMAP_other, [MMU_PTWRITE] = FAULTMAP_pt_write,
		[MMU_TRUE] = FAULTMAP_true, [MMU_AGAIN] = FAULTMAP_other, [MMU_BAD] = FAULTMAP_true,
	};

	if (v->faultmap)
		faultmap_add(v->faultmap, va, vm_now(v->vm), classes[verdict]);
}

static void page_fault(struct vcpu *v, const struct gate_exit *e)
{
	const uint32_t access = e->error_code & (MMU_PF_W | MMU_PF_FETCH);
	struct mmu_result r;

	v->counters.exits.page_fault++;
	if (in_hole(e->cr2)) {
		map_fault(v, e->cr2, MMU_TRUE);
		if (shim_busy(v))
			return shim_abort(v);
		reflect_page_fault(v, e->cr2, access | (e->error_code & MMU_PF_P) |
				   (v->mode == MMU_USER ? MMU_PF_U : 0));
		return;
	}
	r = v->vm->paging->fault(v, (gva_t){ e->cr2 }, access);
	map_fault(v, e->cr2, r.verdict);
	if (v->vm->numa && (r.verdict == MMU_HIDDEN || r.verdict == MMU_SPURIOUS))
		numa_note(v->vm->numa, v->id, r.gfn.n, atomic_load_explicit(&v->place, memory_order_relaxed), r.write, r.watched);
	switch (r.verdict) {
	case MMU_HIDDEN:
	case MMU_PTWRITE:
		break;
	case MMU_SPURIOUS:
		spurious(v, e->cr2);
		break;
	case MMU_AGAIN:
		if (!v->vm->paging->kick_pending(v))
			sched_yield();		/* another thread is moving the frame */
		break;
	case MMU_TRUE:
	case MMU_BAD:
		if (shim_busy(v))
			return shim_abort(v);
		reflect_page_fault(v, e->cr2, r.error_code);
		break;
	}
}

/*
 * `int N`: to the processor our gates have DPL 0, so it is a #GP, or on a PVM host a #UD; int3 of 32-bit code is a #UD
 * there, too. The guest's own table decides, as under Xen. The vector comes from the instruction, not from the error
 * code (QEMU before 8.0 gives a wrong one). False: no such instruction.
 */
static bool software_interrupt(struct vcpu *v)
{
	const struct trap_info *t;
	uint8_t insn[2];
	size_t got;

	if (guest_fetch(v, v->regs.r.rip, insn, 2, &got))
		return false;
	if (insn[0] == 0xcc) {
		v->regs.r.rip += 1;
		bounce_trap(v, VEC_BP, 0, false);
		return true;
	}
	if (got < 2 || insn[0] != 0xcd)
		return false;
	t = &v->traps[insn[1]];
	if (TI_GET_DPL(t) < (v->mode == MMU_USER ? 3 : 1) || !t->address) {
		bounce_trap(v, VEC_GP, insn[1] << 3 | 2, true);
		return true;
	}
	v->regs.r.rip += 2;
	bounce_trap(v, insn[1], 0, false);
	return true;
}

static void general_protection(struct vcpu *v, const struct gate_exit *e)
{
	v->counters.exits.gp++;
	if ((e->error_code & 7) == 2 && software_interrupt(v))
		return;
	if (e->error_code == 0 && emulate_privileged(v) == EMUL_DONE)
		return;
	bounce_trap(v, VEC_GP, e->error_code, true);
}

static bool in_shim(const struct vcpu *v)
{
	return shim_on(v->vm) && v->regs.r.rip >= SHIM_VA && v->regs.r.rip < SHIM_VA + SHIM_CODE_PAGES * 4096;
}

static void debug(struct vcpu *v, unsigned vector)
{
	v->counters.exits.debug++;
	if (vector == VEC_BP)
		bounce_trap(v, VEC_BP, 0, false);
	else if (!in_shim(v))		/* a stepped kernel sees none of the shim's instructions */
		debugreg_trap(v);
}

static void other(struct vcpu *v, const struct gate_exit *e)
{
	if (e->vector == 16 || e->vector == 19)
		v->counters.exits.fpu++;
	else
		v->counters.exits.exception++;
	/* A vector above 31 is an `int N` of DPL 3: only 0x80. The guest decides whether it has that. */
	if (e->vector > 31 && (TI_GET_DPL(&v->traps[e->vector]) < (v->mode == MMU_USER ? 3 : 1) ||
			       !v->traps[e->vector].address)) {
		v->regs.r.rip -= 2;
		bounce_trap(v, VEC_GP, e->vector << 3 | 2, true);
		return;
	}
	bounce_trap(v, e->vector, e->error_code, has_error_code(e->vector));
}

void trap_exception(struct vcpu *v, const struct gate_exit *e)
{
	if (e->vector != VEC_PF && e->vector != VEC_DB && shim_busy(v)) {
		v->counters.exits.exception++;
		return shim_abort(v);
	}
	switch (e->vector) {
	case VEC_PF:
		return page_fault(v, e);
	case VEC_GP:
		return general_protection(v, e);
	case VEC_UD:
		v->counters.exits.ud++;
		if (emulate_forced(v) != EMUL_DONE && !software_interrupt(v))
			bounce_trap(v, VEC_UD, 0, false);
		return;
	case VEC_NM:
		v->counters.exits.fpu++;
		xen_fpu_restore(v);		/* Xen clears CR0.TS before it tells the guest */
		bounce_trap(v, VEC_NM, 0, false);
		return;
	case VEC_DB:
	case VEC_BP:
		return debug(v, e->vector);
	default:
		return other(v, e);
	}
}

void trap_syscall(struct vcpu *v, bool compat)
{
	if (v->mode == MMU_KERNEL) {
		v->counters.exits.hypercall++;
		shim_note_site(v);
		xen_hypercall(v);
		return;
	}
	v->counters.exits.syscall++;
	if (compat)		/* no callback for it is ever registered: the guest saw that and hides the instruction */
		bounce_trap(v, VEC_UD, 0, false);
	else
		bounce_syscall(v);
}
