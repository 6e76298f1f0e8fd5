/*
 * What mmu.h says of prebuilding beyond one leaf: links, tables, trees, A in the guest's entries, and the samples that
 * tell whether what was prebuilt was used. Random programs do the same in every order (mmu_program_steps.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <errno.h>

#include "mmu_program_internal.h"
#include "mmu_rig.h"

/* ---- prebuilding links, tables and trees ------------------------------------------------------------------------- */

static struct mmu_source_stats source_of(struct rig *r, unsigned source)
{
	struct mmu_source_stats s;

	assert_int_equal(mmu_source_stats(r->w->mmu, source, &s), 0);
	return s;
}

static void no_kick_owed(struct rig *r)
{
	assert_false(mmu_kick_pending(r->cpu->cpu));
}

static void test_prebuild_links(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;

	/* Nothing is shadowed but the roots: a link needs a table, which needs the flag. */
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 0, 3, 0), MMU_PB_NO_SHADOW);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L3 }, 0, 3, MMU_PB_TABLES), MMU_PB_NO_SHADOW);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 0, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 0, 3, MMU_PB_TABLES), MMU_PB_PRESENT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 9, 3, MMU_PB_TABLES), MMU_PB_NOTHING);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 256, 3, MMU_PB_TABLES), MMU_PB_NOTHING);	/* the hole */
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L3 }, 0, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L2 }, 0, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 5, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	assert_int_equal(usage_of(&r).by_level[1], 1);
	assert_int_equal(stats_of(&r).prebuilt_tables, 3);
	assert_int_equal(stats_of(&r).prebuilt_links, 4);	/* both roots link the one table below */
	assert_true(shadow_allows(&r, MMU_KERNEL, VA(5), MMU_PF_W));
	assert_true(shadow_allows(&r, MMU_USER, VA(5), MMU_PF_W));
	no_kick_owed(&r);
	/* A second way to tables that have shadows needs no flag. */
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 1, 3, 0), MMU_PB_BUILT);
	assert_true(shadow_allows(&r, MMU_USER, VA2(5), MMU_PF_W));
	assert_int_equal(program_access(r.p, MMU_USER, VA2(5), MMU_PF_W), MMU_SPURIOUS);
	assert_int_equal(stats_of(&r).hidden, 0);
	program_check(r.p);
	/* What it made is protected like any table: the guest that writes it writes a table. */
	program_update(r.p, L1, 20, (uint64_t)L1 << 12 | LEAF);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(20), MMU_PF_W), MMU_PTWRITE);
	rig_close(&r);
}

/* Linking a table in one place must not bring back what was changed in another. */
static void test_prebuild_stale_child(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;

	program_access(r.p, MMU_USER, VA(5), 0);
	/* A store that nobody reported yet. */
	world_write(r.w, L1, 5, (uint64_t)(DATA + 9) << 12 | LEAF);
	program_update(r.p, L2, 1, (uint64_t)L1 << 12 | LINK);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L2 }, 1, 3, MMU_PB_TABLES), MMU_PB_BUSY);
	no_kick_owed(&r);
	assert_false(shadow_allows(&r, MMU_USER, 1ull << 21 | VA(5), 0));
	program_update(r.p, L1, 5, (uint64_t)(DATA + 9) << 12 | LEAF);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L2 }, 1, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	/* The fault's way does the comparing itself. */
	assert_int_equal(program_access(r.p, MMU_USER, VA(6), 0), MMU_HIDDEN);
	world_write(r.w, L1, 6, (uint64_t)(DATA + 10) << 12 | LEAF);
	program_update(r.p, L2, 2, (uint64_t)L1 << 12 | LINK);
	assert_int_equal(mmu_fault(cpu, MMU_USER, (gva_t){ 2ull << 21 | VA(6) }, 0).verdict, MMU_HIDDEN);
	r.cpu->seen.hidden++;
	world_kick(r.cpu);
	program_update(r.p, L1, 6, (uint64_t)(DATA + 10) << 12 | LEAF);
	assert_true(shadow_allows(&r, MMU_USER, 2ull << 21 | VA(6), 0));
	program_check(r.p);
	/* Above level 1, while anything waits for a flush. */
	program_update(r.p, L1, 20, (uint64_t)L1 << 12 | (LEAF & ~MMU_PTE_W));
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(20), MMU_PF_W), MMU_PTWRITE);
	program_update(r.p, L4, 2, (uint64_t)L3 << 12 | LINK);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 }, 2, 3, MMU_PB_TABLES), MMU_PB_BUSY);
	rig_close(&r);
}

/* A frame that some processor may write is left alone: to protect it would take a kick. */
static void test_prebuild_writable_table(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;

	program_update(r.p, L1, 20, (uint64_t)(DATA + 60) << 12 | LEAF);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(20), MMU_PF_W), MMU_HIDDEN);
	program_update(r.p, L2, 1, (uint64_t)(DATA + 60) << 12 | LINK);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L2 }, 1, 3, MMU_PB_TABLES), MMU_PB_BUSY);
	no_kick_owed(&r);
	assert_int_equal(stats_of(&r).prebuilt_tables, 0);
	program_update(r.p, L1, 20, 0);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L2 }, 1, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	no_kick_owed(&r);
	r.p->m->ever[DATA + 60] = 1u << 1;
	rig_close(&r);
}

static void test_prebuild_room(void **state)
{
	struct rig r = rig_open((struct world_options){ .pool_pages = MMU_POOL_MIN });
	struct mmu_cpu *cpu = r.cpu->cpu;
	unsigned i, built = 0;
	enum mmu_prebuilt last = MMU_PB_BUILT;

	program_access(r.p, MMU_USER, VA(1), 0);
	for (i = 0; i < 64; i++)
		program_update(r.p, L2, 1 + i, (uint64_t)(200 + i) << 12 | LINK);
	for (i = 0; i < 64 && last == MMU_PB_BUILT; i++, built++)
		last = mmu_prebuild(cpu, (gfn_t){ L2 }, 1 + i, 3, MMU_PB_TABLES);
	assert_int_equal(last, MMU_PB_NO_ROOM);
	assert_in_range(MMU_POOL_MIN - usage_of(&r).pool_used, 8, 20);	/* the reserve of faults is there */
	assert_int_equal(stats_of(&r).reclaims, 0);
	no_kick_owed(&r);
	assert_int_equal(mmu_prebuild_tree(cpu, (gfn_t){ L4 }, MMU_USER, (gva_t){ 0 }, (gva_t){ ~0ull }, 3, MMU_PB_TABLES, 500),
			 63);	/* what has a table still gets its leaves */
	rig_close(&r);
}

static void test_prebuild_young(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;
	const uint64_t old = LEAF & ~(MMU_PTE_A | MMU_PTE_D);

	program_access(r.p, MMU_USER, VA(1), 0);
	program_update(r.p, L1, 5, (uint64_t)DATA << 12 | old);
	program_update(r.p, L1, 6, (uint64_t)NR_GFNS << 12 | old);
	program_update(r.p, L1, 7, (uint64_t)DATA << 12 | (old & ~MMU_PTE_P));
	program_update(r.p, L1, 8, (uint64_t)DATA << 12 | (old & ~MMU_PTE_U));
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 5, 3, 0), MMU_PB_NOTHING);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 5, 3, MMU_PB_YOUNG), MMU_PB_BUILT);
	assert_int_equal(world_read(r.w, L1, 5), (uint64_t)DATA << 12 | old | MMU_PTE_A);
	model_set_bits(r.p->m, L1, 5, (uint64_t)DATA << 12 | old | MMU_PTE_A);
	/* The first write still faults, for D is the guest's to see. */
	assert_true(shadow_allows(&r, MMU_USER, VA(5), 0));
	assert_false(shadow_allows(&r, MMU_USER, VA(5), MMU_PF_W));
	assert_int_equal(program_access(r.p, MMU_USER, VA(5), MMU_PF_W), MMU_HIDDEN);
	assert_int_equal(world_read(r.w, L1, 5), (uint64_t)DATA << 12 | old | MMU_PTE_A | MMU_PTE_D);
	/* A is set only where an entry comes of it: no such frame; absent; not the user's. */
	for (unsigned i = 6; i <= 8; i++) {
		uint64_t was = world_read(r.w, L1, i);

		assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, i, 3, MMU_PB_YOUNG), MMU_PB_NOTHING);
		assert_int_equal(world_read(r.w, L1, i), was);
	}
	assert_int_equal(stats_of(&r).prebuilt_young, 1);
	rig_close(&r);
}

static bool first_set(void *arg, const struct mmu_present *set)
{
	*(struct mmu_present *)arg = *set;
	return false;
}

/* A fork: root L4B gets tables of its own, and what the parent used is built in them before anybody runs there. */
static void test_prebuild_tree(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;
	const gva_t end = { (1ull << 47) - 1 };
	struct mmu_present set = { 0 };
	unsigned i;

	for (i = 3; i <= 9; i += 2)
		program_access(r.p, MMU_USER, VA(i), 0);
	program_update(r.p, L4B, 0, 20ull << 12 | LINK);
	program_update(r.p, 20, 0, 21ull << 12 | LINK);
	program_update(r.p, 21, 0, 22ull << 12 | LINK);
	for (i = 0; i < 64; i++)
		program_update(r.p, 22, i, (uint64_t)(DATA + i) << 12 | (LEAF & ~(MMU_PTE_W | MMU_PTE_A)));
	assert_int_equal(mmu_present_set(cpu, (gfn_t){ L4B }, MMU_USER, (gva_t){ 0 }, end, first_set, &set), 0);
	assert_int_equal(mmu_present_set(cpu, (gfn_t){ L4 }, MMU_USER, (gva_t){ VA(512) }, end, first_set, &set), 0);
	assert_int_equal(mmu_present_set(cpu, (gfn_t){ L4 }, MMU_USER, (gva_t){ 0 }, end, first_set, &set), 1);
	assert_int_equal(set.va.a, 0);
	assert_int_equal(set.table.n, L1);
	assert_int_equal(set.bits[0], 0x2a8);

	assert_int_equal(mmu_prebuild_set(cpu, (gfn_t){ L4B }, MMU_USER, &set, 4, MMU_PB_YOUNG), 0);	/* no tables */
	assert_int_equal(mmu_prebuild_set(cpu, (gfn_t){ L4B }, MMU_USER, &set, 4, MMU_PB_TABLES | MMU_PB_YOUNG), 0);	/* no root */
	program_pin(r.p, L4B, 4);
	assert_int_equal(mmu_prebuild_set(cpu, (gfn_t){ L4B }, MMU_USER, &set, 4, MMU_PB_TABLES), 0);	/* none accessed */
	assert_int_equal(mmu_prebuild_set(cpu, (gfn_t){ L4B }, MMU_USER, &set, 4, MMU_PB_TABLES | MMU_PB_YOUNG), 4);
	assert_int_equal(mmu_prebuild_set(cpu, (gfn_t){ L4B }, MMU_USER, &set, 4, MMU_PB_TABLES | MMU_PB_YOUNG), 0);
	assert_int_equal(source_of(&r, 4).built, 4);
	for (i = 0; i < 64; i++)
		model_set_bits(r.p->m, 22, i, world_read(r.w, 22, i));
	no_kick_owed(&r);
	program_load(r.p, MMU_USER, L4B);
	assert_int_equal(program_access(r.p, MMU_USER, VA(7), 0), MMU_SPURIOUS);
	assert_int_equal(program_access(r.p, MMU_USER, VA(8), 0), MMU_HIDDEN);
	program_check(r.p);

	/* A range, a budget. */
	assert_int_equal(mmu_prebuild_tree(cpu, (gfn_t){ L4B }, MMU_USER, (gva_t){ VA(20) }, (gva_t){ VA(30) + 5 }, 4,
					   MMU_PB_YOUNG, 100), 11);
	assert_int_equal(mmu_prebuild_tree(cpu, (gfn_t){ L4B }, MMU_USER, (gva_t){ 0 }, end, 4, MMU_PB_YOUNG, 7), 7);
	assert_int_equal(mmu_prebuild_tree(cpu, (gfn_t){ L4B }, MMU_USER, (gva_t){ VA(9) }, (gva_t){ VA(8) }, 4, 0, 7), 0);
	for (i = 0; i < 64; i++)
		model_set_bits(r.p->m, 22, i, world_read(r.w, 22, i));
	rig_close(&r);
}

/* A table links itself 512 times: 2^27 ways through it. What is a table of one level is not made one of level 1 unasked. */
static void test_prebuild_hostile_tree(void **state)
{
	struct rig r = rig_open_plain();
	unsigned i;

	for (i = 0; i < 512; i++)
		program_update(r.p, 30, i, 30ull << 12 | LINK);
	program_update(r.p, 31, 0, 30ull << 12 | LINK);
	program_pin(r.p, 31, 4);
	assert_true(mmu_prebuild_tree(r.cpu->cpu, (gfn_t){ 31 }, MMU_KERNEL, (gva_t){ 0 }, (gva_t){ ~0ull }, 3,
				      MMU_PB_TABLES | MMU_PB_YOUNG, ~0u / 2) <= 4 * 512);
	assert_int_equal(usage_of(&r).pool_used, 2 + 3);	/* one per level */
	r.p->m->ever[30] = 0x0c;
	r.p->m->ever[31] = 0x10;
	rig_close(&r);
}

/* A root that is loaded, and the other mode's root at a fault, find what has a shadow already. */
static void test_link_ahead(void **state)
{
	int ahead;

	for (ahead = 0; ahead < 2; ahead++) {
		struct rig r = rig_open((struct world_options){ .nx = true, .audit = 1, .link_ahead = ahead });

		program_access(r.p, MMU_KERNEL, VA(5), 0);
		assert_int_equal(shadow_allows(&r, MMU_USER, VA(5), 0), ahead);
		program_load(r.p, MMU_USER, L4B);
		assert_int_equal(program_access(r.p, MMU_USER, VA(5), 0), ahead ? MMU_SPURIOUS : MMU_HIDDEN);
		assert_false(shadow_allows(&r, MMU_USER, VA2(5), 0));		/* not in this guest's root */
		assert_int_equal(stats_of(&r).links_ahead, ahead ? 2 : 0);

		/* Not where the guest's entry has A clear: a processor would set it. */
		program_load(r.p, MMU_USER, MODEL_NONE);
		program_update(r.p, 15, 0, (uint64_t)L3 << 12 | (LINK & ~MMU_PTE_A));
		program_update(r.p, 15, 1, (uint64_t)L3 << 12 | LINK);
		program_load(r.p, MMU_USER, 15);
		assert_false(shadow_allows(&r, MMU_USER, VA(5), 0));
		assert_int_equal(shadow_allows(&r, MMU_USER, VA2(5), 0), ahead);
		no_kick_owed(&r);
		program_check(r.p);
		rig_close(&r);
	}
}

/* Slot 3 of the root: 40, 41, 42 are the kernel's; 42 maps frames in a row, 43 does not. */
static void test_fill_linear(void **state)
{
	const uint64_t link = LINK & ~MMU_PTE_U, leaf = LEAF & ~MMU_PTE_U, va = 3ull << 39;
	int on;

	for (on = 0; on < 2; on++) {
		struct rig r = rig_open((struct world_options){ .nx = true, .audit = 1, .fill_linear = on });
		unsigned i;

		program_update(r.p, L4, 3, 40ull << 12 | link);
		program_update(r.p, 40, 0, 41ull << 12 | link);
		program_update(r.p, 41, 0, 42ull << 12 | link);
		program_update(r.p, 41, 1, 43ull << 12 | link);
		for (i = 0; i < 512; i++) {
			program_update(r.p, 42, i, (512ull + i) << 12 | leaf);
			program_update(r.p, 43, i, (512ull + (i ^ 1)) << 12 | leaf);
		}
		program_update(r.p, 42, 300, (512ull + 300) << 12 | (leaf & ~MMU_PTE_A));
		assert_int_equal(program_access(r.p, MMU_KERNEL, va + VA(77), 0), MMU_HIDDEN);
		for (i = 0; i < 512; i++)
			assert_int_equal(shadow_allows(&r, MMU_KERNEL, va + VA(i), MMU_PF_W), i == 77 || (on && i != 300));
		assert_int_equal(stats_of(&r).prefetched, on ? 510 : 0);
		assert_int_equal(program_access(r.p, MMU_KERNEL, va + VA(300), 0), MMU_HIDDEN);
		/* Out of order; the user's. */
		assert_int_equal(program_access(r.p, MMU_KERNEL, va + (1 << 21) + VA(77), 0), MMU_HIDDEN);
		assert_int_equal(program_access(r.p, MMU_KERNEL, VA(7), 0), MMU_HIDDEN);
		assert_false(shadow_allows(&r, MMU_KERNEL, va + (1 << 21) + VA(78), 0));
		assert_false(shadow_allows(&r, MMU_KERNEL, VA(8), 0));
		assert_int_equal(stats_of(&r).prefetched, on ? 510 : 0);
		program_check(r.p);
		rig_close(&r);
	}
}

/* ---- was it used? ------------------------------------------------------------------------------------------------- */

/* What the processor does on an access, if it finds A clear. */
static void processor_uses(struct rig *r, uint64_t va)
{
	struct soft_walk walk;
	uint64_t leaf;

	world_soft_walk(r->cpu, MMU_USER, va, &walk);
	assert_true(walk.present);
	leaf = walk.src[walk.nr_src - 1];
	__atomic_fetch_or(&world_mfn_words(r->w, leaf >> 9)[leaf & 511], MMU_PTE_A, __ATOMIC_SEQ_CST);
}

static uint64_t spte_of(struct rig *r, uint64_t va)
{
	struct soft_walk walk;

	world_soft_walk(r->cpu, MMU_USER, va, &walk);
	assert_true(walk.present);
	return world_mfn_words(r->w, walk.src[walk.nr_src - 1] >> 9)[walk.src[walk.nr_src - 1] & 511];
}

static void test_samples(void **state)
{
	struct rig r = rig_open((struct world_options){ .preset_ad = true, .nx = true, .audit = 1 });
	struct mmu_cpu *cpu = r.cpu->cpu;
	struct mmu_source_stats s;
	unsigned i;

	assert_int_equal(mmu_source_stats(r.w->mmu, MMU_SOURCES, &s), -EINVAL);
	program_access(r.p, MMU_USER, VA(0), 0);
	for (i = 1; i <= 9; i++)
		assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, i, 5, MMU_PB_SAMPLE), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 10, 5, 0), MMU_PB_BUILT);
	assert_false(spte_of(&r, VA(1)) & MMU_PTE_A);
	assert_true(spte_of(&r, VA(10)) & MMU_PTE_A);
	for (i = 1; i <= 4; i++)
		processor_uses(&r, VA(i));
	program_update(r.p, L1, 1, 0);						/* used, removed */
	program_update(r.p, L1, 5, 0);						/* unused, removed */
	program_update(r.p, L1, 10, 0);						/* no sample */
	program_update(r.p, L1, 2, (uint64_t)(DATA + 2) << 12 | (LEAF & ~MMU_PTE_W));	/* weakened is not removed */
	program_update(r.p, L1, 6, (uint64_t)(DATA + 6) << 12 | (LEAF & ~MMU_PTE_W));
	s = source_of(&r, 5);
	assert_int_equal(s.built, 10);
	assert_int_equal(s.removed, 3);
	assert_int_equal(s.sampled, 9);
	assert_int_equal(s.sampled_used, 1);
	assert_int_equal(s.sampled_unused, 1);
	/* A fault that was under way when the entry came. */
	assert_int_equal(mmu_fault(cpu, MMU_USER, (gva_t){ VA(7) }, 0).verdict, MMU_SPURIOUS);
	r.cpu->seen.spurious++;
	assert_int_equal(source_of(&r, 5).sampled_late, 1);
	assert_int_equal(mmu_fault(cpu, MMU_USER, (gva_t){ VA(2) }, 0).verdict, MMU_SPURIOUS);
	r.cpu->seen.spurious++;
	assert_int_equal(source_of(&r, 5).sampled_late, 1);			/* that one had been used before */

	mmu_sample_sweep(r.w->mmu, false);
	assert_int_equal(source_of(&r, 5).sampled_used, 4);			/* 1; 2, 3, 4 */
	assert_int_equal(source_of(&r, 5).sampled_unused, 1);
	processor_uses(&r, VA(8));
	mmu_sample_sweep(r.w->mmu, true);
	mmu_sample_sweep(r.w->mmu, true);					/* settled once */
	s = source_of(&r, 5);
	assert_int_equal(s.sampled_used, 5);
	assert_int_equal(s.sampled_unused, 3);					/* 5; 6, 9 */
	assert_int_equal(s.sampled_used + s.sampled_unused + s.sampled_late, s.sampled);
	no_kick_owed(&r);
	rig_close(&r);
}

static void test_sample_share(void **state)
{
	struct rig r = rig_open((struct world_options){ .preset_ad = true, .sample_every = 4 });
	unsigned round, i;

	program_update(r.p, L1, 100, (uint64_t)DATA << 12 | LEAF);
	program_access(r.p, MMU_USER, VA(100), 0);
	for (round = 0; round < 20; round++) {
		for (i = 0; i < 64; i++)
			mmu_prebuild(r.cpu->cpu, (gfn_t){ L1 }, i, 6, 0);
		for (i = 0; i < 64; i++)
			program_update(r.p, L1, i, (uint64_t)(DATA + (i ^ (round & 1 ? 0 : 1))) << 12 | LEAF);
	}
	assert_int_equal(source_of(&r, 6).built, 1280);
	assert_in_range(source_of(&r, 6).sampled, 240, 400);			/* 320, more than 5 sigma */
	assert_int_equal(source_of(&r, 6).sampled_unused, source_of(&r, 6).sampled);
	rig_close(&r);
}

/* ---- distinct frames --------------------------------------------------------------------------------------------- */

static void assert_touched(struct rig *r, uint64_t frames, uint64_t tables, uint64_t regions, uint64_t reachable)
{
	struct mmu_stats s;

	mmu_stats(r->w->mmu, &s);
	assert_int_equal(s.touched, frames);
	assert_int_equal(s.touched_tables, tables);
	assert_int_equal(s.touched_2m, regions);
	assert_int_equal(s.reachable, reachable);
}

static void test_touched(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_cpu *cpu = r.cpu->cpu;

	assert_touched(&r, 0, 0, 0, 0);
	program_access(r.p, MMU_USER, VA(5), 0);
	assert_touched(&r, 5, 4, 1, 5);			/* four tables and the page */
	program_access(r.p, MMU_USER, VA(5), MMU_PF_W);
	program_access(r.p, MMU_KERNEL, VA2(5), 0);	/* another way to the same */
	assert_touched(&r, 5, 4, 1, 5);
	program_access(r.p, MMU_USER, VA(6), 0);
	assert_touched(&r, 6, 4, 1, 6);
	/* A true fault walks tables and reaches no page; a table is a page like any other when it is read as one. */
	program_update(r.p, L4, 3, 20ull << 12 | LINK);
	program_access(r.p, MMU_USER, 3ull << 39, 0);
	assert_touched(&r, 7, 5, 1, 7);
	program_update(r.p, L1, 100, (uint64_t)L1 << 12 | (LEAF & ~MMU_PTE_W));
	program_access(r.p, MMU_USER, VA(100), 0);
	assert_touched(&r, 7, 5, 1, 7);
	program_update(r.p, L1, 101, 600ull << 12 | LEAF);
	program_access(r.p, MMU_USER, VA(101), 0);
	assert_touched(&r, 8, 5, 2, 8);
	/* What is removed and comes back was touched before. */
	program_update(r.p, L1, 5, 0);
	program_update(r.p, L1, 5, (uint64_t)(DATA + 5) << 12 | LEAF);
	program_access(r.p, MMU_USER, VA(5), 0);
	assert_touched(&r, 8, 5, 2, 8);
	/* Shown is not touched; a sample that was used is. */
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 20, 3, 0), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 21, 3, MMU_PB_SAMPLE), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 22, 3, MMU_PB_SAMPLE), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 23, 3, MMU_PB_SAMPLE), MMU_PB_BUILT);
	assert_touched(&r, 8, 5, 2, 12);
	processor_uses(&r, VA(21));
	processor_uses(&r, VA(22));
	program_update(r.p, L1, 21, 0);
	assert_touched(&r, 9, 5, 2, 12);
	mmu_sample_sweep(r.w->mmu, true);
	assert_touched(&r, 10, 5, 2, 12);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prebuild_links),
		cmocka_unit_test(test_prebuild_stale_child),
		cmocka_unit_test(test_prebuild_writable_table),
		cmocka_unit_test(test_prebuild_room),
		cmocka_unit_test(test_prebuild_young),
		cmocka_unit_test(test_prebuild_tree),
		cmocka_unit_test(test_prebuild_hostile_tree),
		cmocka_unit_test(test_link_ahead),
		cmocka_unit_test(test_fill_linear),
		cmocka_unit_test(test_samples),
		cmocka_unit_test(test_sample_share),
		cmocka_unit_test(test_touched),
	};

	return cmocka_run_group_tests_name("mmu: prebuilding", tests, NULL, NULL);
}
