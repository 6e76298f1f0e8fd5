/*
 * test_mmu_locks.c - waits for locks are counted: of the kind that was waited for, and only when somebody waited.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "mmu/internal.h"
#include "mmu_rig.h"

/* What a lock's holder is doing meanwhile does not matter: the other threads find it taken. */
struct contender {
	struct rig *r;
	struct spin *lock;
	bool bind, wait;
	bool got;
	uint32_t ready;
	pthread_t thread;
};

static void *contend(void *arg)
{
	struct contender *c = arg;

	if (c->bind)
		mmu_cpu_bind(c->r->cpu->cpu);
	__atomic_store_n(&c->ready, 1, __ATOMIC_SEQ_CST);
	c->got = true;
	if (c->wait)
		spin_lock(c->lock);
	else
		c->got = spin_trylock(c->lock);
	if (c->got)
		spin_unlock(c->lock);
	return NULL;
}

/* Has another thread meet the lock while it is held. Whether that got it. */
static bool meet(struct rig *r, struct spin *lock, bool bind, bool wait)
{
	struct contender c = { .r = r, .lock = lock, .bind = bind, .wait = wait };

	spin_lock(lock);
	assert_int_equal(pthread_create(&c.thread, NULL, contend, &c), 0);
	while (!__atomic_load_n(&c.ready, __ATOMIC_SEQ_CST))
		sched_yield();
	if (wait)
		usleep(20000);
	else
		pthread_join(c.thread, NULL);
	spin_unlock(lock);
	if (wait)
		pthread_join(c.thread, NULL);
	return c.got;
}

static uint64_t waits_of_all_kinds(const struct mmu_stats *s)
{
	uint64_t n = 0;

#define X(name, what) n += s->waits_##name;
	MMU_LOCKS(X)
#undef X
	return n;
}

static void test_wait_is_counted_by_kind(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu *mmu = r.w->mmu;
	const struct {
		struct spin *lock;
		size_t waits, spins;
	} kinds[] = {
#define KIND(name, at) { at, offsetof(struct mmu_stats, waits_##name), offsetof(struct mmu_stats, spins_##name) }
		KIND(flush, &mmu->flush_lock), KIND(frame, &mmu->frame_locks[5]), KIND(page, &mmu->pages[3].lock),
		KIND(parents, &mmu->pages[3].parents_lock), KIND(bucket, &mmu->buckets[7]), KIND(listed, &mmu->listed_lock),
		KIND(cpus, &mmu->cpus_lock), KIND(kick, &r.cpu->cpu->kick_lock), KIND(pool, &mmu->parts[0].lock),
#undef KIND
	};
	struct mmu_stats before, after;

	assert_int_equal(sizeof kinds / sizeof *kinds, LOCK_KINDS);
	for (unsigned i = 0; i < LOCK_KINDS; i++) {
		uint64_t *waits = (void *)((char *)&after + kinds[i].waits), *spins = (void *)((char *)&after + kinds[i].spins);
		uint64_t *spins_before = (void *)((char *)&before + kinds[i].spins);

		before = stats_of(&r);
		assert_true(meet(&r, kinds[i].lock, true, true));
		after = stats_of(&r);
		assert_int_equal(*waits, 1);
		assert_true(*spins > *spins_before);
		assert_int_equal(waits_of_all_kinds(&after), i + 1);
	}
	assert_int_equal(after.locks_missed, 0);
	rig_close(&r);
}

static void test_try_is_counted_apart(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_stats s;

	assert_false(meet(&r, &r.w->mmu->frame_locks[0], true, false));
	s = stats_of(&r);
	assert_int_equal(s.locks_missed, 1);
	assert_int_equal(waits_of_all_kinds(&s), 0);
	rig_close(&r);
}

/* A thread that belongs to no cpu waits all the same. */
static void test_unbound_thread_counts_nowhere(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_stats s;

	assert_true(meet(&r, &r.w->mmu->parts[0].lock, false, true));
	assert_false(meet(&r, &r.w->mmu->parts[0].lock, false, false));
	mmu_stats(r.w->mmu, &s);
	assert_int_equal(waits_of_all_kinds(&s), 0);
	assert_int_equal(s.locks_missed, 0);
	rig_close(&r);
}

static void test_free_locks_count_nothing(void **state)
{
	struct rig r = rig_open_plain();
	struct mmu_stats s;

	mmu_cpu_bind(r.cpu->cpu);
	for (unsigned i = 0; i < 64; i++)
		program_access(r.p, MMU_KERNEL, VA(i), MMU_PF_W);
	mmu_cpu_bind(NULL);
	s = stats_of(&r);
	assert_true(s.fills > 0);
	assert_int_equal(waits_of_all_kinds(&s), 0);
	assert_int_equal(s.locks_missed, 0);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wait_is_counted_by_kind),
		cmocka_unit_test(test_try_is_counted_apart),
		cmocka_unit_test(test_unbound_thread_counts_nowhere),
		cmocka_unit_test(test_free_locks_count_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
