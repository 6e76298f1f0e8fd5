/*
 * heat.c - who uses what: what vCPU threads note without waiting, and the manager's books of it.
 *
 * Everything shared is a relaxed atomic. A note says who used the frame, then marks it; the manager unmarks it, then takes what
 * was said. A note in between is found with the frame's next one: late, not lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numa/internal.h"

#define LONGEST_US	10000000u
#define SHORTEST_US	20u	/* less than a kick takes */
#define FAULTS_PER_NODE	4u	/* a read and a write, through the guest kernel's address and a user's */
#define SETTLED_ROUNDS	8u
#define SETTLED_MAX	5u	/* doublings */

static uint64_t words(const struct numa_manager *m)
{
	return (m->machine.nr_gfns + 63) / 64;
}

/* Zeroes that take no memory until they are touched, which most are never. */
int heat_create(struct numa_manager *m)
{
	uint64_t n = m->machine.nr_gfns, places = m->machine.nr_places;
	struct heat *h;

	if (atomic_load_explicit(&m->heat, memory_order_relaxed))
		return 0;
	h = calloc(1, sizeof *h);
	if (!h)
		return -ENOMEM;
	h->answered = calloc(n, 1);
	h->answer = calloc(n * places, sizeof *h->answer);
	h->who = calloc(n * places, 1);
	m->ran_us = calloc(CALLS, sizeof *m->ran_us);
	h->used = calloc(n, 1);
	h->wrote = calloc(n, 1);
	h->disturbed = calloc(n, 1);
	h->stands = calloc(n, 1);
	h->touched = calloc(words(m), 8);
	h->summary = calloc((words(m) + 63) / 64, 8);
	h->collapsed = calloc(words(m), 8);
	m->frames = calloc(n, sizeof *m->frames);
	m->hits = calloc(n * places, sizeof *m->hits);
	m->nr_regions = (n + REGION_FRAMES - 1) / REGION_FRAMES;
	m->regions = calloc(m->nr_regions, sizeof *m->regions);
	atomic_store_explicit(&m->heat, h, memory_order_release);
	if (h->answered && h->answer && h->who && m->ran_us && h->used && h->wrote && h->disturbed && h->stands && h->touched &&
	    h->summary && h->collapsed && m->frames && m->hits && m->regions)
		return 0;
	heat_destroy(m);
	return -ENOMEM;
}

void heat_destroy(struct numa_manager *m)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_relaxed);

	if (!h)
		return;
	free(h->answered);
	free(h->answer);
	free(h->who);
	free(m->ran_us);
	free(h->used);
	free(h->wrote);
	free(h->disturbed);
	free(h->stands);
	free(h->touched);
	free(h->summary);
	free(h->collapsed);
	free(h);
	free(m->frames);
	free(m->hits);
	free(m->regions);
	atomic_store_explicit(&m->heat, NULL, memory_order_relaxed);
	m->frames = NULL;
	m->hits = NULL;
	m->regions = NULL;
}

static void mark(_Atomic uint64_t *bits, uint64_t i)
{
	uint64_t bit = 1ull << i % 64;

	if (!(atomic_load_explicit(&bits[i / 64], memory_order_relaxed) & bit))
		atomic_fetch_or_explicit(&bits[i / 64], bit, memory_order_relaxed);
}

static void bump(_Atomic uint64_t *counter)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

/* Comes round in 71 minutes. */
static uint32_t ran_us(const struct numa_manager *m, unsigned vcpu)
{
	return m->machine.ops->vcpu_busy_ns(m->machine.arg, vcpu) / 1000;
}

/* What a vCPU ran from call `asked` on until it had run `us` in all. Answers may come before the call is over. */
static uint32_t delay_of(const struct numa_manager *m, uint32_t asked, unsigned vcpu, uint32_t us)
{
	int32_t d;

	if (m->calls - asked >= CALLS)
		return LONGEST_US;
	d = us - m->ran_us[asked % CALLS][vcpu];
	return d < 0 ? 0 : (uint32_t)d < LONGEST_US ? (uint32_t)d : LONGEST_US;
}

void numa_note(struct numa_manager *m, unsigned vcpu, uint64_t gfn, unsigned node, bool write, bool watched)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_acquire);
	uint8_t stands, left, bit = 1u << node;
	bool news;

	if (!h || gfn >= m->machine.nr_gfns || node >= m->machine.nr_places || vcpu >= m->machine.nr_vcpus)
		return;
	news = !(atomic_load_explicit(&h->answered[gfn], memory_order_relaxed) & bit);
	if (news) {
		uint64_t at = gfn * m->machine.nr_places + node;

		atomic_store_explicit(&h->answer[at], ran_us(m, vcpu), memory_order_relaxed);
		atomic_store_explicit(&h->who[at], vcpu, memory_order_relaxed);
		atomic_fetch_or_explicit(&h->answered[gfn], bit, memory_order_relaxed);
		atomic_fetch_or_explicit(&h->used[gfn], bit, memory_order_release);	/* the answer first */
	}
	if (write && !(atomic_load_explicit(&h->wrote[gfn], memory_order_relaxed) & bit)) {
		atomic_fetch_or_explicit(&h->wrote[gfn], bit, memory_order_relaxed);
		news = true;
	}
	if (news) {
		mark(h->touched, gfn);
		mark(h->summary, gfn / 64);
	}

	stands = atomic_load_explicit(&h->stands[gfn], memory_order_relaxed);
	if (stands)
		bump(stands >> node & 1 ? &m->vcpus[vcpu].local : &m->vcpus[vcpu].remote);
	left = atomic_load_explicit(&h->disturbed[gfn], memory_order_relaxed);
	if (left)
		atomic_store_explicit(&h->disturbed[gfn], left - 1, memory_order_relaxed);
	if (left || watched)
		bump(&m->vcpus[vcpu].caused);
}

void numa_note_collapsed(struct numa_manager *m, uint64_t gfn)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_acquire);

	if (!h || gfn >= m->machine.nr_gfns)
		return;
	/* The write, and who has it mapped again: all of it because there were copies. */
	atomic_store_explicit(&h->disturbed[gfn], FAULTS_PER_NODE * m->machine.nr_places, memory_order_relaxed);
	mark(h->collapsed, gfn);
	mark(h->touched, gfn);
	mark(h->summary, gfn / 64);
}

void heat_stands(struct numa_manager *m, uint64_t gfn, uint8_t mask)
{
	atomic_store_explicit(&atomic_load_explicit(&m->heat, memory_order_relaxed)->stands[gfn], mask, memory_order_relaxed);
}

static void add_time(struct hits *h, uint32_t delay)
{
	h->time += ((float)delay + SHORTEST_US) * NUMA_SAMPLE;
}

void heat_disturb(struct numa_manager *m, uint64_t gfn)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_relaxed);
	uint8_t answered = atomic_load_explicit(&h->answered[gfn], memory_order_relaxed);
	struct hits *hits = heat_hits(m, gfn);
	struct frame *f = &m->frames[gfn];
	uint32_t waited[NUMA_MAX_PLACES] = { 0 };

	/* Nodes that did not answer did not use it for all that time: the rate of censored exponential delays is events by time. */
	for (unsigned v = 0; f->asked && v < m->machine.nr_vcpus; v++) {
		unsigned at = m->machine.ops->vcpu_node(m->machine.arg, v);
		uint32_t us = delay_of(m, f->asked, v, m->budget.busy_ns[v] / 1000);

		if (at < m->machine.nr_places && us > waited[at])
			waited[at] = us;
	}
	for (unsigned i = 0; i < m->machine.nr_places; i++)
		if (waited[i] && !(answered >> i & 1))
			add_time(&hits[i], waited[i]);
	f->asked = m->calls + 1;
	atomic_store_explicit(&h->answered[gfn], 0, memory_order_relaxed);
	atomic_store_explicit(&h->disturbed[gfn], FAULTS_PER_NODE * m->machine.nr_places, memory_order_relaxed);
	m->budget.disturbed++;
}

void heat_asked(struct numa_manager *m)
{
	m->calls++;
	for (unsigned v = 0; v < m->machine.nr_vcpus; v++)
		m->ran_us[m->calls % CALLS][v] = ran_us(m, v);
}

void heat_clear(struct numa_manager *m, uint64_t gfn)
{
	memset(&m->hits[gfn * m->machine.nr_places], 0, m->machine.nr_places * sizeof *m->hits);
}

struct hits *heat_hits(struct numa_manager *m, uint64_t gfn)
{
	struct hits *hits = &m->hits[gfn * m->machine.nr_places];
	struct frame *f = &m->frames[gfn];
	uint32_t halvings = (m->round - f->stamp) / m->value[NUMA_HALF];

	if (!halvings)
		return hits;
	f->stamp += halvings * m->value[NUMA_HALF];
	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		hits[i].n = halvings < 32 ? hits[i].n >> halvings : 0;
		hits[i].time = halvings < 32 ? hits[i].time / (1u << halvings) : 0;
	}
	f->writers_before = halvings == 1 ? f->writers : 0;
	f->writers = 0;
	return hits;
}

/* Nothing to be done, so no more faults are spent on it for a while: twice as long each time. */
static void settle(struct numa_manager *m, struct frame *f)
{
	f->frozen = m->round + (SETTLED_ROUNDS << f->settled);
	f->settled += f->settled < SETTLED_MAX;
}

/*
 * Looked at again before the others: frames that are used from elsewhere more than is usual. Once these are where they belong
 * others are unusual. While there is time for all, all are.
 */
static bool worth_a_look(struct numa_manager *m, const struct numa_page *p)
{
	double far = 0;

	for (unsigned i = 0; i < p->nr_places; i++)
		if (!((p->copies | 1u << p->at) >> i & 1))
			far += p->rate[i];
	m->far_rate += (far - m->far_rate) / 64;
	return m->focus_n < m->focus_max / 4 || far >= m->far_rate;
}

/* Whether it wants anything. */
static bool ask_policy(struct numa_manager *m, uint64_t gfn, uint8_t at, const struct hits *hits, bool remote)
{
	struct frame *f = &m->frames[gfn];
	struct numa_page p = {
		.gfn = gfn, .nr_places = m->machine.nr_places, .distance = m->machine.distance, .at = at, .copies = f->copies,
		.writers = f->writers | f->writers_before, .backoff = f->backoff,
		.quiet = f->watched ? m->round - f->watched : 0, .cost_ns = budget_move_ns(m), .end_ns = budget_end_ns(m),
		.life = act_copy_life(m, gfn),
	};
	struct wish wish = { .gfn = gfn, .at = at, .writers = p.writers };
	bool wants = false;

	for (unsigned i = 0; i < p.nr_places; i++) {
		p.hits[i] = hits[i].n;
		p.rate[i] = heat_rate(&hits[i]) * m->node_load[i];
	}
	switch (m->config.policy->page(m->value, &p, &wish.w)) {
	case NUMA_LEAVE_WRITE_SHARED:
		manager_count(&m->stats.write_shared, 1);
		settle(m, f);
		break;
	case NUMA_LEAVE:
		if (remote)
			settle(m, f);
		break;
	case NUMA_UNSURE:
		if (!remote)
			break;
		f->frozen = m->round + wish.w.wait;
		if (worth_a_look(m, &p))
			scan_focus(m, gfn, false);
		break;
	case NUMA_WANT:
		if (wish.w.kind == NUMA_REPLICATE && !worth_a_look(m, &p))
			break;
		wants = true;
		f->settled = 0;
		memcpy(wish.hits, hits, m->machine.nr_places * sizeof *hits);
		act_want(m, &wish);
		break;
	}
	return wants;
}

/* Books what is fresh of one frame that stands on node `at`. */
static void take_in(struct numa_manager *m, struct heat *h, uint64_t gfn, uint8_t at)
{
	struct frame *f = &m->frames[gfn];
	struct hits *hits = heat_hits(m, gfn);
	uint8_t used = atomic_exchange_explicit(&h->used[gfn], 0, memory_order_acquire);
	uint8_t wrote = atomic_exchange_explicit(&h->wrote[gfn], 0, memory_order_relaxed);
	uint8_t mask = f->copies ? f->copies : 1u << at;
	uint64_t slot = gfn * m->machine.nr_places;
	bool remote = false, wants = false;

	heat_stands(m, gfn, mask);
	f->used = m->round;
	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		unsigned distance;

		if (!(used >> i & 1))
			continue;
		if (f->asked) {		/* else it says that, not how often */
			hits[i].n += NUMA_SAMPLE;
			add_time(&hits[i], delay_of(m, f->asked, atomic_load_explicit(&h->who[slot + i], memory_order_relaxed),
					    atomic_load_explicit(&h->answer[slot + i], memory_order_relaxed)));
		}
		distance = manager_distance(m, i, mask);
		manager_count(&m->stats.samples, 1);
		manager_count(mask >> i & 1 ? &m->stats.samples_local : &m->stats.samples_remote, 1);
		manager_count(&m->stats.samples_distance, distance);
		manager_count(&m->stats.recent, 1);
		if (mask >> i & 1)
			manager_count(&m->stats.recent_local, 1);
		else
			remote = true;
	}
	if (wrote) {
		manager_count(&m->stats.samples_write, 1);
		f->writers |= wrote;
		f->watched = 0;		/* a write ends the watch */
	}
	if (m->config.policy && m->config.policy->page && m->round >= f->frozen)
		wants = ask_policy(m, gfn, at, hits, remote);
	scan_saw(m, gfn, remote, wants);
}

static void take_in_all(struct numa_manager *m, struct heat *h, const uint64_t *gfns, unsigned n)
{
	uint8_t nodes[64];

	m->machine.ops->frame_nodes(m->machine.arg, gfns, n, nodes);
	for (unsigned i = 0; i < n; i++) {
		uint64_t bit = 1ull << gfns[i] % 64;

		if (atomic_load_explicit(&h->collapsed[gfns[i] / 64], memory_order_relaxed) & bit) {
			atomic_fetch_and_explicit(&h->collapsed[gfns[i] / 64], ~bit, memory_order_relaxed);
			act_collapsed(m, gfns[i]);
		}
		if (nodes[i] < m->machine.nr_places)
			take_in(m, h, gfns[i], nodes[i]);
	}
}

/* Samples of late: those of half= rounds ago count half. */
static void age_recent(struct numa_manager *m)
{
	if (m->round % m->value[NUMA_HALF])
		return;
	manager_count(&m->stats.recent, -(int64_t)(m->stats.recent / 2));
	manager_count(&m->stats.recent_local, -(int64_t)(m->stats.recent_local / 2));
}

void heat_collect(struct numa_manager *m)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_relaxed);
	uint64_t gfns[64];

	age_recent(m);
	for (uint64_t s = 0; s < (words(m) + 63) / 64; s++) {
		uint64_t marked = atomic_load_explicit(&h->summary[s], memory_order_relaxed);

		if (marked)
			marked = atomic_exchange_explicit(&h->summary[s], 0, memory_order_relaxed);
		for (; marked; marked &= marked - 1) {
			uint64_t w = s * 64 + __builtin_ctzll(marked);
			uint64_t bits = atomic_exchange_explicit(&h->touched[w], 0, memory_order_relaxed);
			unsigned n = 0;

			for (; bits; bits &= bits - 1)
				gfns[n++] = w * 64 + __builtin_ctzll(bits);
			if (n)
				take_in_all(m, h, gfns, n);
		}
	}
}

void heat_forget(struct numa_manager *m)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_relaxed);

	if (!h)
		return;
	for (uint64_t i = 0; i < m->machine.nr_gfns; i++) {
		atomic_store_explicit(&h->answered[i], 0, memory_order_relaxed);
		atomic_store_explicit(&h->used[i], 0, memory_order_relaxed);
		atomic_store_explicit(&h->wrote[i], 0, memory_order_relaxed);
		atomic_store_explicit(&h->disturbed[i], 0, memory_order_relaxed);
		atomic_store_explicit(&h->stands[i], 0, memory_order_relaxed);
	}
	for (uint64_t i = 0; i < words(m); i++) {
		atomic_store_explicit(&h->touched[i], 0, memory_order_relaxed);
		atomic_store_explicit(&h->collapsed[i], 0, memory_order_relaxed);
	}
	memset(m->frames, 0, m->machine.nr_gfns * sizeof *m->frames);
	memset(m->hits, 0, m->machine.nr_gfns * m->machine.nr_places * sizeof *m->hits);
	memset(m->regions, 0, m->nr_regions * sizeof *m->regions);
}
