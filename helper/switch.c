/*
 * switch.c - heuristic: a root that is loaded will use what it used before. Every new root lacks the links of its kernel
 * half and, one of user mode, those of the lower half, though the tables below exist; and what a root faulted on in its last
 * turn it lost since, by reclaim or an update, and will want again.
 */
#include <string.h>

#include "helper/space.h"

#define ROOTS	64u		/* a power of two */
#define SET	64u

enum { LINKS, PAGES };

struct set {
	gfn_t root;		/* 0: free */
	unsigned n;		/* entries ever remembered; the last SET of them are there */
	struct { gfn_t table; uint16_t index; } at[SET];
};

struct state {
	struct set sets[ROOTS];
	uint64_t slots[MMU_ENTRIES / 64];	/* of the kernel half, that kernels were seen to use */
};

static void build_kernel_half(struct heuristic_ctx *c, gfn_t root)
{
	const struct state *s = c->state;

	for (unsigned i = SPACE_KERNEL_SLOT; i < MMU_ENTRIES; i++)
		if ((s->slots[i / 64] >> i % 64 & 1) && !heuristic_build(c, root, i, MMU_PB_TABLES))
			return;
}

/* Kernel and user root share the tables of the lower half, but each has links of its own to them. */
static void build_lower_half(struct heuristic_ctx *c, gfn_t root)
{
	uint64_t gpte;

	for (unsigned i = 0; i < MMU_ENTRIES / 2; i++)
		if (heuristic_read(c, root, i, &gpte) && (gpte & MMU_PTE_P) &&
		    !heuristic_build(c, root, i, MMU_PB_TABLES))
			return;
}

static struct set *set_of(struct state *s, gfn_t root)
{
	return &s->sets[root.n * 0x9e3779b97f4a7c15ull >> 58 & (ROOTS - 1)];
}

static void on_pin(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct set *set = set_of(c->state, e->table);

	if (set->root.n == e->table.n)
		set->root.n = 0;
}

static void on_switch(struct heuristic_ctx *c, const struct helper_event *e)
{
	const struct set *set = set_of(c->state, e->root);
	unsigned n = set->n < c->value[PAGES] ? set->n : c->value[PAGES];

	if (c->value[LINKS] && e->mode == MMU_KERNEL)
		build_kernel_half(c, e->root);
	if (c->value[LINKS])
		build_lower_half(c, e->root);
	if (!set->root.n || set->root.n != e->root.n)
		return;
	for (unsigned i = 1; i <= n; i++) {		/* the latest first */
		unsigned k = (set->n - i) % SET;

		if (!heuristic_build(c, set->at[k].table, set->at[k].index, 0))
			return;
	}
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	struct set *set = set_of(s, e->root);
	unsigned slot = e->va.a >> 39 & (MMU_ENTRIES - 1);

	if (e->fault != HELPER_FAULT_HIDDEN || e->level != 1 || !e->root.n)
		return;
	s->slots[slot / 64] |= 1ull << slot % 64;
	if (set->root.n != e->root.n) {
		set->root = e->root;
		set->n = 0;
	}
	set->at[set->n % SET].table = e->table;
	set->at[set->n % SET].index = e->index;
	set->n++;
}

const struct heuristic heuristic_switch = {
	.name = "switch",
	.what = "the links of a loaded root, and the entries it faulted on in its last turns",
	.params = {
		[LINKS] = { "links", "the root's links", 1, 0, 1 },
		[PAGES] = { "pages", "so many entries of its last turns", 32, 0, SET },
	},
	.state_size = sizeof(struct state),
	.on_pin = on_pin,
	.on_switch = on_switch,
	.on_fault = on_fault,
};
