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

static inline bool spin_trylock(struct spin *l)
{
	return !__atomic_load_n(&l->held, __ATOMIC_RELAXED) && !__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE);
}

static inline void spin_lock(struct spin *l)
{
	unsigned i;

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
}

#endif
