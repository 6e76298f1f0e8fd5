/*
 * sweep.h - the parts of `umbra sweep`: grids (what to try), results (what came of it). Not for other modules. Main thread,
 * but for sweep_add().
 */
#ifndef UMBRA_CLI_SWEEP_H
#define UMBRA_CLI_SWEEP_H

#include "cli/replay.h"

/* ---- sweep_grid.c ---------------------------------------------------------------------------------------------------- */

#define GRID_MAX	100000u		/* points */

/* A set of heuristics to try together. */
struct grid_point {
	struct heuristic_config heuristics[HELPER_MAX_HEURISTICS];
	unsigned nr;
};

/* Starts with one point: no heuristics. */
struct grid {
	struct grid_point *points;
	size_t nr;
};

int grid_init(struct grid *g);
void grid_free(struct grid *g);
/*
 * "NAME,key=a/b/c,...": every point so far is replaced by itself with each combination of the values; `maybe`: and by itself
 * without. 0, -ENOMEM; -EINVAL or -E2BIG with a line in `why`.
 */
int grid_add(struct grid *g, const char *text, bool maybe, char *why, size_t size);

/* ---- sweep_results.c --------------------------------------------------------------------------------------------------- */

struct sweep;

struct sweep *sweep_create(void);
void sweep_free(struct sweep *r);
/* One result of `umbra replay --json`. 0; -EINVAL: it is none; -EEXIST: there is one of that configuration and trace;
 * -ENOMEM. One thread at a time. */
int sweep_add(struct sweep *r, const json_t *root);
/* The report: points by what they leave and waste, which of them are on the Pareto front. */
json_t *sweep_json(const struct sweep *r);
/* The front as a table. *missing: points that lack a trace others have; they are in neither list's front. */
void sweep_print(const struct sweep *r, FILE *to);
size_t sweep_incomplete(const struct sweep *r);

#endif
