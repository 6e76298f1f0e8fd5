/*
 * user.c - user mode: in by HYPERVISOR_iret, out by syscall, fault and int N; what it can and cannot reach.
 */
#include "lib/guest.h"
#include "lib/user_code.h"

TEST(registers_in_and_out)
{
	struct regs r;

	user_init();
	expect_eq(user_call(&r, user_registers, 0, 0), GATE_EXIT);
	expect(r.rax == 1 && r.rbx == 2 && r.rcx == 3 && r.rdx == 4 && r.rsi == 5 && r.rdi == 6 && r.rbp == 7,
	       "rax %lx rbx %lx rcx %lx rdx %lx rsi %lx rdi %lx rbp %lx", r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp);
	expect(r.r8 == 8 && r.r9 == 9 && r.r10 == 10 && r.r11 == 11 && r.r12 == 12 && r.r13 == 13 && r.r14 == 14 &&
	       r.r15 == 15, "r8-r15: %lx %lx %lx %lx ...", r.r8, r.r9, r.r10, r.r11);
	expect_eq(r.cs & 0xffff, FLAT_USER_CS64);
	expect_eq(r.ss & 0xffff, FLAT_USER_SS64);
	expect_eq(r.rsp, USER_STACK_TOP);
	expect(r.rflags & RFLAGS_IF, "IF is clear in the frame");
}

TEST(registers_are_restored)
{
	struct regs r = { .rip = user_address(user_exit), .cs = FLAT_USER_CS64, .ss = FLAT_USER_SS64,
			  .rsp = USER_STACK_TOP - 24, .rflags = RFLAGS_IF | 2 | 0x8d5 };

	user_init();
	r.rax = 0x101; r.rbx = 0x102; r.rcx = 0x103; r.rdx = 0x104; r.rsi = 0x105; r.rdi = 0x106; r.rbp = 0x107;
	r.r8 = 0x108; r.r9 = 0x109; r.r10 = 0x10a; r.r11 = 0x10b; r.r12 = 0x10c; r.r13 = 0x10d; r.r14 = 0x10e; r.r15 = 0x10f;
	expect_eq(user_run(&r), GATE_EXIT);
	expect(r.rax == 0x101 && r.rcx == 0x103 && r.r11 == 0x10b && r.r15 == 0x10f && r.rdi == 0x106,
	       "rax %lx rcx %lx r11 %lx r15 %lx rdi %lx", r.rax, r.rcx, r.r11, r.r15, r.rdi);
	expect_eq(r.rflags & 0x8d5, 0x8d5);
	expect_eq(r.rsp, USER_STACK_TOP - 24);
}

TEST(syscall)
{
	struct regs r;

	user_init();
	this_vcpu()->evtchn_upcall_mask = 1;
	expect_eq(user_call(&r, user_syscall, 0x1234, 0), VEC_SYSCALL);
	expect_eq(r.rax, 0x1234);
	expect_eq(r.rip, user_address(user_after_syscall));
	expect_eq(r.rcx, r.rip);
	expect_eq(r.r11 & ~(1ul << 16), r.rflags & ~(1ul << 16));
	expect_eq(r.cs & 0xffff, FLAT_USER_CS64);
	/* iret enabled events, the callback asked for them to be masked */
	expect_eq(r.cs >> 32 & 0xff, 0);
	expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
}

TEST(return_to_a_syscall)
{
	struct regs r = { .rip = user_address(user_exit), .cs = 0x1237, .ss = 0x567b, .rsp = USER_STACK_TOP - 8,
			  .rflags = RFLAGS_IF | 2, .rax = 0xabc, .rcx = 1, .r11 = 2 };

	user_init();
	iret_flags = VGCF_in_syscall;
	expect_eq(user_run(&r), GATE_EXIT);
	iret_flags = 0;
	expect_eq(r.rax, 0xabc);
	expect_eq(r.cs & 0xffff, FLAT_USER_CS64);
	expect_eq(r.ss & 0xffff, FLAT_USER_SS64);
	expect_eq(r.rsp, USER_STACK_TOP - 8);
}

TEST(iret_sanitizes_flags)
{
	struct regs r = { .rip = user_address(user_exit), .cs = FLAT_USER_CS64, .ss = FLAT_USER_SS64, .rsp = USER_STACK_TOP,
			  .rflags = RFLAGS_IF | 2 | RFLAGS_IOPL | 1 << 17 /* VM */ };

	user_init();
	expect_eq(user_run(&r), GATE_EXIT);
	expect(!(r.rflags & (RFLAGS_IOPL | 1 << 17)), "rflags %lx", r.rflags);
	expect_eq(user_call(&r, user_privileged, USER_IN, 0), 13);
}

TEST(iret_unmasks_events)
{
	struct regs r;

	user_init();
	this_vcpu()->evtchn_upcall_mask = 1;
	expect_eq(user_call(&r, user_exit, 0, 0), GATE_EXIT);
	expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
	this_vcpu()->evtchn_upcall_mask = 1;
}

TEST(page_faults)
{
	struct regs r;
	uint64_t va = USER_DATA + 0x8000, mfn = va_to_mfn(page_alloc());

	user_init();
	expect_eq(user_call(&r, user_read, va + 8, 0), 14);
	expect_eq(r.error, PF_U);
	expect_eq(this_vcpu()->arch.cr2, va + 8);
	expect_eq(r.rip, user_address(user_read));
	expect_eq(user_call(&r, user_write, va, 0), 14);
	expect_eq(r.error, PF_U | PF_W);
	expect_eq(user_call(&r, user_jump, va, 0), 14);
	expect_eq(r.error, PF_U | PF_I);
	expect_eq(this_vcpu()->arch.cr2, va);

	expect_eq(map_page(user_root, va, pte_make(mfn, PTE_RO_DATA)), 0);
	expect_eq(user_call(&r, user_read, va, 0), GATE_EXIT);
	expect_eq(r.rax, 0);
	expect_eq(user_call(&r, user_write, va, 1), 14);
	expect_eq(r.error, PF_P | PF_U | PF_W);
	expect_eq(user_call(&r, user_jump, va, 0), 14);
	expect_eq(r.error, PF_P | PF_U | PF_I);
	expect_eq(map_page(user_root, va, pte_make(mfn, PTE_DATA)), 0);
	expect_eq(user_call(&r, user_write, va, 0x77), GATE_EXIT);
	expect_eq(user_call(&r, user_read, va, 0), GATE_EXIT);
	expect_eq(r.rax, 0x77);
	expect_eq(user_call(&r, user_read, 0x8000000000000000, 0), 13);
	expect_eq(r.error, 0);
}

/* The pager pattern: fault, map, go on where it stopped. */
TEST(demand_paging)
{
	struct regs r;
	uint64_t va = USER_DATA + 0x200000;

	user_init();
	for (unsigned i = 0; i < 32; i++) {
		void *page = page_alloc();

		*(uint64_t *)page = i * 3;
		expect_eq(user_call(&r, user_read, va + i * PAGE, 0), 14);
		expect_eq(map_page(user_root, va + i * PAGE, pte_make(va_to_mfn(page), PTE_DATA)), 0);
		expect_eq(user_run(&r), GATE_EXIT);
		expect_eq(r.rax, i * 3);
	}
}

static void expect_unreachable(uint64_t va, const char *what)
{
	struct regs r;
	int v = user_call(&r, user_read, va, 0);

	expect(v == 14 || v == 13, "user mode reads %s at %lx: %d", what, va, v);
	v = user_call(&r, user_write, va, 0);
	expect(v == 14 || v == 13, "user mode writes %s at %lx: %d", what, va, v);
	v = user_call(&r, user_jump, va, 0);
	expect((v == 14 || v == 13) && r.rip == va, "user mode runs %s at %lx: %d, rip %lx", what, va, v, r.rip);
}

TEST(kernel_is_unreachable)
{
	struct xen_machphys_mapping map;

	user_init();
	hcall2(memory_op, XENMEM_machphys_mapping, PTR(&map));
	expect_unreachable(PTR(image_start), "kernel code");
	expect_unreachable(PTR(start_info), "start_info");
	expect_unreachable(PTR(shared_info), "shared_info");
	expect_unreachable(PTR(root_va()), "the kernel's root table");
	expect_unreachable(PTR(user_root), "the user root table");
	expect_unreachable(map.v_start, "the M2P");
}

TEST(hole_is_unreachable)
{
	static const uint64_t offsets[] = { 0, 0x1000, 0x2000, 0x3000, 0x10000, 0x11000, 0x12000, 0x13000, 0x14000, 0x20000,
					    0x30000, 0x50000, 0x200000, 0x3ff000, 0x40000000, 0x7fffffff000 };
	uint64_t seed = option_number("seed", 20);

	user_init();
	for (unsigned slot = 256; slot < 272; slot++) {
		uint64_t base = 0xffff000000000000 | (uint64_t)slot << 39;

		for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++)
			expect_unreachable(base + offsets[i], "the hole");
		for (unsigned i = 0; i < 4; i++)
			expect_unreachable(base + (random64(&seed) & 0x7fffff000), "the hole");
	}
}

TEST(supervisor_pages_are_unreachable)
{
	struct regs r;
	uint64_t va = USER_DATA + 0x10000, mfn = va_to_mfn(page_alloc());

	user_init();
	if (!on_umbra()) {
		test_skip("Xen sets U in every entry");
		return;
	}
	if (option_number("nested", 0)) {
		test_skip("the processor walks our tables, with U set in every entry as by Xen");
		return;
	}
	expect_eq(map_page(user_root, va, pte_make(mfn, PTE_DATA & ~PTE_U)), 0);
	expect_eq(user_call(&r, user_read, va, 0), 14);
	expect_eq(r.error, PF_P | PF_U);
	expect_eq(map_page(root_va(), va, pte_make(mfn, PTE_DATA & ~PTE_U)), 0);
	expect_eq(probe_write(va, 1), -1);
}

TEST(exceptions)
{
	struct regs r;

	user_init();
	expect_eq(user_call(&r, user_ud2, 0, 0), 6);
	expect_eq(r.rip, user_address(user_ud2));
	expect_eq(user_call(&r, user_divide, 0, 0), 0);
	expect_eq(user_call(&r, user_int3, 0, 0), 3);
	expect_eq(r.rip, user_address(user_int3) + 1);
}

TEST(privileged_instructions)
{
	struct regs r;

	user_init();
	for (unsigned which = 0; which < USER_PRIVILEGED; which++) {
		expect_eq(user_call(&r, user_privileged, which, USER_DATA), 13);
		expect_eq(r.error, 0);
	}
}

TEST(software_interrupts)
{
	struct regs r;

	user_init();
	if (!on_umbra()) {
		test_skip("QEMU before 8.0 gives int N a wrong error code");
		return;
	}
	expect_eq(user_call(&r, user_int_kernel_gate, 0, 0), 13);
	expect_eq(r.error, GATE_KERNEL_ONLY * 8 + 2);
	expect_eq(r.rip, user_address(user_int_kernel_gate));
	this_vcpu()->evtchn_upcall_mask = 1;
	expect_eq(user_call(&r, user_masks, 0, 0), GATE_MASKS);
	expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
	expect_eq(r.cs >> 32 & 0xff, 0);
}

TEST(ports_with_iopl_3)
{
	struct physdev_set_iopl set = { .iopl = 3 };
	struct regs r;

	user_init();
	expect_eq(hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set)), 0);
	expect_eq(user_call(&r, user_privileged, USER_IN, 0), GATE_EXIT);
	set.iopl = 1;
	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
	expect_eq(user_call(&r, user_privileged, USER_IN, 0), 13);
	set.iopl = 0;
	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
}

TEST(single_step)
{
	struct regs r = { .rip = user_address(user_step), .cs = FLAT_USER_CS64, .ss = FLAT_USER_SS64, .rsp = USER_STACK_TOP,
			  .rflags = RFLAGS_IF | RFLAGS_TF | 2 };

	user_init();
	expect_eq(user_run(&r), 1);
	expect_eq(r.rip, user_address(user_step) + 1);
	expect(r.rflags & RFLAGS_TF, "TF is lost in the frame");
	expect_eq(user_run(&r), 1);
	expect_eq(r.rip, user_address(user_step) + 3);
	r.rflags &= ~RFLAGS_TF;
	expect_eq(user_run(&r), GATE_EXIT);
}

TEST(segment_bases)
{
	static uint64_t kernel_gs = 0x6b;
	uint64_t v;
	struct regs r;

	user_init();
	*(uint64_t *)user_data = 0x75;
	*(uint64_t *)(user_data + 64) = 0x66;
	expect_eq(hcall2(set_segment_base, SEGBASE_GS_KERNEL, PTR(&kernel_gs)), 0);
	expect_eq(hcall2(set_segment_base, SEGBASE_GS_USER, USER_DATA), 0);
	expect_eq(hcall2(set_segment_base, SEGBASE_FS, USER_DATA + 64), 0);
	for (unsigned i = 0; i < 3; i++) {
		expect_eq(user_call(&r, user_gs, 0, 0), GATE_EXIT);
		expect_eq(r.rax, 0x75);
		expect_eq(r.rdx, 0x66);
		asm volatile("movq %%gs:0, %0" : "=r"(v));
		expect_eq(v, kernel_gs);
	}
}

TEST(two_user_roots)
{
	uint64_t *second = table_alloc(), va = USER_DATA + 0x400000;
	uint64_t *a = page_alloc(), *b = page_alloc();
	struct regs r;

	user_init();
	*a = 0xa;
	*b = 0xb;
	expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(second), 0), 0);
	for (uint64_t off = 0; off < 8 * PAGE && off < user_text_size(); off += PAGE)
		expect_eq(map_page(second, USER_CODE + off, *pte_of(user_root, USER_CODE + off, 1)), 0);
	expect_eq(map_page(second, USER_DATA + PAGE, *pte_of(user_root, USER_DATA + PAGE, 1)), 0);
	expect_eq(map_page(user_root, va, pte_make(va_to_mfn(a), PTE_DATA)), 0);
	expect_eq(map_page(second, va, pte_make(va_to_mfn(b), PTE_DATA)), 0);
	for (unsigned i = 0; i < 8; i++) {
		expect_eq(mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(i & 1 ? second : user_root), 0), 0);
		expect_eq(user_call(&r, user_read, va, 0), GATE_EXIT);
		expect_eq(r.rax, i & 1 ? 0xb : 0xa);
	}
	expect_eq(mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(user_root), 0), 0);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(second), 0), 0);
}

TEST(many_returns)
{
	struct regs r;

	user_init();
	for (unsigned i = 0; i < 2000 && !test_failed(); i++) {
		expect_eq(user_call(&r, user_syscall, i, 0), VEC_SYSCALL);
		expect_eq(r.rax, i);
	}
}
