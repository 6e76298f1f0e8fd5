/*
 * sweep_results.c - results of replays, one per configuration and trace, wherever they were computed; summed per
 * configuration, and which of those nothing beats both ways.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "vmm/vmm.h"

struct cell {
	char *trace;
	uint64_t recorded, left, waste;
};

struct point {
	char *key;		/* the configuration as compact JSON: what tells points apart */
	json_t *config;
	struct cell *cells;
	size_t nr_cells;
	struct cell sum;
	bool front;
};

struct sweep {
	struct point *points;
	size_t nr_points, room;
	size_t nr_traces;	/* the most that a point has */
};

struct sweep *sweep_create(void)
{
	return calloc(1, sizeof(struct sweep));
}

void sweep_free(struct sweep *r)
{
	for (size_t i = 0; r && i < r->nr_points; i++) {
		for (size_t k = 0; k < r->points[i].nr_cells; k++)
			free(r->points[i].cells[k].trace);
		free(r->points[i].cells);
		free(r->points[i].key);
		json_decref(r->points[i].config);
	}
	if (r)
		free(r->points);
	free(r);
}

/* Points are kept in the order of their keys: whatever order results come in, what is told is the same. */
static struct point *point_of(struct sweep *r, const char *key, const json_t *config)
{
	size_t low = 0, high = r->nr_points;
	struct point *p;

	while (low < high) {
		size_t mid = (low + high) / 2;
		int c = strcmp(r->points[mid].key, key);

		if (!c)
			return &r->points[mid];
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	if (r->nr_points == r->room) {
		size_t room = r->room ? 2 * r->room : 64;

		p = reallocarray(r->points, room, sizeof *p);
		if (!p)
			return NULL;
		r->points = p;
		r->room = room;
	}
	p = &r->points[low];
	memmove(p + 1, p, (r->nr_points++ - low) * sizeof *p);
	*p = (struct point){ .key = strdup(key), .config = json_deep_copy(config) };
	return p;
}

static bool get(const json_t *o, const char *name, uint64_t *out)
{
	const json_t *v = json_object_get(o, name);

	*out = json_integer_value(v);
	return json_is_integer(v) && json_integer_value(v) >= 0;
}

static int insert(struct sweep *r, struct point *p, const struct cell *cell)
{
	struct cell *grown = reallocarray(p->cells, p->nr_cells + 1, sizeof *grown);
	size_t at = 0;

	if (!grown)
		return -ENOMEM;
	p->cells = grown;
	while (at < p->nr_cells && strcmp(grown[at].trace, cell->trace) < 0)
		at++;
	memmove(grown + at + 1, grown + at, (p->nr_cells - at) * sizeof *grown);
	grown[at] = *cell;
	p->sum.recorded += cell->recorded;
	p->sum.left += cell->left;
	p->sum.waste += cell->waste;
	if (++p->nr_cells > r->nr_traces)
		r->nr_traces = p->nr_cells;
	return 0;
}

int sweep_add(struct sweep *r, const json_t *root)
{
	const json_t *config = json_object_get(root, "config"), *total = json_object_get(root, "total");
	const char *trace = json_string_value(json_object_get(json_object_get(root, "trace"), "file"));
	struct cell cell;
	struct point *p;
	uint64_t schema;
	char *key;
	int err;

	if (!get(root, "schema", &schema) || schema != REPLAY_SCHEMA || !trace ||
	    !json_is_array(json_object_get(config, "heuristics")) || !get(total, "hidden_faults_recorded", &cell.recorded) ||
	    !get(total, "hidden_faults_left", &cell.left) || !get(total, "waste_entries", &cell.waste))
		return -EINVAL;
	key = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
	p = key ? point_of(r, key, config) : NULL;
	free(key);
	if (!p || !p->key || !p->config)
		return -ENOMEM;
	for (size_t i = 0; i < p->nr_cells; i++)
		if (!strcmp(p->cells[i].trace, trace))
			return -EEXIST;
	cell.trace = strdup(trace);
	err = cell.trace ? insert(r, p, &cell) : -ENOMEM;
	if (err)
		free(cell.trace);
	return err;
}

/* ---- the report ------------------------------------------------------------------------------------------------------------ */

static bool whole(const struct sweep *r, const struct point *p)
{
	return p->nr_cells == r->nr_traces;
}

size_t sweep_incomplete(const struct sweep *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->nr_points; i++)
		n += !whole(r, &r->points[i]);
	return n;
}

static int by_outcome(const void *a, const void *b)
{
	const struct point *x = *(struct point *const *)a, *y = *(struct point *const *)b;

	if (x->sum.left != y->sum.left)
		return x->sum.left < y->sum.left ? -1 : 1;
	if (x->sum.waste != y->sum.waste)
		return x->sum.waste < y->sum.waste ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* By what they leave, then by waste: a point is on the front if it wastes less than all before it. */
static struct point **order(const struct sweep *r)
{
	struct point **list = reallocarray(NULL, r->nr_points + 1, sizeof *list);
	uint64_t least = UINT64_MAX;

	if (!list)
		return NULL;
	for (size_t i = 0; i < r->nr_points; i++)
		list[i] = &r->points[i];
	qsort(list, r->nr_points, sizeof *list, by_outcome);
	for (size_t i = 0; i < r->nr_points; i++) {
		list[i]->front = whole(r, list[i]) && list[i]->sum.waste < least;
		if (list[i]->front)
			least = list[i]->sum.waste;
	}
	return list;
}

static void set_cell(json_t *o, const struct cell *c)
{
	json_object_set_new(o, "hidden_faults_recorded", json_integer(c->recorded));
	json_object_set_new(o, "hidden_faults_left", json_integer(c->left));
	json_object_set_new(o, "waste_entries", json_integer(c->waste));
}

json_t *sweep_json(const struct sweep *r)
{
	json_t *root = json_object(), *points = json_array();
	struct point **list = order(r);

	if (!root || !points || !list) {
		free(list);
		json_decref(root);
		json_decref(points);
		return NULL;
	}
	json_object_set_new(root, "schema", json_integer(REPLAY_SCHEMA));
	json_object_set_new(root, "umbra", json_string(vmm_version()));
	json_object_set_new(root, "traces", json_integer(r->nr_traces));
	for (size_t i = 0; i < r->nr_points; i++) {
		const struct point *p = list[i];
		json_t *o = json_object(), *traces = json_array();

		json_object_set(o, "config", p->config);
		set_cell(o, &p->sum);
		json_object_set_new(o, "complete", json_boolean(whole(r, p)));
		json_object_set_new(o, "pareto", json_boolean(p->front));
		for (size_t k = 0; k < p->nr_cells; k++) {
			json_t *t = json_object();

			json_object_set_new(t, "file", json_string(p->cells[k].trace));
			set_cell(t, &p->cells[k]);
			json_array_append_new(traces, t);
		}
		json_object_set_new(o, "traces", traces);
		json_array_append_new(points, o);
	}
	json_object_set_new(root, "points", points);
	free(list);
	return root;
}

static void print_heuristics(const json_t *config, FILE *to)
{
	const json_t *list = json_object_get(config, "heuristics"), *name;
	size_t i;

	json_array_foreach(list, i, name)
		fprintf(to, "%s%s", i ? "  " : "", json_string_value(name));
	if (!json_array_size(list))
		fputs("none", to);
	if (json_is_true(json_object_get(config, "auto")))
		fputs("  (auto)", to);
	fputc('\n', to);
}

void sweep_print(const struct sweep *r, FILE *to)
{
	struct point **list = order(r);

	fprintf(to, "Pareto front of %zu configurations over %zu trace%s:\n\n%12s %8s %10s  heuristics\n", r->nr_points, r->nr_traces,
		r->nr_traces == 1 ? "" : "s", "faults left", "", "waste");
	for (size_t i = 0; list && i < r->nr_points; i++) {
		const struct cell *c = &list[i]->sum;

		if (!list[i]->front)
			continue;
		fprintf(to, "%12" PRIu64 " %7.1f%% %10" PRIu64 "  ", c->left, c->recorded ? 100.0 * c->left / c->recorded : 0, c->waste);
		print_heuristics(list[i]->config, to);
	}
	free(list);
}
