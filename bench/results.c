/* Results as JSON, schema 1: what was run, where, every sample with its counters, and the medians of the times. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench/bench.h"

static json_t *real_or_null(double v)
{
	return isfinite(v) && v >= 0 ? json_real(v) : json_null();
}

static json_t *modes_json(const struct bench *b)
{
	static const char *const kinds[] = { [MODE_UMBRA] = "umbra", [MODE_NATIVE] = "native", [MODE_TCG] = "tcg", [MODE_KVM] = "kvm" };
	json_t *list = json_array();

	for (unsigned i = 0; i < b->modes.n; i++)
		json_array_append_new(list, json_pack("{ss ss ss}", "name", b->modes.at[i].name, "kind",
						      kinds[b->modes.at[i].kind], "flags", b->modes.at[i].flags));
	return list;
}

static json_t *sample_json(const struct bench *b, const struct sample *s)
{
	static const char *const parts[] = { "helper", "ept", "end" };	/* of what umbra reported */
	json_t *cases = json_array(), *o;

	for (unsigned i = 0; i < s->nr_cases; i++) {
		const struct reading *r = &s->cases[i];

		o = json_pack("{ss sf so}", "name", r->name, "units", r->units, "ns_per_unit", real_or_null(r->ns));
		if (r->cpu_ns > 0)
			json_object_set_new(o, "cpu_ns_per_unit", json_real(r->cpu_ns));
		if (s->counted[i]) {
			json_object_set(o, "counters", json_object_get(s->counted[i], "counters"));
			json_object_set(o, "mmu", json_object_get(s->counted[i], "mmu"));
			json_object_set(o, "ept", json_object_get(s->counted[i], "ept"));
		}
		json_array_append_new(cases, o);
	}
	o = json_pack("{ss si sb sf so}", "mode", b->modes.at[s->mode].name, "repetition", (int)s->repetition, "ok", s->ok,
		      "wall_s", s->wall_s, "cases", cases);
	if (!s->ok)
		json_object_set_new(o, "why", json_string(s->why));
	if (*s->digest)
		json_object_set_new(o, "digest", json_string(s->digest));
	if (s->report)
		json_object_set(o, "usage", json_object_get(json_object_get(s->report, "mmu"), "usage"));
	if (s->report)
		for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++)
			json_object_set(o, parts[i], json_object_get(s->report, parts[i]));
	return o;
}

/* Cases by name: those of the mode's good samples; each sample has the same ones. */
static json_t *medians_json(const struct bench *b, unsigned mode)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < b->nr_samples; i++) {
		const struct sample *s = &b->samples[i];

		for (unsigned j = 0; s->mode == mode && s->ok && j < s->nr_cases; j++) {
			struct spread t = metric_spread(b, mode, s->cases[j].name, NULL);

			json_object_set_new(o, s->cases[j].name,
					    json_pack("{so so so si}", "median", real_or_null(t.median), "min", real_or_null(t.min), "max",
						      real_or_null(t.max),
						      "samples", (int)t.n));
		}
	}
	return o;
}

/* Of the first good sample of each mode: one shows how the faults lie, all would be much. */
static json_t *fault_maps_json(const struct bench *b)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < b->nr_samples; i++) {
		const char *mode = b->modes.at[b->samples[i].mode].name;
		json_t *map = json_object_get(b->samples[i].report, "fault_map");

		if (b->samples[i].ok && json_is_object(map) && !json_object_get(o, mode))
			json_object_set(o, mode, map);
	}
	return o;
}

/* What the runs' own reports say about where they ran, and the compared numbers. */
static void add_compared(const struct bench *b, json_t *root)
{
	json_t *left_out = json_object();

	for (unsigned i = 0; i < b->modes.n; i++)
		if (*b->modes.at[i].left_out)
			json_object_set_new(left_out, b->modes.at[i].name, json_string(b->modes.at[i].left_out));
	json_object_set_new(root, "left_out", left_out);
	json_object_set_new(root, "compared", compare_json(b));
	json_object_set_new(root, "fault_maps", fault_maps_json(b));
}

json_t *results_json(const struct bench *b)
{
	json_t *root, *samples = json_array(), *medians = json_object();
	const json_t *report = NULL;
	char date[32];
	time_t now = time(NULL);

	strftime(date, sizeof date, "%FT%TZ", gmtime(&now));
	for (unsigned i = 0; i < b->nr_samples; i++) {
		json_array_append_new(samples, sample_json(b, &b->samples[i]));
		if (!report)
			report = b->samples[i].report;
	}
	for (unsigned i = 0; i < b->modes.n; i++)
		json_object_set_new(medians, b->modes.at[i].name, medians_json(b, i));
	root = json_pack("{si ss ss ss ss ss ss si si so so so so}", "schema", 1, "kind", b->compare ? "compare" : "bench",
			 "bench", b->job->name, "what", b->job->what, "unit", b->job->unit, "memory", b->memory, "date", date, "repetitions",
			 (int)b->repetitions, "count", (int)b->count, "load_average", real_or_null(b->load), "modes",
			 modes_json(b), "ns_per_unit", medians, "samples", samples);
	if (!root)
		return NULL;
	if (b->job->word)
		json_object_set_new(root, "argument", json_string(b->job->word));
	if (report) {
		json_object_set(root, "umbra", json_object_get(report, "umbra"));
		json_object_set(root, "host", json_object_get(report, "host"));
	}
	add_compared(b, root);
	return root;
}

int results_write(const struct bench *b, const char *path)
{
	json_t *root = results_json(b);
	FILE *f = stdout;
	int r = 0;

	if (!root)
		return -ENOMEM;
	if (strcmp(path, "-"))
		f = fopen(path, "we");
	if (!f)
		r = -errno;
	else if (json_dumpf(root, f, JSON_INDENT(1)) || fputc('\n', f) == EOF || fflush(f))
		r = -EIO;
	if (f && f != stdout && fclose(f) && !r)
		r = -errno;
	json_decref(root);
	return r;
}
