/*
 * replicate.c - policy: a page that several nodes read and nobody writes gets a copy on each of them. That nobody writes is
 * known because a watched frame shows its first write. A page whose copies a write ended has to be quiet for longer before it
 * gets copies again, each time; so have its neighbours, for writes that come to any page cannot be learnt page by page.
 */
#include "numa/internal.h"

#define LASTING		8u	/* judge= rounds after which nobody asks for how long copies stay */
#define DOUBLINGS	10u

static unsigned quiet_enough(const uint64_t *value, const struct numa_page *p)
{
	unsigned doublings = p->backoff;

	for (double life = p->life; life < LASTING * value[NUMA_JUDGE] && doublings < DOUBLINGS; life *= 2)
		doublings++;
	return value[NUMA_QUIET] << (doublings < DOUBLINGS ? doublings : DOUBLINGS);
}

/* Over judge= rounds, or as long as copies are expected to live; the end is paid for, too. */
static int64_t gain_of_copies(const uint64_t *value, const struct numa_page *p, uint8_t mask)
{
	double share = p->life < value[NUMA_JUDGE] ? p->life / value[NUMA_JUDGE] : 1;
	double ends = p->life > value[NUMA_JUDGE] ? value[NUMA_JUDGE] / p->life : 1;

	return policy_gain_ns(value, p, mask) * share - p->cost_ns - p->end_ns * ends;
}

enum numa_verdict policy_replicate_page(const uint64_t *value, const struct numa_page *p, struct numa_wish *w)
{
	unsigned all = 0, quiet = quiet_enough(value, p);
	uint8_t users = policy_users(p), mask = users | 1u << p->at;

	for (unsigned i = 0; i < p->nr_places; i++)
		all += p->hits[i];
	if (all < value[NUMA_HOT] * NUMA_SAMPLE)
		return NUMA_UNSURE;
	if (p->writers & (p->writers - 1))
		return NUMA_LEAVE_WRITE_SHARED;
	if (!(users & (users - 1)) || (p->copies & mask) == mask || (!p->copies && p->writers))
		return NUMA_LEAVE;
	if (!p->copies && p->quiet < quiet) {
		w->wait = quiet - p->quiet;
		return NUMA_UNSURE;
	}
	mask |= p->copies;
	*w = (struct numa_wish){ .kind = NUMA_REPLICATE, .node = p->at, .mask = mask, .reason = NUMA_WHY_READ_SHARED };
	w->gain_ns = gain_of_copies(value, p, mask);
	return w->gain_ns > 0 ? NUMA_WANT : NUMA_LEAVE;
}

const struct numa_policy policy_replicate = {
	.name = "replicate",
	.what = "as local; later, pages that several nodes only read get a copy on each, until somebody writes",
	.place = policy_place_first_touch,
	.groups = NUMA_GROUP_MOVES | NUMA_GROUP_SAMPLES | NUMA_GROUP_REPLICATE,
	.page = policy_replicate_page,
};
