/*
 * mmu_calls.c - the hypercalls that change page tables: effect, counts, refusals, multicalls.
 */
#include "lib/guest.h"

#define BAD_MFN	0xffffffffful

static uint64_t page_mfn(void **page)
{
	*page = page_alloc();
	return va_to_mfn(*page);
}

static uint64_t *test_pte(void)
{
	return pte_of(root_va(), TEST_VA, 1);
}

/* `size` bytes at the end of a mapped page, nothing behind it: for counts that lie. */
static void *before_a_hole(size_t size)
{
	if (map_page(root_va(), TEST_VA + 64 * PAGE, pte_make(va_to_mfn(page_alloc()), PTE_DATA)))
		test_fail("no page for the array");
	return (void *)(TEST_VA + 65 * PAGE - size);
}

TEST(mmu_update_normal)
{
	void *page;
	uint64_t pte = pte_make(page_mfn(&page), PTE_DATA);

	expect_eq(map_page(root_va(), TEST_VA, pte), 0);
	expect_eq((*test_pte() ^ pte) & (PTE_ADDR | PTE_P | PTE_W | PTE_NX | PTE_A | PTE_D), 0);
	*(volatile uint64_t *)TEST_VA = 0x1234;
	expect_eq(*(uint64_t *)page, 0x1234);
	expect_eq(mmu_update_one(mach(test_pte()), 0), 0);
	expect_eq(mmuext(MMUEXT_INVLPG_LOCAL, TEST_VA, 0), 0);
	expect_eq(probe_read(TEST_VA, NULL), 14);
	page_free(page);
}

TEST(mmu_update_preserve_ad)
{
	void *page;
	uint64_t mfn = page_mfn(&page), flags = PTE_DATA & ~(PTE_A | PTE_D);

	expect_eq(map_page(root_va(), TEST_VA, pte_make(mfn, PTE_DATA)), 0);
	expect_eq(mmu_update_one(mach(test_pte()) | MMU_PT_UPDATE_PRESERVE_AD, pte_make(mfn, flags)), 0);
	expect_eq(*test_pte() & (PTE_A | PTE_D), PTE_A | PTE_D);
	expect_eq(mmu_update_one(mach(test_pte()), pte_make(mfn, flags)), 0);
	expect_eq(*test_pte() & (PTE_A | PTE_D), 0);
	expect_eq(mmu_update_one(mach(test_pte()) | MMU_PT_UPDATE_PRESERVE_AD, pte_make(mfn, flags | PTE_D)), 0);
	expect_eq(*test_pte() & (PTE_A | PTE_D), PTE_D);
	expect_eq(update_va(TEST_VA, 0, UVMF_INVLPG), 0);
	page_free(page);
}

TEST(mmu_update_counts)
{
	static struct mmu_update u[4];
	struct mmu_update *huge;
	uint32_t done = 99;
	void *page;
	uint64_t mfn = page_mfn(&page), base = mach(test_pte());

	expect_eq(hcall4(mmu_update, PTR(u), 0, PTR(&done), DOMID_SELF), 0);
	expect_eq(done, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
		u[i] = (struct mmu_update){ base + i * 8, pte_make(mfn, PTE_RO_DATA) };
	expect_eq(hcall4(mmu_update, PTR(u), 4, PTR(&done), DOMID_SELF), 0);
	expect_eq(done, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++) {
		expect_eq(test_pte()[i] & PTE_P, PTE_P);
		u[i].val = 0;
	}
	/* the third is bad: two done, the fourth not looked at */
	u[2].ptr = BAD_MFN << 12;
	expect_eq(hcall4(mmu_update, PTR(u), 4, PTR(&done), DOMID_SELF), -XEN_EINVAL);
	expect_eq(done, 2);
	expect(!test_pte()[0] && !test_pte()[1] && test_pte()[3], "entries %lx %lx - %lx", test_pte()[0], test_pte()[1],
	       test_pte()[3]);
	expect_eq(hcall4(mmu_update, PTR(u), 2, 0, DOMID_SELF), 0);
	huge = before_a_hole(sizeof(*huge));
	*huge = u[0];
	expect_eq(hcall4(mmu_update, PTR(huge), 0x7fffffff, PTR(&done), DOMID_SELF), -XEN_EFAULT);
	for (unsigned i = 0; i < ARRAY_SIZE(u); i++)
		update_va(TEST_VA + i * PAGE, 0, UVMF_INVLPG);
	page_free(page);
}

TEST(mmu_update_refusals)
{
	uint64_t pte = pte_make(va_to_mfn(image_start), PTE_RO_DATA);
	struct mmu_update u = { mach(test_pte()), pte };

	expect_eq(mmu_update_one(BAD_MFN << 12, pte), -XEN_EINVAL);
	expect(hcall4(mmu_update, PTR(&u), 1, 0, 17) < 0, "accepted for domain 17");
	expect(hcall4(mmu_update, PTR(&u), 1, 0, 18u << 16 | DOMID_SELF) < 0, "accepted in tables of domain 17");
	expect_eq(*test_pte(), 0);
	if (start_info->flags & SIF_INITDOMAIN && !on_umbra())
		return;		/* may map devices */
	expect_eq(mmu_update_one(mach(test_pte()), pte_make(BAD_MFN, PTE_DATA)), -XEN_EINVAL);
	expect_eq(*test_pte(), 0);
	expect_eq(update_va(TEST_VA, pte_make(BAD_MFN, PTE_DATA), UVMF_INVLPG), -XEN_EINVAL);
	expect_eq(*test_pte(), 0);
}

TEST(upper_level_refusals)
{
	uint64_t *l2 = pte_of(root_va(), TEST_VA, 2) + 5, *l4 = pte_of(root_va(), TEST_VA, 4) + 5;

	expect_eq(mmu_update_one(mach(l2), pte_make(BAD_MFN, PTE_TABLE)), -XEN_EINVAL);
	expect_eq(*l2, 0);
	expect_eq(mmu_update_one(mach(l4), pte_make(BAD_MFN, PTE_TABLE)), -XEN_EINVAL);
	expect_eq(*l4, 0);
	/* the hypervisor's slots of a root */
	expect(mmu_update_one(mach(root_va() + 260), pte_make(va_to_mfn(image_start), PTE_TABLE)) < 0 ||
	       probe_read(0xffff820000000000, NULL) == 14, "a slot of the hole was taken");
}

/* Whatever a guest names that is not its own must not become readable. */
TEST(hypervisor_frames)
{
	uint64_t mfn = start_info->nr_pages + 1, seed = option_number("seed", 4);

	if (!on_umbra()) {
		test_skip("about umbra's frames behind RAM");
		return;
	}
	for (unsigned i = 0; i < 200 && !test_failed(); i++) {
		long r = update_va(TEST_VA, pte_make(mfn, PTE_DATA), UVMF_INVLPG);

		expect(r < 0 || probe_read(TEST_VA, NULL) == 14, "frame %lx can be read", mfn);
		expect(r < 0 || probe_write(TEST_VA, 1) == 14, "frame %lx can be written", mfn);
		update_va(TEST_VA, 0, UVMF_INVLPG);
		mfn = i < 80 ? mfn + 1 : start_info->nr_pages + 1 + random64(&seed) % 100000;
	}
}

TEST(machphys_update)
{
	struct mmu_update u = { va_to_mfn(image_start) << 12 | MMU_MACHPHYS_UPDATE,
				(PTR(image_start) - PTR(virt_base)) >> 12 };

	expect_eq(hcall4(mmu_update, PTR(&u), 1, 0, DOMID_SELF), 0);
	u.ptr = BAD_MFN << 12 | MMU_MACHPHYS_UPDATE;
	expect_eq(hcall4(mmu_update, PTR(&u), 1, 0, DOMID_SELF), -XEN_EINVAL);
}

TEST(update_va_mapping_flags)
{
	static const uint64_t flags[] = { UVMF_TLB_FLUSH | UVMF_LOCAL, UVMF_TLB_FLUSH | UVMF_ALL, UVMF_INVLPG | UVMF_LOCAL,
					  UVMF_INVLPG | UVMF_ALL };
	static uint64_t cpus __attribute__((aligned(8))) = 1;
	void *a, *b;
	uint64_t mfn[2] = { page_mfn(&a), page_mfn(&b) };
	unsigned n = 0;

	*(uint64_t *)a = 0xa;
	*(uint64_t *)b = 0xb;
	expect_eq(map_page(root_va(), TEST_VA, pte_make(mfn[0], PTE_DATA)), 0);
	for (unsigned i = 0; i < 6 * ARRAY_SIZE(flags); i++) {
		uint64_t f = flags[i % ARRAY_SIZE(flags)];

		if (i % 3 == 2)		/* a bitmap of vCPUs */
			f = (f & UVMF_FLUSHTYPE_MASK) | UVMF_MULTI | PTR(&cpus);
		n ^= 1;
		expect_eq(update_va(TEST_VA, pte_make(mfn[n], PTE_DATA), f), 0);
		expect_eq(*(volatile uint64_t *)TEST_VA, n ? 0xb : 0xa);
	}
	/* no flush: the new mapping is there at the latest after one */
	expect_eq(update_va(TEST_VA, pte_make(mfn[n ^ 1], PTE_DATA), UVMF_NONE), 0);
	expect_eq(mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0), 0);
	expect_eq(*(volatile uint64_t *)TEST_VA, n ? 0xa : 0xb);
	expect_eq(update_va(TEST_VA, 0, UVMF_INVLPG), 0);
	page_free(a);
	page_free(b);
}

TEST(update_va_mapping_refusals)
{
	expect_eq(update_va(TEST_VA + (1ul << 39) * 7, 0, UVMF_INVLPG), -XEN_EINVAL);	/* no table there */
	expect(update_va(0xffff820000000000, 0, UVMF_INVLPG) < 0, "the hole");
	expect(update_va(0x8000000000000000, 0, UVMF_INVLPG) < 0, "not canonical");
}

TEST(flush_operations)
{
	static uint64_t cpus = 1;
	static const unsigned cmds[] = { MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_INVLPG_LOCAL, MMUEXT_TLB_FLUSH_ALL, MMUEXT_INVLPG_ALL,
					 MMUEXT_TLB_FLUSH_MULTI, MMUEXT_INVLPG_MULTI };
	void *a, *b;
	uint64_t mfn[2] = { page_mfn(&a), page_mfn(&b) };

	*(uint64_t *)a = 0xa;
	*(uint64_t *)b = 0xb;
	expect_eq(map_page(root_va(), TEST_VA, pte_make(mfn[0], PTE_DATA)), 0);
	for (unsigned i = 0; i < 3 * ARRAY_SIZE(cmds); i++) {
		unsigned cmd = cmds[i % ARRAY_SIZE(cmds)];
		bool multi = cmd == MMUEXT_TLB_FLUSH_MULTI || cmd == MMUEXT_INVLPG_MULTI;

		expect_eq(*(volatile uint64_t *)TEST_VA, i & 1 ? 0xb : 0xa);
		expect_eq(mmu_update_one(mach(test_pte()), pte_make(mfn[~i & 1], PTE_DATA)), 0);
		expect_eq(mmuext(cmd, TEST_VA, multi ? PTR(&cpus) : 0), 0);
	}
	expect_eq(*(volatile uint64_t *)TEST_VA, 0xa);
	expect_eq(mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, TEST_VA + PAGE), -XEN_EINVAL);
	update_va(TEST_VA, 0, UVMF_INVLPG);
	page_free(a);
	page_free(b);
}

TEST(mmuext_counts)
{
	static struct mmuext_op ops[3];
	struct mmuext_op *huge = before_a_hole(sizeof(*huge));
	uint32_t done = 99;

	for (unsigned i = 0; i < 3; i++)
		ops[i].cmd = MMUEXT_TLB_FLUSH_LOCAL;
	expect_eq(hcall4(mmuext_op, PTR(ops), 3, PTR(&done), DOMID_SELF), 0);
	expect_eq(done, 3);
	expect_eq(hcall4(mmuext_op, PTR(ops), 0, PTR(&done), DOMID_SELF), 0);
	ops[1].cmd = 99;
	expect_eq(hcall4(mmuext_op, PTR(ops), 3, PTR(&done), DOMID_SELF), -XEN_ENOSYS);
	expect_eq(done, 1);
	*huge = ops[0];
	expect_eq(hcall4(mmuext_op, PTR(huge), 0x7fffffff, 0, DOMID_SELF), -XEN_EFAULT);
	expect_eq(mmuext(MMUEXT_PIN_L1_TABLE, BAD_MFN, 0), -XEN_EINVAL);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, BAD_MFN, 0), -XEN_EINVAL);
	expect_eq(mmuext(MMUEXT_NEW_BASEPTR, BAD_MFN, 0), -XEN_EINVAL);
	expect_eq(mmuext(MMUEXT_NEW_USER_BASEPTR, BAD_MFN, 0), -XEN_EINVAL);
}

TEST(clear_and_copy_page)
{
	uint64_t *a = page_alloc(), *b = page_alloc();

	for (unsigned i = 0; i < 512; i++)
		a[i] = i * 0x9e3779b97f4a7c15;
	expect_eq(mmuext(MMUEXT_COPY_PAGE, va_to_mfn(b), va_to_mfn(a)), 0);
	expect(!memcmp(a, b, 4096), "the copy differs");
	expect_eq(mmuext(MMUEXT_CLEAR_PAGE, va_to_mfn(a), 0), 0);
	expect(!a[0] && !a[511] && b[1] == 0x9e3779b97f4a7c15, "cleared: %lx %lx, the other one: %lx", a[0], a[511], b[1]);
	expect(mmuext(MMUEXT_COPY_PAGE, va_to_mfn(b), BAD_MFN) < 0, "copy from a frame that is not ours");
	expect(mmuext(MMUEXT_CLEAR_PAGE, BAD_MFN, 0) < 0, "cleared a frame that is not ours");
	page_free(a);
	page_free(b);
}

TEST(multicall)
{
	static struct multicall_entry m[5];
	struct multicall_entry *huge = before_a_hole(sizeof(*huge));
	void *page;
	uint64_t mfn = page_mfn(&page);
	static struct mmuext_op flush = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };

	*(uint64_t *)page = 0x3c;
	m[0] = (struct multicall_entry){ .op = __HYPERVISOR_update_va_mapping,
					 .args = { TEST_VA, pte_make(mfn, PTE_DATA), UVMF_INVLPG } };
	m[1] = (struct multicall_entry){ .op = 63, .args = { 1 } };
	m[2] = (struct multicall_entry){ .op = __HYPERVISOR_mmuext_op, .args = { PTR(&flush), 1, 0, DOMID_SELF } };
	m[3] = (struct multicall_entry){ .op = __HYPERVISOR_xen_version, .args = { XENVER_pagesize } };
	m[4] = (struct multicall_entry){ .op = __HYPERVISOR_multicall, .args = { PTR(m), 1 } };
	expect_eq(hcall2(multicall, PTR(m), 5), 0);
	expect_eq(m[0].result, 0);
	expect_eq(m[1].result, -XEN_ENOSYS);
	expect_eq(m[2].result, 0);
	expect_eq(m[3].result, 4096);
	expect_eq(m[4].result, -XEN_EINVAL);		/* no nesting */
	expect_eq(*(volatile uint64_t *)TEST_VA, 0x3c);
	expect_eq(hcall2(multicall, PTR(m), 0), 0);
	*huge = m[3];
	expect_eq(hcall2(multicall, PTR(huge), 0x7fffffff), -XEN_EFAULT);
	update_va(TEST_VA, 0, UVMF_INVLPG);
	page_free(page);
}
