/*
 * act.c - from wishes to moves: the most gainful first, as many as rate= and harm= allow, in batches of one kind and direction.
 * Each batch is a decision in the log.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numa/internal.h"

#define BUSY_ROUNDS	2u	/* a frame that was busy is tried again after so many rounds, twice as many each time */
#define BUSY_MAX	7u
#define FULL_ROUNDS	20u	/* ... and a node that was full */
#define FULL_MAX	6u
#define DWELL_ROUNDS	8u	/* after a move a page stays for so many rounds, twice as many with each */
#define DWELL_MAX	6u
#define LIFE_ROUNDS	256u	/* in which what is known of the life of copies fades */
#define LIFE_UNKNOWN	512.0	/* rounds of a copy: what a region has that never had any */

bool act_want(struct numa_manager *m, const struct wish *wish)
{
	struct frame *f = &m->frames[wish->gfn];

	if (manager_has(m, NUMA_GROUP_SAMPLES)) {
		if (m->round - f->window > m->value[NUMA_FREEZE]) {
			f->window = m->round;
			f->moves = 0;
		}
		if (f->moves >= m->value[NUMA_MAX_MOVES]) {
			f->window = m->round;
			f->moves = 0;
			act_freeze(m, wish->gfn);
			manager_count(&m->stats.frozen, 1);
			return true;
		}
	}
	if (m->nr_wishes == WISHES) {
		manager_count(&m->stats.put_off, 1);
		return false;
	}
	m->wishes[m->nr_wishes++] = *wish;
	return true;
}

void act_freeze(struct numa_manager *m, uint64_t gfn)
{
	m->frames[gfn].frozen = m->round + m->value[NUMA_FREEZE];
}

static void set_copies(struct numa_manager *m, struct frame *f, uint8_t copies)
{
	int more = !!copies - !!f->copies;

	manager_count(&m->stats.copies, more);
	m->regions[(f - m->frames) / REGION_FRAMES].copies += more;
	if (more > 0)
		f->copied = m->round;
	f->copies = copies;
}

static void set_away(struct numa_manager *m, struct frame *f, bool away)
{
	manager_count(&m->stats.away, away - f->away);
	f->away = away;
}

void act_collapsed(struct numa_manager *m, uint64_t gfn)
{
	struct frame *f = &m->frames[gfn];

	if (!f->copies)
		return;
	set_copies(m, f, 0);
	m->regions[gfn / REGION_FRAMES].ended += 1;
	/* Those that did not earn what they cost wait for longer still. */
	f->backoff += f->backoff < UINT8_MAX - 2 ? (m->round - f->copied < m->value[NUMA_JUDGE] ? 2 : 1) : 0;
	f->watched = 0;
	manager_count(&m->stats.collapsed, 1);
}

/* One event more than were seen: what never ended may yet. */
double act_copy_life(const struct numa_manager *m, uint64_t gfn)
{
	const struct region *r = &m->regions[gfn / REGION_FRAMES];

	return (LIFE_UNKNOWN + r->copied) / (1 + r->ended);
}

static void live(struct numa_manager *m)
{
	for (uint64_t i = 0; m->frames && i < m->nr_regions; i++) {
		struct region *r = &m->regions[i];

		r->copied += r->copies - r->copied / LIFE_ROUNDS;
		r->ended -= r->ended / LIFE_ROUNDS;
	}
}

/* ---- what came of a move ----------------------------------------------------------------------------------------- */

static void book_done(struct numa_manager *m, const struct numa_move *move)
{
	struct frame *f = &m->frames[move->gfn];

	f->busy = 0;
	f->watched = 0;
	heat_clear(m, move->gfn);
	f->moves += f->moves < UINT8_MAX;
	f->frozen = m->round + (DWELL_ROUNDS << (f->moves < DWELL_MAX ? f->moves : DWELL_MAX));
	switch (move->kind) {
	case NUMA_MIGRATE:
		set_copies(m, f, 0);
		set_away(m, f, true);
		heat_stands(m, move->gfn, 1u << move->node);
		break;
	case NUMA_REPLICATE:
		set_copies(m, f, move->mask);
		set_away(m, f, true);
		heat_stands(m, move->gfn, move->mask);
		break;
	case NUMA_COLLAPSE:
		set_copies(m, f, 0);
		heat_stands(m, move->gfn, 0);
		break;
	case NUMA_HOME:
		set_copies(m, f, 0);
		set_away(m, f, false);
		heat_stands(m, move->gfn, 0);
		break;
	}
}

/* Where it needs room. Who wants copies says by `node` where the frame stands already. */
static uint8_t goes_to(const struct numa_move *move)
{
	uint8_t node = 1u << move->node;

	return move->kind == NUMA_MIGRATE ? node : move->kind == NUMA_REPLICATE ? move->mask & ~node : 0;
}

static void found_full(struct numa_manager *m, unsigned node)
{
	if (m->round < m->full_until[node])
		return;		/* one batch is one answer */
	m->full_until[node] = m->round + (FULL_ROUNDS << m->full[node]);
	m->full[node] += m->full[node] < FULL_MAX;
}

static void book(struct numa_manager *m, const struct numa_move *move)
{
	static const size_t counters[] = {
		[NUMA_MIGRATE] = offsetof(struct numa_stats, migrated), [NUMA_REPLICATE] = offsetof(struct numa_stats, replicated),
		[NUMA_COLLAPSE] = offsetof(struct numa_stats, collapsed), [NUMA_HOME] = offsetof(struct numa_stats, homed),
	};
	struct frame *f = m->frames && move->gfn < m->machine.nr_gfns ? &m->frames[move->gfn] : NULL;

	switch (move->result) {
	case 0:
		manager_count((uint64_t *)((char *)&m->stats + counters[move->kind]), 1);
		if (f)
			book_done(m, move);
		break;
	case -EBUSY:
	case -EAGAIN:
		manager_count(&m->stats.busy, 1);
		if (f) {
			f->frozen = m->round + (BUSY_ROUNDS << f->busy);
			f->busy += f->busy < BUSY_MAX;
		}
		break;
	case -ENOMEM:
		manager_count(&m->stats.no_room, 1);
		for (unsigned i = 0; i < m->machine.nr_places; i++)
			if (goes_to(move) >> i & 1)
				found_full(m, i);
		break;
	default:
		manager_count(&m->stats.failed, 1);
		if (f)
			act_freeze(m, move->gfn);
	}
}

static enum numa_act act_of(enum numa_move_kind kind)
{
	static const enum numa_act acts[] = {
		[NUMA_MIGRATE] = NUMA_DID_MIGRATE, [NUMA_REPLICATE] = NUMA_DID_REPLICATE, [NUMA_COLLAPSE] = NUMA_DID_COLLAPSE,
		[NUMA_HOME] = NUMA_DID_HOME,
	};

	return acts[kind];
}

/* One batch of one kind and direction. */
static void act_batch(struct numa_manager *m, struct numa_move *moves, unsigned n, const struct numa_decision *why)
{
	uint64_t then = budget_clock(m), gfns[NUMA_MAX_BATCH];
	struct numa_decision d = *why;

	d.time_ns = m->machine.ops->now_ns(m->machine.arg);
	d.act = act_of(moves->kind);
	d.to = moves->kind == NUMA_MIGRATE ? moves->node : NUMA_NOWHERE;
	d.mask = moves->kind == NUMA_REPLICATE ? moves->mask : 0;
	d.frames = n;
	d.first = d.last = moves->gfn;
	for (unsigned i = 0; m->frames && i < n; i++)
		if (moves[i].gfn < m->machine.nr_gfns)
			heat_disturb(m, moves[i].gfn);
	m->machine.ops->move(m->machine.arg, moves, n);
	if (m->frames)
		heat_asked(m);
	d.cost_ns = budget_clock(m) - then;
	budget_spent_moving(m, n, d.cost_ns);
	for (unsigned i = 0; i < n; i++) {
		book(m, &moves[i]);
		if (moves[i].gfn < d.first)
			d.first = moves[i].gfn;
		if (moves[i].gfn > d.last)
			d.last = moves[i].gfn;
		if (moves[i].result)
			d.error = moves[i].result;
		else
			gfns[d.done++] = moves[i].gfn;
	}
	judge_later(m, &d, moves->kind, gfns, d.done);
}

static bool same_way(const struct numa_move *a, const struct numa_move *b)
{
	return a->kind == b->kind && a->node == b->node && a->mask == b->mask;
}

void act_now(struct numa_manager *m, struct numa_move *moves, unsigned n, const struct numa_decision *why)
{
	unsigned batch = m->value[NUMA_BATCH], k;

	for (unsigned i = 0; i < n; i += k) {
		for (k = 1; i + k < n && k < batch && same_way(&moves[i], &moves[i + k]); k++)
			;
		act_batch(m, &moves[i], k, why);
	}
}

int act_move_vcpu(struct numa_manager *m, unsigned vcpu, unsigned node, const struct numa_decision *why)
{
	uint64_t then = m->machine.ops->now_ns(m->machine.arg);
	struct numa_decision d = *why;

	d.time_ns = then;
	d.act = NUMA_DID_MOVE_VCPU;
	d.first = d.last = vcpu;
	d.frames = 1;
	d.from = m->machine.ops->vcpu_node(m->machine.arg, vcpu);
	d.to = node;
	d.error = m->machine.ops->move_vcpu(m->machine.arg, vcpu, node);
	d.done = !d.error;
	d.cost_ns = m->machine.ops->now_ns(m->machine.arg) - then;
	manager_count(d.error ? &m->stats.busy : &m->stats.vcpus_moved, 1);
	log_add(m, &d);
	return d.error;
}

/* ---- a round's wishes -------------------------------------------------------------------------------------------- */

static int by_gain(const void *a, const void *b)
{
	const struct wish *x = a, *y = b;

	/* A copy holds memory, and a write may end it. */
	if ((x->w.kind == NUMA_REPLICATE) != (y->w.kind == NUMA_REPLICATE))
		return x->w.kind == NUMA_REPLICATE ? 1 : -1;
	return x->w.gain_ns < y->w.gain_ns ? 1 : x->w.gain_ns > y->w.gain_ns ? -1 : x->gfn > y->gfn ? 1 : -1;
}

static uint64_t way(const struct wish *w)
{
	return (uint64_t)w->w.reason << 40 | (uint64_t)w->w.kind << 32 | w->at << 16 | w->w.node << 8 | w->w.mask;
}

static int by_way(const void *a, const void *b)
{
	const struct wish *x = a, *y = b;

	return way(x) < way(y) ? -1 : way(x) > way(y) ? 1 : by_gain(a, b);
}

/* How many of these may go where they want to at once: none while a node is full, and then one to see whether it still is. */
static unsigned has_room(const struct numa_manager *m, const struct wish *w, unsigned batch)
{
	const struct numa_move move = { .kind = w->w.kind, .node = w->w.node, .mask = w->w.mask };

	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		if (!(goes_to(&move) >> i & 1))
			continue;
		if (m->round < m->full_until[i])
			return 0;
		if (m->full[i])
			batch = 1;
	}
	return batch;
}

static void add_why(struct numa_manager *m, struct numa_decision *d, const struct wish *w)
{
	d->writers |= w->writers;
	d->gain_ns += w->w.gain_ns;
	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		d->samples[i] += (w->hits[i].n + NUMA_SAMPLE - 1) / NUMA_SAMPLE;
		d->uses[i] += heat_rate(&w->hits[i]);
	}
	if (w->at < m->machine.nr_places)
		judge_add(m, w->hits, 1u << w->at, d->before);
}

static void act_on(struct numa_manager *m, const struct wish *wishes, unsigned n)
{
	struct numa_decision d = { .reason = wishes->w.reason, .from = wishes->at };
	struct numa_move moves[NUMA_MAX_BATCH];

	for (unsigned i = 0; i < n; i++) {
		const struct numa_wish *w = &wishes[i].w;

		moves[i] = (struct numa_move){ .gfn = wishes[i].gfn, .kind = w->kind, .node = w->node, .mask = w->mask };
		add_why(m, &d, &wishes[i]);
	}
	act_now(m, moves, n, &d);
}

void act_round(struct numa_manager *m)
{
	unsigned n = 0, most = budget_frames_to_move(m), batch, k;

	live(m);
	/* That a move works does not say so: it may need no page there. */
	for (unsigned i = 0; i < m->machine.nr_places; i++)
		if (m->full[i] && m->round >= m->full_until[i] + FULL_ROUNDS)
			m->full[i] = 0;
	for (unsigned i = 0; i < m->nr_wishes; i++) {
		if (!has_room(m, &m->wishes[i], 1))
			manager_count(&m->stats.put_off, 1);
		else if (!judge_resting(m))
			m->wishes[n++] = m->wishes[i];
	}
	qsort(m->wishes, n, sizeof *m->wishes, by_gain);
	__atomic_store_n(&m->stats.pending, n > most ? n - most : 0, __ATOMIC_RELAXED);
	if (n > most) {
		manager_count(&m->stats.put_off, n - most);
		n = most;
	}
	qsort(m->wishes, n, sizeof *m->wishes, by_way);
	for (unsigned i = 0; i < n; i += k) {
		k = 1;
		batch = has_room(m, &m->wishes[i], m->value[NUMA_BATCH]);
		if (!batch) {		/* full since a moment ago */
			manager_count(&m->stats.put_off, 1);
			continue;
		}
		for (; i + k < n && k < batch && way(&m->wishes[i]) == way(&m->wishes[i + k]); k++)
			;
		act_on(m, &m->wishes[i], k);
	}
	m->nr_wishes = 0;
}

/* ---- off --------------------------------------------------------------------------------------------------------- */

void act_home(struct numa_manager *m)
{
	const struct numa_decision why = { .reason = NUMA_WHY_OFF, .from = NUMA_NOWHERE };
	unsigned most = budget_frames_to_move(m), n = 0;
	struct numa_move moves[NUMA_MAX_BATCH];

	for (uint64_t seen = 0; seen < m->machine.nr_gfns && m->stats.away && most; seen++) {
		uint64_t gfn = m->home_at;

		m->home_at = (m->home_at + 1) % m->machine.nr_gfns;
		if (!m->frames[gfn].away)
			continue;
		moves[n++] = (struct numa_move){ .gfn = gfn, .kind = NUMA_HOME };
		most--;
		if (n == NUMA_MAX_BATCH) {
			act_now(m, moves, n, &why);
			n = 0;
		}
	}
	act_now(m, moves, n, &why);
	for (unsigned i = 0; i < m->machine.nr_vcpus; i++)
		if (m->machine.ops->vcpu_node(m->machine.arg, i) != m->home_node[i])
			act_move_vcpu(m, i, m->home_node[i], &why);
	m->homing = m->stats.away;
}
