/*
 * recency.c - heuristic: pages that were faulted on one after the other will be so again (recency-based prefetching:
 * Saulsbury, Dahlgren and Stenstrom, ISCA 2000). Pages lie on a stack by their last fault; who faults again comes to the
 * top, and its neighbours in its old place are asked for.
 */
#include "helper/space.h"

#define PAGES	4096u		/* a power of two */

enum { NEIGHBOURS };

struct page {
	uint64_t root, page;	/* key; root 0: free */
	uint16_t above, below;	/* places in the stack + 1; 0: none */
};

struct state {
	struct page pages[PAGES];
	uint16_t top;		/* + 1 */
};

static void unlink_page(struct state *s, unsigned at)
{
	struct page *p = &s->pages[at];

	if (p->above)
		s->pages[p->above - 1].below = p->below;
	else if (s->top == at + 1)
		s->top = p->below;
	if (p->below)
		s->pages[p->below - 1].above = p->above;
	p->above = p->below = 0;
}

static void push(struct state *s, unsigned at)
{
	struct page *p = &s->pages[at];

	p->below = s->top;
	if (s->top)
		s->pages[s->top - 1].above = at + 1;
	s->top = at + 1;
}

static bool guess(struct heuristic_ctx *c, const struct page *p)
{
	gfn_t table;
	unsigned index;

	return !p->root || !space_find(c, (gfn_t){ p->root }, (gva_t){ p->page << MMU_PAGE_SHIFT }, &table, &index) ||
	       heuristic_build(c, table, index, 0);
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	uint64_t page = e->va.a >> MMU_PAGE_SHIFT;
	unsigned at = (page * 31 + e->root.n) * 0x9e3779b97f4a7c15ull >> 52 & (PAGES - 1);
	struct page *p = &s->pages[at];

	if (e->fault != HELPER_FAULT_HIDDEN || !e->root.n)
		return;
	if (p->root == e->root.n && p->page == page) {
		unsigned up = p->above, down = p->below;

		for (unsigned i = 0; i < c->value[NEIGHBOURS] && (up || down); i++) {
			if ((up && !guess(c, &s->pages[up - 1])) || (down && !guess(c, &s->pages[down - 1])))
				break;
			up = up ? s->pages[up - 1].above : 0;
			down = down ? s->pages[down - 1].below : 0;
		}
	}
	if (p->root)
		unlink_page(s, at);
	p->root = e->root.n;
	p->page = page;
	push(s, at);
}

const struct heuristic heuristic_recency = {
	.name = "recency",
	.what = "pages that faulted just before or after this one the last time",
	.params = {
		[NEIGHBOURS] = { "neighbours", "so many on each side", 2, 1, 16 },
	},
	.state_size = sizeof(struct state),
	.on_fault = on_fault,
};
