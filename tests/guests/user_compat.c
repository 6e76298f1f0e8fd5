/*
 * user_compat.c - 32-bit user code.
 */
#include "lib/guest.h"
#include "lib/user_code.h"

TEST(compat_int80)
{
	struct regs r;

	user_init();
	expect_eq(user32_call(&r, user32_int80, 0x89abcdef, 0), GATE_EXIT);
	expect_eq(r.rax, 0x89abcdef);
	expect_eq(r.cs & 0xffff, FLAT_USER_CS32);
	expect_eq(r.rip, user_address(user32_int80_end));
	/* and on, behind the int, as a kernel's return would */
	r.rip = user_address(user32_int80);
	r.rdi = 5;
	expect_eq(user_run(&r), GATE_EXIT);
	expect_eq(r.rax, 5);
}

TEST(compat_exceptions)
{
	struct regs r;

	user_init();
	expect_eq(user32_call(&r, user32_gp, 0, 0), 13);
	expect_eq(r.error, 0);
	expect_eq(r.rip, user_address(user32_gp));
	expect_eq(r.cs & 0xffff, FLAT_USER_CS32);
	expect_eq(user32_call(&r, user32_int3, 0, 0), 3);
	expect_eq(r.rip, user_address(user32_int3) + 1);
	expect_eq(user32_call(&r, user32_data, 0x7000, FLAT_USER_DS32), 14);
	expect_eq(r.error, PF_U);
	expect_eq(this_vcpu()->arch.cr2, 0x7000);
}

TEST(compat_data_segment)
{
	uint64_t *ldt = page_alloc();
	struct regs r;

	user_init();
	*(uint32_t *)(user_data + 0x40) = 0xc0de;
	ldt[2] = 0x00c0f3000000fffful | (USER_DATA & 0xffffff) << 16;
	page_protect(ldt, PTE_RO_DATA);
	expect_eq(mmuext(MMUEXT_SET_LDT, PTR(ldt), 8), 0);
	expect_eq(user32_call(&r, user32_data, 0x40, 2 << 3 | 7), GATE_EXIT);
	expect_eq(r.rax, 0xc0de);
	expect_eq(user32_call(&r, user32_data, 0x40, 3 << 3 | 7), 13);
	expect_eq(r.error, 3 << 3 | 4);
	mmuext(MMUEXT_SET_LDT, 0, 0);
}

TEST(compat_syscall)
{
	struct regs r;
	int v = user32_call(&r, user32_syscall, 7, 0);

	user_init();
	/* AMD has it in compatibility mode, Intel raises #UD */
	expect(v == VEC_SYSCALL32 || v == 6, "trap %d", v);
	expect_eq(r.rdi, 7);
}
