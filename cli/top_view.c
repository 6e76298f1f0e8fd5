/*
 * top_view.c - what happened between two samples, as lines.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/top.h"

struct line {
	const struct live_row *row;
	uint64_t total;
	double rate;
};

static uint64_t value_in(const struct top_sample *s, const struct live_row *r)
{
	const struct live_row *found = s ? live_rows_find(&s->rows, r->group, r->name) : NULL;

	return found ? found->value : 0;
}

/* A guest that was built anew counts from zero. */
static uint64_t since(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static int by_rate(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	if (x->rate != y->rate)
		return x->rate < y->rate ? 1 : -1;
	return (x->total < y->total) - (x->total > y->total);
}

static int by_total(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	return x->total != y->total ? (x->total < y->total) - (x->total > y->total) : by_rate(a, b);
}

static bool wanted(const struct top_view *view, const struct live_row *r)
{
	char text[2 * LIVE_NAME];

	snprintf(text, sizeof text, "%s %s", live_group_title(r->group), r->name);
	return !view->filtered || !regexec(&view->filter, text, 0, NULL, 0);
}

static void print_group(FILE *to, const struct top_view *view, enum live_group group, const struct top_sample *base,
			const struct top_sample *before, const struct top_sample *now)
{
	double seconds = (now->ns - before->ns) / 1e9, rates = 0;
	struct line list[LIVE_ROWS_MAX];
	uint64_t totals = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < now->rows.n; i++) {
		const struct live_row *r = &now->rows.row[i];
		struct line *l = &list[n];

		if (r->group != group || !wanted(view, r) || (r->detail && !view->details && !view->filtered))
			continue;
		l->row = r;
		l->total = since(r->value, value_in(base, r));
		l->rate = seconds > 0 ? since(r->value, value_in(before, r)) / seconds : 0;
		totals += l->total;
		rates += l->rate;
		n += l->total != 0;
	}
	if (!n)
		return;
	if (live_group_adds_up(group)) {
		qsort(list, n, sizeof *list, view->by_total ? by_total : by_rate);
		fprintf(to, "%-24s %15" PRIu64 " %12.1f\n", live_group_title(group), totals, rates);
	} else {
		fprintf(to, "%s\n", live_group_title(group));
	}
	for (unsigned i = 0; i < n; i++) {
		fprintf(to, "  %-22.30s %15" PRIu64 " %12.1f", list[i].row->name, list[i].total, list[i].rate);
		if (live_group_adds_up(group) && (view->by_total ? totals != 0 : rates > 0))
			fprintf(to, " %6.1f", view->by_total ? 100.0 * list[i].total / totals : 100 * list[i].rate / rates);
		fputc('\n', to);
	}
}

/* "guest 81.3 %" of the time between the samples. */
static void print_share(FILE *to, const char *name, const char *where, const struct top_sample *before,
			const struct top_sample *now)
{
	double all = (now->ns - before->ns) * live_number(now->stats, "config.vcpus", 1);
	double part = live_number(now->stats, where, -1) - live_number(before->stats, where, 0);

	if (all > 0 && part >= 0)
		fprintf(to, "%s %.1f %%   ", name, part < all ? 100 * part / all : 100);
}

void top_print(FILE *to, const struct top_view *view, const struct top_sample *base, const struct top_sample *before,
	       const struct top_sample *now)
{
	double used = live_number(now->stats, "mmu.usage.pool_used_pages", 0);
	double pages = live_number(now->stats, "mmu.usage.pool_pages", 0);

	print_share(to, "guest", "total.guest_ns", before, now);
	print_share(to, "vmm", "total.vmm_ns", before, now);
	print_share(to, "idle", "total.idle_ns", before, now);
	print_share(to, "helper", "helper.cpu_ns", before, now);
	if (pages > 0)
		fprintf(to, "pool %.0f of %.0f pages", used, pages);
	fprintf(to, "\n\n%-24s %15s %12s %6s\n", "", "total", "per second", "%");
	for (unsigned group = 0; group < LIVE_GROUPS; group++)
		if (group <= LIVE_EXITS || view->details || view->filtered)
			print_group(to, view, group, base, before, now);
}
