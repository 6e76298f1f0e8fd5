/*
 * privileged.c - what a PV kernel executes although ring 3 may not: cpuid, MSRs, control registers, ports; and hypercalls
 * that have to be refused.
 */
#include "lib/guest.h"

#define MSR_FS_BASE	0xc0000100
#define MSR_GS_BASE	0xc0000101
#define MSR_KERNEL_GS	0xc0000102
#define MSR_EFER	0xc0000080

static uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo = 0, hi = 0;

	probe("rdmsr", : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}

static void wrmsr(uint32_t msr, uint64_t v)
{
	probe("wrmsr", :: "a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(msr));
}

TEST(hypercall_numbers)
{
	static const uint32_t bad[] = { 11, 43, 47, 55, 63, 64, 127, 128, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff };

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		long r = hypercall(bad[i], 1, 2, 3, 4, 5);

		expect(r == -XEN_ENOSYS, "hypercall %x: %ld", bad[i], r);
	}
}

TEST(bad_pointers)
{
	static const uint64_t where[] = { TEST_VA, 0x8000000000000000, 0xffff800000000000, 0xffff818000000000,
					  0xffff820000000000, 0xffff87fffffffff8, 0xffffffffffffffff };

	for (unsigned i = 0; i < ARRAY_SIZE(where); i++) {
		uint64_t p = where[i];
		long r;

#define REFUSED(call) expect((r = (call)) == -XEN_EFAULT, "%s with %lx: %ld", #call, p, r)
		/* whatever can be read in the hole has to be harmless; Xen's M2P stands there */
		if (probe_read(p, NULL) == -1)
			continue;
		REFUSED(hcall1(set_trap_table, p));
		REFUSED(hcall4(mmu_update, p, 1, 0, DOMID_SELF));
		REFUSED(hcall4(mmuext_op, p, 1, 0, DOMID_SELF));
		REFUSED(hcall2(set_gdt, p, 1));
		REFUSED(hcall2(memory_op, XENMEM_memory_map, p));
		REFUSED(hcall2(multicall, p, 1));
		REFUSED(hcall2(sched_op, SCHEDOP_poll, p));
		REFUSED(hcall2(sched_op, SCHEDOP_shutdown, p));
		REFUSED(hcall2(event_channel_op, EVTCHNOP_send, p));
		REFUSED(hcall2(callback_op, CALLBACKOP_register, p));
		REFUSED(hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, p));
		REFUSED(hcall2(physdev_op, PHYSDEVOP_set_iopl, p));
		REFUSED(hcall2(xen_version, XENVER_extraversion, p));
		REFUSED(hcall3(console_io, CONSOLEIO_write, 16, p));
#undef REFUSED
	}
}

TEST(hypercall_keeps_registers)
{
	uint64_t bad;

	asm volatile("pushq %%rbp\n\tmovq $0x22, %%rbx\n\tmovq $0x23, %%rbp\n\tmovq $0x24, %%r12\n\tmovq $0x25, %%r13\n\t"
		     "movq $0x26, %%r14\n\tmovq $0x27, %%r15\n\tmovq $0x28, %%r9\n\t"
		     "movl %1, %%eax\n\txorl %%edi, %%edi\n\txorl %%esi, %%esi\n\tsyscall\n\t"
		     "cmpq $0x22, %%rbx\n\tjne 1f\n\tcmpq $0x23, %%rbp\n\tjne 1f\n\tcmpq $0x24, %%r12\n\tjne 1f\n\t"
		     "cmpq $0x25, %%r13\n\tjne 1f\n\tcmpq $0x26, %%r14\n\tjne 1f\n\tcmpq $0x27, %%r15\n\tjne 1f\n\t"
		     "cmpq $0x28, %%r9\n\tjne 1f\n\txorl %%eax, %%eax\n\tjmp 2f\n1:\tmovl $1, %%eax\n2:\tpopq %%rbp"
		     : "=a"(bad) : "i"(__HYPERVISOR_xen_version)
		     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
	expect(!bad, "a register changed across a hypercall");
}

TEST(cpuid_forced)
{
	uint32_t r[4], max;

	forced_cpuid(0x40000000, 0, r);
	expect(r[1] == 0x566e6558 && r[2] == 0x65584d4d && r[3] == 0x4d4d566e, "leaf 0x40000000: %x %x %x", r[1], r[2], r[3]);
	expect(r[0] >= 0x40000003 && r[0] < 0x40000100, "last Xen leaf is %x", r[0]);
	forced_cpuid(0x40000001, 0, r);
	expect(r[0] >> 16 == 4, "Xen version %x", r[0]);
	expect_eq(hcall2(xen_version, XENVER_version, 0), r[0]);
	forced_cpuid(0, 0, r);
	max = r[0];
	expect(max >= 7, "last leaf is %u", max);
	forced_cpuid(1, 0, r);
	expect(r[2] >> 31, "no hypervisor bit");
	expect(r[3] & 1 << 4 && r[3] & 1 << 26, "TSC or SSE2 missing: edx %x", r[3]);
	forced_cpuid(0x80000001, 0, r);
	expect(r[3] & 1 << 29 && r[3] & 1 << 20, "LM or NX missing: edx %x", r[3]);
}

TEST(cpuid_hides)
{
	/* edx and ecx of leaf 1, ebx and ecx of leaf 7: what a PV guest cannot use */
	static const struct { uint32_t leaf; uint8_t reg, bit; const char *name; } hidden[] = {
		{ 1, 3, 3, "pse" }, { 1, 3, 1, "vme" }, { 1, 3, 13, "pge" }, { 1, 2, 17, "pcid" }, { 1, 2, 5, "vmx" },
		{ 1, 2, 3, "monitor" }, { 7, 1, 7, "smep" }, { 7, 1, 20, "smap" }, { 7, 1, 10, "invpcid" }, { 7, 2, 2, "umip" },
		{ 7, 2, 3, "pku" }, { 7, 2, 16, "la57" }, { 0x80000001, 2, 2, "svm" }, { 0x80000001, 3, 26, "pdpe1gb" },
	};

	if (!on_umbra()) {
		test_skip("Xen's dom0 sees more, by default");
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(hidden); i++) {
		uint32_t r[4];

		forced_cpuid(hidden[i].leaf, 0, r);
		expect(!(r[hidden[i].reg] >> hidden[i].bit & 1), "%s shows", hidden[i].name);
	}
}

TEST(forced_prefix_only_for_cpuid)
{
	/* the prefix before anything else is the #UD it looks like */
	probe(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e; nop");
	expect_eq(seen.vector, 6);
}

TEST(msr_unknown)
{
	rdmsr(0x12345678);
	expect_trap(13, 0);
	wrmsr(0x12345678, 1);
	expect_trap(13, 0);
}

TEST(msr_efer)
{
	uint64_t efer = rdmsr(MSR_EFER);

	expect_eq(seen.vector, -1);
	expect(efer & 1 << 10 && efer & 1, "EFER is %lx", efer);
}

TEST(segment_bases)
{
	static uint64_t a = 0x1111, b = 0x2222, c = 0x3333;
	uint64_t v;

	expect_eq(hcall2(set_segment_base, SEGBASE_FS, PTR(&a)), 0);
	expect_eq(hcall2(set_segment_base, SEGBASE_GS_KERNEL, PTR(&b)), 0);
	expect_eq(hcall2(set_segment_base, SEGBASE_GS_USER, PTR(&c)), 0);
	asm volatile("movq %%fs:0, %0" : "=r"(v));
	expect_eq(v, a);
	asm volatile("movq %%gs:0, %0" : "=r"(v));
	expect_eq(v, b);
	expect_eq(rdmsr(MSR_FS_BASE), PTR(&a));
	expect_eq(rdmsr(MSR_GS_BASE), PTR(&b));
	expect_eq(rdmsr(MSR_KERNEL_GS), PTR(&c));
	wrmsr(MSR_FS_BASE, PTR(&b));
	expect_eq(seen.vector, -1);
	wrmsr(MSR_GS_BASE, PTR(&a));
	expect_eq(seen.vector, -1);
	asm volatile("movq %%fs:0, %0" : "=r"(v));
	expect_eq(v, b);
	asm volatile("movq %%gs:0, %0" : "=r"(v));
	expect_eq(v, a);
	/* loading a null selector zeroes the base natively: the hypervisor must not think it is still there */
	asm volatile("movl %0, %%fs" :: "r"(0));
	expect_eq(hcall2(set_segment_base, SEGBASE_FS, PTR(&b)), 0);
	asm volatile("movq %%fs:0, %0" : "=r"(v));
	expect_eq(v, b);
	expect_eq(hcall2(set_segment_base, SEGBASE_FS, 0x8000000000000000), -XEN_EINVAL);
	expect_eq(hcall2(set_segment_base, 77, 0), -XEN_EINVAL);
	wrmsr(MSR_FS_BASE, 0x8000000000000000);
	expect_trap(13, 0);
}

TEST(user_gs_selector)
{
	expect_eq(hcall2(set_segment_base, SEGBASE_GS_USER_SEL, 0), 0);
}

TEST(control_registers)
{
	uint64_t v = 0;

	probe("movq %%cr3, %0", : "=r"(v));
	expect_eq(seen.vector, -1);
	expect_eq(v >> 12, va_to_mfn(root_va()));
	probe_read(TEST_VA + 0x5678, NULL);
	probe("movq %%cr2, %0", : "=r"(v));
	expect_eq(seen.vector, -1);
	expect_eq(v, TEST_VA + 0x5678);
	probe("movq %%cr0, %0", : "=r"(v));
	expect_eq(seen.vector, -1);
	expect((v & 0x80000001) == 0x80000001, "cr0 is %lx", v);
	probe("movq %0, %%cr0", :: "r"(v));
	expect_eq(seen.vector, -1);
	probe("movq %%cr4, %0", : "=r"(v));
	expect_eq(seen.vector, -1);
	expect(v & 1 << 5, "cr4 is %lx", v);
	probe("movq %0, %%cr4", :: "r"(v));
	expect_eq(seen.vector, -1);
	probe("clts");
	expect_eq(seen.vector, -1);
}

TEST(task_switched_flag)
{
	uint64_t cr0 = 0;

	probe("movq %%cr0, %0", : "=r"(cr0));
	probe("movq %0, %%cr0", :: "r"(cr0 | 8));
	expect_eq(seen.vector, -1);
	probe("fnop");
	if (seen.vector == -1 && option("pvm"))
		test_skip("a PVM host does not honour CR0.TS");
	else
		expect_eq(seen.vector, 7);
	probe("movq %0, %%cr0", :: "r"(cr0 | 8));
	probe("clts");
	expect_eq(seen.vector, -1);
	probe("fnop");
	expect_eq(seen.vector, -1);
}

TEST(cr3_write_switches_roots)
{
	uint64_t *root = root_clone(), mfn = va_to_mfn(root), old = va_to_mfn(root_va()), v = 0;

	probe("movq %0, %%cr3", :: "r"(mfn << 12) : "memory");
	expect_eq(seen.vector, -1);
	probe("movq %%cr3, %0", : "=r"(v));
	expect_eq(v >> 12, mfn);
	probe("movq %0, %%cr3", :: "r"(old << 12) : "memory");
	probe("movq %%cr3, %0", : "=r"(v));
	expect_eq(v >> 12, old);
	table_free(root);
}

TEST(refused_instructions)
{
	static uint8_t operand[16];

	probe("lgdt (%0)", :: "r"(operand));
	expect_trap(13, 0);
	probe("lidt (%0)", :: "r"(operand));
	expect_trap(13, 0);
	probe("ltr %w0", :: "r"(0x40));
	expect_trap(13, 0);
	probe("lldt %w0", :: "r"(0x40));
	expect_trap(13, 0);
	probe("movq %0, %%cr8", :: "r"(0ul));
	expect_eq(seen.vector, 13);
	probe("swapgs");
	expect_trap(13, 0);
}

TEST(wbinvd)
{
	probe("wbinvd");
	expect_eq(seen.vector, -1);
}

TEST(ports_need_iopl)
{
	struct physdev_set_iopl set = { .iopl = 0 };
	uint8_t al = 0;

	expect_eq(hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set)), 0);
	probe("inb $0x80, %0", : "=a"(al));
	expect_trap(13, 0);
	probe("outb %0, $0x80", :: "a"((uint8_t)0));
	expect_trap(13, 0);
	probe("cli");
	expect_trap(13, 0);
	set.iopl = 1;
	expect_eq(hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set)), 0);
	probe("outb %0, $0x80", :: "a"((uint8_t)0));
	expect_eq(seen.vector, -1);
	probe("inb %w1, %0", : "=a"(al) : "d"(0x2e9));
	expect_eq(seen.vector, -1);
	expect_eq(al, 0xff);
	set.iopl = 4;
	expect_eq(hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set)), -XEN_EINVAL);
}

TEST(port_widths)
{
	struct physdev_set_iopl set = { .iopl = 1 };
	uint64_t rax = 0x1122334455667788;

	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
	probe("inb %%dx, %%al", : "+a"(rax) : "d"(0x2e9));
	expect_eq(rax, 0x11223344556677ff);
	probe("inw %%dx, %%ax", : "+a"(rax) : "d"(0x2ea));
	expect_eq(rax, 0x112233445566ffff);
	probe("inl %%dx, %%eax", : "+a"(rax) : "d"(0x2ec));
	expect_eq(rax, 0xffffffff);
}

TEST(string_ports)
{
	struct physdev_set_iopl set = { .iopl = 1 };
	uint8_t buf[8] = { 0 };
	uint64_t rcx = 4, rdi = PTR(buf);

	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
	probe("rep insb", : "+c"(rcx), "+D"(rdi) : "d"(0x2e9) : "memory");
	expect_eq(seen.vector, -1);
	expect(!rcx && rdi == PTR(buf) + 4, "rcx %lu, rdi +%lu", rcx, rdi - PTR(buf));
	expect(buf[0] == 0xff && buf[3] == 0xff && !buf[4], "bytes %x %x %x", buf[0], buf[3], buf[4]);
	rcx = 1;
	rdi = TEST_VA;
	probe("rep insb", : "+c"(rcx), "+D"(rdi) : "d"(0x2e9) : "memory");
	expect_trap(14, PF_W);
	expect_eq(seen.cr2, TEST_VA);
}

TEST(cli_and_sti_do_nothing)
{
	struct physdev_set_iopl set = { .iopl = 1 };

	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
	this_vcpu()->evtchn_upcall_mask = 1;
	probe("sti");
	expect_eq(seen.vector, -1);
	expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
	this_vcpu()->evtchn_upcall_mask = 0;
	probe("cli");
	expect_eq(seen.vector, -1);
	expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
	this_vcpu()->evtchn_upcall_mask = 1;
	set.iopl = 0;
	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
}

TEST(vm_assist)
{
	expect_eq(hcall2(vm_assist, VMASST_CMD_enable, VMASST_TYPE_writable_pagetables), 0);
	expect_eq(hcall2(vm_assist, VMASST_CMD_disable, VMASST_TYPE_writable_pagetables), 0);
	expect_eq(hcall2(vm_assist, VMASST_CMD_enable, 200), -XEN_EINVAL);
	expect_eq(hcall2(vm_assist, 7, VMASST_TYPE_writable_pagetables), -XEN_ENOSYS);
}

TEST(xsetbv)
{
	uint32_t r[4], lo = 0, hi = 0;

	forced_cpuid(1, 0, r);
	if (!(r[2] >> 27 & 1)) {
		test_skip("no OSXSAVE");
		return;
	}
	probe("xgetbv", : "=a"(lo), "=d"(hi) : "c"(0));
	expect_eq(seen.vector, -1);
	expect(lo & 1, "XCR0 is %x", lo);
	forced_cpuid(0xd, 0, r);
	lo = r[0] & 7;			/* x87, SSE, AVX */
	hi = 0;
	probe("xsetbv", :: "a"(lo), "d"(hi), "c"(0));
	expect_eq(seen.vector, -1);
	probe("xsetbv", :: "a"(0), "d"(0), "c"(0));		/* x87 cannot be switched off */
	expect_trap(13, 0);
	probe("xsetbv", :: "a"(lo), "d"(hi), "c"(5));
	expect_trap(13, 0);
}
