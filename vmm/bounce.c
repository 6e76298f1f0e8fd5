/*
 * bounce.c - entering the guest kernel at one of its handlers: Xen's bounce frames.
 *
 * Layout and flags as create_bounce_frame in xen/arch/x86/x86_64/entry.S: at the handler's RSP lie RCX, R11, the error
 * code if there is one, RIP, CS with the saved upcall mask in bits 32-39, RFLAGS, RSP, SS.
 */
#include "vmm/vm.h"

#define F_TF	(1ull << 8)
#define F_IOPL	(3ull << 12)
#define F_NT	(1ull << 14)
#define F_RF	(1ull << 16)
#define F_AC	(1ull << 18)

static bool bounce(struct vcpu *v, uint64_t handler, const uint32_t *error_code, bool mask)
{
	struct vcpu_info *info = atomic_load(&v->info);
	uint8_t masked = info->evtchn_upcall_mask;
	bool from_user = v->mode == MMU_USER;
	uint64_t sp = (from_user ? v->kernel_sp : v->regs.r.rsp) & ~15ull, frame[8], flags = v->regs.r.rflags;
	unsigned n = 0;

	if (!handler || !is_canonical(handler)) {
		vcpu_crash(v, "the guest has no handler for this (address %#llx)", (unsigned long long)handler);
		return false;
	}
	flags = (flags & RFLAGS_GUEST & ~RFLAGS_IF) | RFLAGS_FIXED | (masked ? 0 : RFLAGS_IF);
	if (atomic_load(&v->vm->vm_assist) & 1u << VMASST_TYPE_architectural_iopl)
		flags |= (uint64_t)v->iopl << 12;

	frame[n++] = v->regs.r.rcx;
	frame[n++] = v->regs.r.r11;
	if (error_code)
		frame[n++] = *error_code;
	frame[n++] = v->regs.r.rip;
	frame[n++] = (from_user ? v->regs.cs | 3u : v->regs.cs & ~3u) | (uint64_t)masked << 32;
	frame[n++] = flags;
	frame[n++] = v->regs.r.rsp;
	frame[n++] = v->regs.ss;
	sp -= n * 8;
	if (guest_write(v, sp, frame, n * 8)) {
		vcpu_crash(v, "no room for a frame on the guest kernel's stack at %#llx", (unsigned long long)sp);
		return false;
	}
	if (mask)
		info->evtchn_upcall_mask = 1;
	vcpu_set_mode(v, MMU_KERNEL);
	v->regs.r.rip = handler;
	v->regs.r.rsp = sp;
	v->regs.r.rflags &= ~(F_TF | F_NT | F_RF | F_AC | F_IOPL);
	v->regs.cs = FLAT_KERNEL_CS;
	v->regs.ss = FLAT_KERNEL_SS;
	return true;
}

void bounce_trap(struct vcpu *v, unsigned vector, uint32_t error_code, bool has_error)
{
	const struct trap_info *t = &v->traps[vector & 0xff];

	if (!t->address) {
		vcpu_crash(v, "exception %u (error code %#x) and the guest has no handler for it", vector, error_code);
		return;
	}
	v->counters.vcpu.reflected++;
	bounce(v, t->address, has_error ? &error_code : NULL, TI_GET_IF(t));
}

void bounce_syscall(struct vcpu *v)
{
	bounce(v, v->callback[CALLBACKTYPE_syscall], NULL, v->callback_mask[CALLBACKTYPE_syscall]);
}

bool bounce_event(struct vcpu *v)
{
	v->counters.vcpu.events++;
	return bounce(v, v->callback[CALLBACKTYPE_event], NULL, true);
}
