/*
 * gain.c - the distance model: what a page's place costs those that use it. A use that shows stands for weight= accesses
 * to memory, each of which takes local-ns= at distance 10 and in proportion at others, as ACPI defines the distance. That hidden
 * faults, samples as from a TLB, say little about how often the caches missed is known (Verghese et al., ASPLOS 1996): so a
 * move is judged afterwards by what shows then (judge.c).
 */
#include "numa/policy.h"

static unsigned nearest(const struct numa_page *p, unsigned from, uint8_t mask)
{
	unsigned best = ~0u;

	for (unsigned i = 0; i < p->nr_places; i++)
		if (mask >> i & 1 && p->distance[from][i] < best)
			best = p->distance[from][i];
	return best;
}

int64_t policy_gain_ns(const uint64_t *value, const struct numa_page *p, uint8_t mask)
{
	uint8_t now = p->copies ? p->copies : 1u << p->at;
	double seconds = value[NUMA_JUDGE] * value[NUMA_INTERVAL] * 1e-3, saved = 0;

	for (unsigned i = 0; i < p->nr_places; i++)
		saved += p->rate[i] * ((double)nearest(p, i, now) - nearest(p, i, mask));
	return saved / 10 * seconds * value[NUMA_WEIGHT] * value[NUMA_LOCAL_NS];
}

uint8_t policy_users(const struct numa_page *p)
{
	uint8_t users = 0;

	for (unsigned i = 0; i < p->nr_places; i++)
		if (p->hits[i] >= NUMA_SAMPLE / 2)
			users |= 1u << i;
	return users;
}
