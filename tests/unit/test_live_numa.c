/*
 * test_live_numa.c - what `umbra numa` makes of replies: tables, drawings; and of replies that make no sense.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/numa.h"

static char *text_of(void (*print)(FILE *, const json_t *), const char *json)
{
	json_t *o = json_loads(json, 0, NULL);
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(o);
	print(f, o);
	fclose(f);
	json_decref(o);
	assert_null(memchr(text, 27, size));
	return text;
}

static void assert_text(void (*print)(FILE *, const json_t *), const char *json, const char *wanted)
{
	char *text = text_of(print, json);

	if (!strstr(text, wanted))
		fail_msg("no '%s' in:\n%s", wanted, text);
	free(text);
}

static void show_of(FILE *to, const json_t *show)
{
	json_t *info = json_pack("{ss sI s{ss sI sI ss}}", "umbra", "1.2", "pid", (json_int_t)42, "config", "kernel", "vm\033linuz",
				 "memory_bytes", (json_int_t)1 << 26, "vcpus", (json_int_t)2, "mmu", "shadow");
	json_t *describe = json_pack("{s{s{ss}}}", "numa", "manager", "migrated", "frames moved");

	numa_print_show(to, info, describe, show);
	json_decref(describe);
	json_decref(info);
}

#define CENSUS(none, n0, n3)	"{\"not_allocated\":" #none ",\"by_node\":{\"0\":" #n0 ",\"3\":" #n3 "}}"

static void show(void **state)
{
	static const char json[] =
		"{\"policy\":\"bind\",\"guest_frames\":" CENSUS(256, 512, 128) ",\"monitor_frames\":" CENSUS(0, 512, 256)
		",\"shadow_pool_frames\":" CENSUS(0, 256, 256) ",\"nodes\":["
		"{\"node\":0,\"bytes\":1048576000,\"free_bytes\":524288000,\"cpus\":2,\"distance\":[10,21]},"
		"{\"node\":3,\"bytes\":2097152,\"free_bytes\":null,\"cpus\":0,\"distance\":[21,10]}],"
		"\"vcpus\":[{\"vcpu\":0,\"cpu\":5,\"node\":3,\"may_run_on\":\"4-5\"},"
		"{\"vcpu\":1,\"cpu\":null,\"node\":null,\"may_run_on\":\"\"}]}";

	assert_text(show_of, json, "umbra 1.2, pid 42: vm?linuz, 64M, 2 vCPUs");
	assert_text(show_of, json, "policy bind, 2 nodes\n");
	assert_text(show_of, json, "memory, MiB                node 0       node 3          all  not allocated\n");
	assert_text(show_of, json, "  guest                      2.00         0.50         2.50           1.00\n");
	assert_text(show_of, json, "  shadow tables              1.00         1.00         2.00           0.00\n");
	assert_text(show_of, json, "  rest of monitor            1.00         0.00         1.00           0.00\n");
	assert_text(show_of, json, "  host                    1000.00         2.00      1002.00\n");
	assert_text(show_of, json, "0.00\n  host                  ");	/* 'host, free' is not known of one, so it is left out */
	assert_text(show_of, json, "  node 3     0 CPUs     21   10\n");
	assert_text(show_of, json, "     0          5      3   4-5\n");
	assert_text(show_of, json, "     1          ?      ?");
	assert_text(show_of, "{\"policy\":\"off\",\"nodes\":[{\"node\":0}],\"guest_frames\":null}", "1 node: all memory and every vCPU");
}

static void manager(void **state)
{
	static const char json[] =
		"{\"policy\":\"auto\",\"membind\":\"0,3\",\"preferred\":null,\"cpunodebind\":\"all\",\"made_up\":true,\"nodes\":["
		"{\"node\":0},{\"node\":3}],\"vcpus\":[{\"vcpu\":0,\"node\":3,\"may_run_on\":\"0\",\"samples_local\":30,"
		"\"samples_remote\":10},{\"vcpu\":1,\"samples_local\":0,\"samples_remote\":0}],"
		"\"manager\":{\"migrated\":7,\"homed\":0,\"parameters\":{\"interval\":100,\"hot\":2},"
		"\"now\":{\"away\":5,\"copies\":2,\"pending\":1,\"recent_local_share\":0.25,\"resting\":true}}}";

	assert_text(show_of, json, "policy auto --membind=0,3 --cpunodebind=all, 2 made-up nodes\n  interval=100 hot=2\n");
	assert_text(show_of, json, "5 frames away from home, 2 with copies, 1 moves pending; of late 25.0% of sampled accesses local; resting");
	assert_text(show_of, json, "  migrated                        7  frames moved\n");
	assert_text(show_of, json, "     0          ?      3   0                      30           10   75.0%\n");
	assert_text(numa_print_explain, "{\"decisions\":[{\"text\":\"a\\u001bb\"},{\"text\":\"c\"}]}", "a?b\nc\n");
	assert_text(numa_print_explain, "{\"decisions\":[],\"moves_pages\":true}", "nothing was moved so far\n");
	assert_text(numa_print_explain, "{\"decisions\":[],\"moves_pages\":false}", "was not started with a policy");
	assert_text(numa_print_policy, "{\"policy\":\"auto,hot=2\"}", "policy auto,hot=2\n");
}

static void map(void **state)
{
	char many[8192] = "{\"first\":100,\"count\":40,\"runs\":[[100,1,0]";

	assert_text(numa_print_map, "{\"first\":0,\"count\":768,\"runs\":[[0,512,1],[512,256,null]]}", "           0          511       2M  1\n");
	assert_text(numa_print_map, "{\"first\":0,\"count\":768,\"runs\":[[0,512,1],[512,256,null]]}", "512          767       1M  not allocated\n");
	for (unsigned i = 1; i < 40; i++)
		snprintf(many + strlen(many), sizeof many - strlen(many), ",[%u,1,%s]", 100 + i, i % 4 == 3 ? "null" : i % 2 ? "1" : "0");
	strcat(many, "]}");
	assert_text(numa_print_map, many, "a character is 4K");
	assert_text(numa_print_map, many, "         100  010.010.");

	/* 4096 frames: four to a character */
	strcpy(many, "{\"first\":0,\"count\":4096,\"runs\":[[0,4,0],[4,2,0],[6,2,1],[8,8,null],[16,1,12]");
	for (unsigned i = 0; i < 30; i++)
		snprintf(many + strlen(many), sizeof many - strlen(many), ",[%u,4,%u]", 256 + 8 * i, i % 2);
	strcat(many, "]}");
	assert_text(numa_print_map, many, "           0  0*..c...");
	assert_text(numa_print_map, many, "\n         256  0.1.0.1.");
}

static void moves(void **state)
{
	assert_text(numa_print_move, "{\"vcpu\":2,\"node\":1}", "vCPU 2 runs on node 1\n");
	assert_text(numa_print_move, "{\"moved\":7,\"node\":1,\"there_already\":2,\"not_allocated\":3,\"failed\":0,\"error\":null}",
		    "7 frames moved to node 1, 2 were there, 3 are not allocated\n");
	assert_text(numa_print_move, "{\"failed\":4,\"error\":\"node \\u001b full\"}", "4 stay where they are: node ? full\n");
}

static void hostile_replies(void **state)
{
	static const char *const texts[] = {
		"{}", "{\"nodes\":5,\"vcpus\":{},\"runs\":7}", "{\"nodes\":[1,[],{}],\"vcpus\":[null,{\"cpu\":\"x\",\"may_run_on\":3}]}",
		"{\"nodes\":[{\"node\":-5,\"distance\":[null,\"\"]},{\"node\":9223372036854775807}],\"guest_frames\":{\"by_node\":3}}",
		"{\"manager\":{\"now\":[],\"parameters\":7,\"a\":1},\"vnuma\":[5,{\"vcpus\":1}],\"decisions\":[1,{\"text\":[]}],\"policy\":{}}",
	};
	char runs[8192] = "{\"first\":9,\"count\":1,\"runs\":[[0,1,0]";

	for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
		free(text_of(show_of, texts[i]));
		free(text_of(numa_print_map, texts[i]));
		free(text_of(numa_print_move, texts[i]));
		free(text_of(numa_print_explain, texts[i]));
		free(text_of(numa_print_policy, texts[i]));
	}
	for (unsigned i = 0; i < 40; i++)
		strcat(runs, i % 2 ? ",[0,-5,0]" : ",[9223372036854775807,9223372036854775807,99],7,{}");
	strcat(runs, "]}");
	free(text_of(numa_print_map, runs));
	*strstr(runs, "1,\"runs") = '0';	/* no frames, many runs */
	free(text_of(numa_print_map, runs));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(show), cmocka_unit_test(manager), cmocka_unit_test(map), cmocka_unit_test(moves), cmocka_unit_test(hostile_replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
