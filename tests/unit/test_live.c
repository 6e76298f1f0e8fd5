/*
 * test_live.c - what `umbra stat` and `umbra top` make of a reply: rows, the table, Prometheus' text, rates.
 */
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/top.h"

static const char stats_text[] =
	"{\"schema\":1,\"umbra\":\"1.2\",\"uptime_ns\":2000000000,"
	"\"config\":{\"kernel\":\"/boot/vmlinuz\\u001b[2J\\\"x\\\\y\",\"memory_bytes\":268435456,\"vcpus\":1,\"mmu\":\"shadow\","
		"\"helper\":true},"
	"\"host\":{\"kvm\":\"PVM\"},"
	"\"helper\":{\"updates\":7,\"cpu_ns\":5,\"heuristics\":[{\"name\":\"update\",\"issued\":9,\"built\":8,"
		"\"use\":{\"built\":1,\"sampled_used\":4,\"share\":null}}]},"
	"\"total\":{\"exits\":{\"total\":100,\"page_fault\":75,\"hypercall\":25,\"gp\":0},\"hypercalls\":{\"total\":3,\"iret\":3},"
		"\"irets\":4,\"invm_faults\":11,\"guest_ns\":1500000000,\"vmm_ns\":100000000,\"idle_ns\":null,\"guest_cycles\":5,"
		"\"ept\":{\"violations\":6}},"
	"\"mmu\":{\"hidden\":30,\"true_faults\":10,\"prefetched\":8,\"updates\":7,"
		"\"usage\":{\"pool_pages\":1000,\"pool_used_pages\":50,\"pool_peak_pages\":60,\"mapped_mib\":1.5,"
			"\"tables_by_level\":[1,2,3,4],"
			"\"nodes\":[{\"node\":3,\"pool_pages\":500,\"tables\":20,\"tables_outside\":2}]}}}";
static const char describe_text[] =
	"{\"total\":{\"exits\":{\"page_fault\":\"#PF\"},\"irets\":\"returns \\\\ to\\nuser mode\"},"
	"\"mmu\":{\"hidden\":\"hidden faults: gPTE allowed\"}}";

static json_t *stats, *describe;
static struct live_rows rows;

static int set_up(void **state)
{
	stats = json_loads(stats_text, 0, NULL);
	describe = json_loads(describe_text, 0, NULL);
	return stats && describe ? 0 : -1;
}

static int tear_down(void **state)
{
	json_decref(stats);
	json_decref(describe);
	return 0;
}

static void assert_row(enum live_group group, const char *name, uint64_t value)
{
	const struct live_row *r = live_rows_find(&rows, group, name);

	if (!r || r->value != value)
		fail_msg("%s %s: %lld, not %llu", live_group_title(group), name, r ? (long long)r->value : -1,
			 (unsigned long long)value);
}

static void take(void **state)
{
	live_rows_take(&rows, stats, describe);
	assert_row(LIVE_FAULTS, "hidden", 30);
	assert_row(LIVE_FAULTS, "true", 10);
	assert_row(LIVE_FAULTS, "true, in VM", 11);
	assert_row(LIVE_EXITS, "page_fault", 75);
	assert_row(LIVE_HYPERCALLS, "iret", 3);
	assert_row(LIVE_VCPU, "irets", 4);
	assert_row(LIVE_MMU, "updates", 7);
	assert_row(LIVE_PREBUILDS, "prefetched", 8);
	assert_row(LIVE_PREBUILDS, "update issued", 9);
	assert_row(LIVE_PREBUILDS, "update built", 8);
	assert_row(LIVE_PREBUILDS, "update useful (sampled)", 4);
	assert_true(live_rows_find(&rows, LIVE_PREBUILDS, "update issued")->detail);
	assert_false(live_rows_find(&rows, LIVE_PREBUILDS, "update built")->detail);
	assert_row(LIVE_OTHER, "ept violations", 6);
	assert_null(live_rows_find(&rows, LIVE_EXITS, "total"));
	assert_null(live_rows_find(&rows, LIVE_VCPU, "guest_cycles"));
	assert_string_equal(live_rows_find(&rows, LIVE_EXITS, "page_fault")->what, "#PF");
	assert_string_equal(live_rows_find(&rows, LIVE_EXITS, "hypercall")->what, "");
	live_rows_take(&rows, stats, NULL);
	assert_row(LIVE_EXITS, "page_fault", 75);
}

/* A reply from anything at all: no crash, no more rows than there is room for. */
static void hostile_replies(void **state)
{
	static const char *const texts[] = {
		"{}", "[]", "{\"total\":5,\"mmu\":[1]}", "{\"total\":{\"exits\":[{}]},\"helper\":{\"heuristics\":{\"a\":1}}}",
		"{\"total\":{\"exits\":{\"a\":{\"b\":{\"c\":1}}}},\"helper\":{\"heuristics\":[1,null,{\"name\":5,\"x\":1}]}}",
		"{\"config\":{\"vcpus\":\"x\",\"kernel\":7},\"uptime_ns\":\"y\",\"umbra\":{}}",
	};
	json_t *big = json_object(), *exits = json_object();
	char name[300], *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
		json_t *o = json_loads(texts[i], 0, NULL);

		assert_non_null(o);
		live_print_table(f, o, o, 1);
		live_print_prometheus(f, o, o, 1);
		json_decref(o);
	}
	for (unsigned i = 0; i < 3000; i++) {
		memset(name, 'a', sizeof name - 1);
		snprintf(name + 200, 100, "%u", i);
		json_object_set_new(exits, name, json_integer(i));
	}
	json_object_set_new(big, "exits", exits);
	big = json_pack("{s:o}", "total", big);
	live_rows_take(&rows, big, NULL);
	assert_int_equal(rows.n, LIVE_ROWS_MAX);
	live_print_table(f, big, NULL, 1);
	json_decref(big);
	fclose(f);
	assert_null(memchr(text, 27, size));
	free(text);
}

static char *text_of(void (*print)(FILE *, const json_t *, const json_t *, pid_t))
{
	char *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	print(f, stats, describe, 42);
	fclose(f);
	return text;
}

static void table(void **state)
{
	char *text = text_of(live_print_table);

	assert_non_null(strstr(text, "umbra 1.2, pid 42: vmlinuz?[2J\"x\\y, 256M, 1 vCPU, shadow, helper, up 2.0 s\n"));
	assert_non_null(strstr(text, "  page_fault                      75  75.0%  #PF\n"));
	assert_non_null(strstr(text, "  hidden                          30  58.8%  hidden faults: gPTE allowed\n"));
	assert_non_null(strstr(text, "50 of 1 000 pages in use, 60 at most"));
	assert_non_null(strstr(text, "  node 3: 20 tables in 500 pages, 2 of them elsewhere\n"));
	assert_null(strstr(text, "gp"));
	for (char *line = text; *line; line += strcspn(line, "\n") + 1)
		if (strcspn(line, "\n") > 100)
			fail_msg("longer than 100 columns: %.120s", line);
	free(text);
}

/* The grammar of the text format, line by line; a metric's head comes before its samples, and once. */
static void prometheus(void **state)
{
	static const char help[] = "^# HELP [a-z_][a-z0-9_]* ([^\\\\]|\\\\\\\\|\\\\n)*$";
	static const char type[] = "^# TYPE [a-z_][a-z0-9_]* (counter|gauge|untyped)$";
	static const char sample[] = "^[a-z_][a-z0-9_]*\\{[a-z]+=\"([^\"\\\\]|\\\\[\\\\\"n])*\"(,[a-z]+=\"([^\"\\\\]|\\\\[\\\\\"n])*\")*\\} "
				     "[0-9]+(\\.[0-9]+)?(e[+-][0-9]+)?$";
	char *text = text_of(live_print_prometheus), *save, *line, metric[80] = "", *copy = strdup(text);
	regex_t h, t, s;

	assert_int_equal(regcomp(&h, help, REG_EXTENDED) | regcomp(&t, type, REG_EXTENDED) | regcomp(&s, sample, REG_EXTENDED), 0);
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(line, "# HELP", 6)) {
			assert_int_equal(regexec(&h, line, 0, NULL, 0), 0);
			continue;
		}
		if (*line == '#') {
			assert_int_equal(regexec(&t, line, 0, NULL, 0), 0);
			assert_int_equal(sscanf(line, "# TYPE %79s", metric), 1);
			line[strlen("# TYPE ") + strlen(metric)] = 0;
			assert_ptr_equal(strstr(copy, line) - copy, line - text);	/* the first of its kind */
			continue;
		}
		if (regexec(&s, line, 0, NULL, 0) || strncmp(line, metric, strlen(metric)) || line[strlen(metric)] != '{')
			fail_msg("not a sample of %s: %s", metric, line);
	}
	assert_non_null(strstr(copy, "umbra_faults_total{pid=\"42\",class=\"true_in_vm\"} 11\n"));
	assert_non_null(strstr(copy, "# TYPE umbra_ept_violations untyped\numbra_ept_violations{pid=\"42\"} 6\n"));
	assert_non_null(strstr(copy, "umbra_exits_total{pid=\"42\",cause=\"page_fault\"} 75\n"));
	assert_non_null(strstr(copy, "# HELP umbra_irets_total returns \\\\ to\\nuser mode\n"));
	assert_non_null(strstr(copy, "umbra_guest_seconds_total{pid=\"42\"} 1.5\n"));
	assert_null(strstr(copy, "umbra_idle_seconds_total"));
	assert_non_null(strstr(copy, "kernel=\"/boot/vmlinuz?[2J\\\"x\\\\y\""));
	regfree(&h);
	regfree(&t);
	regfree(&s);
	free(copy);
	free(text);
}

/* ---- top ------------------------------------------------------------------------------------------------------------ */

static char *view_text(const struct top_view *view, const struct top_sample *base, const struct top_sample *before,
		       const struct top_sample *now)
{
	char *text;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	top_print(f, view, base, before, now);
	fclose(f);
	return text;
}

static void rates(void **state)
{
	static struct top_sample before, now;
	struct top_view view = { 0 };
	char *text;

	before = (struct top_sample){ .stats = stats, .ns = 2e9 };
	live_rows_take(&before.rows, stats, NULL);
	now = before;
	now.ns = 4e9;
	for (unsigned i = 0; i < now.rows.n; i++)
		if (!strcmp(now.rows.row[i].name, "hypercall"))
			now.rows.row[i].value += 50;
	text = view_text(&view, NULL, &before, &now);
	assert_non_null(strstr(text, "exits                                150         25.0\n"
				     "  hypercall                           75         25.0  100.0\n"
				     "  page_fault                          75          0.0    0.0\n"));
	assert_null(strstr(text, "irets"));
	free(text);

	view.details = true;			/* totals since the base */
	text = view_text(&view, &before, &before, &now);
	assert_non_null(strstr(text, "  hypercall                           50         25.0"));
	assert_null(strstr(text, "page_fault"));
	free(text);

	text = view_text(&view, &now, &now, &before);	/* counts that went back: a guest built anew */
	assert_null(strstr(text, "18446744"));
	free(text);

	view.filtered = true;
	assert_int_equal(regcomp(&view.filter, "^vCPU ire", REG_EXTENDED | REG_NOSUB), 0);
	text = view_text(&view, NULL, &before, &now);
	assert_non_null(strstr(text, "irets"));
	assert_null(strstr(text, "hypercall"));
	free(text);
	regfree(&view.filter);
	text = view_text(&(struct top_view){ 0 }, NULL, &now, &now);	/* no time between them */
	assert_null(strstr(text, "nan"));
	assert_null(strstr(text, "inf"));
	free(text);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = { TEST(take), TEST(hostile_replies), TEST(table), TEST(prometheus), TEST(rates) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
