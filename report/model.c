/* JSON to numbers that can be drawn. The file may be anybody's: nothing in it is believed. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/model.h"

struct reader {
	struct model *m;
	char *why;
	size_t size;
	int error;
};

/* The first complaint counts. */
__attribute__((format(printf, 2, 3)))
static void complain(struct reader *r, const char *fmt, ...)
{
	va_list ap;

	if (r->error)
		return;
	r->error = -EINVAL;
	va_start(ap, fmt);
	vsnprintf(r->why, r->size, fmt, ap);
	va_end(ap);
}

/* ---- values: what is missing or odd is unknown -------------------------------------------------------------------- */

static void take_text(char *to, size_t size, const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	snprintf(to, size, "%s", s ? s : "");
}

#define TAKE_TEXT(to, o, name)	take_text(to, sizeof(to), o, name)

static double real_of(const json_t *v)
{
	double n = json_is_number(v) ? json_number_value(v) : NAN;

	return isfinite(n) ? n : NAN;
}

static double take_real(const json_t *o, const char *name)
{
	return real_of(json_object_get(o, name));
}

/* Counts and times. */
static double take_positive(const json_t *o, const char *name)
{
	double n = take_real(o, name);

	return n >= 0 ? n : NAN;
}

static const json_t *take_array(struct reader *r, const json_t *o, const char *where, const char *name, size_t max)
{
	const json_t *list = json_object_get(o, name);

	if (!json_is_array(list))
		complain(r, "%s%s is missing or not a list", where, name);
	else if (json_array_size(list) > max)
		complain(r, "%s%s has %zu members; %zu are the most", where, name, json_array_size(list), max);
	return r->error ? NULL : list;
}

/* MODEL_MODES: no mode of that name. */
static unsigned find_mode(const struct model *m, const char *name)
{
	for (unsigned i = 0; name && i < m->nr_modes; i++)
		if (!strcmp(m->modes[i].name, name))
			return i;
	return MODEL_MODES;
}

/* ---- parts -------------------------------------------------------------------------------------------------------- */

static void take_modes(struct reader *r, const json_t *root)
{
	const json_t *list = take_array(r, root, "", "modes", MODEL_MODES), *o;
	const json_t *left_out = json_object_get(root, "left_out");
	size_t i;

	json_array_foreach(list, i, o) {
		struct model_mode *mode = &r->m->modes[i];

		TAKE_TEXT(mode->name, o, "name");
		TAKE_TEXT(mode->flags, o, "flags");
		TAKE_TEXT(mode->left_out, left_out, mode->name);
		if (!*mode->name || find_mode(r->m, mode->name) != MODEL_MODES)
			complain(r, "modes[%zu] has no name of its own", i);
		r->m->nr_modes++;
	}
	if (!r->error && !r->m->nr_modes)
		complain(r, "modes is empty");
}

static void take_cells(struct reader *r, struct model_row *row, const json_t *list)
{
	const json_t *o;
	size_t i;

	json_array_foreach(list, i, o) {
		unsigned mode = find_mode(r->m, json_string_value(json_object_get(o, "mode")));
		double samples = take_positive(o, "samples");
		struct model_cell *c;

		if (mode == MODEL_MODES)
			continue;
		c = &row->of[mode];
		c->median = take_positive(o, "median");
		c->min = take_positive(o, "min");
		c->max = take_positive(o, "max");
		c->ratio = take_positive(o, "ratio");
		c->p = take_positive(o, "p");
		c->samples = samples >= 1 && samples <= 1e6 && !isnan(c->median) ? samples : 0;
		if (isnan(c->min) || c->min > c->median)
			c->min = c->median;
		if (isnan(c->max) || c->max < c->median)
			c->max = c->median;
	}
}

static void take_rows(struct reader *r, struct model_block *b, const json_t *o, const char *where, const char *name)
{
	const json_t *list = take_array(r, o, where, name, MODEL_ROWS), *v;
	size_t i;

	json_array_foreach(list, i, v) {
		struct model_row *row = &b->rows[b->nr_rows++];

		TAKE_TEXT(row->id, v, "id");
		TAKE_TEXT(row->name, v, "name");
		TAKE_TEXT(row->group, v, "group");
		TAKE_TEXT(row->what, v, "what");
		row->time = json_is_string(json_object_get(v, "unit")) &&
			    !strcmp(json_string_value(json_object_get(v, "unit")), "ns");
		take_cells(r, row, json_object_get(v, "modes"));
	}
}

static void take_blocks(struct reader *r, const json_t *root)
{
	const json_t *compared = json_object_get(root, "compared"), *list, *o;
	size_t i;

	if (!json_is_object(compared)) {
		complain(r, "compared is missing: this is no result of umbra compare");
		return;
	}
	TAKE_TEXT(r->m->first_mode, compared, "first_mode");
	r->m->real_below = take_positive(compared, "real_below_p");
	list = take_array(r, compared, "compared.", "cases", MODEL_BLOCKS);
	json_array_foreach(list, i, o) {
		struct model_block *b = &r->m->blocks[r->m->nr_blocks++];

		TAKE_TEXT(b->name, o, "name");
		take_rows(r, b, o, "compared.cases[].", "metrics");
	}
	take_rows(r, &r->m->whole, compared, "compared.", "whole_run");
}

static void take_sample_times(struct reader *r, unsigned mode, const json_t *cases)
{
	const json_t *o;
	size_t i;

	json_array_foreach(cases, i, o) {
		const char *name = json_string_value(json_object_get(o, "name"));
		double ns = take_positive(o, "ns_per_unit");

		for (unsigned k = 0; name && !isnan(ns) && k < r->m->nr_blocks; k++) {
			struct model_block *b = &r->m->blocks[k];

			if (!strcmp(b->name, name) && b->nr_times[mode] < MODEL_SAMPLES)
				b->times[mode][b->nr_times[mode]++] = ns;
		}
	}
}

static struct model_heuristic *heuristic_of(struct model *m, unsigned mode, const char *name)
{
	struct model_heuristic *h;

	for (unsigned i = 0; i < m->nr_heuristics; i++)
		if (m->heuristics[i].mode == mode && !strncmp(m->heuristics[i].name, name, sizeof h->name - 1))
			return &m->heuristics[i];
	if (m->nr_heuristics == MODEL_HEURISTICS)
		return NULL;
	h = &m->heuristics[m->nr_heuristics++];
	h->mode = mode;
	snprintf(h->name, sizeof h->name, "%s", name);
	return h;
}

/* Useful and wasted are known for a sample of what was built; NaN spreads to the mean. */
static void take_heuristics(struct reader *r, unsigned mode, const json_t *list)
{
	const json_t *o;
	size_t i;

	json_array_foreach(list, i, o) {
		const char *name = json_string_value(json_object_get(o, "name"));
		struct model_heuristic *h = name ? heuristic_of(r->m, mode, name) : NULL;
		const json_t *use = json_object_get(o, "use");
		double built, sampled, used;

		if (!h)
			continue;
		h->samples++;
#define ADD(member) h->member += fmax(0, take_positive(o, #member))
		ADD(issued);
		ADD(built);
		ADD(late);
		ADD(dropped);
		ADD(present);
		ADD(nowhere);
		ADD(nothing);
		ADD(no_room);
#undef ADD
		use = json_is_object(use) ? use : o;
		built = take_positive(o, "built");
		sampled = take_positive(use, "sampled_used") + take_positive(use, "sampled_unused");
		used = take_positive(use, "sampled_used");
		h->used += sampled > 0 ? built * used / sampled : NAN;
		h->unused += sampled > 0 ? built - built * used / sampled : NAN;
	}
}

static void take_samples(struct reader *r, const json_t *root)
{
	const json_t *list = take_array(r, root, "", "samples", MODEL_MODES * MODEL_SAMPLES), *o;
	size_t i;

	json_array_foreach(list, i, o) {
		unsigned mode = find_mode(r->m, json_string_value(json_object_get(o, "mode")));

		if (!json_is_true(json_object_get(o, "ok"))) {
			r->m->failed_runs++;
			continue;
		}
		if (mode == MODEL_MODES)
			continue;
		take_sample_times(r, mode, json_object_get(o, "cases"));
		take_heuristics(r, mode, json_object_get(json_object_get(o, "helper"), "heuristics"));
	}
	for (unsigned k = 0; k < r->m->nr_heuristics; k++) {
		struct model_heuristic *h = &r->m->heuristics[k];

		h->issued /= h->samples;
		h->built /= h->samples;
		h->late /= h->samples;
		h->dropped /= h->samples;
		h->present /= h->samples;
		h->nowhere /= h->samples;
		h->nothing /= h->samples;
		h->no_room /= h->samples;
		h->used /= h->samples;
		h->unused /= h->samples;
	}
}

/* ---- fault maps --------------------------------------------------------------------------------------------------- */

/* The place of each of the model's classes in a cell of the file, 0: not there. */
static void find_classes(const json_t *map, unsigned place[MODEL_CLASSES])
{
	static const char *const names[MODEL_CLASSES] = { "hidden", "true", "pt_write", "other" };
	const json_t *o;
	size_t i;

	json_array_foreach(json_object_get(map, "classes"), i, o)
		for (unsigned c = 0; i < 16 && c < MODEL_CLASSES; c++)
			if (json_is_string(o) && !strcmp(json_string_value(o), names[c]))
				place[c] = 2 + i;
}

static void take_regions(struct reader *r, struct model_map *map, const json_t *o)
{
	const json_t *list = take_array(r, o, "a fault map's ", "regions", MODEL_REGIONS), *v;
	size_t i;

	json_array_foreach(list, i, v) {
		const char *first = json_string_value(json_object_get(v, "first"));
		double bytes = take_positive(v, "bytes");
		char *end = NULL;

		map->first[i] = first ? strtoull(first, &end, 16) : 0;
		if (!first || !*first || *end || !(bytes >= 1 && bytes < 1e19))
			complain(r, "a fault map's regions[%zu] is no range of addresses", i);
		else
			map->bytes[i] = bytes;
	}
	if (!r->error)
		map->regions = json_array_size(list);
}

static void take_map(struct reader *r, struct model_map *map, const json_t *o)
{
	unsigned place[MODEL_CLASSES] = { 0 };
	double buckets = take_positive(o, "buckets");
	const json_t *list, *cell;
	size_t i;

	map->bucket_ns = take_positive(o, "bucket_ns");
	if (!(map->bucket_ns >= 1 && map->bucket_ns < 1e18) || !(buckets <= MODEL_BUCKETS))
		complain(r, "a fault map's bucket_ns or buckets make no sense");
	take_regions(r, map, o);
	list = take_array(r, o, "a fault map's ", "cells", MODEL_REGIONS * MODEL_BUCKETS);
	if (r->error)
		return;
	map->buckets = buckets;
	map->counts = calloc(map->regions ? map->regions : 1, sizeof *map->counts);
	if (!map->counts) {
		r->error = -ENOMEM;
		return;
	}
	find_classes(o, place);
	json_array_foreach(list, i, cell) {
		double region = real_of(json_array_get(cell, 0)), bucket = real_of(json_array_get(cell, 1)), n;

		if (!(region >= 0 && region < map->regions && bucket >= 0 && bucket < map->buckets)) {
			complain(r, "a fault map's cells[%zu] lies outside the map", i);
			return;
		}
		for (unsigned c = 0; c < MODEL_CLASSES; c++) {
			n = place[c] ? real_of(json_array_get(cell, place[c])) : NAN;
			if (n > 0 && n <= UINT32_MAX)
				map->counts[(unsigned)region][(unsigned)bucket][c] = n;
		}
	}
}

static void take_maps(struct reader *r, const json_t *root)
{
	const json_t *maps = json_object_get(root, "fault_maps"), *o;
	const char *name;

	json_object_foreach((json_t *)maps, name, o) {
		unsigned mode = find_mode(r->m, name);

		if (mode != MODEL_MODES && json_is_object(o) && !r->error && !r->m->maps[mode].counts)
			take_map(r, &r->m->maps[mode], o);
	}
}

static void take_head(struct reader *r, const json_t *root)
{
	const json_t *host = json_object_get(root, "host");
	struct model *m = r->m;

	TAKE_TEXT(m->title, root, "bench");
	TAKE_TEXT(m->what, root, "what");
	TAKE_TEXT(m->unit, root, "unit");
	TAKE_TEXT(m->umbra, root, "umbra");
	TAKE_TEXT(m->date, root, "date");
	TAKE_TEXT(m->memory, root, "memory");
	TAKE_TEXT(m->cpu, host, "cpu");
	TAKE_TEXT(m->kernel, host, "kernel");
	TAKE_TEXT(m->kvm, host, "kvm");
	m->host_cpus = take_positive(host, "cpus");
	m->host_bytes = take_positive(host, "memory_bytes");
	m->numa_nodes = take_positive(host, "numa_nodes");
	m->load = take_positive(root, "load_average");
	m->repetitions = take_positive(root, "repetitions");
}

int model_make(struct model *m, const json_t *root, char *why, size_t size)
{
	struct reader r = { .m = m, .why = why, .size = size };

	memset(m, 0, sizeof *m);
	take_head(&r, root);
	take_modes(&r, root);
	if (!r.error)
		take_blocks(&r, root);
	if (!r.error)
		take_samples(&r, root);
	if (!r.error)
		take_maps(&r, root);
	if (r.error)
		model_release(m);
	return r.error;
}

void model_release(struct model *m)
{
	for (unsigned i = 0; i < MODEL_MODES; i++) {
		free(m->maps[i].counts);
		m->maps[i].counts = NULL;
	}
}

const struct model_row *model_row(const struct model_block *b, const char *id)
{
	for (unsigned i = 0; i < b->nr_rows; i++)
		if (!strcmp(b->rows[i].id, id))
			return &b->rows[i];
	return NULL;
}
