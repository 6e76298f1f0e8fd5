/*
 * lock.h - spinlocks for critical sections of a few hundred instructions. There may be more threads than cores, so a
 * waiter that has spun for a while gives its core away.
 */
#ifndef UMBRA_MMU_LOCK_H
#define UMBRA_MMU_LOCK_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

struct spin {
	uint32_t held;
};

/*
 * Built with -DMMU_CHAOS=N, one in N of the places where a race could be lost gives the core away, so that windows of a
 * few instructions are met within seconds: make B=/tmp/chaos CFLAGS='-O2 -g -DMMU_CHAOS=50' unit-bins
 */
#ifdef MMU_CHAOS
static inline void chaos(void)
{
	static _Thread_local uint64_t x;

	if (!x)
		x = (uintptr_t)&x;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	if (x % MMU_CHAOS == 0)
		sched_yield();
}
#else
static inline void chaos(void)
{
}
#endif

static inline bool spin_trylock(struct spin *l)
{
	return !__atomic_load_n(&l->held, __ATOMIC_RELAXED) && !__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE);
}

static inline void spin_lock(struct spin *l)
{
	unsigned i;

	chaos();
	while (!spin_trylock(l)) {
		for (i = 0; i < 128 && __atomic_load_n(&l->held, __ATOMIC_RELAXED); i++)
			__builtin_ia32_pause();
		if (i == 128)
			sched_yield();
	}
}

static inline void spin_unlock(struct spin *l)
{
	__atomic_store_n(&l->held, 0, __ATOMIC_RELEASE);
	chaos();
}

#endif
