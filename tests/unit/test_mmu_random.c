/*
 * Seeded random programs on one thread: with the audit off for many steps, with it at level 3 for fewer, and with a
 * pool too small for what the program uses; with tables for one, two and three nodes. UMBRA_SEED and UMBRA_STEPS choose others; a failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "mmu_program.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 3
#elif defined(__SANITIZE_THREAD__)
#define SCALE 10
#else
#define SCALE 1
#endif

#define NR_GFNS	1200u

static void random_options(uint64_t seed, struct world_options *o)
{
	static const unsigned kick_min[] = { 0, 4, 64 };
	uint64_t rng = seed * 0x9e3779b97f4a7c15ull;

	*o = (struct world_options){ .nr_gfns = NR_GFNS, .seed = seed, .serial = true };
	o->fill = rng_below(&rng, 2);
	o->prefetch = rng_below(&rng, 4);
	o->prefetch_n = 1 + rng_below(&rng, rng_percent(&rng, 20) ? 511 : 20);
	o->large = rng_below(&rng, 2);
	o->nx = rng_percent(&rng, 85);
	o->preset_ad = rng_below(&rng, 2);
	o->table_kick_min = kick_min[rng_below(&rng, 3)];
	o->cpus = 1 + rng_below(&rng, 2);
	o->sample_every = rng_below(&rng, 4);
	o->link_ahead = rng_below(&rng, 2);
	o->fill_linear = rng_below(&rng, 2);
	o->nodes = 1 + seed % 3;
	o->reach = seed / 3 % 2;
	if (o->nodes > 1)
		o->cpus = 2 + rng_below(&rng, 2);
}

static void run_program(uint64_t seed, uint32_t pool_pages, unsigned audit, uint64_t nr_steps)
{
	struct program_options po = { .seed = seed, .alone = true, .global = true, .huge = true, .remap = true };
	struct world_cpu *cpus[WORLD_CPUS];
	struct world_options wo;
	struct program *p;
	struct world *w;
	unsigned c;

	random_options(seed, &wo);
	wo.pool_pages = pool_pages * wo.nodes;
	wo.audit = audit;
	w = world_create(&wo);
	for (c = 0; c < wo.cpus; c++)
		cpus[c] = &w->cpus[c];
	p = program_create(w, cpus, wo.cpus, &po);
	program_run(p, nr_steps);
	program_finish(p, true);
	program_destroy(p);
	world_destroy(w);
}

/* `runs` programs that share `nr_steps`. */
static void run_programs(uint64_t first_seed, unsigned runs, uint32_t pool_pages, unsigned audit, uint64_t nr_steps)
{
	uint64_t one = env_number("UMBRA_SEED", 0);
	unsigned i;

	nr_steps = env_number("UMBRA_STEPS", nr_steps / SCALE / (one ? 1 : runs));
	if (one) {
		run_program(one, pool_pages, audit, nr_steps);
		return;
	}
	for (i = 0; i < runs; i++)
		run_program(first_seed + i, pool_pages, audit, nr_steps);
}

static void test_many_steps(void **state)
{
	run_programs(1000, 24, 512, 0, 600000);
}

static void test_small_pool(void **state)
{
	run_programs(2000, 24, MMU_POOL_MIN, 0, 300000);
}

static void test_audit_entries(void **state)
{
	run_programs(3000, 12, 512, 1, 120000);
}

static void test_audit_all(void **state)
{
	run_programs(4000, 12, 512, 3, 24000);
}

static void test_audit_all_small_pool(void **state)
{
	run_programs(5000, 12, MMU_POOL_MIN + 8, 3, 24000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_steps),
		cmocka_unit_test(test_small_pool),
		cmocka_unit_test(test_audit_entries),
		cmocka_unit_test(test_audit_all),
		cmocka_unit_test(test_audit_all_small_pool),
	};

	return cmocka_run_group_tests_name("mmu: random programs", tests, NULL, NULL);
}
