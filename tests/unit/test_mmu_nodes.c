/*
 * Shadow tables per node (mmu.h, mmu_config.nr_nodes): whose tables a processor walks, what is told to one node and
 * holds on all, and whose part of the pool they come from. Random programs do the same in every order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "mmu_program_internal.h"
#include "mmu_rig.h"

/* Processor 0 on node 0, processor 1 on node 1; both run the kernel and the user of root L4. */
static struct rig open_nodes(unsigned nodes, uint32_t pool_pages)
{
	struct rig r = rig_open((struct world_options){ .nx = true, .audit = 1, .cpus = 2, .nodes = nodes,
							.pool_pages = pool_pages });

	r.p->cpu = &r.w->cpus[1];
	program_load(r.p, MMU_KERNEL, L4);
	program_load(r.p, MMU_USER, L4);
	r.p->cpu = r.cpu;
	return r;
}

/* The next steps are those of processor `i`. */
static void run_on(struct rig *r, unsigned i)
{
	r->cpu = r->p->cpu = &r->w->cpus[i];
}

static bool in_part(struct rig *r, unsigned node, uint64_t mfn)
{
	uint32_t count;
	mfn_t first;

	mmu_pool_part(r->w->mmu, node, &first, &count);
	return mfn - first.n < count;
}

static void test_parts(void **state)
{
	struct rig r = open_nodes(3, 1000);
	uint64_t next = r.w->pool;
	uint32_t count;
	unsigned i;
	mfn_t first;

	for (i = 0; i < 3; i++) {
		mmu_pool_part(r.w->mmu, i, &first, &count);
		assert_int_equal(first.n, next);
		assert_int_equal(count, i < 2 ? 333 : 334);
		assert_int_equal(usage_of(&r).node[i].pool_pages, count);
		next += count;
	}
	mmu_pool_part(r.w->mmu, 3, &first, &count);
	assert_int_equal(count, 0);
	rig_close(&r);
}

static void test_own_tables(void **state)
{
	struct rig r = open_nodes(2, 1024);
	struct soft_walk walk;
	struct mmu_usage u;
	unsigned i, level;

	assert_int_not_equal(r.w->cpus[0].cr3[MMU_USER], r.w->cpus[1].cr3[MMU_USER]);
	for (i = 0; i < 2; i++) {
		run_on(&r, i);
		/* What the other node has is no help. */
		assert_int_equal(program_access(r.p, MMU_USER, VA(5), MMU_PF_W), MMU_HIDDEN);
		world_soft_walk(r.cpu, MMU_USER, VA(5), &walk);
		assert_true(walk.present && walk.w);
		for (level = 0; level < 4; level++)
			assert_true(in_part(&r, i, walk.src[level] >> 9));
	}
	u = usage_of(&r);
	assert_int_equal(u.nr_nodes, 2);
	for (i = 0; i < 2; i++) {
		assert_int_equal(u.node[i].tables, 5);		/* two roots, three tables that they share */
		assert_int_equal(u.node[i].pool_used, 5);
		assert_int_equal(u.node[i].tables_outside, 0);
	}
	assert_int_equal(u.leaves, 2);
	rig_close(&r);
}

/* What is done by one processor holds on all nodes when its kicks are done. */
static void test_one_guest(void **state)
{
	struct rig r = open_nodes(2, 1024);
	unsigned i;

	for (i = 0; i < 2; i++) {
		run_on(&r, i);
		program_access(r.p, MMU_USER, VA(3), MMU_PF_W);
		program_access(r.p, MMU_USER, VA(4), MMU_PF_W);
	}
	run_on(&r, 0);
	program_update(r.p, L1, 3, 0);
	program_update(r.p, L1, 4, (uint64_t)(DATA + 4) << 12 | (LEAF & ~MMU_PTE_W));
	run_on(&r, 1);
	assert_false(shadow_allows(&r, MMU_USER, VA(3), 0));
	assert_false(shadow_allows(&r, MMU_USER, VA(4), MMU_PF_W));
	assert_true(shadow_allows(&r, MMU_USER, VA(4), 0));
	program_check(r.p);

	/* A frame that becomes a table by node 1's walk is write-protected on node 0. */
	run_on(&r, 0);
	program_update(r.p, L1, 100, (uint64_t)(DATA + 60) << 12 | LEAF);
	assert_int_equal(program_access(r.p, MMU_KERNEL, VA(100), MMU_PF_W), MMU_HIDDEN);
	program_update(r.p, DATA + 60, 0, (uint64_t)DATA << 12 | LEAF);
	program_update(r.p, L2, 1, (uint64_t)(DATA + 60) << 12 | LINK);
	run_on(&r, 1);
	assert_int_equal(program_access(r.p, MMU_USER, 1ull << 21, 0), MMU_HIDDEN);
	run_on(&r, 0);
	assert_false(shadow_allows(&r, MMU_KERNEL, VA(100), MMU_PF_W));
	/* A table that was pinned goes from all nodes. */
	program_pin(r.p, L1, 1);
	program_unpin(r.p, L1);
	for (i = 0; i < 2; i++) {
		run_on(&r, i);
		assert_false(shadow_allows(&r, MMU_USER, VA(4), 0));
	}
	rig_close(&r);
}

/* A processor that moves finds its new node's tables at its next loads, and its old ones when it comes back. */
static void test_move(void **state)
{
	struct rig r = open_nodes(2, 1024);
	uint64_t home = r.cpu->cr3[MMU_USER];

	program_access(r.p, MMU_USER, VA(5), 0);
	world_set_node(r.cpu, 1);
	assert_int_equal(program_access(r.p, MMU_USER, VA(5), 0), MMU_SPURIOUS);
	assert_int_equal(program_access(r.p, MMU_USER, VA(6), 0), MMU_HIDDEN);
	assert_int_equal(usage_of(&r).node[1].tables, 2);	/* the roots that processor 1 has loaded */
	program_load(r.p, MMU_USER, L4);
	assert_true(in_part(&r, 1, r.cpu->cr3[MMU_USER]));
	assert_int_equal(program_access(r.p, MMU_USER, VA(5), 0), MMU_HIDDEN);
	world_set_node(r.cpu, 0);
	program_load(r.p, MMU_USER, L4);
	assert_int_equal(r.cpu->cr3[MMU_USER], home);
	assert_int_equal(program_access(r.p, MMU_USER, VA(6), 0), MMU_SPURIOUS);
	rig_close(&r);
}

/* What it used on its old node it finds on the new one. */
static void test_along(void **state)
{
	struct rig r = open_nodes(3, 3 * 512);
	struct mmu_cpu *cpu = r.cpu->cpu;
	unsigned i;

	for (i = 0; i < 10; i++)
		program_access(r.p, MMU_USER, VA(3 * i), MMU_PF_W);
	program_access(r.p, MMU_USER, VA2(60), 0);	/* the same tables by another way: counted once */
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, 3, 100), 0);	/* there it is */
	world_set_node(r.cpu, 2);
	program_load(r.p, MMU_USER, L4);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 2, 3, 100), 0);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 1, 3, 100), 0);	/* a root with nothing in it */
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 3, 3, 100), 0);	/* no such node */
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, MMU_SOURCES, 100), 0);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, 3, 0), 0);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_KERNEL, 2, 3, 100), 0);	/* that root has not moved */
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, 3, 4), 4);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, 3, 100), 7);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, 3, 100), 0);
	assert_false(mmu_kick_pending(cpu));
	assert_int_equal(stats_of(&r).prebuilt, 11);
	for (i = 0; i < 10; i++) {
		assert_int_equal(program_access(r.p, MMU_USER, VA(3 * i), MMU_PF_W), MMU_SPURIOUS);
		assert_false(shadow_allows(&r, MMU_USER, VA(3 * i + 1), 0));
	}
	assert_int_equal(program_access(r.p, MMU_USER, VA2(60), 0), MMU_SPURIOUS);
	assert_int_equal(usage_of(&r).node[2].tables, 4);
	program_load(r.p, MMU_USER, MMU_NO_GFN.n);
	assert_int_equal(mmu_prebuild_along(cpu, MMU_USER, 0, 3, 100), 0);
	rig_close(&r);
}

/* ---- prebuilding serves all nodes -------------------------------------------------------------------------------- */

static unsigned count_present(struct rig *r, unsigned cpu)
{
	unsigned i, n = 0;

	run_on(r, cpu);
	for (i = 0; i < 64; i++)
		n += shadow_allows(r, MMU_USER, VA(i), 0);
	return n;
}

static void test_prebuild_all(void **state)
{
	struct rig r = open_nodes(2, 1024);
	struct mmu_cpu *cpu = r.cpu->cpu;
	unsigned i;

	for (i = 0; i < 3; i++)
		assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L4 + i }, 0, 3, MMU_PB_TABLES), MMU_PB_BUILT);
	assert_int_equal(mmu_prebuild(cpu, (gfn_t){ L1 }, 9, 3, 0), MMU_PB_BUILT);
	assert_int_equal(stats_of(&r).prebuilt, 2);
	assert_int_equal(stats_of(&r).prebuilt_tables, 6);
	assert_false(mmu_kick_pending(cpu));
	for (i = 0; i < 2; i++) {
		run_on(&r, i);
		assert_int_equal(program_access(r.p, MMU_USER, VA(9), MMU_PF_W), MMU_SPURIOUS);
	}
	rig_close(&r);
}

static void test_tree_all(void **state)
{
	struct rig r = open_nodes(2, 1024);
	const gva_t first = { 0 }, last = { VA(63) };

	/* Both have a root: they share the budget. */
	assert_int_equal(mmu_prebuild_tree(r.cpu->cpu, (gfn_t){ L4 }, MMU_USER, first, last, 3, MMU_PB_TABLES, 20), 20);
	assert_int_equal(count_present(&r, 0), 10);
	assert_int_equal(count_present(&r, 1), 10);
	/* What the first has no use for is the second's. */
	run_on(&r, 0);
	program_update(r.p, L4, 1, 0);
	assert_int_equal(mmu_prebuild_tree(r.cpu->cpu, (gfn_t){ L4 }, MMU_USER, first, last, 3, 0, 10000), 108);
	assert_int_equal(count_present(&r, 0), 64);
	assert_int_equal(count_present(&r, 1), 64);
	rig_close(&r);
}

static bool clone_to_l4b(void *arg, const struct mmu_present *set)
{
	struct rig *r = arg;

	mmu_prebuild_set(r->cpu->cpu, (gfn_t){ L4B }, MMU_USER, set, 3, MMU_PB_TABLES);
	return true;
}

/* A child that nobody has loaded yet gets a root on the node of who prebuilds; its parent's working set is that of all. */
static void test_fork(void **state)
{
	struct rig r = open_nodes(2, 1024);
	struct mmu_usage u;
	unsigned i;

	/* L4B of the rig shares its tables with L4: give it some of its own. */
	program_update(r.p, 30, 0, 31ull << 12 | LINK);
	program_update(r.p, 31, 0, 32ull << 12 | LINK);
	for (i = 0; i < 64; i++)
		program_update(r.p, 32, i, (uint64_t)(DATA + i) << 12 | LEAF);
	program_update(r.p, L4B, 0, 30ull << 12 | LINK);
	program_pin(r.p, L4B, 4);

	run_on(&r, 0);
	program_access(r.p, MMU_USER, VA(1), 0);
	run_on(&r, 1);
	program_access(r.p, MMU_USER, VA(2), 0);
	u = usage_of(&r);
	assert_int_equal(mmu_present_set(r.cpu->cpu, (gfn_t){ L4 }, MMU_USER, (gva_t){ 0 }, (gva_t){ VA(511) }, clone_to_l4b,
					 &r), 2);
	assert_int_equal(usage_of(&r).node[0].tables, u.node[0].tables);
	assert_int_equal(usage_of(&r).node[1].tables, u.node[1].tables + 4);
	program_load(r.p, MMU_USER, L4B);
	assert_int_equal(program_access(r.p, MMU_USER, VA(1), 0), MMU_SPURIOUS);
	assert_int_equal(program_access(r.p, MMU_USER, VA(2), 0), MMU_SPURIOUS);
	rig_close(&r);
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

#define SPARSE(i)	(4ull << 39 | (uint64_t)(i) << 21)	/* an address with a leaf table of its own, the frame DATA + 100 + i */

static void map_sparse(struct rig *r, unsigned n)
{
	unsigned i;

	program_update(r->p, L4, 4, 50ull << 12 | LINK);
	program_update(r->p, 50, 0, 51ull << 12 | LINK);
	for (i = 0; i < n; i++) {
		program_update(r->p, 51, i, (uint64_t)(DATA + 100 + i) << 12 | LINK);
		program_update(r->p, DATA + 100 + i, 0, (uint64_t)DATA << 12 | LEAF);
	}
}

/* A node that needs more than its part reclaims there, and leaves the part of the other alone. */
static void test_reclaim_own_part(void **state)
{
	struct rig r = open_nodes(2, 2 * MMU_POOL_MIN);
	struct mmu_usage u;
	unsigned i;

	map_sparse(&r, 100);
	run_on(&r, 1);
	program_access(r.p, MMU_USER, VA(5), 0);
	u = usage_of(&r);
	run_on(&r, 0);
	for (i = 0; i < 100; i++)
		program_access(r.p, MMU_USER, SPARSE(i), 0);
	assert_true(stats_of(&r).reclaims >= 100 - MMU_POOL_MIN);
	assert_int_equal(usage_of(&r).node[1].tables, u.node[1].tables);
	assert_int_equal(usage_of(&r).node[1].pool_used, u.node[1].pool_used);
	assert_int_equal(usage_of(&r).node[0].tables_outside, 0);
	run_on(&r, 1);
	assert_int_equal(program_access(r.p, MMU_USER, VA(5), 0), MMU_SPURIOUS);
	rig_close(&r);
}

/* Roots in use cannot be reclaimed. With a part full of them the next table comes from another. */
static void test_foreign_part(void **state)
{
	struct rig r = open_nodes(2, 2 * MMU_POOL_MIN);
	struct mmu_cpu *cpus[MMU_POOL_MIN];
	unsigned i, n = 0, outside = 0;
	mfn_t root;

	for (i = 0; i < MMU_POOL_MIN; i++) {
		assert_int_equal(mmu_cpu_create(r.w->mmu, &cpus[n++]), 0);
		assert_int_equal(mmu_load(cpus[i], MMU_USER, (gfn_t){ DATA + 200 + i }, &root), 0);
		outside += !in_part(&r, 0, root.n);
	}
	assert_int_equal(outside, 2);		/* processor 0 has two roots there */
	assert_int_equal(usage_of(&r).node[0].tables_outside, 2);
	assert_int_equal(usage_of(&r).node[0].tables, MMU_POOL_MIN + 2);
	assert_int_equal(usage_of(&r).node[1].pool_used, 4);
	assert_int_equal(program_access(r.p, MMU_USER, VA(5), 0), MMU_HIDDEN);
	assert_int_equal(usage_of(&r).node[0].tables_outside, 5);
	while (n)
		mmu_cpu_destroy(cpus[--n]);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_own_tables),
		cmocka_unit_test(test_one_guest),
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_along),
		cmocka_unit_test(test_prebuild_all),
		cmocka_unit_test(test_tree_all),
		cmocka_unit_test(test_fork),
		cmocka_unit_test(test_reclaim_own_part),
		cmocka_unit_test(test_foreign_part),
	};

	return cmocka_run_group_tests_name("mmu: tables per node", tests, NULL, NULL);
}
