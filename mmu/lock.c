/*
 * lock.c - waiting for a spinlock, and counting it. All of it is off the way of a lock that is free.
 */
#include "mmu/internal.h"

#define LOOKS	128u		/* before the core is given away: some microseconds, longer than any critical section */

/* Each thread counts for itself: a counter that all share would be one more thing to wait for. */
static _Thread_local struct mmu_cpu *bound;

static const struct {
	size_t waits, spins;
} counters[LOCK_KINDS] = {
#define X(name, what) \
	[LOCK_##name] = { offsetof(struct mmu_stats, waits_##name), offsetof(struct mmu_stats, spins_##name) },
	MMU_LOCKS(X)
#undef X
};

static void count(size_t counter, uint64_t n)
{
	uint64_t *c = (uint64_t *)((char *)&bound->stats + counter);

	__atomic_store_n(c, *c + n, __ATOMIC_RELAXED);
}

void mmu_cpu_bind(struct mmu_cpu *cpu)
{
	bound = cpu;
}

void spin_wait(struct spin *l)
{
	uint64_t spins = 0;
	unsigned i;

	do {
		for (i = 0; i < LOOKS && __atomic_load_n(&l->held, __ATOMIC_RELAXED); i++)
			__builtin_ia32_pause();
		spins += i;
		if (i == LOOKS)
			sched_yield();
	} while (!spin_take(l));
	if (!bound)
		return;
	count(counters[l->kind].waits, 1);
	count(counters[l->kind].spins, spins);
}

void spin_missed(void)
{
	if (bound)
		count(offsetof(struct mmu_stats, locks_missed), 1);
}
