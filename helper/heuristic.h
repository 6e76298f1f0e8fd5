/*
 * heuristic.h - what a heuristic is: a const ops table, one per file. To write the next one, copy update.c, give it a name
 * and list it in heuristics.c.
 *
 * A heuristic is a pure machine: it sees events, keeps what it learns in state of its own, and asks for entries through
 * its ctx. It looks at no clock (events carry times), no global, no random number: the same events give the same
 * requests, in a running VM as in `umbra replay`, where a simulated MMU stands behind the ctx.
 */
#ifndef UMBRA_HELPER_HEURISTIC_H
#define UMBRA_HELPER_HEURISTIC_H

#include "helper/helper.h"

struct engine;

/* What one heuristic has while it runs. */
struct heuristic_ctx {
	struct engine *engine;
	const uint64_t *value;		/* its parameters, in the order of ops->params */
	void *state;			/* what its init() made; NULL without one */
	unsigned place;			/* in the list of those configured */
	unsigned left;			/* entries it may still ask for on this event */
};

struct heuristic_param {
	const char *name, *what;
	uint64_t initial, min, max;
};

/* Every on_*() is optional, but for one of them. They run on one thread and return soon: long work is heuristic_tree(). */
struct heuristic {
	const char *name;		/* mandatory */
	const char *what;		/* mandatory: one line */
	struct heuristic_param params[HELPER_MAX_PARAMS];	/* optional; ends with a NULL name */
	size_t state_size;		/* zeroed memory in ctx->state; 0: none */
	/* Optional: sets up ctx->state beyond zeroes. 0 or -ENOMEM. fini() undoes it. */
	int (*init)(struct heuristic_ctx *c);
	void (*fini)(struct heuristic_ctx *c);
	void (*on_update)(struct heuristic_ctx *c, const struct helper_event *e);
	void (*on_pin)(struct heuristic_ctx *c, const struct helper_event *e);		/* HELPER_PIN and _UNPIN */
	void (*on_fault)(struct heuristic_ctx *c, const struct helper_event *e);
	void (*on_switch)(struct heuristic_ctx *c, const struct helper_event *e);
	void (*on_used)(struct heuristic_ctx *c, const struct helper_event *e);
};

/*
 * Asks for one entry now; counts what came of it. `flags`: MMU_PB_*. False: its budget is used up, nothing was done.
 * MMU_PB_YOUNG sets A bits that the guest can see, as a processor that speculates may. A guest kernel ages pages by them: it
 * is for where that does not matter, as in a child just forked.
 */
bool heuristic_build(struct heuristic_ctx *c, gfn_t table, unsigned index, unsigned flags);
/*
 * Asks for what the guest's tables below `root` map in [first, last], leaves and the tables to them, at most `entries`
 * leaves. Queued, and done in slices when no event waits. False: the queue is full, or the same is queued already.
 */
bool heuristic_tree(struct heuristic_ctx *c, gfn_t root, enum mmu_mode mode, gva_t first, gva_t last, unsigned flags,
		    unsigned entries);
/* The same for what the shadow of `parent` shows now, in the space `root` of the kernel mode. */
bool heuristic_clone(struct heuristic_ctx *c, gfn_t root, gfn_t parent, gva_t first, gva_t last, unsigned flags,
		     unsigned entries);
/* The guest's entry as far as it is known: in a running VM as it is now, in a replay as the trace tells. False: it is
 * not. No table of the guest's is trusted: the caller bounds its loops. */
bool heuristic_read(struct heuristic_ctx *c, gfn_t table, unsigned index, uint64_t *gpte);

extern const struct heuristic heuristic_update, heuristic_window, heuristic_fork, heuristic_exec, heuristic_switch, heuristic_stride,
	heuristic_distance, heuristic_recency, heuristic_direct_map, heuristic_wild;

#endif
