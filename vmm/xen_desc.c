/*
 * xen_desc.c - descriptor tables, handlers, stacks, segment bases, the FPU flag, and the return from the guest kernel.
 * GDT and LDT are copied into the monitor's memory, entry by checked entry: the guest may scribble over its own frames as
 * it likes.
 */
#include <errno.h>
#include <string.h>

#include "vmm/vm.h"

#define GDT_MAX FIRST_RESERVED_GDT_ENTRY
#define LDT_MAX 8192u

#define DESC_ACCESSED	(1ull << 40)

/* ---- GDT and LDT -------------------------------------------------------------------------------------------------- */

/* Other vCPUs look at them without the lock, to find out whether they need it. */
static void set_frames(uint64_t *to, const uint64_t *frames, uint64_t n)
{
	for (uint64_t i = 0; i < 16; i++)
		__atomic_store_n(&to[i], i < n ? frames[i] : ~0ull, __ATOMIC_SEQ_CST);
}

/* The frames are written down before they are read: so an update_descriptor() on another vCPU either finds them, or has
 * stored its entry where we still read it. */
int xen_load_gdt(struct vcpu *v, const uint64_t *frames, uint64_t entries)
{
	uint64_t *gdt = monitor_gdt(v), n = (entries + 511) / 512, copy[512];

	if (entries > GDT_MAX)
		return -EINVAL;
	for (uint64_t i = 0; i < n; i++) {	/* check everything, then perform */
		const uint64_t *page = frames[i] < v->vm->ram_frames ? guest_phys(v->vm, frames[i] << 12, 4096) : NULL;

		if (!page)
			return -EINVAL;
		memcpy(copy, page, 4096);
		for (unsigned k = 0; k < 512 && i * 512 + k < entries; k++)
			if (!monitor_descriptor_ok(&copy[k]))
				return -EINVAL;
	}
	vm_lock(&v->lock, &v->counters.vcpu.vcpu_waits);
	set_frames(v->gdt_frames, frames, n);
	for (uint64_t i = 0; i < n; i++) {
		memcpy(copy, guest_phys(v->vm, frames[i] << 12, 4096), 4096);
		for (unsigned k = 0; k < 512 && i * 512 + k < GDT_MAX; k++)
			gdt[i * 512 + k] = i * 512 + k < entries && monitor_descriptor_ok(&copy[k]) ? copy[k] : 0;
	}
	memset(&gdt[n * 512], 0, (GDT_MAX - n * 512) * 8);
	v->gdt_ents = entries;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

long xen_set_gdt(struct vcpu *v, const uint64_t a[6])
{
	uint64_t frames[16], entries = (uint32_t)a[1];

	if (entries > GDT_MAX)
		return -EINVAL;
	if (guest_read(v, a[0], frames, (entries + 511) / 512 * 8))
		return -EFAULT;
	return xen_load_gdt(v, frames, entries);
}

long xen_set_ldt(struct vcpu *v, uint64_t va, uint64_t entries)
{
	uint64_t *ldt = monitor_ldt(v), frames[16], d;
	struct mmu_walk w;
	int r = 0;

	if (entries > LDT_MAX || (entries && (!is_canonical(va) || va & 4095)))
		return -EINVAL;
	for (unsigned i = 0; i < (entries + 511) / 512; i++) {
		if (mmu_translate(v->vm->mmu, v->l4[MMU_KERNEL], MMU_KERNEL, (gva_t){ va + i * 4096 }, 0, &w))
			return -EFAULT;
		frames[i] = w.gfn.n;
	}
	vm_lock(&v->lock, &v->counters.vcpu.vcpu_waits);
	set_frames(v->ldt_frames, frames, (entries + 511) / 512);
	for (unsigned i = 0; i < entries && !r; i++) {
		r = guest_get(v, va + i * 8, &d);
		ldt[i] = !r && monitor_descriptor_ok(&d) ? d : 0;
	}
	if (r)
		entries = 0;
	memset(&ldt[entries], 0, (LDT_MAX - entries) * 8);
	v->ldt_base = va;
	v->ldt_ents = entries;
	pthread_mutex_unlock(&v->lock);
	monitor_set_ldt(v, entries);
	/* A loaded LDTR keeps its old limit until it is loaded again. */
	v->run->s.regs.sregs.ldt = entries ? (struct kvm_segment){
		.selector = GATE_LDT, .base = VCPU_AREA_VA(v->id) + AREA_LDT * 4096, .limit = entries * 8 - 1,
		.type = 2, .present = 1 } : (struct kvm_segment){ .unusable = 1 };
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	return r;
}

/* Entry `n` of one page of `o`'s descriptor tables, if it has one at `gfn`. */
static void update_copy(struct vcpu *v, struct vcpu *o, uint64_t gfn, unsigned n, uint64_t checked)
{
	bool any = false;

	for (unsigned i = 0; i < 16 && !any; i++)
		any = __atomic_load_n(&o->gdt_frames[i], __ATOMIC_SEQ_CST) == gfn ||
		      __atomic_load_n(&o->ldt_frames[i], __ATOMIC_SEQ_CST) == gfn;
	if (!any)
		return;
	vm_lock(&o->lock, &v->counters.vcpu.vcpu_waits);
	for (unsigned i = 0; i < 16; i++) {
		if (i * 512 + n < o->gdt_ents && o->gdt_frames[i] == gfn)
			__atomic_store_n(&monitor_gdt(o)[i * 512 + n], checked, __ATOMIC_RELAXED);
		if (i * 512 + n < o->ldt_ents && o->ldt_frames[i] == gfn)
			__atomic_store_n(&monitor_ldt(o)[i * 512 + n], checked, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&o->lock);
}

/* update_descriptor(pa, value): an entry of a GDT or LDT in use, or plain memory that is to become one. */
long xen_update_descriptor(struct vcpu *v, const uint64_t a[6])
{
	uint64_t pa = a[0], d = a[1], gfn = pa >> 12, checked = d;
	if (gfn >= v->vm->ram_frames || (pa & 7) || !v->vm->paging->may_write(v, (gfn_t){ gfn }) ||
	    !monitor_descriptor_ok(&checked))
		return -EINVAL;
	/* As Xen's: with the DPL the guest gets, the accessed bit as it was. */
	d = (checked & ~DESC_ACCESSED) | (d & DESC_ACCESSED);
	mmu_write(v->mmu, (gfn_t){ gfn }, pa & 4095, &d, sizeof d);
	atomic_thread_fence(memory_order_seq_cst);	/* stored before update_copy() looks who uses it */
	for (unsigned c = 0; c < v->vm->nr_vcpus; c++)
		update_copy(v, &v->vm->vcpus[c], gfn, (pa & 4095) / 8, checked);
	return 0;
}

/* ---- handlers ------------------------------------------------------------------------------------------------------- */

long xen_set_trap_table(struct vcpu *v, const uint64_t a[6])
{
	struct trap_info t;

	if (!a[0]) {
		memset(v->traps, 0, sizeof v->traps);
		return 0;
	}
	for (unsigned i = 0; i < 257; i++) {	/* ends with an entry without address */
		if (guest_get(v, a[0] + i * sizeof t, &t))
			return -EFAULT;
		if (!t.address)
			return 0;
		if (!is_canonical(t.address))
			return -EINVAL;
		v->traps[t.vector] = t;
	}
	return -EINVAL;
}

static long set_callback(struct vcpu *v, unsigned type, unsigned flags, uint64_t address)
{
	switch (type) {
	case CALLBACKTYPE_event:
	case CALLBACKTYPE_failsafe:
	case CALLBACKTYPE_syscall:
	case CALLBACKTYPE_nmi:
		if (!is_canonical(address))
			return -EINVAL;
		v->callback[type] = address;
		v->callback_mask[type] = flags & CALLBACKF_mask_events;
		return 0;
	default:		/* sysenter and 32-bit syscall: guests hide the instructions and use int 0x80 */
		return -ENOSYS;
	}
}

long xen_callback_op(struct vcpu *v, const uint64_t a[6])
{
	struct callback_register reg;
	struct callback_unregister unreg;

	switch (a[0]) {
	case CALLBACKOP_register:
		if (guest_get(v, a[1], &reg))
			return -EFAULT;
		return set_callback(v, reg.type, reg.flags, reg.address);
	case CALLBACKOP_unregister:
		if (guest_get(v, a[1], &unreg))
			return -EFAULT;
		return unreg.type == CALLBACKTYPE_nmi ? set_callback(v, unreg.type, 0, 0) : -EINVAL;
	default:
		return -ENOSYS;
	}
}

long xen_set_callbacks(struct vcpu *v, const uint64_t a[6])
{
	long r = set_callback(v, CALLBACKTYPE_event, 0, a[0]);

	if (!r)
		r = set_callback(v, CALLBACKTYPE_failsafe, 0, a[1]);
	if (!r)
		r = set_callback(v, CALLBACKTYPE_syscall, 0, a[2]);
	return r;
}

long xen_stack_switch(struct vcpu *v, const uint64_t a[6])
{
	v->kernel_ss = a[0];
	v->kernel_sp = a[1];
	return 0;
}

/* ---- segment bases -------------------------------------------------------------------------------------------------- */

/* The base that a selector in the guest's GDT or LDT gives (32-bit code; 64-bit code sets bases directly). */
static uint64_t selector_base(struct vcpu *v, unsigned sel)
{
	unsigned i = sel >> 3;
	uint64_t d;

	if (sel < 4)
		return 0;
	if (sel & 4)
		d = i < v->ldt_ents ? monitor_ldt(v)[i] : 0;
	else
		d = i < v->gdt_ents ? monitor_gdt(v)[i] : 0;
	return (d >> 16 & 0xffffff) | (d >> 56) << 24;
}

/* Before user mode is entered: the base of a selector that the kernel loaded for it. */
void xen_user_gs(struct vcpu *v)
{
	/* A base set after the selector wins (SEGBASE_GS_USER). */
	if (v->gs_user_selector && !v->gs_base[MMU_USER])
		v->gs_base[MMU_USER] = selector_base(v, v->gs_user_selector);
	v->gs_user_selector = 0;
}

long xen_set_segment_base(struct vcpu *v, const uint64_t a[6])
{
	switch (a[0]) {
	case SEGBASE_FS:
	case SEGBASE_GS_USER:
	case SEGBASE_GS_KERNEL:
		if (!is_canonical(a[1]))
			return -EINVAL;
		if (a[0] == SEGBASE_FS)
			v->fs_base = a[1];
		else
			v->gs_base[a[0] == SEGBASE_GS_USER ? MMU_USER : MMU_KERNEL] = a[1];
		/* Not skipped when unchanged: the kernel zeroes %fs natively just before. */
		v->need_bases = true;
		return 0;
	case SEGBASE_GS_USER_SEL:
		v->gs_selector = (a[1] & 0xffff) | ((a[1] & 0xffff) < 4 ? 0 : 3);
		v->gs_base[MMU_USER] = 0;
		/* Linux asks for the selector before the LDT it is in: the base waits for the return to user mode. */
		v->gs_user_selector = v->gs_selector;
		v->need_bases = true;	/* loading the selector clobbers the kernel's base */
		return 0;
	default:
		return -EINVAL;
	}
}

/* ---- FPU flag ---------------------------------------------------------------------------------------------------------- */

static void set_ts(struct vcpu *v, bool on)
{
	v->cr0 = on ? v->cr0 | 8 : v->cr0 & ~8ull;
	v->run->s.regs.sregs.cr0 = (v->run->s.regs.sregs.cr0 & ~8ull) | (on ? 8 : 0);
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

long xen_fpu_taskswitch(struct vcpu *v, const uint64_t a[6])
{
	bool on = a[0] & 1;

	if (on != !!(v->cr0 & 8))
		set_ts(v, on);
	return 0;
}

void xen_fpu_restore(struct vcpu *v)
{
	set_ts(v, false);
}

/* ---- return from the guest kernel --------------------------------------------------------------------------------------- */

/* iret: everything comes from the kernel stack (struct iret_context). Xen's do_iret(). */
long xen_iret(struct vcpu *v, const uint64_t a[6])
{
	struct iret_context c;
	struct vcpu_info *info = atomic_load(&v->info);
	bool user;

	if (guest_get(v, v->regs.r.rsp, &c)) {
		vcpu_crash(v, "iret with no frame on the stack at %#llx", (unsigned long long)v->regs.r.rsp);
		return 0;
	}
	user = (c.cs & 3) == 3;
	if (user && v->l4[MMU_USER].n == MMU_NO_GFN.n) {
		vcpu_crash(v, "return to user mode without a user page table");
		return 0;
	}
	v->regs.r.rip = c.rip;
	v->regs.r.rsp = c.rsp;
	v->regs.r.rflags = c.rflags;
	v->regs.cs = c.cs | 3;
	v->regs.ss = c.ss | 3;
	if (!(c.flags & VGCF_in_syscall)) {
		v->regs.r.rcx = c.rcx;
		v->regs.r.r11 = c.r11;
	} else {
		v->regs.cs = FLAT_USER_CS64;
		v->regs.ss = FLAT_USER_SS64;
	}
	info->evtchn_upcall_mask = !(c.rflags & 0x200);
	if (user) {
		v->counters.vcpu.irets++;
		xen_user_gs(v);
		vcpu_set_mode(v, MMU_USER);
	}
	return c.rax;
}
