/* Replays: small traces with a known outcome, invariants over random ones, the same counts every time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "helper/replay.h"

#define ROOT	10u
#define L3	11u
#define L2	12u
#define L1	13u
#define DATA	100u
#define LEAF	(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D)
#define US	1000ull

struct story {
	struct trace_log log;
	struct trace_item items[4096];
	struct trace_entry entries[4096];
	uint64_t now_ns;
};

static struct helper_event *add(struct story *s, enum helper_event_kind kind)
{
	struct trace_item *item = &s->items[s->log.nr_items++];

	assert_true(s->log.nr_items <= 4096);
	*item = (struct trace_item){ .kind = TRACE_EVENT, .event = { .kind = kind, .time_ns = s->now_ns } };
	s->log.items = s->items;
	s->log.entries = s->entries;
	s->log.config = (char *)"{}";
	return &item->event;
}

static void add_table(struct story *s, unsigned table, unsigned level, unsigned index, uint64_t gpte)
{
	struct helper_event *e = add(s, HELPER_PIN);

	e->table.n = table;
	e->level = level;
	e = add(s, HELPER_PIN);
	e->table.n = table;
	e->level = level;
	s->items[s->log.nr_items - 1].kind = TRACE_TABLE;
	s->items[s->log.nr_items - 1].first = s->log.nr_entries;
	if (!gpte)
		return;
	s->items[s->log.nr_items - 1].count = 1;
	s->entries[s->log.nr_entries++] = (struct trace_entry){ gpte, index };
}

static void add_update(struct story *s, unsigned index, uint64_t gpte)
{
	struct helper_event *e = add(s, HELPER_UPDATE);

	e->table.n = L1;
	e->index = index;
	e->flags = HELPER_HAS_NEW;
	e->new = gpte;
}

static void add_fault(struct story *s, unsigned index, bool write)
{
	struct helper_event *e = add(s, HELPER_FAULT);

	e->root.n = ROOT;
	e->table.n = L1;
	e->index = index;
	e->level = 1;
	e->mode = MMU_USER;
	e->va.a = (uint64_t)index << 12;
	e->flags = write ? HELPER_IS_WRITE : 0;
}

static uint64_t leaf(unsigned frame)
{
	return (uint64_t)frame << 12 | LEAF;
}

/* A space with one leaf table, loaded, one page of it in use. */
static struct story *begin(void)
{
	struct story *s = calloc(1, sizeof *s);

	add_table(s, L1, 1, 0, leaf(DATA));
	add_table(s, L2, 2, 0, leaf(L1));
	add_table(s, L3, 3, 0, leaf(L2));
	add_table(s, ROOT, 4, 0, leaf(L3));
	add(s, HELPER_SWITCH)->root.n = ROOT;
	add_fault(s, 0, true);
	s->now_ns += 1000 * US;
	return s;
}

static struct replay_result run(const struct story *s, const char *heuristic, uint64_t build_ns)
{
	struct replay_config c;
	struct replay_result r;
	char why[128];

	replay_config_init(&c, &s->log);
	c.build_ns = build_ns;
	if (heuristic) {
		assert_int_equal(heuristic_parse(heuristic, &c.heuristics[0], why, sizeof why), 0);
		c.nr_heuristics = 1;
	}
	assert_int_equal(replay_run(&c, &r), 0);
	return r;
}

static const struct replay_source *first(const struct replay_result *r)
{
	return &r->total.sources[MMU_SRC_FIRST_HEURISTIC];
}

static void test_nothing(void **state)
{
	struct story *s = begin();
	struct replay_result r;

	add_update(s, 1, leaf(DATA + 1));
	s->now_ns += 50 * US;
	add_fault(s, 1, true);
	r = run(s, NULL, 0);
	assert_int_equal(r.total.recorded, 2);
	assert_int_equal(r.total.left, 2);
	assert_int_equal(r.total.unexplained, 0);
	replay_free(&r);
	free(s);
}

static void test_in_time_and_late(void **state)
{
	struct story *s = begin();
	struct replay_result r;

	add_update(s, 1, leaf(DATA + 1));
	s->now_ns += 50 * US;
	add_fault(s, 1, true);
	r = run(s, "update", 10 * US);
	assert_int_equal(r.total.left, 1);
	assert_int_equal(first(&r)->built, 1);
	assert_int_equal(first(&r)->useful, 1);
	assert_int_equal(r.heuristics[0].late, 0);
	replay_free(&r);

	/* It is seen only after the fault. */
	s->items[s->log.nr_items - 1].event.time_ns -= 50 * US - 500;
	r = run(s, "update", 10 * US);
	assert_int_equal(r.total.left, 2);
	assert_int_equal(first(&r)->built, 0);
	assert_int_equal(r.heuristics[0].late, 1);
	replay_free(&r);
	free(s);
}

/* Built read-only because the guest's entry is not dirty: a read is saved, a write is not. */
static void test_too_weak(void **state)
{
	for (int write = 0; write < 2; write++) {
		struct story *s = begin();
		struct replay_result r;

		add_update(s, 1, leaf(DATA + 1) & ~MMU_PTE_D);
		s->now_ns += 50 * US;
		add_fault(s, 1, write);
		r = run(s, "update", US);
		assert_int_equal(r.total.left, 1 + write);
		assert_int_equal(r.total.weak, write);
		assert_int_equal(first(&r)->useful, 1);
		replay_free(&r);
		free(s);
	}
}

/* Removed before it was used: by an update, by the end of the table. What is left at the end is neither. */
static void test_waste(void **state)
{
	struct story *s = begin();
	struct replay_result r;

	for (unsigned i = 1; i <= 3; i++) {
		add_update(s, i, leaf(DATA + i));
		s->now_ns += 50 * US;
	}
	add_update(s, 2, 0);
	s->now_ns += 50 * US;
	r = run(s, "update", US);
	assert_int_equal(first(&r)->built, 3);
	assert_int_equal(first(&r)->wasted, 1);
	assert_int_equal(first(&r)->unused, 2);
	assert_int_equal(replay_waste(&r.total), 3);
	replay_free(&r);
	add(s, HELPER_UNPIN)->table.n = ROOT;
	r = run(s, "update", US);
	assert_int_equal(first(&r)->wasted, 3);
	assert_int_equal(first(&r)->unused, 0);
	replay_free(&r);
	free(s);
}

/* A frame becomes a page table: what maps it is no longer writable, so a write faults again. */
static void test_pinned_frame(void **state)
{
	struct story *s = begin();
	struct helper_event *e;
	struct replay_result r;

	add_update(s, 1, leaf(DATA + 1));
	s->now_ns += 50 * US;
	e = add(s, HELPER_PIN);
	e->table.n = DATA + 1;
	e->level = 1;
	s->now_ns += 50 * US;
	add_fault(s, 1, true);
	r = run(s, "update", US);
	assert_int_equal(r.total.weak, 1);
	replay_free(&r);
	free(s);
}

static void test_prefetch(void **state)
{
	struct story *s = begin();
	struct replay_config c;
	struct replay_result r;

	for (unsigned i = 8; i < 16; i++)
		add_update(s, i, leaf(DATA + i));
	for (unsigned i = 15; i >= 8; i--)
		add_fault(s, i, true);
	replay_config_init(&c, &s->log);
	c.prefetch = MMU_PREFETCH_KVM8;
	assert_int_equal(replay_run(&c, &r), 0);
	assert_int_equal(r.total.recorded, 9);
	assert_int_equal(r.total.left, 2);
	assert_int_equal(r.total.sources[MMU_SRC_PREFETCH].useful, 7);
	replay_free(&r);
	c.prefetch = MMU_PREFETCH_OFF;
	c.fill = MMU_FILL_EAGER;
	assert_int_equal(replay_run(&c, &r), 0);
	assert_int_equal(r.total.left, 1);
	assert_int_equal(r.total.sources[MMU_SRC_EAGER].useful, 8);
	replay_free(&r);
	free(s);
}

/* ---- any trace -------------------------------------------------------------------------------------------------------------- */

static uint64_t rng;

static unsigned below(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

/* Tables that link each other and themselves, at any level; frames far out; nothing like a real guest. */
static void random_story(struct story *s)
{
	while (s->log.nr_items < 4000) {
		uint64_t gpte = (uint64_t)below(40) << 12 | (below(8) ? LEAF : below(1 << 12));
		struct helper_event *e;

		s->now_ns += below(4) ? below(2000) : below(200000);
		if (!below(10) && s->log.nr_entries < 4000) {
			add_table(s, below(40), 1 + below(4), below(8), gpte);
			continue;
		}
		e = add(s, below(HELPER_EVENT_KINDS));
		e->table.n = below(50) ? below(40) : rng;
		e->root.n = below(40);
		e->index = below(8);
		e->level = 1 + below(4);
		e->mode = below(2);
		e->flags = below(8) & ~HELPER_HAS_OLD;
		e->new = gpte;
		e->va.a = (uint64_t)below(8) << 39 | (uint64_t)below(8) << 30 | (uint64_t)below(8) << 21 | below(8) << 12;
	}
}

static void check_sums(const struct replay_result *r)
{
	uint64_t built = 0;

	for (unsigned i = 0; i < MMU_SOURCES; i++) {
		const struct replay_source *s = &r->total.sources[i];

		assert_int_equal(s->built, s->useful + s->wasted + s->unused);
		built += s->built;
	}
	assert_true(r->total.left <= r->total.recorded);
	assert_true(r->total.weak + r->total.unexplained <= r->total.left);
	for (unsigned i = 0; i < HELPER_MAX_HEURISTICS; i++) {
		const struct heuristic_stats *h = &r->heuristics[i];

		assert_int_equal(h->issued, h->built + h->present + h->nowhere + h->nothing + h->no_room + h->busy +
						 h->waiting);
		built -= h->built;
	}
	/* A tree's links are counted where they were built, its leaves by the engine too. */
	assert_true((int64_t)built >= 0);
}

static void test_random(void **state)
{
	static const char *const all[] = { "auto" };

	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct story *s = calloc(1, sizeof *s);
		struct replay_result r[2];
		struct replay_config c;
		char why[128];

		rng = seed * 0x9e3779b97f4a7c15ull;
		random_story(s);
		replay_config_init(&c, &s->log);
		assert_int_equal(heuristic_parse(all[0], &c.heuristics[0], why, sizeof why), 0);
		c.nr_heuristics = heuristics_resolve(c.heuristics, 1, &c.feedback);
		c.feedback.on = seed & 1;
		c.prefetch = seed % 3 ? MMU_PREFETCH_OFF : MMU_PREFETCH_XEN32;
		c.fill = seed % 5 ? MMU_FILL_LAZY : MMU_FILL_EAGER;
		for (unsigned i = 0; i < 2; i++)
			assert_int_equal(replay_run(&c, &r[i]), 0);
		check_sums(&r[0]);
		assert_true(r[0].total.recorded > 0);
		assert_memory_equal(&r[0].total, &r[1].total, sizeof r[0].total);
		assert_memory_equal(r[0].heuristics, r[1].heuristics, sizeof r[0].heuristics);
		assert_int_equal(r[0].behind_ns, r[1].behind_ns);
		replay_free(&r[0]);
		replay_free(&r[1]);
		free(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_in_time_and_late),
		cmocka_unit_test(test_too_weak),
		cmocka_unit_test(test_waste),
		cmocka_unit_test(test_pinned_frame),
		cmocka_unit_test(test_prefetch),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests_name("helper: replays", tests, NULL, NULL);
}
