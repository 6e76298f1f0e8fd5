/*
 * fork.c - heuristic: a new root with a populated lower half is a forked child. The guest copied the parent's entries with
 * plain stores, before the tables were pinned, so no update told of them: the pin of the root is the first sign, the
 * first load the last moment. The child's entries are those of the parent made read-only; what the parent has accessed
 * (A in its own entry) the child is likely to.
 */
#include "helper/hot.h"

#define NEW_ROOTS	16u

enum { ENTRIES, TABLES, SET, EARLY };
enum { SET_PRESENT, SET_ACCESSED, SET_ALL };

struct new_root {
	gfn_t root, parent;	/* root 0: free. Frame 0 is never a root of Linux; one that is goes unserved */
};

struct state {
	struct new_root roots[NEW_ROOTS];
	unsigned next;
	gfn_t running;		/* the kernel root loaded last: the parent of what is pinned now */
	struct hot hot;		/* what children fault on all the same */
};

struct pass {
	unsigned left;
	bool accessed;
};

static bool fill(struct heuristic_ctx *c, gfn_t table, gfn_t twin, gva_t base, void *arg)
{
	struct pass *p = arg;
	uint64_t gpte, parents;

	for (unsigned i = 0; i < MMU_ENTRIES; i++) {
		if (!heuristic_read(c, table, i, &gpte))
			return true;
		if (!(gpte & MMU_PTE_P))
			continue;
		if (p->accessed && !(gpte & MMU_PTE_A) &&
		    (twin.n == MMU_NO_GFN.n || !heuristic_read(c, twin, i, &parents) ||
		     (parents & (MMU_PTE_P | MMU_PTE_A)) != (MMU_PTE_P | MMU_PTE_A)))
			continue;
		if (!p->left-- || !heuristic_build(c, table, i, MMU_PB_YOUNG))
			return false;
	}
	return true;
}

static void serve(struct heuristic_ctx *c, gfn_t root, gfn_t parent)
{
	struct pass p = { .left = c->value[ENTRIES], .accessed = c->value[SET] == SET_ACCESSED };

	if (c->value[SET] == SET_PRESENT) {
		if (parent.n != MMU_NO_GFN.n)
			heuristic_clone(c, root, parent, (gva_t){ 0 }, (gva_t){ SPACE_USER_END }, MMU_PB_TABLES | MMU_PB_YOUNG,
					c->value[ENTRIES]);
		return;
	}
	space_leaf_tables(c, root, parent, c->value[TABLES], fill, &p);
}

static struct new_root *find(struct state *s, gfn_t root)
{
	for (unsigned i = 0; i < NEW_ROOTS; i++)
		if (s->roots[i].root.n == root.n)
			return &s->roots[i];
	return NULL;
}

static void on_pin(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	struct new_root *r = find(s, e->table);

	if (r && e->kind == HELPER_UNPIN)
		r->root.n = 0;
	hot_end(&s->hot, e->table);
	if (e->kind != HELPER_PIN || e->level != MMU_LEVELS || !e->table.n)
		return;
	if (!r)
		r = &s->roots[s->next++ % NEW_ROOTS];
	*r = (struct new_root){ e->table, s->running };
	hot_begin(&s->hot, e->table, c->value[EARLY]);
	serve(c, r->root, r->parent);
}

/* Before its first load a root need not have a shadow, so the pin may have come to nothing. */
static void on_switch(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	struct new_root *r = e->root.n ? find(s, e->root) : NULL;

	if (e->mode == MMU_KERNEL)
		s->running = e->root;
	if (!r)
		return;
	serve(c, r->root, r->parent);
	hot_build(c, &s->hot, r->root);
	r->root.n = 0;
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;

	hot_learn(&s->hot, e);
}

static int init(struct heuristic_ctx *c)
{
	struct state *s = c->state;

	s->running = MMU_NO_GFN;
	return 0;
}

const struct heuristic heuristic_fork = {
	.name = "fork",
	.what = "what a new address space maps when it is pinned and first loaded: a forked child's copy of its parent",
	.params = {
		[ENTRIES] = { "entries", "at most so many pages of a child", 512, 1, 65536 },
		[TABLES] = { "tables", "... from so many leaf tables", 32, 1, 1024 },
		[SET] = { "set", "0: what the parent's shadow shows, 1: what the parent has accessed, 2: all", 0, 0, 2 },
		[EARLY] = { "early", "so many hidden faults of a child tell what the next one will want", 16, 0, 4096 },
	},
	.state_size = sizeof(struct state),
	.init = init,
	.on_pin = on_pin,
	.on_switch = on_switch,
	.on_fault = on_fault,
};
