/*
 * shim_frames.c - transitions between user and kernel mode show the kernel the same wherever they are done: registers,
 * frames, masks, bases, error codes. Random contexts against a model of Xen's frames, and a checksum of everything seen,
 * which tests/e2e compares between modes.
 */
#include "lib/events.h"
#include "lib/shim.h"
#include "lib/user_code.h"

#define CHANGEABLE	(0x8d5ul | RFLAGS_DF | RFLAGS_AC)	/* what user code may change, but for TF, NT and ID */
#define RFLAGS_RF	(1ul << 16)

/* Addresses that fault. */
#define UNMAPPED	(USER_DATA + 0x9000)
#define READ_ONLY	(USER_DATA + 0xa000)
#define NO_EXECUTE	(USER_DATA + 0xb000)
#define NO_TABLES	0x0000300000000000ul
#define HIDDEN		(USER_DATA + 0x400000)

static uint64_t sum;

static void add(uint64_t v)
{
	sum = (sum ^ v) * 0x100000001b3;
	sum ^= sum >> 29;
}

struct action {
	const char *code;
	uint64_t rdi;
	int vector;
	uint32_t error;
};

static void prepare(void)
{
	linux_user_init();
	map_page(user_root, READ_ONLY, pte_make(va_to_mfn(user_data), PTE_P | PTE_U | PTE_A | PTE_NX));
	map_page(user_root, NO_EXECUTE, pte_make(va_to_mfn(user_data), PTE_DATA));
	map_page(user_root, HIDDEN, pte_make(va_to_mfn(user_data), PTE_DATA));
}

static void check_frame(const struct regs *in, const struct regs *out, const struct action *a, int vector, unsigned i)
{
	bool call = vector == VEC_SYSCALL;
	uint64_t code = user_address(a->code), flags = in->rflags, rip;

	expect(vector == a->vector, "%u: vector %d, not %d, at %lx (rsp %lx rdi %lx rflags %lx)", i, vector, a->vector, out->rip, in->rsp, in->rdi, in->rflags);
	if (test_failed())
		return;
	rip = a->vector == 14 && (a->error & PF_I) ? a->rdi : call ? code + 2 : code;
	if (a->vector == GATE_EXIT)
		rip = code + 2;
	expect(out->rip == rip, "%u: rip %lx, not %lx", i, out->rip, rip);
	expect(out->rsp == in->rsp, "%u: rsp %lx, not %lx", i, out->rsp, in->rsp);
	expect(((out->rflags ^ flags) & ~(RFLAGS_RF | RFLAGS_IF)) == 0, "%u: rflags %lx, not %lx", i, out->rflags, flags);
	expect(!((out->rflags ^ flags) & RFLAGS_IF), "%u: IF of %lx is not that of %lx", i, out->rflags,
	       flags);
	expect(!!(out->cs >> 32 & 0xff) == !(flags & RFLAGS_IF), "%u: saved mask %lx, rflags were %lx", i,
	       out->cs >> 32 & 0xff, flags);
	expect((out->cs & 3) == 3, "%u: cs %lx", i, out->cs);
	expect(out->rbx == in->rbx && out->rbp == in->rbp && out->rdx == in->rdx && out->rsi == in->rsi && out->rdi == in->rdi,
	       "%u: rbx %lx rbp %lx rdx %lx rsi %lx rdi %lx", i, out->rbx, out->rbp, out->rdx, out->rsi, out->rdi);
	expect(out->r8 == in->r8 && out->r9 == in->r9 && out->r10 == in->r10 && out->r12 == in->r12 && out->r13 == in->r13 &&
	       out->r14 == in->r14 && out->r15 == in->r15, "%u: one of r8-r10, r12-r15", i);
	expect(out->rax == in->rax, "%u: rax %lx, not %lx", i, out->rax, in->rax);
	expect(call ? out->rcx == rip : out->rcx == in->rcx, "%u: rcx %lx, was %lx", i, out->rcx, in->rcx);
	if (call)
		expect(!((out->r11 ^ in->rflags) & CHANGEABLE), "%u: r11 %lx, not %lx", i, out->r11, in->rflags);
	else
		expect(out->r11 == in->r11, "%u: r11 %lx, was %lx", i, out->r11, in->r11);
	if (vector == 14) {
		expect(out->error == a->error, "%u: error code %lx, not %x", i, out->error, a->error);
		expect(this_vcpu()->arch.cr2 == a->rdi, "%u: cr2 %lx", i, (uint64_t)this_vcpu()->arch.cr2);
	}
}

static void add_frame(const struct regs *out)
{
	const uint64_t *v = (const uint64_t *)out;

	for (unsigned i = 0; i < sizeof(*out) / 8; i++)
		add(v[i]);
	add(this_vcpu()->evtchn_upcall_mask);
	if (out->vector == 14)
		add(this_vcpu()->arch.cr2);
}

/* `n` contexts, some with events masked. The model is Xen's create_bounce_frame (xen/arch/x86/x86_64/entry.S). */
static void random_contexts(unsigned n, uint64_t seed)
{
	static const struct action actions[] = {
		{ user_bare_syscall, 0, VEC_SYSCALL, 0 },
		{ user_read, UNMAPPED, 14, PF_U },
		{ user_write, UNMAPPED + 8, 14, PF_U | PF_W },
		{ user_jump, UNMAPPED + 16, 14, PF_U | PF_I },
		{ user_write, READ_ONLY + 24, 14, PF_U | PF_W | PF_P },
		{ user_jump, NO_EXECUTE, 14, PF_U | PF_P | PF_I },
		{ user_read, NO_TABLES + 0x123450, 14, PF_U },
		{ user_read, 0x18, 14, PF_U },
		{ user_read, 0xffffffff80000000 - 0x40000000, 14, PF_U },
		{ user_exit, 0, GATE_EXIT, 0 },
		{ user_ud2, 0, 6, 0 },
		{ user_bare_syscall, 0, VEC_SYSCALL, 0 },
	};

	for (unsigned i = 0; i < n && !test_failed(); i++) {
		const struct action *a = &actions[random64(&seed) % ARRAY_SIZE(actions)];
		struct regs in, out;
		uint64_t *v = (uint64_t *)&in, r = random64(&seed);

		for (unsigned k = 0; k < 15; k++)
			v[k] = random64(&seed);
		in.rip = user_address(a->code);
		in.cs = LINUX_USER_CS;
		in.ss = LINUX_USER_SS;
		in.rsp = random64(&seed) >> (r >> 40 & 3 ? 17 : 0) & ~7ul;	/* nobody uses it */
		in.rflags = 2 | (r & CHANGEABLE) | (r >> 32 & 7 ? RFLAGS_IF : 0);
		in.rdi = a->rdi;
		out = in;
		check_frame(&in, &out, a, user_run(&out), i);
		add_frame(&out);
	}
}

TEST(random_contexts_match_the_model)
{
	uint32_t syscalls = 0, faults = 0, irets = 0;
	bool gates;

	prepare();
	events_mask();
	gates = gates_there();
	if (gates) {
		syscalls = SHIM_DATA->syscalls;
		faults = SHIM_DATA->faults;
		irets = SHIM_DATA->irets;
	}
	sum = 0xcbf29ce484222325;
	random_contexts(option_number("steps", 600), option_number("seed", 1) * 0x9e3779b97f4a7c15 | 1);
	if (gates) {		/* it did happen in the VM */
		expect(SHIM_DATA->irets - irets > 100, "%lu returns to user mode inside", SHIM_DATA->irets - irets);
		expect(SHIM_DATA->syscalls - syscalls > 50, "%lu system calls inside", SHIM_DATA->syscalls - syscalls);
		expect(SHIM_DATA->faults - faults > 100, "%lu faults inside", SHIM_DATA->faults - faults);
	}
	say("frames 0x%lx", sum);
}

/* What user mode may have in its flags and stack pointer when it calls. */
static unsigned storm_calls, storm_other;
static bool storm(struct regs *r)
{
	if ((r->cs & 3) != 3)
		return false;
	if (r->vector == VEC_SYSCALL) {
		storm_calls++;
		return true;
	}
	storm_other++;
	r->rflags &= ~RFLAGS_TF;
	return r->vector == 1 && storm_other < 1000;
}

TEST(odd_flags_and_stacks)
{
	static const uint64_t flags[] = { RFLAGS_DF, RFLAGS_AC, 1 << 14 /* NT */, 1 << 21 /* ID */, RFLAGS_TF, 0x8d5,
					  RFLAGS_DF | RFLAGS_AC | 1 << 14 | RFLAGS_TF };
	static const uint64_t stacks[] = { 0, 1, 0x7ffffffffffffff9, 0x8000000000000000, SHIM_DATA_VA, GATE_VA, ~0ul };

	linux_user_init();
	trap_hook(VEC_SYSCALL, storm);
	trap_hook(1, storm);
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		for (unsigned k = 0; k < ARRAY_SIZE(stacks); k++) {
			struct regs r = { .rip = user_address(user_odd_syscalls), .cs = LINUX_USER_CS, .ss = LINUX_USER_SS,
					  .rsp = USER_STACK_TOP, .rflags = RFLAGS_IF | 2, .rdi = flags[i] | RFLAGS_IF,
					  .rsi = stacks[k], .rdx = 20, .rbx = i };

			storm_calls = storm_other = 0;
			expect_eq(user_run(&r), GATE_EXIT);
			expect_eq(storm_calls, 20);
			expect_eq(r.rbx, i);
			expect_eq(r.rsp, stacks[k]);
			expect_eq(r.rflags & (RFLAGS_DF | RFLAGS_AC), flags[i] & (RFLAGS_DF | RFLAGS_AC));
		}
	}
	trap_hook(VEC_SYSCALL, NULL);
	trap_hook(1, NULL);
}

static unsigned calls;
static bool count_and_return(struct regs *r)
{
	calls++;
	return true;
}

TEST(vector_registers_survive)
{
	struct regs r;

	prepare();
	trap_hook(VEC_SYSCALL, count_and_return);
	for (unsigned i = 0; i < 50; i++) {
		/* a fresh mapping: a hidden fault between, too */
		expect_eq(linux_user_call(&r, user_vectors, 0x1234567890ul * i, HIDDEN + i % 8), GATE_EXIT);
		expect_eq(r.rax, 0x1234567890ul * i);
		expect_eq(r.rdx, 0x1234567890ul * i);
		map_page(user_root, HIDDEN, 0);
		mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
		map_page(user_root, HIDDEN, pte_make(va_to_mfn(user_data), PTE_DATA));
	}
	trap_hook(VEC_SYSCALL, NULL);
}

TEST(bases_of_both_modes)
{
	static uint64_t kernel_gs[2] = { 0x6b, 0x6c };
	uint64_t v;
	struct regs r;

	prepare();
	for (unsigned i = 0; i < 40; i++) {
		uint64_t *base = &kernel_gs[i & 1];

		*(uint64_t *)user_data = 0x75 + i;
		*(uint64_t *)(user_data + 64) = 0x66 + i;
		expect_eq(hcall2(set_segment_base, SEGBASE_GS_KERNEL, PTR(base)), 0);
		expect_eq(hcall2(set_segment_base, SEGBASE_GS_USER, USER_DATA), 0);
		expect_eq(hcall2(set_segment_base, SEGBASE_FS, USER_DATA + 64), 0);
		for (unsigned k = 0; k < 3; k++) {
			expect_eq(linux_user_call(&r, user_bare_syscall, 0, 0), VEC_SYSCALL);
			asm volatile("movq %%gs:0, %0" : "=r"(v));
			expect_eq(v, *base);
			expect_eq(linux_user_call(&r, user_read, UNMAPPED, 0), 14);
			asm volatile("movq %%gs:0, %0" : "=r"(v));
			expect_eq(v, *base);
			expect_eq(linux_user_call(&r, user_gs, 0, 0), GATE_EXIT);
			expect_eq(r.rax, 0x75 + i);
			expect_eq(r.rdx, 0x66 + i);
		}
	}
}

TEST(user_mode_writes_its_gs)
{
	struct regs r;
	int v;

	prepare();
	hcall2(set_segment_base, SEGBASE_GS_USER, USER_DATA);
	trap_hook(VEC_SYSCALL, count_and_return);
	for (unsigned i = 0; i < 20; i++) {
		v = linux_user_call(&r, user_write_gs, USER_DATA + 0x100 * i, 0);
		if (v == 6) {
			test_skip("user mode has no FSGSBASE here");
			break;
		}
		expect_eq(v, GATE_EXIT);
		expect_eq(r.rax, USER_DATA + 0x100 * i);
		*(uint64_t *)(user_data + 0x100 * i) = i;
		expect_eq(linux_user_call(&r, user_gs, 0, 0), GATE_EXIT);
		expect_eq(r.rax, i);
	}
	trap_hook(VEC_SYSCALL, NULL);
}

TEST(io_privilege_in_frames)
{
	struct physdev_set_iopl set = { .iopl = 3 };
	struct regs r;

	linux_user_init();
	expect_eq(hcall2(vm_assist, VMASST_CMD_enable, VMASST_TYPE_architectural_iopl), 0);
	expect_eq(hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set)), 0);
	expect_eq(linux_user_call(&r, user_bare_syscall, 0, 0), VEC_SYSCALL);
	expect_eq(r.rflags & RFLAGS_IOPL, RFLAGS_IOPL);
	expect_eq(linux_user_call(&r, user_read, UNMAPPED, 0), 14);
	expect_eq(r.rflags & RFLAGS_IOPL, RFLAGS_IOPL);
	expect_eq(linux_user_call(&r, user_exit, 0, 0), GATE_EXIT);
	expect_eq(r.rflags & RFLAGS_IOPL, RFLAGS_IOPL);
	set.iopl = 0;
	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
	hcall2(vm_assist, VMASST_CMD_disable, VMASST_TYPE_architectural_iopl);
}

TEST(breakpoints_and_steps)
{
	struct regs r = { .rip = user_address(user_step), .cs = LINUX_USER_CS, .ss = LINUX_USER_SS, .rsp = USER_STACK_TOP,
			  .rflags = RFLAGS_IF | RFLAGS_TF | 2 };

	linux_user_init();
	expect_eq(user_run(&r), 1);
	expect_eq(r.rip, user_address(user_step) + 1);
	expect(r.rflags & RFLAGS_TF, "TF is lost in the frame");
	expect_eq(user_run(&r), 1);
	expect_eq(r.rip, user_address(user_step) + 3);
	r.rflags &= ~RFLAGS_TF;
	expect_eq(user_run(&r), GATE_EXIT);
	expect_eq(linux_user_call(&r, user_int3, 0, 0), 3);
	expect_eq(r.rip, user_address(user_int3) + 1);

	/* while a breakpoint is armed every transition is the VMM's, then they come back inside */
	expect_eq(hcall2(set_debugreg, 0, user_address(user_exit)), 0);
	expect_eq(hcall2(set_debugreg, 7, 0x401 | 1), 0);
	expect_eq(linux_user_call(&r, user_exit, 0, 0), 1);
	expect_eq(r.rip, user_address(user_exit));
	expect_eq(linux_user_call(&r, user_bare_syscall, 0, 0), VEC_SYSCALL);
	expect_eq(hcall2(set_debugreg, 7, 0x400), 0);
	expect_eq(hcall2(set_debugreg, 6, 0xffff0ff0), 0);
	expect_eq(linux_user_call(&r, user_exit, 0, 0), GATE_EXIT);
}
