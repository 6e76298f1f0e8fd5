/* space.c - walks over the guest's tables for heuristics. */
#include "helper/space.h"

static bool is_link(uint64_t gpte)
{
	return (gpte & (MMU_PTE_P | MMU_PTE_PS)) == MMU_PTE_P;
}

static unsigned slot(uint64_t va, unsigned level)
{
	return va >> (MMU_PAGE_SHIFT + 9 * (level - 1)) & (MMU_ENTRIES - 1);
}

bool space_find(struct heuristic_ctx *c, gfn_t root, gva_t va, gfn_t *table, unsigned *index)
{
	uint64_t gpte;

	for (unsigned level = MMU_LEVELS; level > 1; level--) {
		if (!heuristic_read(c, root, slot(va.a, level), &gpte) || !is_link(gpte))
			return false;
		root = space_frame(gpte);
	}
	*table = root;
	*index = slot(va.a, 1);
	return true;
}

struct visit {
	struct heuristic_ctx *c;
	unsigned left;		/* leaf tables */
	unsigned tables;	/* upper tables, so that a tree of links to itself has an end */
	bool (*visit)(struct heuristic_ctx *c, gfn_t table, gfn_t twin, gva_t base, void *arg);
	void *arg;
};

static gfn_t twin_of(struct visit *v, gfn_t like, unsigned index)
{
	uint64_t gpte;

	if (like.n == MMU_NO_GFN.n || !heuristic_read(v->c, like, index, &gpte) || !is_link(gpte))
		return MMU_NO_GFN;
	return space_frame(gpte);
}

static bool visit_below(struct visit *v, gfn_t table, gfn_t like, unsigned level, uint64_t base)
{
	unsigned end = level == MMU_LEVELS ? MMU_ENTRIES / 2 : MMU_ENTRIES;
	uint64_t gpte;

	for (unsigned i = 0; i < end; i++) {
		uint64_t va = base + ((uint64_t)i << (MMU_PAGE_SHIFT + 9 * (level - 1)));

		if (!heuristic_read(v->c, table, i, &gpte))
			return true;
		if (!is_link(gpte))
			continue;
		if (!heuristic_build(v->c, table, i, MMU_PB_TABLES))
			return false;
		if (level == 2) {
			if (!v->left || !v->visit(v->c, space_frame(gpte), twin_of(v, like, i), (gva_t){ va }, v->arg))
				return false;
			v->left--;
		} else if (!v->tables-- || !visit_below(v, space_frame(gpte), twin_of(v, like, i), level - 1, va)) {
			return false;
		}
	}
	return true;
}

unsigned space_leaf_tables(struct heuristic_ctx *c, gfn_t root, gfn_t like, unsigned max,
			   bool (*visit)(struct heuristic_ctx *c, gfn_t table, gfn_t twin, gva_t base, void *arg), void *arg)
{
	struct visit v = { .c = c, .left = max, .tables = max + 16, .visit = visit, .arg = arg };

	visit_below(&v, root, like, MMU_LEVELS, 0);
	return max - v.left;
}
