/*
 * distance.c - heuristic: which distance between two faults follows which (distance prefetching: Kandiraju and
 * Sivasubramaniam, "Going the distance for TLB prefetching", ISCA 2002). Finds strides, and patterns that repeat without
 * a constant stride.
 */
#include "helper/space.h"

#define ROWS	256u		/* a power of two */
#define NEXT	4u
#define SPACES	32u		/* a power of two */

enum { SLOTS };

struct row {
	int64_t distance;	/* 0: free */
	int64_t next[NEXT];	/* the latest first; 0: free */
};

struct space {
	uint64_t root, page;
	int64_t distance;
};

struct state {
	struct row rows[ROWS];
	struct space spaces[SPACES];
};

static struct row *row_of(struct state *s, int64_t distance)
{
	return &s->rows[(uint64_t)distance * 0x9e3779b97f4a7c15ull >> 56 & (ROWS - 1)];
}

static void learn(struct state *s, int64_t before, int64_t distance, unsigned slots)
{
	struct row *r = row_of(s, before);
	unsigned i = 0;

	if (r->distance != before)
		*r = (struct row){ .distance = before };
	while (i < slots - 1 && r->next[i] != distance)
		i++;
	for (; i; i--)
		r->next[i] = r->next[i - 1];
	r->next[0] = distance;
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	struct space *sp = &s->spaces[e->root.n * 0x9e3779b97f4a7c15ull >> 59 & (SPACES - 1)];
	uint64_t page = e->va.a >> MMU_PAGE_SHIFT;
	const struct row *r;
	int64_t distance;

	if (e->fault == HELPER_FAULT_PTWRITE)
		return;
	if (sp->root != e->root.n) {
		*sp = (struct space){ .root = e->root.n, .page = page };
		return;
	}
	distance = page - sp->page;
	if (!distance)
		return;
	if (sp->distance)
		learn(s, sp->distance, distance, c->value[SLOTS]);
	sp->page = page;
	sp->distance = distance;
	r = row_of(s, distance);
	for (unsigned i = 0; r->distance == distance && i < c->value[SLOTS] && r->next[i]; i++) {
		gfn_t table;
		unsigned index;

		if (space_find(c, e->root, (gva_t){ (page + r->next[i]) << MMU_PAGE_SHIFT }, &table, &index) &&
		    !heuristic_build(c, table, index, 0))
			return;
	}
}

const struct heuristic heuristic_distance = {
	.name = "distance",
	.what = "the distances between faults that followed this one before",
	.params = {
		[SLOTS] = { "slots", "so many guesses per distance", 2, 1, NEXT },
	},
	.state_size = sizeof(struct state),
	.on_fault = on_fault,
};
