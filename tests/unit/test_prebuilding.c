/* The helper thread on a real MMU: it builds what it is told of, counts, sleeps, wakes and ends. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "helper/helper.h"

#define RAM_FRAMES	64u
#define POOL_FRAMES	64u
#define RING		16u
#define L1_GFN		4u
#define BITS		(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D)

struct fixture {
	uint64_t *memory;		/* RAM, then pool */
	struct mmu *mmu;
	struct mmu_cpu *cpu;
	struct helper *helper;
	struct helper_event ring[RING];
	_Atomic uint32_t head;
	uint32_t tail;
	atomic_uint watched, unwatched;
};

static uint64_t *frame(struct fixture *f, unsigned n)
{
	return f->memory + n * 512;
}

static unsigned ring_read(void *arg, struct helper_event *out, unsigned max, uint64_t *lost)
{
	struct fixture *f = arg;
	uint32_t head = atomic_load(&f->head);
	unsigned n = 0;

	if (head - f->tail > RING) {
		*lost += head - f->tail - RING;
		f->tail = head - RING;
	}
	while (f->tail != head && n < max)
		out[n++] = f->ring[f->tail++ % RING];
	return n;
}

static void watching(void *arg, bool yes)
{
	struct fixture *f = arg;

	atomic_fetch_add(yes ? &f->watched : &f->unwatched, 1);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct mmu_region region = { .first = { 0 }, .count = RAM_FRAMES + POOL_FRAMES };
	struct mmu_config c = { .regions = &region, .nr_regions = 1, .nr_gfns = RAM_FRAMES, .pool = { RAM_FRAMES },
				.pool_pages = POOL_FRAMES, .nx = true, .preset_ad = true };
	mfn_t root;

	f->memory = aligned_alloc(4096, (RAM_FRAMES + POOL_FRAMES) * 4096);
	memset(f->memory, 0, (RAM_FRAMES + POOL_FRAMES) * 4096);
	region.hva = f->memory;
	assert_int_equal(mmu_create(&c, &f->mmu), 0);
	assert_int_equal(mmu_cpu_create(f->mmu, &f->cpu), 0);
	for (unsigned level = 0; level < 3; level++)	/* frames 1, 2, 3 lead to the leaf table 4 */
		frame(f, 1 + level)[0] = (2ull + level) << 12 | BITS;
	frame(f, L1_GFN)[0] = 8ull << 12 | BITS;
	assert_int_equal(mmu_load(f->cpu, MMU_KERNEL, (gfn_t){ 1 }, &root), 0);
	/* a fault, so that the leaf table has a shadow to prebuild into */
	assert_int_equal(mmu_fault(f->cpu, MMU_KERNEL, (gva_t){ 0 }, 0).verdict, MMU_HIDDEN);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct helper_stats ignored;
	struct mmu_kick k[8];

	helper_stop(f->helper, &ignored);
	while (mmu_kick_next(f->cpu, k, 8))
		;
	mmu_kick_done(f->cpu);
	mmu_cpu_destroy(f->cpu);
	mmu_destroy(f->mmu);
	free(f->memory);
	free(f);
	return 0;
}

static void start(struct fixture *f, const char *heuristic, unsigned spin_us)
{
	struct helper_source source = { .read = ring_read, .watching = watching, .arg = f };
	struct helper_config c = { .mmu = f->mmu, .sources = &source, .nr_sources = 1, .nr_heuristics = 1,
				   .spin_us = spin_us, .yield_us = spin_us };
	char why[128];

	assert_int_equal(heuristic_parse(heuristic, &c.heuristics[0], why, sizeof why), 0);
	assert_int_equal(helper_start(&c, &f->helper), 0);
}

/* The guest stores an entry and says so. */
static void guest_writes(struct fixture *f, unsigned index, uint64_t gpte)
{
	uint32_t head = atomic_load(&f->head);

	__atomic_store_n(&frame(f, L1_GFN)[index], gpte, __ATOMIC_SEQ_CST);
	f->ring[head % RING] = (struct helper_event){ .kind = HELPER_UPDATE, .table = { L1_GFN }, .index = index };
	atomic_store(&f->head, head + 1);
	helper_wake(f->helper);
}

static struct helper_stats wait_for_updates(struct fixture *f, uint64_t updates)
{
	struct helper_stats s;

	for (unsigned i = 0; i < 20000; i++) {
		helper_stats(f->helper, &s);
		if (s.events[HELPER_UPDATE] + s.lost >= updates && s.heuristics[0].issued >= s.events[HELPER_UPDATE])
			return s;
		usleep(1000);
		helper_wake(f->helper);		/* it may have gone to sleep in between */
	}
	fail_msg("the thread saw %llu of %llu updates", (unsigned long long)s.events[HELPER_UPDATE], (unsigned long long)updates);
	return s;
}

static enum mmu_verdict touch(struct fixture *f, unsigned index)
{
	return mmu_fault(f->cpu, MMU_KERNEL, (gva_t){ index * 4096ull }, 0).verdict;
}

static void builds_what_the_guest_wrote(void **state)
{
	struct fixture *f = *state;
	struct helper_stats s;

	start(f, "update,young=0", 1000);
	for (unsigned i = 1; i <= 8; i++)
		guest_writes(f, i, (uint64_t)(8 + i) << 12 | BITS);
	guest_writes(f, 20, 0);				/* nothing to build */
	guest_writes(f, 21, (9ull << 12 | BITS) & ~MMU_PTE_A);	/* not accessed: not to be guessed */
	s = wait_for_updates(f, 10);
	helper_stop(f->helper, &s);
	f->helper = NULL;
	assert_int_equal(s.heuristics[0].issued, 10);
	assert_int_equal(s.heuristics[0].built, 8);
	assert_int_equal(s.heuristics[0].nothing, 2);
	for (unsigned i = 1; i <= 8; i++)
		assert_int_equal(touch(f, i), MMU_SPURIOUS);	/* there before the fault */
	assert_int_equal(touch(f, 21), MMU_HIDDEN);
	assert_int_equal(touch(f, 22), MMU_TRUE);
}

static void window_builds_around(void **state)
{
	struct fixture *f = *state;
	struct helper_stats s;

	for (unsigned i = 8; i < 16; i++)
		frame(f, L1_GFN)[i] = (uint64_t)(i + 8) << 12 | BITS;
	start(f, "window,aligned=8,on=2", 1000);
	guest_writes(f, 11, 30ull << 12 | BITS);
	for (unsigned i = 0; i < 20000; i++) {
		helper_stats(f->helper, &s);
		if (s.heuristics[0].issued == 7)
			break;
		usleep(1000);
	}
	helper_stop(f->helper, &s);
	f->helper = NULL;
	assert_int_equal(s.heuristics[0].issued, 7);
	assert_int_equal(s.heuristics[0].built, 7);
	assert_int_equal(touch(f, 15), MMU_SPURIOUS);
	assert_int_equal(touch(f, 11), MMU_HIDDEN);	/* the window leaves out the entry itself */
}

static void sleeps_and_wakes(void **state)
{
	struct fixture *f = *state;
	struct helper_stats s = { 0 };

	start(f, "update", 50);
	for (unsigned i = 0; i < 20000 && !s.sleeps; i++) {
		usleep(1000);
		helper_stats(f->helper, &s);
	}
	assert_true(s.sleeps > 0);
	assert_true(atomic_load(&f->unwatched) > 0);	/* it said that it no longer looks */
	guest_writes(f, 1, 9ull << 12 | BITS);
	s = wait_for_updates(f, 1);
	assert_int_equal(s.heuristics[0].built, 1);
	assert_true(atomic_load(&f->watched) >= 2);
}

static void an_overrun_is_counted(void **state)
{
	struct fixture *f = *state;
	struct helper_stats s;

	for (unsigned i = 0; i < RING; i++)
		f->ring[i] = (struct helper_event){ .kind = HELPER_UPDATE, .table = { L1_GFN }, .index = i };
	atomic_store(&f->head, RING * 3);
	start(f, "update", 1000);
	s = wait_for_updates(f, RING * 3);
	assert_int_equal(s.lost, RING * 2);
	assert_int_equal(s.events[HELPER_UPDATE], RING);
}

static void wild_updates_do_no_harm(void **state)
{
	struct fixture *f = *state;
	struct helper_stats s;

	for (unsigned i = 0; i < RING; i++)
		f->ring[i] = (struct helper_event){ .kind = HELPER_UPDATE, .table = { i % 2 ? ~0ull >> i : 1ull << (i * 3) },
						    .index = i % 3 ? 511 - i : 256 + i };
	atomic_store(&f->head, RING);
	start(f, "update", 1000);
	s = wait_for_updates(f, RING);
	assert_int_equal(s.heuristics[0].built, 0);
	assert_int_equal(s.heuristics[0].nothing + s.heuristics[0].nowhere, RING);
}

static void heuristics_are_parsed(void **state)
{
	struct heuristic_config c;
	char why[128];

	assert_int_equal(heuristic_parse("window,ahead=32,aligned=1", &c, why, sizeof why), 0);
	assert_string_equal(c.name, "window");
	assert_int_equal(c.value[0], 1);
	assert_int_equal(c.value[1], 0);
	assert_int_equal(c.value[2], 32);
	for (const char **p = (const char *[]){ "", ",", "nosuch", "window,ahead", "window,ahead=", "window,ahead=512",
						"window,ahead=-1", "window,ahead=1x", "window,nosuch=1", "update,n=1",
						"window,ahead=99999999999999999999", NULL }; *p; p++) {
		why[0] = '\0';
		assert_int_not_equal(heuristic_parse(*p, &c, why, sizeof why), 0);
		assert_true(why[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(heuristics_are_parsed),
		cmocka_unit_test_setup_teardown(builds_what_the_guest_wrote, setup, teardown),
		cmocka_unit_test_setup_teardown(window_builds_around, setup, teardown),
		cmocka_unit_test_setup_teardown(sleeps_and_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(an_overrun_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(wild_updates_do_no_harm, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
