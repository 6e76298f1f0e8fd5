/*
 * test_vmm_frames.c - types and users of guest frames: random programs of pins, links, stores and loads, after each of which
 * everything is counted anew, and nothing a processor could reach may be wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/frames.h"
#include "vmm/layout.h"

#define RAM	64u		/* frames */
#define P	(MMU_PTE_P | MMU_PTE_A | MMU_PTE_D)
#define W	MMU_PTE_W
#define MON	(RAM + 1)	/* first frame that is not the guest's */

static struct {
	uint64_t ram[RAM][MMU_ENTRIES] __attribute__((aligned(4096)));
	uint64_t hole[2][16];
	struct frames *f;
	unsigned changed, whole, retyped;
	gfn_t last_table;
	unsigned last_index;
} t;

static void on_changed(void *arg, gfn_t table, unsigned index)
{
	assert_ptr_equal(arg, &t);
	t.changed++;
	t.whole += index == MMU_ENTRIES;
	t.last_table = table;
	t.last_index = index;
}

static void on_retyped(void *arg)
{
	assert_ptr_equal(arg, &t);
	t.retyped++;
}

static const struct frames_owner owner = { on_changed, on_retyped };

static int set_up(void **state)
{
	memset(&t, 0, sizeof t);
	t.hole[MMU_KERNEL][2] = (uint64_t)(MON + 7) << 12 | P | W | MMU_PTE_U;
	t.hole[MMU_KERNEL][3] = t.hole[MMU_USER][3] = (uint64_t)(MON + 8) << 12 | P | W | MMU_PTE_U;
	return frames_create(&(struct frames_config){ .ram = t.ram, .ram_frames = RAM, .nr_gfns = RAM + 1,
						      .hole = t.hole, .owner = &owner }, &t.f);
}

static int tear_down(void **state)
{
	frames_destroy(t.f);
	return 0;
}

static gfn_t g(uint64_t n)
{
	return (gfn_t){ n };
}

static uint64_t pte(uint64_t frame, uint64_t bits)
{
	return frame << 12 | bits;
}

static void assert_sound(const gfn_t *held, unsigned nr)
{
	char why[128] = "";
	unsigned wrong = frames_audit(t.f, held, nr, NULL, 0, why, sizeof why);

	if (wrong)
		fail_msg("%u frames: %s", wrong, why);
}

/* 4 -> 3 -> 2 -> 1, a leaf that maps `leaf` writable, all in entry 5. */
static void build_chain(uint64_t leaf)
{
	t.ram[4][5] = pte(3, P | W);
	t.ram[3][5] = pte(2, P | W);
	t.ram[2][5] = pte(1, P | W);
	t.ram[1][5] = pte(leaf, P | W);
}

static void pinning_validates_the_tree(void **state)
{
	build_chain(20);
	assert_int_equal(frames_pin(t.f, g(4), 4, &t), 0);
	for (unsigned level = 1; level <= 4; level++) {
		assert_int_equal(frames_type(t.f, g(level)), level);
		assert_true(t.ram[level][5] & MMU_PTE_U);
	}
	assert_int_equal(frames_type(t.f, g(20)), FRAME_WRITABLE);
	assert_int_equal(t.ram[4][259], t.hole[MMU_USER][3]);
	assert_int_equal(t.ram[4][258], 0);
	assert_int_equal(t.whole, 4);
	assert_sound(NULL, 0);
	assert_int_equal(frames_pin(t.f, g(4), 4, &t), -EINVAL);
	assert_int_equal(frames_unpin(t.f, g(4)), 0);
	assert_int_equal(frames_unpin(t.f, g(4)), -EINVAL);
	for (unsigned level = 1; level <= 4; level++)
		assert_int_equal(frames_type(t.f, g(level)), FRAME_NONE);
	assert_int_equal(t.ram[4][259], 0);
	assert_sound(NULL, 0);
}

static void bad_trees_are_refused(void **state)
{
	static const struct {
		unsigned table, index;
		uint64_t entry;
	} bad[] = {
		{ 1, 6, (uint64_t)MON << 12 | P }, { 1, 6, (uint64_t)MON << 12 | P | W }, { 1, 6, 1ull << 51 | P },
		{ 1, 6, 1ull << 12 | P | W }, { 1, 511, 4ull << 12 | P | W }, { 2, 6, (uint64_t)RAM << 12 | P },
		{ 2, 6, 2ull << 12 | P }, { 2, 6, 20ull << 12 | P }, { 2, 6, 30ull << 12 | P | MMU_PTE_PS },
		{ 3, 6, 1ull << 12 | P }, { 4, 6, 4ull << 12 | P | W }, { 4, 6, 3ull << 12 | P | MMU_PTE_G },
		{ 4, 511, 1ull << 51 | P },
	};

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		uint64_t before[5][MMU_ENTRIES];

		build_chain(20);
		t.ram[4][260] = 0x1234;		/* in the hole: not looked at, and not touched */
		t.ram[bad[i].table][bad[i].index] = bad[i].entry;
		memcpy(before, t.ram, sizeof before);
		assert_int_equal(frames_pin(t.f, g(4), 4, &t), -EINVAL);
		for (unsigned gfn = 0; gfn < RAM; gfn++)
			assert_int_equal(frames_type(t.f, g(gfn)), FRAME_NONE);
		for (unsigned k = 0; k < 5 * MMU_ENTRIES; k++)
			assert_int_equal(((uint64_t *)t.ram)[k] & ~MMU_PTE_U, ((uint64_t *)before)[k] & ~MMU_PTE_U);
		assert_sound(NULL, 0);
		memset(t.ram, 0, sizeof t.ram);
	}
}

static void what_shared_info_may_be(void **state)
{
	t.ram[1][0] = pte(RAM, P | W);
	assert_int_equal(frames_pin(t.f, g(1), 1, &t), 0);
	assert_int_equal(frames_pin(t.f, g(RAM), 1, &t), -EINVAL);
	assert_int_equal(frames_get(t.f, g(RAM), FRAME_L4, &t), -EINVAL);
	assert_int_equal(frames_get(t.f, g(RAM), FRAME_WRITABLE, &t), 0);
	assert_int_equal(frames_get(t.f, g(MON), FRAME_WRITABLE, &t), -EINVAL);
	assert_int_equal(frames_store(t.f, g(RAM), 0, 0, false, &t), -EINVAL);
	frames_put(t.f, g(RAM), FRAME_WRITABLE);
	frames_put(t.f, g(MON + 1000000), FRAME_WRITABLE);
	assert_sound(NULL, 0);
}

static void changes_are_told(void **state)
{
	t.ram[1][0] = pte(20, P | W);
	assert_int_equal(frames_pin(t.f, g(1), 1, &t), 0);
	t.changed = 0;
	/* added, or only gained */
	assert_int_equal(frames_store(t.f, g(1), 1, pte(21, P), false, &t), 0);
	assert_int_equal(frames_store(t.f, g(1), 1, pte(21, P | W), false, &t), 0);
	assert_int_equal(t.changed, 0);
	/* lost: a right, D, A, the frame, itself, execution */
	static const uint64_t lost[] = { 21ull << 12 | P, 21ull << 12 | (P & ~MMU_PTE_D), 21ull << 12 | MMU_PTE_P,
					 22ull << 12 | MMU_PTE_P, 22ull << 12 | MMU_PTE_P | MMU_PTE_NX, 0 };
	for (unsigned i = 0; i < sizeof lost / sizeof *lost; i++) {
		assert_int_equal(frames_store(t.f, g(1), 1, lost[i], false, &t), 0);
		assert_int_equal(t.changed, i + 1);
		assert_int_equal(t.last_index, 1);
	}
	assert_int_equal(frames_store(t.f, g(1), 1, 5, true, &t), 0);
	assert_int_equal(frames_store(t.f, g(1), 0, pte(20, MMU_PTE_P | W), true, &t), 0);
	assert_int_equal(t.ram[1][0], pte(20, P | W | MMU_PTE_U));
	assert_int_equal(frames_exchange(t.f, g(1), 0, 1, 0, &t), -EAGAIN);
	assert_int_equal(frames_exchange(t.f, g(1), 0, t.ram[1][0], 0, &t), 0);
	assert_int_equal(t.ram[1][0], 0);
	assert_sound(NULL, 0);
}

/* A new type needs a flush unless there was one since the old one ended. */
static void flushes_between_types(void **state)
{
	assert_int_equal(frames_get(t.f, g(9), FRAME_WRITABLE, &t), 0);
	assert_int_equal(t.retyped, 0);		/* never used before */
	frames_put(t.f, g(9), FRAME_WRITABLE);
	assert_int_equal(frames_get(t.f, g(9), FRAME_WRITABLE, &t), 0);
	frames_put(t.f, g(9), FRAME_WRITABLE);
	assert_int_equal(t.retyped, 0);
	assert_int_equal(frames_pin(t.f, g(9), 1, &t), 0);
	assert_int_equal(t.retyped, 1);
	assert_int_equal(frames_unpin(t.f, g(9)), 0);
	/* plain stores to what may still be taken for a table count as a new use */
	assert_int_equal(frames_store(t.f, g(9), 3, pte(1, P | W), false, &t), 0);
	assert_int_equal(t.retyped, 2);
	assert_int_equal(frames_pin(t.f, g(9), 1, &t), 0);
	assert_int_equal(t.retyped, 3);
	assert_int_equal(frames_unpin(t.f, g(9)), 0);
	frames_flushed(t.f);
	assert_int_equal(frames_get(t.f, g(9), FRAME_WRITABLE, &t), 0);
	assert_int_equal(t.retyped, 3);
}

static void holes_by_mode(void **state)
{
	const gfn_t held[] = { g(4) };

	assert_int_equal(frames_get(t.f, g(4), FRAME_L4, &t), 0);
	frames_set_hole(t.f, g(4), MMU_KERNEL, &t);
	assert_int_equal(t.ram[4][258], t.hole[MMU_KERNEL][2]);
	t.changed = 0;
	t.ram[4][258] &= ~MMU_PTE_A;
	frames_set_hole(t.f, g(4), MMU_KERNEL, &t);
	assert_int_equal(t.changed, 0);
	frames_set_hole(t.f, g(4), MMU_USER, &t);
	assert_int_equal(t.ram[4][258], 0);
	assert_int_equal(t.changed, 1);
	for (unsigned i = 256; i < 272; i++)
		assert_int_equal(frames_store(t.f, g(4), i, 0, false, &t), -EINVAL);
	assert_sound(held, 1);
}

static uint64_t random64(uint64_t *s)
{
	*s ^= *s >> 12;
	*s ^= *s << 25;
	*s ^= *s >> 27;
	return *s * 0x2545f4914f6cdd1d;
}

/* What the guest itself could do to memory: store where a writable mapping lets it. */
static void guest_store(uint64_t gfn, unsigned index, uint64_t value)
{
	if (frames_type(t.f, g(gfn)) == FRAME_WRITABLE)
		t.ram[gfn][index] = value;
}

static void random_programs(void **state)
{
	const char *s = getenv("UMBRA_SEED"), *n = getenv("UMBRA_STEPS");
	uint64_t seed = s ? strtoull(s, NULL, 0) : 1, steps = n ? strtoull(n, NULL, 0) : 60000, done = 0;

	seed = seed * 0x9e3779b97f4a7c15 | 1;
	for (uint64_t round = 0; done < steps; round++) {
		gfn_t held[8];
		unsigned nr = 0;

		tear_down(NULL);
		set_up(NULL);
		for (unsigned i = 0; i < 400; i++, done++) {
			uint64_t r = random64(&seed), gfn = r >> 8 & 15, to = r >> 16 & 15;
			unsigned level = (r >> 24 & 3) + 1, index = (r >> 32) % 8 + (r >> 40 & 1 ? 255 : 0);
			uint64_t bits = r >> 44 & 0x1ff;

			if ((r >> 60) == 0)
				to = RAM + (r >> 48 & 3);
			switch (r % 8) {
			case 0:
				frames_pin(t.f, g(gfn), level, &t);
				break;
			case 1:
				frames_unpin(t.f, g(gfn));
				break;
			case 2:
				if (nr < 8 && !frames_get(t.f, g(gfn), FRAME_L4, &t))
					held[nr++] = g(gfn);
				break;
			case 3:
				if (nr)
					frames_put(t.f, held[--nr], FRAME_L4);
				break;
			case 4:
				if (nr)
					frames_set_hole(t.f, held[nr - 1], r >> 9 & 1, &t);
				break;
			case 5:
				guest_store(gfn, index, pte(to, bits));
				break;
			case 6:
				frames_exchange(t.f, g(gfn), index, frames_read(t.f, g(gfn), index), pte(to, bits), &t);
				break;
			case 7:
				frames_store(t.f, g(gfn), index, pte(to, bits), r >> 10 & 1, &t);
				break;
			}
			if (i % 8 == 0)
				assert_sound(held, nr);
		}
		while (nr)
			frames_put(t.f, held[--nr], FRAME_L4);
		for (unsigned gfn = 0; gfn < RAM; gfn++)
			frames_unpin(t.f, g(gfn));
		/* nobody uses anything any more */
		for (unsigned gfn = 0; gfn < RAM; gfn++)
			assert_int_equal(frames_type(t.f, g(gfn)), FRAME_NONE);
	}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(pinning_validates_the_tree),
		TEST(bad_trees_are_refused),
		TEST(what_shared_info_may_be),
		TEST(changes_are_told),
		TEST(flushes_between_types),
		TEST(holes_by_mode),
		TEST(random_programs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
