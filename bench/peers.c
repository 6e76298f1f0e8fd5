/* What a job is measured for in the end: each mode's time beside that of its peers, and its faults beside EPT's. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

static const struct metric cpu_time = { .cpu = true };
static const struct metric faults = { .terms = { "+mmu.hidden", "+mmu.pt_write" } };
static const struct metric violations = { .terms = { "+ept.violations" } };

static const char *const peers[] = { "native", "tcg", "off-lazy", "nested" };

#define NR_PEERS	(sizeof peers / sizeof *peers)

static double median_of_peer(const struct bench *b, const char *peer, const char *case_name, const struct metric *metric)
{
	for (unsigned m = 0; m < b->modes.n; m++)
		if (!strcmp(b->modes.at[m].name, peer))
			return metric_spread(b, m, case_name, metric).median;
	return NAN;
}

static void print_times(const struct bench *b, const char *case_name, const char *title, const struct metric *metric)
{
	char text[NUMBER_TEXT];

	printf("%-14s", title);
	for (unsigned p = 0; p < NR_PEERS; p++)
		printf("  %8s", peers[p]);
	putchar('\n');
	for (unsigned m = 0; m < b->modes.n; m++) {
		double own = metric_spread(b, m, case_name, metric).median;

		if (isnan(own))
			continue;
		printf("  %-12s", b->modes.at[m].name);
		for (unsigned p = 0; p < NR_PEERS; p++) {
			ratio_text(text, own / median_of_peer(b, peers[p], case_name, metric));
			printf("  %8s", text);
		}
		putchar('\n');
	}
}

/* "measured", "modelled", or NULL: as umbra says of the last good run. */
static const char *kind_of_violations(const struct bench *b, unsigned mode)
{
	const char *kind = NULL;

	for (unsigned i = 0; i < b->nr_samples; i++)
		if (b->samples[i].mode == mode && b->samples[i].ok && b->samples[i].nr_cases)
			kind = json_string_value(json_object_get(json_object_get(b->samples[i].report, "ept"), "kind"));
	return kind;
}

static void print_faults(const struct bench *b, const char *case_name)
{
	char own[NUMBER_TEXT], ept[NUMBER_TEXT], ratio[NUMBER_TEXT];

	printf("%-14s  hidden + PT-write  EPT violations     ratio\n", "faults");
	for (unsigned m = 0; m < b->modes.n; m++) {
		double n = metric_spread(b, m, case_name, &faults).median;
		double v = metric_spread(b, m, case_name, &violations).median;
		const char *kind = kind_of_violations(b, m);

		if (isnan(n))
			continue;
		count_text(own, n);
		count_text(ept, v);
		ratio_text(ratio, v > 0 ? n / v : NAN);
		printf("  %-12s  %17s  %14s  %8s  %s\n", b->modes.at[m].name, own, ept, ratio, kind ? kind : "");
	}
}

void peers_print(const struct bench *b, const char *case_name)
{
	printf("\nratios of the medians above to those of\n");
	print_times(b, case_name, "time", NULL);
	print_times(b, case_name, "processor time", &cpu_time);
	print_faults(b, case_name);
}
