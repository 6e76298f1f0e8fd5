/* space.h - the guest's tables as heuristics see them: through heuristic_read(), bounded, nothing trusted. */
#ifndef UMBRA_HELPER_SPACE_H
#define UMBRA_HELPER_SPACE_H

#include "helper/heuristic.h"

#define SPACE_USER_END		0x00007fffffffffffull	/* last address of the lower half */
#define SPACE_KERNEL_SLOT	272u			/* L4 slots from here on are the guest kernel's (xen.h: the hole ends there) */

static inline gfn_t space_frame(uint64_t gpte)
{
	return (gfn_t){ (gpte & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT };
}

/* Where the guest's tables hold the leaf entry of `va`. False: no table for it, or a large page. */
bool space_find(struct heuristic_ctx *c, gfn_t root, gva_t va, gfn_t *table, unsigned *index);

/*
 * Visits the leaf tables below `root` that map the lower half, in order, at most `max` of them, and asks for the links that
 * lead to them. `like` may be another root (or MMU_NO_GFN): `twin` is its leaf table for the same addresses, or
 * MMU_NO_GFN. The visitor returns false to end. Returns how many were visited.
 */
unsigned space_leaf_tables(struct heuristic_ctx *c, gfn_t root, gfn_t like, unsigned max,
			   bool (*visit)(struct heuristic_ctx *c, gfn_t table, gfn_t twin, gva_t base, void *arg), void *arg);

#endif
