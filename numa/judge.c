/*
 * judge.c - whether moves paid. Some frames of each decision are watched again, and after judge= rounds the mean distance of
 * the accesses that showed is held against the one before the move. With undo=1 what came no nearer is undone; and when the
 * decisions of late have cost more than they gained by the distance model, moving rests for a while, twice as long each time.
 */
#include <string.h>

#include "numa/internal.h"

#define ENOUGH		2u	/* fewer samples since say nothing */
#define DECISIONS	4u	/* fewer say nothing about the whole */
#define REST_ROUNDS	32u
#define RESTS_MAX	6u	/* doublings */

void judge_later(struct numa_manager *m, const struct numa_decision *decision, enum numa_move_kind kind, const uint64_t *gfns,
		 unsigned n)
{
	struct numa_decision d = *decision;
	struct judgement *j = NULL;

	if (d.before[0] && n && m->nr_judged < JUDGED && manager_has(m, NUMA_GROUP_SAMPLES) &&
	    (kind == NUMA_MIGRATE || kind == NUMA_REPLICATE) && d.reason != NUMA_WHY_UNDO) {
		for (j = m->judged; j->decision; j++)
			;
		d.outcome = NUMA_PENDING;
		m->nr_judged++;
	}
	d.id = log_add(m, &d);
	if (!j)
		return;
	*j = (struct judgement){ .decision = d.id, .kind = kind, .from = d.from, .start = m->round, .n = n,
				 .before = { d.before[0], d.before[1] },
				 .cost_ns = d.cost_ns + n * m->budget.faults * m->budget.fault_ns + m->budget.kick_ns };
	memcpy(j->gfns, gfns, n * sizeof *gfns);
	for (unsigned i = 0; i < n; i++)
		m->frames[gfns[i]].judgement = j - m->judged + 1;
}

void judge_add(const struct numa_manager *m, const struct hits *hits, uint8_t mask, uint32_t sum[static 2])
{
	double all = 0, far = 0;
	unsigned n = 0;

	for (unsigned i = 0; i < m->machine.nr_places; i++) {
		double rate = heat_rate(&hits[i]);

		n += (hits[i].n + NUMA_SAMPLE - 1) / NUMA_SAMPLE;
		all += rate;
		far += rate * manager_distance(m, i, mask);
	}
	sum[0] += n;
	sum[1] += all > 0 ? n * far / all + 0.5 : 0;
}

/* What showed since at the frames that were not moved again. They stood elsewhere then, so all samples are from since. */
static void sum_up(struct numa_manager *m, const struct judgement *j, uint32_t after[static 2])
{
	uint8_t at[NUMA_MAX_BATCH];

	m->machine.ops->frame_nodes(m->machine.arg, j->gfns, j->n, at);
	for (unsigned i = 0; i < j->n; i++) {
		const struct frame *f = &m->frames[j->gfns[i]];

		if (f->judgement == j - m->judged + 1 && at[i] < m->machine.nr_places)
			judge_add(m, heat_hits(m, j->gfns[i]), f->copies ? f->copies : 1u << at[i], after);
	}
}

static void release(struct numa_manager *m, struct judgement *j)
{
	for (unsigned i = 0; i < j->n; i++)
		if (m->frames[j->gfns[i]].judgement == j - m->judged + 1)
			m->frames[j->gfns[i]].judgement = 0;
	j->decision = 0;
	m->nr_judged--;
}

static void undo(struct numa_manager *m, const struct judgement *j)
{
	struct numa_decision why = { .reason = NUMA_WHY_UNDO, .from = NUMA_NOWHERE };
	struct numa_move moves[NUMA_MAX_BATCH];
	unsigned n = 0;

	for (unsigned i = 0; i < j->n; i++) {
		/* It may have been moved again since, or collapsed. */
		if (m->frames[j->gfns[i]].judgement != j - m->judged + 1)
			continue;
		moves[n++] = (struct numa_move){ .gfn = j->gfns[i], .kind = j->kind == NUMA_REPLICATE ? NUMA_COLLAPSE : NUMA_MIGRATE,
						 .node = j->from };
	}
	act_now(m, moves, n, &why);
	for (unsigned i = 0; i < n; i++)
		act_freeze(m, moves[i].gfn);
}

/* What the nearer accesses are worth by the distance model, for all frames of the decision in all rounds since. */
static int64_t gained_ns(struct numa_manager *m, const struct judgement *j, const uint32_t after[static 2])
{
	double nearer = (double)j->before[1] / j->before[0] - (double)after[1] / after[0];
	double seconds = m->value[NUMA_JUDGE] * m->value[NUMA_INTERVAL] * 1e-3, rate = 0;
	unsigned seen = 0;

	for (unsigned i = 0; i < j->n; i++) {
		const struct hits *hits = heat_hits(m, j->gfns[i]);
		float time = 0;

		for (unsigned k = 0; k < m->machine.nr_places; k++) {
			rate += heat_rate(&hits[k]);
			time += hits[k].time;
		}
		seen += time > 0;
	}
	return nearer / 10 * rate / (seen ? seen : 1) * j->n * seconds * m->value[NUMA_WEIGHT] * m->value[NUMA_LOCAL_NS];
}

static void weigh(struct numa_manager *m, int64_t ns)
{
	struct numa_decision d = { .act = NUMA_DID_REST, .reason = NUMA_WHY_HARM, .from = NUMA_NOWHERE, .to = NUMA_NOWHERE };

	m->worth_ns += ns - m->worth_ns / 8;
	m->worth_n++;
	if (!manager_has(m, NUMA_GROUP_UNDO) || !m->value[NUMA_UNDO] || m->worth_n < DECISIONS)
		return;
	if (m->worth_ns >= 0) {
		m->rests = 0;
		return;
	}
	d.time_ns = m->machine.ops->now_ns(m->machine.arg);
	d.gain_ns = m->worth_ns;
	log_add(m, &d);
	manager_count(&m->stats.rests, 1);
	m->rest_until = m->round + (REST_ROUNDS << (m->rests < RESTS_MAX ? m->rests : RESTS_MAX));
	m->rests++;
	m->worth_ns = 0;
	m->worth_n = 0;
}

static void judge(struct numa_manager *m, struct judgement *j)
{
	uint32_t after[2] = { 0, 0 };
	enum numa_outcome outcome;

	sum_up(m, j, after);
	if (after[0] < ENOUGH) {
		outcome = NUMA_UNUSED;
		manager_count(&m->stats.unused, 1);
		weigh(m, -(int64_t)j->cost_ns);
	} else {
		/* At least a twentieth nearer. */
		bool nearer = 20ull * after[1] * j->before[0] < 19ull * j->before[1] * after[0];

		outcome = nearer ? NUMA_PAID : NUMA_UNPAID;
		manager_count(nearer ? &m->stats.paid : &m->stats.unpaid, 1);
		weigh(m, gained_ns(m, j, after) - (int64_t)j->cost_ns);
		if (!nearer && manager_has(m, NUMA_GROUP_UNDO) && m->value[NUMA_UNDO]) {
			outcome = NUMA_UNDONE;
			manager_count(&m->stats.undone, 1);
			undo(m, j);
		}
	}
	log_outcome(m, j->decision, outcome, after);
	release(m, j);
}

void judge_round(struct numa_manager *m)
{
	uint32_t rounds = m->value[NUMA_JUDGE];

	for (unsigned i = 0; i < JUDGED && m->nr_judged; i++) {
		struct judgement *j = &m->judged[i];
		uint32_t age = m->round - j->start;

		if (!j->decision)
			continue;
		if (age >= rounds) {
			judge(m, j);
			continue;
		}
		/* Three looks, spread over the time. */
		if (age && age % ((rounds + 3) / 4) == 0)
			for (unsigned k = 0; k < j->n && k < JUDGE_WATCHES; k++)
				scan_focus(m, j->gfns[k], true);
	}
}

void judge_forget(struct numa_manager *m)
{
	for (unsigned i = 0; i < JUDGED; i++)
		if (m->judged[i].decision)
			release(m, &m->judged[i]);
	m->worth_ns = 0;
	m->worth_n = m->rests = 0;
	m->rest_until = 0;
}

bool judge_resting(const struct numa_manager *m)
{
	return m->round < m->rest_until;
}
