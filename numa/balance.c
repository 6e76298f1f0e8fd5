/*
 * balance.c - policy: a vCPU that shares a processor with others on its node goes to one that has a processor free, and the
 * pages it used follow as migrate has it, the most used first. A node whose memory is nearly full gives up frames that nobody
 * was seen to use.
 */
#include <string.h>

#include "numa/internal.h"

#define BUSY		100u	/* thousandths of a processor below which a vCPU counts as idle */
#define SETTLE_ROUNDS	20u	/* between two vCPU moves, for their load to show */

struct load {
	unsigned busy, sum;		/* vCPUs with something to do; thousandths of a processor */
};

static void measure(struct numa_manager *m, struct load load[NUMA_MAX_PLACES], uint8_t at[NUMA_MAX_VCPUS])
{
	memset(load, 0, NUMA_MAX_PLACES * sizeof *load);
	for (unsigned v = 0; v < m->machine.nr_vcpus; v++) {
		at[v] = m->machine.ops->vcpu_node(m->machine.arg, v);
		if (at[v] >= m->machine.nr_places)
			continue;
		load[at[v]].busy += m->budget.load[v] >= BUSY;
		load[at[v]].sum += m->budget.load[v];
	}
}

static bool crowded(const struct numa_manager *m, const struct load *l, unsigned place)
{
	unsigned cpus = m->machine.cpus[place];

	return l->busy > cpus && l->sum * 100ull >= 1000ull * cpus * m->value[NUMA_LOAD];
}

/* The nearest node with a processor to spare; of several the one with most of them. -1: none. */
static int where_to(const struct numa_manager *m, const struct load *load, unsigned from)
{
	int best = -1;

	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		unsigned d = m->machine.distance[from][i];

		if (i == from || load[i].busy >= m->machine.cpus[i])
			continue;
		if (best < 0 || d < m->machine.distance[from][best] ||
		    (d == m->machine.distance[from][best] &&
		     m->machine.cpus[i] - load[i].busy > m->machine.cpus[best] - load[best].busy))
			best = i;
	}
	return best;
}

/* Of the busy ones there, the one that has least of what it uses there. */
static int who_goes(const struct numa_manager *m, const uint8_t *at, unsigned from)
{
	double least = 2;
	int best = -1;

	for (unsigned v = 0; v < m->machine.nr_vcpus; v++) {
		uint64_t local = atomic_load_explicit(&m->vcpus[v].local, memory_order_relaxed);
		uint64_t all = local + atomic_load_explicit(&m->vcpus[v].remote, memory_order_relaxed);
		double share = all ? (double)local / all : 1;

		if (at[v] == from && m->budget.load[v] >= BUSY && share < least) {
			least = share;
			best = v;
		}
	}
	return best;
}

/* Looks again at what was used from node `from`, the most used first: some of it is used from elsewhere now. */
static void pages_follow(struct numa_manager *m, unsigned from)
{
	static const unsigned levels[] = { 8 * NUMA_SAMPLE, 2 * NUMA_SAMPLE, NUMA_SAMPLE / 2 };
	unsigned room = FOCUS - m->focus_n, above = ~0u;

	for (unsigned l = 0; l < sizeof levels / sizeof *levels; l++) {
		for (uint64_t g = 0; g < m->machine.nr_gfns && room; g++) {
			unsigned hits = m->hits[g * m->machine.nr_places + from].n ? heat_hits(m, g)[from].n : 0;

			if (hits < levels[l] || hits >= above || m->frames[g].focus)
				continue;
			scan_focus(m, g, true);
			room--;
		}
		above = levels[l];
	}
}

static void balance_vcpus(struct numa_manager *m)
{
	struct load load[NUMA_MAX_PLACES];
	uint8_t at[NUMA_MAX_VCPUS];

	if (m->round < m->balance_next)
		return;
	measure(m, load, at);
	for (unsigned from = 0; from < m->machine.nr_places; from++) {
		struct numa_decision why = { .reason = NUMA_WHY_CPU_LOAD };
		int to, v;

		if (!crowded(m, &load[from], from))
			continue;
		to = where_to(m, load, from);
		v = who_goes(m, at, from);
		if (to < 0 || v < 0)
			continue;
		m->balance_next = m->round + SETTLE_ROUNDS;
		if (!act_move_vcpu(m, v, to, &why))
			pages_follow(m, from);
		return;
	}
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static uint64_t reserve(const struct numa_manager *m, unsigned place)
{
	return m->machine.bytes[place] / 100 * m->value[NUMA_RESERVE];
}

/* Watched for so long without a sign of use that it is cold. */
static bool cold(const struct numa_manager *m, uint64_t gfn)
{
	const struct frame *f = &m->frames[gfn];

	return f->looked > f->used && m->round - f->looked >= m->value[NUMA_HALF] && m->round >= f->frozen && !f->copies;
}

/* Watches some that nobody was seen to use, to find out which are cold. */
static void look_for_cold(struct numa_manager *m, unsigned from)
{
	unsigned most = budget_frames_to_watch(m), n = 0, k = 0;
	uint64_t gfns[NUMA_MAX_BATCH];
	uint8_t at[NUMA_MAX_BATCH];

	if (most > NUMA_MAX_BATCH)
		most = NUMA_MAX_BATCH;
	for (uint64_t seen = 0; seen < m->machine.nr_gfns && n < most; seen++) {
		m->room_at = (m->room_at + 1) % m->machine.nr_gfns;
		if (m->frames[m->room_at].looked <= m->frames[m->room_at].used)
			gfns[n++] = m->room_at;
	}
	m->machine.ops->frame_nodes(m->machine.arg, gfns, n, at);
	for (unsigned i = 0; i < n; i++)
		if (at[i] == from)
			gfns[k++] = gfns[i];
	scan_watch(m, gfns, k);
}

static void make_room(struct numa_manager *m, unsigned from, unsigned to)
{
	uint64_t gfns[NUMA_MAX_BATCH];
	unsigned left = NUMA_MAX_BATCH, n = 0;
	uint8_t at[NUMA_MAX_BATCH];

	for (uint64_t g = 0; g < m->machine.nr_gfns && left; g++) {
		if (cold(m, g))
			gfns[n++] = g;
		if (n < NUMA_MAX_BATCH && g + 1 < m->machine.nr_gfns)
			continue;
		m->machine.ops->frame_nodes(m->machine.arg, gfns, n, at);
		for (unsigned i = 0; i < n && left; i++) {
			struct wish wish = { .gfn = gfns[i], .at = from, .w = { .kind = NUMA_MIGRATE, .node = to, .mask = 1u << to,
										.reason = NUMA_WHY_MEMORY } };

			if (at[i] != from)
				continue;
			act_want(m, &wish);
			left--;
		}
		n = 0;
	}
}

static void balance_memory(struct numa_manager *m)
{
	uint64_t free_bytes[NUMA_MAX_PLACES];
	unsigned n = m->machine.nr_places, roomy = 0;

	for (unsigned i = 0; i < n; i++) {
		free_bytes[i] = m->machine.ops->node_free(m->machine.arg, i);
		if (free_bytes[i] > free_bytes[roomy])
			roomy = i;
	}
	/* Twice the reserve, or the frames would soon have to go back. */
	for (unsigned i = 0; i < n; i++)
		if (free_bytes[i] < reserve(m, i) && free_bytes[roomy] > 2 * reserve(m, roomy)) {
			make_room(m, i, roomy);
			look_for_cold(m, i);
		}
}

void policy_balance_round(struct numa_manager *m)
{
	balance_vcpus(m);
	if (m->round % 8 == 0)
		balance_memory(m);
}

const struct numa_policy policy_balance = {
	.name = "balance",
	.what = "as migrate; vCPUs leave nodes with too few processors for them, and cold pages nodes with too little memory",
	.place = policy_place_first_touch,
	.groups = NUMA_GROUP_MOVES | NUMA_GROUP_SAMPLES | NUMA_GROUP_MIGRATE | NUMA_GROUP_BALANCE,
	.page = policy_migrate_page,
	.round = policy_balance_round,
};
