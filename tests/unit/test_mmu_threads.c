/*
 * mmu/ with several threads at once, for ThreadSanitizer above all: random programs on processors of their own while
 * others prebuild into their tables, move their frames and log their writes; and two writers of one shared table whose
 * every reader checks that what a completed flush has retired is never seen again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "mmu_program.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4
#elif defined(__SANITIZE_THREAD__)
#define SCALE 10
#else
#define SCALE 1
#endif

#define PROGRAMS 2u
#define BASE(i) (PROG_RANGE * ((i) + 1u))	/* frame 0 is nobody's: stray large entries name it */

/* ---- programs, and those who interfere -------------------------------------------------------------------------- */

struct crowd {
	struct world *w;
	struct program *programs[PROGRAMS];
	struct world_cpu *other, *prebuilder;
	uint64_t steps;
	uint64_t *seen;				/* bitmap of frames that some fetch reported */
	int stop;				/* atomic */
};

struct crowd_thread {
	struct crowd *c;
	unsigned i;
};

static bool stopped(struct crowd *c)
{
	return __atomic_load_n(&c->stop, __ATOMIC_ACQUIRE);
}

static void *run_program(void *arg)
{
	struct crowd_thread *t = arg;

	program_run(t->c->programs[t->i], t->c->steps);
	return NULL;
}

static void *run_prebuilder(void *arg)
{
	struct crowd *c = arg;
	uint64_t rng = c->w->opt.seed ^ 0x70726562;

	while (!stopped(c)) {
		uint64_t gfn = BASE(rng_below(&rng, PROGRAMS)) + PROG_L4 + rng_below(&rng, PROG_DATA + 8 - PROG_L4);
		unsigned index = rng_below(&rng, rng_percent(&rng, 80) ? 34 : 512), n;

		for (n = 0; n < 8; n++)
			mmu_prebuild(c->prebuilder->cpu, (gfn_t){ gfn }, (index + n) % 512, 3 + rng_below(&rng, 29),
				     rng_below(&rng, 8));
		if (rng_percent(&rng, 10))
			world_set_node(c->prebuilder, rng_below(&rng, c->w->opt.nodes));
		if (rng_percent(&rng, 10))
			mmu_prebuild_tree(c->prebuilder->cpu, (gfn_t){ gfn }, rng_below(&rng, 2),
					  (gva_t){ rng_below(&rng, 2) ? 0 : 0xffff880000000000ull }, (gva_t){ ~0ull },
					  3 + rng_below(&rng, 29), rng_below(&rng, 8), 1 + rng_below(&rng, 64));
		if (rng_percent(&rng, 1))
			mmu_sample_sweep(c->w->mmu, rng_below(&rng, 2));
		world_check(c->prebuilder, !mmu_kick_pending(c->prebuilder->cpu), "prebuilding owes a kick");
		if (rng_percent(&rng, 2))
			sched_yield();
	}
	return NULL;
}

#define HELD	8u		/* frames replicated at a time */

struct mover {
	struct world *w;
	struct world_cpu *cpu;
	uint64_t rng, spare[WORLD_SPARE + 2];
	unsigned nr_spare, nr_held;
	struct {
		uint64_t gfn, at[3];	/* for two nodes, and where it stood */
	} held[HELD];
};

static void give_back(struct mover *m, uint64_t mfn)
{
	__atomic_store_n(&m->w->mfn_gfn[mfn], -1, __ATOMIC_RELEASE);
	m->spare[m->nr_spare++] = mfn;
}

static bool is_held(const struct mover *m, uint64_t gfn)
{
	unsigned i;

	for (i = 0; i < m->nr_held; i++)
		if (m->held[i].gfn == gfn)
			return true;
	return false;
}

/* In place of a commit. */
static void replicate(struct mover *m, uint64_t gfn)
{
	uint64_t from = m->w->gfn_mfn[gfn], at[] = { m->spare[--m->nr_spare], m->spare[--m->nr_spare], from };
	mfn_t copies[MMU_MAX_NODES];
	unsigned i;
	int err;

	for (i = 0; i < m->w->opt.nodes; i++)
		copies[i].n = at[i % 3];
	__atomic_store_n(&m->w->mfn_gfn[at[0]], (int64_t)gfn, __ATOMIC_RELEASE);
	__atomic_store_n(&m->w->mfn_gfn[at[1]], (int64_t)gfn, __ATOMIC_RELEASE);
	__atomic_store_n(&m->w->collapsed[gfn], 0, __ATOMIC_RELEASE);
	err = mmu_replicate(m->cpu->cpu, (gfn_t){ gfn }, copies);
	world_check(m->cpu, !err || err == -EBUSY, "replicate: %d", err);
	if (err) {		/* somebody uses it as a table by now */
		give_back(m, at[0]);
		give_back(m, at[1]);
		mmu_remap_abort(m->cpu->cpu, (gfn_t){ gfn });
		return;
	}
	m->held[m->nr_held].gfn = gfn;
	memcpy(m->held[m->nr_held++].at, at, sizeof(at));
}

/* One copy is left, or is to be. */
static void release(struct mover *m, unsigned h)
{
	uint64_t gfn = m->held[h].gfn, kept;
	unsigned i;
	int err;

	while ((err = mmu_collapse(m->cpu->cpu, (gfn_t){ gfn })) == -EAGAIN) {
		world_kick(m->cpu);
		sched_yield();
	}
	world_check(m->cpu, !err, "collapse: %d", err);
	kept = mmu_pmap(m->w->mmu, (gfn_t){ gfn }).n;
	for (i = 0; i < 3; i++)
		if (m->held[h].at[i] != kept)
			give_back(m, m->held[h].at[i]);
	m->held[h] = m->held[--m->nr_held];
}

static void move(struct mover *m, uint64_t gfn)
{
	uint64_t from = m->w->gfn_mfn[gfn], to = m->spare[--m->nr_spare];
	int err;

	__atomic_store_n(&m->w->mfn_gfn[from], -1, __ATOMIC_RELEASE);
	__atomic_store_n(&m->w->mfn_gfn[to], (int64_t)gfn, __ATOMIC_RELEASE);
	err = mmu_remap_commit(m->cpu->cpu, (gfn_t){ gfn }, (mfn_t){ to });
	__atomic_store_n(&m->w->gfn_mfn[gfn], to, __ATOMIC_RELEASE);
	world_check(m->cpu, !err, "remap_commit: %d", err);
	m->spare[m->nr_spare++] = from;
}

static void *run_mover(void *arg)
{
	struct crowd *c = arg;
	struct mover m = { .w = c->w, .cpu = c->other, .rng = c->w->opt.seed ^ 0x6d6f7665 };
	uint64_t gfn;
	unsigned h;
	int err;

	while (m.nr_spare < WORLD_SPARE) {
		m.spare[m.nr_spare] = m.w->spare + m.nr_spare;
		m.nr_spare++;
	}
	while (!stopped(c)) {
		h = rng_below(&m.rng, HELD);
		if (h < m.nr_held && (__atomic_load_n(&m.w->collapsed[m.held[h].gfn], __ATOMIC_ACQUIRE) ||
				      rng_percent(&m.rng, 10)))
			release(&m, h);
		gfn = BASE(rng_below(&m.rng, PROGRAMS)) + PROG_DATA + rng_below(&m.rng, rng_percent(&m.rng, 80) ? 48 : 900);
		if (rng_percent(&m.rng, 20)) {
			err = mmu_watch(m.cpu->cpu, (gfn_t){ gfn });
			world_kick(m.cpu);
			world_check(m.cpu, !err || err == -EBUSY, "watch: %d", err);
			continue;
		}
		if (is_held(&m, gfn))
			continue;
		err = mmu_remap_begin(m.cpu->cpu, (gfn_t){ gfn });
		world_kick(m.cpu);
		world_check(m.cpu, !err || err == -EBUSY, "remap_begin: %d", err);
		if (err)
			continue;
		if (rng_percent(&m.rng, 10))
			mmu_remap_abort(m.cpu->cpu, (gfn_t){ gfn });
		else if (m.w->opt.nodes > 1 && m.nr_held < HELD && rng_percent(&m.rng, 40))
			replicate(&m, gfn);
		else
			move(&m, gfn);
		world_kick(m.cpu);
		sched_yield();
	}
	while (m.nr_held)
		release(&m, 0);
	return NULL;
}

static void fetch_all(struct crowd *c)
{
	uint64_t words = c->w->opt.nr_gfns / 64, bitmap[BASE(PROGRAMS) / 64] = { 0 }, i;
	int err = mmu_dirty_fetch(c->other->cpu, (gfn_t){ 0 }, words * 64, bitmap);

	world_check(c->other, !err, "dirty_fetch: %d", err);
	for (i = 0; i < words; i++)
		c->seen[i] |= bitmap[i];
	world_kick(c->other);
}

static void *run_logger(void *arg)
{
	struct crowd *c = arg;

	while (!stopped(c)) {
		fetch_all(c);
		sched_yield();
	}
	return NULL;
}

static void run_crowd(uint64_t seed, uint32_t pool_pages, void *(*interfere)(void *), uint64_t steps)
{
	static const unsigned kick_min[] = { 0, 4, 64 };
	uint64_t rng = seed * 0x9e3779b97f4a7c15ull, gfn;
	struct world_options wo = {
		.nr_gfns = BASE(PROGRAMS), .seed = seed, .pool_pages = pool_pages * (1 + seed % 3), .nodes = 1 + seed % 3,
		.cpus = PROGRAMS + 2,
		.fill = rng_below(&rng, 2), .prefetch = rng_below(&rng, 4), .prefetch_n = 1 + rng_below(&rng, 16),
		.large = rng_below(&rng, 2), .nx = true, .preset_ad = rng_below(&rng, 2), .link_ahead = rng_below(&rng, 2),
		.reach = seed % 2,
		.fill_linear = rng_below(&rng, 2),
		.table_kick_min = kick_min[rng_below(&rng, 3)],
	};
	struct crowd c = { .w = world_create(&wo), .steps = env_number("UMBRA_STEPS", steps / SCALE) };
	pthread_t threads[PROGRAMS], prebuilder, other;
	struct crowd_thread args[PROGRAMS];
	unsigned i;
	int err;

	c.other = &c.w->cpus[PROGRAMS];
	c.prebuilder = &c.w->cpus[PROGRAMS + 1];
	c.seen = calloc(wo.nr_gfns / 64, 8);
	for (i = 0; i < PROGRAMS; i++) {
		struct program_options po = { .seed = seed + i, .base = BASE(i), .strangers = true, .moved = interfere == run_mover };

		struct world_cpu *cpu = &c.w->cpus[i];

		c.programs[i] = program_create(c.w, &cpu, 1, &po);
		args[i] = (struct crowd_thread){ &c, i };
	}
	if (interfere == run_logger) {
		err = mmu_dirty_start(c.other->cpu);
		world_check(c.other, !err, "dirty_start: %d", err);
		world_kick(c.other);
	}
	pthread_create(&prebuilder, NULL, run_prebuilder, &c);
	if (interfere)
		pthread_create(&other, NULL, interfere, &c);
	for (i = 0; i < PROGRAMS; i++)
		pthread_create(&threads[i], NULL, run_program, &args[i]);
	for (i = 0; i < PROGRAMS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&c.stop, 1, __ATOMIC_RELEASE);
	pthread_join(prebuilder, NULL);
	if (interfere)
		pthread_join(other, NULL);

	if (interfere == run_logger) {
		fetch_all(&c);
		for (gfn = BASE(0); gfn < wo.nr_gfns; gfn++)
			world_check(c.other, !program_ever_dirty(c.programs[gfn / PROG_RANGE - 1])[gfn] ||
				    (c.seen[gfn / 64] >> (gfn & 63) & 1), "gfn %#llx was written, no fetch reported it",
				    (unsigned long long)gfn);
		err = mmu_dirty_stop(c.other->cpu);
		world_check(c.other, !err, "dirty_stop: %d", err);
		world_kick(c.other);
	}
	for (i = 0; i < PROGRAMS; i++)
		program_finish(c.programs[i], i == PROGRAMS - 1);
	for (i = 0; i < PROGRAMS; i++)
		program_destroy(c.programs[i]);
	free(c.seen);
	world_destroy(c.w);
}

static void run_crowds(uint64_t first_seed, uint32_t pool_pages, void *(*interfere)(void *))
{
	uint64_t one = env_number("UMBRA_SEED", 0);
	unsigned i;

	if (one) {
		run_crowd(one, pool_pages, interfere, 25000);
		return;
	}
	for (i = 0; i < 4; i++)
		run_crowd(first_seed + i, pool_pages, interfere, 25000);
}

static void test_prebuilding(void **state)
{
	run_crowds(6000, 512, NULL);
}

static void test_small_pool(void **state)
{
	run_crowds(6100, 2 * MMU_POOL_MIN, NULL);
}

static void test_moving(void **state)
{
	run_crowds(6200, 512, run_mover);
}

static void test_dirty_logging(void **state)
{
	run_crowds(6300, 512, run_logger);
}

/* ---- writers of one table --------------------------------------------------------------------------------------- */

#define ENTRIES		64u
#define VERSIONS	8u
#define SHARED_VA(i)	((uint64_t)(i) << 12)
#define WINDOW_VA	(511ull << 12)		/* the level-1 table, read-only */
#define DATA		64u
#define LEAF		(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D)

/* Entry i of version v maps frame DATA + i * VERSIONS + v % VERSIONS. */
struct shared {
	struct world *w;
	uint64_t begun[ENTRIES], done[ENTRIES];		/* versions; atomic */
	uint64_t rounds;
	int stop;
};

struct shared_thread {
	struct shared *s;
	unsigned i;
};

static uint64_t shared_gpte(unsigned entry, uint64_t version)
{
	return (uint64_t)(DATA + entry * VERSIONS + version % VERSIONS) << 12 | LEAF;
}

/* One access to the end. The frame it landed in; for a write `value` is stored in word `index`. */
static uint64_t shared_access(struct world_cpu *cpu, uint64_t va, const uint64_t *value, unsigned index)
{
	struct world *w = cpu->world;
	uint32_t access = value ? MMU_PF_W : 0;
	struct mmu_result r;
	unsigned tries;
	uint64_t mfn;
	bool ok, hit;

	for (tries = 0; tries < 100000; tries++) {
		pthread_mutex_lock(&cpu->lock);
		ok = world_try(cpu, MMU_KERNEL, va, access, &mfn, &hit);
		if (ok && value)
			__atomic_store_n(&world_mfn_words(w, mfn)[index], *value, __ATOMIC_SEQ_CST);
		pthread_mutex_unlock(&cpu->lock);
		if (ok)
			return mfn;
		r = mmu_fault(cpu->cpu, MMU_KERNEL, (gva_t){ va }, access);
		world_check(cpu, r.verdict <= MMU_PTWRITE || r.verdict == MMU_AGAIN, "verdict %d for va %#llx access %#x",
			    r.verdict, (unsigned long long)va, access);
		world_forget(cpu, MMU_KERNEL, va);
		world_kick(cpu);
	}
	world_fail(cpu, "va %#llx access %#x gets nowhere", (unsigned long long)va, access);
}

static void shared_read(struct shared *s, struct world_cpu *cpu, unsigned entry)
{
	uint64_t low = __atomic_load_n(&s->done[entry], __ATOMIC_SEQ_CST);
	uint64_t mfn = shared_access(cpu, SHARED_VA(entry), NULL, 0);
	uint64_t high = __atomic_load_n(&s->begun[entry], __ATOMIC_SEQ_CST), v;

	for (v = low; v <= high; v++)
		if (mfn == shared_gpte(entry, v) >> 12)
			return;
	world_fail(cpu, "entry %u shows frame %#llx, which no version from %llu to %llu maps: a completed update or flush "
		   "was undone", entry, (unsigned long long)mfn, (unsigned long long)low, (unsigned long long)high);
}

/* Writer i owns the entries with entry % 2 == i. */
static void *run_writer(void *arg)
{
	struct shared_thread *t = arg;
	struct shared *s = t->s;
	struct world_cpu *cpu = &s->w->cpus[t->i];
	uint64_t rng = s->w->opt.seed + t->i, n, value;
	unsigned entry, k;
	int err;

	for (n = 0; n < s->rounds; n++) {
		entry = rng_below(&rng, ENTRIES / 2) * 2 + t->i;
		value = shared_gpte(entry, s->begun[entry] + 1);
		__atomic_store_n(&s->begun[entry], s->begun[entry] + 1, __ATOMIC_SEQ_CST);
		if (rng_percent(&rng, 50)) {
			err = mmu_update(cpu->cpu, (gfn_t){ 13 }, entry, value, rng_percent(&rng, 50));
			world_check(cpu, !err, "update: %d", err);
		} else {
			shared_access(cpu, WINDOW_VA, &value, entry);
			if (rng_percent(&rng, 80))
				mmu_flush(cpu->cpu);
			else
				mmu_invlpg(cpu->cpu, (gva_t){ SHARED_VA(entry) });
		}
		if (s->w->opt.nodes > 1 && rng_percent(&rng, 2)) {
			world_set_node(cpu, rng_below(&rng, s->w->opt.nodes));
			world_load(cpu, MMU_KERNEL, 10);
		}
		world_kick(cpu);
		__atomic_store_n(&s->done[entry], s->begun[entry], __ATOMIC_SEQ_CST);
		for (k = 0; k < 3; k++)
			shared_read(s, cpu, rng_below(&rng, ENTRIES));
	}
	return NULL;
}

static void *run_reader(void *arg)
{
	struct shared_thread *t = arg;
	struct shared *s = t->s;
	struct world_cpu *cpu = &s->w->cpus[t->i];
	uint64_t rng = s->w->opt.seed + t->i;
	unsigned n;

	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		for (n = 0; n < 8; n++)
			mmu_prebuild(cpu->cpu, (gfn_t){ 13 }, rng_below(&rng, ENTRIES), 3, 0);
		for (n = 0; n < 8; n++)
			shared_read(s, cpu, rng_below(&rng, ENTRIES));
		if (mmu_kick_pending(cpu->cpu))
			world_kick(cpu);
	}
	return NULL;
}

static void run_shared(uint64_t seed, bool pinned)
{
	struct world_options wo = { .nr_gfns = 1024, .pool_pages = 64 * (1 + seed % 3), .nodes = 1 + seed % 3, .cpus = 3, .nx = true, .reach = seed % 2,
		.seed = seed,
				    .fill = seed & 1, .prefetch = seed >> 1 & 3, .prefetch_n = 4, .preset_ad = seed & 1,
				    .table_kick_min = seed & 2 ? 8 : 0 };
	struct shared s = { .w = world_create(&wo), .rounds = env_number("UMBRA_STEPS", 15000 / SCALE) };
	struct shared_thread args[3];
	pthread_t threads[3];
	unsigned i;
	int err;

	for (i = 0; i < 3; i++)
		world_write(s.w, 10 + i, 0, (uint64_t)(11 + i) << 12 | LEAF);
	for (i = 0; i < ENTRIES; i++)
		world_write(s.w, 13, i, shared_gpte(i, 0));
	world_write(s.w, 13, 511, 13ull << 12 | (LEAF & ~MMU_PTE_W));
	for (i = 0; i < 3; i++)
		world_load(&s.w->cpus[i], MMU_KERNEL, 10);
	if (pinned) {
		err = mmu_pin(s.w->cpus[0].cpu, (gfn_t){ 13 }, 1);
		world_check(&s.w->cpus[0], !err, "pin: %d", err);
		world_kick(&s.w->cpus[0]);
	}
	shared_access(&s.w->cpus[0], SHARED_VA(0), NULL, 0);	/* from now on it is shadowed, hence a table */
	for (i = 0; i < 3; i++) {
		args[i] = (struct shared_thread){ &s, i };
		pthread_create(&threads[i], NULL, i < 2 ? run_writer : run_reader, &args[i]);
	}
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	__atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
	pthread_join(threads[2], NULL);
	for (i = 0; i < 3; i++)
		world_kick(&s.w->cpus[i]);
	mmu_flush(s.w->cpus[0].cpu);
	world_kick(&s.w->cpus[0]);
	world_check(&s.w->cpus[0], mmu_audit(s.w->cpus[0].cpu) == 0, "the audit complains");
	world_destroy(s.w);
}

static void test_two_writers(void **state)
{
	uint64_t one = env_number("UMBRA_SEED", 0), seed;

	for (seed = one ? one : 7000; seed < (one ? one + 1 : 7004); seed++)
		run_shared(seed, seed & 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prebuilding),
		cmocka_unit_test(test_small_pool),
		cmocka_unit_test(test_moving),
		cmocka_unit_test(test_dirty_logging),
		cmocka_unit_test(test_two_writers),
	};

	return cmocka_run_group_tests_name("mmu: threads", tests, NULL, NULL);
}
