/*
 * budget.c - the harm limit. Of the time that vCPUs run, harm= percent may go into watching and moving: it is earned
 * as they run, and spent by what is measured (what vCPUs do to watch and to move) and what follows from it (a hidden fault for
 * each access that showed, and for each frame that has to be mapped again; what the host mends of its own tables after a kick). An idle guest earns nothing and is left alone.
 */
#include <string.h>

#include "numa/internal.h"

#define SAVED_NS	250000000ll	/* of cost: what may be saved up for later */
#define FAULT_NS	5000u		/* where the machine cannot say */
#define ENOUGH		8u		/* fewer frames say nothing about an average */
#define ALONG		16u	/* frames that share a kick, as it goes */

uint64_t budget_clock(struct numa_manager *m)
{
	return m->machine.ops->work_ns ? m->machine.ops->work_ns(m->machine.arg) : m->machine.ops->now_ns(m->machine.arg);
}

static uint64_t average(uint64_t old, uint64_t now)
{
	return old ? old - old / 8 + now / 8 : now;
}

static uint64_t kicks(const struct numa_manager *m)
{
	return m->calls + m->stats.collapsed;
}

void budget_start(struct numa_manager *m)
{
	struct budget *b = &m->budget;

	b->then_ns = m->machine.ops->now_ns(m->machine.arg);
	for (unsigned i = 0; i < m->machine.nr_vcpus; i++)
		b->busy_ns[i] = m->machine.ops->vcpu_busy_ns(m->machine.arg, i);
	b->caused = 0;
	for (unsigned i = 0; i < m->machine.nr_vcpus; i++)
		b->caused += atomic_load_explicit(&m->vcpus[i].caused, memory_order_relaxed);
	b->disturbed = 0;
	b->refill_ns = m->machine.ops->refill_ns ? m->machine.ops->refill_ns(m->machine.arg) : 0;
	b->kicks = kicks(m);
	if (!b->faults)
		b->faults = 2;
	if (!b->move_ns)
		b->move_ns = 4 * FAULT_NS;
}

static void spend(struct numa_manager *m, uint64_t ns)
{
	m->budget.tokens_ns -= ns;
	manager_count(&m->stats.cost_ns, ns);
}

static void spend_refills(struct numa_manager *m)
{
	struct budget *b = &m->budget;
	uint64_t ns = m->machine.ops->refill_ns ? m->machine.ops->refill_ns(m->machine.arg) : 0, n = kicks(m) - b->kicks;

	if (ns > b->refill_ns) {
		spend(m, ns - b->refill_ns);
		if (n)
			b->kick_ns = average(b->kick_ns, (ns - b->refill_ns) / n);
	}
	b->refill_ns = ns;
	b->kicks += n;
}

void budget_round(struct numa_manager *m)
{
	const struct numa_machine_ops *ops = m->machine.ops;
	uint64_t now = ops->now_ns(m->machine.arg), busy = 0, caused = 0;
	struct budget *b = &m->budget;

	for (unsigned i = 0; i < m->machine.nr_vcpus; i++) {
		uint64_t ns = ops->vcpu_busy_ns(m->machine.arg, i);

		uint64_t ran = ns > b->busy_ns[i] ? ns - b->busy_ns[i] : 0;

		busy += ran;
		b->load[i] = (3 * b->load[i] + (now > b->then_ns ? 1000 * ran / (now - b->then_ns) : 0)) / 4;
		b->busy_ns[i] = ns;
		caused += atomic_load_explicit(&m->vcpus[i].caused, memory_order_relaxed);
	}
	manager_count(&m->stats.guest_ns, busy);
	memset(m->node_load, 0, sizeof m->node_load);
	for (unsigned i = 0; i < m->machine.nr_vcpus; i++) {
		unsigned at = ops->vcpu_node(m->machine.arg, i);

		if (at < m->machine.nr_places && m->node_load[at] < b->load[i] * 1e-3)
			m->node_load[at] = b->load[i] * 1e-3;
	}
	b->fault_ns = ops->fault_ns ? ops->fault_ns(m->machine.arg) : FAULT_NS;
	b->tokens_ns += busy * m->value[NUMA_HARM] / 100;
	if (b->tokens_ns > SAVED_NS)
		b->tokens_ns = SAVED_NS;

	caused -= b->caused;
	b->caused += caused;
	spend(m, caused * b->fault_ns);
	manager_count(&m->stats.caused, caused);
	if (b->disturbed >= ENOUGH)
		b->faults = (7 * b->faults + (double)caused / b->disturbed) / 8;
	if (b->faults < 1)
		b->faults = 1;
	b->disturbed = 0;
	spend_refills(m);
	b->reserved_ns /= 2;		/* frames watched and not used yet still may be */

	b->moves += (now - b->then_ns) * 1e-9 * m->value[NUMA_RATE];
	if (b->moves > m->value[NUMA_RATE])
		b->moves = m->value[NUMA_RATE];
	b->then_ns = now;
}

static unsigned affordable(const struct budget *b, uint64_t each_ns, unsigned max)
{
	int64_t n = (b->tokens_ns - (int64_t)b->reserved_ns) / (int64_t)(each_ns ? each_ns : 1);

	return n <= 0 ? 0 : n < max ? n : max;
}

unsigned budget_frames_to_watch(struct numa_manager *m)
{
	unsigned max = m->value[NUMA_SCAN];

	/* Resting, just enough to see a change. */
	if (judge_resting(m))
		max = (max + 15) / 16;
	return affordable(&m->budget, m->budget.faults * m->budget.fault_ns + m->budget.watch_ns + m->budget.kick_ns / ALONG, max);
}

uint64_t budget_move_ns(const struct numa_manager *m)
{
	return m->budget.move_ns + m->budget.faults * m->budget.fault_ns + m->budget.kick_ns / ALONG;
}

uint64_t budget_end_ns(const struct numa_manager *m)
{
	return m->budget.faults * m->budget.fault_ns + m->budget.kick_ns;
}

unsigned budget_frames_to_move(struct numa_manager *m)
{
	unsigned max = m->budget.moves;

	if (!manager_has(m, NUMA_GROUP_SAMPLES))
		return max;
	return affordable(&m->budget, budget_move_ns(m), max);
}

void budget_spent_watching(struct numa_manager *m, unsigned frames, uint64_t ns)
{
	m->budget.watch_ns = average(m->budget.watch_ns, ns / frames);
	m->budget.reserved_ns += frames * m->budget.faults * m->budget.fault_ns + m->budget.kick_ns;
	spend(m, ns);
}

void budget_spent_moving(struct numa_manager *m, unsigned frames, uint64_t ns)
{
	m->budget.move_ns = average(m->budget.move_ns, ns / frames);
	m->budget.reserved_ns += frames * m->budget.faults * m->budget.fault_ns + m->budget.kick_ns;
	m->budget.moves -= frames;
	spend(m, ns);
	manager_count(&m->stats.move_ns, ns);
}
