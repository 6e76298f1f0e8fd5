/*
 * random.c - no policy but a test of everything else: moves, copies, collapses and watches frames at random, and moves vCPUs,
 * so that whatever may go wrong by a move at a bad moment does.
 */
#include "numa/internal.h"

static uint64_t next(struct numa_manager *m)
{
	uint64_t *r = &m->random;

	if (!*r)
		*r = m->value[NUMA_SEED] * 2 + 1;
	*r ^= *r << 13;			/* xorshift64, Marsaglia 2003 */
	*r ^= *r >> 7;
	*r ^= *r << 17;
	return *r;
}

static struct wish any_move(struct numa_manager *m)
{
	uint64_t r = next(m), gfn = next(m) % m->machine.nr_gfns;
	struct wish wish = { .gfn = gfn, .at = NUMA_NOWHERE,
			     .w = { .reason = NUMA_WHY_RANDOM, .node = (r >> 8) % m->machine.nr_places } };

	switch (r & 7) {
	default:
		wish.w.kind = NUMA_MIGRATE;
		break;
	case 4:
	case 5:
		wish.w.kind = NUMA_REPLICATE;
		wish.w.mask = (1u << m->machine.nr_places) - 1;
		wish.w.node = 0;
		break;
	case 6:
		wish.w.kind = NUMA_COLLAPSE;
		wish.w.node = 0;
		break;
	case 7:
		wish.w.kind = NUMA_HOME;
		wish.w.node = 0;
	}
	return wish;
}

static void act_at_random(struct numa_manager *m)
{
	const struct numa_decision why = { .reason = NUMA_WHY_RANDOM };
	uint64_t gfns[NUMA_MAX_BATCH];

	for (unsigned left = budget_frames_to_move(m); left; left--) {
		struct wish wish = any_move(m);

		if (!act_want(m, &wish))
			break;
	}
	for (uint64_t left = m->value[NUMA_SCAN]; left;) {
		unsigned n = left < NUMA_MAX_BATCH ? left : NUMA_MAX_BATCH;

		for (unsigned i = 0; i < n; i++)
			gfns[i] = next(m) % m->machine.nr_gfns;
		scan_watch(m, gfns, n);
		left -= n;
	}
	if (m->value[NUMA_VCPUS] && !(next(m) & 7))
		act_move_vcpu(m, next(m) % m->machine.nr_vcpus, next(m) % m->machine.nr_places, &why);
}

const struct numa_policy policy_random = {
	.name = "random",
	.what = "as local; later, frames are moved, copied and watched at random: a test of the rest, not a policy",
	.place = policy_place_first_touch,
	.groups = NUMA_GROUP_MOVES | NUMA_GROUP_RANDOM,
	.round = act_at_random,
};
