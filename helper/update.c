/* update.c - heuristic: what the guest just wrote it will soon use. */
#include "helper/heuristic.h"

static void on_update(struct heuristic_ctx *c, gfn_t table, unsigned index)
{
	heuristic_build(c, table, index);
}

const struct heuristic heuristic_update = {
	.name = "update",
	.what = "the entry the guest just wrote",
	.on_update = on_update,
};
