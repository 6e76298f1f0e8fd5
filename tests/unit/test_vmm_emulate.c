/*
 * test_vmm_emulate.c - instructions that a PV guest may and may not execute, by hand-assembled bytes; and that no bytes
 * at all upset the emulator.
 */
#include "tests/unit/fake_vm.h"
#include "vmm/emulate.h"

#define CODE	(FAKE_VA + 0x1000)
#define DATA	(FAKE_VA + 0x2000)
#define END	(FAKE_VA + FAKE_BYTES)

#define RF	(1ull << 16)
#define TF	(1ull << 8)
#define DF	(1ull << 10)

static struct vcpu *v;

/* ---- more seams: this program's own --------------------------------------------------------------------------- */

void vcpu_block(struct vcpu *c)
{
	fake.blocks++;
	if (fake.event_on_block)
		atomic_load(&c->info)->evtchn_upcall_pending = 1;
}

bool evtchn_pending(struct vcpu *c)
{
	return atomic_load(&c->info)->evtchn_upcall_pending && !atomic_load(&c->info)->evtchn_upcall_mask;
}

void cpuid_read(struct vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	out[0] = leaf;
	out[1] = subleaf + 1;
	out[2] = 0x33333333;
	out[3] = 0x44444444;
}

uint64_t cpuid_xcr0(struct vm *vm)
{
	return 0xe7;
}

uint32_t cpuid_xsave_bytes(struct vm *vm, uint64_t xcr0, bool compacted)
{
	return compacted ? 7000 + xcr0 : 5000 + xcr0;
}

/* ---- running one instruction ---------------------------------------------------------------------------------- */

static int setup(void **state)
{
	v = fake_reset();
	v->regs.r.rip = CODE;
	v->regs.r.rflags = 0x202;
	v->regs.cs = FLAT_KERNEL_CS;
	return 0;
}

static void put_code(uint64_t at, const char *bytes, size_t n)
{
	v->regs.r.rip = at;
	memcpy(fake_at(at, n), bytes, n);
}

static enum emulated run_at(uint64_t at, const char *bytes, size_t n)
{
	put_code(at, bytes, n);
	return emulate_privileged(v);
}

/* Emulated, and the instruction pointer is behind it. */
#define DOES(bytes) do { \
	assert_int_equal(run_at(CODE, bytes, sizeof bytes - 1), EMUL_DONE); \
	assert_int_equal(v->regs.r.rip, CODE + sizeof bytes - 1); \
} while (0)

/* Refused, and nothing has changed. */
#define REFUSES(bytes) do { \
	struct guest_regs before_; \
	put_code(CODE, bytes, sizeof bytes - 1); \
	before_ = v->regs; \
	assert_int_equal(emulate_privileged(v), EMUL_NOT_OURS); \
	assert_memory_equal(&before_, &v->regs, sizeof before_); \
	assert_int_equal(fake.bounces, 0); \
} while (0)

static void user_mode(unsigned iopl)
{
	v->mode = MMU_USER;
	v->iopl = iopl;
	v->regs.cs = FLAT_USER_CS64;
	fake.gdt[FLAT_USER_CS64 >> 3] = 0x00affb000000ffff;
	fake.gdt[FLAT_USER_CS32 >> 3] = 0x00cffb000000ffff;
}

/* ---- ports ---------------------------------------------------------------------------------------------------- */

static void test_in_widths(void **state)
{
	v->regs.r.rax = 0x1122334455667700;
	DOES("\xe4\x60");			/* in $0x60, %al */
	assert_int_equal(v->regs.r.rax, 0x11223344556677ff);
	v->regs.r.rax = 0x1122334455667700;
	v->regs.r.rdx = 0xcfc;
	DOES("\x66\xed");			/* in %dx, %ax */
	assert_int_equal(v->regs.r.rax, 0x112233445566ffff);
	v->regs.r.rax = 0x1122334455667700;
	DOES("\xed");				/* in %dx, %eax */
	assert_int_equal(v->regs.r.rax, 0xffffffff);
	DOES("\xe5\x42");			/* in $0x42, %eax: the absent PIT at 42h and 43h reads as 0 */
	assert_int_equal(v->regs.r.rax, 0xffff0000);
	assert_int_equal(v->counters.emulated.port, 4);
}

static void test_out(void **state)
{
	v->regs.r.rax = 'x';
	v->regs.r.rdx = 0x20;
	DOES("\xee");				/* out %al, (%dx) */
	assert_int_equal(fake.console_bytes, 0);
	v->regs.r.rdx = 0xe9;
	DOES("\xee");
	DOES("\xe6\xe9");			/* out %al, $0xe9 */
	assert_int_equal(fake.console_bytes, 2);
	assert_memory_equal(fake.console, "xx", 2);
}

static void test_io_permission(void **state)
{
	v->iopl = 0;
	REFUSES("\xe4\x60");
	v->vm->vm_assist = 1u << VMASST_TYPE_architectural_iopl;
	DOES("\xe4\x60");
	v->vm->vm_assist = 0;

	user_mode(0);
	REFUSES("\xe4\x60");
	user_mode(2);
	REFUSES("\xe4\x60");
	REFUSES("\xfa");
	user_mode(3);
	DOES("\xe4\x60");
	DOES("\xfa");				/* cli */
	DOES("\xfb");				/* sti */
	REFUSES("\x6c");			/* insb: the kernel's only */
}

/* A clear bit in the bitmap permits; one beyond its end does not. */
static void test_io_bitmap(void **state)
{
	uint8_t *map = fake_at(DATA, 32);

	user_mode(1);
	memset(map, 0xff, 32);
	v->iobmp = (gva_t){ DATA };
	v->iobmp_ports = 128;
	REFUSES("\xe4\x60");
	map[0x60 / 8] &= ~1;
	DOES("\xe4\x60");
	REFUSES("\xe5\x60");			/* four ports, one allowed */
	map[0x60 / 8] &= ~0xf;
	DOES("\xe5\x60");
	map[0x67 / 8] &= ~0x80;
	map[0x68 / 8] &= ~7;
	DOES("\xe5\x67");			/* across bytes */
	v->iobmp_ports = 0x63;
	REFUSES("\xe5\x60");
	DOES("\xe4\x60");
	v->iobmp_ports = 128;
	v->iobmp = (gva_t){ 0x1000 };		/* not mapped */
	REFUSES("\xe4\x60");
	v->iobmp = (gva_t){ END - 0x60 / 8 - 1 };	/* the last byte that is */
	*fake_at(END - 1, 1) = 0;
	DOES("\xe4\x60");
}

static void test_string_io(void **state)
{
	memcpy(fake_at(DATA, 5), "hello", 5);
	v->regs.r.rsi = DATA;
	v->regs.r.rcx = 5;
	v->regs.r.rdx = 0xe9;
	DOES("\xf3\x6e");			/* rep outsb */
	assert_memory_equal(fake.console, "hello", 5);
	assert_int_equal(v->regs.r.rsi, DATA + 5);
	assert_int_equal(v->regs.r.rcx, 0);
	DOES("\xf3\x6e");			/* nothing left to do */
	assert_int_equal(fake.console_bytes, 5);

	v->regs.r.rdi = DATA + 8;
	v->regs.r.rcx = 3;
	v->regs.r.rdx = 0x20;
	v->regs.r.rflags |= DF;
	DOES("\xf3\x6d");			/* rep insd, downwards */
	assert_memory_equal(fake_at(DATA, 12), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
	assert_int_equal(v->regs.r.rdi, DATA - 4);
	v->regs.r.rflags &= ~DF;

	v->regs.r.rdi = DATA;
	DOES("\x6c");				/* insb, without rep: RCX is none of its business */
	assert_int_equal(v->regs.r.rdi, DATA + 1);
	assert_int_equal(v->regs.r.rcx, 0);
}

/* A long one comes back for more, at the same instruction. */
static void test_string_io_in_pieces(void **state)
{
	unsigned rounds = 1;

	v->regs.r.rdi = DATA;
	v->regs.r.rcx = 1000;
	while (run_at(CODE, "\xf3\x6c", 2) == EMUL_DONE && v->regs.r.rip == CODE)
		rounds++;
	assert_true(rounds > 1 && rounds < 1000);
	assert_int_equal(v->regs.r.rip, CODE + 2);
	assert_int_equal(v->regs.r.rdi, DATA + 1000);
	assert_int_equal(v->regs.r.rcx, 0);
}

static void test_string_io_fault(void **state)
{
	v->regs.r.rdi = END - 3;
	v->regs.r.rcx = 10;
	assert_int_equal(run_at(CODE, "\xf3\x6c", 2), EMUL_DONE);
	assert_int_equal(fake.bounces, 1);
	assert_int_equal(fake.bounced_vector, 14);
	assert_int_equal(fake.bounced_error, MMU_PF_W);
	assert_int_equal(fake.shared.vcpu_info[0].arch.cr2, END);
	assert_int_equal(v->regs.r.rip, CODE);
	assert_int_equal(v->regs.r.rdi, END);
	assert_int_equal(v->regs.r.rcx, 7);
}

/* ---- control, debug and model-specific registers -------------------------------------------------------------- */

static void test_cr(void **state)
{
	DOES("\x0f\x20\xc3");			/* mov %cr0, %rbx */
	assert_int_equal(v->regs.r.rbx, 0x80050033);
	v->regs.r.rbx |= 8;
	DOES("\x0f\x22\xc3");			/* mov %rbx, %cr0: TS */
	assert_int_equal(v->cr0, 0x8005003b);
	DOES("\x0f\x06");			/* clts */
	assert_int_equal(v->cr0, 0x80050033);
	v->regs.r.rbx = 0x80050032;
	REFUSES("\x0f\x22\xc3");
	v->regs.r.rax = 0x3b;
	DOES("\x0f\x01\xf0");			/* lmsw %ax */
	assert_int_equal(v->cr0, 0x8005003b);
	v->regs.r.rax = 0x37;			/* EM */
	REFUSES("\x0f\x01\xf0");

	v->regs.r.r9 = 0x123456789abc;
	DOES("\x41\x0f\x22\xd1");		/* mov %r9, %cr2 */
	assert_int_equal(fake.shared.vcpu_info[0].arch.cr2, 0x123456789abc);
	DOES("\x0f\x20\xd2");			/* mov %cr2, %rdx */
	assert_int_equal(v->regs.r.rdx, 0x123456789abc);
	REFUSES("\x44\x0f\x20\xd2");		/* with REX.R: there is no CR10 */
}

static void test_cr3_cr4(void **state)
{
	DOES("\x0f\x20\xd8");			/* mov %cr3, %rax */
	assert_int_equal(v->regs.r.rax, 5 << 12);
	v->regs.r.rax = 2 << 12;
	DOES("\x0f\x22\xd8");			/* mov %rax, %cr3 */
	assert_int_equal(v->l4[MMU_KERNEL].n, 2);
	v->regs.r.rax = 0x7fffffff000;
	REFUSES("\x0f\x22\xd8");

	v->regs.r.rax = 0x20 | 1 << 2 | 1 << 3 | 1 << 20 | 1 << 7;
	DOES("\x0f\x22\xe0");			/* mov %rax, %cr4: TSD and DE are the guest's, SMEP and PGE are not */
	DOES("\x0f\x20\xe0");			/* mov %cr4, %rax */
	assert_int_equal(v->regs.r.rax, 0x20 | 1 << 2 | 1 << 3);
	REFUSES("\x44\x0f\x20\xc0");		/* mov %cr8, %rax */
	assert_int_equal(v->counters.emulated.cr, 4);	/* what was refused does not count */
}

static void test_dr(void **state)
{
	v->regs.r.rax = 0x401;
	DOES("\x0f\x23\xf8");			/* mov %rax, %db7 */
	assert_int_equal(v->debugreg[7], 0x401);
	v->debugreg[2] = 0xffff888000001234;	/* looks like an errno only at a glance */
	DOES("\x0f\x21\xd1");			/* mov %db2, %rcx */
	assert_int_equal(v->regs.r.rcx, 0xffff888000001234);
	fake.set_debugreg_result = -EPERM;
	REFUSES("\x0f\x23\xc0");
	fake.set_debugreg_result = 0;
	REFUSES("\x0f\x21\xe0");		/* mov %db4, %rax */
	assert_int_equal(v->counters.emulated.dr, 2);
	assert_int_equal(v->counters.emulated.cr, 0);
}

static void set_msr(uint32_t msr, uint64_t value)
{
	v->regs.r.rcx = msr;
	v->regs.r.rax = value & 0xffffffff;
	v->regs.r.rdx = value >> 32;
}

static uint64_t edx_eax(void)
{
	assert_int_equal(v->regs.r.rax >> 32 | v->regs.r.rdx >> 32, 0);
	return v->regs.r.rdx << 32 | v->regs.r.rax;
}

#define RDMSR "\x0f\x32"
#define WRMSR "\x0f\x30"

static void test_msr_bases(void **state)
{
	static const uint32_t msrs[] = { 0xc0000100, 0xc0000101, 0xc0000102 };

	for (unsigned i = 0; i < 3; i++) {
		set_msr(msrs[i], 0xffff888000000000 + i);
		DOES(WRMSR);
	}
	assert_int_equal(v->fs_base, 0xffff888000000000);
	assert_int_equal(v->gs_base[MMU_KERNEL], 0xffff888000000001);
	assert_int_equal(v->gs_base[MMU_USER], 0xffff888000000002);
	for (unsigned i = 0; i < 3; i++) {
		set_msr(msrs[i], 0);
		DOES(RDMSR);
		assert_int_equal(edx_eax(), 0xffff888000000000 + i);
	}
	assert_int_equal(v->counters.emulated.msr, 6);
}

static void test_msr_constants(void **state)
{
	static const uint32_t absent[] = {
		0x34, 0x48, 0x49, 0x64e, 0x10a, 0x174, 0x40000000, 0xc0000081, 0xc0011029, ~0u,
	};

	for (unsigned i = 0; i < sizeof absent / sizeof *absent; i++) {
		set_msr(absent[i], 0);
		REFUSES(RDMSR);
		REFUSES(WRMSR);
	}
	set_msr(0x8b, 0);
	DOES(WRMSR);				/* asks the processor for its microcode revision */
	DOES(RDMSR);
	assert_true(edx_eax() >> 32);
	set_msr(0x277, 0);
	DOES(RDMSR);
	assert_int_equal(edx_eax(), 0x0007040600070406);
	v->regs.r.rcx = 0x277;
	DOES(WRMSR);				/* as it is */
	v->regs.r.rax ^= 1;
	REFUSES(WRMSR);
	set_msr(0x1b, 0);
	DOES(RDMSR);
	assert_int_equal(edx_eax(), 0xfee00900);
	set_msr(0xc0000080, 0);
	DOES(RDMSR);
	assert_int_equal(edx_eax(), 0xd01);
}

static void test_xcr0(void **state)
{
	static const uint64_t bad[] = { 0, 2, 5, 4, 6, 0x27, 0xe3, 0x67, 0x207, 1ull << 63 | 7, 8 | 3 };

	v->xcr0 = 7;
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		set_msr(0, bad[i]);
		REFUSES("\x0f\x01\xd1");	/* xsetbv */
	}
	set_msr(1, 7);
	REFUSES("\x0f\x01\xd1");
	set_msr(0, 7);
	DOES("\x0f\x01\xd1");
	set_msr(0, 0);
	DOES("\x0f\x01\xd0");			/* xgetbv */
	assert_int_equal(edx_eax(), 7);
}

/* ---- CPUID ---------------------------------------------------------------------------------------------------- */

#define FORCED_CPUID "\x0f\x0bxen\x0f\xa2"

static void check_cpuid(uint32_t leaf, uint32_t sub)
{
	v->regs.r.rax = 0xaaaaaaaa00000000 | leaf;
	v->regs.r.rcx = 0xcccccccc00000000 | sub;
	put_code(CODE, FORCED_CPUID, 7);
	assert_int_equal(emulate_forced(v), EMUL_DONE);
	assert_int_equal(v->regs.r.rip, CODE + 7);
}

static void test_forced_cpuid(void **state)
{
	for (unsigned mode = 0; mode < 2; mode++) {
		if (mode)
			user_mode(0);
		check_cpuid(0x80000008, 5);
		assert_int_equal(v->regs.r.rax, 0x80000008);
		assert_int_equal(v->regs.r.rbx, 6);
		assert_int_equal(v->regs.r.rcx, 0x33333333);
		assert_int_equal(v->regs.r.rdx, 0x44444444);
		DOES("\x0f\xa2");		/* where it faults */
	}
	assert_int_equal(v->counters.emulated.cpuid, 4);
	v->xcr0 = 7;
	check_cpuid(0xd, 0);
	assert_int_equal(v->regs.r.rbx, 5007);
	check_cpuid(0xd, 1);
	assert_int_equal(v->regs.r.rbx, 7007);
	check_cpuid(0xd, 2);
	assert_int_equal(v->regs.r.rbx, 3);
}

static void test_marker(void **state)
{
	check_cpuid(0x4000ff00, 77);
	assert_int_equal(fake.marks, 1);
	assert_int_equal(fake.marked, 77);
	assert_int_equal(v->regs.r.rax, 1);
	assert_memory_equal(&v->regs.r.rbx, "umbr\0\0\0\0", 8);
	assert_int_equal(v->regs.r.rcx | v->regs.r.rdx, 0);
}

static void test_not_forced(void **state)
{
	static const char *const other[] = {
		"\x0f\x0bxen\x0f\xa3", "\x0f\x0bXen\x0f\xa2", "\x0f\x0b\x90\x90\x90\x0f\xa2", "\x90\x0bxen\x0f\xa2",
	};

	for (unsigned i = 0; i < sizeof other / sizeof *other; i++) {
		put_code(CODE, other[i], 7);
		assert_int_equal(emulate_forced(v), EMUL_NOT_OURS);
		assert_int_equal(v->regs.r.rip, CODE);
	}
	put_code(END - 6, FORCED_CPUID, 6);	/* cut off by the end of memory */
	assert_int_equal(emulate_forced(v), EMUL_NOT_OURS);
}

/* ---- the rest ------------------------------------------------------------------------------------------------- */

static void test_flags_and_caches(void **state)
{
	v->regs.r.rflags = 0x202;
	DOES("\xfa");
	DOES("\xfb");
	assert_int_equal(v->regs.r.rflags, 0x202);
	assert_int_equal(fake.shared.vcpu_info[0].evtchn_upcall_mask, 0);	/* no effect, as in Xen */
	v->iopl = 0;
	REFUSES("\xfa");
	DOES("\x0f\x09");			/* wbinvd */
	v->regs.r.rbx = 0xffff888012340000;
	DOES("\x0f\x01\x7b\x10");		/* invlpg 16(%rbx) */
	assert_int_equal(fake.invlpg_va, 0xffff888012340010);
	v->gs_base[MMU_KERNEL] = 0x1000;
	DOES("\x65\x0f\x01\x3c\x25\x34\x12\x00\x00");	/* invlpg %gs:0x1234 */
	assert_int_equal(fake.invlpg_va, 0x2234);
	DOES("\x0f\x01\x3d\x10\x00\x00\x00");	/* invlpg 16(%rip) */
	assert_int_equal(fake.invlpg_va, CODE + 7 + 16);
}

static void test_hlt(void **state)
{
	assert_int_equal(run_at(CODE, "\xf4", 1), EMUL_DONE);
	assert_int_equal(fake.blocks, 1);
	assert_int_equal(v->regs.r.rip, CODE);	/* woken for nothing: still halted */
	fake.event_on_block = true;
	DOES("\xf4");
	assert_int_equal(fake.blocks, 2);
	DOES("\xf4");				/* the event is still there */
	assert_int_equal(fake.blocks, 2);
	fake.shared.vcpu_info[0].evtchn_upcall_mask = 1;
	assert_int_equal(run_at(CODE, "\xf4", 1), EMUL_DONE);	/* masked: sleeps, unless it is the only vCPU */
	assert_int_equal(fake.blocks, 3);
	assert_false(atomic_load(&fake.vm.stop));
	fake.vm.nr_vcpus = 1;
	assert_int_equal(run_at(CODE, "\xf4", 1), EMUL_DONE);
	assert_int_equal(fake.blocks, 3);
	assert_int_equal(fake.vm.exit_code, VMM_EXIT_CRASHED);
}

/* All that user mode may do by IOPL is I/O, cli and sti; everything else is the kernel's. */
static void test_user_mode_is_refused(void **state)
{
	user_mode(3);
	REFUSES("\x0f\x20\xc0");
	REFUSES("\x0f\x22\xc0");
	REFUSES("\x0f\x21\xc0");
	REFUSES("\x0f\x23\xc0");
	REFUSES(RDMSR);
	REFUSES(WRMSR);
	REFUSES("\x0f\x06");
	REFUSES("\xf4");
	REFUSES("\x0f\x09");
	REFUSES("\x0f\x01\x38");
	REFUSES("\x0f\x01\xd1");
	REFUSES("\x0f\x31");
	assert_int_equal(fake.blocks, 0);
}

static void test_not_ours(void **state)
{
	REFUSES("\x90");
	REFUSES("\x48\x89\xd8");		/* mov %rbx, %rax */
	REFUSES("\x48\x8b\x03");
	REFUSES("\x8e\xd8");			/* mov %eax, %ds */
	REFUSES("\x0f\x0b");
	REFUSES("\xcd\x80");
	REFUSES("\x0f\x00\xd8");		/* ltr */
	REFUSES("\x0f\x01\x18");		/* lidt */
	REFUSES("\x0f\x33");			/* rdpmc: not Xen's either */
	REFUSES("\xcf");
	REFUSES("\x9d");
	REFUSES("\x06");			/* no such thing in 64-bit code */
}

static void test_single_step(void **state)
{
	v->regs.r.rflags |= TF | RF;
	DOES("\xfa");
	assert_int_equal(fake.bounces, 1);
	assert_int_equal(fake.bounced_vector, 1);
	assert_true(v->debugreg[6] & 1 << 14);
	assert_int_equal(v->regs.r.rflags & RF, 0);
	check_cpuid(0, 0);
	assert_int_equal(fake.bounces, 2);
	v->regs.r.rflags &= ~TF;
	DOES("\xfa");
	assert_int_equal(fake.bounces, 2);
}

static void test_fetch_fault(void **state)
{
	put_code(END - 1, "\xe4", 1);		/* in, without its immediate */
	assert_int_equal(emulate_privileged(v), EMUL_DONE);
	assert_int_equal(fake.bounces, 1);
	assert_int_equal(fake.bounced_vector, 14);
	assert_int_equal(fake.bounced_error, MMU_PF_FETCH);
	assert_int_equal(fake.shared.vcpu_info[0].arch.cr2, END);
	assert_int_equal(v->regs.r.rip, END - 1);
	v->regs.r.rip = END;
	assert_int_equal(emulate_privileged(v), EMUL_DONE);
	assert_int_equal(fake.bounces, 2);
	put_code(END - 1, "\xfa", 1);		/* ends where memory does */
	assert_int_equal(emulate_privileged(v), EMUL_DONE);
	assert_int_equal(fake.bounces, 2);
	assert_int_equal(v->regs.r.rip, END);
}

/* 32-bit user code with a segment base, and its instruction pointer that wraps at 4 GiB. */
static void test_compat_code(void **state)
{
	user_mode(3);
	v->regs.cs = 0x1f;			/* an LDT entry */
	v->ldt_ents = 4;
	fake.ldt[3] = 0x00cffb000000ffff;
	put_code(CODE, "\x40\xe4\x60", 3);	/* inc %eax; in: one REX-prefixed instruction in 64-bit code */
	v->regs.r.rip = CODE & 0xffffffff;
	assert_int_equal(emulate_privileged(v), EMUL_DONE);	/* nothing is mapped below 4 GiB */
	assert_int_equal(fake.bounced_vector, 14);
	assert_int_equal(fake.bounced_error, MMU_PF_FETCH | MMU_PF_U);
	assert_int_equal(fake.shared.vcpu_info[0].arch.cr2, CODE & 0xffffffff);

	v->regs.cs = FLAT_USER_CS64;
	v->regs.r.rip = CODE;
	assert_int_equal(emulate_privileged(v), EMUL_DONE);
	assert_int_equal(v->regs.r.rip, CODE + 3);
	v->regs.cs = 0x1f;
	v->ldt_ents = 3;			/* beyond the table: code at 0, where nothing is */
	v->regs.r.rip = CODE;
	assert_int_equal(emulate_privileged(v), EMUL_DONE);
	assert_int_equal(fake.bounces, 2);
}

/* ---- anything ------------------------------------------------------------------------------------------------- */

static uint64_t seed;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* A register with values that matter: small, a mapped address, anything. */
static uint64_t rnd_value(void)
{
	switch (rnd() % 4) {
	case 0:
		return rnd() % 64;
	case 1:
		return FAKE_VA + rnd() % FAKE_BYTES;
	case 2:
		return rnd() % 2 ? 0xc0000080 + rnd() % 0x90 : rnd() % 0x300;
	default:
		return rnd();
	}
}

/* Random bytes, most of them behind the opcodes that are emulated: refused without a trace, retired, or at it again. */
static void test_random_bytes(void **state)
{
	static const char *const starts[] = {
		"", "\x0f", "\x0f\x01", "\x0f\x20", "\x0f\x21", "\x0f\x22", "\x0f\x23", "\xf3\x6c", "\xf3\x6f", "\x66",
		"\x48", "\x67", "\x65", "\x0f\x30", "\x0f\x32", "\xe4", "\xef",
	};
	const char *env = getenv("UMBRA_SEED");
	unsigned outcomes[3] = { 0 };

	seed = env ? strtoull(env, NULL, 0) | 1 : 0x9e3779b97f4a7c15;
	print_message("UMBRA_SEED=%#lx\n", (unsigned long)seed);
	for (unsigned i = 0; i < 300000; i++) {
		const char *start = starts[rnd() % (sizeof starts / sizeof *starts)];
		struct guest_regs before;
		enum emulated r;
		uint64_t at;

		if (i % 64 == 0)
			setup(NULL);
		fake.bounces = 0;
		fake.console_bytes = 0;
		at = rnd() % 8 ? CODE : END - 1 - rnd() % 15;
		for (unsigned k = 0; k < 15 && at + k < END; k++)
			*fake_at(at + k, 1) = rnd();
		memcpy(fake_at(at, 1), start, at + strlen(start) <= END ? strlen(start) : 1);
		for (__u64 *g = &v->regs.r.rax; g <= &v->regs.r.r15; g++)
			*g = rnd_value();
		v->regs.r.rip = at;
		v->regs.r.rflags = rnd() & 0x257fd5;
		v->regs.cs = rnd();
		v->ldt_ents = rnd() % 8193;
		v->iopl = rnd() % 4;
		v->mode = rnd() % 4 ? MMU_KERNEL : MMU_USER;
		fake.gdt[v->regs.cs >> 3] = rnd() % 2 ? 0x00affb000000ffff : rnd();
		before = v->regs;
		r = emulate_privileged(v);
		if (r == EMUL_NOT_OURS) {
			assert_memory_equal(&before, &v->regs, sizeof before);
			assert_int_equal(fake.bounces, 0);
			outcomes[0]++;
		} else {
			assert_int_equal(r, EMUL_DONE);
			if (v->regs.r.rip == before.r.rip) {
				outcomes[1]++;
			} else {
				if (v->mode == MMU_KERNEL)
					assert_in_range(v->regs.r.rip - before.r.rip, 1, 15);
				outcomes[2]++;
			}
		}
	}
	print_message("%u refused, %u faulted or not finished, %u emulated\n", outcomes[0], outcomes[1], outcomes[2]);
	for (unsigned i = 0; i < 3; i++)
		assert_true(outcomes[i] > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_in_widths, setup),
		cmocka_unit_test_setup(test_out, setup),
		cmocka_unit_test_setup(test_io_permission, setup),
		cmocka_unit_test_setup(test_io_bitmap, setup),
		cmocka_unit_test_setup(test_string_io, setup),
		cmocka_unit_test_setup(test_string_io_in_pieces, setup),
		cmocka_unit_test_setup(test_string_io_fault, setup),
		cmocka_unit_test_setup(test_cr, setup),
		cmocka_unit_test_setup(test_cr3_cr4, setup),
		cmocka_unit_test_setup(test_dr, setup),
		cmocka_unit_test_setup(test_msr_bases, setup),
		cmocka_unit_test_setup(test_msr_constants, setup),
		cmocka_unit_test_setup(test_xcr0, setup),
		cmocka_unit_test_setup(test_forced_cpuid, setup),
		cmocka_unit_test_setup(test_marker, setup),
		cmocka_unit_test_setup(test_not_forced, setup),
		cmocka_unit_test_setup(test_flags_and_caches, setup),
		cmocka_unit_test_setup(test_hlt, setup),
		cmocka_unit_test_setup(test_user_mode_is_refused, setup),
		cmocka_unit_test_setup(test_not_ours, setup),
		cmocka_unit_test_setup(test_single_step, setup),
		cmocka_unit_test_setup(test_fetch_fault, setup),
		cmocka_unit_test_setup(test_compat_code, setup),
		cmocka_unit_test_setup(test_random_bytes, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
