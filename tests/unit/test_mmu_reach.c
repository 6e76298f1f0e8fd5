/*
 * test_mmu_reach.c - whom a kick concerns: the cpus that may have walked the table, and no others.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mmu_world.h"

#define LINK	(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A)
#define LEAF	(LINK | MMU_PTE_D)
#define ROOT(p)		(16u * (p))	/* of process p: a tree of its own, one page in use */
#define TABLE(p, level)	(ROOT(p) + 4 - (level))
#define PAGE(p)		(ROOT(p) + 8u)
#define KERNEL_SLOT	300u
#define KERNEL_L3	200u		/* what all processes link in the kernel's half */
#define CPUS		3u

struct reach {
	struct world *w;
	struct mmu *mmu;
	struct mmu_cpu *cpu[CPUS];
};

static void put(struct reach *r, unsigned by, uint64_t table, unsigned index, uint64_t gpte)
{
	assert_int_equal(mmu_update(r->cpu[by], (gfn_t){ table }, index, gpte, false), 0);
}

static struct reach open_reach(bool reach)
{
	struct world_options wo = { .nr_gfns = 1024, .pool_pages = 128, .cpus = CPUS, .nx = true, .serial = true, .reach = reach };
	struct reach r = { .w = world_create(&wo) };

	r.mmu = r.w->mmu;
	for (unsigned c = 0; c < CPUS; c++)
		r.cpu[c] = r.w->cpus[c].cpu;
	for (unsigned p = 1; p < 4; p++) {
		for (unsigned level = 4; level > 1; level--)
			put(&r, 0, TABLE(p, level), 0, (uint64_t)TABLE(p, level - 1) << 12 | LINK);
		put(&r, 0, TABLE(p, 1), 0, (uint64_t)PAGE(p) << 12 | LEAF);
		put(&r, 0, ROOT(p), KERNEL_SLOT, (uint64_t)KERNEL_L3 << 12 | LINK);
	}
	put(&r, 0, KERNEL_L3, 0, (uint64_t)(KERNEL_L3 + 1) << 12 | LINK);
	put(&r, 0, KERNEL_L3 + 1, 0, (uint64_t)(KERNEL_L3 + 2) << 12 | LINK);
	put(&r, 0, KERNEL_L3 + 2, 0, (uint64_t)(KERNEL_L3 + 3) << 12 | LEAF);
	return r;
}

static void close_reach(struct reach *r)
{
	for (unsigned c = 0; c < CPUS; c++)
		world_kick(&r->w->cpus[c]);
	world_destroy(r->w);
}

/* Loads without the word that the processor is in: it may still walk the root before. */
static void load_only(struct reach *r, unsigned c, enum mmu_mode mode, uint64_t root)
{
	mfn_t frame;

	assert_int_equal(mmu_load(r->cpu[c], mode, (gfn_t){ root }, &frame), 0);
}

static void load(struct reach *r, unsigned c, enum mmu_mode mode, uint64_t root)
{
	load_only(r, c, mode, root);
	mmu_entered(r->cpu[c]);
}

static void touch(struct reach *r, unsigned c, enum mmu_mode mode, uint64_t va)
{
	struct mmu_result res = mmu_fault(r->cpu[c], mode, (gva_t){ va }, 0);

	assert_true(res.verdict == MMU_HIDDEN || res.verdict == MMU_SPURIOUS);
}

/* Bit per cpu that the kicks owed by `c` concern, its own aside. */
static uint64_t concerned(struct reach *r, unsigned c)
{
	struct mmu_kick k[64];
	uint64_t cpus = 0;
	unsigned n, any = 0;

	while ((n = mmu_kick_next(r->cpu[c], k, 64)))
		for (any = 1; n--; )
			cpus |= k[n].cpus;
	mmu_kick_done(r->cpu[c]);
	assert_true(any);
	return cpus & ((1u << CPUS) - 1) & ~(1ull << mmu_cpu_number(r->cpu[c]));
}

/* Takes the page of process `p` away by cpu `c` and gives it back. */
static uint64_t unmap(struct reach *r, unsigned c, unsigned p)
{
	uint64_t cpus;

	put(r, c, TABLE(p, 1), 0, 0);
	cpus = concerned(r, c);
	put(r, c, TABLE(p, 1), 0, (uint64_t)PAGE(p) << 12 | LEAF);
	touch(r, c, MMU_KERNEL, 0);
	return cpus;
}

static void test_only_who_has_the_root(void **state)
{
	struct reach r = open_reach(true);

	for (unsigned c = 0; c < CPUS; c++) {
		load(&r, c, MMU_KERNEL, ROOT(c + 1));
		touch(&r, c, MMU_KERNEL, 0);
	}
	assert_int_equal(unmap(&r, 0, 1), 0);
	load(&r, 1, MMU_KERNEL, ROOT(1));
	assert_int_equal(unmap(&r, 0, 1), 0);		/* a root of its own, that links nothing yet */
	touch(&r, 1, MMU_KERNEL, 0);
	assert_int_equal(unmap(&r, 0, 1), 1u << 1);
	load(&r, 2, MMU_USER, ROOT(1));
	touch(&r, 2, MMU_USER, 0);
	assert_int_equal(unmap(&r, 0, 1), 1u << 1 | 1u << 2);
	load(&r, 2, MMU_KERNEL, ROOT(1));
	load(&r, 1, MMU_KERNEL, ROOT(2));
	assert_int_equal(unmap(&r, 2, 1), 1u << 0);
	load(&r, 1, MMU_USER, ROOT(1));			/* shared with cpu 2, and linked already */
	assert_int_equal(unmap(&r, 2, 1), 1u << 0 | 1u << 1);
	close_reach(&r);
}

/* Between the load and the entry the processor still has what the root before showed. */
static void test_until_it_is_in(void **state)
{
	struct reach r = open_reach(true);

	load(&r, 0, MMU_KERNEL, ROOT(1));
	touch(&r, 0, MMU_KERNEL, 0);
	load(&r, 1, MMU_KERNEL, ROOT(1));
	touch(&r, 1, MMU_KERNEL, 0);
	load_only(&r, 1, MMU_KERNEL, ROOT(2));
	assert_int_equal(unmap(&r, 0, 1), 1u << 1);
	mmu_entered(r.cpu[1]);
	assert_int_equal(unmap(&r, 0, 1), 0);
	close_reach(&r);
}

/* The other mode's root links the same tables. */
static void test_kept_by_the_other_mode(void **state)
{
	struct reach r = open_reach(true);

	load(&r, 0, MMU_KERNEL, ROOT(1));
	touch(&r, 0, MMU_KERNEL, 0);
	load(&r, 1, MMU_KERNEL, ROOT(1));
	load(&r, 1, MMU_USER, ROOT(1));
	touch(&r, 1, MMU_KERNEL, 0);
	touch(&r, 1, MMU_USER, 0);
	load(&r, 1, MMU_KERNEL, ROOT(2));
	assert_int_equal(unmap(&r, 0, 1), 1u << 1);
	load(&r, 1, MMU_USER, ROOT(2));
	assert_int_equal(unmap(&r, 0, 1), 0);
	close_reach(&r);
}

/* A link that is gone does not say that nobody walked it. */
static void test_links_are_remembered(void **state)
{
	struct reach r = open_reach(true);

	load(&r, 0, MMU_KERNEL, ROOT(1));
	touch(&r, 0, MMU_KERNEL, 0);
	load(&r, 1, MMU_KERNEL, ROOT(2));
	put(&r, 0, ROOT(2), 1, (uint64_t)TABLE(1, 3) << 12 | LINK);
	touch(&r, 1, MMU_KERNEL, 1ull << 39);
	put(&r, 1, ROOT(2), 1, 0);
	assert_int_equal(unmap(&r, 0, 1), 1u << 1);
	close_reach(&r);
}

static void test_the_kernels_half_is_everybodys(void **state)
{
	struct reach r = open_reach(true);

	for (unsigned c = 0; c < CPUS; c++)
		load(&r, c, MMU_KERNEL, ROOT(c + 1));
	touch(&r, 0, MMU_KERNEL, 0xffff800000000000 | (uint64_t)KERNEL_SLOT << 39);
	put(&r, 0, KERNEL_L3 + 2, 0, 0);
	assert_int_equal(concerned(&r, 0), 1u << 1 | 1u << 2);
	close_reach(&r);
}

/* A leaf table of two processes, by their own tables above it. */
static void test_shared_below(void **state)
{
	struct reach r = open_reach(true);

	put(&r, 0, TABLE(2, 2), 1, (uint64_t)TABLE(1, 1) << 12 | LINK);
	for (unsigned c = 0; c < CPUS; c++)
		load(&r, c, MMU_KERNEL, ROOT(c + 1));
	touch(&r, 0, MMU_KERNEL, 0);
	assert_int_equal(unmap(&r, 0, 1), 0);
	touch(&r, 1, MMU_KERNEL, 1ull << 21);
	assert_int_equal(unmap(&r, 0, 1), 1u << 1 | 1u << 2);
	close_reach(&r);
}

static void test_everybody_unless_asked(void **state)
{
	struct reach r = open_reach(false);

	load(&r, 0, MMU_KERNEL, ROOT(1));
	load(&r, 1, MMU_KERNEL, ROOT(2));
	touch(&r, 0, MMU_KERNEL, 0);
	assert_int_equal(unmap(&r, 0, 1), 1u << 1 | 1u << 2);
	close_reach(&r);
}

static void test_numbers(void **state)
{
	struct reach r = open_reach(true);
	struct mmu_cpu *more[MMU_MAX_CPUS], *one;
	uint64_t seen = 0;
	unsigned n;

	for (n = 0; n < MMU_MAX_CPUS - CPUS; n++) {
		assert_int_equal(mmu_cpu_create(r.mmu, &more[n]), 0);
		seen |= 1ull << mmu_cpu_number(more[n]);
	}
	for (unsigned c = 0; c < CPUS; c++)
		seen |= 1ull << mmu_cpu_number(r.cpu[c]);
	assert_true(seen == MMU_CPUS_ALL >> 1);
	assert_int_equal(mmu_cpu_create(r.mmu, &one), -EUSERS);
	mmu_cpu_destroy(more[7]);
	assert_int_equal(mmu_cpu_create(r.mmu, &more[7]), 0);
	while (n)
		mmu_cpu_destroy(more[--n]);
	close_reach(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_who_has_the_root),
		cmocka_unit_test(test_until_it_is_in),
		cmocka_unit_test(test_kept_by_the_other_mode),
		cmocka_unit_test(test_links_are_remembered),
		cmocka_unit_test(test_the_kernels_half_is_everybodys),
		cmocka_unit_test(test_shared_below),
		cmocka_unit_test(test_everybody_unless_asked),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
