/*
 * heat.c - who uses what: counters that vCPU threads bump without waiting, and the manager's books of them.
 *
 * Everything shared is a relaxed atomic. A note bumps its counter, then marks the frame; the manager unmarks, then takes the
 * counter. A note in between is found with the frame's next one: late, not lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numa/internal.h"

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
	h->fresh = calloc(n, places);
	h->wrote = calloc(n, 1);
	h->stands = calloc(n, 1);
	h->touched = calloc(words(m), 8);
	h->summary = calloc((words(m) + 63) / 64, 8);
	h->collapsed = calloc(words(m), 8);
	m->frames = calloc(n, sizeof *m->frames);
	m->hits = calloc(n * places, sizeof *m->hits);
	m->nr_regions = (n + REGION_FRAMES - 1) / REGION_FRAMES;
	m->regions = calloc(m->nr_regions, sizeof *m->regions);
	atomic_store_explicit(&m->heat, h, memory_order_release);
	if (h->fresh && h->wrote && h->stands && h->touched && h->summary && h->collapsed && m->frames && m->hits && m->regions)
		return 0;
	heat_destroy(m);
	return -ENOMEM;
}

void heat_destroy(struct numa_manager *m)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_relaxed);

	if (!h)
		return;
	free(h->fresh);
	free(h->wrote);
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

void numa_note(struct numa_manager *m, unsigned vcpu, uint64_t gfn, unsigned node, bool write, bool watched)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_acquire);
	_Atomic uint8_t *fresh;
	uint8_t n, stands;

	if (!h || gfn >= m->machine.nr_gfns || node >= m->machine.nr_places || vcpu >= m->machine.nr_vcpus)
		return;
	fresh = &h->fresh[gfn * m->machine.nr_places + node];
	n = atomic_load_explicit(fresh, memory_order_relaxed);
	if (n < UINT8_MAX)
		atomic_store_explicit(fresh, n + 1, memory_order_relaxed);
	if (write && !(atomic_load_explicit(&h->wrote[gfn], memory_order_relaxed) >> node & 1))
		atomic_fetch_or_explicit(&h->wrote[gfn], 1u << node, memory_order_relaxed);
	mark(h->touched, gfn);
	mark(h->summary, gfn / 64);

	stands = atomic_load_explicit(&h->stands[gfn], memory_order_relaxed);
	if (stands)
		bump(stands >> node & 1 ? &m->vcpus[vcpu].local : &m->vcpus[vcpu].remote);
	if (watched)
		bump(&m->vcpus[vcpu].watched);
}

void numa_note_collapsed(struct numa_manager *m, uint64_t gfn)
{
	struct heat *h = atomic_load_explicit(&m->heat, memory_order_acquire);

	if (!h || gfn >= m->machine.nr_gfns)
		return;
	mark(h->collapsed, gfn);
	mark(h->touched, gfn);
	mark(h->summary, gfn / 64);
}

void heat_stands(struct numa_manager *m, uint64_t gfn, uint8_t mask)
{
	atomic_store_explicit(&atomic_load_explicit(&m->heat, memory_order_relaxed)->stands[gfn], mask, memory_order_relaxed);
}

uint16_t *heat_hits(struct numa_manager *m, uint64_t gfn)
{
	uint16_t *hits = &m->hits[gfn * m->machine.nr_places];
	struct frame *f = &m->frames[gfn];
	uint32_t halvings = (m->round - f->stamp) / m->value[NUMA_HALF];

	if (!halvings)
		return hits;
	f->stamp += halvings * m->value[NUMA_HALF];
	for (unsigned i = 0; i < m->machine.nr_places; i++)
		hits[i] = halvings < 16 ? hits[i] >> halvings : 0;
	f->writers_before = halvings == 1 ? f->writers : 0;
	f->writers = 0;
	return hits;
}

static void ask_policy(struct numa_manager *m, uint64_t gfn, uint8_t at, const uint16_t *hits)
{
	const struct frame *f = &m->frames[gfn];
	struct numa_page p = {
		.gfn = gfn, .nr_places = m->machine.nr_places, .distance = m->machine.distance, .at = at, .copies = f->copies,
		.writers = f->writers | f->writers_before, .backoff = f->backoff, .hits = hits,
		.quiet = f->watched ? m->round - f->watched : 0, .cost_ns = budget_move_ns(m),
	};
	struct wish wish = { .gfn = gfn, .at = at, .writers = p.writers };

	switch (m->config.policy->page(m->value, &p, &wish.w)) {
	case NUMA_LEAVE_WRITE_SHARED:
		manager_count(&m->stats.write_shared, 1);
		break;
	case NUMA_WANT:
		memcpy(wish.hits, hits, m->machine.nr_places * sizeof *hits);
		act_want(m, &wish);
		break;
	case NUMA_LEAVE:
		break;
	}
}

/* Books what is fresh of one frame that stands on node `at`. */
static void take_in(struct numa_manager *m, struct heat *h, uint64_t gfn, uint8_t at)
{
	struct frame *f = &m->frames[gfn];
	uint16_t *hits = heat_hits(m, gfn);
	uint8_t wrote = atomic_exchange_explicit(&h->wrote[gfn], 0, memory_order_relaxed);
	uint8_t mask = f->copies ? f->copies : 1u << at;
	bool remote = false;

	heat_stands(m, gfn, mask);
	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		unsigned n = atomic_exchange_explicit(&h->fresh[gfn * m->machine.nr_places + i], 0, memory_order_relaxed);
		unsigned distance, sum = hits[i] + n * NUMA_SAMPLE;

		if (!n)
			continue;
		hits[i] = sum < UINT16_MAX ? sum : UINT16_MAX;
		distance = manager_distance(m, i, mask);
		manager_count(&m->stats.samples, n);
		manager_count(mask >> i & 1 ? &m->stats.samples_local : &m->stats.samples_remote, n);
		manager_count(&m->stats.samples_distance, n * distance);
		manager_count(&m->stats.recent, n);
		if (mask >> i & 1)
			manager_count(&m->stats.recent_local, n);
		else
			remote = true;
		judge_saw(m, f, n, distance);
	}
	if (wrote) {
		manager_count(&m->stats.samples_write, 1);
		f->writers |= wrote;
		f->watched = 0;		/* a write ends the watch */
	}
	scan_saw(m, gfn, remote);
	if (m->config.policy && m->config.policy->page && m->round >= f->frozen)
		ask_policy(m, gfn, at, hits);
	if (remote && m->round >= f->frozen)
		scan_focus(m, gfn);
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
			uint64_t w = s * 64 + __builtin_ctzll(marked), bits = atomic_exchange_explicit(&h->touched[w], 0, memory_order_relaxed);
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
		for (unsigned k = 0; k < m->machine.nr_places; k++)
			atomic_store_explicit(&h->fresh[i * m->machine.nr_places + k], 0, memory_order_relaxed);
		atomic_store_explicit(&h->wrote[i], 0, memory_order_relaxed);
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
