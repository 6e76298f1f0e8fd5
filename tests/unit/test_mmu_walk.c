/*
 * Every combination of rights on the way from root to leaf, every access, both modes: verdict and error code of
 * mmu_fault(), A and D afterwards and what the shadow then allows, all compared with the model (as access.c of
 * kvm-unit-tests does with a processor). The tables are rewritten in place, so each combination is also a change from
 * the one before it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "mmu_program.h"

#define NR_GFNS	1200u		/* not a multiple of 512: a large page can be partly out of range */
#define VA	0x0000008040402000ull	/* index 1, 1, 2, 2 */
#define L4	10u
#define TABLE(level) (14u - (level))	/* 10 .. 13 */
#define DATA	40u
#define LARGE	512u

#ifdef __SANITIZE_THREAD__
#define STRIDE	3u		/* one thread: nothing to find, only time to lose */
#else
#define STRIDE	1u
#endif

struct rig {
	struct world *w;
	struct world_cpu *cpu;
	struct program *p;
	uint64_t now[MMU_LEVELS + 1];	/* entries as written last; the fault may have added A and D since */
};

static unsigned long checked;

static void rig_open(struct rig *r, bool nx, bool large, unsigned audit)
{
	struct world_options wo = { .nr_gfns = NR_GFNS, .pool_pages = 256, .cpus = 1, .nx = nx, .large = large,
				    .preset_ad = large, .audit = audit };
	struct program_options po = { .seed = 1, .alone = true, .empty = true };

	*r = (struct rig){ .w = world_create(&wo) };
	r->cpu = &r->w->cpus[0];
	r->p = program_create(r->w, &r->cpu, 1, &po);
	program_load(r->p, MMU_KERNEL, L4);
	program_load(r->p, MMU_USER, L4);
}

static void rig_close(struct rig *r)
{
	program_finish(r->p, true);
	program_destroy(r->p);
	world_destroy(r->w);
}

static void rig_set(struct rig *r, unsigned level, uint64_t gpte)
{
	unsigned index = model_index(VA, level);

	if (world_read(r->w, TABLE(level), index) != gpte)
		program_update(r->p, TABLE(level), index, gpte);
	r->now[level] = gpte;
}

static void rig_access_all(struct rig *r, unsigned leaf_level)
{
	static const uint32_t accesses[] = { 0, MMU_PF_W, MMU_PF_FETCH, MMU_PF_W | MMU_PF_FETCH };
	unsigned i, level;
	int mode;

	for (mode = MMU_KERNEL; mode <= MMU_USER; mode++) {
		for (i = 0; i < 4; i++) {
			program_access(r->p, mode, VA, accesses[i]);
			checked++;
			for (level = 4; level >= leaf_level; level--)
				rig_set(r, level, r->now[level]);	/* A and D as they were */
			program_kick(r->p);
		}
	}
}

/* 4 bits: W, U, NX, A. */
static uint64_t rights(unsigned bits)
{
	return MMU_PTE_P | (bits & 1 ? MMU_PTE_W : 0) | (bits & 2 ? MMU_PTE_U : 0) | (bits & 4 ? MMU_PTE_NX : 0) |
	       (bits & 8 ? MMU_PTE_A : 0);
}

static uint64_t leaf_entry(unsigned level, unsigned bits, bool d)
{
	uint64_t base = level == 1 ? DATA : level == 2 ? LARGE : 0;

	return rights(bits) | base << 12 | (level > 1 ? MMU_PTE_PS : 0) | (d ? MMU_PTE_D : 0);
}

/* All rights of the levels from `level` down to the leaf. */
static void combine(struct rig *r, unsigned level, unsigned leaf_level)
{
	unsigned bits;

	if (level == leaf_level) {
		for (bits = 0; bits < 32; bits++) {
			rig_set(r, level, leaf_entry(level, bits & 15, bits & 16));
			rig_access_all(r, leaf_level);
		}
		return;
	}
	for (bits = 0; bits < 16; bits += STRIDE) {
		rig_set(r, level, rights(bits) | (uint64_t)TABLE(level - 1) << 12);
		combine(r, level - 1, leaf_level);
	}
}

static void test_rights(bool nx, bool large, unsigned audit, unsigned leaf_level)
{
	struct rig r;

	rig_open(&r, nx, large, audit);
	combine(&r, 4, leaf_level);
	rig_close(&r);
}

static void test_rights_4k(void **state)
{
	test_rights(true, false, 0, 1);
}

static void test_rights_2m(void **state)
{
	test_rights(true, false, 1, 2);
	test_rights(true, true, 1, 2);
}

static void test_rights_1g(void **state)
{
	test_rights(true, false, 1, 3);
	test_rights(true, true, 1, 3);
}

static void test_rights_no_nx(void **state)
{
	test_rights(false, true, 1, 2);
	test_rights(false, false, 1, 3);
}

/* One level gets a special entry, the others every right or none; after each the plain tables have to work again. */
static void try_special(struct rig *r, unsigned leaf_level, unsigned level, uint64_t special)
{
	unsigned others, l;

	for (others = 0; others < 16; others++) {
		for (l = 4; l >= leaf_level; l--) {
			uint64_t gpte = l == leaf_level ? leaf_entry(l, others, others & 1) :
					rights(others) | (uint64_t)TABLE(l - 1) << 12;

			rig_set(r, l, l == level ? special : gpte);
		}
		rig_access_all(r, leaf_level);
	}
}

static void try_specials(struct rig *r, unsigned leaf_level)
{
	unsigned level, bits, b;

	for (level = 4; level >= leaf_level; level--) {
		uint64_t target = level == leaf_level ? leaf_entry(level, 0, false) & ~MMU_PTE_P :
				  (uint64_t)TABLE(level - 1) << 12;

		for (bits = 0; bits < 16; bits++) {
			uint64_t gpte = target | rights(bits);

			try_special(r, leaf_level, level, gpte & ~MMU_PTE_P);
			/* Frames the guest does not own. */
			try_special(r, leaf_level, level, (gpte & ~MMU_PTE_ADDR) | 0x000fffffffe00000ull);
			try_special(r, leaf_level, level, (gpte & ~MMU_PTE_ADDR) | (uint64_t)(NR_GFNS & ~511u) << 12);
			if (level == 1 || level > leaf_level) {
				try_special(r, leaf_level, level, (gpte & ~MMU_PTE_ADDR) | (uint64_t)NR_GFNS << 12);
				try_special(r, leaf_level, level, (gpte & ~MMU_PTE_ADDR) | (uint64_t)(NR_GFNS - 1) << 12);
			}
		}
		/* One bit at a time: reserved in large pages, ignored elsewhere, available to software everywhere. */
		for (b = 9; b < 63; b++)
			if (b < 30 || b >= 52)
				try_special(r, leaf_level, level, target | rights(15) | MMU_PTE_D | 1ull << b);
		try_special(r, leaf_level, level, target | rights(15) | MMU_PTE_PWT | MMU_PTE_PCD);
		if (level == 4 || level == 1)	/* reserved; PAT */
			try_special(r, leaf_level, level, target | rights(15) | MMU_PTE_PS);
		if (level == leaf_level)
			try_special(r, leaf_level, level, target | rights(15) | MMU_PTE_G);
	}
}

static void test_special_entries(void **state)
{
	struct rig r;
	unsigned leaf_level;
	int large;

	for (leaf_level = 1; leaf_level <= 3; leaf_level++) {
		for (large = 0; large < 2; large++) {
			rig_open(&r, large, large, 1);
			try_specials(&r, leaf_level);
			rig_close(&r);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rights_4k),
		cmocka_unit_test(test_rights_2m),
		cmocka_unit_test(test_rights_1g),
		cmocka_unit_test(test_rights_no_nx),
		cmocka_unit_test(test_special_entries),
	};
	int failed = cmocka_run_group_tests_name("mmu: permissions", tests, NULL, NULL);

	printf("%lu combinations of tables, mode and access\n", checked);
	return failed;
}
