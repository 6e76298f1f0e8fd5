/* The table: per case a row per mode. Counts are medians per unit, like the times. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define CELL	TIME_TEXT

/* A sum of counters: each path with its sign; ~ adds one that an older umbra may lack. */
static const struct column {
	const char *head, *what;
	const char *terms[6];
} columns[] = {
	{ "exits", "returns to the VMM", { "+counters.exits.total" } },
	{ "#PF", "by page faults", { "+counters.exits.page_fault" } },
	{ "hcall", "by hypercalls", { "+counters.exits.hypercall" } },
	{ "syscall", "by system calls of guest user code", { "+counters.exits.syscall" } },
	{ "other", "by all else",
	  { "+counters.exits.total", "-counters.exits.page_fault", "-counters.exits.hypercall", "-counters.exits.syscall" } },
	{ "hidden", "faults that only the shadow caused", { "+mmu.hidden" } },
	{ "true", "faults for the guest", { "+mmu.true_faults", "~counters.invm_faults" } },
	{ "ptwrite", "writes to page tables", { "+mmu.pt_write" } },
	{ "spur", "faults on entries that were fine", { "+mmu.spurious" } },
	{ "in-VM", "system calls, returns to user mode and true faults without an exit",
	  { "+counters.invm_syscalls", "+counters.invm_irets", "+counters.invm_faults" } },
	{ "kicks", "kick lists run", { "+counters.kick_rounds" } },
};

#define NR_COLUMNS	(sizeof columns / sizeof *columns)
#define NR_TIMES	4	/* median, min, max, ratio */
#define NR_CELLS	(1 + NR_COLUMNS + NR_TIMES)

static double column_value(const struct column *column, const json_t *counted)
{
	double sum = 0, value;

	for (unsigned i = 0; i < sizeof column->terms / sizeof *column->terms && column->terms[i]; i++) {
		value = json_number_at(counted, column->terms[i] + 1);
		if (isnan(value) && *column->terms[i] == '~')
			continue;
		sum += *column->terms[i] == '-' ? -value : value;
	}
	return sum;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread spread_of(double *values, unsigned n)
{
	struct spread s = { NAN, NAN, NAN, n };

	if (!n)
		return s;
	qsort(values, n, sizeof *values, by_value);
	s.min = values[0];
	s.max = values[n - 1];
	s.median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
	return s;
}

/* The good samples of a mode that have this case: one value each. column NULL: the time. */
static struct spread spread_over(const struct bench *b, unsigned mode, const char *name, const struct column *column)
{
	double *values = calloc(b->nr_samples + 1, sizeof *values), value;
	struct spread s;
	unsigned n = 0;

	for (unsigned i = 0; values && i < b->nr_samples; i++) {
		const struct sample *sample = &b->samples[i];

		if (sample->mode != mode || !sample->ok)
			continue;
		for (unsigned j = 0; j < sample->nr_cases; j++) {
			if (strcmp(sample->cases[j].name, name))
				continue;
			value = column ? column_value(column, sample->counted[j]) / sample->cases[j].units :
				sample->cases[j].ns;
			if (!isnan(value))
				values[n++] = value;
		}
	}
	s = spread_of(values, n);
	free(values);
	return s;
}

struct spread bench_time(const struct bench *b, unsigned mode, const char *case_name)
{
	return spread_over(b, mode, case_name, NULL);
}

/* ---- cells ----------------------------------------------------------------------------------------------------- */

static void put_count(char *out, double v)
{
	if (isnan(v))
		strcpy(out, "-");
	else if (v == 0)
		strcpy(out, "0");
	else
		snprintf(out, CELL, "%.*f", v < 10 ? 2 : v < 100 ? 1 : 0, v);
}

void time_text(char out[static TIME_TEXT], double ns)
{
	static const char *const units[] = { "ns", "us", "ms", "s" };
	unsigned i = 0;

	if (isnan(ns)) {
		strcpy(out, "-");
		return;
	}
	for (; i < 3 && ns >= 999.5; i++)
		ns /= 1e3;
	snprintf(out, TIME_TEXT, "%.*f %s", ns < 9.995 ? 2 : ns < 99.95 ? 1 : 0, ns, units[i]);
}

static void put_ratio(char *out, double v)
{
	if (isnan(v))
		strcpy(out, "-");
	else
		snprintf(out, CELL, "%.*f", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v);
}

static unsigned native_mode(const struct bench *b)
{
	unsigned i = 0;

	while (i < b->modes.n && b->modes.at[i].kind != MODE_NATIVE)
		i++;
	return i;
}

static void print_rows(char (*cells)[NR_CELLS][CELL], unsigned rows)
{
	size_t width[NR_CELLS] = { 0 };

	for (unsigned r = 0; r < rows; r++)
		for (unsigned c = 0; c < NR_CELLS; c++)
			if (strlen(cells[r][c]) > width[c])
				width[c] = strlen(cells[r][c]);
	for (unsigned r = 0; r < rows; r++) {
		printf("%-*s", (int)width[0], cells[r][0]);
		for (unsigned c = 1; c < NR_CELLS; c++)
			printf("%s%*s", c == 1 + NR_COLUMNS ? "   " : "  ", (int)width[c], cells[r][c]);
		putchar('\n');
	}
}

static void print_case(const struct bench *b, const char *name)
{
	char (*cells)[NR_CELLS][CELL] = calloc(b->modes.n + 1, sizeof *cells);
	double native = bench_time(b, native_mode(b), name).median;
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
	for (unsigned m = 0; m < b->modes.n; m++) {
		struct spread time = bench_time(b, m, name);

		if (!time.n)
			continue;
		snprintf(cells[rows][0], CELL, "%s", b->modes.at[m].name);
		for (unsigned c = 0; c < NR_COLUMNS; c++)
			put_count(cells[rows][1 + c], spread_over(b, m, name, &columns[c]).median);
		time_text(cells[rows][1 + NR_COLUMNS], time.median);
		time_text(cells[rows][2 + NR_COLUMNS], time.min);
		time_text(cells[rows][3 + NR_COLUMNS], time.max);
		put_ratio(cells[rows][4 + NR_COLUMNS], time.median / native);
		rows++;
	}
	printf("\n%s, per %s\n", name, b->job->unit);
	print_rows(cells, rows);
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
		if (!report)
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

static void print_head(const struct bench *b)
{
	const json_t *host = NULL, *report = NULL;

	for (unsigned i = 0; i < b->nr_samples && !report; i++)
		report = b->samples[i].report;
	printf("%s: %s; medians of %u\n", b->job->name, b->job->what, b->repetitions);
	if (report) {
		host = json_object_get(report, "host");
		printf("umbra %s; %s, %.0f CPUs, Linux %s, KVM: %s\n", json_string_value(json_object_get(report, "umbra")),
		       json_string_value(json_object_get(host, "cpu")), json_number_at(host, "cpus"),
		       json_string_value(json_object_get(host, "kernel")), json_string_value(json_object_get(host, "kvm")));
		if (b->load > json_number_at(host, "cpus") / 2)
			printf("load average was %.1f when this began: times are not to be trusted, counts are\n", b->load);
	}
}

static bool seen_before(const struct bench *b, unsigned sample, unsigned nr)
{
	const char *name = b->samples[sample].cases[nr].name;

	for (unsigned i = 0; i <= sample; i++)
		for (unsigned j = 0; b->samples[i].ok && j < (i == sample ? nr : b->samples[i].nr_cases); j++)
			if (!strcmp(b->samples[i].cases[j].name, name))
				return true;
	return false;
}

void table_print(const struct bench *b)
{
	print_head(b);
	for (unsigned i = 0; i < b->nr_samples; i++)
		for (unsigned j = 0; b->samples[i].ok && j < b->samples[i].nr_cases; j++)
			if (!seen_before(b, i, j))
				print_case(b, b->samples[i].cases[j].name);
	print_pool(b);
	printf("\nexits: %s; #PF, hcall, syscall, other: %s, hypercalls, system calls of guest user code, all else\n",
	       columns[0].what, columns[1].what);
	for (unsigned c = 5; c < NR_COLUMNS; c++)
		printf("%s: %s%s", columns[c].head, columns[c].what, c + 1 < NR_COLUMNS ? "; " : "\n");
}
