/* auto.c - policy: all of it, and what does not pay is undone. */
#include "numa/internal.h"

static enum numa_verdict page(const uint64_t *value, const struct numa_page *p, struct numa_wish *w)
{
	enum numa_verdict v = policy_replicate_page(value, p, w);

	/* One node's page may have a better place, whether it is written or not. */
	return v == NUMA_LEAVE ? policy_migrate_page(value, p, w) : v;
}

const struct numa_policy policy_auto = {
	.name = "auto",
	.what = "migrate, replicate and balance; what does not pay is undone, and all of it rests while nothing pays",
	.place = policy_place_first_touch,
	.groups = NUMA_GROUP_MOVES | NUMA_GROUP_SAMPLES | NUMA_GROUP_MIGRATE | NUMA_GROUP_REPLICATE | NUMA_GROUP_BALANCE | NUMA_GROUP_UNDO,
	.page = page,
	.round = policy_balance_round,
};
