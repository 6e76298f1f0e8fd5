/*
 * numa_text.c - replies about NUMA as tables for people.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/numa.h"

#define WIDTH		100u
#define MIB_FRAMES	256.0
#define NODES_SHOWN	4u		/* beside each other; more go to the next lines */
#define ROWS_MAX	24u		/* runs of `map` that are printed as rows */
#define DRAWING_WIDTH	64u
#define DRAWING_CELLS	(16 * DRAWING_WIDTH)

static int64_t integer(const json_t *o, const char *name)
{
	return json_integer_value(json_object_get(o, name));
}

/* ---- show ---------------------------------------------------------------------------------------------------------- */

/* A number, or "?" if it is not known. */
static const char *known(const json_t *o, const char *name, char to[static 16])
{
	const json_t *v = json_object_get(o, name);

	if (json_is_integer(v))
		snprintf(to, 16, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else
		snprintf(to, 16, "?");
	return to;
}

/* Pages of 4 KiB on a node; `census` is null where there was no look. */
static int64_t pages_on(const json_t *census, int64_t node)
{
	char name[24];

	snprintf(name, sizeof name, "%" PRId64, node);
	return integer(json_object_get(census, "by_node"), name);
}

/* What a row of the memory table shows of a node, in MiB; negative: not known. */
struct memory_row {
	const char *title;
	const json_t *all, *but;	/* censuses: those of `all` that are not in `but` ... */
	const char *member;		/* ... or bytes: this member of the node */
};

static double cell_mib(const struct memory_row *row, const json_t *node)
{
	int64_t id = integer(node, "node");

	if (!row->member)
		return (pages_on(row->all, id) - pages_on(row->but, id)) / MIB_FRAMES;
	return json_is_integer(json_object_get(node, row->member)) ? integer(node, row->member) / 1048576.0 : -1;
}

static bool row_known(const struct memory_row *row, const json_t *nodes)
{
	bool known = !row->member ? json_is_object(row->all) : json_array_size(nodes) > 0;

	for (unsigned i = 0; row->member && i < json_array_size(nodes); i++)
		known = known && cell_mib(row, json_array_get(nodes, i)) >= 0;
	return known;
}

/* With the last two columns. */
static void print_sums(FILE *to, const struct memory_row *row, const json_t *nodes)
{
	double sum = 0;

	for (unsigned i = 0; i < json_array_size(nodes); i++)
		sum += cell_mib(row, json_array_get(nodes, i));
	fprintf(to, " %12.2f", sum);
	if (row->all)
		fprintf(to, " %14.2f", (integer(row->all, "not_allocated") - integer(row->but, "not_allocated")) / MIB_FRAMES);
}

static void print_row(FILE *to, const struct memory_row *row, const json_t *nodes, unsigned from)
{
	fprintf(to, "  %-18s", row->title);
	for (unsigned i = from; i < json_array_size(nodes) && i < from + NODES_SHOWN; i++)
		fprintf(to, " %12.2f", cell_mib(row, json_array_get(nodes, i)));
	if (!from)
		print_sums(to, row, nodes);
	fputc('\n', to);
}

static void print_memory(FILE *to, const json_t *show, const json_t *nodes)
{
	const json_t *guest = json_object_get(show, "guest_frames"), *monitor = json_object_get(show, "monitor_frames");
	const json_t *pool = json_object_get(show, "shadow_pool_frames");
	const struct memory_row rows[] = {
		{ .title = "guest", .all = guest },
		{ .title = "... its copies", .all = json_object_get(show, "guest_copies") },
		{ .title = "shadow tables", .all = pool },
		{ .title = "rest of monitor", .all = monitor, .but = pool },
		{ .title = "host, free", .member = "free_bytes" },
		{ .title = "host", .member = "bytes" },
	};
	char name[24];

	for (unsigned from = 0; from < json_array_size(nodes); from += NODES_SHOWN) {
		fprintf(to, "\n%-20s", from ? "" : "memory, MiB");
		for (unsigned i = from; i < json_array_size(nodes) && i < from + NODES_SHOWN; i++) {
			snprintf(name, sizeof name, "node %" PRId64, integer(json_array_get(nodes, i), "node"));
			fprintf(to, "%13s", name);
		}
		if (!from)
			fprintf(to, "%13s%15s", "all", "not allocated");
		fputc('\n', to);
		for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
			if (row_known(&rows[i], nodes))
				print_row(to, &rows[i], nodes, from);
	}
}

static void print_distances(FILE *to, const json_t *nodes)
{
	fprintf(to, "\ndistance\n");
	for (unsigned i = 0; i < json_array_size(nodes); i++) {
		const json_t *node = json_array_get(nodes, i), *row = json_object_get(node, "distance");

		fprintf(to, "  node %-3" PRId64 " %3" PRId64 " CPUs  ", integer(node, "node"), integer(node, "cpus"));
		for (unsigned k = 0; k < json_array_size(row); k++)
			fprintf(to, " %4" JSON_INTEGER_FORMAT, json_integer_value(json_array_get(row, k)));
		fputc('\n', to);
	}
}

/* "81.3%" of samples, or "". */
static const char *share_text(int64_t part, int64_t rest, char to[static 16])
{
	double all = (double)part + rest;

	*to = 0;
	if (all > 0)
		snprintf(to, 16, "%.1f%%", 100 * part / all);
	return to;
}

/* Accesses that were seen, where a manager looks. */
static void print_samples(FILE *to, const json_t *v)
{
	char share[16];

	if (json_object_get(v, "samples_local"))
		fprintf(to, " %12" PRId64 " %12" PRId64 " %7s", integer(v, "samples_local"), integer(v, "samples_remote"),
			share_text(integer(v, "samples_local"), integer(v, "samples_remote"), share));
}

static void print_vcpus(FILE *to, const json_t *vcpus)
{
	bool samples = json_object_get(json_array_get(vcpus, 0), "samples_local");

	fprintf(to, "\n  %4s %10s %6s   %-*s", "vCPU", "processor", "node", samples ? 12 : 0, "may run on");
	fprintf(to, samples ? " %12s %12s %7s\n" : "\n", "local", "remote", "local");
	for (unsigned i = 0; i < json_array_size(vcpus); i++) {
		const json_t *v = json_array_get(vcpus, i);
		char id[16], cpu[16], node[16], where[64];

		fprintf(to, "  %4s %10s %6s   %-*s", known(v, "vcpu", id), known(v, "cpu", cpu), known(v, "node", node),
			samples ? 12 : 0, live_clean(live_text(v, "may_run_on", "?"), where, sizeof where));
		print_samples(to, v);
		fputc('\n', to);
	}
}

/* "key=value" of what an object has, in lines of WIDTH. */
static void print_pairs(FILE *to, const json_t *pairs)
{
	unsigned column = WIDTH;
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)pairs, key, value) {
		char name[32], pair[64];
		unsigned n = snprintf(pair, sizeof pair, " %s=%" JSON_INTEGER_FORMAT, live_clean(key, name, sizeof name),
				      json_integer_value(value));

		if (column + n > WIDTH) {
			fprintf(to, "\n ");
			column = 1;
		}
		column += n;
		fputs(pair, to);
	}
}

static void print_policy(FILE *to, const json_t *show)
{
	static const char *const options[] = { "membind", "preferred", "cpunodebind" };
	const json_t *nodes = json_object_get(show, "nodes");
	char text[80], number[16];

	fprintf(to, "policy %s", live_clean(live_text(show, "policy", "?"), text, sizeof text));
	for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
		const json_t *value = json_object_get(show, options[i]);

		if (json_is_string(value) || json_is_integer(value))
			fprintf(to, " --%s=%s", options[i], json_is_string(value) ?
				live_clean(json_string_value(value), text, sizeof text) : known(show, options[i], number));
	}
	fprintf(to, ", %zu %snode%s", json_array_size(nodes), json_is_true(json_object_get(show, "made_up")) ? "made-up " : "",
		json_array_size(nodes) == 1 ? ": all memory and every vCPU is there" : "s");
	print_pairs(to, live_at(show, "manager.parameters"));
	fputc('\n', to);
}

/* What there is now of things moved, and what was done. */
static void print_manager(FILE *to, const json_t *manager, const json_t *texts)
{
	const json_t *now = json_object_get(manager, "now"), *value;
	double share = live_number(now, "recent_local_share", -1);
	const char *key;

	if (!json_is_object(manager))
		return;
	fprintf(to, "\nmoved: %" PRId64 " frames away from home, %" PRId64 " with copies, %" PRId64 " moves pending", integer(now, "away"),
		integer(now, "copies"), integer(now, "pending"));
	if (share >= 0)
		fprintf(to, "; of late %.1f%% of sampled accesses local", 100 * share);
	fprintf(to, "%s\n", json_is_true(json_object_get(now, "resting")) ? "; resting: moves did not pay" : "");
	json_object_foreach((json_t *)manager, key, value)
		if (json_is_integer(value) && json_integer_value(value)) {
			char name[32], number[VMM_NUMBER_TEXT], what[256];
			const char *text = live_clean(live_text(texts, key, ""), what, sizeof what);

			fprintf(to, "  %-18s %14s  %.*s\n", live_clean(key, name, sizeof name),
				vmm_number_text(json_integer_value(value), number), vmm_phrase_length(text, WIDTH - 37), text);
		}
}

/* What the guest is told. */
static void print_vnodes(FILE *to, const json_t *vnodes)
{
	if (json_array_size(vnodes))
		fprintf(to, "\nthe guest sees (--vnuma)\n");
	for (unsigned i = 0; i < json_array_size(vnodes); i++) {
		const json_t *v = json_array_get(vnodes, i), *vcpus = json_object_get(v, "vcpus");

		fprintf(to, "  vnode %-3" PRId64 " node %-3" PRId64 " frames %" PRId64 " to %" PRId64, integer(v, "vnode"), integer(v, "node"),
			integer(v, "first_frame"), integer(v, "first_frame") + integer(v, "frames") - 1);
		for (unsigned k = 0; k < json_array_size(vcpus); k++)
			fprintf(to, "%s %" PRId64, k ? "," : ", vCPU", (int64_t)json_integer_value(json_array_get(vcpus, k)));
		fputc('\n', to);
	}
}

void numa_print_show(FILE *to, const json_t *info, const json_t *describe, const json_t *show)
{
	const json_t *nodes = json_object_get(show, "nodes");

	live_print_title(to, info, live_number(info, "pid", 0));
	fputc('\n', to);
	print_policy(to, show);
	if (json_array_size(nodes) > 1) {
		print_memory(to, show, nodes);
		print_distances(to, nodes);
	}
	print_vcpus(to, json_object_get(show, "vcpus"));
	print_manager(to, json_object_get(show, "manager"), live_at(describe, "numa.manager"));
	print_vnodes(to, json_object_get(show, "vnuma"));
}

/* ---- map ----------------------------------------------------------------------------------------------------------- */

#define NOWHERE		-1	/* not allocated */
#define SEVERAL		-2

static int64_t run_node(const json_t *run)
{
	const json_t *node = json_array_get(run, 2);

	return json_is_integer(node) ? json_integer_value(node) : NOWHERE;
}

static void print_rows(FILE *to, const json_t *runs)
{
	char size[CLI_SIZE_TEXT];
	json_t *run;
	size_t i;

	fprintf(to, "%12s %12s %8s  %s\n", "first frame", "last", "", "node");
	json_array_foreach(runs, i, run) {
		uint64_t first = json_integer_value(json_array_get(run, 0)), n = json_integer_value(json_array_get(run, 1));

		fprintf(to, "%12" PRIu64 " %12" PRIu64 " %8s  ", first, first + n - 1, cli_size_text(n << 12, size));
		if (run_node(run) == NOWHERE)
			fprintf(to, "not allocated\n");
		else
			fprintf(to, "%" PRId64 "\n", run_node(run));
	}
}

static char cell_letter(int64_t node)
{
	if (node < 0)
		return node == NOWHERE ? '.' : '*';
	return node < 10 ? '0' + node : node < 36 ? 'a' + node - 10 : '?';
}

static void print_drawing(FILE *to, const json_t *runs, uint64_t first, uint64_t count)
{
	int64_t cells[DRAWING_CELLS];
	unsigned shift = 0, n;
	char size[CLI_SIZE_TEXT];
	json_t *run;
	size_t i;

	while (((count - 1) >> shift) + 1 > DRAWING_CELLS)
		shift++;
	n = ((count - 1) >> shift) + 1;
	for (unsigned c = 0; c < n; c++)
		cells[c] = NOWHERE;
	json_array_foreach(runs, i, run) {
		uint64_t begin = json_integer_value(json_array_get(run, 0)) - first;
		uint64_t end = begin + json_integer_value(json_array_get(run, 1));

		if (run_node(run) == NOWHERE || begin >= end || end > count)
			continue;
		for (uint64_t c = begin >> shift; c <= (end - 1) >> shift; c++)
			cells[c] = cells[c] == NOWHERE || cells[c] == run_node(run) ? run_node(run) : SEVERAL;
	}
	fprintf(to, "a character is %s: the node it is on; * several, . not allocated\n", cli_size_text(4096ull << shift, size));
	for (unsigned c = 0; c < n; c++) {
		if (c % DRAWING_WIDTH == 0)
			fprintf(to, "%s%12" PRIu64 "  ", c ? "\n" : "", first + ((uint64_t)c << shift));
		fputc(cell_letter(cells[c]), to);
	}
	fputc('\n', to);
}

void numa_print_map(FILE *to, const json_t *map)
{
	const json_t *runs = json_object_get(map, "runs");

	if (json_array_size(runs) <= ROWS_MAX)
		print_rows(to, runs);
	else
		print_drawing(to, runs, integer(map, "first"), integer(map, "count"));
}

/* ---- move ---------------------------------------------------------------------------------------------------------- */

void numa_print_move(FILE *to, const json_t *move)
{
	char why[80];

	if (json_object_get(move, "vcpu")) {
		fprintf(to, "vCPU %" PRId64 " runs on node %" PRId64 "\n", integer(move, "vcpu"), integer(move, "node"));
		return;
	}
	fprintf(to, "%" PRId64 " frames moved to node %" PRId64 ", %" PRId64 " were there, %" PRId64 " are not allocated",
		integer(move, "moved"), integer(move, "node"), integer(move, "there_already"), integer(move, "not_allocated"));
	if (integer(move, "failed"))
		fprintf(to, ", %" PRId64 " stay where they are: %s", integer(move, "failed"),
			live_clean(live_text(move, "error", "?"), why, sizeof why));
	fputc('\n', to);
}

/* ---- explain, policy -------------------------------------------------------------------------------------------------- */

void numa_print_explain(FILE *to, const json_t *explain)
{
	const json_t *list = json_object_get(explain, "decisions");
	char text[512];

	for (unsigned i = 0; i < json_array_size(list); i++)
		fprintf(to, "%s\n", live_clean(live_text(json_array_get(list, i), "text", "?"), text, sizeof text));
	if (!json_array_size(list))
		fprintf(to, "%s\n", json_is_true(json_object_get(explain, "moves_pages")) ? "nothing was moved so far" :
			"nothing was moved, and will be: the guest was not started with a policy that moves pages");
}

void numa_print_policy(FILE *to, const json_t *policy)
{
	char text[NUMA_POLICY_TEXT];

	fprintf(to, "policy %s\n", live_clean(live_text(policy, "policy", "?"), text, sizeof text));
}
