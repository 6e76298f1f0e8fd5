/*
 * migrate.c - policy: a page follows the node that uses it. One that several nodes write stays: wherever it stood, most of
 * them would be remote, and it would move back and forth (Disco, SOSP 1997, 5.2).
 */
#include "numa/internal.h"

enum numa_verdict policy_migrate_page(const uint64_t *value, const struct numa_page *p, struct numa_wish *w)
{
	uint8_t users = policy_users(p);
	unsigned best = 0;
	double all = 0;

	for (unsigned i = 0; i < p->nr_places; i++) {
		all += p->rate[i];
		if (p->rate[i] > p->rate[best])
			best = i;
	}
	if (p->copies)
		return NUMA_LEAVE;
	/* Written, and used by several: who else writes may only not have shown yet. */
	if (p->hits[best] < value[NUMA_HOT] * NUMA_SAMPLE << (p->writers && users & (users - 1)))
		return NUMA_UNSURE;
	if (p->writers & (p->writers - 1))
		return NUMA_LEAVE_WRITE_SHARED;
	if (best == p->at || p->rate[best] * 100 < all * value[NUMA_SHARE])
		return NUMA_LEAVE;
	*w = (struct numa_wish){ .kind = NUMA_MIGRATE, .node = best, .mask = 1u << best, .reason = NUMA_WHY_HOT };
	w->gain_ns = policy_gain_ns(value, p, w->mask) - (int64_t)p->cost_ns;
	return w->gain_ns > 0 ? NUMA_WANT : NUMA_LEAVE;
}

const struct numa_policy policy_migrate = {
	.name = "migrate",
	.what = "as local; later, hot pages follow the node that uses them",
	.place = policy_place_first_touch,
	.groups = NUMA_GROUP_MOVES | NUMA_GROUP_SAMPLES | NUMA_GROUP_MIGRATE,
	.page = policy_migrate_page,
};
