/*
 * direct_map.c - heuristic: a fault in a linear map of memory is the first of many. A table whose entries around the fault
 * name consecutive frames is part of one (the guest kernel's direct map); its other entries have no reason to change.
 */
#include "helper/space.h"

#define FILLED	64u		/* tables remembered; a power of two */
#define AGAIN	16u		/* so many faults in a table filled already: it was dropped since, fill it again */

enum { NEAR, SPAN };

struct state {
	struct {
		uint64_t key;	/* table and group, + 1; 0: free */
		unsigned faults;
	} filled[FILLED];
};

/* Single entries get lost, by write protection and the like: that is no reason to ask for all of them again. */
static bool filled_lately(struct state *s, uint64_t table, unsigned group)
{
	uint64_t key = (table << 9 | group) + 1;
	unsigned at = key * 0x9e3779b97f4a7c15ull >> 58 & (FILLED - 1);

	if (s->filled[at].key == key && ++s->filled[at].faults < AGAIN)
		return true;
	s->filled[at].key = key;
	s->filled[at].faults = 0;
	return false;
}

static bool linear(struct heuristic_ctx *c, const struct helper_event *e, uint64_t gpte, int64_t by)
{
	unsigned index = e->index + by;
	uint64_t other;

	return index >= MMU_ENTRIES || !heuristic_read(c, e->table, index, &other) || !(other & MMU_PTE_P) ||
	       space_frame(other).n == space_frame(gpte).n + by;
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	unsigned span = c->value[SPAN], first = e->index / span * span, last = first + span - 1;
	uint64_t gpte;

	if (e->fault != HELPER_FAULT_HIDDEN || e->level != 1 || e->mode != MMU_KERNEL || e->va.a <= SPACE_USER_END ||
	    !heuristic_read(c, e->table, e->index, &gpte))
		return;
	for (int64_t by = 1; by <= (int64_t)c->value[NEAR]; by++)
		if (!linear(c, e, gpte, by) || !linear(c, e, gpte, -by))
			return;
	if (filled_lately(c->state, e->table.n, first))
		return;
	for (unsigned i = first; i <= last && i < MMU_ENTRIES; i++)
		if (i != e->index && !heuristic_build(c, e->table, i, 0))
			return;
}

const struct heuristic heuristic_direct_map = {
	.name = "direct-map",
	.what = "the whole table around a kernel fault where the frames are consecutive",
	.params = {
		[NEAR] = { "near", "so many neighbours on each side have to be consecutive", 2, 1, 16 },
		[SPAN] = { "span", "the aligned group of so many that is built", 512, 2, 512 },
	},
	.state_size = sizeof(struct state),
	.on_fault = on_fault,
};
