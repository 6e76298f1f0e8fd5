/* test_cli_sweep.c - grids of heuristics, and what is made of results. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/sweep.h"
#include "vmm/vmm.h"

const char *vmm_version(void)
{
	return "test";
}

static char why[160];

static void test_grid(void **state)
{
	struct grid g;
	unsigned with = 0;

	assert_int_equal(grid_init(&g), 0);
	assert_int_equal(grid_add(&g, "update", false, why, sizeof why), 0);
	assert_int_equal(g.nr, 1);
	assert_int_equal(grid_add(&g, "window,aligned=1/8/16,ahead=0/32", true, why, sizeof why), 0);
	assert_int_equal(g.nr, 7);
	for (size_t i = 0; i < g.nr; i++) {
		const struct grid_point *p = &g.points[i];

		assert_string_equal(p->heuristics[0].name, "update");
		with += p->nr == 2;
		for (size_t k = 0; k < i; k++)
			assert_true(g.points[k].nr != p->nr || memcmp(g.points[k].heuristics, p->heuristics, sizeof p->heuristics));
	}
	assert_int_equal(with, 6);
	assert_int_equal(g.points[6].heuristics[1].value[0], 16);
	assert_int_equal(g.points[6].heuristics[1].value[2], 32);
	grid_free(&g);
}

static void test_bad_grids(void **state)
{
	static const char *const bad[] = { "", "magic", "window,aligned=", "window,aligned=1/", "window,aligned=1/x", "window,/", "/",
					   "window,aligned=1//2", "window/update" };
	char many[8192] = "window,back=0";
	struct grid g;

	assert_int_equal(grid_init(&g), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		why[0] = '\0';
		assert_int_equal(grid_add(&g, bad[i], false, why, sizeof why), -EINVAL);
		assert_true(why[0]);
		assert_int_equal(g.nr, 1);
	}
	for (unsigned i = 1; i < 400; i++)
		sprintf(many + strlen(many), "/%u", i);
	assert_int_equal(grid_add(&g, many, false, why, sizeof why), 0);
	assert_int_equal(g.nr, 400);
	assert_int_equal(grid_add(&g, many, false, why, sizeof why), -E2BIG);
	assert_int_equal(g.nr, 400);
	for (unsigned i = 1; i < HELPER_MAX_HEURISTICS; i++)
		assert_int_equal(grid_add(&g, "update", false, why, sizeof why), 0);
	assert_int_equal(grid_add(&g, "update", false, why, sizeof why), -E2BIG);
	grid_free(&g);
}

static json_t *result(const char *heuristic, const char *trace, int left, int waste)
{
	return json_pack("{s:i, s:{s:s}, s:{s:[s]}, s:{s:i, s:i, s:i}}", "schema", REPLAY_SCHEMA, "trace", "file", trace, "config",
			 "heuristics", heuristic, "total", "hidden_faults_recorded", 100, "hidden_faults_left", left, "waste_entries",
			 waste);
}

static void add(struct sweep *r, const char *heuristic, const char *trace, int left, int waste, int expect)
{
	json_t *o = result(heuristic, trace, left, waste);

	assert_non_null(o);
	assert_int_equal(sweep_add(r, o), expect);
	json_decref(o);
}

static const json_t *point(const json_t *report, const char *heuristic)
{
	const json_t *p;
	size_t i;

	json_array_foreach(json_object_get(report, "points"), i, p) {
		const json_t *list = json_object_get(json_object_get(p, "config"), "heuristics");

		if (!strcmp(json_string_value(json_array_get(list, 0)), heuristic))
			return p;
	}
	fail_msg("no point '%s'", heuristic);
	return NULL;
}

static void check(const json_t *report, const char *heuristic, int left, int waste, bool front)
{
	const json_t *p = point(report, heuristic);

	assert_int_equal(json_integer_value(json_object_get(p, "hidden_faults_left")), left);
	assert_int_equal(json_integer_value(json_object_get(p, "waste_entries")), waste);
	assert_int_equal(json_is_true(json_object_get(p, "pareto")), front);
}

/* In whatever order they come, the report is the same; a point is on the front if none is as good both ways. */
static void test_front(void **state)
{
	static const struct { const char *heuristic; int left, waste; } all[] = {
		{ "a", 50, 0 }, { "b", 20, 10 }, { "c", 20, 30 }, { "d", 60, 5 }, { "e", 10, 40 }, { "f", 50, 1 },
	};
	enum { N = sizeof all / sizeof *all };
	json_t *reports[2];

	for (unsigned way = 0; way < 2; way++) {
		struct sweep *r = sweep_create();

		for (unsigned i = 0; i < 2 * N; i++) {
			unsigned k = way ? 2 * N - 1 - i : i;

			add(r, all[k % N].heuristic, k < N ? "x" : "y", all[k % N].left, all[k % N].waste, 0);
		}
		add(r, "a", "x", 1, 1, -EEXIST);
		assert_int_equal(sweep_incomplete(r), 0);
		reports[way] = sweep_json(r);
		sweep_free(r);
	}
	check(reports[0], "a", 100, 0, true);
	check(reports[0], "b", 40, 20, true);
	check(reports[0], "c", 40, 60, false);
	check(reports[0], "d", 120, 10, false);
	check(reports[0], "e", 20, 80, true);
	check(reports[0], "f", 100, 2, false);
	assert_true(json_equal(reports[0], reports[1]));
	json_decref(reports[0]);
	json_decref(reports[1]);
}

static void test_incomplete(void **state)
{
	struct sweep *r = sweep_create();
	json_t *report, *empty = json_object();

	add(r, "a", "x", 50, 50, 0);
	add(r, "a", "y", 50, 50, 0);
	add(r, "b", "x", 1, 1, 0);
	assert_int_equal(sweep_add(r, empty), -EINVAL);
	assert_int_equal(sweep_add(r, NULL), -EINVAL);
	add(r, "c", "x", -1, 1, -EINVAL);
	assert_int_equal(sweep_incomplete(r), 1);
	report = sweep_json(r);
	check(report, "a", 100, 100, true);
	check(report, "b", 1, 1, false);
	json_decref(report);
	json_decref(empty);
	sweep_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grid),
		cmocka_unit_test(test_bad_grids),
		cmocka_unit_test(test_front),
		cmocka_unit_test(test_incomplete),
	};

	return cmocka_run_group_tests_name("cli: sweep", tests, NULL, NULL);
}
