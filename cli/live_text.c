/*
 * live_text.c - a `stats` reply as a table for people.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/live.h"

#define WIDTH	100u

const char *live_clean(const char *text, char *to, size_t size)
{
	size_t n = 0;

	for (; text[n] && n < size - 1; n++)
		to[n] = text[n] < ' ' || text[n] > '~' ? '?' : text[n];
	to[n] = 0;
	return to;
}

void live_print_title(FILE *to, const json_t *stats, pid_t pid)
{
	char size[CLI_SIZE_TEXT], version[40], kernel[40], mmu[16];
	const char *path = live_text(stats, "config.kernel", "?"), *slash = strrchr(path, '/');
	double vcpus = live_number(stats, "config.vcpus", 1);

	fprintf(to, "umbra %s", live_clean(live_text(stats, "umbra", "?"), version, sizeof version));
	if (pid)
		fprintf(to, ", pid %d", pid);
	fprintf(to, ": %s, %s, %.0f vCPU%s, %s%s, up %.1f s", live_clean(slash ? slash + 1 : path, kernel, sizeof kernel),
		cli_size_text(live_number(stats, "config.memory_bytes", 0), size), vcpus, vcpus == 1 ? "" : "s",
		live_clean(live_text(stats, "config.mmu", "?"), mmu, sizeof mmu),
		live_at(stats, "helper") ? ", helper" : "", live_number(stats, "uptime_ns", 0) / 1e9);
}

static int most_first(const void *a, const void *b)
{
	const struct live_row *x = *(const struct live_row *const *)a, *y = *(const struct live_row *const *)b;

	return x->value != y->value ? (x->value < y->value) - (x->value > y->value) : strcmp(x->name, y->name);
}

static void print_group(FILE *to, const struct live_rows *rows, enum live_group group)
{
	const struct live_row *list[LIVE_ROWS_MAX];
	char number[VMM_NUMBER_TEXT], share[16] = "", line[256];
	uint64_t sum = 0;
	unsigned n = 0;
	int len;

	for (unsigned i = 0; i < rows->n; i++) {
		if (rows->row[i].group != group || !rows->row[i].value)
			continue;
		list[n++] = &rows->row[i];
		sum += rows->row[i].value;
	}
	if (!n)
		return;
	if (live_group_adds_up(group))
		qsort(list, n, sizeof *list, most_first);
	fprintf(to, "\n%s\n", live_group_title(group));
	for (unsigned i = 0; i < n; i++) {
		if (live_group_adds_up(group))
			snprintf(share, sizeof share, "%.1f%%", 100.0 * list[i]->value / sum);
		len = snprintf(line, sizeof line, "  %-20s %13s %6s", list[i]->name, vmm_number_text(list[i]->value, number),
			       share);
		if (len + 2 < (int)WIDTH)
			len += snprintf(line + len, sizeof line - len, "  %.*s",
					vmm_phrase_length(list[i]->what, WIDTH - 2 - len), list[i]->what);
		while (len && line[len - 1] == ' ')
			len--;
		fprintf(to, "%.*s\n", len, line);
	}
	if (live_group_adds_up(group) && n > 1)
		fprintf(to, "  %-20s %13s\n", "all", vmm_number_text(sum, number));
}

static void print_time(FILE *to, const json_t *stats)
{
	static const char *const parts[] = { "guest", "vmm", "idle" };
	double up = live_number(stats, "uptime_ns", 0) * live_number(stats, "config.vcpus", 1), ns;
	char where[32];

	fprintf(to, "\ntime\n");
	for (unsigned i = 0; i < 3; i++) {
		snprintf(where, sizeof where, "total.%s_ns", parts[i]);
		ns = live_number(stats, where, -1);
		if (ns >= 0 && up > 0)
			fprintf(to, "  %-20s %11.3f s %5.1f%%\n", parts[i], ns / 1e9, 100 * ns / up);
	}
}

static void print_pool(FILE *to, const json_t *stats)
{
	char n[3][VMM_NUMBER_TEXT];
	const json_t *node;
	size_t i;

	if (!live_at(stats, "mmu.usage"))
		return;
	fprintf(to, "\nshadow pool\n  %s of %s pages in use, %s at most\n",
		vmm_number_text(live_number(stats, "mmu.usage.pool_used_pages", 0), n[0]),
		vmm_number_text(live_number(stats, "mmu.usage.pool_pages", 0), n[1]),
		vmm_number_text(live_number(stats, "mmu.usage.pool_peak_pages", 0), n[2]));
	json_array_foreach(live_at(stats, "mmu.usage.nodes"), i, node)
		fprintf(to, "  node %d: %s tables in %s pages, %s of them elsewhere\n", (int)live_number(node, "node", -1),
			vmm_number_text(live_number(node, "tables", 0), n[0]), vmm_number_text(live_number(node, "pool_pages", 0), n[1]),
			vmm_number_text(live_number(node, "tables_outside", 0), n[2]));
}

void live_print_table(FILE *to, const json_t *stats, const json_t *describe, pid_t pid)
{
	struct live_rows *rows = malloc(sizeof *rows);

	live_print_title(to, stats, pid);
	fputc('\n', to);
	print_time(to, stats);
	if (rows) {
		live_rows_take(rows, stats, describe);
		for (unsigned group = 0; group < LIVE_GROUPS; group++)
			print_group(to, rows, group);
	}
	print_pool(to, stats);
	free(rows);
}
