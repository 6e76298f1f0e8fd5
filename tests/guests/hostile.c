/*
 * hostile.c - a guest that does what no guest may. One TEST() per boot, named by only=NAME; seed=N varies the random ones.
 * That a test ends the guest is fine; the VMM has to live on, say why, and not hang. list=1 names them all.
 *
 * hostile_cpu.c is about stacks, frames, tables of the processor; this file about memory and page tables.
 */
#include "lib/events.h"
#include "lib/guest.h"

static uint64_t seed;

static uint64_t random_number(void)
{
	if (!seed)
		seed = option_number("seed", 1) * 0x9e3779b97f4a7c15 | 1;
	return random64(&seed);
}

/* Frames in RAM mostly; sometimes just behind it, sometimes anything. */
static uint64_t random_frame(void)
{
	uint64_t r = random_number();

	switch (r % 8) {
	case 0:
		return start_info->nr_pages + (r >> 8) % 5000;
	case 1:
		return r >> 12 & 0xffffffffff;
	default:
		return (r >> 8) % start_info->nr_pages;
	}
}

static uint64_t random_address(void)
{
	uint64_t r = random_number();

	switch (r % 6) {
	case 0:
		return r;
	case 1:
		return 0xffff800000000000 + (r >> 8 & 0x7ffffffffff);
	case 2:
		return PTR(image_start) + (r >> 8) % (PTR(image_end) - PTR(image_start));
	case 3:
		return (r >> 8) % 0x800000000000;
	case 4:
		return TEST_VA + (r >> 8) % 0x400000;
	default:
		return (r >> 8) % 4096;
	}
}

static void fill_random(void *page)
{
	uint64_t *p = page;

	for (unsigned i = 0; i < 512; i++)
		p[i] = random_number() % 3 ? pte_make(random_frame(), random_number() & 0xfff) : random_number();
}

TEST(random_hypercalls)
{
	static uint8_t buffer[4096] __attribute__((aligned(4096)));

	for (unsigned i = 0; i < option_number("steps", 4000); i++) {
		uint64_t a[5];
		unsigned nr = (unsigned)(random_number() % 64);

		/* these end, block or restart the guest by right, or print a lot */
		if (nr == __HYPERVISOR_sched_op || nr == __HYPERVISOR_sched_op_compat || nr == __HYPERVISOR_iret ||
		    nr == __HYPERVISOR_console_io || nr == __HYPERVISOR_multicall || nr == __HYPERVISOR_set_trap_table)
			continue;
		if (!(random_number() % 8))
			for (unsigned k = 0; k < 64; k++)
				((uint64_t *)buffer)[k] = random_number() >> random_number() % 64;
		for (unsigned k = 0; k < 5; k++) {
			uint64_t r = random_number();

			a[k] = r % 4 == 0 ? PTR(buffer) + (r >> 8) % 4096 : r % 4 == 1 ? random_address() :
			       r % 4 == 2 ? (r >> 8) % 32 : r;
		}
		if (nr == __HYPERVISOR_vcpu_op && (a[0] == VCPUOP_down || a[0] == VCPUOP_initialise))
			continue;
		if (nr == __HYPERVISOR_mmuext_op || nr == __HYPERVISOR_mmu_update)
			a[1] %= 16;
		hypercall(nr, a[0], a[1], a[2], a[3], a[4]);
	}
}

TEST(random_page_table_updates)
{
	uint64_t *table[8];

	for (unsigned i = 0; i < 8; i++)
		table[i] = table_alloc();
	map_page(root_va(), TEST_VA, 0);
	for (unsigned i = 0; i < option_number("steps", 3000); i++) {
		uint64_t r = random_number(), *t = table[r >> 8 & 7];

		switch (r % 5) {
		case 0:		/* into one of ours: a frame of ours, or any */
			mmu_update_one(mach(&t[r >> 16 & 511]) | (r >> 30 & 3),
				       pte_make(r >> 11 & 1 ? va_to_mfn(table[r >> 32 & 7]) : random_frame(),
						random_number() & 0x80000000000001ff));
			break;
		case 1:		/* into the live tables */
			mmu_update_one(mach(pte_of(root_va(), TEST_VA, 2)) + (r >> 16 & 7) * 8,
				       pte_make(va_to_mfn(t), random_number() & 0x1ff));
			break;
		case 2:
			probe_read(TEST_VA + (r >> 16 & 0x1ffffff), NULL);
			break;
		case 3:
			probe_write(TEST_VA + (r >> 16 & 0x1fff000), r);
			break;
		case 4:
			mmuext(r >> 16 & 1 ? MMUEXT_TLB_FLUSH_LOCAL : MMUEXT_INVLPG_LOCAL, TEST_VA + (r >> 17 & 0x1ff000), 0);
			break;
		}
	}
}

TEST(root_of_garbage)
{
	uint64_t *root = page_alloc();

	fill_random(root);
	mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(root), 0);
	mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(root), 0);
}

TEST(garbage_beside_the_kernel)
{
	uint64_t *root = page_alloc(), old = va_to_mfn(root_va());

	for (unsigned round = 0; round < 4; round++) {
		fill_random(root);
		root[511] = root_va()[511];
		if (mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(root), 0))
			continue;
		for (unsigned i = 0; i < 200; i++) {
			uint64_t va = random_number() & 0xffffffffffff;

			va = va >> 47 ? va | 0xffff000000000000 : va;
			if (va >= 0xffffff8000000000)
				continue;
			if (i & 1)
				probe_read(va, NULL);
			else
				probe_fetch(va & ~0xffful);
		}
		mmuext(MMUEXT_NEW_BASEPTR, old, 0);
		mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(root), 0);
	}
}

TEST(one_frame_at_every_level)
{
	uint64_t *t = page_alloc(), mfn = va_to_mfn(t);

	for (unsigned i = 0; i < 512; i++)
		t[i] = pte_make(mfn, PTE_TABLE);
	mmu_update_one(mach(root_va() + 40), pte_make(mfn, PTE_TABLE));
	for (unsigned i = 0; i < 200; i++) {
		uint64_t va = (40ul << 39) + (random_number() & 0x7ffffffff8);

		probe_read(va, NULL);
		/* rewrites an entry of all four levels */
		probe_write(va, pte_make(i % 7 ? mfn : random_frame(), PTE_TABLE));
		if (!(i % 5))
			mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
	}
	mmuext(MMUEXT_UNPIN_TABLE, mfn, 0);
	mmu_update_one(mach(root_va() + 40), 0);
}

TEST(root_in_its_own_slots)
{
	uint64_t mfn = va_to_mfn(root_va());

	for (unsigned slot = 20; slot < 30; slot++)
		mmu_update_one(mach(root_va() + slot), pte_make(mfn, PTE_TABLE));
	for (unsigned i = 0; i < 300; i++) {
		uint64_t va = (20 + random_number() % 10) << 39 | (random_number() & 0x7ffffffff8);

		probe_read(va, NULL);
		if (i % 3 == 0)
			probe_write(va, random_number());
	}
}

TEST(pins_at_random)
{
	for (unsigned i = 0; i < 600; i++) {
		uint64_t mfn = random_frame();

		if (random_number() & 1)
			mmuext(MMUEXT_PIN_L1_TABLE + (unsigned)(random_number() & 3), mfn, 0);
		else
			mmuext(MMUEXT_UNPIN_TABLE, mfn, 0);
		((volatile uint64_t *)page_alloc())[0] = i;
	}
}

TEST(stack_pinned_as_a_table)
{
	uint64_t here = 0, mfn = va_to_mfn(&here);

	for (unsigned level = 0; level < 4; level++) {
		mmuext(MMUEXT_PIN_L1_TABLE + level, mfn, 0);
		for (unsigned i = 0; i < 20; i++) {
			probe("ud2");
			*(volatile uint64_t *)&here = i;
		}
		mmuext(MMUEXT_UNPIN_TABLE, mfn, 0);
	}
}

TEST(code_and_shared_info_pinned)
{
	mmuext(MMUEXT_PIN_L1_TABLE, va_to_mfn(image_start), 0);
	mmuext(MMUEXT_PIN_L2_TABLE, start_info->shared_info >> 12, 0);
	mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(start_info), 0);
	for (unsigned i = 0; i < 10; i++) {
		this_vcpu()->evtchn_upcall_mask = 1;
		shared_info->arch.max_pfn = i;
		hcall2(xen_version, 0, 0);
		probe("ud2");
	}
}

TEST(root_unlinked_from_under_us)
{
	/* the kernel's own L4 slot goes: the next fetch faults, and so does everything after */
	mmu_update_one(mach(root_va() + 511), 0);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

TEST(root_freed_while_loaded)
{
	uint64_t *root = page_alloc();

	memcpy(root, root_va(), 4096);
	mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(root), 0);
	mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(root), 0);
	for (unsigned i = 0; i < 510; i++)
		root[i] = random_number();
	for (unsigned i = 0; i < 100; i++)
		probe_read(random_address(), NULL);
}

TEST(direct_stores_of_garbage)
{
	uint64_t *l1;

	map_page(root_va(), TEST_VA, 0);
	l1 = pte_of(root_va(), TEST_VA, 1);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t r = random_number();

		probe_write(PTR(&l1[r & 511]), r & 0x10000 ? pte_make(random_frame(), random_number() & 0xfff) : random_number());
		if (!(i % 16))
			mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
		probe_read(TEST_VA + (random_number() & 511) * PAGE, NULL);
		probe_write(TEST_VA + (random_number() & 511) * PAGE + 8, i);
	}
}

TEST(console_ring_indices)
{
	volatile struct xencons_interface *ring;

	if (start_info->flags & SIF_INITDOMAIN)
		return;
	ring = mfn_to_va(start_info->console.domU.mfn);
	for (unsigned i = 0; ring && i < 200; i++) {
		ring->out_prod = (XENCONS_RING_IDX)random_number();
		if (i & 1)
			ring->out_cons = (XENCONS_RING_IDX)random_number();
		ring->in_cons = (XENCONS_RING_IDX)random_number();
		ring->in_prod = (XENCONS_RING_IDX)random_number();
		event_send(start_info->console.domU.evtchn);
	}
}

TEST(console_io_of_everything)
{
	static const uint32_t counts[] = { 0x7fffffff, 0xffffffff, 0x40000000, 0x200000 };

	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		hcall3(console_io, CONSOLEIO_write, counts[i], PTR(image_end) - 0x1000);
		hcall3(console_io, CONSOLEIO_read, counts[i], PTR(start_info) + 4000);
	}
}

TEST(shared_info_scribbled)
{
	event_bind_virq(VIRQ_TIMER);
	for (unsigned i = 0; i < 200; i++) {
		for (unsigned k = 0; k < 512; k++)
			((volatile uint64_t *)shared_info)[k] = random_number();
		hcall2(xen_version, 0, 0);
		event_send((uint32_t)(random_number() % 4096));
		hcall1(set_timer_op, random_number() >> random_number() % 64);
	}
	memset(shared_info, 0xff, 4096);
	hcall2(sched_op, SCHEDOP_yield, 0);
}

TEST(vcpu_info_becomes_a_table)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	struct vcpu_register_vcpu_info reg = { .mfn = va_to_mfn(page), .offset = 64 };

	event_bind_virq(VIRQ_TIMER);
	if (!hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)))
		vcpu_info_at = (struct vcpu_info *)(page + 64);
	mmuext(MMUEXT_PIN_L1_TABLE, va_to_mfn(page), 0);
	for (unsigned i = 0; i < 100; i++) {
		hcall1(set_timer_op, 1);
		hcall2(xen_version, 0, 0);
		((volatile uint64_t *)page)[8 + i % 8] = random_number();
	}
	update_va(PTR(page), 0, UVMF_INVLPG);
	for (unsigned i = 0; i < 100; i++)
		hcall1(set_timer_op, 1);
}

TEST(runstate_area_goes_away)
{
	static const uint64_t at[] = { TEST_VA, TEST_VA + 4090, 0xffff818000000000, 0x8000000000000000, ~7ul, 0xffff820000000ff8 };
	uint32_t port = event_bind_virq(VIRQ_TIMER);

	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		struct vcpu_register_runstate_memory_area area = { .addr.p = at[i] };
		struct vcpu_register_time_memory_area time = { .addr.p = at[i] };

		map_page(root_va(), TEST_VA, pte_make(va_to_mfn(page_alloc()), PTE_DATA));
		hcall3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, PTR(&area));
		hcall3(vcpu_op, VCPUOP_register_vcpu_time_memory_area, 0, PTR(&time));
		for (unsigned k = 0; k < 3; k++) {
			update_va(TEST_VA, k ? pte_make(va_to_mfn(image_start), k == 2 ? PTE_RO_DATA : PTE_DATA) : 0, UVMF_INVLPG);
			hcall1(set_timer_op, system_time() + 1000000);
			hcall2(sched_op, SCHEDOP_block, 0);
		}
	}
	event_close(port);
}

TEST(absurd_timers)
{
	static const uint64_t times[] = { 0, 1, ~0ul, 1ul << 63, 0x7fffffffffffffff, 1000000000 };

	event_bind_virq(VIRQ_TIMER);
	for (unsigned i = 0; i < ARRAY_SIZE(times); i++) {
		struct vcpu_set_periodic_timer p = { .period_ns = times[i] };
		struct vcpu_set_singleshot_timer s = { .timeout_abs_ns = times[i], .flags = (uint32_t)i };
		struct sched_poll poll = { .nr_ports = 0, .timeout = times[i] ? times[i] : 1 };

		hcall3(vcpu_op, VCPUOP_set_periodic_timer, 0, PTR(&p));
		hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&s));
		hcall1(set_timer_op, times[i]);
		hcall2(vcpu_op, VCPUOP_stop_periodic_timer, 0);
		if (i < 2)
			hcall2(sched_op, SCHEDOP_poll, PTR(&poll));
	}
}

TEST(long_multicall)
{
	static struct multicall_entry m[16];
	static struct mmuext_op op[64];

	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(op); i++)
			op[i].cmd = MMUEXT_TLB_FLUSH_ALL;
		for (unsigned i = 0; i < ARRAY_SIZE(m); i++)
			m[i] = (struct multicall_entry){ .op = __HYPERVISOR_mmuext_op,
							 .args = { PTR(op), ARRAY_SIZE(op), 0, DOMID_SELF } };
		/* one that writes its results over the calls to come */
		m[3] = (struct multicall_entry){ .op = __HYPERVISOR_xen_version, .args = { XENVER_extraversion, PTR(&m[5]) } };
		hcall2(multicall, PTR(m), ARRAY_SIZE(m));
	}
}

TEST(marks)
{
	uint32_t r[4];

	for (uint32_t i = 0; i < 20000; i++)
		forced_cpuid(0x4000ff00, i, r);
}
