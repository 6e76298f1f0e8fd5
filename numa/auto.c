/* auto.c - policy: all of it, and what does not pay is undone. */
#include "numa/internal.h"

static bool one_users(const uint64_t *value, const struct numa_page *p)
{
	double all = 0, most = 0;

	for (unsigned i = 0; i < p->nr_places; i++) {
		all += p->rate[i];
		if (p->rate[i] > most)
			most = p->rate[i];
	}
	return most * 100 >= all * value[NUMA_SHARE];
}

static enum numa_verdict page(const uint64_t *value, const struct numa_page *p, struct numa_wish *w)
{
	enum numa_verdict moved = policy_migrate_page(value, p, w), copied;
	struct numa_wish copy = { 0 };

	/* What one node uses gets no copies for the few uses of others: it goes there, once that is sure. */
	if (moved == NUMA_WANT || (moved == NUMA_UNSURE && one_users(value, p)))
		return moved;
	copied = policy_replicate_page(value, p, &copy);
	if (copied != NUMA_LEAVE)
		*w = copy;
	return copied == NUMA_LEAVE ? moved : copied;
}

const struct numa_policy policy_auto = {
	.name = "auto",
	.what = "migrate, replicate and balance; what does not pay is undone, and all of it rests while nothing pays",
	.place = policy_place_first_touch,
	.groups = NUMA_GROUP_MOVES | NUMA_GROUP_SAMPLES | NUMA_GROUP_MIGRATE | NUMA_GROUP_REPLICATE | NUMA_GROUP_BALANCE | NUMA_GROUP_UNDO,
	.page = page,
	.round = policy_balance_round,
};
