/*
 * debug.c - single steps and debug registers of the guest kernel.
 */
#include "lib/guest.h"

#define DR6_BS	(1u << 14)

static unsigned steps;
static uint64_t step_rips[16];
static bool count_step(struct regs *r)
{
	if (steps < ARRAY_SIZE(step_rips))
		step_rips[steps] = r->rip;
	steps++;
	return true;
}

TEST(single_step)
{
	uint64_t first, last;

	steps = 0;
	trap_hook(1, count_step);
	asm volatile("pushfq; orl $0x100, (%%rsp); popfq\n"
		     "1: nop\n nop\n pushfq; andl $~0x100, (%%rsp)\n popfq\n2:\n"
		     "leaq 1b(%%rip), %0; leaq 2b(%%rip), %1" : "=r"(first), "=r"(last) :: "memory", "cc");
	trap_hook(1, NULL);
	expect_eq(steps, 5);		/* popfq that clears TF still traps behind itself */
	expect_eq(step_rips[0], first + 1);
	expect_eq(step_rips[4], last);
}

TEST(single_step_status)
{
	steps = 0;
	trap_hook(1, count_step);
	expect_eq(hcall2(set_debugreg, 6, 0xffff0ff0), 0);
	asm volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; pushfq; andl $~0x100, (%%rsp); popfq" ::: "memory", "cc");
	trap_hook(1, NULL);
	expect(hcall1(get_debugreg, 6) & DR6_BS, "DR6 is %lx", hcall1(get_debugreg, 6));
	hcall2(set_debugreg, 6, 0xffff0ff0);
}

TEST(single_step_over_emulation)
{
	uint32_t eax = 0x40000000, ecx = 0;

	steps = 0;
	trap_hook(1, count_step);
	asm volatile("pushfq; orl $0x100, (%%rsp); popfq\n"
		     ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; cpuid\n pushfq; andl $~0x100, (%%rsp)\n popfq"
		     : "+a"(eax), "+c"(ecx) :: "rbx", "rdx", "memory", "cc");
	trap_hook(1, NULL);
	expect_eq(steps, 4);
	expect(eax >= 0x40000001, "cpuid gave %x", eax);
}

TEST(debug_registers_hold)
{
	static const uint64_t v[4] = { 0x1000, 0x2000, 0x3000, 0x7fffffffe000 };

	for (unsigned i = 0; i < 4; i++)
		expect_eq(hcall2(set_debugreg, i, v[i]), 0);
	for (unsigned i = 0; i < 4; i++)
		expect_eq(hcall1(get_debugreg, i), v[i]);
	for (unsigned i = 0; i < 4; i++)
		expect_eq(hcall2(set_debugreg, i, 0), 0);
}

TEST(debug_registers_are_checked)
{
	expect_eq(hcall2(set_debugreg, 0, 0xffff818000000000), -XEN_EPERM);	/* the hypervisor's */
	expect_eq(hcall2(set_debugreg, 1, 0x8000000000000000), -XEN_EPERM);
	expect(hcall2(set_debugreg, 8, 0) < 0, "register 8 accepted");
	expect(hcall2(set_debugreg, 0xffffffff, 0) < 0, "register -1 accepted");
	expect_eq(hcall1(get_debugreg, 8), -XEN_ENODEV);
	expect(hcall2(set_debugreg, 7, 0x100000000) < 0, "upper half of DR7 accepted");
	expect(hcall2(set_debugreg, 7, 1u << 13) < 0, "general detect accepted");
	hcall2(set_debugreg, 7, 0);
}

static volatile uint64_t watched;

TEST(watchpoint)
{
	hcall2(set_debugreg, 6, 0xffff0ff0);
	expect_eq(hcall2(set_debugreg, 0, PTR(&watched)), 0);
	expect_eq(hcall2(set_debugreg, 7, 0x000d0001 | 0x400), 0);	/* L0, writes, 8 bytes: LEN 2, RW 1 */
	expect_eq(hcall2(set_debugreg, 7, 0x00090001 | 0x400), 0);
	steps = 0;
	trap_hook(1, count_step);
	watched = 5;
	asm volatile("nop" ::: "memory");
	expect_eq(steps, 1);
	expect(hcall1(get_debugreg, 6) & 1, "DR6 is %lx", hcall1(get_debugreg, 6));
	expect_eq(hcall2(set_debugreg, 7, 0), 0);
	steps = 0;
	watched = 6;
	expect_eq(steps, 0);
	trap_hook(1, NULL);
	hcall2(set_debugreg, 0, 0);
	hcall2(set_debugreg, 6, 0xffff0ff0);
}

static bool resume_once(struct regs *r)
{
	count_step(r);
	r->rflags |= 1 << 16;		/* RF: do not hit it again */
	return true;
}

TEST(hardware_breakpoint)
{
	uint64_t at;

	asm volatile("leaq 1f(%%rip), %0; jmp 2f\n1: nop\n jmp *%%rbx\n2:" : "=r"(at) :: "rbx");
	expect_eq(hcall2(set_debugreg, 1, at), 0);
	expect_eq(hcall2(set_debugreg, 7, 1 << 2 | 0x400), 0);
	steps = 0;
	trap_hook(1, resume_once);
	asm volatile("leaq 1f(%%rip), %%rbx; jmp *%0\n1:" :: "r"(at) : "rbx", "memory");
	trap_hook(1, NULL);
	hcall2(set_debugreg, 7, 0);
	hcall2(set_debugreg, 1, 0);
	expect_eq(steps, 1);
	expect_eq(step_rips[0], at);
}

TEST(debug_register_moves)
{
	uint64_t v = 0;

	expect_eq(hcall2(set_debugreg, 2, 0x5000), 0);
	probe("movq %%dr2, %0", : "=r"(v));
	expect_eq(seen.vector, -1);
	expect_eq(v, 0x5000);
	probe("movq %0, %%dr2", :: "r"(0x6000ul));
	expect_eq(seen.vector, -1);
	expect_eq(hcall1(get_debugreg, 2), 0x6000);
	hcall2(set_debugreg, 2, 0);
}
