/* update.c - heuristic: what the guest just wrote it will soon use. */
#include "helper/heuristic.h"

enum { TABLES, YOUNG };

static void on_update(struct heuristic_ctx *c, const struct helper_event *e)
{
	unsigned flags = (c->value[TABLES] ? MMU_PB_TABLES : 0) | (c->value[YOUNG] ? MMU_PB_YOUNG : 0);

	if (!(e->flags & HELPER_HAS_NEW) || (e->new & MMU_PTE_P))
		heuristic_build(c, e->table, e->index, flags);
}

const struct heuristic heuristic_update = {
	.name = "update",
	.what = "the entry the guest just wrote",
	.params = {
		[TABLES] = { "tables", "make the table that a written link leads to", 1, 0, 1 },
		[YOUNG] = { "young", "entries that were never accessed, too", 0, 0, 1 },
	},
	.on_update = on_update,
};
