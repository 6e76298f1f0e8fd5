/*
 * mmu_access.c - what accesses see while leaf entries change: A and D, permissions, remapping, direct stores, COW.
 */
#include "lib/guest.h"

#define VA	(TEST_VA + 0x40000000)

static uint64_t *frame[2], mfn[2];

/* Two frames with known first words, and a leaf table for VA. */
static uint64_t *prepare(void)
{
	for (unsigned i = 0; i < 2; i++) {
		if (!frame[i])
			frame[i] = page_alloc();
		mfn[i] = va_to_mfn(frame[i]);
		frame[i][0] = 0xf0 + i;
		frame[i][1] = 0xc3;
	}
	expect_eq(map_page(root_va(), VA, pte_make(mfn[0], PTE_DATA)), 0);
	expect_eq(mmuext(MMUEXT_INVLPG_LOCAL, VA, 0), 0);
	return pte_of(root_va(), VA, 1);
}

TEST(accessed_and_dirty)
{
	volatile uint64_t *pte = prepare();
	uint64_t clean = PTE_DATA & ~(PTE_A | PTE_D);

	for (unsigned round = 0; round < 4; round++) {
		expect_eq(update_va(VA, pte_make(mfn[0], clean), UVMF_INVLPG), 0);
		expect_eq(*pte & (PTE_A | PTE_D), 0);
		expect_eq(probe_read(VA, NULL), -1);
		expect_eq(*pte & (PTE_A | PTE_D), PTE_A);
		expect_eq(probe_write(VA + 64, round), -1);
		expect_eq(*pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	}
	expect_eq(update_va(VA, pte_make(mfn[0], clean), UVMF_INVLPG), 0);
	expect_eq(probe_write(VA + 64, 1), -1);
	expect_eq(*pte & (PTE_A | PTE_D), PTE_A | PTE_D);
	/* a fault sets nothing */
	expect_eq(update_va(VA, pte_make(mfn[0], clean & ~PTE_W), UVMF_INVLPG), 0);
	expect_eq(probe_write(VA, 1), 14);
	expect_eq(*pte & PTE_D, 0);
}

TEST(dirty_is_set_by_every_kind_of_write)
{
	volatile uint64_t *pte = prepare();
	uint64_t clean = pte_make(mfn[0], PTE_DATA & ~PTE_D), rdi, rcx;

	expect_eq(update_va(VA, clean, UVMF_INVLPG), 0);
	probe("lock incq (%0)", :: "r"(VA + 128) : "memory");
	expect_eq(*pte & PTE_D, PTE_D);
	expect_eq(update_va(VA, clean, UVMF_INVLPG), 0);
	rdi = VA + 256;
	rcx = 8;
	probe("rep stosb", : "+D"(rdi), "+c"(rcx) : "a"(0) : "memory");
	expect_eq(*pte & PTE_D, PTE_D);
	/* the hypervisor's own writes */
	expect_eq(update_va(VA, clean, UVMF_INVLPG), 0);
	expect_eq(hcall2(xen_version, XENVER_extraversion, VA + 512), 0);
	expect(*(char *)(VA + 512), "nothing was written");
}

TEST(upper_entries_are_accessed)
{
	prepare();
	for (unsigned level = 2; level <= 3; level++) {
		volatile uint64_t *pte = pte_of(root_va(), VA, level);

		expect_eq(mmu_update_one(mach((void *)pte), *pte & ~(PTE_A | PTE_D)), 0);
		expect_eq(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), 0);
		expect_eq(probe_read(VA, NULL), -1);
		expect(*pte & PTE_A, "level %u entry %lx has no A after a read", level, (uint64_t)*pte);
	}
}

TEST(permission_changes)
{
	prepare();
	for (unsigned i = 0; i < 50 && !test_failed(); i++) {
		expect_eq(probe_write(VA, 0xf0), -1);
		expect_eq(update_va(VA, pte_make(mfn[0], PTE_RO_DATA), UVMF_INVLPG), 0);
		expect_eq(probe_write(VA, 1), 14);
		expect_eq(seen.error, PF_P | PF_W);
		expect_eq(probe_read(VA, NULL), -1);
		expect_eq(probe_fetch(VA + 8), 14);
		expect_eq(seen.error, PF_P | PF_I);
		expect_eq(update_va(VA, pte_make(mfn[0], PTE_RO_DATA & ~PTE_NX), UVMF_INVLPG), 0);
		expect_eq(probe_fetch(VA + 8), -1);
		expect_eq(update_va(VA, 0, UVMF_INVLPG), 0);
		expect_eq(probe_read(VA, NULL), 14);
		expect_eq(seen.error, 0);
		expect_eq(update_va(VA, pte_make(mfn[0], PTE_DATA), UVMF_INVLPG), 0);
	}
}

TEST(upper_permissions_limit)
{
	uint64_t *l2;

	prepare();
	l2 = pte_of(root_va(), VA, 2);
	expect_eq(mmu_update_one(mach(l2), *l2 & ~PTE_W), 0);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
	expect_eq(probe_write(VA, 1), 14);
	expect_eq(seen.error, PF_P | PF_W);
	expect_eq(probe_read(VA, NULL), -1);
	expect_eq(mmu_update_one(mach(l2), (*l2 | PTE_W) | PTE_NX), 0);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
	update_va(VA, pte_make(mfn[0], PTE_DATA & ~PTE_NX), UVMF_INVLPG);
	expect_eq(probe_write(VA, 0xf0), -1);
	expect_eq(probe_fetch(VA + 8), 14);
	expect_eq(mmu_update_one(mach(l2), *l2 & ~PTE_NX), 0);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
	expect_eq(probe_fetch(VA + 8), -1);
}

/* Present A -> present B, the change a processor's stale entry hides best. */
TEST(remap_with_invlpg)
{
	prepare();
	for (unsigned i = 1; i < 500 && !test_failed(); i++) {
		expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 1)), pte_make(mfn[i & 1], PTE_DATA)), 0);
		expect_eq(mmuext(MMUEXT_INVLPG_LOCAL, VA, 0), 0);
		expect_eq(*(volatile uint64_t *)VA, 0xf0 + (i & 1));
	}
}

TEST(remap_256_pages_with_one_flush)
{
	static struct mmu_update u[256];
	uint64_t *first;

	prepare();
	for (unsigned i = 0; i < 256; i++)
		expect_eq(map_page(root_va(), VA + i * PAGE, pte_make(mfn[i & 1], PTE_DATA)), 0);
	first = pte_of(root_va(), VA, 1);
	for (unsigned round = 0; round < 6; round++) {
		for (unsigned i = 0; i < 256; i++)
			expect_eq(*(volatile uint64_t *)(VA + i * PAGE), 0xf0 + ((i + round) & 1));
		for (unsigned i = 0; i < 256; i++)
			u[i] = (struct mmu_update){ mach(first + i), pte_make(mfn[(i + round + 1) & 1], PTE_DATA) };
		expect_eq(hcall4(mmu_update, PTR(u), 256, 0, DOMID_SELF), 0);
		expect_eq(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), 0);
	}
	for (unsigned i = 0; i < 256; i++)
		u[i].val = 0;
	expect_eq(hcall4(mmu_update, PTR(u), 256, 0, DOMID_SELF), 0);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
	for (unsigned i = 0; i < 256; i += 17)
		expect_eq(probe_read(VA + i * PAGE, NULL), 14);
}

TEST(direct_store_to_a_leaf_table)
{
	volatile uint64_t *pte = prepare();

	for (unsigned i = 1; i < 20 && !test_failed(); i++) {
		uint64_t want = pte_make(mfn[i & 1], PTE_DATA), swap = want;

		switch (i % 4) {
		case 0:
			probe("movq %1, (%0)", :: "r"(pte), "r"(want) : "memory");
			break;
		case 1:
			probe("xchgq %0, (%1)", : "+r"(swap) : "r"(pte) : "memory");
			break;
		case 2:
			probe("lock cmpxchgq %1, (%0)", :: "r"(pte), "r"(want), "a"(*pte) : "memory", "cc");
			break;
		case 3:
			probe("movq %1, (%0)", :: "r"(pte), "r"(0ul) : "memory");
			expect_eq(seen.vector, -1);
			mmuext(MMUEXT_INVLPG_LOCAL, VA, 0);
			expect_eq(probe_read(VA, NULL), 14);
			probe("movq %1, (%0)", :: "r"(pte), "r"(want) : "memory");
			break;
		}
		expect_eq(seen.vector, -1);
		expect_eq((*pte ^ want) & PTE_ADDR, 0);
		mmuext(i & 4 ? MMUEXT_INVLPG_LOCAL : MMUEXT_TLB_FLUSH_LOCAL, VA, 0);
		expect_eq(*(volatile uint64_t *)VA, 0xf0 + (i & 1));
	}
}

/* As Linux does in fork: write-protect by locked bit clears, then one flush. */
TEST(write_protect_by_direct_stores)
{
	uint64_t *pte = prepare();

	for (unsigned i = 0; i < 64; i++)
		expect_eq(map_page(root_va(), VA + i * PAGE, pte_make(mfn[0], PTE_DATA)), 0);
	for (unsigned i = 0; i < 64; i++)
		expect_eq(probe_write(VA + i * PAGE + 64, i), -1);
	for (unsigned i = 0; i < 64; i++)
		probe("lock btrq $1, (%0)", :: "r"(pte + i) : "memory", "cc");
	expect_eq(seen.vector, -1);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
	for (unsigned i = 0; i < 64; i++) {
		expect_eq(probe_write(VA + i * PAGE + 64, 1), 14);
		expect_eq(seen.error, PF_P | PF_W);
		expect(pte[i] & PTE_D && pte[i] & PTE_A, "entry %u lost A or D: %lx", i, pte[i]);
	}
}

TEST(direct_store_of_a_bad_frame)
{
	uint64_t *pte = prepare();

	if (!on_umbra()) {
		test_skip("about umbra's frames behind RAM");
		return;
	}
	for (uint64_t bad = start_info->nr_pages + 1; bad < start_info->nr_pages + 40; bad++) {
		probe("movq %1, (%0)", :: "r"(pte), "r"(pte_make(bad, PTE_DATA)) : "memory");
		if (seen.vector == 14)
			continue;	/* refused, as Xen does */
		mmuext(MMUEXT_INVLPG_LOCAL, VA, 0);
		expect_eq(probe_read(VA, NULL), 14);
		expect_eq(probe_write(VA, 1), 14);
	}
	expect_eq(mmu_update_one(mach(pte), 0), 0);
}

TEST(direct_store_to_upper_tables)
{
	prepare();
	for (unsigned level = 2; level <= 4; level++) {
		uint64_t *pte = pte_of(root_va(), VA, level), old = *pte;

		expect_eq(probe_write(PTR(pte), old), 14);
		expect_eq(seen.error, PF_P | PF_W);
		expect_eq(*pte, old);
	}
}

static unsigned cow_faults;
static bool cow(struct regs *r)
{
	uint64_t va = this_vcpu()->arch.cr2 & ~4095ul;

	if (va < VA || va >= VA + 16 * PAGE || (r->error & (PF_P | PF_W)) != (PF_P | PF_W))
		return false;
	cow_faults++;
	memcpy(frame[1], (void *)va, 4096);
	update_va(va, pte_make(mfn[1], PTE_DATA), UVMF_INVLPG);
	return true;
}

TEST(copy_on_write)
{
	prepare();
	trap_hook(14, cow);
	for (unsigned i = 0; i < 50 && !test_failed(); i++) {
		cow_faults = 0;
		frame[0][3] = i;
		frame[1][3] = 0;
		/* parent at VA, child at VA + 1 page, one frame, both read-only */
		expect_eq(map_page(root_va(), VA, pte_make(mfn[0], PTE_RO_DATA)), 0);
		expect_eq(map_page(root_va(), VA + PAGE, pte_make(mfn[0], PTE_RO_DATA)), 0);
		mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
		expect_eq(((volatile uint64_t *)VA)[3], i);
		((volatile uint64_t *)(VA + PAGE))[3] = i + 1000;
		expect_eq(cow_faults, 1);
		expect_eq(((volatile uint64_t *)VA)[3], i);
		expect_eq(((volatile uint64_t *)(VA + PAGE))[3], i + 1000);
		((volatile uint64_t *)(VA + PAGE))[4] = i;
		expect_eq(cow_faults, 1);
	}
	trap_hook(14, NULL);
}

/* One frame under several addresses: every alias sees every write. */
TEST(aliases)
{
	prepare();
	for (unsigned i = 0; i < 8; i++)
		expect_eq(map_page(root_va(), VA + i * 0x201000, pte_make(mfn[0], PTE_DATA)), 0);
	for (unsigned i = 0; i < 8; i++) {
		*(volatile uint64_t *)(VA + i * 0x201000 + 72) = i;
		for (unsigned k = 0; k < 8; k++)
			expect_eq(*(volatile uint64_t *)(VA + k * 0x201000 + 72), i);
	}
	for (unsigned i = 0; i < 8; i++)
		map_page(root_va(), VA + i * 0x201000, 0);
	mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}
