/*
 * lock.h - spinlocks for critical sections of a few hundred instructions. There may be more threads than cores, so a
 * waiter that has spun for a while gives its core away. Waits are counted by kind of lock (MMU_LOCKS), for the cpu that the
 * thread has named by mmu_cpu_bind().
 */
#ifndef UMBRA_MMU_LOCK_H
#define UMBRA_MMU_LOCK_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "mmu/mmu.h"

struct spin {
	uint16_t held;
	uint16_t kind;			/* enum lock_kind; set before anybody else can see the lock */
};

#define X(name, what) LOCK_##name,
enum lock_kind { MMU_LOCKS(X) LOCK_KINDS };
#undef X

/* lock.c: what is only called when the first try has failed, so that a free lock costs no counting. */
void spin_wait(struct spin *l);		/* until it is ours */
void spin_missed(void);

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

static inline bool spin_take(struct spin *l)
{
	return !__atomic_load_n(&l->held, __ATOMIC_RELAXED) && !__atomic_exchange_n(&l->held, 1, __ATOMIC_ACQUIRE);
}

/* For who has something else to do, or nothing, when it is taken. */
static inline bool spin_trylock(struct spin *l)
{
	if (__builtin_expect(spin_take(l), true))
		return true;
	spin_missed();
	return false;
}

static inline void spin_lock(struct spin *l)
{
	chaos();
	if (__builtin_expect(!spin_take(l), false))
		spin_wait(l);
}

static inline void spin_unlock(struct spin *l)
{
	__atomic_store_n(&l->held, 0, __ATOMIC_RELEASE);
	chaos();
}

#endif
