/* Heuristics and their engine against a made-up MMU: who asks for what, budgets, queues, lateness, and that nothing but
 * the events decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "helper/engine.h"
#include "helper/feedback.h"

#define FRAMES	64u
#define BITS	(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A)
#define LOG	65536u

/* What a made-up MMU answers, and what it was asked. */
struct world {
	uint64_t table[FRAMES][MMU_ENTRIES];
	bool shadowed[FRAMES], present[FRAMES][MMU_ENTRIES], busy[FRAMES];
	struct { uint64_t table; unsigned index, flags, source; } log[LOG];
	unsigned asked, trees, clones;
	struct heuristic_use use;
	struct engine *engine;
	struct engine_config config;
};

static enum mmu_prebuilt build(void *arg, gfn_t table, unsigned index, unsigned source, unsigned flags)
{
	struct world *w = arg;
	uint64_t gpte;

	assert_true(index < MMU_ENTRIES);
	w->log[w->asked % LOG].table = table.n;
	w->log[w->asked % LOG].index = index;
	w->log[w->asked % LOG].flags = flags;
	w->log[w->asked++ % LOG].source = source;
	if (table.n >= FRAMES || !w->shadowed[table.n])
		return MMU_PB_NO_SHADOW;
	if (w->busy[table.n])
		return MMU_PB_BUSY;
	gpte = w->table[table.n][index];
	if (!(gpte & MMU_PTE_P) || !(gpte & MMU_PTE_A || flags & MMU_PB_YOUNG))
		return MMU_PB_NOTHING;
	if (w->present[table.n][index])
		return MMU_PB_PRESENT;
	w->present[table.n][index] = true;
	return MMU_PB_BUILT;
}

static unsigned build_tree(void *arg, gfn_t root, enum mmu_mode mode, gva_t first, gva_t last, unsigned source, unsigned flags,
			   unsigned budget)
{
	struct world *w = arg;

	assert_true(first.a <= last.a && budget > 0 && budget <= ENGINE_SLICE);
	w->trees++;
	return w->trees % 3 ? budget : 0;
}

static unsigned clone(void *arg, gfn_t root, gfn_t parent, gva_t first, gva_t last, unsigned source, unsigned flags,
		      unsigned budget)
{
	struct world *w = arg;

	assert_int_not_equal(root.n, parent.n);
	w->clones++;
	return 5;
}

static bool read_entry(void *arg, gfn_t table, unsigned index, uint64_t *gpte)
{
	struct world *w = arg;

	if (table.n >= FRAMES)
		return false;
	*gpte = w->table[table.n][index];
	return true;
}

static void use(void *arg, unsigned source, struct heuristic_use *out)
{
	*out = ((struct world *)arg)->use;
}

/* Frames 1, 2, 3 lead from root 1 to the leaf table 4 at address 0, whose entries map frames from 8 on; 5 is a second
 * leaf table at 2 MiB. */
static struct world *world(const char *const *heuristics)
{
	struct world *w = calloc(1, sizeof *w);
	char why[128];

	assert_non_null(w);
	for (unsigned i = 1; i < 4; i++)
		w->table[i][0] = (i + 1ull) << MMU_PAGE_SHIFT | BITS;
	w->table[3][1] = 5ull << MMU_PAGE_SHIFT | BITS;
	for (unsigned i = 0; i < MMU_ENTRIES; i++) {
		w->table[4][i] = (8ull + i) << MMU_PAGE_SHIFT | BITS;
		w->table[5][i] = (8ull + 7 * i) << MMU_PAGE_SHIFT | BITS;
	}
	for (unsigned i = 1; i < 6; i++)
		w->shadowed[i] = true;
	w->config.env = (struct engine_env){ build, build_tree, clone, read_entry, use, w };
	for (; *heuristics; heuristics++)
		assert_int_equal(heuristic_parse(*heuristics, &w->config.heuristics[w->config.nr_heuristics++], why, sizeof why), 0);
	assert_int_equal(engine_create(&w->config, &w->engine), 0);
	return w;
}

#define WORLD(...) world((const char *const []){ __VA_ARGS__, NULL })

static void again(struct world *w)
{
	engine_destroy(w->engine);
	assert_int_equal(engine_create(&w->config, &w->engine), 0);
}

static void end(struct world *w)
{
	engine_destroy(w->engine);
	free(w);
}

static struct heuristic_stats stats(const struct world *w, unsigned place)
{
	struct heuristic_stats s;

	engine_stats(w->engine, place, &s);
	return s;
}

static void update(struct world *w, uint64_t ns, uint64_t table, unsigned index)
{
	struct helper_event e = { .kind = HELPER_UPDATE, .time_ns = ns, .table = { table }, .index = index };

	if (table < FRAMES) {
		e.flags = HELPER_HAS_NEW;
		e.new = w->table[table][index];
	}
	engine_event(w->engine, &e);
}

static void fault_at(struct world *w, uint64_t ns, uint64_t va, enum mmu_mode mode)
{
	engine_event(w->engine, &(struct helper_event){ .kind = HELPER_FAULT, .time_ns = ns, .fault = HELPER_FAULT_HIDDEN, .level = 1,
			.mode = mode, .root = { 1 }, .va = { va }, .table = { va >> 21 & 1 ? 5 : 4 }, .index = va >> 12 & 511 });
}

static void simple(struct world *w, unsigned kind, uint64_t root, unsigned level)
{
	engine_event(w->engine, &(struct helper_event){ .kind = kind, .level = level, .table = { root }, .root = { root } });
}

static void work_all(struct world *w)
{
	for (unsigned i = 0; engine_work(w->engine); i++)
		assert_true(i < 100000);
}

/* ---- one by one ----------------------------------------------------------------------------------------------------- */

static void update_asks_for_what_is_present(void **state)
{
	struct world *w = WORLD("update");

	update(w, 1, 4, 7);
	w->table[4][8] = 0;
	update(w, 2, 4, 8);
	update(w, 3, 4, 600 % 512);
	assert_int_equal(stats(w, 0).built, 2);
	assert_int_equal(stats(w, 0).issued, 2);
	assert_int_equal(w->log[0].source, MMU_SRC_FIRST_HEURISTIC);
	assert_int_equal(w->log[0].flags, MMU_PB_TABLES);
	engine_event(w->engine, &(struct helper_event){ .kind = HELPER_UPDATE, .table = { 4 }, .index = 512 });
	assert_int_equal(stats(w, 0).issued, 2);
	end(w);
}

static void update_comes_again_after_a_sync(void **state)
{
	struct world *w = WORLD("update");

	w->present[4][3] = true;		/* what it said before */
	update(w, 1, 4, 3);
	work_all(w);
	assert_int_equal(w->asked, 1);
	w->present[4][3] = false;
	simple(w, HELPER_SYNC, 0, 0);
	work_all(w);
	assert_int_equal(stats(w, 0).built, 1);
	assert_int_equal(stats(w, 0).retried, 1);
	assert_int_equal(stats(w, 0).present, 0);

	w->busy[4] = true;			/* busy for good: it gives up */
	update(w, 2, 4, 9);
	for (unsigned i = 0; i < 10; i++) {
		simple(w, HELPER_SYNC, 0, 0);
		work_all(w);
	}
	assert_int_equal(stats(w, 0).busy, 1);
	assert_int_equal(stats(w, 0).issued, 2);
	end(w);
}

static void window_is_kvms_or_xens(void **state)
{
	struct world *w = WORLD("window", "window,aligned=1,ahead=32", "window,back=1,aligned=1,on=2");

	fault_at(w, 1, 13 << 12, MMU_USER);
	assert_int_equal(stats(w, 0).issued, 7);
	assert_int_equal(stats(w, 1).issued, 32);
	assert_int_equal(stats(w, 2).issued, 0);
	assert_int_equal(w->log[0].index, 8);
	assert_int_equal(w->log[7].index, 14);
	assert_int_equal(stats(w, 1).present, 2);	/* 14 and 15 */
	fault_at(w, 2, 500 << 12, MMU_USER);		/* not beyond the table */
	assert_int_equal(stats(w, 1).issued, 32 + 11);
	update(w, 3, 4, 100);
	assert_int_equal(stats(w, 2).issued, 1);
	end(w);
}

static void fork_follows_parent_and_history(void **state)
{
	struct world *w = WORLD("fork", "fork,set=1", "fork,set=2,entries=10");

	w->table[6][0] = w->table[1][0];		/* child root 6 with the same tables */
	w->table[4][0] &= ~MMU_PTE_A;
	simple(w, HELPER_SWITCH, 1, 4);
	simple(w, HELPER_PIN, 6, 4);
	work_all(w);
	assert_int_equal(w->clones, 1);
	assert_int_equal(stats(w, 0).built, 5);
	assert_true(stats(w, 1).issued > 500);
	assert_true(stats(w, 2).issued < 20);
	assert_false(w->present[4][0] && stats(w, 2).built == 0);

	/* The child faults at an address; its successor gets that at once. */
	simple(w, HELPER_SWITCH, 6, 4);
	engine_event(w->engine, &(struct helper_event){ .kind = HELPER_FAULT, .time_ns = 9, .level = 1, .root = { 6 }, .table = { 5 },
			.index = 77, .va = { (512 + 77) << 12 } });
	simple(w, HELPER_UNPIN, 6, 0);
	simple(w, HELPER_PIN, 6, 4);
	w->asked = 0;
	simple(w, HELPER_SWITCH, 6, 4);
	for (unsigned i = 0; i < w->asked; i++)
		if (w->log[i].source == MMU_SRC_FIRST_HEURISTIC && w->log[i].table == 5 && w->log[i].index == 77)
			return end(w);
	fail_msg("the page that the first child faulted on was not asked for");
}

static void exec_learns_addresses(void **state)
{
	struct world *w = WORLD("exec,small=2");

	simple(w, HELPER_PIN, 1, 4);
	work_all(w);
	assert_true(w->trees > 0);
	fault_at(w, 1, 33 << 12, MMU_USER);
	simple(w, HELPER_UNPIN, 1, 0);
	simple(w, HELPER_PIN, 1, 4);
	w->asked = 0;
	simple(w, HELPER_SWITCH, 1, 4);
	assert_int_equal(w->asked, 1);
	assert_int_equal(w->log[0].table, 4);
	assert_int_equal(w->log[0].index, 33);
	w->table[3][2] = w->table[3][3] = w->table[3][1];	/* four leaf tables are not small */
	simple(w, HELPER_PIN, 1, 4);
	w->asked = 0;
	simple(w, HELPER_SWITCH, 1, 4);
	assert_int_equal(w->asked, 0);
	end(w);
}

static void switch_brings_links_and_last_turn(void **state)
{
	struct world *w = WORLD("switch");

	w->table[1][300] = 7ull << MMU_PAGE_SHIFT | BITS;
	w->table[7][0] = 4ull << MMU_PAGE_SHIFT | BITS;
	fault_at(w, 1, 5 << 12, MMU_KERNEL);
	fault_at(w, 1, 0xffff960000000000, MMU_KERNEL);		/* slot 300 */
	w->asked = 0;
	simple(w, HELPER_SWITCH, 1, 4);
	assert_int_equal(w->asked, 4);		/* slot 300, slot 0, the two entries */
	assert_int_equal(w->log[0].index, 300);
	assert_int_equal(w->log[1].table, 1);
	assert_int_equal(w->log[3].index, 5);
	simple(w, HELPER_UNPIN, 1, 0);
	w->asked = 0;
	simple(w, HELPER_SWITCH, 1, 4);
	assert_int_equal(w->asked, 2);		/* the entries are forgotten */
	end(w);
}

static void stride_and_distance_go_on(void **state)
{
	struct world *w = WORLD("stride,degree=2", "distance,slots=1");

	for (unsigned i = 0; i < 3; i++)
		fault_at(w, i, (10 + 3 * i) << 12, MMU_USER);
	assert_int_equal(stats(w, 0).built + stats(w, 0).present, 2);
	assert_true(w->present[4][19]);
	assert_true(w->present[4][22]);
	assert_int_equal(stats(w, 1).issued, 1);		/* 3 follows 3 */
	fault_at(w, 9, 300 << 12, MMU_USER);
	fault_at(w, 9, 302 << 12, MMU_USER);
	fault_at(w, 9, 309 << 12, MMU_USER);		/* 2, 7 */
	fault_at(w, 9, 400 << 12, MMU_USER);
	w->asked = 0;
	fault_at(w, 9, 402 << 12, MMU_USER);		/* 2 again: 7 comes next */
	assert_int_equal(w->asked, 1);
	assert_int_equal(w->log[0].index, 409);
	end(w);
}

static void recency_brings_neighbours(void **state)
{
	struct world *w = WORLD("recency,neighbours=1");

	for (unsigned i = 1; i <= 5; i++)
		fault_at(w, i, i * 17 << 12, MMU_USER);
	assert_int_equal(w->asked, 0);
	fault_at(w, 9, 3 * 17 << 12, MMU_USER);
	assert_int_equal(w->asked, 2);
	assert_true(w->present[4][2 * 17]);
	assert_true(w->present[4][4 * 17]);
	end(w);
}

static void direct_map_is_recognized(void **state)
{
	struct world *w = WORLD("direct-map,span=64");

	fault_at(w, 1, 70 << 12, MMU_KERNEL);		/* the lower half is none */
	assert_int_equal(w->asked, 0);
	fault_at(w, 1, 0xffff888000046000, MMU_KERNEL);
	assert_int_equal(stats(w, 0).built, 63);
	fault_at(w, 1, 0xffff888000056000, MMU_KERNEL);	/* filled lately */
	assert_int_equal(stats(w, 0).issued, 63);
	fault_at(w, 1, 0xffff888000246000, MMU_KERNEL);	/* table 5 is not linear */
	assert_int_equal(stats(w, 0).issued, 63);
	end(w);
}

/* ---- the engine ------------------------------------------------------------------------------------------------------ */

static void budgets_and_queues_have_ends(void **state)
{
	struct world *w = WORLD("window,aligned=512", "exec,small=64");
	struct heuristic_stats s;

	w->config.event_budget = 100;
	w->config.ms_budget = 150;
	w->config.queue = 1;
	again(w);
	fault_at(w, 1, 5 << 12, MMU_USER);
	assert_int_equal(stats(w, 0).issued, 100);
	fault_at(w, 2, 5 << 12, MMU_USER);
	assert_int_equal(stats(w, 0).issued, 150);
	assert_int_equal(stats(w, 0).dropped, 2);
	fault_at(w, 1000001, 5 << 12, MMU_USER);	/* the next millisecond */
	assert_int_equal(stats(w, 0).issued, 250);

	w->table[6][0] = w->table[7][0] = w->table[1][0];
	simple(w, HELPER_PIN, 1, 4);
	simple(w, HELPER_PIN, 6, 4);
	simple(w, HELPER_PIN, 7, 4);
	s = stats(w, 1);
	assert_int_equal(s.dropped, 2);
	simple(w, HELPER_UNPIN, 1, 0);			/* what is queued for a dead root is void */
	assert_false(engine_work(w->engine));
	end(w);
}

static void late_is_told(void **state)
{
	struct world *w = WORLD("update");

	w->shadowed[4] = false;
	update(w, 1000, 4, 3);
	fault_at(w, 2000, 3 << 12, MMU_USER);		/* asked for, and not there */
	assert_int_equal(stats(w, 0).late, 1);
	fault_at(w, 3000, 3 << 12, MMU_USER);		/* once only */
	assert_int_equal(stats(w, 0).late, 1);
	update(w, 4000, 4, 4);
	fault_at(w, 4000 + 2 * ENGINE_LATE_NS, 4 << 12, MMU_USER);	/* too long ago */
	assert_int_equal(stats(w, 0).late, 1);

	w->shadowed[4] = true;
	update(w, 20000000, 4, 5);
	fault_at(w, 20000001, 5 << 12, MMU_USER);	/* built: another right, not late */
	assert_int_equal(stats(w, 0).late, 1);
	end(w);
}

static void late_is_told_when_the_fault_built_it(void **state)
{
	struct world *w = WORLD("window,aligned=2");

	w->present[4][6] = true;
	fault_at(w, 1000, 6 << 12, MMU_USER);
	fault_at(w, 2000, 7 << 12, MMU_USER);		/* asks for 6, which a fault had built just now */
	assert_int_equal(stats(w, 0).present, 1);
	assert_int_equal(stats(w, 0).late, 1);
	end(w);
}

static void retries_do_not_grow(void **state)
{
	struct world *w = WORLD("update");

	w->busy[4] = true;
	for (unsigned i = 0; i < 2000; i++)
		update(w, i, 4, i % 512);
	simple(w, HELPER_SYNC, 0, 0);
	work_all(w);
	assert_int_equal(stats(w, 0).issued, 2000);
	assert_int_equal(stats(w, 0).busy, 2000 - ENGINE_RETRIES);
	assert_int_equal(stats(w, 0).retried, ENGINE_RETRIES);
	end(w);
}

/* ---- all of them, random events, hostile tables ------------------------------------------------------------------------ */

#define ALL "update", "window,on=3", "fork,set=2", "fork,set=1", "exec", "switch", "stride", "distance,slots=4", \
	    "recency,neighbours=16", "direct-map", "wild"

static uint64_t seed;

static uint64_t number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t random_run(uint64_t with, unsigned *asked)
{
	struct world *w = WORLD(ALL);
	uint64_t sum = 0;

	seed = with;
	for (unsigned t = 0; t < FRAMES; t++) {
		w->shadowed[t] = number() & 1;
		w->busy[t] = !(number() & 7);
		for (unsigned i = 0; i < MMU_ENTRIES; i++)	/* loops, large pages, frames that are none */
			w->table[t][i] = number() & 3 ? number() % (FRAMES + 2) << MMU_PAGE_SHIFT | (number() & 0xff) : number();
	}
	for (unsigned i = 0; i < 20000; i++) {
		struct helper_event e = {
			.time_ns = i * 10000ull, .kind = number() % (HELPER_EVENT_KINDS + 1), .level = number() % 6,
			.fault = number() % 4, .mode = number() & 1, .flags = number() & 3, .index = number() % 520,
			.table = { number() & 15 ? number() % FRAMES : number() }, .root = { number() & 15 ? number() % FRAMES : number() },
			.va = { number() & 1 ? number() & 0xffffff : number() }, .new = number(),
		};

		engine_event(w->engine, &e);
		if (number() & 1)
			engine_work(w->engine);
	}
	for (unsigned i = 0; i < LOG && i < w->asked; i++)
		sum = (sum ^ w->log[i].table ^ w->log[i].index ^ (uint64_t)w->log[i].source << 32 ^ w->log[i].flags) * 0x100000001b3ull;
	for (unsigned i = 0; i < w->config.nr_heuristics; i++) {
		struct heuristic_stats s = stats(w, i);

		sum += s.issued * (i + 1) + s.late + s.dropped;
		assert_int_equal(s.issued, s.built + s.present + s.nowhere + s.nothing + s.no_room + s.busy + s.waiting);
		assert_true(s.waiting <= ENGINE_RETRIES);
	}
	*asked = w->asked;
	end(w);
	return sum;
}

static void same_events_same_requests(void **state)
{
	for (uint64_t with = 1; with < 4; with++) {
		unsigned first, second;
		uint64_t sum = random_run(with, &first);

		assert_int_equal(sum, random_run(with, &second));
		assert_int_equal(first, second);
		assert_true(first > 10000);
		assert_int_not_equal(sum, random_run(with + 100, &second));
	}
}

/* ---- --heuristic=auto ---------------------------------------------------------------------------------------------------- */

static void auto_lowers_what_wastes_and_raises_what_pays(void **state)
{
	struct world *w = WORLD("window,aligned=512,on=3");
	struct heuristic_decision d[HELPER_DECISIONS];
	uint64_t ns = 0;
	unsigned n, low;

	w->config.feedback = (struct heuristic_feedback){ true, 50, 10 };
	again(w);
	for (unsigned i = 0; i < 20; i++) {
		w->use.sampled_unused += 20;
		update(w, ns += FEEDBACK_ROUND_NS, 4, 1);
	}
	n = engine_decisions(w->engine, d, HELPER_DECISIONS);
	assert_int_equal(n, FEEDBACK_STEPS - 1);
	assert_int_equal(d[n - 1].to, FEEDBACK_STEPS - 1);
	assert_int_equal(d[0].reason, HEURISTIC_WASTES);
	low = stats(w, 0).issued;
	update(w, ns, 4, 1);
	assert_true(stats(w, 0).issued - low <= 511 / 64 + 1);
	assert_true(stats(w, 0).held > 0);
	for (unsigned i = 0; i < 20; i++) {
		w->use.sampled_used += 20;
		update(w, ns += FEEDBACK_ROUND_NS, 4, 1);
	}
	n = engine_decisions(w->engine, d, HELPER_DECISIONS);
	assert_int_equal(d[n - 1].to, 0);
	assert_int_equal(d[n - 1].reason, HEURISTIC_PAYS);
	end(w);
}

static void auto_is_resolved(void **state)
{
	struct heuristic_config list[HELPER_MAX_HEURISTICS] = { 0 };
	struct heuristic_feedback f;
	char why[128], text[256];
	unsigned n;

	n = heuristics_resolve(list, 0, &f);
	assert_false(f.on);
	assert_true(n >= 2);
	assert_string_equal(list[0].name, "update");
	assert_int_equal(heuristic_parse("auto,raise=20", &list[0], why, sizeof why), 0);
	assert_true(heuristics_resolve(list, 1, &f) >= 9);
	assert_true(f.on);
	assert_int_equal(f.raise, 20);
	assert_int_equal(heuristic_parse("stride", &list[0], why, sizeof why), 0);
	assert_int_equal(heuristic_parse("auto", &list[1], why, sizeof why), 0);
	assert_int_equal(heuristics_resolve(list, 2, &f), 1);
	assert_string_equal(list[0].name, "stride");
	heuristic_decision_text(&(struct heuristic_decision){ .time_ns = 1500000000, .from = 1, .to = 2, .reason = HEURISTIC_IDLE },
				"stride", text, sizeof text);
	assert_non_null(strstr(text, "1.500 s: stride 1/2 -> 1/4"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(update_asks_for_what_is_present),
		cmocka_unit_test(update_comes_again_after_a_sync),
		cmocka_unit_test(window_is_kvms_or_xens),
		cmocka_unit_test(fork_follows_parent_and_history),
		cmocka_unit_test(exec_learns_addresses),
		cmocka_unit_test(switch_brings_links_and_last_turn),
		cmocka_unit_test(stride_and_distance_go_on),
		cmocka_unit_test(recency_brings_neighbours),
		cmocka_unit_test(direct_map_is_recognized),
		cmocka_unit_test(budgets_and_queues_have_ends),
		cmocka_unit_test(late_is_told),
		cmocka_unit_test(late_is_told_when_the_fault_built_it),
		cmocka_unit_test(retries_do_not_grow),
		cmocka_unit_test(same_events_same_requests),
		cmocka_unit_test(auto_lowers_what_wastes_and_raises_what_pays),
		cmocka_unit_test(auto_is_resolved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
