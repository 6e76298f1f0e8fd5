/*
 * shim.c - umbra's own memory in this VM: what user mode and the kernel can do with it, and how far what happens there
 * can be made to look different from Xen. Boots with every --shim and --gates; `shim=` and `gates=` on the command line
 * say what to expect.
 */
#include "lib/shim.h"
#include "lib/user_code.h"

#define POOL_END_PAGES	48		/* the smallest pool there is */

TEST(modes_are_those_asked_for)
{
	const char *s = option("shim");

	if (s)
		expect_eq(shim_there(), strcmp(s, "off") != 0);
	s = option("gates");
	if (s)
		expect_eq(gates_there(), strcmp(s, "invm") == 0);
	if (!option("shim") && !option("gates"))
		test_skip("nothing is expected: no shim= and gates=");
}

/* ---- user mode ---------------------------------------------------------------------------------------------------------- */

static void try_from_user(uint64_t va)
{
	static const struct {
		const char *name, *code;
		uint32_t error;
	} tries[] = {
		{ "reads", user_read, 0 },
		{ "writes", user_write, PF_W },
		{ "runs", user_jump, PF_I },
	};
	bool lstar = va == GATE_VA + GATE_SYSCALL || va == GATE_VA + GATE_SYSCALL32;
	struct regs r;

	for (unsigned i = 0; i < ARRAY_SIZE(tries); i++) {
		int v;

		/* to a PVM host a jump there is a SYSCALL, see jump_to_the_syscall_gate */
		if (lstar && tries[i].error == PF_I)
			continue;
		v = linux_user_call(&r, tries[i].code, va, 0);
		expect(v == 14, "user mode %s %lx: vector %d, rax %lx", tries[i].name, va, v, r.rax);
		expect((r.error & ~PF_P) == (tries[i].error | PF_U), "user mode %s %lx: error code %lx", tries[i].name, va,
		       r.error);
		expect(this_vcpu()->arch.cr2 == va, "user mode %s %lx: cr2 is %lx", tries[i].name, va,
		       (uint64_t)this_vcpu()->arch.cr2);
		expect(r.rip == (tries[i].error == PF_I ? va : user_address(tries[i].code)), "user mode %s %lx: rip %lx",
		       tries[i].name, va, r.rip);
	}
}

static void try_pages_from_user(uint64_t va, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++)
		try_from_user(va + i * PAGE);
}

static void try_all_from_user(void)
{
	uint64_t ram_end = RAM_MAP_VA + start_info->nr_pages * PAGE;

	try_pages_from_user(GATE_VA, 2);
	try_from_user(GATE_VA + GATE_IRET);
	try_from_user(GATE_VA + GATE_KICK);
	try_from_user(GATE_VA + GATE_USER_FAULT);
	try_from_user(GATE_VA + GATE_BP);
	try_from_user(GATE_VA + GATE_SYSCALL);
	try_pages_from_user(VCPU_AREA_VA(0), VCPU_AREA_PAGES);
	try_pages_from_user(POOL_VA, 4);
	try_from_user(POOL_VA + (POOL_END_PAGES - 1) * PAGE);
	try_pages_from_user(M2P_VA, 2);
	try_pages_from_user(SHIM_VA, SHIM_CODE_PAGES);
	try_from_user(SHIM_DATA_VA);
	try_from_user(SHIM_INFO_VA);
	try_pages_from_user(SHIM_RING_VA, SHIM_RING_PAGES);
	try_pages_from_user(SHIM_STACK_VA, 2);
	try_pages_from_user(SHIM_FRAME_VA, 2);
	try_from_user(RAM_MAP_VA);
	try_from_user(RAM_MAP_VA + (va_to_mfn(image_start) << 12));
	try_from_user(RAM_MAP_VA + mach(user_data));
	try_from_user(RAM_MAP_VA + mach(user_root));
	try_from_user(ram_end - PAGE);
	try_from_user(ram_end);
	try_from_user(PTR(image_start));
	try_from_user(PTR(start_info));
	try_from_user(PTR(shared_info));
	try_from_user(PTR(root_va()));
	try_from_user(PTR(user_root));
}

TEST(user_mode_reaches_nothing)
{
	struct regs r;

	linux_user_init();
	try_all_from_user();
	for (unsigned i = 0; i < 100; i++) {
		linux_user_call(&r, user_bare_syscall, 0, 0);
		linux_user_call(&r, user_read, USER_DATA + 0x8000, 0);
	}
	try_all_from_user();
	for (unsigned slot = 256; slot < 272; slot++)
		try_from_user(0xffff000000000000 | (uint64_t)slot << 39);
}

/* ---- the kernel --------------------------------------------------------------------------------------------------------- */

enum rights { NONE = 0, R = 1, W = 2, X = 4 };

static void try_from_kernel(uint64_t va, unsigned rights, const char *what)
{
	uint64_t v = 0, ret;

	expect((probe_read(va, &v) < 0) == !!(rights & R), "%s at %lx: %sreadable", what, va, rights & R ? "not " : "");
	/* the value that is there */
	expect((probe_write(va, v) < 0) == !!(rights & W), "%s at %lx: %swritable", what, va, rights & W ? "not " : "");
	if (rights & X)
		return;
	if (rights & W) {
		ret = (v & ~0xfful) | 0xc3;
		*(volatile uint64_t *)va = ret;
	}
	expect(probe_fetch(va) == 14, "%s at %lx: it runs", what, va);
	if (rights & W)
		*(volatile uint64_t *)va = v;
}

TEST(kernel_rights)
{
	uint64_t ram_end = RAM_MAP_VA + start_info->nr_pages * PAGE;
	unsigned ram = option_number("nested", 0) ? R : R | W;	/* with the processor on the tables that are in it: read only */

	if (!need_shim())
		return;
	for (unsigned round = 0; round < 2; round++) {
		struct regs r;

		try_from_kernel(GATE_VA, NONE, "the gate page");
		try_from_kernel(IDT_VA, NONE, "the IDT");
		for (unsigned i = 0; i < VCPU_AREA_PAGES; i++)
			try_from_kernel(VCPU_AREA_VA(0) + i * PAGE, NONE, "the vCPU area");
		try_from_kernel(POOL_VA, NONE, "the shadow pool");
		try_from_kernel(POOL_VA + (POOL_END_PAGES - 1) * PAGE, NONE, "the shadow pool");
		try_from_kernel(M2P_VA, R, "the M2P");
		for (unsigned i = 0; i < SHIM_CODE_PAGES; i++)
			try_from_kernel(SHIM_VA + i * PAGE, R | X, "the shim's code");
		try_from_kernel(SHIM_DATA_VA + PAGE - 8, R | W, "the shim's data");
		for (unsigned i = 0; i < SHIM_RING_PAGES; i++)
			try_from_kernel(SHIM_RING_VA + i * PAGE, R | W, "the ring");
		try_from_kernel(SHIM_STACK_VA, R | W, "the shim's stack");
		try_from_kernel(SHIM_FRAME_VA, R, "the alias of the ring-0 stack");
		try_from_kernel(SHIM_FRAME_VA + PAGE, R, "the alias of struct gate_data");
		try_from_kernel(RAM_MAP_VA + mach(user_data ? user_data : page_alloc()), ram, "the map of RAM");
		try_from_kernel(ram_end - PAGE, ram, "the last page of the map of RAM");
		try_from_kernel(ram_end, NONE, "what is behind RAM");
		try_from_kernel(ram_end + 0x100000, NONE, "what is behind RAM");
		linux_user_init();
		linux_user_call(&r, user_bare_syscall, 0, 0);
		linux_user_call(&r, user_read, USER_DATA + 0x8000, 0);
	}
}

/* The shim gives a call up where a pointer of the guest's faults under it, in the middle of what it does. */
TEST(registers_after_a_refused_call)
{
	static const uint64_t bad[] = { TEST_VA, 0x8000000000000000, 1, GATE_VA };
	static const unsigned calls[] = { __HYPERVISOR_mmu_update, __HYPERVISOR_mmuext_op, __HYPERVISOR_multicall };
	struct mmu_update u[64];

	for (unsigned i = 0; i < ARRAY_SIZE(bad) * ARRAY_SIZE(calls); i++) {
		uint64_t in[6], out[6];

		for (unsigned k = 0; k < 6; k++)
			in[k] = 0x1111111111111111 * (k + 1) + i;
		asm volatile("pushq %%rbx\n\tpushq %%rbp\n\tpushq %[out]\n\t"
			     "movq (%[in]), %%rbx\n\tmovq 8(%[in]), %%rbp\n\tmovq 16(%[in]), %%r12\n\t"
			     "movq 24(%[in]), %%r13\n\tmovq 32(%[in]), %%r14\n\tmovq 40(%[in]), %%r15\n\t"
			     "movq %[nr], %%rdi\n\tmovl $2, %%edx\n\txorl %%ecx, %%ecx\n\tmovl $0x7ff0, %%r8d\n\t"
			     "call hypercall\n\t"
			     "popq %%rcx\n\tmovq %%rbx, (%%rcx)\n\tmovq %%rbp, 8(%%rcx)\n\tmovq %%r12, 16(%%rcx)\n\t"
			     "movq %%r13, 24(%%rcx)\n\tmovq %%r14, 32(%%rcx)\n\tmovq %%r15, 40(%%rcx)\n\t"
			     "popq %%rbp\n\tpopq %%rbx"
			     :: [in] "a"(in), [out] "c"(out), [nr] "d"((uint64_t)calls[i / ARRAY_SIZE(bad)]),
				"S"(bad[i % ARRAY_SIZE(bad)])
			     : "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
		for (unsigned k = 0; k < 6; k++)
			expect(in[k] == out[k], "call %u at %lx: register %u of rbx, rbp, r12-r15 is %lx",
			       calls[i / ARRAY_SIZE(bad)], bad[i % ARRAY_SIZE(bad)], k, out[k]);
	}
	/* and one that faults after it has done something */
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
		u[i] = (struct mmu_update){ mach(page_alloc()), 0 };
	expect_eq(hcall4(mmu_update, PTR(u), ARRAY_SIZE(u), TEST_VA, DOMID_SELF), -XEN_EFAULT);
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
		page_free(mfn_to_va(u[i].ptr >> 12));
}

/* ---- jumping where only the processor should go -------------------------------------------------------------------------- */

/* A PVM host knows a SYSCALL by the fetch fault at LSTAR, and so takes this jump for one: then RCX and R11 are the user's
 * own choice. What they say must not reach the kernel as if the processor had said it. */
TEST(jump_to_the_syscall_gate)
{
	static const uint64_t flags[] = { 0, 2, 0xffffffffffffffff, RFLAGS_IOPL, RFLAGS_TF | RFLAGS_IF, 1 << 17, 1 << 14 };

	linux_user_init();
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		struct regs r = { .rip = user_address(user_jump), .cs = LINUX_USER_CS, .ss = LINUX_USER_SS,
				  .rsp = USER_STACK_TOP, .rflags = RFLAGS_IF | 2, .rdi = GATE_VA + GATE_SYSCALL };
		int v;

		r.rcx = user_address(user_exit);
		r.r11 = flags[i];
		v = user_run(&r);
		if (v == 14)
			continue;
		expect_eq(v, VEC_SYSCALL);
		expect_eq(r.rip, user_address(user_exit));
		expect(r.rflags & RFLAGS_IF, "R11 %lx clears IF: user mode could keep events from the kernel", flags[i]);
		expect(!(r.rflags & (RFLAGS_IOPL | 1 << 17)), "R11 %lx: rflags %lx with IOPL or VM", flags[i], r.rflags);
		expect_eq(user_run(&r), GATE_EXIT);	/* with TF, too: `int` clears it on its way */
		expect_eq(r.cs >> 32 & 0xff, 0);
	}
}

/* The shim's door to the VMM, from user mode: with a context of its own, not that of the last fault. */
TEST(jump_to_the_fault_gate)
{
	struct regs r;

	linux_user_init();
	for (unsigned i = 0; i < 4; i++) {
		uint64_t to = GATE_VA + GATE_USER_FAULT;

		/* one that the VMM sees to, so that there is a context in the shim's data */
		expect_eq(map_page(user_root, USER_DATA + 0x40000, pte_make(va_to_mfn(user_data), PTE_DATA)), 0);
		linux_user_call(&r, user_read, USER_DATA + 0x40000, 0);
		linux_user_call(&r, user_read, USER_DATA + 0x9000, 0);
		r = (struct regs){ .rip = i & 2 ? to : user_address(user_jump), .cs = i & 1 ? FLAT_USER_CS64 : LINUX_USER_CS,
				   .ss = i & 1 ? FLAT_USER_SS64 : LINUX_USER_SS, .rsp = USER_STACK_TOP - 64,
				   .rflags = RFLAGS_IF | 2, .rdi = to, .rbx = i };
		expect_eq(user_run(&r), 14);
		expect_eq(r.rip, to);
		expect_eq(r.rsp, USER_STACK_TOP - 64);
		expect_eq(r.rbx, i);
		expect_eq(r.error & ~PF_P, PF_U | PF_I);
		expect_eq(this_vcpu()->arch.cr2, to);
	}
}

static bool pass_over_steps(struct regs *r)
{
	static unsigned steps;

	return (r->cs & 3) == 3 && steps++ < 1;
}

TEST(stepping_into_the_fault_gate)
{
	uint64_t to = GATE_VA + GATE_USER_FAULT;
	struct regs r = { .rip = user_address(user_jump), .cs = LINUX_USER_CS, .ss = LINUX_USER_SS, .rsp = USER_STACK_TOP,
			  .rflags = RFLAGS_IF | RFLAGS_TF | 2, .rdi = to };

	linux_user_init();
	trap_hook(1, pass_over_steps);
	expect_eq(user_run(&r), 14);
	trap_hook(1, NULL);
	expect_eq(r.rip, to);
	expect_eq(r.rsp, USER_STACK_TOP);
	expect_eq(this_vcpu()->arch.cr2, to);
}
