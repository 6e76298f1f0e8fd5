/* sweep_grid.c - grids of heuristics: the cross product of what is to be tried. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"


int grid_init(struct grid *g)
{
	g->points = calloc(1, sizeof *g->points);
	g->nr = 1;
	return g->points ? 0 : -ENOMEM;
}

void grid_free(struct grid *g)
{
	free(g->points);
}

struct choices {
	struct heuristic_config *list;
	size_t nr;
};

static int add_choice(struct choices *c, const char *text, char *why, size_t size)
{
	struct heuristic_config *grown = reallocarray(c->list, c->nr + 1, sizeof *grown);

	if (!grown)
		return -ENOMEM;
	c->list = grown;
	if (c->nr >= GRID_MAX) {
		snprintf(why, size, "more than %u combinations", GRID_MAX);
		return -E2BIG;
	}
	return heuristic_parse(text, &c->list[c->nr++], why, size);
}

/* `done`: the text so far; `rest`: words that may hold alternatives. */
static int expand(struct choices *c, const char *done, const char *rest, char *why, size_t size)
{
	size_t n = strcspn(rest, ","), key;
	char text[HEURISTIC_TEXT];
	const char *eq;
	int r = 0;

	if (!*rest)
		return add_choice(c, done, why, size);
	eq = memchr(rest, '=', n);
	key = eq ? (size_t)(eq - rest) + 1 : 0;
	if (!eq && memchr(rest, '/', n)) {
		snprintf(why, size, "'%.*s': alternatives are values: KEY=A/B", (int)n, rest);
		return -EINVAL;
	}
	for (const char *v = rest + key; !r; v++) {
		size_t len = strcspn(v, "/,");

		if ((size_t)snprintf(text, sizeof text, "%s%s%.*s%.*s", done, *done ? "," : "", (int)key, rest, (int)len, v) >=
		    sizeof text) {
			snprintf(why, size, "too long");
			return -EINVAL;
		}
		r = expand(c, text, rest + n + (rest[n] == ','), why, size);
		v += len;
		if (*v != '/')
			break;
	}
	return r;
}

int grid_add(struct grid *g, const char *text, bool maybe, char *why, size_t size)
{
	struct choices c = { 0 };
	struct grid_point *points = NULL;
	size_t n = 0, total;
	int r;

	snprintf(why, size, "no memory");
	r = expand(&c, "", text, why, size);
	if (r)
		goto out;
	total = g->nr * (c.nr + maybe);
	r = -E2BIG;
	if (total > GRID_MAX) {
		snprintf(why, size, "%zu combinations with those before it; at most %u are possible", total, GRID_MAX);
		goto out;
	}
	r = -ENOMEM;
	points = reallocarray(NULL, total, sizeof *points);
	if (!points)
		goto out;
	r = -E2BIG;
	for (size_t i = 0; i < g->nr; i++) {
		if (g->points[i].nr == HELPER_MAX_HEURISTICS) {
			snprintf(why, size, "more than %u heuristics at once", HELPER_MAX_HEURISTICS);
			goto out;
		}
		if (maybe)
			points[n++] = g->points[i];
		for (size_t k = 0; k < c.nr; k++) {
			points[n] = g->points[i];
			points[n].heuristics[points[n].nr++] = c.list[k];
			n++;
		}
	}
	free(g->points);
	g->points = points;
	g->nr = total;
	points = NULL;
	r = 0;
out:
	free(points);
	free(c.list);
	return r;
}
