/*
 * switch.c - heuristic: a root that is loaded will use what it used before. Every new root lacks the links of its kernel
 * half, though the tables below exist; and what a root faulted on in its last turn it lost since, by reclaim or an update,
 * and will want again.
 */
#include <string.h>

#include "helper/space.h"

#define ROOTS	64u		/* a power of two */
#define SET	64u

enum { KERNEL, PAGES };

struct set {
	gfn_t root;		/* 0: free */
	unsigned n;		/* entries ever remembered; the last SET of them are there */
	struct { gfn_t table; uint16_t index; } at[SET];
};

struct state {
	struct set sets[ROOTS];
};

static struct set *set_of(struct state *s, gfn_t root)
{
	return &s->sets[root.n * 0x9e3779b97f4a7c15ull >> 58 & (ROOTS - 1)];
}

static void on_pin(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct set *set = set_of(c->state, e->table);

	if (set->root.n == e->table.n)
		set->root.n = 0;
	if (e->kind == HELPER_PIN && e->level == MMU_LEVELS && c->value[KERNEL])
		space_build_kernel_half(c, e->table);
}

static void on_switch(struct heuristic_ctx *c, const struct helper_event *e)
{
	const struct set *set = set_of(c->state, e->root);
	unsigned n = set->n < c->value[PAGES] ? set->n : c->value[PAGES];

	if (c->value[KERNEL] && e->mode == MMU_KERNEL)
		space_build_kernel_half(c, e->root);
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
	struct set *set = set_of(c->state, e->root);

	if (e->fault != HELPER_FAULT_HIDDEN || e->level != 1 || !e->root.n)
		return;
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
	.what = "the links of a loaded root's kernel half, and the entries it faulted on in its last turns",
	.params = {
		[KERNEL] = { "kernel", "the kernel half's links", 1, 0, 1 },
		[PAGES] = { "pages", "so many entries of its last turns", 32, 0, SET },
	},
	.state_size = sizeof(struct state),
	.on_pin = on_pin,
	.on_switch = on_switch,
	.on_fault = on_fault,
};
