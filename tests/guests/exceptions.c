/*
 * exceptions.c - faults and traps of the guest kernel: which handler, error code, CR2, and nothing lost on the way.
 */
#include "lib/guest.h"

TEST(divide_error)
{
	probe("divl %%ecx", :: "a"(1), "d"(0), "c"(0) : "cc");
	expect_trap(0, 0);
}

TEST(invalid_opcode)
{
	probe("ud2");
	expect_trap(6, 0);
	expect_eq(seen.count, 1);
}

TEST(breakpoint)
{
	uint64_t behind;

	seen_clear();
	asm volatile("int3\n1: leaq 1b(%%rip), %0" : "=r"(behind));
	expect_trap(3, 0);
	expect_eq(seen.rip, behind);
	expect_eq(seen.regs.cs & 0xffff, FLAT_KERNEL_CS & ~3);
}

TEST(general_protection)
{
	uint64_t v;

	expect_eq(probe_read(0x8000000000000000, &v), 13);
	expect_eq(seen.error, 0);
	probe("movl %0, %%es", :: "r"(0x90));		/* not one of the host's own: a PVM host loads those */
	expect_trap(13, 0x90);
	probe("movl %0, %%es", :: "r"(0xfff3));
	expect_eq(seen.vector, 13);
}

TEST(stack_fault)
{
	seen_clear();
	asm volatile("movq %%rbp, %%rbx\n\tmovq %0, %%rbp\n" PROBED("movq (%%rbp), %%rax") "\tmovq %%rbx, %%rbp"
		     :: "r"(0x8000000000000000) : "rax", "rbx", "memory");
	expect(seen.vector == 12 || seen.vector == 13, "trap %d", seen.vector);	/* 13 is what QEMU's TCG raises */
	expect_eq(seen.error, 0);
}

static bool no_software_interrupts(void)
{
	if (on_umbra())
		return false;
	test_skip("QEMU before 8.0 gives int N a wrong error code");
	return true;
}

TEST(software_interrupts)
{
	uint64_t behind;

	if (no_software_interrupts())
		return;
	seen_clear();
	asm volatile("int $0x71\n1: leaq 1b(%%rip), %0" : "=r"(behind));
	expect_trap(GATE_USER, 0);
	expect_eq(seen.rip, behind);
	seen_clear();
	asm volatile("int $0x70");
	expect_trap(GATE_KERNEL_ONLY, 0);
	probe("int $0x6f");
	expect_trap(13, GATE_NOBODY * 8 + 2);
	probe("int $0x02");		/* no handler, so DPL 0 */
	expect_trap(13, 2 * 8 + 2);
	seen_clear();
	asm volatile("int $4");
	expect_trap(4, 0);
	probe("int $13");		/* an exception's gate: DPL 0 */
	expect_trap(13, 13 * 8 + 2);
}

TEST(trap_masks_events)
{
	if (no_software_interrupts())
		return;
	/* with flag 4 events are masked in the handler, and the frame has what was before */
	this_vcpu()->evtchn_upcall_mask = 0;
	seen_clear();
	asm volatile("int $0x73");
	expect_eq(seen.vector, GATE_MASKS);
	expect_eq(seen.regs.cs >> 32 & 0xff, 0);
	expect(seen.regs.rflags & RFLAGS_IF, "the frame's IF is clear, but events were not masked");
	expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
	this_vcpu()->evtchn_upcall_mask = 1;
	seen_clear();
	asm volatile("int $0x71");
	expect_eq(seen.regs.cs >> 32 & 0xff, 1);
	expect(!(seen.regs.rflags & RFLAGS_IF), "the frame's IF is set, but events were masked");
	expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
}

static uint8_t mask_in_handler;
static bool note_mask(struct regs *r)
{
	mask_in_handler = this_vcpu()->evtchn_upcall_mask;
	return true;
}

TEST(events_masked_in_handler)
{
	if (no_software_interrupts())
		return;
	trap_hook(GATE_MASKS, note_mask);
	trap_hook(GATE_USER, note_mask);
	this_vcpu()->evtchn_upcall_mask = 0;
	asm volatile("int $0x73");
	expect_eq(mask_in_handler, 1);
	asm volatile("int $0x71");
	expect_eq(mask_in_handler, 0);
	this_vcpu()->evtchn_upcall_mask = 1;
	trap_hook(GATE_MASKS, NULL);
	trap_hook(GATE_USER, NULL);
}

static bool nested_fault(struct regs *r)
{
	uint64_t rip = r->rip, error = r->error;

	expect_eq(probe_read(TEST_VA, NULL), 14);
	probe("divl %%ecx", :: "a"(1), "d"(0), "c"(0) : "cc");
	expect_trap(0, 0);
	expect(r->rip == rip && r->error == error, "the outer frame has changed");
	r->rip += 2;
	r->rax = 0x600d;
	return true;
}

TEST(nested_faults)
{
	uint64_t rax = 0;

	trap_hook(6, nested_fault);
	asm volatile("ud2" : "+a"(rax));
	trap_hook(6, NULL);
	expect_eq(rax, 0x600d);
}

static struct regs frame_seen;
static bool note_frame(struct regs *r)
{
	frame_seen = *r;
	frame_seen.vector = PTR(r);
	r->rip += 2;
	return true;
}

TEST(registers_survive)
{
	uint64_t bad = 0;

	trap_hook(6, note_frame);
	asm volatile("pushq %%rbp\n\t"
		     "movq $0x11, %%rax\n\tmovq $0x12, %%rbx\n\tmovq $0x13, %%rcx\n\tmovq $0x14, %%rdx\n\t"
		     "movq $0x15, %%rsi\n\tmovq $0x16, %%rdi\n\tmovq $0x17, %%rbp\n\tmovq $0x18, %%r8\n\t"
		     "movq $0x19, %%r9\n\tmovq $0x1a, %%r10\n\tmovq $0x1b, %%r11\n\tmovq $0x1c, %%r12\n\t"
		     "movq $0x1d, %%r13\n\tmovq $0x1e, %%r14\n\tmovq $0x1f, %%r15\n\t"
		     "stc\n\tud2\n\tjnc 1f\n\t"
		     "cmpq $0x11, %%rax\n\tjne 1f\n\tcmpq $0x12, %%rbx\n\tjne 1f\n\tcmpq $0x13, %%rcx\n\tjne 1f\n\t"
		     "cmpq $0x14, %%rdx\n\tjne 1f\n\tcmpq $0x15, %%rsi\n\tjne 1f\n\tcmpq $0x16, %%rdi\n\tjne 1f\n\t"
		     "cmpq $0x17, %%rbp\n\tjne 1f\n\tcmpq $0x18, %%r8\n\tjne 1f\n\tcmpq $0x19, %%r9\n\tjne 1f\n\t"
		     "cmpq $0x1a, %%r10\n\tjne 1f\n\tcmpq $0x1b, %%r11\n\tjne 1f\n\tcmpq $0x1c, %%r12\n\tjne 1f\n\t"
		     "cmpq $0x1d, %%r13\n\tjne 1f\n\tcmpq $0x1e, %%r14\n\tjne 1f\n\tcmpq $0x1f, %%r15\n\tjne 1f\n\t"
		     "xorl %%eax, %%eax\n\tjmp 2f\n1:\tmovl $1, %%eax\n2:\tpopq %%rbp"
		     : "=a"(bad) :: "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		     "cc", "memory");
	trap_hook(6, NULL);
	expect(!bad, "a register changed across a trap");
	expect(frame_seen.rcx == 0x13 && frame_seen.r11 == 0x1b, "rcx %lx and r11 %lx in the frame", frame_seen.rcx,
	       frame_seen.r11);
	expect(frame_seen.rax == 0x11 && frame_seen.r15 == 0x1f, "rax or r15 in the frame");
	expect(frame_seen.rflags & 1, "carry is lost in the frame");
}

TEST(frame_is_aligned)
{
	uint64_t rsp;

	trap_hook(6, note_frame);
	asm volatile("movq %%rsp, %%rbx\n\tsubq $200, %%rsp\n\tandq $~15, %%rsp\n\tsubq $5, %%rsp\n\tmovq %%rsp, %0\n\t"
		     "ud2\n\tmovq %%rbx, %%rsp" : "=&r"(rsp) :: "rbx", "memory");
	trap_hook(6, NULL);
	expect_eq(frame_seen.rsp, rsp);
	expect_eq((frame_seen.vector + sizeof(struct regs)) & 15, 0);
}

TEST(page_fault_codes)
{
	uint64_t mfn = va_to_mfn(page_alloc()), va = TEST_VA + 0x1238;
	uint8_t ret = 0xc3;

	expect_eq(probe_read(va, NULL), 14);
	expect_eq(seen.error, 0);
	expect_eq(seen.cr2, va);
	expect_eq(probe_write(va, 1), 14);
	expect_eq(seen.error, PF_W);
	expect_eq(seen.cr2, va);
	expect_eq(probe_fetch(va), 14);
	expect_eq(seen.error, PF_I);
	expect_eq(seen.cr2, va);

	expect_eq(map_page(root_va(), va, pte_make(mfn, PTE_DATA)), 0);
	expect_eq(probe_write(va, ret), -1);
	expect_eq(probe_fetch(va), 14);
	expect_eq(seen.error, PF_P | PF_I);

	expect_eq(update_va(va, pte_make(mfn, PTE_P | PTE_U), UVMF_INVLPG), 0);
	expect_eq(probe_fetch(va), -1);
	expect_eq(probe_write(va, 1), 14);
	expect_eq(seen.error, PF_P | PF_W);
	expect_eq(probe_read(va, NULL), -1);

	expect_eq(update_va(va, 0, UVMF_INVLPG), 0);
	expect_eq(probe_read(va, NULL), 14);
	expect_eq(seen.error, 0);
}

TEST(page_fault_on_upper_levels)
{
	static const unsigned levels[] = { 2, 3, 4 };

	for (unsigned i = 0; i < ARRAY_SIZE(levels); i++) {
		uint64_t va = (TEST_VA + (1ul << 39)) + (1ul << (12 + 9 * (levels[i] - 1)));

		expect_eq(probe_write(va, 1), 14);
		expect_eq(seen.error, PF_W);
		expect_eq(seen.cr2, va);
	}
}

TEST(fault_in_a_string_instruction)
{
	uint8_t *page = page_alloc();
	uint64_t rcx = 64, rdi = TEST_VA + 0x1000 - 24, rsi = PTR(image_start);

	expect_eq(map_page(root_va(), TEST_VA, pte_make(va_to_mfn(page), PTE_DATA)), 0);
	expect_eq(probe_read(TEST_VA, NULL), -1);
	probe("rep movsb", : "+c"(rcx), "+D"(rdi), "+S"(rsi) :: "memory");
	expect_trap(14, PF_W);
	expect_eq(seen.cr2, TEST_VA + 0x1000);
	expect_eq(seen.regs.rcx, 40);
	expect(!memcmp(page + 4096 - 24, image_start, 24), "what was before the fault is not there");
	update_va(TEST_VA, 0, UVMF_INVLPG);
	page_free(page);
}

TEST(device_not_available)
{
	expect_eq(hcall1(fpu_taskswitch, 1), 0);
	probe("fnop");
	if (seen.vector == -1 && option("pvm")) {
		test_skip("a PVM host does not honour CR0.TS");
		return;
	}
	expect_trap(7, 0);
	/* the hypervisor has cleared TS by itself */
	probe("fnop");
	expect_eq(seen.vector, -1);
	expect_eq(hcall1(fpu_taskswitch, 1), 0);
	expect_eq(hcall1(fpu_taskswitch, 0), 0);
	probe("fnop");
	expect_eq(seen.vector, -1);
}

TEST(x87_exception)
{
	static const uint16_t unmasked = 0x37b;		/* divide by zero */

	asm volatile("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st" :: "m"(unmasked));
	probe("fwait");
	asm volatile("fninit");
	expect_trap(16, 0);
}

TEST(trap_table_is_checked)
{
	static struct trap_info bad[2] = { { .vector = 0x99, .cs = FLAT_KERNEL_CS, .address = 0x1234567890abcdef } };

	expect_eq(hcall1(set_trap_table, TEST_VA), -XEN_EFAULT);
	expect_eq(hcall1(set_trap_table, PTR(bad)), -XEN_EINVAL);
}

TEST(iret_in_the_kernel)
{
	/* natively, with RPL 3: what Xen's header allows instead of the hypercall */
	uint64_t got = 0;

	asm volatile("movq %%rsp, %%rbx\n\tpushq %2\n\tpushq %%rbx\n\tpushfq\n\tpushq %1\n\tleaq 1f(%%rip), %%rax\n\t"
		     "pushq %%rax\n\tiretq\n\tud2\n1:\tmovl $0x1337, %%eax"
		     : "=&a"(got) : "i"(FLAT_KERNEL_CS), "i"(FLAT_KERNEL_SS) : "rbx", "memory", "cc");
	expect_eq(got, 0x1337);
}
