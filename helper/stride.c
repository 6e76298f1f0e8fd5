/*
 * stride.c - heuristic: faults at a constant distance from one another go on so. Arbitrary stride prefetching (Chen and
 * Baer 1995) as Kandiraju and Sivasubramaniam (ISCA 2002) apply it to TLBs, but keyed by address space and 16 MiB of
 * it, because a page-table entry knows no program counter.
 */
#include "helper/space.h"

#define STREAMS	64u		/* a power of two */
#define SURE	2u		/* the same stride so often in a row */

enum { DEGREE };

struct stream {
	uint64_t root, area;	/* key; area + 1, 0: free */
	uint64_t page;
	int64_t stride;
	unsigned sure;
};

struct state {
	struct stream streams[STREAMS];
};

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	uint64_t page = e->va.a >> MMU_PAGE_SHIFT, area = (page >> 12) + 1;
	struct stream *st = &s->streams[((area * 31 + e->root.n) * 0x9e3779b97f4a7c15ull) >> 58 & (STREAMS - 1)];
	int64_t stride;

	if (e->fault == HELPER_FAULT_PTWRITE)
		return;
	if (st->area != area || st->root != e->root.n) {
		*st = (struct stream){ .root = e->root.n, .area = area, .page = page };
		return;
	}
	stride = page - st->page;
	if (!stride)
		return;
	st->sure = stride == st->stride ? st->sure + 1 : 0;
	st->stride = stride;
	st->page = page;
	if (st->sure + 1 < SURE)
		return;
	for (unsigned i = 1; i <= c->value[DEGREE]; i++) {
		gfn_t table;
		unsigned index;

		if (space_find(c, e->root, (gva_t){ (page + i * stride) << MMU_PAGE_SHIFT }, &table, &index) &&
		    !heuristic_build(c, table, index, 0))
			return;
	}
}

const struct heuristic heuristic_stride = {
	.name = "stride",
	.what = "faults at a constant distance go on",
	.params = {
		[DEGREE] = { "degree", "so many pages ahead", 4, 1, 64 },
	},
	.state_size = sizeof(struct state),
	.on_fault = on_fault,
};
