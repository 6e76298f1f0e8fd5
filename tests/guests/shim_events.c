/*
 * shim_events.c - what has to get through between transitions that no VMM sees: events, timers, faults on top of faults,
 * page-table updates.
 */
#include "lib/events.h"
#include "lib/shim.h"
#include "lib/user_code.h"

#define MS		1000000ul
#define UNMAPPED	(USER_DATA + 0x9000)
#define STACK_VA	(TEST_VA + 0x200000)

extern char trap_stack_top[];

/* ---- events --------------------------------------------------------------------------------------------------------------- */

TEST(event_before_the_first_user_instruction)
{
	uint32_t port;
	struct regs r;

	linux_user_init();
	events_mask();
	port = event_bind_ipi();
	for (unsigned i = 1; i < 30; i++) {
		event_send(port);
		r = (struct regs){ .rip = user_address(i & 1 ? user_exit : user_spin), .cs = LINUX_USER_CS,
				   .ss = LINUX_USER_SS, .rsp = USER_STACK_TOP, .rflags = RFLAGS_IF | 2, .rbx = 5 };
		expect_eq(user_run(&r), VEC_EVENT);
		expect_eq(r.rip, user_address(i & 1 ? user_exit : user_spin));
		expect_eq(r.rbx, 5);
		expect_eq(r.cs >> 32 & 0xff, 0);
		expect_eq(event_count(port), i);
		expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
	}
	event_close(port);
}

static uint32_t sent_port;

static bool send_and_return(struct regs *r)
{
	events_mask();
	event_send(sent_port);
	r->rip += 2;
	r->rflags |= RFLAGS_IF;
	return true;
}

TEST(event_at_a_return_within_the_kernel)
{
	events_mask();
	sent_port = event_bind_ipi();
	trap_hook(6, send_and_return);
	for (unsigned i = 1; i < 30; i++) {
		uint64_t after;

		events_unmask();
		asm volatile("leaq 1f(%%rip), %0\n\tud2\n1:" : "=r"(after) :: "memory");
		expect_eq(event_count(sent_port), i);
		expect_eq(event_frame.rip, after);
		expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
		events_mask();
	}
	trap_hook(6, NULL);
	event_close(sent_port);
}

static bool send_in_a_syscall(struct regs *r)
{
	if (!event_send(sent_port))
		return true;
	return false;
}

/* Raised while the kernel works for user mode, with events masked: delivered when it returns there. */
TEST(event_raised_in_a_system_call)
{
	struct regs r;

	linux_user_init();
	events_mask();
	sent_port = event_bind_ipi();
	trap_hook(VEC_SYSCALL, send_in_a_syscall);
	for (unsigned i = 1; i < 30; i++) {
		expect_eq(linux_user_call(&r, user_bare_syscall, 0, 0), VEC_EVENT);
		expect_eq(r.rip, user_address(user_bare_syscall) + 2);
		expect_eq(event_count(sent_port), i);
	}
	trap_hook(VEC_SYSCALL, NULL);
	event_close(sent_port);
}

/* ---- timers --------------------------------------------------------------------------------------------------------------- */

static bool again(struct regs *r)
{
	return true;
}

static uint32_t tick_port;
static unsigned ticks_before;

/* A tick may come in here as well: the handler runs with events on. */
static bool skip_load(struct regs *r)
{
	if ((r->cs & 3) != 3 || event_count(tick_port) != ticks_before)
		return false;
	r->rip += 2;		/* movb (%rdi), %al */
	return true;
}

static long set_timer(uint64_t at)
{
	struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = at };

	return hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&t));
}

/* The timer's port, with no tick under way and none to come but what the test sets. */
static uint32_t timer_start(void)
{
	uint32_t port;

	linux_user_init();
	events_mask();
	event_reset();
	hcall2(vcpu_op, VCPUOP_stop_periodic_timer, 0);
	hcall2(vcpu_op, VCPUOP_stop_singleshot_timer, 0);
	port = event_bind_virq(VIRQ_TIMER);
	event_mask_port(port, false);
	events_unmask();
	events_mask();
	return port;
}

static void timer_end(uint32_t port)
{
	hcall2(vcpu_op, VCPUOP_stop_singleshot_timer, 0);
	event_mask_port(port, true);
	events_unmask();
	events_mask();
	event_clear_pending(port);
}

/* How late user code is interrupted that never leaves the VM by itself; the median of some, in us. late= is the limit:
 * an emulated machine needs a wider one, and more time to get to user mode. */
static void ticks_reach(const char *code, const char *what)
{
	uint64_t late[21], median = 0, limit = option_number("late", 10000);
	uint32_t port = timer_start();
	unsigned missed = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(late) && !test_failed(); i++) {
		uint64_t at = system_time() + limit * 200, now;
		struct regs r;
		int v;

		tick_port = port;
		ticks_before = event_count(port);
		expect_eq(set_timer(at), 0);
		v = linux_user_call(&r, code, UNMAPPED, 0);
		now = system_time();
		events_mask();
		expect(v == VEC_EVENT || v == 14, "vector %d", v);
		expect_eq(event_count(port), ticks_before + 1);
		expect(now >= at, "%lu ns early", at - now);
		expect(now - at < 2000 * MS, "%lu ms late", (now - at) / MS);
		if (!r.rbx && ++missed < 20) {	/* a busy host let the time go by before user mode was reached: again */
			i--;
			continue;
		}
		expect(r.rbx > 0, "user mode never ran");
		late[i] = (now - at) / 1000;
	}
	timer_end(port);
	if (test_failed())
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(late); i++) {
		unsigned below = 0;

		for (unsigned k = 0; k < ARRAY_SIZE(late); k++)
			below += late[k] < late[i] || (late[k] == late[i] && k < i);
		if (below == ARRAY_SIZE(late) / 2)
			median = late[i];
	}
	say("note: a tick among %s is %lu us late", what, median);
	expect(median < limit, "half of the ticks are more than %lu us late", median);
}

TEST(tick_in_a_loop)
{
	ticks_reach(user_spin, "nothing else");
}

TEST(tick_among_system_calls)
{
	trap_hook(VEC_SYSCALL, again);
	ticks_reach(user_syscalls, "system calls");
	trap_hook(VEC_SYSCALL, NULL);
}

TEST(tick_among_faults)
{
	trap_hook(14, skip_load);
	ticks_reach(user_faults, "faults");
	trap_hook(14, NULL);
}

/* A timer that is not due before the one the VMM has armed is the shim's to take: it must not be lost. */
TEST(second_timer_counts)
{
	uint32_t port = timer_start();
	struct regs r;
	uint64_t at;
	bool late;

	/* On a busy machine the first one may be over before the second is set: that proves nothing. Nor does another event. */
	for (unsigned tries = 0; tries < 20; tries++) {
		uint64_t before;

		hcall2(vcpu_op, VCPUOP_stop_singleshot_timer, 0);	/* the last try's, and what it has raised */
		events_unmask();
		events_mask();
		before = event_count(port);
		at = system_time() + 8 * MS;
		expect_eq(set_timer(at - 5 * MS), 0);
		hcall2(sched_op, SCHEDOP_yield, 0);
		expect_eq(set_timer(at), 0);
		late = system_time() >= at - 5 * MS;
		expect_eq(linux_user_call(&r, user_spin, 0, 0), VEC_EVENT);
		late |= event_count(port) == before;
		if (!late)
			break;
	}
	expect(late || system_time() >= at, "%lu us early: the first one fired", (at - system_time()) / 1000);
	timer_end(port);
}

/* ---- faults on top of faults ------------------------------------------------------------------------------------------------- */

static uint64_t nested_cr2[2];
static unsigned nested;

static bool fault_while_handling(struct regs *r)
{
	struct vcpu_info *v = this_vcpu();

	if ((r->cs & 3) != 3)
		return false;
	nested_cr2[0] = v->arch.cr2;
	probe_read(TEST_VA + 0x7000 + nested * 8, NULL);	/* copy_from_user() of an address that is not there */
	nested_cr2[1] = seen.vector == 14 ? seen.cr2 : 0;
	nested++;
	r->rip += 2;
	return nested % 16;
}

TEST(kernel_fault_in_a_user_fault)
{
	struct regs r;

	linux_user_init();
	trap_hook(14, fault_while_handling);
	for (nested = 0; nested < 64 && !test_failed();) {
		expect_eq(linux_user_call(&r, user_faults, UNMAPPED, 0), 14);
		expect_eq(nested_cr2[0], UNMAPPED);
		expect_eq(nested_cr2[1], TEST_VA + 0x7000 + (nested - 1) * 8);
		expect_eq(r.rbx, 16);
	}
	trap_hook(14, NULL);
}

/* The kernel's stack is there for the guest, but its shadow entry is not: a hidden fault inside the transition. */
TEST(stack_not_in_the_shadow)
{
	struct regs r;

	linux_user_init();
	for (unsigned i = 0; i < 48 && !test_failed(); i++) {
		uint64_t *stack = page_alloc();

		expect_eq(map_page(root_va(), STACK_VA, pte_make(va_to_mfn(stack), PTE_DATA)), 0);
		expect_eq(mmuext(MMUEXT_INVLPG_LOCAL, STACK_VA, 0), 0);
		expect_eq(hcall2(stack_switch, FLAT_KERNEL_SS, STACK_VA + PAGE), 0);
		if (i & 1) {
			r = (struct regs){ .rip = user_address(user_read), .cs = LINUX_USER_CS, .ss = LINUX_USER_SS,
					   .rsp = 0x123, .rflags = RFLAGS_IF | 2, .rdi = UNMAPPED + i, .rcx = i, .r11 = 2 * i };
			expect_eq(user_run(&r), 14);
			expect_eq(this_vcpu()->arch.cr2, UNMAPPED + i);
			expect_eq(r.error, PF_U);
			expect_eq(r.rcx, i);
			expect_eq(r.r11, 2 * i);
			expect_eq(r.rsp, 0x123);
		} else {
			expect_eq(linux_user_call(&r, user_syscall, i, 0), VEC_SYSCALL);
			expect_eq(r.rax, i);
			expect_eq(r.rip, user_address(user_after_syscall));
			expect_eq(r.rsp, USER_STACK_TOP);
		}
		/* the frame lies where Xen puts it */
		expect_eq(stack[511], LINUX_USER_SS | (i & 1 ? 0 : FLAT_USER_SS64));
		expect_eq(stack[510], r.rsp);
		expect_eq(hcall2(stack_switch, FLAT_KERNEL_SS, PTR(trap_stack_top)), 0);
		expect_eq(map_page(root_va(), STACK_VA, 0), 0);
		expect_eq(mmuext(MMUEXT_INVLPG_LOCAL, STACK_VA, 0), 0);
		page_free(stack);
	}
}

/* ---- page tables -------------------------------------------------------------------------------------------------------------- */

static uint64_t paged_at;
static bool pager(struct regs *r)
{
	uint64_t va = this_vcpu()->arch.cr2 & ~0xffful, *page;

	if ((r->cs & 3) != 3 || va < paged_at || va >= paged_at + 64 * PAGE || r->error & PF_P)
		return false;
	page = page_alloc();
	*page = va;
	return !map_page(user_root, va, pte_make(va_to_mfn(page), PTE_DATA));
}

TEST(pages_arrive_on_demand)
{
	struct regs r;

	linux_user_init();
	paged_at = USER_DATA + 0x600000;
	trap_hook(14, pager);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 64; i++) {
			uint64_t va = paged_at + i * PAGE;

			expect_eq(linux_user_call(&r, user_read, va, 0), GATE_EXIT);
			expect_eq(r.rax, va);
			/* taken away again: the next access has to fault */
			if (i % 4 == round) {
				page_free(mfn_to_va(*pte_of(user_root, va, 1) >> 12 & 0xffffffffff));
				expect_eq(map_page(user_root, va, 0), 0);
				expect_eq(mmuext(MMUEXT_INVLPG_LOCAL, va, 0), 0);
				trap_hook(14, NULL);
				expect_eq(linux_user_call(&r, user_read, va, 0), 14);
				trap_hook(14, pager);
			}
		}
	}
	trap_hook(14, NULL);
	for (unsigned i = 0; i < 64; i++) {
		uint64_t va = paged_at + i * PAGE, *pte = pte_of(user_root, va, 1);

		if (pte && *pte & PTE_P)
			page_free(mfn_to_va((*pte & PTE_ADDR) >> 12));
		map_page(user_root, va, 0);
	}
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

TEST(other_user_root)
{
	uint64_t *second = table_alloc(), va = USER_DATA + 0x800000;
	uint64_t *a = page_alloc(), *b = page_alloc();
	struct regs r;

	linux_user_init();
	*a = 0xa;
	*b = 0xb;
	expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(second), 0), 0);
	for (uint64_t off = 0; off < user_text_size(); off += PAGE)
		expect_eq(map_page(second, USER_CODE + off, *pte_of(user_root, USER_CODE + off, 1)), 0);
	expect_eq(map_page(user_root, va, pte_make(va_to_mfn(a), PTE_DATA)), 0);
	expect_eq(map_page(second, va, pte_make(va_to_mfn(b), PTE_RO_DATA)), 0);
	for (unsigned i = 0; i < 20; i++) {
		expect_eq(mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(i & 1 ? second : user_root), 0), 0);
		expect_eq(linux_user_call(&r, user_read, va, 0), GATE_EXIT);
		expect_eq(r.rax, i & 1 ? 0xb : 0xa);
		/* the walk inside the VM is of this root's tables */
		expect_eq(linux_user_call(&r, user_write, va, 0xa), i & 1 ? 14 : GATE_EXIT);
		if (i & 1)
			expect_eq(r.error, PF_P | PF_W | PF_U);
	}
	expect_eq(mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(user_root), 0), 0);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(second), 0), 0);
}

static bool put_through(struct regs *r)
{
	return (r->cs & 3) == 3 && ++nested % 3000;
}

TEST(many_transitions)
{
	uint64_t before = 0;
	struct regs r;
	bool gates;

	linux_user_init();
	gates = gates_there();
	if (gates)
		before = SHIM_DATA->syscalls;
	nested = 0;
	trap_hook(VEC_SYSCALL, put_through);
	expect_eq(linux_user_call(&r, user_syscalls, 0, 0), VEC_SYSCALL);
	trap_hook(VEC_SYSCALL, NULL);
	expect_eq(r.rbx, 3000);
	if (gates)
		expect(SHIM_DATA->syscalls - before > 2900, "only %lu of 3000 inside", SHIM_DATA->syscalls - before);
}
