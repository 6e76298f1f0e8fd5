/* Drawings of fault maps: over time, and over addresses and time. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/chart.h"

#define PLOT_HEIGHT	110
#define AXIS_HEIGHT	24
#define LABEL_HEIGHT	22
#define ROW_HEIGHT	7	/* px of a region */
#define HEAT_LEVELS	7u

static double map_ns(const struct model_map *map)
{
	return map->bucket_ns * map->buckets;
}

static double longest(const struct model *m)
{
	double ns = 0;

	for (unsigned i = 0; i < m->nr_modes; i++)
		if (m->maps[i].counts)
			ns = fmax(ns, map_ns(&m->maps[i]));
	return ns;
}

static uint64_t bucket_sum(const struct model_map *map, unsigned bucket, unsigned classes)
{
	uint64_t sum = 0;

	for (unsigned r = 0; r < map->regions; r++)
		for (unsigned c = 0; c < classes; c++)
			sum += map->counts[r][bucket][c];
	return sum;
}

/* Ticks of a time axis below a drawing of height `bottom`; the drawing ends at `ns`, hardly ever at a tick. */
static void put_time_axis(struct text *t, double ns, int bottom)
{
	struct scale s = scale_for(ns);
	char n[NUMBER_SIZE];

	for (unsigned i = 0; i * s.step <= ns * (1 + 1e-9); i++) {
		double x = 100 * i * s.step / ns;

		text_put(t, "<line class=\"grid\" x1=\"%.3f%%\" x2=\"%.3f%%\" y1=\"0\" y2=\"%d\"/>", x, x, bottom);
		text_put(t, "<text class=\"tick\" x=\"%.3f%%\" y=\"%d\" text-anchor=\"%s\">%s</text>\n", x, bottom + 16,
			 x < 4 ? "start" : x > 96 ? "end" : "middle", duration(n, i * s.step));
	}
}

static void put_mode(struct text *t, const struct model *m, unsigned mode, const char *note)
{
	text_put(t, "<p class=\"head\"><b>");
	text_escaped(t, m->modes[mode].name);
	text_put(t, "</b> <span class=\"note\">%s</span></p>\n", note);
}

/* ---- over time ---------------------------------------------------------------------------------------------------- */

/* Steps from the first bucket to the last, along the top of all classes up to `classes`, and back along the bottom. */
static void put_area(struct text *t, const struct model_map *map, unsigned classes, double max_rate, double ns)
{
	double per_bucket = max_rate * map->bucket_ns / 1e9;

	text_put(t, "<path class=\"f%u\" d=\"M0 1000", chart_classes[classes - 1].colour);
	for (unsigned b = 0; b < map->buckets; b++)
		text_put(t, "V%.0fH%.1f", 1000 - 1000 * bucket_sum(map, b, classes) / per_bucket,
			 1000 * map->bucket_ns * (b + 1) / ns);
	text_put(t, "V1000Z\"/>");
}

static void put_rates(struct text *t, const struct model_map *map, struct scale rate, double ns)
{
	char n[NUMBER_SIZE];

	text_put(t, "<svg role=\"img\" width=\"100%%\" height=\"%d\" aria-label=\"faults over time\">\n",
		 PLOT_HEIGHT + AXIS_HEIGHT);
	put_time_axis(t, ns, PLOT_HEIGHT);
	text_put(t, "<line class=\"grid\" x1=\"0\" x2=\"100%%\" y1=\"%d\" y2=\"%d\"/>", PLOT_HEIGHT, PLOT_HEIGHT);
	text_put(t, "<line class=\"grid\" x1=\"0\" x2=\"100%%\" y1=\"0.5\" y2=\"0.5\"/>");
	text_put(t, "<svg y=\"0\" width=\"100%%\" height=\"%d\" viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\">\n",
		 PLOT_HEIGHT);
	for (unsigned c = MODEL_CLASSES; c; c--)	/* each covers what is below it of those before */
		put_area(t, map, c, rate.max, ns);
	text_put(t, "</svg><text class=\"tick halo\" x=\"100%%\" y=\"13\" text-anchor=\"end\">%s/s</text></svg>\n",
		 number(n, rate.max));
}

void chart_over_time(struct text *t, const struct model *m)
{
	double ns = longest(m), most = 0;
	struct scale rate;

	if (!(ns > 0))
		return;
	for (unsigned i = 0; i < m->nr_modes; i++)
		for (unsigned b = 0; m->maps[i].counts && b < m->maps[i].buckets; b++)
			most = fmax(most, bucket_sum(&m->maps[i], b, MODEL_CLASSES) * 1e9 / m->maps[i].bucket_ns);
	rate = scale_for(most);
	chart_legend(t, chart_classes, MODEL_CLASSES);
	for (unsigned i = 0; i < m->nr_modes; i++) {
		char note[60], n[NUMBER_SIZE];

		if (!m->maps[i].counts || !(map_ns(&m->maps[i]) > 0))
			continue;
		snprintf(note, sizeof note, "%s in each step", duration(n, m->maps[i].bucket_ns));
		put_mode(t, m, i, note);
		put_rates(t, &m->maps[i], rate, ns);
	}
}

/* ---- over addresses and time ------------------------------------------------------------------------------------ */

/* Where Linux keeps what on x86-64 (Documentation/arch/x86/x86_64/mm.rst); to others these are just ranges. */
static const struct area {
	uint64_t first;
	const char *name;
} areas[] = {
	{ 0, "user: program, heap" },
	{ 0x0000500000000000, "user: position-independent programs, heap" },
	{ 0x0000700000000000, "user: libraries, mappings, stacks" },
	{ 0x0000800000000000, "no address" },
	{ 0xffff800000000000, "hypervisor" },
	{ 0xffff880000000000, "kernel: direct map of memory" },
	{ 0xffffc90000000000, "kernel: vmalloc" },
	{ 0xffffea0000000000, "kernel: page structures" },
	{ 0xffffeb0000000000, "kernel: other" },
	{ 0xffffffff80000000, "kernel: text and data" },
	{ 0xffffffffc0000000, "kernel: modules, fixmap" },
};

#define NR_AREAS	(sizeof areas / sizeof *areas)

static unsigned area_of(uint64_t va)
{
	unsigned i = NR_AREAS - 1;

	while (i && areas[i].first > va)
		i--;
	return i;
}

static uint64_t cell_sum(const struct model_map *map, unsigned region, unsigned bucket)
{
	uint64_t sum = 0;

	for (unsigned c = 0; c < MODEL_CLASSES; c++)
		sum += map->counts[region][bucket][c];
	return sum;
}

/* 1..HEAT_LEVELS by the logarithm of the rate; 0: no fault. */
static unsigned level_of(uint64_t faults, double bucket_ns, double max_rate)
{
	double rate = faults * 1e9 / bucket_ns, least = max_rate / 1e4;
	double level;

	if (!faults)
		return 0;
	level = 1 + (HEAT_LEVELS - 1) * log(rate / least) / log(1e4);
	return level < 1 ? 1 : level > HEAT_LEVELS ? HEAT_LEVELS : lrint(level);
}

/* All cells of one level, as runs of equal ones. Units: a bucket by a region. */
static void put_level(struct text *t, const unsigned char (*levels)[MODEL_BUCKETS], unsigned regions, unsigned buckets,
		      unsigned level)
{
	bool any = false;

	for (unsigned r = 0; r < regions; r++)
		for (unsigned b = 0, end; b < buckets; b = end) {
			end = b + 1;
			if (levels[r][b] != level)
				continue;
			while (end < buckets && levels[r][end] == level)
				end++;
			text_put(t, "%sM%u %uh%uv1h-%uz", any ? "" : "<path d=\"", b, r, end - b, end - b);
			any = true;
		}
	if (any)
		text_put(t, "\" style=\"fill:var(--h%u)\"/>\n", level);
}

/* Something to point at: what a row is. */
static void put_hints(struct text *t, const struct model_map *map, unsigned first, unsigned last, double width)
{
	char n[NUMBER_SIZE];

	for (unsigned r = first; r < last; r++) {
		uint64_t sum = 0;

		for (unsigned b = 0; b < map->buckets; b++)
			sum += cell_sum(map, r, b);
		text_put(t, "<rect class=\"hint\" y=\"%u\" width=\"%.3f\" height=\"1\"><title>%#" PRIx64 ", %" PRIu64
			 " MiB: %s faults</title></rect>\n", r - first, width, map->first[r], map->bytes[r] >> 20, number(n, sum));
	}
}

/* The regions of one area, under its name. */
static void put_area_map(struct text *t, const struct model_map *map, unsigned first, unsigned last, double ns, double max_rate)
{
	unsigned char (*levels)[MODEL_BUCKETS] = calloc(last - first, sizeof *levels);
	double width = ns / map->bucket_ns;

	if (!levels) {
		t->failed = true;
		return;
	}
	for (unsigned r = first; r < last; r++)
		for (unsigned b = 0; b < map->buckets; b++)
			levels[r - first][b] = level_of(cell_sum(map, r, b), map->bucket_ns, max_rate);
	text_put(t, "<p class=\"area\">%s <span class=\"note\">from %#" PRIx64 "</span></p>\n",
		 areas[area_of(map->first[first])].name, map->first[first]);
	text_put(t, "<svg role=\"img\" class=\"heat\" width=\"100%%\" height=\"%u\" viewBox=\"0 0 %.3f %u\" "
		 "preserveAspectRatio=\"none\" aria-label=\"faults over addresses and time\">\n", (last - first) * ROW_HEIGHT, width,
		 last - first);
	for (unsigned level = 1; level <= HEAT_LEVELS; level++)
		put_level(t, levels, last - first, map->buckets, level);
	put_hints(t, map, first, last, width);
	text_put(t, "</svg>\n");
	free(levels);
}

static double two_digits(double v)
{
	double power = pow(10, floor(log10(v)) - 1);

	return round(v / power) * power;
}

static void put_heat_legend(struct text *t, double max_rate)
{
	char n[NUMBER_SIZE];
	double rate;

	text_put(t, "<ul class=\"legend\">");
	for (unsigned level = 1; level <= HEAT_LEVELS; level++) {
		rate = two_digits(max_rate / 1e4 * pow(1e4, (level - 1.0) / (HEAT_LEVELS - 1)));
		if (rate < 10)
			snprintf(n, sizeof n, "%.1f", rate);
		text_put(t, "<li><span class=\"key\" style=\"background:var(--h%u)\"></span>%s</li>", level,
			 rate < 10 ? n : number(n, rate));
	}
	text_put(t, "<li>faults per second in a region</li></ul>\n");
}

/* The one to look at first. */
static unsigned busiest(const struct model *m)
{
	unsigned busiest = 0;
	uint64_t most = 0, sum;

	for (unsigned i = 0; i < m->nr_modes; i++) {
		sum = 0;
		for (unsigned b = 0; m->maps[i].counts && b < m->maps[i].buckets; b++)
			sum += bucket_sum(&m->maps[i], b, MODEL_CLASSES);
		if (sum > most) {
			most = sum;
			busiest = i;
		}
	}
	return busiest;
}

void chart_heat(struct text *t, const struct model *m)
{
	double ns = longest(m), max_rate = 0;

	for (unsigned i = 0; i < m->nr_modes; i++)
		for (unsigned r = 0; m->maps[i].counts && r < m->maps[i].regions; r++)
			for (unsigned b = 0; b < m->maps[i].buckets; b++)
				max_rate = fmax(max_rate, cell_sum(&m->maps[i], r, b) * 1e9 / m->maps[i].bucket_ns);
	if (!(ns > 0) || !(max_rate > 0))
		return;
	put_heat_legend(t, max_rate);
	for (unsigned i = 0; i < m->nr_modes; i++) {
		const struct model_map *map = &m->maps[i];
		char note[60], n[NUMBER_SIZE];

		if (!map->counts || !map->regions || !map->buckets)
			continue;
		snprintf(note, sizeof note, "%u regions over %s", map->regions, duration(n, map_ns(map)));
		text_put(t, "<details%s><summary>", i == busiest(m) ? " open" : "");
		text_escaped(t, m->modes[i].name);
		text_put(t, " <span class=\"note\">%s</span></summary>\n", note);
		for (unsigned first = 0, last; first < map->regions; first = last) {
			for (last = first + 1; last < map->regions && area_of(map->first[last]) == area_of(map->first[first]); last++)
				;
			put_area_map(t, map, first, last, ns, max_rate);
		}
		text_put(t, "<svg role=\"img\" width=\"100%%\" height=\"%d\" aria-label=\"time\">", AXIS_HEIGHT);
		put_time_axis(t, ns, 4);
		text_put(t, "</svg></details>\n");
	}
}
