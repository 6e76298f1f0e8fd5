/*
 * mmu_tables.c - tables that come, go, are shared, switched and reused; then all of it at random against a model.
 */
#include "lib/guest.h"

#define VA	(TEST_VA + (3ul << 39))

static uint64_t mfn_of_new_page(uint64_t first_word)
{
	uint64_t *page = page_alloc();

	page[0] = first_word;
	return va_to_mfn(page);
}

static long flush(void)
{
	return mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

/* Unlinks the entry for `va` at `level`, flushes, gives the table below back as data. */
static void drop_table(uint64_t *root, uint64_t va, unsigned level)
{
	uint64_t *entry = pte_of(root, va, level), *table = mfn_to_va((*entry & PTE_ADDR) >> 12);

	expect_eq(mmu_update_one(mach(entry), 0), 0);
	expect_eq(flush(), 0);
	table_free(table);
}

TEST(many_tables)
{
	enum { N = 120 };
	uint64_t *shared = page_alloc(), mfn = va_to_mfn(shared);

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < N; i++)
			expect_eq(map_page(root_va(), VA + i * 0x200000 + i * PAGE, pte_make(mfn, PTE_DATA)), 0);
		for (unsigned i = 0; i < N; i++)
			((volatile uint64_t *)(VA + i * 0x200000 + i * PAGE))[i] = round * 1000 + i;
		for (unsigned i = 0; i < N; i++)
			expect_eq(shared[i], round * 1000 + i);
		for (unsigned i = 0; i < N; i++)
			drop_table(root_va(), VA + i * 0x200000, 2);
		for (unsigned i = 0; i < N; i += 7)
			expect_eq(probe_read(VA + i * 0x200000 + i * PAGE, NULL), 14);
	}
	page_free(shared);
}

/* A frame that was a table becomes data again: it has to keep what is written to it, and no more act as a table. */
TEST(tables_reused_as_data)
{
	enum { N = 24 };
	uint64_t *pages[N], mfn = mfn_of_new_page(0x1eaf);

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < N; i++) {
			expect_eq(map_page(root_va(), VA + i * 0x200000, pte_make(mfn, PTE_DATA)), 0);
			expect_eq(*(volatile uint64_t *)(VA + i * 0x200000), 0x1eaf);
		}
		for (unsigned i = 0; i < N; i++)
			drop_table(root_va(), VA + i * 0x200000, 2);
		for (unsigned i = 0; i < N; i++) {
			pages[i] = page_alloc();
			for (unsigned k = 0; k < 512; k++)
				pages[i][k] = pte_make(mfn, PTE_DATA) + k;
		}
		for (unsigned i = 0; i < N; i++) {
			for (unsigned k = 0; k < 512; k += 37)
				expect_eq(pages[i][k], pte_make(mfn, PTE_DATA) + k);
			expect_eq(probe_read(VA + i * 0x200000, NULL), 14);
			page_free(pages[i]);
		}
	}
}

TEST(pinned_tables)
{
	uint64_t *l1 = table_alloc(), mfn = mfn_of_new_page(0x914);

	expect_eq(mmu_update_one(mach(l1), pte_make(mfn, PTE_DATA)), 0);
	expect_eq(mmuext(MMUEXT_PIN_L1_TABLE, va_to_mfn(l1), 0), 0);
	/* pinned, linked nowhere: direct stores have to work already */
	expect_eq(probe_write(PTR(l1 + 1), pte_make(mfn, PTE_DATA)), -1);
	expect_eq(l1[1] & PTE_ADDR, mfn << 12);
	expect_eq(map_page(root_va(), VA, 0), 0);
	expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 2) + 1), pte_make(va_to_mfn(l1), PTE_TABLE)), 0);
	expect_eq(*(volatile uint64_t *)(VA + 0x200000), 0x914);
	expect_eq(*(volatile uint64_t *)(VA + 0x201000), 0x914);
	expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 2) + 1), 0), 0);
	expect_eq(flush(), 0);
	expect_eq(probe_read(VA + 0x200000, NULL), 14);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(l1), 0), 0);
	table_free(l1);
	for (unsigned i = 0; i < 512; i++)
		l1[i] = i;
	for (unsigned i = 0; i < 512; i++)
		expect_eq(l1[i], i);
}

TEST(tables_swapped_under_an_entry)
{
	uint64_t *l1[2], *l2;

	expect_eq(map_page(root_va(), VA, 0), 0);
	for (unsigned i = 0; i < 2; i++) {
		l1[i] = table_alloc();
		expect_eq(mmu_update_one(mach(l1[i] + 9), pte_make(mfn_of_new_page(0x100 + i), PTE_DATA)), 0);
	}
	l2 = pte_of(root_va(), VA, 2) + 2;
	for (unsigned i = 0; i < 100 && !test_failed(); i++) {
		expect_eq(mmu_update_one(mach(l2), pte_make(va_to_mfn(l1[i & 1]), PTE_TABLE)), 0);
		expect_eq(flush(), 0);
		expect_eq(*(volatile uint64_t *)(VA + 0x409000), 0x100 + (i & 1));
	}
	expect_eq(mmu_update_one(mach(l2), 0), 0);
	expect_eq(flush(), 0);
	expect_eq(probe_read(VA + 0x409000, NULL), 14);
}

TEST(root_entry_added_and_removed)
{
	uint64_t va = VA + (9ul << 39), mfn = mfn_of_new_page(0x40), *entry = pte_of(root_va(), va, 4), old;

	expect_eq(map_page(root_va(), va, pte_make(mfn, PTE_DATA)), 0);
	expect_eq(*(volatile uint64_t *)va, 0x40);
	old = *entry;
	for (unsigned i = 0; i < 10; i++) {
		expect_eq(mmu_update_one(mach(entry), 0), 0);
		expect_eq(flush(), 0);
		expect_eq(probe_read(va, NULL), 14);
		expect_eq(mmu_update_one(mach(entry), old), 0);
		expect_eq(*(volatile uint64_t *)va, 0x40);
	}
	expect_eq(mmu_update_one(mach(entry), 0), 0);
	expect_eq(flush(), 0);
}

/* Two roots that share every L3 but one, as processes share the kernel's half. */
TEST(roots_switch)
{
	uint64_t shared_va = VA + (1ul << 30), own_va = VA + (11ul << 39);
	uint64_t *first = root_va(), *second;
	uint64_t mfn[2] = { mfn_of_new_page(0xa0), mfn_of_new_page(0xa1) };

	expect_eq(map_page(first, shared_va, pte_make(mfn[0], PTE_DATA)), 0);
	second = root_clone();
	expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(second), 0), 0);
	expect_eq(map_page(first, own_va, pte_make(mfn[0], PTE_DATA)), 0);
	expect_eq(map_page(second, own_va, pte_make(mfn[1], PTE_DATA)), 0);
	for (unsigned i = 0; i < 60 && !test_failed(); i++) {
		bool in_second = i & 1;

		expect_eq(mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(in_second ? second : first), 0), 0);
		expect_eq(*(volatile uint64_t *)own_va, 0xa0 + in_second);
		/* changed in one root, seen in the other after its load */
		expect_eq(*(volatile uint64_t *)shared_va, 0xa0 + (i / 3 & 1));
		if (i % 3 == 2)
			expect_eq(mmu_update_one(mach(pte_of(first, shared_va, 1)),
						 pte_make(mfn[(i / 3 + 1) & 1], PTE_DATA)), 0);
	}
	expect_eq(mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(first), 0), 0);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(second), 0), 0);
	table_free(second);
	for (unsigned i = 0; i < 512; i++)
		second[i] = ~0ul;
	expect_eq(*(volatile uint64_t *)own_va, 0xa0);
}

TEST(recursive_root)
{
	uint64_t slot = 300, mfn = va_to_mfn(root_va()), *entry = root_va() + slot, va = VA + 0x7000, data = mfn_of_new_page(0x7e);
	uint64_t base = 0xffff000000000000 | slot << 39;
	volatile uint64_t *window = (volatile uint64_t *)(base + ((va & 0xffffffffffff) >> 12 << 3));

	expect_eq(map_page(root_va(), va, pte_make(data, PTE_DATA)), 0);
	expect_eq(mmu_update_one(mach(entry), pte_make(mfn, PTE_RO_DATA)), 0);
	expect_eq(*window, *pte_of(root_va(), va, 1));
	expect_eq(map_page(root_va(), va, 0), 0);
	expect_eq(flush(), 0);
	expect_eq(*window, 0);
	expect_eq(map_page(root_va(), va, pte_make(data, PTE_DATA)), 0);
	expect_eq(*window, *pte_of(root_va(), va, 1));
	expect_eq(*(volatile uint64_t *)va, 0x7e);
	/* the root seen through itself */
	expect_eq(((volatile uint64_t *)(base | slot << 30 | slot << 21 | slot << 12))[slot] & PTE_ADDR, mfn << 12);
	expect_eq(probe_write(base | slot << 30 | slot << 21 | slot << 12, 0), 14);
	expect_eq(mmu_update_one(mach(entry), 0), 0);
	expect_eq(flush(), 0);
	expect_eq(probe_read(base, NULL), 14);
}

TEST(shared_info_twice)
{
	struct shared_info *alias = (struct shared_info *)(VA + 0x30000);

	expect_eq(map_page(root_va(), PTR(alias), start_info->shared_info | PTE_DATA), 0);
	shared_info->arch.max_pfn = 0x1234;
	expect_eq(alias->arch.max_pfn, 0x1234);
	expect_eq(alias->wc_sec, shared_info->wc_sec);
	expect_eq(map_page(root_va(), PTR(alias), 0), 0);
	expect_eq(flush(), 0);
}

TEST(large_page)
{
	const uint64_t *list = (const uint64_t *)start_info->mfn_list;
	uint64_t va = VA + (5ul << 30), pfn = (start_info->nr_pages - 1024) & ~511ul, *entry;
	long r;

	expect_eq(map_page(root_va(), va + 0x200000, 0), 0);
	entry = pte_of(root_va(), va, 2);
	r = mmu_update_one(mach(entry), pte_make(list[pfn], PTE_DATA | PTE_PS));
	if (r) {
		expect_eq(r, -XEN_EINVAL);
		expect_eq(*entry, 0);
		test_skip("refused, as by Xen");
		return;
	}
	for (unsigned i = 0; i < 512; i += 5)
		((volatile uint64_t *)(va + i * PAGE))[i] = 0xb16 + i;
	for (unsigned i = 0; i < 512; i += 5) {
		expect_eq(map_page(root_va(), va + 0x200000, pte_make(list[pfn + i], PTE_DATA)), 0);
		mmuext(MMUEXT_INVLPG_LOCAL, va + 0x200000, 0);
		expect_eq(((volatile uint64_t *)(va + 0x200000))[i], 0xb16 + i);
	}
	expect_eq(mmu_update_one(mach(entry), pte_make(list[pfn], (PTE_RO_DATA & ~PTE_D) | PTE_PS)), 0);
	expect_eq(flush(), 0);
	expect_eq(probe_write(va + 0x5000, 1), 14);
	expect_eq(seen.error, PF_P | PF_W);
	expect_eq(mmu_update_one(mach(entry), 0), 0);
	expect_eq(flush(), 0);
	expect_eq(probe_read(va + 0x5000, NULL), 14);
}

/* ---- everything at random, against a model ---------------------------------------------------------------------------- */

enum { PAGES = 48, FRAMES = 12 };

static struct {
	int frame;		/* -1: not mapped */
	bool writable;
} model[PAGES];
static uint64_t content[FRAMES], frame_mfn[FRAMES];

static uint64_t page_va(unsigned i)
{
	return VA + (6ul << 30) + i % 16 * PAGE + i / 16 * 0x200000;
}

static void check_page(unsigned i, uint64_t value, bool write)
{
	uint64_t va = page_va(i), got;

	if (write) {
		int v = probe_write(va + 8, value);

		if (model[i].frame >= 0 && model[i].writable) {
			expect(v == -1, "page %u: a write faults, error %lx", i, seen.error);
			content[model[i].frame] = value;
		} else {
			expect(v == 14 && seen.error == (PF_W | (model[i].frame >= 0 ? PF_P : 0)),
			       "page %u: a write gives trap %d, error %lx", i, v, seen.error);
		}
	} else {
		int v = probe_read(va + 8, &got);

		if (model[i].frame >= 0)
			expect(v == -1 && got == content[model[i].frame], "page %u: trap %d, %lx instead of %lx", i, v, got,
			       content[model[i].frame]);
		else
			expect(v == 14 && !seen.error, "page %u: trap %d, error %lx", i, v, seen.error);
	}
}

static void change_page(unsigned i, int to, bool writable, unsigned how)
{
	uint64_t va = page_va(i), pte = to < 0 ? 0 : pte_make(frame_mfn[to], writable ? PTE_DATA : PTE_RO_DATA);

	switch (how) {
	case 0:
		expect_eq(mmu_update_one(mach(pte_of(root_va(), va, 1)), pte), 0);
		break;
	case 1:
		expect_eq(update_va(va, pte, UVMF_NONE), 0);
		break;
	case 2:
		expect_eq(probe_write(PTR(pte_of(root_va(), va, 1)), pte), -1);
		break;
	}
	model[i].frame = to;
	model[i].writable = writable;
}

TEST(random_against_a_model)
{
	uint64_t seed = option_number("seed", 1) | 1, steps = option_number("steps", 1500);
	uint64_t *roots[2] = { root_va(), NULL };
	unsigned root = 0;

	for (unsigned i = 0; i < FRAMES; i++) {
		frame_mfn[i] = mfn_of_new_page(0);
		content[i] = 0;
	}
	for (unsigned i = 0; i < PAGES; i++) {
		expect_eq(map_page(root_va(), page_va(i), 0), 0);
		model[i].frame = -1;
	}
	flush();
	roots[1] = root_clone();
	expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(roots[1]), 0), 0);
	for (uint64_t step = 0; step < steps && !test_failed(); step++) {
		uint64_t r = random64(&seed);
		unsigned i = r >> 8 & 0xff, n = (r >> 16) % 4 + 1, how = (r >> 24) % 3;

		i %= PAGES;
		switch (r % 8) {
		case 0:
		case 1:			/* a change, flushed alone */
			change_page(i, (int)((r >> 32) % (FRAMES + 2)) - 2 < 0 ? -1 : (int)((r >> 32) % FRAMES), r >> 40 & 1, how);
			mmuext(MMUEXT_INVLPG_LOCAL, page_va(i), 0);
			break;
		case 2:			/* several, one flush */
			for (; n; n--, i = (i + 7) % PAGES)
				change_page(i, (int)(random64(&seed) % (FRAMES + 1)) - 1, r >> 40 & 1, how);
			flush();
			break;
		case 3:			/* the other root: a flush, too */
			root ^= 1;
			expect_eq(mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(roots[root]), 0), 0);
			break;
		default:
			for (; n; n--, i = (i + 5) % PAGES)
				check_page(i, r + n, r >> 41 & 1);
		}
		if (test_failed())
			say("step %lu of seed %lu", step, option_number("seed", 1));
	}
	mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(roots[0]), 0);
	for (unsigned i = 0; i < PAGES; i++)
		check_page(i, 0, false);
	mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(roots[1]), 0);
}
