/*
 * heuristic.h - what a heuristic is: a const ops table, one per file. To write the next one, copy update.c, give it a name
 * and list it in heuristics.c.
 */
#ifndef UMBRA_HELPER_HEURISTIC_H
#define UMBRA_HELPER_HEURISTIC_H

#include "helper/helper.h"

/* What a heuristic may do. */
struct heuristic_ctx {
	struct mmu_cpu *cpu;
	const uint64_t *value;		/* its parameters */
	struct heuristic_stats *stats;
	unsigned source;		/* remembered in the sPTE: MMU_SRC_FIRST_HEURISTIC + its place */
};

struct heuristic_param {
	const char *name, *what;
	uint64_t initial, min, max;
};

struct heuristic {
	const char *name;		/* mandatory */
	const char *what;		/* mandatory: one line */
	struct heuristic_param params[HELPER_MAX_PARAMS];	/* optional; ends with a NULL name */
	/* The guest stored to this entry. Mandatory until there are other inputs. */
	void (*on_update)(struct heuristic_ctx *c, gfn_t table, unsigned index);
};

extern const struct heuristic heuristic_update, heuristic_window;

/* Asks for one entry and counts what came of it. */
void heuristic_build(struct heuristic_ctx *c, gfn_t table, unsigned index);

#endif
