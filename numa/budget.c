/*
 * budget.c - the harm limit. Of the time that vCPUs run, harm= percent may go into watching and moving: it is earned
 * as they run, and spent by what is measured (calls that watch or move, by the clock) and what follows from it (a hidden fault for
 * each access that showed, and for each frame that has to be mapped again). An idle guest earns nothing and is left alone.
 */
#include "numa/internal.h"

#define SAVED_NS	250000000ll	/* of cost: what may be saved up for later */
#define FAULT_NS	5000u		/* where the machine cannot say */

static uint64_t average(uint64_t old, uint64_t now)
{
	return old ? old - old / 8 + now / 8 : now;
}

void budget_start(struct numa_manager *m)
{
	struct budget *b = &m->budget;

	b->then_ns = m->machine.ops->now_ns(m->machine.arg);
	b->watched = 0;
	for (unsigned i = 0; i < m->machine.nr_vcpus; i++)
		b->busy_ns[i] = m->machine.ops->vcpu_busy_ns(m->machine.arg, i);
	for (unsigned i = 0; i < m->machine.nr_vcpus; i++)
		b->watched += atomic_load_explicit(&m->vcpus[i].watched, memory_order_relaxed);
	if (!b->move_ns)
		b->move_ns = 4 * FAULT_NS;
}

static void spend(struct numa_manager *m, uint64_t ns)
{
	m->budget.tokens_ns -= ns;
	manager_count(&m->stats.cost_ns, ns);
}

void budget_round(struct numa_manager *m)
{
	const struct numa_machine_ops *ops = m->machine.ops;
	uint64_t now = ops->now_ns(m->machine.arg), busy = 0, watched = 0;
	struct budget *b = &m->budget;

	for (unsigned i = 0; i < m->machine.nr_vcpus; i++) {
		uint64_t ns = ops->vcpu_busy_ns(m->machine.arg, i);

		uint64_t ran = ns > b->busy_ns[i] ? ns - b->busy_ns[i] : 0;

		busy += ran;
		b->load[i] = (3 * b->load[i] + (now > b->then_ns ? 1000 * ran / (now - b->then_ns) : 0)) / 4;
		b->busy_ns[i] = ns;
		watched += atomic_load_explicit(&m->vcpus[i].watched, memory_order_relaxed);
	}
	manager_count(&m->stats.guest_ns, busy);
	b->fault_ns = ops->fault_ns ? ops->fault_ns(m->machine.arg) : FAULT_NS;
	b->tokens_ns += busy * m->value[NUMA_HARM] / 100;
	if (b->tokens_ns > SAVED_NS)
		b->tokens_ns = SAVED_NS;

	spend(m, (watched - b->watched) * b->fault_ns);
	manager_count(&m->stats.fault_samples, watched - b->watched);
	b->watched = watched;
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
	return affordable(&m->budget, m->budget.fault_ns + m->budget.watch_ns, max);
}

uint64_t budget_move_ns(const struct numa_manager *m)
{
	return m->budget.move_ns + m->budget.fault_ns;
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
	m->budget.reserved_ns += frames * m->budget.fault_ns;
	spend(m, ns);
}

void budget_spent_moving(struct numa_manager *m, unsigned frames, uint64_t ns)
{
	m->budget.move_ns = average(m->budget.move_ns, ns / frames);
	m->budget.moves -= frames;
	spend(m, ns + frames * m->budget.fault_ns);
	manager_count(&m->stats.move_ns, ns);
}
