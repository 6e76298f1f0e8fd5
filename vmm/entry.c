/*
 * entry.c - into the guest and out of it: KVM_RUN, the gate's frames, and what an exit means.
 *
 * The way in: v->regs goes into a frame on the vCPU's ring-0 stack and one of the gate's stubs pops it. Which stub depends
 * on whether CR3 changes and whether sPTEs have to be kicked. The way out: an exception or SYSCALL reaches the gate, whose
 * `out` ends KVM_RUN; the frame it found is the guest's context. Where that is dear, the shim leaves by a store to memory
 * that is not there, and comes back without the gate. A signal may also end KVM_RUN anywhere.
 *
 * The stack page, from its top down, when leaving by GATE_KICK: SS RSP RFLAGS CS RIP | RAX CR3 | RSI RCX.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "mmu/probe.h"
#include "vmm/vm.h"

#define STACK_TOP(v)	(VCPU_AREA_VA((v)->id) + (AREA_STACK + 1) * 4096)
#define KICK_MAX	(AREA_KICK_PAGES * 512u)

#define SYNC (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)

static struct kvm_segment ring0_code(void)
{
	return (struct kvm_segment){ .selector = GATE_CS, .limit = ~0u, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1 };
}

static struct kvm_segment ring0_data(void)
{
	return (struct kvm_segment){ .selector = GATE_SS, .limit = ~0u, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
}

int vcpu_reset(struct vcpu *v)
{
	struct kvm_sregs s;
	struct kvm_segment flat = { .selector = FLAT_RING3_DS32, .limit = ~0u, .type = 3, .dpl = 3, .present = 1, .s = 1,
				    .db = 1, .g = 1 };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[5];
	} msrs = {
		.head.nmsrs = 5,
		.e = {
			{ .index = 0xc0000081, .data = (uint64_t)GATE_CS << 32 },		/* STAR */
			{ .index = 0xc0000082, .data = GATE_VA + GATE_SYSCALL },		/* LSTAR */
			{ .index = 0xc0000083, .data = GATE_VA + GATE_SYSCALL32 },		/* CSTAR */
			{ .index = 0xc0000084, .data = 0x257fd5 & ~RFLAGS_FIXED },		/* SFMASK: everything */
			{ .index = 0xc0000102, .data = VCPU_AREA_VA(v->id) + AREA_GATE_DATA * 4096 },	/* KERNEL_GS_BASE */
		},
	};

	if (ioctl(v->fd, KVM_GET_SREGS, &s) < 0)
		return -errno;
	s.cs = ring0_code();
	s.ss = ring0_data();
	s.ds = s.es = flat;
	s.fs = s.gs = (struct kvm_segment){ .unusable = 1 };
	s.tr = (struct kvm_segment){ .selector = GATE_TSS, .base = VCPU_AREA_VA(v->id) + AREA_TSS * 4096, .limit = 0x67,
				     .type = 0xb, .present = 1 };
	s.ldt = (struct kvm_segment){ .unusable = 1 };
	s.gdt.base = VCPU_AREA_VA(v->id) + AREA_GDT * 4096;
	s.gdt.limit = 0xffff;
	s.idt.base = IDT_VA;
	s.idt.limit = 0xfff;
	s.cr0 = 0x80050033;	/* PG AM WP NE ET MP PE */
	s.cr4 = 0x620;		/* PAE OSFXSR OSXMMEXCPT */
	if (v->xcr0)
		s.cr4 |= 0x40000;	/* OSXSAVE */
	if (shim_wants_fsgsbase(v->vm) && v->vm->host.kind != VMM_HOST_PVM)
		s.cr4 |= 0x10000;	/* FSGSBASE; on a PVM host ring 3 has the host's CR4 anyway */
	s.efer = 0xd01;		/* NXE LMA LME SCE */
	s.cr3 = v->cr3;
	if (ioctl(v->fd, KVM_SET_SREGS, &s) < 0)
		return -errno;
	if (ioctl(v->fd, KVM_SET_MSRS, &msrs) != 5)
		return -EIO;
	v->run->s.regs.sregs = s;
	v->run->kvm_valid_regs = SYNC;
	v->state = VCPU_IN_GATE;
	return 0;
}

static void load_bases(struct vcpu *v)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[2];
	} msrs = {
		.head.nmsrs = 2,
		.e = {
			{ .index = 0xc0000100, .data = v->fs_base },
			{ .index = 0xc0000101, .data = v->gs_base[v->mode] },
		},
	};

	if (ioctl(v->fd, KVM_SET_MSRS, &msrs) != 2)
		vm_stop(v->vm, VMM_EXIT_ERROR, "KVM refuses the guest's FS or GS base (%#llx, %#llx)",
			(unsigned long long)v->fs_base, (unsigned long long)v->gs_base[v->mode]);
	v->need_bases = false;
}

/* Segment registers are set through SREGS, which is dear; nothing on a common path needs it. */
static void load_gs_selector(struct vcpu *v)
{
	struct kvm_segment *gs = &v->run->s.regs.sregs.gs;
	unsigned sel = v->gs_selector & 0xffff;

	v->gs_selector = -1;
	if (gs->selector == sel)
		return;
	*gs = (struct kvm_segment){ .selector = sel, .limit = ~0u, .type = 3, .dpl = 3, .present = 1, .s = 1, .db = 1,
				    .g = 1 };
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

/* SREGS carry the bases too and are loaded by KVM_RUN, after the MSRs. */
static void bases_into_sregs(struct vcpu *v)
{
	v->run->s.regs.sregs.fs.base = v->fs_base;
	v->run->s.regs.sregs.gs.base = v->gs_base[v->mode];
}

/* At ring 3 already, and neither segments nor CR3 change: the gate is not needed. */
static bool resume_at_guest(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	if (v->state != VCPU_AT_GUEST || v->kicks_out || v->flush || v->gs_selector >= 0 || v->root[v->mode].n << 12 != v->cr3 ||
	    v->regs.cs != run->s.regs.sregs.cs.selector || v->regs.ss != run->s.regs.sregs.ss.selector)
		return false;
	run->s.regs.regs = v->regs.r;
	run->s.regs.regs.rflags = (v->regs.r.rflags & RFLAGS_GUEST) | RFLAGS_IF | RFLAGS_FIXED;
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	if (v->need_bases)
		load_bases(v);
	return true;
}

/* Lays out the frame and picks the stub. */
static void prepare(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct kvm_regs *out = &run->s.regs.regs;
	uint64_t *sp = (uint64_t *)(v->area + (AREA_STACK + 1) * 4096), cr3 = v->root[v->mode].n << 12;
	bool flush = v->kicks_out || v->flush;
	unsigned stub = GATE_IRET;

	shim_arm_gates(v);
	if (resume_at_guest(v))
		return;
	if (v->state == VCPU_AT_GUEST) {	/* came out by a signal or a store, has to go in by the gate */
		run->s.regs.sregs.cs = ring0_code();
		run->s.regs.sregs.ss = ring0_data();
		run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
	}
	if (v->gs_selector >= 0)
		load_gs_selector(v);

	*out = v->regs.r;
	*--sp = v->regs.ss;
	*--sp = v->regs.r.rsp;
	*--sp = (v->regs.r.rflags & RFLAGS_GUEST) | RFLAGS_IF | RFLAGS_FIXED;
	*--sp = v->regs.cs;
	*--sp = v->regs.r.rip;
	if (flush || cr3 != v->cr3) {
		*--sp = v->regs.r.rax;
		*--sp = cr3;
		stub = GATE_IRET_CR3;
		v->counters.vcpu.cr3_loads++;
	}
	if (v->nr_kicks) {
		*--sp = v->regs.r.rsi;
		*--sp = v->regs.r.rcx;
		out->rsi = VCPU_AREA_VA(v->id) + AREA_KICKS * 4096;
		out->rcx = v->nr_kicks;
		stub = GATE_KICK;
	}
	v->cr3 = cr3;
	out->rsp = STACK_TOP(v) - (v->area + (AREA_STACK + 1) * 4096 - (char *)sp);
	out->rip = GATE_VA + stub;
	out->rflags = RFLAGS_FIXED;
	run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
	if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS)
		bases_into_sregs(v);
	if (v->need_bases)
		load_bases(v);
}

/* KVM_RUN with its cycles accounted. 0, or errno. */
static int run(struct vcpu *v)
{
	uint64_t before = __rdtsc(), after;
	int r, e;

	if (v->exit_tsc)
		v->counters.vmm_cycles += before - v->exit_tsc;
	v->in_kvm = true;
	r = ioctl(v->fd, KVM_RUN, 0);
	e = r < 0 ? errno : 0;
	v->in_kvm = false;
	after = __rdtsc();
	v->counters.guest_cycles += after - before;
	v->exit_tsc = after;
	v->run->immediate_exit = 0;
	v->run->kvm_dirty_regs = 0;
	return e;
}

static bool in_gate(uint64_t rip, unsigned from, unsigned to)
{
	return rip >= GATE_VA + from && rip < GATE_VA + to;
}

/* Takes the guest's context from registers that stand at ring 3 or in a syscall gate. */
static void context_from_regs(struct vcpu *v)
{
	v->regs.r = v->run->s.regs.regs;
}

static void read_bases(struct vcpu *v)
{
	shim_find_mode(v, v->run->s.regs.sregs.cr3);
	v->fs_base = v->run->s.regs.sregs.fs.base;
	v->gs_base[v->mode] = v->run->s.regs.sregs.gs.base;
	v->cr3 = v->run->s.regs.sregs.cr3;
}

static void fail(struct gate_exit *e, const char *why)
{
	e->event = GATE_FAILED;
	e->why = why;
}

static void context_from_syscall(struct vcpu *v, struct gate_exit *e, enum gate_event event)
{
	e->event = event;
	v->regs.r.rip = v->regs.r.rcx;
	v->regs.r.rflags = v->regs.r.r11;
	v->regs.cs = event == GATE_SYSCALL_IN ? FLAT_RING3_CS64 : FLAT_RING3_CS32;
	v->regs.ss = FLAT_RING3_DS32;
}

/* The shim hands over a user fault or system call. False: there is no user mode it could come from. */
static bool context_from_shim(struct vcpu *v, struct gate_exit *e)
{
	if (!shim_take_user(v, &e->error_code, &e->cr2))
		return false;
	e->event = GATE_EXCEPTION;
	e->vector = 14;
	if (v->regs.r.rip == GATE_VA + GATE_SYSCALL)
		context_from_syscall(v, e, GATE_SYSCALL_IN);
	else if (v->regs.r.rip == GATE_VA + GATE_SYSCALL32)
		context_from_syscall(v, e, GATE_SYSCALL32_IN);
	return true;
}

/* The shim left by a store where no memory is. The instruction is over, KVM has seen to that. */
static void from_store(struct vcpu *v, struct gate_exit *e)
{
	const struct kvm_run *run = v->run;
	uint64_t at = run->mmio.phys_addr - (v->vm->exit_frame.n << 12);

	if (at >= 8192 || (run->s.regs.sregs.cs.selector & 3) == 0)	/* the last access may run over the page's end */
		return fail(e, "an access outside the VM's memory");
	if (!run->mmio.is_write) {			/* nobody of ours; a read finds zeroes */
		memset(v->run->mmio.data, 0, sizeof run->mmio.data);
		e->event = GATE_INTERRUPTED;
		v->state = VCPU_MID_GATE;
		return;
	}
	context_from_regs(v);
	v->state = VCPU_AT_GUEST;
	if (at == SHIM_EXIT_USER && context_from_shim(v, e))
		return;
	context_from_syscall(v, e, GATE_SYSCALL_IN);
	v->regs.cs = run->s.regs.sregs.cs.selector;
	v->regs.ss = run->s.regs.sregs.ss.selector;
}

/* An IDT stub ran: the exception's frame lies at RSP on our stack page. */
static void from_exception(struct vcpu *v, struct gate_exit *e, unsigned vector)
{
	const struct kvm_regs *r = &v->run->s.regs.regs;
	uint64_t top = STACK_TOP(v), bytes = sizeof(struct gate_frame) + (has_error_code(vector) ? 8 : 0);
	const struct gate_frame *f;
	const char *sp;

	if (r->rsp < top - 4096 || r->rsp > top - bytes || r->rsp & 7)
		return fail(e, "the gate's stack pointer is off its page");
	sp = v->area + (AREA_STACK + 1) * 4096 - (top - r->rsp);
	e->event = GATE_EXCEPTION;
	e->vector = vector;
	e->error_code = 0;
	e->cr2 = v->run->s.regs.sregs.cr2;
	if (has_error_code(vector)) {
		e->error_code = *(const uint64_t *)sp;
		sp += 8;
	}
	f = (const struct gate_frame *)sp;

	if ((f->cs & 3) == 0) {
		/* iretq refused the guest's selectors or RIP: the fault belongs to the context it was to restore, which
		 * v->regs still holds. */
		if (in_gate(f->rip, GATE_IRET, GATE_CODE_END) && vector >= 10 && vector <= 13) {
			e->vector = 13;
			return;
		}
		if (in_gate(f->rip, GATE_BP, GATE_SYSCALL_RING0) && vector >= 10 && vector <= 13) {
			uint32_t code = e->error_code;

			context_from_regs(v);	/* the same on the way from the shim to user mode */
			if (!shim_take_user(v, &e->error_code, &e->cr2))
				return fail(e, "the guest asks for user mode where there is none");
			e->error_code = code;
			e->vector = 13;
			return;
		}
		trace_exit(v, e);
		return fail(e, "an exception inside the gate");
	}
	context_from_regs(v);
	/* A PVM host leaves the processor at ring 3 on SYSCALL: the fetch from the gate page faults. */
	if (vector == 14 && (f->rip == GATE_VA + GATE_SYSCALL || f->rip == GATE_VA + GATE_SYSCALL32)) {
		v->regs.r.rsp = f->rsp;
		return context_from_syscall(v, e, f->rip == GATE_VA + GATE_SYSCALL ? GATE_SYSCALL_IN : GATE_SYSCALL32_IN);
	}
	if (vector == 14 && f->rip == GATE_VA + GATE_USER_FAULT && v->mode == MMU_KERNEL && context_from_shim(v, e))
		return;
	if (v->mode == MMU_KERNEL && shim_refused_user(v, f->rip)) {
		e->vector = 13;
		return;
	}
	v->regs.r.rip = f->rip;
	v->regs.r.rsp = f->rsp;
	v->regs.r.rflags = f->rflags;
	v->regs.cs = f->cs;
	v->regs.ss = f->ss;
}

/*
 * KVM does not say whether an int3 has been executed whose #BP it still has to deliver
 * (kvm_vcpu_ioctl_x86_get_vcpu_events(): soft exceptions are not reported), and forgets it when registers are set. RIP
 * stands behind the instruction (PVM) or on it (VT-x, SVM). Two bytes before RIP: cd 03.
 */
static bool near_int3(struct vcpu *v, uint64_t rip)
{
	uint8_t b[3];
	size_t got;

	if (!guest_fetch(v, rip, b, 1, &got) && (b[0] == 0xcc || b[0] == 0xcd))
		return true;
	return (!guest_fetch(v, rip - 1, b, 1, &got) && b[0] == 0xcc) ||
	       (!guest_fetch(v, rip - 2, b, 2, &got) && got == 2 && b[0] == 0xcd && b[1] == 3);
}

/* KVM_RUN ended by a signal: where was the guest? */
static void from_signal(struct vcpu *v, struct gate_exit *e)
{
	const struct kvm_regs *r = &v->run->s.regs.regs;
	const struct kvm_vcpu_events *ev = &v->run->s.regs.events;

	e->event = GATE_INTERRUPTED;
	if (ev->exception.injected || ev->exception.pending || ev->interrupt.injected) {
		v->state = VCPU_MID_GATE;	/* on its way into an IDT stub */
		return;
	}
	if (in_gate(r->rip, GATE_IRET, GATE_CODE_END) && (v->run->s.regs.sregs.cs.selector & 3) == 0) {
		v->state = VCPU_IN_GATE;	/* never left: v->regs is still the context to restore */
		v->cr3 = v->run->s.regs.sregs.cr3;
		return;
	}
	if ((v->run->s.regs.sregs.cs.selector & 3) == 0) {
		v->state = VCPU_MID_GATE;	/* in an IDT stub or syscall gate: the `out` is next */
		return;
	}
	if (in_gate(r->rip, 0, GATE_PF)) {
		v->state = VCPU_MID_GATE;	/* at ring 3, and the fetch has yet to fault */
		return;
	}
	if (shim_on(v->vm) && r->rip >= SHIM_VA && r->rip < SHIM_VA + SHIM_CODE_PAGES * 4096) {
		v->state = VCPU_MID_GATE;	/* what it left on the ring-0 stack must stay, GS may be either mode's */
		return;
	}
	read_bases(v);
	if (near_int3(v, r->rip)) {
		v->state = VCPU_MID_GATE;	/* if there is nothing to deliver, no harm is done either */
		return;
	}
	v->state = VCPU_AT_GUEST;
	v->regs.r = *r;
	v->regs.cs = v->run->s.regs.sregs.cs.selector;
	v->regs.ss = v->run->s.regs.sregs.ss.selector;
}

static void from_exit(struct vcpu *v, struct gate_exit *e)
{
	struct kvm_run *run = v->run;

	read_bases(v);
	v->state = VCPU_IN_GATE;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.direction != KVM_EXIT_IO_OUT || run->s.regs.sregs.cs.selector != GATE_CS)
			return fail(e, "port I/O outside the gate");
		if (run->io.size == 1)
			return from_exception(v, e, run->io.port);
		if (run->io.size != 4)
			return fail(e, "port I/O that the gate does not do");
		if (run->io.port != GATE_PORT_SYSCALL && run->io.port != GATE_PORT_SYSCALL32)
			return fail(e, "the kick loop ended where none was asked for");
		context_from_regs(v);
		return context_from_syscall(v, e, run->io.port == GATE_PORT_SYSCALL ? GATE_SYSCALL_IN : GATE_SYSCALL32_IN);
	case KVM_EXIT_SHUTDOWN:
		return fail(e, "triple fault");
	case KVM_EXIT_HLT:
		return fail(e, "the gate ran into a hlt");
	case KVM_EXIT_MMIO:
		return from_store(v, e);
	case KVM_EXIT_FAIL_ENTRY:
		return fail(e, "the processor refused the vCPU's state");
	case KVM_EXIT_INTERNAL_ERROR:
		return fail(e, run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ?
			    "KVM could not emulate an instruction" : "KVM internal error");
	default:
		return fail(e, "an exit from KVM_RUN that umbra does not know");
	}
}

/* Runs one list of kicks without the guest. For lists longer than a resume can carry. */
static void kick_round(struct vcpu *v, struct gate_exit *e)
{
	struct kvm_run *r = v->run;

	do {
		if (v->state == VCPU_AT_GUEST) {
			r->s.regs.sregs.cs = ring0_code();
			r->s.regs.sregs.ss = ring0_data();
			r->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
			v->state = VCPU_IN_GATE;
		}
		r->s.regs.regs = (struct kvm_regs){
			.rip = GATE_VA + GATE_KICK_EXIT, .rsp = STACK_TOP(v), .rflags = RFLAGS_FIXED,
			.rsi = VCPU_AREA_VA(v->id) + AREA_KICKS * 4096, .rcx = v->nr_kicks,
		};
		r->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
		if (r->kvm_dirty_regs & KVM_SYNC_X86_SREGS)
			bases_into_sregs(v);
	} while (run(v) == EINTR && !atomic_load(&v->vm->stop));
	/* Not from_exit(): the guest did not run, and GS may still be that of the mode before. */
	if (r->exit_reason == KVM_EXIT_IO && r->io.size == 4 && r->io.port == GATE_PORT_KICKED)
		e->event = GATE_KICKED;
	else
		fail(e, "the kick loop did not come to its end");
	v->counters.exits.kicked++;
	v->nr_kicks = 0;
}

/*
 * Hands the pending kicks to the gate; all but the last list run here. Where other vCPUs do not hear of a rewrite by
 * themselves all of them do, for only then can those be told.
 */
static bool send_kicks(struct vcpu *v, struct gate_exit *e, bool all)
{
	const bool remote = v->vm->remote_flush;

	while (v->vm->paging->kick_pending(v)) {
		unsigned n = v->vm->kick->fill(v, (uint64_t *)(v->area + AREA_KICKS * 4096), KICK_MAX);

		v->kicks_out = true;
		v->nr_kicks = n;
		if (n) {
			v->counters.vcpu.kick_rounds++;
			v->counters.vcpu.kick_writes += n;
		}
		PROBE(kick, v->id, n);
		if (v->vm->paging->kick_pending(v) || ((remote || all) && n)) {
			kick_round(v, e);
			if (e->event != GATE_KICKED)
				return false;
		}
	}
	if (v->kicks_out && (remote || all)) {
		if (remote)
			remote_flush(v, v->kick_cpus);
		v->vm->paging->kick_done(v);
		PROBE(kick__done, v->id);
		v->kicks_out = false;
		v->kick_cpus = 0;
		v->flush = true;
		if (!all)	/* on the way in; who calls vcpu_do_kicks() may go on to work for others */
			shim_owes(v, false);
	}
	return true;
}

bool vcpu_do_kicks(struct vcpu *v)
{
	struct gate_exit e = { .event = GATE_FAILED };

	if (send_kicks(v, &e, true))
		return true;
	if (!atomic_load(&v->vm->stop))
		vcpu_crash(v, "%s", e.why);
	return false;
}

/*
 * The guest was stopped where nothing may change but the TLB: between two gates, or in the shim. KVM flushes when the root
 * it knows becomes another one, so it gets another one and with KVM_RUN its own again.
 */
static void flush_as_it_is(struct vcpu *v)
{
	struct kvm_sregs s = v->run->s.regs.sregs;

	s.cr3 = v->vm->idle_root.n << 12;
	if (ioctl(v->fd, KVM_SET_SREGS, &s) < 0)
		vm_stop(v->vm, VMM_EXIT_ERROR, "KVM refuses another root: %s", strerror(errno));
	v->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
}

static bool left_gate(const struct vcpu *v, const struct gate_exit *e)
{
	return !(e->event == GATE_INTERRUPTED && v->state == VCPU_IN_GATE) && e->event != GATE_FAILED;
}

void vcpu_enter(struct vcpu *v, struct gate_exit *e)
{
	int err;

	*e = (struct gate_exit){ .event = GATE_FAILED };
	/* A list the gate has not finished must not be overwritten: it goes again first. */
	if (atomic_load_explicit(&v->flush_wanted, memory_order_relaxed))
		v->flush |= atomic_exchange(&v->flush_wanted, false);
	if (v->state != VCPU_MID_GATE) {
		if (!v->nr_kicks && !send_kicks(v, e, false))
			return;
		prepare(v);
	} else if (v->flush) {
		flush_as_it_is(v);
		v->flush = false;
	}
	PROBE(enter, v->id, v->mode, v->regs.r.rip);
	remote_enter(v);
	err = run(v);
	remote_leave(v);
	if (err == EINTR || err == EAGAIN) {
		from_signal(v, e);
		v->counters.exits.interrupted++;
	} else if (err) {
		fail(e, strerror(err));
	} else {
		from_exit(v, e);
	}
	if (!left_gate(v, e))
		return;
	mmu_entered(v->mmu);
	v->flush = false;
	if (v->kicks_out && v->state != VCPU_MID_GATE) {
		v->nr_kicks = 0;
		v->kicks_out = false;
		v->kick_cpus = 0;
		v->vm->paging->kick_done(v);
		PROBE(kick__done, v->id);
	}
}
