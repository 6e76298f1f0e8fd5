/*
 * compare.c - modes beside each other: a row per metric, a column per mode, each compared with the first.
 *
 * The p of a row are corrected for the number of modes compared (Holm); rows are not corrected for each other.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/rank.h"

#define REAL	0.05		/* below this p a difference is called real */

/* Beside each other: what the shadow costs in faults, and what a second level does. One is never called the other. */
#define EPT_METRICS(suffix_, per_run_) \
	{ .group = "beside EPT", .id = "shadow_faults" suffix_, .head = "hidden + PT-write", .per_run = per_run_, \
	  .what = "what the shadow costs in faults", .terms = { "+mmu.hidden", "+mmu.pt_write" } }, \
	{ .group = "beside EPT", .id = "ept_measured" suffix_, .head = "EPT, measured", .per_run = per_run_, \
	  .what = "violations of EPT or NPT that KVM counted", .terms = { "+ept.violations" }, .when = "ept.kind", \
	  .is = "measured" }, \
	{ .group = "beside EPT", .id = "ept_modelled" suffix_, .head = "EPT, modelled", .per_run = per_run_, \
	  .what = "guest frames touched for the first time: violations at 4 KiB if there were EPT", \
	  .terms = { "+ept.violations" }, .when = "ept.kind", .is = "modelled" }, \
	{ .group = "beside EPT", .id = "ept_modelled_2m" suffix_, .head = "... at 2 MiB", .per_run = per_run_, \
	  .what = "the same with entries of 2 MiB", .terms = { "+ept.violations_2m" }, .when = "ept.kind", .is = "modelled" }

static const struct metric metrics[] = {
	{ .group = "faults", .id = "hidden", .head = "hidden", .what = "only the shadow lacked it", .terms = { "+mmu.hidden" } },
	{ .group = "faults", .id = "pt_write", .head = "PT-write", .what = "writes to page tables",
	  .terms = { "+mmu.pt_write" } },
	{ .group = "faults", .id = "true_exit", .head = "true, by exit", .what = "for the guest, through the VMM",
	  .terms = { "+mmu.true_faults" } },
	{ .group = "faults", .id = "true_invm", .head = "true, in VM", .what = "for the guest, without an exit",
	  .terms = { "+counters.invm_faults" } },
	{ .group = "faults", .id = "spurious", .head = "spurious", .what = "the shadow allowed it already",
	  .terms = { "+mmu.spurious" } },
	{ .group = "exits", .id = "exits", .head = "all", .what = "returns to the VMM", .terms = { "+counters.exits.total" } },
	{ .group = "exits", .id = "exits_page_fault", .head = "page fault", .terms = { "+counters.exits.page_fault" } },
	{ .group = "exits", .id = "exits_hypercall", .head = "hypercall", .terms = { "+counters.exits.hypercall" } },
	{ .group = "exits", .id = "exits_syscall", .head = "system call", .terms = { "+counters.exits.syscall" } },
	{ .group = "exits", .id = "exits_emulation", .head = "emulation", .what = "#GP and #UD",
	  .terms = { "+counters.exits.gp", "+counters.exits.ud" } },
	{ .group = "exits", .id = "exits_signal", .head = "signal", .what = "timer ticks, requests of other threads",
	  .terms = { "+counters.exits.interrupted" } },
	{ .group = "exits", .id = "exits_other", .head = "other",
	  .terms = { "+counters.exits.debug", "+counters.exits.fpu", "+counters.exits.exception", "+counters.exits.kicked",
		     "+counters.exits.other" } },
	{ .group = "hypercalls", .id = "hypercalls_exit", .head = "by exit", .terms = { "+counters.hypercalls.total" } },
	{ .group = "hypercalls", .id = "hypercalls_invm", .head = "in VM", .terms = { "+counters.invm_hypercalls.total" } },
	{ .group = "several vCPUs", .id = "flushes", .head = "flushes, invlpg", .what = "the guest's, taken up by the VMM",
	  .terms = { "+mmu.flushes", "+mmu.invlpgs" } },
	{ .group = "several vCPUs", .id = "remote_flushes", .head = "of other vCPUs", .what = "times others had to flush",
	  .terms = { "~counters.remote_flushes" } },
	{ .group = "several vCPUs", .id = "remote_waits", .head = "... left the guest", .what = "vCPUs that were in the guest",
	  .terms = { "~counters.remote_waits" } },
	{ .group = "several vCPUs", .id = "remote_skips", .head = "... stayed", .what = "could not know of it",
	  .terms = { "~counters.remote_skips" } },
	{ .group = "several vCPUs", .id = "events_sent", .head = "events, bindings", .what = "hypercalls of event channels, IPIs mostly",
	  .terms = { "~counters.hypercalls.event_channel_op" } },
	{ .group = "several vCPUs", .id = "blocks", .head = "sleeps", .what = "a vCPU with nothing to do, or waiting for a lock",
	  .terms = { "+counters.blocks" } },
	{ .group = "several vCPUs", .id = "timers", .head = "timers", .what = "signals and ends of sleeps by a vCPU's own",
	  .terms = { "~counters.stopped_timer", "~counters.woken_timer" } },
	{ .group = "several vCPUs", .id = "lock_waits", .head = "waits for locks", .what = "a lock of umbra's was found taken",
	  .terms = { "~mmu.waits_flush", "~mmu.waits_frame", "~mmu.waits_page", "~mmu.waits_bucket", "~mmu.waits_pool",
		     "~counters.ring_waits" } },
	EPT_METRICS("", false),
	{ .group = "entries built", .id = "fills", .head = "by faults", .terms = { "+mmu.fills" } },
	{ .group = "entries built", .id = "prefetched", .head = "by prefetch", .what = "beside the one that faulted",
	  .terms = { "+mmu.prefetched" } },
	{ .group = "entries built", .id = "eager", .head = "by eager fill", .what = "when the VMM took up an update",
	  .terms = { "+mmu.eager" } },
	{ .group = "entries built", .id = "prebuilt", .head = "by the helper", .terms = { "+mmu.prebuilt" } },
	{ .group = "entries built", .id = "prebuilt_removed", .head = "removed again", .what = "of those not built by faults",
	  .terms = { "+mmu.prebuilt_removed" } },
	{ .group = "kicks", .id = "kick_rounds", .head = "lists", .terms = { "+counters.kick_rounds" } },
	{ .group = "kicks", .id = "kick_writes", .head = "entries rewritten", .terms = { "+counters.kick_writes" } },

	EPT_METRICS("_run", true),
	{ .group = "beside EPT", .id = "ept_at_most_run", .head = "... at most", .per_run = true,
	  .what = "at 4 KiB, if all that was prebuilt was touched", .terms = { "+ept.violations_at_most" }, .when = "ept.kind",
	  .is = "modelled" },
	{ .group = "helper", .id = "helper_issued", .head = "asked for", .per_run = true,
	  .terms = { "+helper.heuristics.*.issued" } },
	{ .group = "helper", .id = "helper_built", .head = "built", .per_run = true, .terms = { "+helper.heuristics.*.built" } },
	{ .group = "helper", .id = "helper_late", .head = "late", .what = "the fault came first", .per_run = true,
	  .terms = { "+helper.heuristics.*.late" } },
	{ .group = "helper", .id = "helper_used", .head = "sampled: useful", .per_run = true,
	  .terms = { "+helper.heuristics.*.use.sampled_used" } },
	{ .group = "helper", .id = "helper_unused", .head = "sampled: wasted", .per_run = true,
	  .terms = { "+helper.heuristics.*.use.sampled_unused" } },
	{ .group = "helper", .id = "helper_dropped", .head = "dropped", .what = "budget or queue full", .per_run = true,
	  .terms = { "+helper.heuristics.*.dropped" } },
	{ .group = "helper", .id = "helper_lost", .head = "events lost", .per_run = true, .terms = { "+helper.lost" } },
};

/* Of umbra, the guest in it and its threads; where the workload says when it begins. */
static const struct metric cpu_time = { .id = "cpu_time", .head = "processor time", .group = "processor time", .cpu = true };

#define NR_METRICS	(sizeof metrics / sizeof *metrics)

/* One metric of one case over all modes. */
struct line {
	struct spread *of;		/* [mode] */
	double *ratio, *p;		/* [mode], to the first mode that has samples; NaN there and where there is none */
};

static void line_free(struct line *l)
{
	free(l->of);
	free(l->ratio);
	free(l->p);
}

/* The first mode that was not left out: what the others are compared with. */
static unsigned first_mode(const struct bench *b)
{
	unsigned m = 0;

	while (m + 1 < b->modes.n && *b->modes.at[m].left_out)
		m++;
	return m;
}

/* False: no memory. metric NULL: the time. */
static bool line_make(struct line *l, const struct bench *b, const char *name, const struct metric *metric)
{
	unsigned first = first_mode(b), nf, n;
	double of_first[ROUNDS_MAX], own[ROUNDS_MAX];

	l->of = calloc(b->modes.n, sizeof *l->of);
	l->ratio = calloc(b->modes.n, sizeof *l->ratio);
	l->p = calloc(b->modes.n, sizeof *l->p);
	if (!l->of || !l->ratio || !l->p)
		return false;
	nf = metric_values(b, first, name, metric, of_first, ROUNDS_MAX);
	l->of[first] = spread_of(of_first, nf);
	l->ratio[first] = l->p[first] = NAN;
	for (unsigned m = 0; m < b->modes.n; m++) {
		if (m == first)
			continue;
		n = metric_values(b, m, name, metric, own, ROUNDS_MAX);
		l->of[m] = spread_of(own, n);
		l->ratio[m] = l->of[first].median ? l->of[m].median / l->of[first].median : NAN;
		l->p[m] = rank_test(of_first, nf, own, n);
	}
	rank_holm(l->p, b->modes.n);
	return true;
}

/* Nothing but zeros and gaps. */
static bool line_empty(const struct line *l, const struct bench *b)
{
	for (unsigned m = 0; m < b->modes.n; m++)
		if (l->of[m].n && (l->of[m].median || l->of[m].max))
			return false;
	return true;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

#define LABEL_WIDTH	19
#define VALUE_WIDTH	9
#define RATIO_WIDTH	7	/* with its mark */

/* A row: a label, then for each mode that was not left out what `cell` prints: a value, and for all but the first mode
 * what stands behind it. */
static void print_row(const struct bench *b, const char *label, const struct line *l,
		      void (*cell)(const struct line *l, unsigned mode, char value[static NUMBER_TEXT],
				   char behind[static NUMBER_TEXT]))
{
	char text[1024], value[NUMBER_TEXT], behind[NUMBER_TEXT];
	size_t n = snprintf(text, sizeof text, "%-*s", LABEL_WIDTH, label);

	for (unsigned m = 0; m < b->modes.n && n + 64 < sizeof text; m++) {
		if (*b->modes.at[m].left_out)
			continue;
		*behind = 0;
		cell(l, m, value, behind);
		n += snprintf(text + n, sizeof text - n, "  %*s", VALUE_WIDTH, value);
		if (m != first_mode(b))
			n += snprintf(text + n, sizeof text - n, "%*s", RATIO_WIDTH, behind);
	}
	while (n && text[n - 1] == ' ')
		n--;
	printf("%.*s\n", (int)n, text);
}

static void put_ratio(const struct line *l, unsigned m, char behind[static NUMBER_TEXT])
{
	char ratio[NUMBER_TEXT] = "";

	if (isfinite(l->ratio[m]))
		ratio_text(ratio, l->ratio[m]);
	snprintf(behind, NUMBER_TEXT, "%.8s%c", ratio, l->p[m] < REAL ? '*' : ' ');
}

static void count_cell(const struct line *l, unsigned m, char value[static NUMBER_TEXT], char behind[static NUMBER_TEXT])
{
	count_text(value, l->of[m].median);
	put_ratio(l, m, behind);
}

static void time_cell(const struct line *l, unsigned m, char value[static NUMBER_TEXT], char behind[static NUMBER_TEXT])
{
	time_text(value, l->of[m].median);
	put_ratio(l, m, behind);
}

static void min_cell(const struct line *l, unsigned m, char value[static NUMBER_TEXT], char behind[static NUMBER_TEXT])
{
	time_text(value, l->of[m].min);
}

static void max_cell(const struct line *l, unsigned m, char value[static NUMBER_TEXT], char behind[static NUMBER_TEXT])
{
	time_text(value, l->of[m].max);
}

static void p_cell(const struct line *l, unsigned m, char value[static NUMBER_TEXT], char behind[static NUMBER_TEXT])
{
	if (isnan(l->p[m]))
		*value = 0;
	else if (l->p[m] < 0.0001)
		strcpy(value, "<0.0001");
	else
		snprintf(value, NUMBER_TEXT, "%.*f", l->p[m] < 0.01 ? 4 : 2, l->p[m]);
}

static void print_names(const struct bench *b, const char *title)
{
	char text[1024];
	size_t n = snprintf(text, sizeof text, "%-*s", LABEL_WIDTH, title);

	for (unsigned m = 0; m < b->modes.n && n + 64 < sizeof text; m++)
		if (!*b->modes.at[m].left_out)
			n += snprintf(text + n, sizeof text - n, "  %*.30s%*s", VALUE_WIDTH, b->modes.at[m].name,
				      m == first_mode(b) ? 0 : RATIO_WIDTH, "");
	while (text[n - 1] == ' ')
		n--;
	printf("\n%.*s\n", (int)n, text);
}

static void print_metrics(const struct bench *b, const char *name, bool per_run)
{
	const char *group = "";
	char label[LABEL_WIDTH + 1];

	for (unsigned i = 0; i < NR_METRICS; i++) {
		struct line l = { NULL };

		if (metrics[i].per_run == per_run && line_make(&l, b, name, &metrics[i]) && !line_empty(&l, b)) {
			if (strcmp(group, metrics[i].group))
				printf("%s\n", metrics[i].group);
			group = metrics[i].group;
			snprintf(label, sizeof label, "  %s", metrics[i].head);
			print_row(b, label, &l, count_cell);
		}
		line_free(&l);
	}
}

/* metric: NULL or &cpu_time. */
static void print_time(const struct bench *b, const char *name, const struct metric *metric)
{
	struct line l = { NULL };

	if (line_make(&l, b, name, metric) && !line_empty(&l, b)) {
		puts(metric ? metric->group : "time");
		print_row(b, "  median", &l, time_cell);
		print_row(b, "  least", &l, min_cell);
		print_row(b, "  most", &l, max_cell);
		print_row(b, "  p", &l, p_cell);
	}
	line_free(&l);
}

static bool any_per_run(const struct bench *b, const char *name)
{
	bool any = false;

	for (unsigned i = 0; i < NR_METRICS && !any; i++) {
		struct line l = { NULL };

		any = metrics[i].per_run && line_make(&l, b, name, &metrics[i]) && !line_empty(&l, b);
		line_free(&l);
	}
	return any;
}

/* Violations are made by pages that are not there yet: whether they were has to be said. */
static void print_populated(const struct bench *b)
{
	for (unsigned i = 0; i < b->nr_samples; i++) {
		double frames = json_number_at(b->samples[i].report, "ept.host_memory.frames");
		double there = json_number_at(b->samples[i].report, "ept.host_memory.populated_frames_at_start");

		if (isnan(frames) || isnan(there))
			continue;
		printf("\nHost memory behind the guest: %.0f of %.0f frames were there before it ran%s.\n", there, frames,
		       there > frames / 2 ? " (populated)" : "");
		return;
	}
}

static void print_legend(const struct bench *b)
{
	const char *first = b->modes.at[first_mode(b)].name;
	unsigned rounds = rounds_begun(b);

	printf("\nBehind a median: its ratio to %s's; * if the difference is real: p < %.2f in a Mann-Whitney U test, corrected\n"
	       "for the number of modes. 'least' and 'most' are of all %u round%s. Rows of nothing but zeros are left out.\n", first,
	       REAL, rounds, rounds == 1 ? "" : "s");
	if (rank_least(rounds, rounds) * (b->modes.n - 1) >= REAL)
		printf("%u round%s too few for any difference to pass that test: take more with -n.\n", rounds,
		       rounds == 1 ? " is" : "s are");
}

void compare_print(const struct bench *b)
{
	const char *names[BENCH_CASES];
	unsigned n = case_names(b, names);

	head_print(b);
	for (unsigned i = 0; i < n; i++) {
		char title[64];

		snprintf(title, sizeof title, "per %s", n > 1 ? names[i] : b->job->unit);
		print_names(b, title);
		print_metrics(b, names[i], false);
		print_time(b, names[i], NULL);
		print_time(b, names[i], &cpu_time);
	}
	if (n && any_per_run(b, names[0])) {
		print_names(b, "whole run");
		print_metrics(b, names[0], true);
		print_populated(b);
	}
	print_legend(b);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static json_t *real_or_null(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

/* {"id", "name", "group", "unit", "modes": [{"mode", "median", "min", "max", "samples", "ratio", "p"}...]} */
static json_t *line_json(const struct bench *b, const char *name, const struct metric *metric)
{
	struct line l = { NULL };
	json_t *modes = json_array(), *o = NULL;

	if (!line_make(&l, b, name, metric))
		goto out;
	for (unsigned m = 0; m < b->modes.n; m++)
		if (l.of[m].n)
			json_array_append_new(modes, json_pack("{ss so so so si so so}", "mode", b->modes.at[m].name, "median",
							       real_or_null(l.of[m].median), "min", real_or_null(l.of[m].min),
							       "max", real_or_null(l.of[m].max), "samples", (int)l.of[m].n,
							       "ratio", real_or_null(l.ratio[m]), "p", real_or_null(l.p[m])));
	o = json_pack("{ss ss ss ss sO}", "id", metric ? metric->id : "time", "name", metric ? metric->head : "time", "group",
		      metric ? metric->group : "time", "unit",
		      metric && !metric->cpu ? "count" : "ns", "modes", modes);
	if (o && metric && metric->what)
		json_object_set_new(o, "what", json_string(metric->what));
out:
	json_decref(modes);
	line_free(&l);
	return o;
}

static json_t *lines_json(const struct bench *b, const char *name, bool per_run)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < NR_METRICS; i++)
		if (metrics[i].per_run == per_run)
			json_array_append_new(list, line_json(b, name, &metrics[i]));
	if (!per_run) {
		json_array_append_new(list, line_json(b, name, NULL));
		json_array_append_new(list, line_json(b, name, &cpu_time));
	}
	return list;
}

json_t *compare_json(const struct bench *b)
{
	const char *names[BENCH_CASES];
	unsigned n = case_names(b, names);
	json_t *cases = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(cases, json_pack("{ss so}", "name", names[i], "metrics", lines_json(b, names[i], false)));
	return json_pack("{ss sf so so}", "first_mode", b->modes.at[first_mode(b)].name, "real_below_p", REAL, "cases", cases,
			 "whole_run", n ? lines_json(b, names[0], true) : json_array());
}
