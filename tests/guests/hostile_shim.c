/*
 * hostile_shim.c - a guest kernel that scribbles over everything umbra shares with it: the shim's data, ring and stack, and
 * its doors. One TEST() per boot as in hostile.c: the guest may die of it, the VMM has to live, say why, and not hang.
 */
#include "lib/events.h"
#include "lib/shim.h"
#include "lib/user_code.h"

#define DATA_WORDS	(sizeof(struct shim_data) / 8)
#define UNMAPPED	(USER_DATA + 0x9000)
#define HIDDEN		(USER_DATA + 0x400000)
#define PINS	((volatile uint8_t *)SHIM_PINS_VA)
#define RING		((volatile uint64_t *)SHIM_RING_VA)

extern char trap_stack_top[];

static uint64_t seed;

static uint64_t random_number(void)
{
	if (!seed)
		seed = option_number("seed", 1) * 0x9e3779b97f4a7c15 | 1;
	return random64(&seed);
}

/* Values that mean something to somebody, and some that do not. */
static uint64_t random_value(void)
{
	static const uint64_t bases[] = {
		0, 0xfff, 0x8000000000000000, 0x7fffffffffff, 0xffff800000000000, M2P_VA, GATE_VA, GATE_VA + GATE_SYSCALL,
		GATE_VA + GATE_USER_FAULT, VCPU_AREA_VA(0) + 0x2000, POOL_VA, SHIM_VA, SHIM_DATA_VA, SHIM_RING_VA,
		SHIM_STACK_VA + 0x2000, SHIM_FRAME_VA + 0x1000, RAM_MAP_VA, 0xffffffffffffffff, TEST_VA, USER_CODE, USER_DATA,
		0xffffffff, 0x80000000,
	};
	uint64_t r = random_number();

	switch (r % 4) {
	case 0:
		return random_number();
	case 1:
		return r >> 8 & ((1ul << (r >> 3 & 31)) - 1);
	default:
		return bases[(r >> 8) % ARRAY_SIZE(bases)] + ((r >> 16 & 3) ? 0 : (r >> 24 & 0xff) - 0x40);
	}
}

/* ---- coming back from anywhere ---------------------------------------------------------------------------------------------- */

static void *landing[5];
static uint8_t landing_stack[8192] __attribute__((aligned(16)));
static bool attempting;

static void land(void)
{
	__builtin_longjmp(landing, 1);
}

static bool user_too;		/* traps of user mode end it as well: nobody else waits for them */
static struct regs landed;

/* Any trap of kernel code in an attempt ends it. */
static bool give_up(struct regs *r)
{
	if (!attempting || ((r->cs & 3) == 3 && !user_too))
		return false;
	landed = *r;
	attempting = false;
	r->rip = PTR(land);
	r->rsp = PTR(landing_stack + sizeof(landing_stack) - 8);
	r->cs = FLAT_KERNEL_CS & ~3;	/* an iret to the kernel */
	r->ss = FLAT_KERNEL_SS;
	r->rflags = 2;
	return true;
}

static void attempt(void (*fn)(uint64_t), uint64_t arg)
{
	static const uint8_t vectors[] = { 0, 1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 17 };

	for (unsigned i = 0; i < sizeof(vectors); i++)
		trap_hook(vectors[i], give_up);
	events_mask();
	if (!__builtin_setjmp(landing)) {
		attempting = true;
		fn(arg);
	}
	attempting = false;
	for (unsigned i = 0; i < sizeof(vectors); i++)
		trap_hook(vectors[i], NULL);
}

/* ---- what the guest does while it lies -------------------------------------------------------------------------------------- */

static bool prepare(void)
{
	if (!need_shim())
		return false;
	linux_user_init();
	map_page(user_root, HIDDEN, pte_make(va_to_mfn(user_data), PTE_DATA));
	map_page(root_va(), TEST_VA, 0);
	return true;
}

static void short_multicall(void)
{
	static struct multicall_entry m[6];
	static struct mmu_update u;

	u.ptr = mach(pte_of(root_va(), TEST_VA, 1));
	for (unsigned i = 0; i < ARRAY_SIZE(m); i++)
		m[i] = (struct multicall_entry){ .op = i & 1 ? __HYPERVISOR_mmu_update : __HYPERVISOR_xen_version,
						 .args = { i & 1 ? PTR(&u) : 0, 1, 0, DOMID_SELF } };
	m[5].op = __HYPERVISOR_sched_op;	/* not the shim's: yield */
	hcall2(multicall, PTR(m), ARRAY_SIZE(m));
}

static void do_something(uint64_t which)
{
	struct vcpu_set_singleshot_timer timer = { .timeout_abs_ns = system_time() + 1000000000 };
	struct regs r;

	switch (which % 14) {
	case 0:
		map_page(root_va(), TEST_VA, pte_make(va_to_mfn(user_data), PTE_DATA));
		break;
	case 1:
		update_va(TEST_VA, 0, UVMF_INVLPG);
		break;
	case 2:
		mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
		break;
	case 3:
		short_multicall();
		break;
	case 4:
		hcall2(xen_version, XENVER_version, 0);
		break;
	case 5:
		hcall2(set_segment_base, SEGBASE_GS_USER, USER_DATA);
		break;
	case 6:
		hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&timer));
		break;
	case 7:
		hcall2(sched_op, SCHEDOP_yield, 0);
		break;
	case 8:
		hcall1(get_debugreg, 7);
		break;
	case 9:
		linux_user_call(&r, user_bare_syscall, 0, 0);
		break;
	case 10:
		linux_user_call(&r, user_read, UNMAPPED, 0);
		break;
	case 11:
		mmu_update_one(mach(pte_of(user_root, HIDDEN, 1)), pte_make(va_to_mfn(user_data), PTE_DATA));
		mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
		linux_user_call(&r, user_read, HIDDEN, 0);
		break;
	case 12:
		linux_user_call(&r, user_exit, 0, 0);
		break;
	case 13:
		mmuext(MMUEXT_PIN_L1_TABLE, va_to_mfn(landing_stack) + which % 64, 0);
		mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(landing_stack) + which % 64, 0);
		break;
	}
}

/* One lie, one deed, and the truth again. */
static void lie_once(unsigned word, uint64_t value, uint64_t deed)
{
	static uint64_t saved[DATA_WORDS];
	volatile uint64_t *data = (volatile uint64_t *)SHIM_DATA;
	uint32_t head;

	for (unsigned i = 0; i < DATA_WORDS; i++)
		saved[i] = data[i];
	data[word] = value;
	attempt(do_something, deed);
	head = SHIM_DATA->head;
	for (unsigned i = 0; i < DATA_WORDS; i++)
		data[i] = saved[i];
	SHIM_DATA->head = head;
	hcall2(stack_switch, FLAT_KERNEL_SS, PTR(trap_stack_top));
	hcall2(sched_op, SCHEDOP_yield, 0);
}

/* A lie may end the guest before the next one is told: seed= says where to begin. */
static void lies(unsigned offset, const uint64_t *values, unsigned n)
{
	uint64_t start;

	if (!prepare())
		return;
	start = random_number();
	for (unsigned i = 0; i < n * 14; i++)
		lie_once(offset / 8, values[(start + i) / 14 % n], (start + i) % 14);
}
#define LIES(name, offset, ...) \
	TEST(name) \
	{ \
		static const uint64_t values[] = { __VA_ARGS__ }; \
		lies((unsigned)(offset), values, ARRAY_SIZE(values)); \
	}
#define WILD	0, 8, 0x8000000000000000, 0x7ffffffffff8, GATE_VA, VCPU_AREA_VA(0) + 0x2000, POOL_VA + 0x1000, SHIM_VA, \
		SHIM_DATA_VA + 2048, SHIM_FRAME_VA + 0x1000, M2P_VA, RAM_MAP_VA, TEST_VA + 0x100000, ~7ul, ~0ul, 0xfff
#define OFFSET(field)	__builtin_offsetof(struct shim_data, field)

LIES(saved_rsp_wild, OFFSET(saved_rsp), WILD)
LIES(info_wild, OFFSET(info), WILD)
LIES(selectors_wild, OFFSET(cs), 0, 3, 0x10, 0x33, 0x2b, GATE_CS, GATE_TSS, FLAT_KERNEL_CS, 0xffff, ~0ul)
LIES(stack_selector_wild, OFFSET(ss), 0, 3, 0x10, 0x33, 0x2b, GATE_SS, GATE_TSS, FLAT_KERNEL_CS, 0xffff, ~0ul)
LIES(kernel_root_wild, OFFSET(kernel_l4), 0, 1, 0x3fff, 0x4000, ~0ul, 1ul << 40, 1ul << 52)
LIES(user_root_wild, OFFSET(user_l4), 0, 1, 0x3fff, 0x4000, ~0ul, 1ul << 40, 1ul << 52)
LIES(ram_without_end, OFFSET(ram_frames), ~0ul, 0, 1, 0x4000, 1ul << 40, 0x4100)
LIES(gfns_without_end, OFFSET(nr_gfns), ~0ul, 0, 1, 1ul << 40)
LIES(stack_selector_of_the_kernel, OFFSET(kernel_ss), ~0ul, 0, GATE_SS)
LIES(timer_armed_wild, OFFSET(armed), ~0ul, 0, 1, 1ul << 63)
LIES(deadline_wild, OFFSET(deadline), ~0ul, 0, 1, 1ul << 63)
LIES(everything_enabled, OFFSET(nr_vcpus), ~0ul, 0, 1, 0xffffffff00000000, 0xffffffff)
LIES(vcpu_wild, OFFSET(vcpu), 1, ~0ul, 31, 32, 0xffffffff, 1ul << 32)
LIES(user_frame_wild, OFFSET(frame), WILD)
LIES(user_code_selector_wild, OFFSET(uf_cs), 0, 3, 0x10, 0x13, 0x23, 0x2b, GATE_CS, GATE_CS | 3, GATE_TSS, FLAT_KERNEL_CS, ~0ul)
LIES(user_stack_selector_wild, OFFSET(uf_ss), 0, 3, 0x18, 0x1b, 0x33, GATE_SS, GATE_SS | 3, GATE_TSS, FLAT_KERNEL_CS, ~0ul)
LIES(ring_watched_wild, OFFSET(ring_watched), 1, ~0ul, 0)
LIES(gs_user_wild, OFFSET(gs_user), WILD)
LIES(gs_kernel_wild, OFFSET(gs_kernel), WILD)
LIES(kernel_stack_wild, OFFSET(kernel_sp), WILD, TEST_VA, 16)
LIES(syscall_handler_wild, OFFSET(syscall_to), WILD)
LIES(fault_handler_wild, OFFSET(fault_to), WILD)
LIES(masks_wild, OFFSET(syscall_mask), 0, ~0ul, 0xff, 0xff00, 0xff0000, 0xffffffff00000000, 0x8000000000000000)
LIES(ring_tail_wild, OFFSET(tail), 0, ~0ul, 1, 4096, 0x80000000)
LIES(ring_head_wild, OFFSET(tail) - 8, 0, ~0ul, 0x80000000ul << 32, 0x1000ul << 32, 0x7ffffffful << 32)
LIES(counters_wild, OFFSET(syscalls), 0, ~0ul, 1ul << 63)

/* What all vCPUs' shims share: what is pinned, and what is not in force yet. */
TEST(shared_words_wild)
{
	volatile uint64_t *shared = (volatile uint64_t *)SHIM_SHARED_VA;

	if (!prepare())
		return;
	for (unsigned i = 0; i < 300; i++) {
		shared[random_number() % 64] = random_number() % 3 ? random_number() : 0;
		PINS[random_number() % 0x4000] = (uint8_t)random_number();
		attempt(do_something, random_number() % 14);
	}
	for (unsigned i = 0; i < 64; i++)
		shared[i] = 0;
	for (unsigned i = 0; i < 0x4000; i++)
		PINS[i] = 0;
}

TEST(random_words)
{
	if (!prepare())
		return;
	for (unsigned i = 0; i < option_number("steps", 60); i++)
		lie_once((unsigned)(random_number() % DATA_WORDS), random_value(), random_number());
}

TEST(random_page)
{
	volatile uint64_t *data = (volatile uint64_t *)SHIM_DATA;

	if (!prepare())
		return;
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 512; i++)
			data[i] = random_value();
		for (unsigned i = 0; i < 4; i++)
			attempt(do_something, random_number());
	}
}

/* ---- the ring ----------------------------------------------------------------------------------------------------------------- */

TEST(ring_of_garbage)
{
	if (!prepare())
		return;
	for (unsigned round = 0; round < 8; round++) {
		for (unsigned i = 0; i < SHIM_RING; i++)
			RING[i] = random_number();
		SHIM_DATA->head += (uint32_t)(random_number() % 10000);
		attempt(do_something, random_number());
	}
}

/* Entries that are well-formed: every frame of RAM pinned, unpinned, updated as a table of every level. */
TEST(ring_of_frames)
{
	if (!prepare())
		return;
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < SHIM_RING; i++) {
			uint64_t gfn = random_number() % start_info->nr_pages;

			PINS[gfn] = (uint8_t)(random_number() % 6);
			RING[i] = gfn << 12 | (random_number() & 0xfff);
		}
		SHIM_DATA->head += SHIM_RING;
		attempt(do_something, random_number());
	}
}

/* The tables in use, pinned at levels they do not have. */
TEST(ring_of_live_tables)
{
	uint64_t frames[4];

	if (!prepare())
		return;
	frames[0] = va_to_mfn(root_va());
	frames[1] = va_to_mfn(user_root);
	frames[2] = va_to_mfn(pte_of(root_va(), TEST_VA, 1));
	frames[3] = va_to_mfn(pte_of(root_va(), PTR(image_start), 1));
	for (unsigned round = 0; round < 30; round++) {
		for (unsigned i = 0; i < 32; i++) {
			uint64_t gfn = frames[random_number() % 4];

			PINS[gfn] = (uint8_t)(random_number() % 6);
			RING[(SHIM_DATA->head + i) % SHIM_RING] = gfn << 12 | (random_number() & 0xfff);
		}
		SHIM_DATA->head += 32;
		attempt(do_something, random_number());
	}
}

TEST(ring_full_for_ever)
{
	if (!prepare())
		return;
	for (unsigned deed = 0; deed < 28; deed++) {
		SHIM_DATA->head = SHIM_DATA->tail + SHIM_RING - (deed & 1);
		attempt(do_something, deed / 2);
	}
}

/* ---- arguments that lie in the shim's own memory -------------------------------------------------------------------------------- */

TEST(calls_that_overwrite_the_shim)
{
	static struct mmu_update u[8];
	volatile uint64_t *data = (volatile uint64_t *)SHIM_DATA;
	struct multicall_entry *m;

	if (!prepare())
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
		u[i] = (struct mmu_update){ mach(pte_of(root_va(), TEST_VA, 1)), 0 };
	/* the count of updates done goes into every field */
	for (unsigned i = 0; i < DATA_WORDS * 2; i++) {
		uint64_t saved = data[i / 2];

		hcall4(mmu_update, PTR(u), 3, SHIM_DATA_VA + i * 4, DOMID_SELF);
		data[i / 2] = saved;
	}
	/* a list in the ring: what is logged overwrites what is to come */
	m = (struct multicall_entry *)(SHIM_RING_VA + (SHIM_DATA->head & (SHIM_RING - 1)) / 64 * 512);
	for (unsigned i = 0; i < 8; i++)
		m[i] = (struct multicall_entry){ .op = __HYPERVISOR_mmu_update, .args = { PTR(u), 8, 0, DOMID_SELF } };
	hcall2(multicall, PTR(m), 8);
	/* and one in the data page, results over saved_rsp and what follows */
	hcall2(multicall, SHIM_DATA_VA - 48, 2);
	hcall2(multicall, SHIM_DATA_VA, 8);
}

TEST(updates_of_the_shims_frames)
{
	if (!prepare())
		return;
	for (unsigned i = 0; i < 64; i++) {
		mmu_update_one((start_info->nr_pages + i) << 12, random_number());
		mmu_update_one((1ul << 52) + (uint64_t)i * 4096, random_number());
		update_va(SHIM_DATA_VA + i * PAGE, random_number(), UVMF_INVLPG);
		update_va(RAM_MAP_VA + i * PAGE, random_number(), 0);
		mmuext(MMUEXT_PIN_L1_TABLE + i % 4, start_info->nr_pages + i, 0);
	}
}

TEST(stack_in_the_shim)
{
	static const uint64_t stacks[] = { SHIM_STACK_VA + 0x2000, SHIM_DATA_VA + 0x200, SHIM_RING_VA + 0x8000,
					   SHIM_DATA_VA + 0x1000, RAM_MAP_VA + 0x2000, SHIM_STACK_VA + 8 };
	struct regs r;

	if (!prepare())
		return;
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(stacks); i++) {
		uint64_t n = i + random_number();

		hcall2(stack_switch, FLAT_KERNEL_SS, stacks[n / 2 % ARRAY_SIZE(stacks)]);
		linux_user_call(&r, n & 1 ? user_bare_syscall : user_read, UNMAPPED, 0);
	}
}

/* A hypercall made on it, while the shim works there. */
static void call_on(uint64_t rsp)
{
	extern char hypercall_page[];

	asm volatile("movq %%rsp, %%rbx\n\tmovq %0, %%rsp\n\tcall *%1\n\tmovq %%rbx, %%rsp"
		     :: "r"(rsp), "r"(hypercall_page + __HYPERVISOR_xen_version * 32), "D"(0), "S"(0)
		     : "rax", "rbx", "rcx", "r11", "memory");
}

TEST(calls_on_odd_stacks)
{
	static const uint64_t stacks[] = { SHIM_STACK_VA + 0x2000, SHIM_DATA_VA + 0x58, SHIM_DATA_VA + 0x300, GATE_VA + 0x12000,
					   RAM_MAP_VA + 0x2000, TEST_VA + 0x3000, 0x8000000000000000, SHIM_FRAME_VA + 0x800,
					   SHIM_STACK_VA + 16, SHIM_VA + 0x2000 };

	if (!prepare())
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(stacks); i++)
		attempt(call_on, stacks[(i + random_number()) % ARRAY_SIZE(stacks)]);
}

/* ---- doors ----------------------------------------------------------------------------------------------------------------------- */

/* Registers are random, but for the stack. */
static void jump(uint64_t to)
{
	uint64_t a = random_value(), b = random_value(), c = random_value(), d = random_value();

	if (b >> 12 == GATE_VA >> 12)	/* a hypercall that returns to its gate goes on for ever */
		b = 0;
	asm volatile("pushq %0\n\tret" :: "r"(to), "a"(a & 63), "c"(b), "d"(c), "S"(d), "D"(a) : "memory", "rbx", "r8", "r11");
	__builtin_unreachable();
}

TEST(gates_from_the_kernel)
{
	if (!prepare())
		return;
	for (unsigned i = 0; i < 60; i++) {
		uint64_t to = GATE_VA + random_number() % 0x180 * 8;

		if (i % 4 == 0)
			to = GATE_VA + (i % 8 ? GATE_SYSCALL : GATE_SYSCALL32);
		attempt(jump, to);
	}
}

TEST(gates_from_user_mode)
{
	struct regs r;

	if (!prepare())
		return;
	for (unsigned to = 0; to < 0xb00; to += 8) {
		uint64_t flags = random_number() & 0xcd5;

		r = (struct regs){ .rip = to & 8 ? GATE_VA + to : user_address(user_jump), .cs = LINUX_USER_CS,
				   .ss = LINUX_USER_SS, .rsp = random_value(), .rflags = RFLAGS_IF | 2 | flags,
				   .rdi = GATE_VA + to, .rcx = random_value(), .r11 = random_value() };
		user_run(&r);
		events_mask();
	}
}

/* The door to the VMM for user faults, with a context of our own making. */
static void hand_over(uint64_t unused)
{
	SHIM_DATA->uf_rip = random_number() % 2 ? user_address(user_exit) : random_value();
	SHIM_DATA->uf_rsp = random_value();
	SHIM_DATA->uf_flags = random_number();
	SHIM_DATA->uf_error = random_number();
	SHIM_DATA->uf_cr2 = random_number() % 2 ? HIDDEN : random_value();
	jump(GATE_VA + GATE_USER_FAULT);
}

TEST(fault_gate_from_the_kernel)
{
	if (!prepare())
		return;
	user_too = true;
	trap_hook(GATE_EXIT, give_up);
	for (unsigned i = 0; i < 40; i++)
		attempt(hand_over, 0);
}

TEST(middle_of_the_shim)
{
	if (!prepare())
		return;
	for (unsigned i = 0; i < 50; i++)
		attempt(jump, SHIM_VA + random_number() % 0x1400);
}

/* The shim's `iretq; int3`, the way to user mode. */
static uint64_t to_user_iret(void)
{
	const uint8_t *code = (const uint8_t *)SHIM_VA;

	for (unsigned i = 0; i < SHIM_CODE_PAGES * PAGE - 3; i++)
		if (code[i] == 0x48 && code[i + 1] == 0xcf && code[i + 2] == 0xcc)
			return SHIM_VA + i;
	return 0;
}

/* By both instructions, with all that the gate takes from the shim's data of our own making. */
static void ask_for_user(uint64_t door)
{
	SHIM_DATA->frame[0] = door + 2;
	asm volatile("movq %0, %%rsp\n\tjmp *%1" :: "r"(SHIM_DATA_VA + __builtin_offsetof(struct shim_data, frame)), "r"(door),
		     "a"(SHIM_DATA->uf_rip) : "memory");
	__builtin_unreachable();
}

/* By the int3 alone: this kernel's own segments and flags. */
static void ask_by_int3(uint64_t door)
{
	asm volatile("jmp *%0" :: "r"(door + 2), "a"(SHIM_DATA->uf_rip) : "memory");
	__builtin_unreachable();
}

TEST(user_mode_by_the_shims_door)
{
	static const uint64_t flags[] = { 0, ~0ul, RFLAGS_IOPL, 1 << 14, RFLAGS_TF, 1 << 17, 3 << 19, RFLAGS_AC | RFLAGS_DF };
	static const uint16_t selectors[] = { LINUX_USER_CS, FLAT_USER_CS64, GATE_CS, 0x10, 0, LINUX_USER_SS, GATE_TSS, 0x23,
					      FLAT_USER_CS32, GATE_CS | 3, 0x13 };
	static const uint64_t wild[] = { WILD };
	uint64_t door = to_user_iret();

	if (!prepare() || !need_gates())
		return;
	expect(door, "no iretq; int3 in the shim");
	user_too = true;
	trap_hook(GATE_EXIT, give_up);
	for (unsigned i = 0; door && i < 60; i++) {
		bool good = random_number() % 2;

		memset(&landed, 0, sizeof(landed));
		SHIM_DATA->uf_rip = good ? user_address(user_exit) : wild[random_number() % ARRAY_SIZE(wild)];
		SHIM_DATA->frame[1] = selectors[random_number() % 3 ? 0 : random_number() % ARRAY_SIZE(selectors)];
		SHIM_DATA->frame[2] = flags[random_number() % ARRAY_SIZE(flags)];
		SHIM_DATA->frame[3] = random_value();
		SHIM_DATA->frame[4] = selectors[random_number() % 3 ? 5 : random_number() % ARRAY_SIZE(selectors)];
		attempt(i % 3 ? ask_for_user : ask_by_int3, door);
		if (!landed.rip)
			continue;
		/* whatever was asked for, what ran was user mode without privileges */
		expect_eq(landed.cs & 3, 3);
		if (landed.vector != GATE_EXIT)
			continue;
		expect_eq(landed.rip, user_address(user_exit) + 2);
		expect(!(landed.rflags & (RFLAGS_IOPL | 1 << 17)), "rflags %lx", landed.rflags);
	}
	trap_hook(GATE_EXIT, NULL);
	user_too = false;
}

/* The page behind which there is no memory: its stores are the shim's way out. RCX is where a hypercall returns to; one
 * that returns to its own gate would go on for ever. */
static void touch_exit_page(uint64_t which)
{
	uint64_t at = SHIM_EXIT_VA + (which >> 8) % 24 * (which & 0x80 ? 8 : 0xa9), rcx = random_value();

	if (rcx >> 12 == GATE_VA >> 12 || rcx >> 12 == SHIM_VA >> 12)
		rcx = 0;
	SHIM_DATA->uf_rip = random_value();
	SHIM_DATA->uf_rsp = random_value();
#define TOUCH(insn)	asm volatile(insn :: "r"(at), "a"(which >> 16 & 63), "c"(rcx), "D"(random_value()), "S"(random_value()), \
				     "d"(random_value()) : "memory", "r11")
	switch (which & 7) {
	case 0:
		TOUCH("movb %%al, (%0)");
		break;
	case 1:
		TOUCH("movq %%rax, (%0)");
		break;
	case 2:
		TOUCH("movl (%0), %%eax");
		break;
	case 3:
		TOUCH("addl %%eax, (%0)");
		break;
	case 4:
		jump(at);
		break;
	default:
		TOUCH("movl %%eax, (%0)");
	}
}

TEST(stores_where_no_memory_is)
{
	if (!prepare())
		return;
	user_too = true;
	trap_hook(GATE_EXIT, give_up);
	for (unsigned i = 0; i < 60; i++)
		attempt(touch_exit_page, random_number());
	trap_hook(GATE_EXIT, NULL);
	user_too = false;
}

/* ---- at an event ------------------------------------------------------------------------------------------------------------------- */

/* Scribbles from the upcall, which comes wherever the timer fires; in the shim's path back to user mode, too. */
static bool scribble(struct regs *r)
{
	((volatile uint64_t *)SHIM_DATA)[random_number() % (DATA_WORDS - 72)] = random_value();
	this_vcpu()->evtchn_upcall_pending = 0;
	return true;
}

TEST(scribbles_from_an_upcall)
{
	struct vcpu_set_periodic_timer timer = { .period_ns = 1000000 };
	uint64_t end;

	if (!prepare())
		return;
	event_bind_virq(VIRQ_TIMER);
	trap_hook(VEC_EVENT, scribble);
	hcall3(vcpu_op, VCPUOP_set_periodic_timer, 0, PTR(&timer));
	end = system_time() + 200000000;
	while (system_time() < end) {
		struct regs r;

		events_unmask();
		for (unsigned i = 0; i < 5; i++)
			short_multicall();
		linux_user_call(&r, user_bare_syscall, 0, 0);
	}
}
