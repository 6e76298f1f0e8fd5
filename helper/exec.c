/*
 * exec.c - heuristic: a new root whose lower half is almost empty is being prepared for a program: its stack is there, the
 * program is not. The same few addresses fault first in every program started from the same kernel and loader, so what
 * faulted early after the last such starts is remembered by address, and asked for as soon as the guest maps it.
 */
#include "helper/space.h"

#define HOT	256u		/* addresses remembered; a power of two */
#define MEMBERS	4u		/* roots that are in their early life */

enum { SMALL, EARLY };

struct state {
	struct {
		uint64_t page;	/* + 1, 0: free */
		uint32_t score;	/* faults there, halved when the place is wanted for another */
	} hot[HOT];
	struct {
		gfn_t root;
		unsigned faults_left;
	} young[MEMBERS];
	unsigned next;
};

static unsigned place(uint64_t page)
{
	return page * 0x9e3779b97f4a7c15ull >> 56 & (HOT - 1);
}

static bool nothing(struct heuristic_ctx *c, gfn_t table, gfn_t twin, gva_t base, void *arg)
{
	return true;
}

static void build_hot(struct heuristic_ctx *c, gfn_t root)
{
	struct state *s = c->state;
	gfn_t table;
	unsigned index;

	for (unsigned i = 0; i < HOT; i++)
		if (s->hot[i].score && space_find(c, root, (gva_t){ (s->hot[i].page - 1) << MMU_PAGE_SHIFT }, &table, &index) &&
		    !heuristic_build(c, table, index, MMU_PB_YOUNG))
			return;
}

static void serve(struct heuristic_ctx *c, gfn_t root)
{
	heuristic_tree(c, root, MMU_USER, (gva_t){ 0 }, (gva_t){ SPACE_USER_END }, MMU_PB_TABLES | MMU_PB_YOUNG, 64);
}

static void on_pin(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;

	for (unsigned i = 0; i < MEMBERS; i++)
		if (s->young[i].root.n == e->table.n)
			s->young[i].faults_left = 0;
	if (e->kind != HELPER_PIN || e->level != MMU_LEVELS ||
	    space_leaf_tables(c, e->table, MMU_NO_GFN, c->value[SMALL] + 1, nothing, NULL) > c->value[SMALL])
		return;
	s->young[s->next].root = e->table;
	s->young[s->next].faults_left = c->value[EARLY];
	s->next = (s->next + 1) % MEMBERS;
	serve(c, e->table);
}

static void on_switch(struct heuristic_ctx *c, const struct helper_event *e)
{
	const struct state *s = c->state;

	for (unsigned i = 0; i < MEMBERS; i++)
		if (s->young[i].faults_left && s->young[i].root.n == e->root.n) {
			serve(c, e->root);
			build_hot(c, e->root);
		}
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	uint64_t page = (e->va.a >> MMU_PAGE_SHIFT) + 1;
	unsigned at = place(page);

	if (e->fault != HELPER_FAULT_HIDDEN || e->level != 1 || e->va.a > SPACE_USER_END)
		return;
	for (unsigned i = 0; i < MEMBERS; i++) {
		if (!s->young[i].faults_left || s->young[i].root.n != e->root.n)
			continue;
		s->young[i].faults_left--;
		if (s->hot[at].page == page) {
			s->hot[at].score++;
		} else if (!(s->hot[at].score /= 2)) {
			s->hot[at].page = page;
			s->hot[at].score = 1;
		}
		build_hot(c, e->root);
		return;
	}
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
