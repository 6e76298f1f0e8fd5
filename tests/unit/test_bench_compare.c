/*
 * test_bench_compare.c - what umbra compare makes of samples: rank tests against known values and a count of all cases,
 * sums of counters, text.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/bench.h"
#include "bench/rank.h"

static void assert_near(double a, double b, double within)
{
	if (!(fabs(a - b) <= within))
		fail_msg("%.12g is not %.12g", a, b);
}

static void test_rank_known(void **state)
{
	/* from the documentation of scipy.stats.mannwhitneyu */
	const double males[] = { 19, 22, 16, 29, 24 }, females[] = { 20, 11, 17, 12 };
	const double low[] = { 1, 2, 3, 4, 5 }, high[] = { 6, 7, 8, 9, 10 }, one[] = { 1 };

	assert_near(rank_test(males, 5, females, 4), 1 / 9.0, 1e-12);
	assert_near(rank_test(low, 5, high, 5), 2 / 252.0, 1e-12);
	assert_near(rank_test(high, 5, low, 5), 2 / 252.0, 1e-12);
	assert_near(rank_least(5, 5), 2 / 252.0, 1e-12);
	assert_near(rank_test(low, 3, high, 3), 0.1, 1e-12);
	assert_near(rank_test(low, 5, low, 5), 1, 1e-12);
	assert_near(rank_test(one, 1, high, 1), 1, 1e-12);
	assert_true(isnan(rank_test(low, 0, high, 5)));
	assert_true(isnan(rank_test(low, 5, high, 0)));
}

/* The normal approximation, just above where it takes over, against the exact values there. */
static void test_rank_many(void **state)
{
	double a[101], b[101];

	for (unsigned i = 0; i < 101; i++) {
		a[i] = i;
		b[i] = i + 4.5;
	}
	assert_near(rank_test(a, 20, b, 20), 0.030411256038764864, 1e-12);
	assert_near(rank_test(a, 21, b, 21), 0.03358677936817663, 2e-3);
	for (unsigned i = 0; i < 101; i++)
		a[i] = b[i] = 7;
	assert_near(rank_test(a, 101, b, 101), 1, 1e-12);
}

/* The definition itself: all choices of which values are a's, ranks as means over ties. */
static double by_enumeration(const double *all, unsigned n, unsigned na)
{
	double rank[16], seen = 0, mean = na * (n + 1) / 2.0;
	unsigned far = 0, total = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned less = 0, same = 0;

		for (unsigned j = 0; j < n; j++) {
			less += all[j] < all[i];
			same += all[j] == all[i];
		}
		rank[i] = less + (same + 1) / 2.0;
		seen += i < na ? rank[i] : 0;
	}
	for (unsigned set = 0; set < 1u << n; set++) {
		double sum = 0;

		if ((unsigned)__builtin_popcount(set) != na)
			continue;
		for (unsigned i = 0; i < n; i++)
			sum += set >> i & 1 ? rank[i] : 0;
		total++;
		far += fabs(sum - mean) >= fabs(seen - mean) - 1e-9;
	}
	return far / (double)total;
}

static void test_rank_ties(void **state)
{
	double all[12];

	srand(5);
	for (unsigned round = 0; round < 200; round++) {
		unsigned na = 1 + rand() % 6, nb = 1 + rand() % 6;

		for (unsigned i = 0; i < na + nb; i++)
			all[i] = rand() % (2 + round % 9);
		assert_near(rank_test(all, na, all + na, nb), by_enumeration(all, na + nb, na), 1e-12);
	}
}

static void test_holm(void **state)
{
	double p[] = { 0.01, NAN, 0.04, 0.03 }, one[] = { 0.02 }, none[] = { NAN }, large[] = { 0.9, 0.6 };

	rank_holm(p, 4);
	assert_near(p[0], 0.03, 1e-12);
	assert_true(isnan(p[1]));
	assert_near(p[2], 0.06, 1e-12);
	assert_near(p[3], 0.06, 1e-12);
	rank_holm(one, 1);
	assert_near(one[0], 0.02, 1e-12);
	rank_holm(none, 1);
	assert_true(isnan(none[0]));
	rank_holm(large, 2);
	assert_near(large[0], 1, 1e-12);
	assert_near(large[1], 1, 1e-12);
}

static void test_json_numbers(void **state)
{
	json_t *o = json_loads("{\"a\": {\"b\": 3, \"s\": \"x\"}, \"l\": [{\"n\": 1}, {\"m\": 5}, {\"n\": 2.5}], \"e\": []}", 0,
			       NULL);

	assert_near(json_number_at(o, "a.b"), 3, 0);
	assert_near(json_number_at(o, "l.*.n"), 3.5, 0);
	assert_true(isnan(json_number_at(o, "a.s")));
	assert_true(isnan(json_number_at(o, "a.c")));
	assert_true(isnan(json_number_at(o, "a")));
	assert_true(isnan(json_number_at(o, "a.b.c")));
	assert_true(isnan(json_number_at(o, "l.*.k")));
	assert_true(isnan(json_number_at(o, "l.*")));
	assert_true(isnan(json_number_at(o, "e.*.n")));
	assert_true(isnan(json_number_at(NULL, "a")));
	json_decref(o);
}

static void test_spread_and_values(void **state)
{
	static struct sample samples[4];
	struct bench b = { .samples = samples, .nr_samples = 4 };
	const struct metric hidden = { .terms = { "+mmu.hidden", "~mmu.nowhere" } };
	const struct metric missing = { .terms = { "+mmu.hidden", "+mmu.nowhere" } };
	const struct metric optional = { .terms = { "~mmu.nowhere" } };
	const struct metric difference = { .terms = { "+mmu.hidden", "-mmu.fills" } };
	struct spread s;

	for (unsigned i = 0; i < 4; i++) {
		samples[i] = (struct sample){ .mode = i / 3, .ok = i != 1, .nr_cases = 1,
					      .cases = { { "one", 10, 1000.0 * i } } };
		samples[i].counted[0] = json_pack("{s{sisi}}", "mmu", "hidden", 100 * (int)i, "fills", 40);
	}
	s = metric_spread(&b, 0, "one", &hidden);
	assert_int_equal(s.n, 2);
	assert_near(s.median, 10, 0);
	assert_near(s.min, 0, 0);
	assert_near(s.max, 20, 0);
	assert_near(metric_spread(&b, 1, "one", &difference).median, 26, 0);
	assert_near(metric_spread(&b, 1, "one", NULL).median, 3000, 0);
	assert_int_equal(metric_spread(&b, 0, "one", &missing).n, 0);
	assert_int_equal(metric_spread(&b, 0, "one", &optional).n, 0);
	assert_int_equal(metric_spread(&b, 0, "two", &hidden).n, 0);
	assert_true(isnan(metric_spread(&b, 2, "one", NULL).median));
	for (unsigned i = 0; i < 4; i++)
		json_decref(samples[i].counted[0]);
}

static void test_text(void **state)
{
	char t[NUMBER_TEXT];

	time_text(t, 12345);
	assert_string_equal(t, "12.3 us");
	time_text(t, 999600);
	assert_string_equal(t, "1.00 ms");
	time_text(t, 90e9);
	assert_string_equal(t, "90.0 s");
	time_text(t, NAN);
	assert_string_equal(t, "-");
	count_text(t, 0);
	assert_string_equal(t, "0");
	count_text(t, 1234.4);
	assert_string_equal(t, "1234");
	count_text(t, NAN);
	assert_string_equal(t, "-");
	ratio_text(t, 0.756);
	assert_string_equal(t, "0.76");
	ratio_text(t, INFINITY);
	assert_string_equal(t, "-");
}

/* Each mode of umbra's once per number of vCPUs, in that order; peers once. */
static void test_vcpus(void **state)
{
	static const char *const names[] = { "shim-c1", "shim-c4", "native", "mine-c1", "mine-c4" };
	static const char *const bad[] = { "", "0", "33", "1,", ",1", "1;2", "x", "-1", "1,1", "1,2,3,4,5,6,7,8,9" };
	struct mode_list list = { NULL };
	char name[32], own[] = "mine=--numa=off -v";

	assert_int_equal(modes_add_names(&list, "shim,native", name), 0);
	assert_int_equal(modes_define(&list, own), 0);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(modes_by_vcpus(&list, bad[i]), -EINVAL);
		assert_int_equal(list.n, 3);
	}
	assert_int_equal(modes_by_vcpus(&list, "1,4"), 0);
	assert_int_equal(list.n, 5);
	for (unsigned i = 0; i < list.n; i++)
		assert_string_equal(list.at[i].name, names[i]);
	assert_string_equal(list.at[4].flags, "--numa=off -v -c 4");
	assert_true(list.at[4].users);
	assert_string_equal(list.at[2].flags, "");
	modes_release(&list);
	assert_int_equal(list.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rank_known),
		cmocka_unit_test(test_rank_many),
		cmocka_unit_test(test_rank_ties),
		cmocka_unit_test(test_holm),
		cmocka_unit_test(test_json_numbers),
		cmocka_unit_test(test_spread_and_values),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_vcpus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
