/*
 * trap.c - the trap table, what happens to a trap, probes.
 */
#include "lib/guest.h"

struct seen seen;

static trap_hook_fn *hooks[NR_VECTORS];
static struct regs *user_frame;	/* where user_run() wants the frame that ends it; NULL: user mode is not running */

struct extable_entry {
	uint64_t fault, resume;
};
extern const struct extable_entry extable_start[], extable_end[];
extern char trap_stubs[], event_entry[], failsafe_entry[], syscall_entry[], syscall32_entry[], trap_stack_top[];
extern char probe_fetch_fault[];
extern uint64_t probe_fetch_rsp;
int probe_fetch_call(uint64_t va);
void user_enter(const struct regs *regs);
void user_leave(void) __attribute__((noreturn));
void trap_dispatch(struct regs *r);
void user_frame_set(struct regs *frame);

#define STUB_SIZE	32

static uint64_t fetch_target;	/* probe_fetch() waits for a fault here */

long mmuext(unsigned cmd, uint64_t arg1, uint64_t arg2)
{
	struct mmuext_op op = { .cmd = cmd, .arg1.mfn = arg1, .arg2.src_mfn = arg2 };

	return hcall4(mmuext_op, PTR(&op), 1, 0, DOMID_SELF);
}

long mmu_update_one(uint64_t ptr, uint64_t val)
{
	struct mmu_update u = { ptr, val };

	return hcall4(mmu_update, PTR(&u), 1, 0, DOMID_SELF);
}

long update_va(uint64_t va, uint64_t pte, uint64_t flags)
{
	return hcall3(update_va_mapping, va, pte, flags);
}

void trap_hook(unsigned vector, trap_hook_fn *fn)
{
	hooks[vector] = fn;
}

void seen_clear(void)
{
	memset(&seen, 0, sizeof(seen));
	seen.vector = -1;
}

static void see(const struct regs *r)
{
	seen.vector = (int)r->vector;
	seen.error = r->error & 0xffffffff;
	seen.cr2 = this_vcpu()->arch.cr2;
	seen.rip = r->rip;
	seen.count++;
	seen.regs = *r;
}

static bool recover(struct regs *r)
{
	for (const struct extable_entry *e = extable_start; e < extable_end; e++) {
		if (e->fault == r->rip) {
			r->rip = e->resume;
			return true;
		}
	}
	if (fetch_target && r->rip == fetch_target) {
		r->rip = PTR(probe_fetch_fault);
		return true;
	}
	return false;
}

void trap_dispatch(struct regs *r)
{
	trap_hook_fn *hook = r->vector < NR_VECTORS ? hooks[r->vector] : NULL;
	bool user = (r->cs & 3) == 3 && user_frame;

	if (r->vector == VEC_EVENT && !user && !hook) {
		this_vcpu()->evtchn_upcall_pending = 0;
		return;
	}
	if (hook && hook(r))
		return;
	if (user) {
		struct regs *frame = user_frame;

		user_frame = NULL;
		*frame = *r;
		user_leave();
	}
	see(r);
	/* int3, into and int N are traps: rip is behind them already */
	if (r->vector == 1 || r->vector == 3 || r->vector == 4 || r->vector >= 32 || recover(r))
		return;
	say("FAIL unexpected trap %lu error %lx rip %lx cs %lx rflags %lx rsp %lx cr2 %lx", r->vector, r->error, r->rip,
	    r->cs, r->rflags, r->rsp, (uint64_t)this_vcpu()->arch.cr2);
	say("rax %lx rbx %lx rcx %lx rdx %lx rsi %lx rdi %lx", r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi);
	guest_end(false);
}

int probe_read(uint64_t va, uint64_t *value)
{
	uint64_t v = 0;

	probe("movq (%1), %0", : "=&r"(v) : "a"(va) : "memory");	/* not RBP: that would be #SS */
	if (value)
		*value = v;
	return seen.vector;
}

int probe_write(uint64_t va, uint64_t value)
{
	probe("movq %0, (%1)", :: "r"(value), "a"(va) : "memory");
	return seen.vector;
}

int probe_fetch(uint64_t va)
{
	seen_clear();
	fetch_target = va;
	probe_fetch_call(va);
	fetch_target = 0;
	return seen.vector;
}

void user_frame_set(struct regs *frame)
{
	user_frame = frame;
}

static void callback(unsigned type, const void *entry, unsigned flags)
{
	struct callback_register cb = { .type = (uint16_t)type, .flags = (uint16_t)flags, .address = PTR(entry) };
	long r = hcall2(callback_op, CALLBACKOP_register, PTR(&cb));

	/* 32-bit syscall is for processors that have it; Linux does without, too */
	if (r && type != CALLBACKTYPE_syscall32) {
		say("FAIL callback %u: %ld", type, r);
		guest_end(false);
	}
}

static struct trap_info table[257];

void traps_context(struct vcpu_guest_context *c)
{
	for (const struct trap_info *t = table; t->address; t++)
		c->trap_ctxt[t->vector] = *t;
	c->event_callback_eip = PTR(event_entry);
	c->failsafe_callback_eip = PTR(failsafe_entry);
	c->syscall_callback_eip = PTR(syscall_entry);
	c->flags = VGCF_in_kernel | VGCF_syscall_disables_events;
}

void traps_init(void)
{
	unsigned n = 0;
	long r;

	for (unsigned v = 0; v < 256; v++) {
		bool user = v == 3 || v == 4 || v == GATE_USER || v == GATE_EXIT || v == GATE_MASKS;

		if (v == 2 || v == 15)
			continue;
		table[n++] = (struct trap_info){
			.vector = (uint8_t)v,
			.flags = (uint8_t)((user ? 3 : v == GATE_KERNEL_ONLY) | (v == GATE_MASKS ? 4 : 0)),
			.cs = FLAT_KERNEL_CS,
			.address = PTR(trap_stubs) + v * STUB_SIZE,
		};
	}
	r = hcall1(set_trap_table, PTR(table));
	if (!r)
		r = hcall2(stack_switch, FLAT_KERNEL_SS, PTR(trap_stack_top));
	if (r) {
		say("FAIL set_trap_table or stack_switch: %ld", r);
		guest_end(false);
	}
	callback(CALLBACKTYPE_event, event_entry, 0);
	callback(CALLBACKTYPE_failsafe, failsafe_entry, 0);
	callback(CALLBACKTYPE_syscall, syscall_entry, CALLBACKF_mask_events);
	callback(CALLBACKTYPE_syscall32, syscall32_entry, CALLBACKF_mask_events);
}
