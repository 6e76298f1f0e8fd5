/*
 * The contract of mmu.h, sentence by sentence where random programs would not tell why: configuration errors, what a
 * pin does, who shares shadows with whom, which entries prefetch and eager fill install, large pages, moves, dirty
 * logging, kicks, counters, and that the audit can complain.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "mmu_rig.h"

/* ---- configuration ---------------------------------------------------------------------------------------------- */

static void test_config(void **state)
{
	static uint8_t mem[(64 + MMU_POOL_MIN) * MMU_PAGE_SIZE] __attribute__((aligned(4096)));
	static const uint64_t views[2] = { 1, 3 };
	struct mmu_region regions[2] = { { { 0 }, 64, mem }, { { 64 }, MMU_POOL_MIN, mem + 64 * MMU_PAGE_SIZE } };
	const struct mmu_config good = { .regions = regions, .nr_regions = 2, .nr_gfns = 64, .pool = { 64 },
					 .pool_pages = MMU_POOL_MIN };
	struct mmu_config c = good;
	struct mmu *mmu = NULL;
	struct mmu_cpu *cpu;

	assert_int_equal(mmu_create(&c, &mmu), 0);
	assert_int_equal(mmu_cpu_create(mmu, &cpu), 0);
	assert_ptr_equal(mmu_gfn_hva(mmu, (gfn_t){ 63 }), mem + 63 * MMU_PAGE_SIZE);
	assert_null(mmu_gfn_hva(mmu, (gfn_t){ 64 }));
	assert_null(mmu_gfn_hva(mmu, MMU_NO_GFN));
	assert_ptr_equal(mmu_mfn_hva(mmu, (mfn_t){ 64 }), mem + 64 * MMU_PAGE_SIZE);
	assert_null(mmu_mfn_hva(mmu, (mfn_t){ 64 + MMU_POOL_MIN }));
	assert_int_equal(mmu_pmap(mmu, (gfn_t){ 5 }).n, 5);
	assert_int_equal(mmu_cpu_set_view(cpu, 1), -EINVAL);
	assert_int_equal(mmu_cpu_set_node(cpu, 1), -EINVAL);
	assert_int_equal(mmu_cpu_set_node(cpu, 0), 0);
	mmu_cpu_destroy(cpu);
	mmu_destroy(mmu);

#define REFUSED(change) do { c = good; change; assert_int_equal(mmu_create(&c, &mmu), -EINVAL); } while (0)
	REFUSED(c.pool_pages = MMU_POOL_MIN - 1);
	REFUSED(c.nr_nodes = 2);			/* a pool too small to be shared out */
	REFUSED(c.nr_nodes = MMU_MAX_NODES + 1);
	REFUSED(c.pool_pages = MMU_POOL_MIN + 1);	/* sticks out of its region */
	REFUSED(c.pool.n = 63);				/* below nr_gfns */
	REFUSED(c.pool.n = 1000);			/* outside every region */
	REFUSED(c.pool.n = ~0ull - 10);
	REFUSED(c.nr_gfns = 65);			/* reaches into the pool */
	REFUSED(c.nr_gfns = 0);
	REFUSED(c.nr_regions = 0);
	REFUSED(c.nr_regions = 1);			/* no pool */
	REFUSED((c.prefetch = MMU_PREFETCH_AROUND, c.prefetch_n = 0));
	REFUSED((c.prefetch = MMU_PREFETCH_AROUND, c.prefetch_n = 512));
	REFUSED((c.nr_views = 1));			/* of which nothing is said */
	REFUSED((c.view_entry = views));
	REFUSED((c.view_entry = views, c.nr_views = 2, c.view_slot = 16));
	REFUSED((c.view_entry = views, c.nr_views = MMU_MAX_VIEWS + 1));
	regions[1].first.n = 63;
	REFUSED(c.pool.n = 64);				/* regions overlap */
	regions[1].first.n = 65;
	REFUSED(c.pool.n = 65; c.nr_gfns = 65);		/* a gfn without memory */
#undef REFUSED
}

/* ---- pins, protection, out of sync ------------------------------------------------------------------------------ */

static void test_pinned_leaf_table(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_stats s;

	program_update(r.p, L1, 100, (uint64_t)L1 << 12 | (LEAF & ~MMU_PTE_W));
	program_update(r.p, L1, 101, (uint64_t)L1 << 12 | LEAF);
	program_pin(r.p, L1, 1);
	assert_int_equal(program_access(r.p, MMU_USER, VA(3), 0), MMU_HIDDEN);

	/* The guest kernel writes it through a read-only entry; the guest's users may not. */
	assert_int_equal(program_access(r.p, MMU_USER, VA(100), MMU_PF_W), MMU_TRUE);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100) + 8 * 200, MMU_PF_W), MMU_PTWRITE);
	assert_true(shadow_allows(&r, MMU_KERNEL, VA(100), MMU_PF_W));
	assert_false(shadow_allows(&r, MMU_USER, VA(100), MMU_PF_W));
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100) + 8 * 201, MMU_PF_W), MMU_SPURIOUS);
	s = stats_of(&r);
	assert_int_equal(s.pt_write, 1);
	assert_int_equal(s.unsyncs, 1);
	assert_int_equal(s.resyncs, 0);

	/* The flush ends it. */
	mmu_flush(r.cpu->cpu);
	assert_false(shadow_allows(&r, MMU_KERNEL, VA(100), MMU_PF_W));
	assert_true(mmu_kick_pending(r.cpu->cpu));
	program_kick(r.p);
	s = stats_of(&r);
	assert_int_equal(s.resyncs, 1);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100) + 8 * 201, MMU_PF_W), MMU_PTWRITE);
	program_load(r.p, MMU_KERNEL, L4);	/* and so does a load */
	assert_false(shadow_allows(&r, MMU_KERNEL, VA(100), MMU_PF_W));

	/* W in the guest's entry makes no difference to the protection. */
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(101), 0), MMU_HIDDEN);
	assert_false(shadow_allows(&r, MMU_KERNEL, VA(101), MMU_PF_W));
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(101) + 8 * 201, MMU_PF_W), MMU_PTWRITE);
	program_unpin(r.p, L1);
	rig_close(&r);
}

static void test_pinned_upper_table(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_result f;
	uint64_t kicked;
	unsigned level;

	for (level = 2; level <= 4; level++) {
		uint64_t gfn = 200 + level;

		program_update(r.p, L1, 100, gfn << 12 | LEAF);
		assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100), MMU_PF_W), MMU_HIDDEN);
		kicked = stats_of(&r).kick_entries;
		program_pin(r.p, gfn, level);
		assert_false(shadow_allows(&r, MMU_KERNEL, VA(100), MMU_PF_W));
		assert_true(stats_of(&r).kick_entries > kicked);
		f = mmu_fault(r.cpu->cpu, MMU_KERNEL, (gva_t){ VA(100) }, MMU_PF_W);
		r.cpu->seen.true_faults++;
		assert_int_equal(f.verdict, MMU_TRUE);
		assert_int_equal(f.error_code, MMU_PF_P | MMU_PF_W);
		assert_true(shadow_allows(&r, MMU_KERNEL, VA(100), 0));
		program_unpin(r.p, gfn);
		assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100), MMU_PF_W), MMU_HIDDEN);
	}
	rig_close(&r);
}

/* A table out of sync, linked at a new place: a processor would read the entry as it is now, not as it was. */
static void test_link_of_unsync_table(void **state)
{
	struct rig r = rig_open_plain();
	unsigned i;

	program_update(r.p, L1, 100, (uint64_t)L1 << 12 | (LEAF & ~MMU_PTE_W));
	program_pin(r.p, L1, 1);
	/* One write beforehand: from now on the kernel has the same shadow of L1 for both uses. */
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100) + 8 * 200, MMU_PF_W), MMU_PTWRITE);
	mmu_flush(r.cpu->cpu);
	program_kick(r.p);
	for (i = 0; i < 64; i++)
		program_access(r.p, MMU_KERNEL, VA(i), 0);
	/* Stale now, at the old address: what is stored there has P=0. */
	for (i = 0; i < 32; i++)
		program_access(r.p, MMU_KERNEL, VA(100) + 8 * i, MMU_PF_W);
	program_check(r.p);
	program_update(r.p, L2, 5, (uint64_t)L1 << 12 | LINK);
	program_check(r.p);
	assert_true(program_access(r.p, MMU_KERNEL, (5ull << 21) + VA(63), 0) <= MMU_SPURIOUS);
	program_check(r.p);
	for (i = 0; i < 64; i++)
		program_access(r.p, MMU_KERNEL, (5ull << 21) + VA(i), 0);
	program_check(r.p);
	program_unpin(r.p, L1);
	rig_close(&r);
}

/* A frame that is written while no shadow of it exists is no page table to anybody. */
static void test_unlinked_table_is_data(void **state)
{
	struct rig r = rig_open_plain();
	uint32_t leaf_tables = usage_of(&r).by_level[1];

	program_update(r.p, L1, 100, 300ull << 12 | LEAF);
	program_update(r.p, L2, 1, 300ull << 12 | LINK);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100) + 8 * 511, MMU_PF_W), MMU_HIDDEN);
	program_update(r.p, 300, 0, (uint64_t)DATA << 12 | LEAF);
	/* Shadowing it takes the right to write it away, or leaves it out of sync: either way nothing goes stale. */
	assert_int_equal(program_access(r.p, MMU_KERNEL, 1ull << 21, 0), MMU_HIDDEN);
	program_access(r.p, MMU_KERNEL, VA(100), MMU_PF_W);
	mmu_flush(r.cpu->cpu);
	program_kick(r.p);
	program_access(r.p, MMU_KERNEL, 1ull << 21, 0);
	program_check(r.p);
	/* Unlinked and written: it goes back to being data, once. */
	program_update(r.p, L2, 1, 0);
	program_access(r.p, MMU_KERNEL, VA(100) + 8 * 510, MMU_PF_W);
	mmu_flush(r.cpu->cpu);
	program_kick(r.p);
	program_access(r.p, MMU_KERNEL, VA(100) + 8 * 510, MMU_PF_W);
	mmu_flush(r.cpu->cpu);
	program_kick(r.p);
	assert_true(usage_of(&r).by_level[1] <= leaf_tables + 1);
	rig_close(&r);
}

/* ---- sharing, lifetime ------------------------------------------------------------------------------------------ */

static void test_sharing(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_stats s;
	uint64_t fills;

	assert_int_equal(program_access(r.p, MMU_USER, VA(1), 0), MMU_HIDDEN);
	fills = stats_of(&r).fills;
	/* The user half of a kernel root is the user's own tables: no second fill. */
	program_access(r.p, MMU_KERNEL, VA(1), 0);
	s = stats_of(&r);
	assert_int_equal(s.fills, fills);
	/* Another root over the same tables, and another slot of the same root. */
	program_load(r.p, MMU_USER, L4B);
	program_access(r.p, MMU_USER, VA(1), 0);
	program_load(r.p, MMU_USER, L4);
	program_access(r.p, MMU_USER, VA2(1), 0);
	s = stats_of(&r);
	assert_int_equal(s.fills, fills);
	assert_int_equal(usage_of(&r).by_level[1], 1);
	assert_int_equal(usage_of(&r).by_level[2], 1);
	assert_int_equal(usage_of(&r).by_level[3], 1);
	rig_close(&r);
}

static void test_supervisor_pages(void **state)
{
	struct rig r = rig_open_plain();

	program_update(r.p, L1, 3, (uint64_t)(DATA + 3) << 12 | (LEAF & ~MMU_PTE_U));
	assert_int_equal(program_access(r.p, MMU_USER, VA(3), 0), MMU_TRUE);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(3), 0), MMU_HIDDEN);
	assert_true(shadow_allows(&r, MMU_KERNEL, VA(3), 0));
	assert_false(shadow_allows(&r, MMU_USER, VA(3), 0));
	assert_int_equal(program_access(r.p, MMU_USER, VA(4), 0), MMU_HIDDEN);
	program_update(r.p, L1, 4, (uint64_t)(DATA + 4) << 12 | (LEAF & ~MMU_PTE_U));
	assert_false(shadow_allows(&r, MMU_USER, VA(4), 0));
	program_access(r.p, MMU_KERNEL, VA(4), MMU_PF_W);
	program_check(r.p);
	rig_close(&r);
}

static void test_unpin_frees(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_usage u;
	unsigned level;

	program_update(r.p, L4B, 0, 0);
	for (level = 1; level <= 4; level++)
		program_pin(r.p, L4 + 4 - level, level);
	program_access(r.p, MMU_USER, VA(1), 0);
	program_access(r.p, MMU_KERNEL, VA(2), 0);
	u = usage_of(&r);
	assert_int_equal(u.by_level[4], 2);
	assert_int_equal(u.by_level[3] + u.by_level[2] + u.by_level[1], 3);
	assert_int_equal(u.leaves, 2);
	program_load(r.p, MMU_USER, L4B);
	program_load(r.p, MMU_KERNEL, L4B);
	/* As Linux does at exit, from the root down. Unpinning the root alone already drops what hangs on it. */
	program_unpin(r.p, L4);
	u = usage_of(&r);
	assert_int_equal(u.pool_used, 2);	/* the roots over L4B */
	assert_int_equal(u.by_level[4], 2);
	assert_int_equal(u.by_level[1], 0);
	assert_int_equal(u.leaves, 0);
	for (level = 3; level >= 1; level--)
		program_unpin(r.p, L4 + 4 - level);
	rig_close(&r);
}

/* ---- entries nobody faulted on ---------------------------------------------------------------------------------- */

static void check_window(struct rig *r, unsigned fault, unsigned first, unsigned last)
{
	unsigned i;

	assert_int_equal(program_access(r->p, MMU_USER, VA(fault), 0), MMU_HIDDEN);
	for (i = 0; i < 64; i++) {
		bool is = shadow_allows(r, MMU_USER, VA(i), 0);

		if (is != (i >= first && i <= last))
			fail_msg("fault at %u: entry %u is %s", fault, i, is ? "there" : "absent");
	}
	assert_int_equal(stats_of(r).prefetched, last - first);
}

static void test_prefetch_windows(void **state)
{
	struct rig r;

	r = rig_open((struct world_options){ .prefetch = MMU_PREFETCH_OFF });
	check_window(&r, 13, 13, 13);
	rig_close(&r);
	r = rig_open((struct world_options){ .prefetch = MMU_PREFETCH_KVM8 });
	check_window(&r, 13, 8, 15);
	rig_close(&r);
	r = rig_open((struct world_options){ .prefetch = MMU_PREFETCH_XEN32 });
	check_window(&r, 13, 13, 44);
	rig_close(&r);
	r = rig_open((struct world_options){ .prefetch = MMU_PREFETCH_AROUND, .prefetch_n = 5 });
	check_window(&r, 13, 8, 18);
	rig_close(&r);
	r = rig_open((struct world_options){ .prefetch = MMU_PREFETCH_AROUND, .prefetch_n = 511 });
	check_window(&r, 2, 0, 63);
	rig_close(&r);
}

static void test_fill_kinds(void **state)
{
	struct rig r;
	int eager;

	for (eager = 0; eager < 2; eager++) {
		r = rig_open((struct world_options){ .fill = eager ? MMU_FILL_EAGER : MMU_FILL_LAZY });
		program_access(r.p, MMU_USER, VA(1), 0);
		program_update(r.p, L1, 200, (uint64_t)DATA << 12 | LEAF);
		assert_int_equal(shadow_allows(&r, MMU_USER, VA(200), MMU_PF_W), eager);
		program_update(r.p, L1, 201, (uint64_t)DATA << 12 | (LEAF & ~MMU_PTE_A));
		assert_false(shadow_allows(&r, MMU_USER, VA(201), 0));
		assert_int_equal(stats_of(&r).eager, eager);
		rig_close(&r);
	}
}

static void test_prebuild(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;

	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 5, 3, 0), MMU_PB_NO_SHADOW);
	program_access(r.p, MMU_USER, VA(1), 0);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 5, 3, 0), MMU_PB_BUILT);
	assert_true(shadow_allows(&r, MMU_USER, VA(5), MMU_PF_W));
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 5, 3, 0), MMU_PB_PRESENT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 300, 3, 0), MMU_PB_NOTHING);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ 400 }, 5, 3, 0), MMU_PB_NO_SHADOW);
	program_update(r.p, L1, 6, (uint64_t)DATA << 12 | (LEAF & ~MMU_PTE_A));
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 6, 3, 0), MMU_PB_NOTHING);
	program_update(r.p, L1, 6, (uint64_t)NR_GFNS << 12 | LEAF);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 6, 3, 0), MMU_PB_NOTHING);
	/* Without D in the guest's entry there is no right to write: the first write has to set it. */
	program_update(r.p, L1, 6, (uint64_t)DATA << 12 | (LEAF & ~MMU_PTE_D));
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 6, 31, 0), MMU_PB_BUILT);
	assert_false(shadow_allows(&r, MMU_USER, VA(6), MMU_PF_W));
	assert_true(shadow_allows(&r, MMU_USER, VA(6), 0));
	assert_int_equal(stats_of(&r).prebuilt, 2);
	assert_int_equal(stats_of(&r).prebuilt_removed, 0);
	program_update(r.p, L1, 5, 0);
	assert_int_equal(stats_of(&r).prebuilt_removed, 1);
	assert_false(shadow_allows(&r, MMU_USER, VA(5), 0));
	rig_close(&r);
}

/* ---- large pages ------------------------------------------------------------------------------------------------ */

static void test_large_pages(void **state)
{
	struct rig r = rig_open((struct world_options){ .large = true, .nx = true, .audit = 1 });
	const uint64_t va = 2ull << 21, other = 3ull << 21;
	struct mmu_usage u;
	int err;

	program_update(r.p, L2, 2, 512ull << 12 | LEAF | MMU_PTE_PS);
	assert_int_equal(program_access(r.p, MMU_USER, va + VA(7), MMU_PF_W), MMU_HIDDEN);
	u = usage_of(&r);
	assert_int_equal(u.large_leaves, 1);
	assert_int_equal(stats_of(&r).fills_large, 1);
	assert_true(shadow_allows(&r, MMU_USER, va + VA(511), MMU_PF_W));

	/* A page table inside: 4 KiB shadows from now on, that frame protected. */
	program_pin(r.p, 512 + 9, 2);
	assert_true(stats_of(&r).kick_entries > 0);
	assert_int_equal(usage_of(&r).large_leaves, 0);
	assert_int_equal(program_access(r.p, MMU_USER, va + VA(8), MMU_PF_W), MMU_HIDDEN);
	assert_int_equal(program_access(r.p, MMU_USER, va + VA(9), 0), MMU_HIDDEN);
	assert_false(shadow_allows(&r, MMU_USER, va + VA(9), MMU_PF_W));
	assert_int_equal(program_access(r.p, MMU_USER, va + VA(9), MMU_PF_W), MMU_TRUE);
	program_unpin(r.p, 512 + 9);

	/* A frame inside moves: the backing is not contiguous any more. */
	program_update(r.p, L2, 3, 1024ull << 12 | LEAF | MMU_PTE_PS);
	program_access(r.p, MMU_USER, other, 0);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	err = mmu_remap_begin(r.cpu->cpu, (gfn_t){ 1024 + 5 });
	assert_int_equal(err, 0);
	program_kick(r.p);
	assert_false(shadow_allows(&r, MMU_USER, other + VA(5), 0));
	assert_int_equal(usage_of(&r).large_leaves, 0);
	mmu_remap_abort(r.cpu->cpu, (gfn_t){ 1024 + 5 });
	assert_int_equal(program_access(r.p, MMU_USER, other + VA(5), 0), MMU_HIDDEN);
	program_check(r.p);
	rig_close(&r);
}

/* ---- moves ------------------------------------------------------------------------------------------------------ */

static void program_fill(struct rig *r, uint64_t gfn)
{
	unsigned i;

	for (i = 0; i < 512; i += 73)
		program_update(r->p, gfn, i, 0xda7a000000000000ull | gfn << 16 | i << 1);
}

static void test_remap(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_result f;
	uint64_t to = r.w->spare;

	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, (gfn_t){ DATA + 1 }), 0);
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, (gfn_t){ DATA + 1 }), -EBUSY);
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, (gfn_t){ DATA + 2 }), 0);	/* two at once */
	assert_true(mmu_kick_pending(r.cpu->cpu));
	assert_false(shadow_allows(&r, MMU_USER, VA(1), 0));
	program_kick(r.p);
	f = mmu_fault(r.cpu->cpu, MMU_USER, (gva_t){ VA(1) }, 0);
	r.cpu->seen.again++;
	assert_int_equal(f.verdict, MMU_AGAIN);
	assert_int_equal(mmu_prebuild(r.cpu->cpu, (gfn_t){ L1 }, 1, 3, 0), MMU_PB_NOTHING);
	assert_false(shadow_allows(&r, MMU_USER, VA(1), 0));

	program_fill(&r, DATA + 1);		/* stores meanwhile move along */
	r.w->mfn_gfn[DATA + 1] = -1;
	r.w->mfn_gfn[to] = DATA + 1;
	assert_int_equal(mmu_remap_commit(r.cpu->cpu, (gfn_t){ DATA + 1 }, (mfn_t){ to }), 0);
	assert_int_equal(mmu_pmap(r.w->mmu, (gfn_t){ DATA + 1 }).n, to);
	r.w->gfn_mfn[DATA + 1] = to;
	mmu_remap_abort(r.cpu->cpu, (gfn_t){ DATA + 2 });
	assert_int_equal(mmu_pmap(r.w->mmu, (gfn_t){ DATA + 2 }).n, DATA + 2);
	assert_int_equal(program_access(r.p, MMU_USER, VA(1), MMU_PF_W), MMU_HIDDEN);
	assert_int_equal(program_access(r.p, MMU_USER, VA(2), 0), MMU_HIDDEN);
	assert_int_equal(stats_of(&r).remaps, 1);

	/* A root that a processor runs on stays; it can go once it is released. */
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, (gfn_t){ L4 }), -EBUSY);
	program_load(r.p, MMU_KERNEL, L4B);
	program_load(r.p, MMU_USER, L4B);
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, (gfn_t){ L4 }), 0);
	program_kick(r.p);
	program_update(r.p, L4, 3, (uint64_t)L3 << 12 | LINK);
	r.w->mfn_gfn[L4] = -1;
	r.w->mfn_gfn[to + 1] = L4;
	assert_int_equal(mmu_remap_commit(r.cpu->cpu, (gfn_t){ L4 }, (mfn_t){ to + 1 }), 0);
	r.w->gfn_mfn[L4] = to + 1;
	program_load(r.p, MMU_KERNEL, L4);
	assert_int_equal(program_access(r.p, MMU_KERNEL, 3ull << 39 | VA(1), MMU_PF_W), MMU_HIDDEN);
	rig_close(&r);
}

/* ---- who uses a frame ------------------------------------------------------------------------------------------- */

static struct mmu_result fault(struct rig *r, uint64_t va, uint32_t access)
{
	struct mmu_result f = mmu_fault(r->cpu->cpu, MMU_USER, (gva_t){ va }, access);

	r->cpu->seen.hidden += f.verdict == MMU_HIDDEN;
	r->cpu->seen.spurious += f.verdict == MMU_SPURIOUS;
	r->cpu->seen.true_faults += f.verdict == MMU_TRUE;
	return f;
}

static void test_watch(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_result f;

	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ NR_GFNS }), -EINVAL);
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ L1 }), -EBUSY);
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ DATA + 1 }), 0);
	assert_true(mmu_kick_pending(r.cpu->cpu));
	assert_false(shadow_allows(&r, MMU_USER, VA(1), 0));
	program_kick(r.p);
	assert_int_equal(mmu_prebuild(r.cpu->cpu, (gfn_t){ L1 }, 1, 3, 0), MMU_PB_NOTHING);

	f = fault(&r, VA(1), 0);
	assert_int_equal(f.verdict, MMU_HIDDEN);
	assert_true(f.gfn.n == DATA + 1 && f.watched && !f.write);
	assert_true(shadow_allows(&r, MMU_USER, VA(1), 0));
	assert_false(shadow_allows(&r, MMU_USER, VA(1), MMU_PF_W));
	f = fault(&r, VA(1), 0);
	assert_true(f.verdict == MMU_SPURIOUS && f.gfn.n == DATA + 1 && f.watched);
	f = fault(&r, VA(1), MMU_PF_W);
	assert_true(f.verdict == MMU_HIDDEN && f.gfn.n == DATA + 1 && f.watched && f.write);
	assert_true(shadow_allows(&r, MMU_USER, VA(1), MMU_PF_W));
	f = fault(&r, VA(1), MMU_PF_W);
	assert_true(f.verdict == MMU_SPURIOUS && !f.watched);
	assert_int_equal(stats_of(&r).watches, 1);
	assert_int_equal(stats_of(&r).watch_faults, 3);
	f = fault(&r, VA(100), MMU_PF_W);
	assert_true(f.verdict == MMU_TRUE && f.gfn.n == MMU_NO_GFN.n && f.write);

	/* Unwatched, it can be prebuilt again; a pin ends a watch, a move too. */
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ DATA + 1 }), 0);
	mmu_unwatch(r.cpu->cpu, (gfn_t){ DATA + 1 });
	assert_int_equal(mmu_prebuild(r.cpu->cpu, (gfn_t){ L1 }, 1, 3, 0), MMU_PB_BUILT);
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ DATA + 2 }), 0);
	program_pin(r.p, DATA + 2, 1);
	program_unpin(r.p, DATA + 2);
	assert_false(fault(&r, VA(2), 0).watched);
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ DATA + 3 }), 0);
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, (gfn_t){ DATA + 3 }), 0);
	assert_int_equal(mmu_watch(r.cpu->cpu, (gfn_t){ DATA + 3 }), -EBUSY);
	mmu_remap_abort(r.cpu->cpu, (gfn_t){ DATA + 3 });
	assert_false(fault(&r, VA(3), 0).watched);
	rig_close(&r);
}

/* A watched frame takes the 2 MiB sPTE away from its region; the end of the watch gives it back. */
static void test_watch_large(void **state)
{
	struct rig r = rig_open((struct world_options){ .nx = true, .large = true, .audit = 1 });
	uint64_t va = 2ull << 21, kicks;

	program_update(r.p, L2, 2, 512ull << 12 | LEAF | MMU_PTE_PS);
	program_access(r.p, MMU_USER, va, MMU_PF_W);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	program_watch(r.p, 512 + 7);
	assert_int_equal(usage_of(&r).large_leaves, 0);
	program_access(r.p, MMU_USER, va + VA(1), MMU_PF_W);
	program_access(r.p, MMU_USER, va + VA(7), 0);
	kicks = stats_of(&r).kick_entries;
	program_access(r.p, MMU_USER, va + VA(2), MMU_PF_W);
	assert_int_equal(stats_of(&r).kick_entries, kicks);	/* the table of 4 KiB leaves stays linked */
	assert_int_equal(usage_of(&r).large_leaves, 0);
	program_access(r.p, MMU_USER, va + VA(7), MMU_PF_W);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	rig_close(&r);
}

/* ---- dirty logging ---------------------------------------------------------------------------------------------- */

static uint64_t fetch64(struct rig *r, uint64_t first)
{
	uint64_t bits = 0;

	assert_int_equal(mmu_dirty_fetch(r->cpu->cpu, (gfn_t){ first }, 64, &bits), 0);
	program_kick(r->p);
	return bits;
}

static void test_dirty_log(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;
	uint64_t bits;

	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	assert_int_equal(mmu_dirty_fetch(cpu, (gfn_t){ 0 }, 64, &bits), -EINVAL);
	assert_int_equal(mmu_dirty_start(cpu), 0);
	assert_int_equal(mmu_dirty_start(cpu), -EALREADY);
	assert_true(mmu_kick_pending(cpu));
	assert_false(shadow_allows(&r, MMU_USER, VA(1), MMU_PF_W));
	program_kick(r.p);
	assert_int_equal(fetch64(&r, DATA), 0);
	assert_int_equal(program_access(r.p, MMU_USER, VA(1), 0), MMU_SPURIOUS);
	assert_int_equal(program_access(r.p, MMU_USER, VA(1), MMU_PF_W), MMU_HIDDEN);
	assert_int_equal(stats_of(&r).dirty_faults, 1);
	program_access(r.p, MMU_USER, VA(9), 0);
	mmu_mark_dirty(r.w->mmu, (gfn_t){ DATA + 40 });
	mmu_mark_dirty(r.w->mmu, MMU_NO_GFN);
	assert_int_equal(fetch64(&r, DATA), 1ull << 1 | 1ull << 40);
	assert_int_equal(fetch64(&r, DATA), 0);
	assert_false(shadow_allows(&r, MMU_USER, VA(1), MMU_PF_W));

	/* Unaligned ranges; a prebuilt entry must not open what is clean; stores to page tables count. */
	program_access(r.p, MMU_USER, VA(3), MMU_PF_W);
	assert_int_equal(fetch64(&r, DATA + 1), 1ull << 2);
	mmu_prebuild(cpu, (gfn_t){ L1 }, 20, 3, 0);
	assert_false(shadow_allows(&r, MMU_USER, VA(20), MMU_PF_W));
	fetch64(&r, 0);
	program_update(r.p, L1, 21, 0);
	assert_int_equal(fetch64(&r, 0), 1ull << L1);
	program_update(r.p, L1, 22, (uint64_t)(DATA + 22) << 12 | (LINK & ~MMU_PTE_A));
	fetch64(&r, 0);
	program_access(r.p, MMU_USER, VA(22), 0);	/* sets A */
	assert_int_equal(fetch64(&r, 0), 1ull << L1);

	assert_int_equal(mmu_dirty_fetch(cpu, (gfn_t){ NR_GFNS }, 1, &bits), -EINVAL);
	assert_int_equal(mmu_dirty_fetch(cpu, (gfn_t){ NR_GFNS - 1 }, 2, &bits), -EINVAL);
	assert_int_equal(mmu_dirty_fetch(cpu, (gfn_t){ 1 }, ~0ull, &bits), -EINVAL);
	assert_int_equal(mmu_dirty_stop(cpu), 0);
	assert_int_equal(mmu_dirty_fetch(cpu, (gfn_t){ 0 }, 64, &bits), -EINVAL);
	program_kick(r.p);
	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	rig_close(&r);
}

/* ---- kicks, counters -------------------------------------------------------------------------------------------- */

static void test_kicks(void **state)
{
	static const unsigned minimum[] = { 0, 8 };
	struct mmu_kick kicks[128];
	struct rig r;
	unsigned m, i, n;

	for (m = 0; m < 2; m++) {
		r = rig_open((struct world_options){ .table_kick_min = minimum[m] });
		for (i = 0; i < 32; i++)
			program_access(r.p, MMU_USER, VA(i), 0);
		/* Nothing was there: no kick. Something was: one, however often it changes. */
		program_update(r.p, L1, 300, (uint64_t)DATA << 12 | LEAF);
		mmu_update(r.cpu->cpu, (gfn_t){ L1 }, 301, (uint64_t)DATA << 12 | LEAF, false);
		assert_false(mmu_kick_pending(r.cpu->cpu));
		mmu_update(r.cpu->cpu, (gfn_t){ L1 }, 301, 0, false);
		for (i = 0; i < 3; i++) {
			mmu_update(r.cpu->cpu, (gfn_t){ L1 }, 5, 0, false);
			mmu_update(r.cpu->cpu, (gfn_t){ L1 }, 5, (uint64_t)(DATA + 5) << 12 | LEAF, false);
			mmu_prebuild(r.cpu->cpu, (gfn_t){ L1 }, 5, 3, 0);
		}
		assert_true(mmu_kick_pending(r.cpu->cpu));
		assert_int_equal(mmu_kick_next(r.cpu->cpu, kicks, 0), 0);
		assert_int_equal(mmu_kick_next(r.cpu->cpu, kicks, 128), 1);
		assert_false(kicks[0].whole);
		assert_int_equal(kicks[0].index, 5);
		assert_false(mmu_kick_pending(r.cpu->cpu));
		mmu_kick_done(r.cpu->cpu);
		/* A whole table goes: entry by entry, or at once from table_kick_min on. */
		mmu_update(r.cpu->cpu, (gfn_t){ L2 }, 0, 0, false);
		mmu_pin(r.cpu->cpu, (gfn_t){ L1 }, 1);
		mmu_unpin(r.cpu->cpu, (gfn_t){ L1 });
		for (n = 0; mmu_kick_next(r.cpu->cpu, &kicks[n], 1); n++)
			assert_true(n < 127);
		mmu_kick_done(r.cpu->cpu);
		if (minimum[m])
			assert_true(n >= 2 && n < 8);
		else
			assert_true(n >= 33);
		program_destroy(r.p);
		world_destroy(r.w);
	}
}

static void test_counters(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_stats sum;
	struct mmu_cpu *other;
	mfn_t root;

	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	assert_int_equal(mmu_cpu_create(r.w->mmu, &other), 0);
	assert_int_equal(mmu_load(other, MMU_USER, (gfn_t){ L4 }, &root), 0);
	assert_int_equal(root.n, r.cpu->cr3[MMU_USER]);		/* roots are shared, too */
	assert_int_equal(mmu_fault(other, MMU_USER, (gva_t){ VA(2) }, 0).verdict, MMU_HIDDEN);
	mmu_stats(r.w->mmu, &sum);
	assert_int_equal(sum.hidden, 2);
	mmu_load(other, MMU_USER, MMU_NO_GFN, &root);
	mmu_cpu_destroy(other);
	mmu_stats(r.w->mmu, &sum);
	assert_int_equal(sum.hidden, 2);	/* what was counted stays counted */
	rig_close(&r);
}

/* ---- an audit that cannot complain checks nothing ---------------------------------------------------------------- */

static void spoil(uint64_t set, uint64_t clear)
{
	struct rig r = rig_open((struct world_options){ .nx = true });
	struct soft_walk walk;
	uint64_t *spte, good;

	program_update(r.p, L1, 3, (uint64_t)L1 << 12 | (LEAF & ~MMU_PTE_W));
	program_access(r.p, MMU_KERNEL, VA(3), 0);
	world_soft_walk(r.cpu, MMU_KERNEL, VA(3), &walk);
	assert_int_equal(mmu_audit(r.cpu->cpu), 0);
	spte = &world_mfn_words(r.w, walk.src[3] >> 9)[walk.src[3] & 511];
	good = *spte;
	*spte = (good | set) & ~clear;
	assert_true(mmu_audit(r.cpu->cpu) > 0);
	assert_true(r.w->nr_audit_failed > 0);
	*spte = good;
	r.w->nr_audit_failed = 0;
	assert_int_equal(mmu_audit(r.cpu->cpu), 0);
	rig_close(&r);
}

static void test_audit_complains(void **state)
{
	fprintf(stderr, "(audit complaints are expected here)\n");
	spoil(MMU_PTE_W, 0);			/* a page table opened */
	spoil(1ull << 12 << 6, 0);		/* another frame */
	spoil(0, ~0ull);			/* an entry lost, its links left behind */
	spoil(0, MMU_PTE_U);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_pinned_leaf_table),
		cmocka_unit_test(test_pinned_upper_table),
		cmocka_unit_test(test_link_of_unsync_table),
		cmocka_unit_test(test_unlinked_table_is_data),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_supervisor_pages),
		cmocka_unit_test(test_unpin_frees),
		cmocka_unit_test(test_prefetch_windows),
		cmocka_unit_test(test_fill_kinds),
		cmocka_unit_test(test_prebuild),
		cmocka_unit_test(test_large_pages),
		cmocka_unit_test(test_remap),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_watch_large),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_kicks),
		cmocka_unit_test(test_counters),
		cmocka_unit_test(test_audit_complains),
	};

	return cmocka_run_group_tests_name("mmu: contract", tests, NULL, NULL);
}
