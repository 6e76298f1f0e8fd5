/*
 * exec.c - heuristic: a new root whose lower half is almost empty is being prepared for a program: its stack is there, the
 * program is not. The same few addresses fault first in every program started from the same kernel and loader, so what
 * faulted early after the last such starts is remembered by address, and asked for as soon as the guest maps it.
 */
#include "helper/hot.h"

enum { SMALL, EARLY };

struct state {
	struct hot hot;
};

static bool nothing(struct heuristic_ctx *c, gfn_t table, gfn_t twin, gva_t base, void *arg)
{
	return true;
}

static void build_stack(struct heuristic_ctx *c, gfn_t root)
{
	heuristic_tree(c, root, MMU_USER, (gva_t){ 0 }, (gva_t){ SPACE_USER_END }, MMU_PB_TABLES, 64);
}

static void on_pin(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;

	hot_end(&s->hot, e->table);
	if (e->kind != HELPER_PIN || e->level != MMU_LEVELS ||
	    space_leaf_tables(c, e->table, MMU_NO_GFN, c->value[SMALL] + 1, nothing, NULL) > c->value[SMALL])
		return;
	hot_begin(&s->hot, e->table, c->value[EARLY]);
	build_stack(c, e->table);
}

static void on_switch(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;

	if (!hot_is_young(&s->hot, e->root))
		return;
	build_stack(c, e->root);
	hot_build(c, &s->hot, e->root);
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;

	if (hot_learn(&s->hot, e))
		hot_build(c, &s->hot, e->root);
}

const struct heuristic heuristic_exec = {
	.name = "exec",
	.what = "a new, almost empty address space: its stack, and the addresses that programs fault on first",
	.params = {
		[SMALL] = { "small", "at most so many leaf tables are almost empty", 1, 0, 64 },
		[EARLY] = { "early", "so many hidden faults are its early life", 64, 1, 4096 },
	},
	.state_size = sizeof(struct state),
	.on_pin = on_pin,
	.on_switch = on_switch,
	.on_fault = on_fault,
};
