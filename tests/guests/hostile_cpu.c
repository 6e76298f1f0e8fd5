/*
 * hostile_cpu.c - stacks, frames, handlers, segments, debug registers that make no sense. See hostile.c.
 */
#include "lib/events.h"
#include "lib/guest.h"
#include "lib/user_code.h"

static uint64_t seed;

static uint64_t random_number(void)
{
	if (!seed)
		seed = option_number("seed", 1) * 0xd1342543de82ef95 | 1;
	return random64(&seed);
}

/* The interrupted context is lost; what counts is what the VMM does with the frame. */
static void fault_on_stack(uint64_t rsp)
{
	asm volatile("movq %0, %%rsp; ud2" :: "r"(rsp) : "memory");
	__builtin_unreachable();
}

TEST(stack_not_mapped)
{
	fault_on_stack(TEST_VA + 0x1000);
}

TEST(stack_in_the_hole)
{
	fault_on_stack(0xffff818000012000);
}

TEST(stack_in_the_pool)
{
	fault_on_stack(0xffff820000001000);
}

TEST(stack_not_canonical)
{
	fault_on_stack(0x8000000000000000);
}

TEST(stack_at_zero)
{
	fault_on_stack(16);
}

TEST(stack_read_only)
{
	fault_on_stack(PTR(root_va()) + 2048);
}

TEST(kernel_stack_for_user_traps)
{
	static const uint64_t stacks[] = { 0xffff818000012000, 0x8000000000000000, TEST_VA };
	struct regs r;

	user_init();
	hcall2(stack_switch, FLAT_KERNEL_SS, stacks[option_number("seed", 1) % ARRAY_SIZE(stacks)]);
	user_call(&r, user_exit, 0, 0);
}

static void handlers_at(uint64_t address)
{
	static struct trap_info table[34];

	for (unsigned v = 0; v < 33; v++)
		table[v] = (struct trap_info){ .vector = (uint8_t)v, .cs = FLAT_KERNEL_CS, .address = address };
	hcall1(set_trap_table, PTR(table));
	asm volatile("ud2");
}

TEST(handlers_not_mapped)
{
	handlers_at(TEST_VA);
}

TEST(handlers_in_the_hole)
{
	handlers_at(0xffff818000000000);
}

TEST(no_handlers)
{
	hcall1(set_trap_table, 0);
	asm volatile("ud2");
}

TEST(event_callback_not_mapped)
{
	struct callback_register cb = { .type = CALLBACKTYPE_event, .address = TEST_VA };
	uint32_t port = event_bind_ipi();

	hcall2(callback_op, CALLBACKOP_register, PTR(&cb));
	hcall1(set_trap_table, 0);
	this_vcpu()->evtchn_upcall_mask = 0;
	event_send(port);
}

TEST(no_syscall_callback)
{
	struct callback_unregister cb = { .type = CALLBACKTYPE_syscall };
	struct regs r;

	user_init();
	hcall2(callback_op, CALLBACKOP_unregister, PTR(&cb));
	cb.type = CALLBACKTYPE_failsafe;
	hcall2(callback_op, CALLBACKOP_unregister, PTR(&cb));
	user_call(&r, user_syscall, 0, 0);
}

TEST(iret_to_user_without_a_root)
{
	struct regs r;

	user_call(&r, user_exit, 0, 0);
}

TEST(iret_frame_not_mapped)
{
	asm volatile("movq %0, %%rsp; movl %1, %%eax; syscall" :: "r"(TEST_VA + 0x100), "i"(__HYPERVISOR_iret) : "memory");
}

TEST(iret_to_random_user_contexts)
{
	static const uint16_t selectors[] = { FLAT_USER_CS64, FLAT_USER_CS32, FLAT_USER_SS32, 3, 7, 0xe103, 0xe10b, 0xe113, 0xffff };
	struct regs r;

	user_init();
	event_bind_virq(VIRQ_TIMER);
	for (unsigned i = 0; i < option_number("steps", 600); i++) {
		uint64_t n = random_number();

		for (unsigned k = 0; k < sizeof(r) / 8; k++)
			((uint64_t *)&r)[k] = random_number();
		r.rip = n & 1 ? USER_CODE + (n >> 8) % user_text_size() : random_number() >> (n >> 8 & 63);
		r.cs = n & 2 ? FLAT_USER_CS64 : n & 4 ? selectors[(n >> 16) % ARRAY_SIZE(selectors)] | 3 : (n >> 16 & 0xffff) | 3;
		r.ss = n & 0x10000000000 ? FLAT_USER_SS64 : selectors[(n >> 24) % ARRAY_SIZE(selectors)];
		r.rflags = (n & 0x20000000000 ? r.rflags : 2) | RFLAGS_IF;	/* or it may spin with events masked */
		r.rsp = n & 0x40000000000 ? USER_STACK_TOP - (n >> 16 & 0xff8) : r.rsp;
		hcall1(set_timer_op, system_time() + 3000000);
		user_run(&r);
		iret_flags = n & 0x80000000000 ? VGCF_in_syscall : 0;
	}
}

TEST(iret_to_a_random_kernel_context)
{
	struct { uint64_t rax, r11, rcx, flags, rip, cs, rflags, rsp, ss; } frame;
	uint64_t n = random_number();

	for (unsigned k = 0; k < 9; k++)
		((uint64_t *)&frame)[k] = random_number();
	frame.cs &= ~3ul;
	frame.flags = 0;
	if (n & 1)
		frame.rip = PTR(image_start) + (n >> 8) % 0x1000;
	if (n & 2)
		frame.rsp = PTR(&frame);
	asm volatile("movq %0, %%rsp; movl %1, %%eax; syscall" :: "r"(&frame), "i"(__HYPERVISOR_iret) : "memory");
}

TEST(user_root_of_garbage)
{
	uint64_t *root = page_alloc();
	struct regs r;

	user_init();
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 512; i++)
			root[i] = (random_number() % (start_info->nr_pages + 1000)) << 12 | (random_number() & 0xfff);
		if (round & 1)
			root[0] = user_root[0];
		if (mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(root), 0))
			continue;
		for (unsigned i = 0; i < 20; i++) {
			hcall1(set_timer_op, system_time() + 3000000);
			user_call(&r, user_read, random_number() & 0x7fffffffffff, 0);
		}
	}
}

TEST(user_root_is_the_kernel_root)
{
	struct regs r;

	user_init();
	mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(root_va()), 0);
	for (unsigned i = 0; i < 10; i++)
		user_call(&r, user_read, PTR(image_start), 0);
}

TEST(random_descriptors)
{
	uint64_t *page = page_alloc(), frame = va_to_mfn(page);
	struct regs r;

	user_init();
	event_bind_virq(VIRQ_TIMER);
	for (unsigned round = 0; round < 40; round++) {
		long loaded;

		page_protect(page, PTE_DATA);
		for (unsigned i = 0; i < 512; i++)
			page[i] = round & 1 ? random_number() : (random_number() & ~(1ul << 47)) | (round & 2 ? 1ul << 44 : 0);
		page_protect(page, PTE_RO_DATA);
		loaded = hcall2(set_gdt, PTR(&frame), round % 3 ? 512 : random_number() % 0x2000);
		loaded &= mmuext(MMUEXT_SET_LDT, round % 5 ? PTR(page) : random_number() & ~0xffful, random_number() % 9000);
		for (unsigned i = 0; i < 40; i++) {
			uint32_t sel = (uint32_t)(random_number() & 0xffff);

			probe("movl %0, %%fs", :: "r"(sel));
			probe("movl %0, %%gs", :: "r"(sel));
			probe("movl %0, %%ds", :: "r"(sel));
			asm volatile("movl %0, %%ds; movl %0, %%fs; movl %0, %%gs" :: "r"(0));
			memset(&r, 0, sizeof(r));
			r.rip = user_address(user_exit);
			r.cs = sel | 3;
			r.ss = FLAT_USER_SS64;
			r.rsp = USER_STACK_TOP;
			r.rflags = RFLAGS_IF | 2;
			hcall1(set_timer_op, system_time() + 3000000);
			user_run(&r);
		}
		if (!loaded)
			mmuext(MMUEXT_SET_LDT, 0, 0);
		hcall2(set_gdt, 0, 0);
	}
}

TEST(ldt_pages_go_away)
{
	uint64_t *page = page_alloc();

	page[1] = 0x00c0f3000000fffful;
	map_page(root_va(), TEST_VA, pte_make(va_to_mfn(page), PTE_RO_DATA));
	mmuext(MMUEXT_SET_LDT, TEST_VA, 512);
	probe("movl %0, %%fs", :: "r"(15));
	update_va(TEST_VA, 0, UVMF_INVLPG);
	for (unsigned i = 0; i < 10; i++) {
		probe("movl %0, %%fs", :: "r"(15));
		probe("movl %0, %%fs", :: "r"(0));
		for (unsigned k = 0; k < 512; k++)
			page[k] = random_number();
	}
	mmuext(MMUEXT_SET_LDT, 0xffff818000000000, 512);
	for (unsigned i = 0; i < 40; i++)
		probe("movl %0, %%fs", :: "r"((uint32_t)(i << 3 | 7)));
}

TEST(random_debug_registers)
{
	for (unsigned i = 0; i < 300; i++) {
		uint64_t n = random_number();

		hcall2(set_debugreg, n & 15, n & 0x100 ? random_number() >> (n >> 16 & 63) : PTR(image_start) + (n >> 16) % 0x8000);
		if (!(i % 9)) {
			asm volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; pushfq; andl $~0x100, (%%rsp); popfq"
				     ::: "memory", "cc");
			hcall2(set_debugreg, 7, 0);
		}
	}
	hcall2(set_debugreg, 7, 0);
}

TEST(random_msrs_and_control_registers)
{
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t n = random_number(), v = random_number() >> (n >> 32 & 63);
		uint32_t msr = (uint32_t)(n & 1 ? 0xc0000080 + (n >> 8 & 0xff) : n & 2 ? n >> 8 & 0xfff : n >> 8);

		switch (n >> 60) {
		case 0:
			probe("movq %0, %%cr4", :: "r"(v));
			break;
		case 1:
			probe("movq %0, %%cr0", :: "r"(v));
			probe("clts");
			break;
		case 2:
			probe("movq %0, %%cr2", :: "r"(v));
			break;
		case 3:
			probe("xsetbv", :: "a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(n & 4 ? 0 : msr));
			break;
		case 4:
		case 5:
		case 6:
			probe("rdmsr", :: "c"(msr) : "rax", "rdx");
			break;
		default:
			probe("wrmsr", :: "a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(msr));
		}
	}
}

TEST(random_port_instructions)
{
	struct physdev_set_iopl set = { .iopl = 3 };

	hcall2(physdev_op, PHYSDEVOP_set_iopl, PTR(&set));
	for (unsigned i = 0; i < 1500; i++) {
		uint64_t n = random_number(), rcx = n >> 40 & 0x3f, rdi = PTR(start_info) + 4096 - (n >> 48 & 0x7f);

		if (n & 1)
			rdi = random_number();
		switch (n >> 1 & 7) {
		case 0:
			probe("inl %%dx, %%eax", :: "d"(n >> 8 & 0xffff) : "rax");
			break;
		case 1:
			probe("outl %%eax, %%dx", :: "d"(n >> 8 & 0xffff), "a"(n));
			break;
		case 2:
			probe("rep outsb", : "+c"(rcx), "+S"(rdi) : "d"(n >> 8 & 0xffff) : "memory");
			break;
		case 3:
			probe("outb %%al, %%dx", :: "d"(n >> 8 & 0xff), "a"(n));
			break;
		default:
			probe("inb %%dx, %%al", :: "d"(n >> 8 & 0xffff) : "rax");
		}
	}
}

TEST(jump_out_of_the_world)
{
	asm volatile("jmp *%0" :: "r"(0x8000000000000000));
}

TEST(code_in_the_gate)
{
	for (uint64_t off = 0; off < 0x900; off += 8)
		probe_fetch(0xffff818000000000 + off);
}

TEST(shutdown_for_no_reason)
{
	struct sched_shutdown off = { .reason = 77 };

	hcall2(sched_op, SCHEDOP_shutdown, PTR(&off));
}

TEST(shutdown_crash)
{
	struct sched_shutdown off = { .reason = SHUTDOWN_crash };

	hcall2(sched_op, SCHEDOP_shutdown, PTR(&off));
}

TEST(shutdown_suspend)
{
	struct sched_shutdown off = { .reason = SHUTDOWN_suspend };

	hcall2(sched_op, SCHEDOP_shutdown, PTR(&off));
}
