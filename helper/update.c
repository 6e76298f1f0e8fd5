/* update.c - heuristic: what the guest just wrote it will soon use. */
#include "helper/heuristic.h"

static void on_update(struct heuristic_ctx *c, const struct helper_event *e)
{
	heuristic_build(c, e->table, e->index, MMU_PB_TABLES | MMU_PB_SAMPLE);
}

const struct heuristic heuristic_update = {
	.name = "update",
	.what = "the entry the guest just wrote",
	.on_update = on_update,
};
