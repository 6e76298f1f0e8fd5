/* The table: per case a row per mode. Counts are medians per unit, like the times. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define CELL	(NUMBER_TEXT + 16)	/* names of modes, too */

static const struct metric columns[] = {
	{ .head = "exits", .what = "returns to the VMM", .terms = { "+counters.exits.total" } },
	{ .head = "#PF", .what = "by page faults", .terms = { "+counters.exits.page_fault" } },
	{ .head = "hcall", .what = "by hypercalls", .terms = { "+counters.exits.hypercall" } },
	{ .head = "syscall", .what = "by system calls of guest user code", .terms = { "+counters.exits.syscall" } },
	{ .head = "other", .what = "by all else",
	  .terms = { "+counters.exits.total", "-counters.exits.page_fault", "-counters.exits.hypercall", "-counters.exits.syscall" } },
	{ .head = "hidden", .what = "faults that only the shadow caused", .terms = { "+mmu.hidden" } },
	{ .head = "true", .what = "faults for the guest", .terms = { "+mmu.true_faults", "~counters.invm_faults" } },
	{ .head = "ptwrite", .what = "writes to page tables", .terms = { "+mmu.pt_write" } },
	{ .head = "spur", .what = "faults on entries that were fine", .terms = { "+mmu.spurious" } },
	{ .head = "in-VM", .what = "system calls, returns to user mode and true faults without an exit",
	  .terms = { "+counters.invm_syscalls", "+counters.invm_irets", "+counters.invm_faults" } },
	{ .head = "kicks", .what = "kick lists run", .terms = { "+counters.kick_rounds" } },
};

static const struct metric cpu_time = { .cpu = true };

#define NR_COLUMNS	(sizeof columns / sizeof *columns)
#define NR_TIMES	6	/* median, min, max, ratio; of processor time median and ratio */
#define NR_CELLS	(1 + NR_COLUMNS + NR_TIMES)

/* ---- cells ----------------------------------------------------------------------------------------------------- */

static unsigned native_mode(const struct bench *b)
{
	unsigned i = 0;

	while (i < b->modes.n && b->modes.at[i].kind != MODE_NATIVE)
		i++;
	return i;
}

static void print_rows(char (*cells)[NR_CELLS][CELL], unsigned rows, unsigned nr_cells)
{
	size_t width[NR_CELLS] = { 0 };

	for (unsigned r = 0; r < rows; r++)
		for (unsigned c = 0; c < nr_cells; c++)
			if (strlen(cells[r][c]) > width[c])
				width[c] = strlen(cells[r][c]);
	for (unsigned r = 0; r < rows; r++) {
		printf("%-*s", (int)width[0], cells[r][0]);
		for (unsigned c = 1; c < nr_cells; c++)
			printf("%s%*s", c == 1 + NR_COLUMNS || c == 5 + NR_COLUMNS ? "   " : "  ", (int)width[c], cells[r][c]);
		putchar('\n');
	}
}

static void print_case(const struct bench *b, const char *name)
{
	char (*cells)[NR_CELLS][CELL] = calloc(b->modes.n + 1, sizeof *cells);
	double native = metric_spread(b, native_mode(b), name, NULL).median;
	double native_cpu = metric_spread(b, native_mode(b), name, &cpu_time).median;
	unsigned rows = 1;

	if (!cells)
		return;
	strcpy(cells[0][0], "mode");
	for (unsigned c = 0; c < NR_COLUMNS; c++)
		strcpy(cells[0][1 + c], columns[c].head);
	strcpy(cells[0][1 + NR_COLUMNS], "time");
	strcpy(cells[0][2 + NR_COLUMNS], "min");
	strcpy(cells[0][3 + NR_COLUMNS], "max");
	strcpy(cells[0][4 + NR_COLUMNS], "x native");
	strcpy(cells[0][5 + NR_COLUMNS], "CPU");
	strcpy(cells[0][6 + NR_COLUMNS], "x native");
	for (unsigned m = 0; m < b->modes.n; m++) {
		struct spread time = metric_spread(b, m, name, NULL);
		double cpu = metric_spread(b, m, name, &cpu_time).median;

		if (!time.n)
			continue;
		snprintf(cells[rows][0], CELL, "%s", b->modes.at[m].name);
		for (unsigned c = 0; c < NR_COLUMNS; c++)
			count_text(cells[rows][1 + c], metric_spread(b, m, name, &columns[c]).median);
		time_text(cells[rows][1 + NR_COLUMNS], time.median);
		time_text(cells[rows][2 + NR_COLUMNS], time.min);
		time_text(cells[rows][3 + NR_COLUMNS], time.max);
		ratio_text(cells[rows][4 + NR_COLUMNS], time.median / native);
		time_text(cells[rows][5 + NR_COLUMNS], cpu);
		ratio_text(cells[rows][6 + NR_COLUMNS], cpu / native_cpu);
		rows++;
	}
	printf("\n%s, per %s\n", name, b->job->unit);
	print_rows(cells, rows, NR_CELLS - (b->job->begins ? 0 : 2));
	free(cells);
}

/* Of the last good run of each mode, when it ended. */
static void print_pool(const struct bench *b)
{
	bool head = false;

	for (unsigned m = 0; m < b->modes.n; m++) {
		const json_t *report = NULL;

		for (unsigned i = 0; i < b->nr_samples; i++)
			if (b->samples[i].mode == m && b->samples[i].ok && b->samples[i].report)
				report = b->samples[i].report;
		if (!report || !(json_number_at(report, "mmu.usage.mapped_mib") > 0))	/* nested mode has none */
			continue;
		if (!head)
			printf("\nshadow pool when the guest ended\n");
		head = true;
		printf("  %-13s %4.0f pages (%.0f at most) for %.1f MiB mapped: %.2f pages per MiB\n", b->modes.at[m].name,
		       json_number_at(report, "mmu.usage.pool_used_pages"),
		       json_number_at(report, "mmu.usage.pool_peak_pages"), json_number_at(report, "mmu.usage.mapped_mib"),
		       json_number_at(report, "mmu.usage.pool_pages_per_mapped_mib"));
	}
}

void head_print(const struct bench *b)
{
	const json_t *host = NULL, *report = NULL;
	unsigned rounds = rounds_begun(b);

	for (unsigned i = 0; i < b->nr_samples && !report; i++)
		report = b->samples[i].report;
	printf("%s%s%s: %s; medians of %u round%s%s\n", b->job->name, b->job->word ? "=" : "", b->job->word ? b->job->word : "",
	       b->job->what, rounds, rounds == 1 ? "" : "s", *b->stop ? ", stopped in the last" : "");
	if (report) {
		host = json_object_get(report, "host");
		printf("umbra %s; %s, %.0f CPUs, Linux %s, KVM: %s\n", json_string_value(json_object_get(report, "umbra")),
		       json_string_value(json_object_get(host, "cpu")), json_number_at(host, "cpus"),
		       json_string_value(json_object_get(host, "kernel")), json_string_value(json_object_get(host, "kvm")));
		if (b->load > json_number_at(host, "cpus") / 2)
			printf("load average was %.1f when this began: times are not to be trusted, counts are\n", b->load);
	}
	for (unsigned i = 0; i < b->modes.n; i++)
		if (*b->modes.at[i].left_out)
			printf("%s left out: %s\n", b->modes.at[i].name, b->modes.at[i].left_out);
}

void table_print(const struct bench *b)
{
	const char *names[BENCH_CASES];
	unsigned n = case_names(b, names);

	head_print(b);
	for (unsigned i = 0; i < n; i++) {
		print_case(b, names[i]);
		if (b->job->begins)
			peers_print(b, names[i]);
	}
	print_pool(b);
	printf("\nexits: %s; #PF, hcall, syscall, other: %s, hypercalls, system calls of guest user code, all else\n",
	       columns[0].what, columns[1].what);
	for (unsigned c = 5; c < NR_COLUMNS; c++)
		printf("%s: %s%s", columns[c].head, columns[c].what, c + 1 < NR_COLUMNS ? "; " : "\n");
	if (b->job->begins)
		printf("CPU: processor time meanwhile, all threads of umbra or QEMU included\n");
}
