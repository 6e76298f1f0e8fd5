/*
 * test_report.c - what a report is made with: escaping, numbers, scales, bars that fit, and a model that believes nothing.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/runs.h"
#include "report/chart.h"
#include "report/page.h"

static void check_escaped(const char *in, const char *out)
{
	struct text t = { NULL };

	text_put(&t, "%s", "");
	text_escaped(&t, in);
	assert_false(t.failed);
	assert_string_equal(t.at, out);
	text_free(&t);
}

static void test_escaping(void **state)
{
	check_escaped("plain", "plain");
	check_escaped("<script>alert('x&y')</script>", "&lt;script&gt;alert(&#39;x&amp;y&#39;)&lt;/script&gt;");
	check_escaped("a\"b", "a&quot;b");
	check_escaped("tab\there\nand", "tab here and");
	check_escaped("\x01\x7f", "\xef\xbf\xbd\xef\xbf\xbd");
	check_escaped("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
	check_escaped("\xc3", "\xef\xbf\xbd");				/* cut off */
	check_escaped("\xc0\xbc", "\xef\xbf\xbd\xef\xbf\xbd");		/* '<', overlong */
	check_escaped("\xed\xa0\x80!", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd!");	/* a surrogate */
	check_escaped("\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");	/* beyond the last */
	check_escaped("\xff<", "\xef\xbf\xbd&lt;");
	check_escaped(NULL, "");
}

static void test_growing(void **state)
{
	struct text t = { NULL };

	for (unsigned i = 0; i < 20000; i++)
		text_put(&t, "%05u", i);
	assert_int_equal(t.len, 100000);
	assert_memory_equal(t.at + 99995, "19999", 6);
	text_free(&t);
}

static void check_number(double v, const char *expected)
{
	char n[NUMBER_SIZE];

	assert_string_equal(number(n, v), expected);
}

static void test_numbers(void **state)
{
	char n[NUMBER_SIZE];

	check_number(0, "0");
	check_number(5, "5");
	check_number(1234, "1234");
	check_number(1234567, "1\xe2\x80\xaf" "234\xe2\x80\xaf" "567");
	check_number(0.0421, "0.042");
	check_number(0.756, "0.76");
	check_number(9.999, "10.0");
	check_number(12.34, "12.3");
	check_number(99.97, "100");
	check_number(1e-9, "1.00e-09");
	check_number(1e300, "1.00e+300");
	check_number(-2.5, "-2.50");
	check_number(NAN, "-");
	check_number(INFINITY, "-");
	assert_string_equal(duration(n, 12345678), "12.3 ms");
	assert_string_equal(duration(n, 0), "0");
	assert_string_equal(duration(n, 2e9), "2 s");
	assert_string_equal(duration(n, NAN), "-");
}

/* The axis reaches the largest value, not much more, in few round steps. */
static void test_scales(void **state)
{
	for (double max = 1e-6; max < 1e13; max *= 1.37) {
		struct scale s = scale_for(max);
		double steps = s.max / s.step, digit = s.step / pow(10, floor(log10(s.step) + 1e-9));

		assert_true(s.max >= max * (1 - 1e-9));
		assert_true(s.max <= max * 1.7 || steps <= 2 + 1e-9);
		assert_true(fabs(steps - round(steps)) < 1e-6);
		assert_true(steps > 1 + 1e-9 && steps < 4 + 1e-6);
		assert_true(fabs(digit - 1) < 1e-6 || fabs(digit - 2) < 1e-6 || fabs(digit - 5) < 1e-6);
	}
	assert_true(scale_for(0).max == 1);
	assert_true(scale_for(NAN).max == 1);
	assert_true(scale_for(-5).max == 1);
	assert_true(scale_for(INFINITY).max == 1);
	assert_true(scale_for(100).max == 100);
	assert_true(scale_for(4).step == 1);
}

/* Every rectangle of a bar begins where the one before it ends, and none leaves the drawing. */
static void test_bars_fit(void **state)
{
	const struct series series[] = {
		{ .name = "one", .colour = 1 }, { .name = "two", .colour = 2 }, { .name = "three", .colour = 3 },
	};
	struct bar bars[2] = { { .label = "<a>", .values = { 10, NAN, 30 } }, { .label = "b", .values = { 0, 7, -4 } } };
	struct text t = { NULL };
	unsigned rects = 0;
	double end = 0;

	chart_bars(&t, "title", series, 3, bars, 2);
	assert_non_null(strstr(t.at, "&lt;a&gt;"));
	assert_null(strstr(t.at, "<a>"));
	assert_null(strstr(t.at, "nan"));
	for (const char *p = t.at; (p = strstr(p, "<rect")); p++) {
		double x, width;
		int y;

		assert_int_equal(sscanf(p, "<rect class=\"f%*u\" x=\"%lf%%\" y=\"%d\" width=\"%lf%%\"", &x, &y, &width), 3);
		if (x == 0)
			end = 0;
		assert_true(fabs(x - end) < 0.002);
		end = x + width;
		assert_true(end <= 100.001);
		rects++;
	}
	assert_int_equal(rects, 3);
	text_free(&t);
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static const char good[] =
	"{\"schema\": 1, \"kind\": \"compare\", \"bench\": \"<b>\", \"modes\": [{\"name\": \"a\", \"flags\": \"--x\"}, {\"name\": \"b\"}],"
	" \"compared\": {\"first_mode\": \"a\", \"real_below_p\": 0.05, \"whole_run\": [], \"cases\": [{\"name\": \"c\", \"metrics\": ["
	"  {\"id\": \"hidden\", \"name\": \"hidden\", \"group\": \"faults\", \"unit\": \"count\", \"modes\": ["
	"   {\"mode\": \"a\", \"median\": 4, \"min\": 3, \"max\": 5, \"samples\": 3, \"ratio\": null, \"p\": null},"
	"   {\"mode\": \"b\", \"median\": 2, \"min\": 9, \"max\": 1, \"samples\": 3, \"ratio\": 0.5, \"p\": 0.01},"
	"   {\"mode\": \"nobody\", \"median\": 2, \"samples\": 3}]}]}]},"
	" \"samples\": [{\"mode\": \"a\", \"ok\": true, \"cases\": [{\"name\": \"c\", \"ns_per_unit\": 7e6}]}, {\"mode\": \"b\", \"ok\": false}],"
	" \"fault_maps\": {\"a\": {\"bucket_ns\": 1000, \"buckets\": 2, \"classes\": [\"pt_write\", \"hidden\"],"
	"  \"regions\": [{\"first\": \"0xffffffff81000000\", \"bytes\": 2097152}], \"cells\": [[0, 1, 5, 6]]}}}";

static int make(struct model *m, const char *json, char why[200])
{
	json_error_t e;
	json_t *root = json_loads(json, 0, &e);
	int r;

	if (!root)
		fail_msg("%s: %s", e.text, json);
	*why = 0;
	r = model_make(m, root, why, 200);
	json_decref(root);
	return r;
}

static void test_model(void **state)
{
	struct model *m = malloc(sizeof *m);
	const struct model_row *row;
	struct text t = { NULL };
	char why[200];

	assert_int_equal(make(m, good, why), 0);
	assert_int_equal(m->nr_modes, 2);
	assert_int_equal(m->failed_runs, 1);
	row = model_row(&m->blocks[0], "hidden");
	assert_non_null(row);
	assert_true(row->of[0].median == 4 && row->of[1].ratio == 0.5 && isnan(row->of[0].p));
	assert_true(row->of[1].min == 2 && row->of[1].max == 2);	/* a range that does not hold its median */
	assert_true(m->blocks[0].times[0][0] == 7e6);
	assert_int_equal(m->maps[0].counts[0][1][0], 6);		/* hidden */
	assert_int_equal(m->maps[0].counts[0][1][2], 5);		/* pt_write */
	assert_null(model_row(&m->blocks[0], "nothing"));
	page_begin(&t, "x");
	page_part(&t, m, "<source>");
	page_end(&t);
	assert_null(strstr(t.at, "<b></h1>"));
	assert_non_null(strstr(t.at, "<h1>&lt;b&gt;</h1>"));
	assert_non_null(strstr(t.at, "&lt;source&gt;"));
	assert_null(strstr(t.at, "nan"));
	assert_null(strstr(t.at, "http"));
	text_free(&t);
	model_release(m);
	free(m);
}

/* One thing in the good file made wrong. */
static void check_refused(const char *from, const char *to, const char *words)
{
	struct model *m = malloc(sizeof *m);
	const char *at = strstr(good, from);
	char json[sizeof good + 200], why[200];

	assert_non_null(at);
	snprintf(json, sizeof json, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
	assert_int_equal(make(m, json, why), -EINVAL);
	if (!strstr(why, words))
		fail_msg("'%s' does not say '%s'", why, words);
	free(m);
}

static void test_model_refuses(void **state)
{
	check_refused("\"modes\": [{\"name\"", "\"modes\": 5, \"x\": [{\"name\"", "modes");
	check_refused("{\"name\": \"b\"}", "{\"name\": \"a\"}", "modes[1]");
	check_refused("{\"name\": \"b\"}", "7", "modes[1]");
	check_refused("\"compared\"", "\"compere\"", "compared");
	check_refused("\"cases\": [{\"name\": \"c\", \"metrics", "\"cases\": 5, \"z\": [{\"name\": \"c\", \"metrics", "cases");
	check_refused("[[0, 1, 5, 6]]", "[[0, 2, 5, 6]]", "cells[0]");
	check_refused("[[0, 1, 5, 6]]", "[[0, 1, 5], [1, 0, 5, 6]]", "cells[1]");
	check_refused("[[0, 1, 5, 6]]", "[[-1, 1, 5, 6]]", "cells[0]");
	check_refused("[[0, 1, 5, 6]]", "[[0.5e300, 1, 5, 6]]", "cells[0]");
	check_refused("[[0, 1, 5, 6]]", "[\"x\"]", "cells[0]");
	check_refused("0xffffffff81000000", "nowhere", "regions[0]");
	check_refused("\"bytes\": 2097152", "\"bytes\": -1", "regions[0]");
	check_refused("\"buckets\": 2", "\"buckets\": 1e9", "buckets");
	check_refused("\"bucket_ns\": 1000", "\"bucket_ns\": 0", "bucket_ns");
	check_refused("\"samples\": [{\"mode\"", "\"samples\": {}, \"y\": [{\"mode\"", "samples");
}

/* Any byte of the file may be another: refused or drawn, never worse (the sanitizers look on). */
static void test_model_garbled(void **state)
{
	struct model *m = malloc(sizeof *m);
	char json[sizeof good], why[200];
	unsigned made = 0;

	srand(3);
	for (unsigned i = 0; i < 3000; i++) {
		json_t *root;

		memcpy(json, good, sizeof good);
		for (unsigned k = 0; k < 1u + i % 3; k++)
			json[rand() % (sizeof good - 1)] = "0123456789-eE.\"[]{},: anu"[rand() % 25];
		root = json_loads(json, 0, NULL);
		if (root && !model_make(m, root, why, sizeof why)) {
			struct text t = { NULL };

			page_part(&t, m, "x");
			assert_false(t.failed);
			text_free(&t);
			model_release(m);
			made++;
		}
		json_decref(root);
	}
	assert_true(made > 100);
	free(m);
}

static void test_runs(void **state)
{
	const char *names[] = { "run.json", "run.json", "other.json" };
	const json_t *reports[3];
	struct model *m = malloc(sizeof *m);
	json_t *root;
	char why[200];

	reports[0] = json_loads("{\"total\": {\"exits\": {\"total\": 9}}, \"mmu\": {\"hidden\": 4}, \"end\": {\"wall_ns\": 5000}}", 0,
				NULL);
	reports[1] = json_loads("{\"total\": {\"exits\": {\"total\": 18}}, \"mmu\": {\"hidden\": 1}, \"end\": {}}", 0, NULL);
	reports[2] = json_loads("{\"total\": 5, \"mmu\": [], \"end\": \"x\"}", 0, NULL);
	root = runs_compared(reports, names, 3);
	assert_non_null(root);
	assert_int_equal(model_make(m, root, why, sizeof why), 0);
	assert_string_equal(m->modes[0].name, "run.json");
	assert_string_equal(m->modes[1].name, "run.json (2)");
	assert_true(model_row(&m->blocks[0], "hidden")->of[1].ratio == 0.25);
	assert_true(model_row(&m->blocks[0], "exits")->of[0].median == 9);
	assert_int_equal(model_row(&m->blocks[0], "hidden")->of[2].samples, 0);
	assert_true(model_row(&m->blocks[0], "time")->of[0].median == 5000);
	model_release(m);
	json_decref(root);
	for (unsigned i = 0; i < 3; i++)
		json_decref((json_t *)reports[i]);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escaping),
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_scales),
		cmocka_unit_test(test_bars_fit),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_model_refuses),
		cmocka_unit_test(test_model_garbled),
		cmocka_unit_test(test_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
