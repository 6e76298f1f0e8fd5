/*
 * xen_smp.c - what a vCPU may do to another: give it a context, start it, ask whether it runs; and how it stops itself
 * (xen/vcpu.h; as xen/common/domain.c and arch_set_info_guest() in xen/arch/x86/domain.c).
 *
 * A vCPU's state belongs to its own thread. So VCPUOP_initialise only checks the context and leaves a copy; the thread
 * takes it over when VCPUOP_up wakes it. VCPUOP_down parks the thread in the middle of its hypercall; up lets it return.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "vmm/xen_clock.h"

#define START_TRIES	1000u	/* loads of the first root while the pool is dry */

bool xen_context_ok(struct vcpu *v, const struct vcpu_guest_context *c)
{
	const uint64_t addresses[] = {
		c->user_regs.rip, c->user_regs.rsp, c->event_callback_eip, c->failsafe_callback_eip, c->syscall_callback_eip,
		c->fs_base, c->gs_base_kernel, c->gs_base_user, c->ldt_base,
	};

	for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++)
		if (!is_canonical(addresses[i]))
			return false;
	for (unsigned i = 0; i < 256; i++)
		if (!is_canonical(c->trap_ctxt[i].address))
			return false;
	return (c->flags & VGCF_in_kernel) && c->gdt_ents <= FIRST_RESERVED_GDT_ENTRY && c->ldt_ents <= 8192 &&
	       xen_cr3_to_pfn(c->ctrlreg[3]) < v->vm->ram_frames && xen_cr3_to_pfn(c->ctrlreg[1]) < v->vm->ram_frames;
}

long xen_vcpu_initialise(struct vcpu *v, struct vcpu *o, uint64_t context)
{
	struct vcpu_guest_context *c;
	long r;

	pthread_mutex_lock(&o->lock);
	r = o->initialised ? -EEXIST : 0;
	pthread_mutex_unlock(&o->lock);
	if (r)
		return r;
	c = malloc(sizeof *c);
	if (!c)
		return -ENOMEM;
	r = -EFAULT;
	if (guest_read(v, context, c, sizeof *c))
		goto out;
	r = -EINVAL;
	if (!xen_context_ok(v, c))
		goto out;
	pthread_mutex_lock(&o->lock);
	r = o->initialised ? -EEXIST : 0;
	if (!r) {
		o->initialised = true;
		__atomic_store_n(&atomic_load(&o->info)->evtchn_upcall_mask, 1, __ATOMIC_SEQ_CST);
		atomic_store(&o->start, c);
		c = NULL;
	}
	pthread_mutex_unlock(&o->lock);
out:
	free(c);
	return r;
}

long xen_vcpu_up(struct vcpu *o)
{
	bool ready;

	pthread_mutex_lock(&o->lock);
	ready = o->initialised;
	pthread_mutex_unlock(&o->lock);
	if (!ready)
		return -EINVAL;
	if (!atomic_exchange(&o->up, true))
		vcpu_wake(o);
	return 0;
}

/*
 * The last vCPU takes the domain with it. Xen calls that a power-off; but a kernel that means one says so by
 * SCHEDOP_shutdown. What comes here has died too early to say anything, or has halted for good.
 */
long xen_vcpu_down(struct vcpu *v)
{
	struct vm *vm = v->vm;
	bool last = true;

	/* One at a time, or each of the last two would take the other for alive. */
	pthread_mutex_lock(&vm->end_lock);
	atomic_store(&v->up, false);
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		last = last && !atomic_load(&vm->vcpus[i].up);
	pthread_mutex_unlock(&vm->end_lock);
	if (last) {
		vcpu_crash(v, "the guest has stopped its last vCPU without shutting down");
		return 0;
	}
	if (!vcpu_do_kicks(v))
		return 0;
	xen_runstate(v, RUNSTATE_offline);
	shim_owes(v, false);
	if (vcpu_park(v))
		xen_runstate(v, RUNSTATE_running);
	shim_owes(v, true);
	return 0;
}

static void take_regs(struct vcpu *v, const struct cpu_user_regs *u)
{
	v->regs.r = (struct kvm_regs){
		.rax = u->rax, .rbx = u->rbx, .rcx = u->rcx, .rdx = u->rdx, .rsi = u->rsi, .rdi = u->rdi, .rbp = u->rbp,
		.r8 = u->r8, .r9 = u->r9, .r10 = u->r10, .r11 = u->r11, .r12 = u->r12, .r13 = u->r13, .r14 = u->r14,
		.r15 = u->r15, .rip = u->rip, .rsp = u->rsp, .rflags = u->rflags,
	};
	v->iopl = u->rflags >> 12 & 3;
	v->regs.cs = FLAT_KERNEL_CS;
	v->regs.ss = FLAT_KERNEL_SS;
}

/* The pool may be dry until others have done their kicks; what this one owes it does itself. */
static bool load_roots(struct vcpu *v, const struct vcpu_guest_context *c)
{
	uint64_t user = xen_cr3_to_pfn(c->ctrlreg[1]);
	int r = -EAGAIN;

	for (unsigned i = 0; i < START_TRIES && r == -EAGAIN && !atomic_load(&v->vm->stop); i++) {
		r = xen_new_baseptr(v, (gfn_t){ xen_cr3_to_pfn(c->ctrlreg[3]) });
		if (!r && user)
			r = xen_new_user_baseptr(v, user);
		if (r == -EAGAIN) {
			if (!vcpu_do_kicks(v))
				return false;
			sched_yield();
		}
	}
	if (r && !atomic_load(&v->vm->stop))
		vcpu_crash(v, "vCPU %u cannot be started: its root table (gfn %#llx) is refused (%d)", v->id,
			   (unsigned long long)xen_cr3_to_pfn(c->ctrlreg[3]), r);
	return !r;
}

bool xen_vcpu_start(struct vcpu *v)
{
	struct vcpu_guest_context *c = atomic_exchange(&v->start, NULL);
	bool ok;

	shim_owes(v, true);	/* a load takes up what others have written down */
	if (!c)
		return true;
	v->mode = MMU_KERNEL;
	v->cr3 = v->vm->idle_root.n << 12;
	take_regs(v, &c->user_regs);
	for (unsigned i = 0; i < 256; i++)
		if (c->trap_ctxt[i].address)
			v->traps[i] = c->trap_ctxt[i];		/* Xen goes by the place, not by .vector */
	v->kernel_ss = c->kernel_ss;
	v->kernel_sp = c->kernel_sp;
	v->callback[CALLBACKTYPE_event] = c->event_callback_eip;
	v->callback[CALLBACKTYPE_failsafe] = c->failsafe_callback_eip;
	v->callback[CALLBACKTYPE_syscall] = c->syscall_callback_eip;
	v->callback_mask[CALLBACKTYPE_failsafe] = c->flags & VGCF_failsafe_disables_events;
	v->callback_mask[CALLBACKTYPE_syscall] = c->flags & VGCF_syscall_disables_events;
	v->fs_base = c->fs_base;
	v->gs_base[MMU_KERNEL] = c->gs_base_kernel;
	v->gs_base[MMU_USER] = c->gs_base_user;
	v->need_bases = true;
	atomic_fetch_or(&v->vm->vm_assist, c->vm_assist & XEN_VM_ASSISTS);
	ok = !vcpu_reset(v) && load_roots(v, c);
	if (ok && (xen_load_gdt(v, c->gdt_frames, c->gdt_ents) || xen_set_ldt(v, c->ldt_base, c->ldt_ents))) {
		vcpu_crash(v, "vCPU %u cannot be started: its GDT or LDT is refused", v->id);
		ok = false;
	}
	if (ok)
		xen_runstate(v, RUNSTATE_running);
	free(c);
	return ok;
}
