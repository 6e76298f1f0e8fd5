/* The page: a part per comparison, its charts, then all numbers and where they come from. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/chart.h"
#include "report/page.h"

extern const char report_style[];	/* style.css */

/* A stacked chart: which metrics it is made of. */
struct stack {
	const char *title, *what;
	struct {
		const char *id, *name;
		unsigned colour;
	} of[CHART_SERIES];
};

static const struct stack stacks[] = {
	{ "Faults by class", "Hidden faults exist only because of the shadow: prebuilding removes them. True faults are the guest's "
	  "own; those passed on inside the VM cost no exit.",
	  { { "hidden", "hidden", 1 }, { "pt_write", "PT-write", 2 }, { "spurious", "spurious", 3 }, { "true_exit", "true, by exit", 4 },
	    { "true_invm", "true, in VM", 5 } } },
	{ "Exits by cause", "Returns from the guest to the VMM.",
	  { { "exits_page_fault", "page fault", 1 }, { "exits_hypercall", "hypercall", 4 }, { "exits_syscall", "system call", 5 },
	    { "exits_emulation", "emulation", 3 }, { "exits_signal", "signal", 7 }, { "exits_other", "other", 8 } } },
	{ "Shadow entries built, and by whom", "An entry built by a fault cost a hidden fault; the others were there before, or beside it.",
	  { { "fills", "by faults", 1 }, { "prefetched", "by prefetch", 2 }, { "eager", "by eager fill", 3 },
	    { "prebuilt", "by the helper", 6 } } },
};

static void put_section(struct text *t, const char *title, const char *what)
{
	text_put(t, "<h3>%s</h3>\n", title);
	if (what && *what)
		text_put(t, "<p class=\"sub\">%s</p>\n", what);
}

static bool row_empty(const struct model *m, const struct model_row *row)
{
	for (unsigned i = 0; i < m->nr_modes; i++)
		if (row->of[i].samples && row->of[i].max > 0)
			return false;
	return true;
}

/* ---- stacked bars ------------------------------------------------------------------------------------------------- */

/* What stands behind a bar: the sum, and how it compares with the first mode's. */
static void note_sum(char *note, size_t size, double sum, double first)
{
	char n[2][NUMBER_SIZE];

	if (first > 0 && isfinite(first))
		snprintf(note, size, "%s &#183; %s&#215;", number(n[0], sum), number(n[1], sum / first));
	else
		snprintf(note, size, "%s", number(n[0], sum));
}

static void put_stack(struct text *t, const struct model *m, const struct model_block *b, const struct stack *stack)
{
	struct series series[CHART_SERIES];
	const struct model_row *rows[CHART_SERIES];
	struct bar bars[MODEL_MODES];
	unsigned nr = 0, n = 0;
	double first = NAN, all = 0;

	for (unsigned i = 0; i < CHART_SERIES && stack->of[i].id; i++) {
		rows[nr] = model_row(b, stack->of[i].id);
		series[nr] = (struct series){ .name = stack->of[i].name, .colour = stack->of[i].colour };
		nr += rows[nr] && !row_empty(m, rows[nr]);
	}
	for (unsigned mode = 0; mode < m->nr_modes; mode++) {
		double sum = 0;
		bool any = false;

		for (unsigned i = 0; i < nr; i++) {
			const struct model_cell *c = &rows[i]->of[mode];

			bars[n].values[i] = c->samples ? c->median : NAN;
			sum += c->samples ? c->median : 0;
			any |= c->samples != 0;
		}
		if (!any)
			continue;
		snprintf(bars[n].label, sizeof bars[n].label, "%s", m->modes[mode].name);
		note_sum(bars[n].note, sizeof bars[n].note, sum, first);
		if (isnan(first))
			first = sum;
		all += sum;
		n++;
	}
	if (!n || !(all > 0))
		return;
	put_section(t, stack->title, stack->what);
	chart_legend(t, series, nr);
	chart_bars(t, stack->title, series, nr, bars, n);
}

/* What the shadow costs in faults, and under it what a second level would or did; the two do not add up, so a bar each. */
static void put_ept(struct text *t, const struct model *m)
{
	static const struct series series[] = {
		{ .name = "hidden + PT-write faults", .colour = 1 },
		{ .name = "EPT or NPT violations, measured", .colour = 6 },
		{ .name = "EPT or NPT violations, modelled", .colour = 5 },
		{ .name = "the same, at most", .colour = 8, .quiet = true },
	};
	static const char *const ids[] = { "shadow_faults_run", "ept_measured_run", "ept_modelled_run", "ept_at_most_run" };
	struct bar bars[2 * MODEL_MODES];
	bool any = false;
	unsigned n = 0;

	for (unsigned mode = 0; mode < m->nr_modes; mode++) {
		double v[4];
		char text[2][NUMBER_SIZE];

		for (unsigned i = 0; i < 4; i++) {
			const struct model_row *row = model_row(&m->whole, ids[i]);

			v[i] = row && row->of[mode].samples ? row->of[mode].median : NAN;
		}
		if (isnan(v[0]))
			continue;
		snprintf(bars[n].label, sizeof bars[n].label, "%s", m->modes[mode].name);
		snprintf(bars[n].note, sizeof bars[n].note, "%s", number(text[0], v[0]));
		memcpy(bars[n++].values, (double[CHART_SERIES]){ v[0], NAN, NAN, NAN }, sizeof bars->values);
		if (isnan(v[1]) && isnan(v[2]))
			continue;
		any = true;
		*bars[n].label = 0;
		number(text[0], isnan(v[1]) ? v[2] : v[1]);
		if (v[3] > v[2])
			snprintf(bars[n].note, sizeof bars[n].note, "%s to %s modelled", text[0], number(text[1], v[3]));
		else
			snprintf(bars[n].note, sizeof bars[n].note, "%s %s", text[0], isnan(v[1]) ? "modelled" : "measured");
		memcpy(bars[n++].values, (double[CHART_SERIES]){ NAN, v[1], v[2], v[3] > v[2] ? v[3] - v[2] : NAN },
		       sizeof bars->values);
	}
	if (!any)
		return;
	put_section(t, "Beside EPT", "Whole runs, boot included. Modelled: guest frames touched for the first time, which is what a second "
		    "level has to fault in; entries built ahead of a fault hide some from the model, hence 'at most'.");
	chart_legend(t, series, sizeof series / sizeof *series);
	chart_bars(t, "beside EPT", series, sizeof series / sizeof *series, bars, n);
}

static void put_heuristics(struct text *t, const struct model *m)
{
	static const struct series use[] = {
		{ .name = "useful", .colour = 6 }, { .name = "wasted", .colour = 1 },
		{ .name = "built, use not known", .colour = 7 }, { .name = "late", .colour = 2 },
	};
	static const struct series fate[] = {
		{ .name = "built", .colour = 6 }, { .name = "was there", .colour = 4 },
		{ .name = "table has no shadow", .colour = 3 }, { .name = "nothing to build", .colour = 8 },
		{ .name = "no free frame", .colour = 1 }, { .name = "dropped", .colour = 2 },
	};
	struct bar uses[MODEL_HEURISTICS], fates[MODEL_HEURISTICS];

	if (!m->nr_heuristics)
		return;
	for (unsigned i = 0; i < m->nr_heuristics; i++) {
		const struct model_heuristic *h = &m->heuristics[i];
		const struct model_mode *mode = &m->modes[h->mode];
		bool known = !isnan(h->used);
		char n[2][NUMBER_SIZE];

		snprintf(uses[i].label, sizeof uses[i].label, "%.39s: %.39s", mode->name, h->name);
		memcpy(fates[i].label, uses[i].label, sizeof fates[i].label);
		snprintf(uses[i].note, sizeof uses[i].note, "%s built, %s late", number(n[0], h->built), number(n[1], h->late));
		snprintf(fates[i].note, sizeof fates[i].note, "%s asked for", number(n[0], h->issued));
		memcpy(uses[i].values, (double[CHART_SERIES]){ h->used, h->unused, known ? NAN : h->built, h->late },
		       sizeof uses[i].values);
		memcpy(fates[i].values, (double[CHART_SERIES]){ h->built, h->present, h->nowhere, h->nothing, h->no_room, h->dropped },
		       sizeof fates[i].values);
	}
	put_section(t, "The helper: useful, late, wasted", "Entries that each heuristic prebuilt, over the whole run: useful if the guest "
		    "used them, wasted if they were removed unused, late if the fault came first. Use is seen in a sample.");
	chart_legend(t, use, sizeof use / sizeof *use);
	chart_bars(t, "useful, late, wasted", use, sizeof use / sizeof *use, uses, m->nr_heuristics);
	put_section(t, "What became of what it asked for", NULL);
	chart_legend(t, fate, sizeof fate / sizeof *fate);
	chart_bars(t, "prebuilding", fate, sizeof fate / sizeof *fate, fates, m->nr_heuristics);
}

/* ---- tables ------------------------------------------------------------------------------------------------------- */

static void put_cell(struct text *t, const struct model *m, const struct model_row *row, unsigned mode)
{
	const struct model_cell *c = &row->of[mode];
	char n[NUMBER_SIZE], p[NUMBER_SIZE];

	if (!c->samples) {
		text_put(t, "<td>-</td>");
		return;
	}
	text_put(t, "<td title=\"%s", row->time ? duration(n, c->min) : number(n, c->min));
	text_put(t, " to %s in %u runs", row->time ? duration(n, c->max) : number(n, c->max), c->samples);
	if (!isnan(c->p))
		text_put(t, ", p = %s", number(p, c->p));
	text_put(t, "\">%s", row->time ? duration(n, c->median) : number(n, c->median));
	if (!isnan(c->ratio))
		text_put(t, " <small>%s&#215;</small>", number(n, c->ratio));
	if (c->p < m->real_below)
		text_put(t, "<span class=\"real\">&#9733;</span>");
	text_put(t, "</td>");
}

static void put_p_row(struct text *t, const struct model *m, const struct model_row *row)
{
	char n[NUMBER_SIZE];

	text_put(t, "<tr><td>p of the difference</td>");
	for (unsigned i = 0; i < m->nr_modes; i++)
		if (!*m->modes[i].left_out)
			text_put(t, "<td>%s</td>", isnan(row->of[i].p) ? "" : number(n, row->of[i].p));
	text_put(t, "</tr>\n");
}

static void put_table(struct text *t, const struct model *m, const struct model_block *b, const char *head)
{
	const char *group = "";
	unsigned columns = 1;

	text_put(t, "<div class=\"wide\"><table><tr><th>%s</th>", head);
	for (unsigned i = 0; i < m->nr_modes; i++) {
		if (*m->modes[i].left_out)
			continue;
		text_put(t, "<th>");
		text_escaped(t, m->modes[i].name);
		text_put(t, "</th>");
		columns++;
	}
	text_put(t, "</tr>\n");
	for (unsigned i = 0; i < b->nr_rows; i++) {
		const struct model_row *row = &b->rows[i];

		if (row_empty(m, row))
			continue;
		if (strcmp(group, row->group)) {
			text_put(t, "<tr class=\"group\"><th colspan=\"%u\">", columns);
			text_escaped(t, row->group);
			text_put(t, "</th></tr>\n");
		}
		group = row->group;
		text_put(t, "<tr><td title=\"");
		text_escaped(t, row->what);
		text_put(t, "\">");
		text_escaped(t, row->time ? "median" : row->name);
		text_put(t, "</td>");
		for (unsigned k = 0; k < m->nr_modes; k++)
			if (!*m->modes[k].left_out)
				put_cell(t, m, row, k);
		text_put(t, "</tr>\n");
		if (row->time)
			put_p_row(t, m, row);
	}
	text_put(t, "</table></div>\n");
}

static void put_fact(struct text *t, const char *name, const char *value)
{
	if (!*value)
		return;
	text_put(t, "<tr><th>%s</th><td>", name);
	text_escaped(t, value);
	text_put(t, "</td></tr>\n");
}

static void put_facts(struct text *t, const struct model *m, const char *source)
{
	char text[100], n[NUMBER_SIZE];

	text_put(t, "<div class=\"wide\"><table class=\"facts\">\n");
	put_fact(t, "umbra", m->umbra);
	put_fact(t, "processor", m->cpu);
	snprintf(text, sizeof text, "%.0f CPU%s, %.0f NUMA node%s, %.1f GiB", m->host_cpus, m->host_cpus == 1 ? "" : "s", m->numa_nodes,
		 m->numa_nodes == 1 ? "" : "s", m->host_bytes / (1u << 30));
	if (!isnan(m->host_cpus + m->numa_nodes + m->host_bytes))
		put_fact(t, "host", text);
	put_fact(t, "KVM", m->kvm);
	put_fact(t, "host kernel", m->kernel);
	put_fact(t, "guest memory", m->memory);
	put_fact(t, "date", m->date);
	snprintf(text, sizeof text, "%s at the start%s", number(n, m->load), m->load > m->host_cpus / 2 ?
		 ": other work ran on this host, so believe counts, not times" : "");
	if (!isnan(m->load))
		put_fact(t, "load average", text);
	put_fact(t, "file", source);
	text_put(t, "</table></div>\n<div class=\"wide\"><table class=\"facts\">\n");
	for (unsigned i = 0; i < m->nr_modes; i++) {
		text_put(t, "<tr><th>");
		text_escaped(t, m->modes[i].name);
		text_put(t, "</th><td><code>");
		text_escaped(t, m->modes[i].flags);
		text_put(t, "</code>");
		if (*m->modes[i].left_out) {
			text_put(t, " left out: ");
			text_escaped(t, m->modes[i].left_out);
		}
		text_put(t, "</td></tr>\n");
	}
	text_put(t, "</table></div>\n");
}

/* ---- the page ----------------------------------------------------------------------------------------------------- */

void page_begin(struct text *t, const char *title)
{
	text_put(t, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
	text_escaped(t, title);
	text_put(t, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", report_style);
}

static void put_block(struct text *t, const struct model *m, const struct model_block *b)
{
	char head[40];

	if (m->nr_blocks > 1) {
		text_put(t, "<h2>");
		text_escaped(t, b->name);
		text_put(t, "</h2>\n");
	}
	for (unsigned i = 0; i < sizeof stacks / sizeof *stacks; i++)
		put_stack(t, m, b, &stacks[i]);
	if (model_row(b, "time")) {
		put_section(t, "Time", "A dot for each run, a mark at the median. &#9733;: the difference from the first is real.");
		chart_times(t, m, b);
	}
	snprintf(head, sizeof head, "%s", m->nr_blocks > 1 ? "per operation" : "all numbers");
	put_section(t, "All numbers", "Medians; behind them the ratio to the first mode, and &#9733; where a rank test says that the "
		    "difference is real. Point at a number for its range and p.");
	put_table(t, m, b, head);
}

static void put_maps(struct text *t, const struct model *m)
{
	bool any = false;

	for (unsigned i = 0; i < m->nr_modes; i++)
		any |= m->maps[i].counts && m->maps[i].regions;
	if (!any)
		return;
	text_put(t, "<h2>When and where</h2>\n");
	put_section(t, "Faults over time", "One run of each mode, boot included. True faults passed on inside the VM are not seen here.");
	chart_over_time(t, m);
	put_section(t, "Faults over guest addresses and time", "Addresses go down the page; ranges without faults are left out. "
		    "Areas are named as Linux lays them out.");
	chart_heat(t, m);
}

void page_part(struct text *t, const struct model *m, const char *source)
{
	char n[NUMBER_SIZE];

	text_put(t, "<h1>");
	text_escaped(t, m->title);
	text_put(t, "</h1>\n<p class=\"sub\">");
	text_escaped(t, m->what);
	if (*m->unit) {
		text_put(t, "; all per ");
		text_escaped(t, m->unit);
	}
	if (m->repetitions > 1)
		text_put(t, "; medians of %s rounds, modes in turn", number(n, m->repetitions));
	if (m->failed_runs)
		text_put(t, "; %u failed runs are not in it", m->failed_runs);
	text_put(t, "</p>\n");
	for (unsigned i = 0; i < m->nr_blocks; i++)
		put_block(t, m, &m->blocks[i]);
	put_ept(t, m);
	put_heuristics(t, m);
	put_maps(t, m);
	text_put(t, "<h2>Machine and configuration</h2>\n");
	put_facts(t, m, source);
}

void page_end(struct text *t)
{
	text_put(t, "<footer>Made by umbra report. Nothing here is loaded from elsewhere.</footer>\n</main>\n</body>\n</html>\n");
}
