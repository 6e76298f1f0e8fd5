/*
 * Frames that move and have copies (mmu.h: mmu_remap_*(), mmu_replicate(), mmu_write(), mmu_fix()): written tests, and
 * processors on two nodes that write and read the same frames while another thread moves and replicates these.
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

#include "mmu_program_internal.h"
#include "mmu_rig.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCALE 4
#elif defined(__SANITIZE_THREAD__)
#define SCALE 10
#else
#define SCALE 1
#endif

#define GFN(n) ((gfn_t){ n })

/* Processor 0 on node 0, processor 1 on node 1; both run the kernel and the user of root L4. */
static struct rig open_two(bool large)
{
	struct rig r = rig_open((struct world_options){ .nx = true, .audit = 1, .cpus = 2, .nodes = 2, .pool_pages = 512,
							.large = large });

	r.p->cpu = &r.w->cpus[1];
	program_load(r.p, MMU_KERNEL, L4);
	program_load(r.p, MMU_USER, L4);
	r.p->cpu = r.cpu;
	return r;
}

static void run_on(struct rig *r, unsigned i)
{
	r->cpu = r->p->cpu = &r->w->cpus[i];
}

static struct mmu_result fault(struct rig *r, uint64_t va, uint32_t access)
{
	struct mmu_result f = mmu_fault(r->cpu->cpu, MMU_USER, (gva_t){ va }, access);

	r->cpu->seen.hidden += f.verdict == MMU_HIDDEN;
	r->cpu->seen.spurious += f.verdict == MMU_SPURIOUS;
	r->cpu->seen.again += f.verdict == MMU_AGAIN;
	return f;
}

/* The machine frame that processor `i` gets by its shadow; 0: none, or not with these rights. */
static uint64_t mapped(struct rig *r, unsigned i, uint64_t va, uint32_t access)
{
	struct soft_walk walk;

	world_soft_walk(&r->w->cpus[i], MMU_USER, va, &walk);
	return soft_allows(&walk, access) ? walk.mfn : 0;
}

static void begin(struct rig *r, uint64_t gfn)
{
	assert_int_equal(mmu_remap_begin(r->cpu->cpu, GFN(gfn)), 0);
	program_kick(r->p);
}

/* To spare frames 0 and 1, node by node. */
static void replicate(struct rig *r, uint64_t gfn)
{
	const mfn_t at[2] = { { r->w->spare }, { r->w->spare + 1 } };

	begin(r, gfn);
	r->w->mfn_gfn[at[0].n] = r->w->mfn_gfn[at[1].n] = gfn;
	r->w->collapsed[gfn] = 0;
	assert_int_equal(mmu_replicate(r->cpu->cpu, GFN(gfn), at), 0);
}

static void test_copies(void **state)
{
	struct rig r = open_two(false);
	uint64_t at = r.w->spare, bad = r.w->pool;
	struct mmu_result f;

	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	assert_int_equal(mmu_replicate(r.cpu->cpu, GFN(DATA + 1), (mfn_t[]){ { at }, { at + 1 } }), -EINVAL);
	replicate(&r, DATA + 1);
	assert_int_equal(mmu_pmap(r.w->mmu, GFN(DATA + 1)).n, DATA + 1);
	assert_int_equal(mmu_pmap_on(r.w->mmu, GFN(DATA + 1), 1).n, at + 1);
	assert_int_equal(mmu_pmap_on(r.w->mmu, GFN(DATA + 1), 2).n, ~0ull);
	program_access(r.p, MMU_USER, VA(1), 0);
	assert_int_equal(mapped(&r, 0, VA(1), 0), at);
	assert_int_equal(mapped(&r, 0, VA(1), MMU_PF_W), 0);
	run_on(&r, 1);
	program_access(r.p, MMU_USER, VA(1), 0);
	assert_int_equal(mapped(&r, 1, VA(1), 0), at + 1);

	/* The first write: its node's copy stays, and nobody writes before the kicks. */
	f = fault(&r, VA(1), MMU_PF_W);
	assert_int_equal(f.verdict, MMU_AGAIN);
	assert_int_equal(f.gfn.n, MMU_NO_GFN.n);
	assert_true(r.w->collapsed[DATA + 1]);
	assert_int_equal(mmu_pmap(r.w->mmu, GFN(DATA + 1)).n, at + 1);
	assert_int_equal(mapped(&r, 0, VA(1), 0), 0);
	assert_int_equal(fault(&r, VA(1), MMU_PF_W).verdict, MMU_AGAIN);
	assert_int_equal(fault(&r, VA(1), 0).verdict, MMU_HIDDEN);
	assert_int_equal(mapped(&r, 1, VA(1), 0), at + 1);
	assert_int_equal(mapped(&r, 1, VA(1), MMU_PF_W), 0);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), -EAGAIN);
	program_kick(r.p);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), 0);
	r.w->mfn_gfn[at] = r.w->mfn_gfn[DATA + 1] = -1;
	f = fault(&r, VA(1), MMU_PF_W);
	assert_true(f.verdict == MMU_HIDDEN && f.gfn.n == DATA + 1);
	assert_int_equal(mapped(&r, 1, VA(1), MMU_PF_W), at + 1);
	run_on(&r, 0);
	program_access(r.p, MMU_USER, VA(1), MMU_PF_W);
	assert_int_equal(mapped(&r, 0, VA(1), MMU_PF_W), at + 1);
	assert_int_equal(stats_of(&r).replicas, 1);

	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(NR_GFNS)), -EINVAL);
	begin(&r, DATA + 2);
	assert_int_equal(mmu_replicate(r.cpu->cpu, GFN(DATA + 2), (mfn_t[]){ { at }, { bad } }), -EINVAL);
	program_pin(r.p, DATA + 2, 1);
	assert_int_equal(mmu_replicate(r.cpu->cpu, GFN(DATA + 2), (mfn_t[]){ { at }, { at } }), -EBUSY);
	mmu_remap_abort(r.cpu->cpu, GFN(DATA + 2));
	rig_close(&r);
}

/* A kick of another cpu's counts: it took a leaf away before, which a processor may still use. */
static void test_others_owe(void **state)
{
	struct rig r = open_two(false);

	replicate(&r, DATA + 1);
	program_access(r.p, MMU_USER, VA(1), 0);
	assert_int_equal(mmu_update(r.cpu->cpu, GFN(L1), 1, 0, false), 0);
	model_store(r.p->m, L1, 1, 0);
	run_on(&r, 1);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), -EAGAIN);
	world_kick(r.cpu);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), -EAGAIN);
	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(DATA + 1)), -EAGAIN);
	world_kick(&r.w->cpus[0]);
	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(DATA + 1)), 0);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), 0);
	rig_close(&r);
}

/* Until processors have forgotten the other copies, the VMM's stores go there, too. */
static void test_stores(void **state)
{
	struct rig r = open_two(false);
	uint64_t at = r.w->spare, value = 0xda7a0000cafe0000, half = 0x1234;
	unsigned i;

	replicate(&r, DATA + 1);
	assert_int_equal(mmu_write(r.cpu->cpu, GFN(DATA + 1), 8, &value, 8), 0);
	assert_true(r.w->collapsed[DATA + 1]);
	assert_int_equal(mmu_write(r.cpu->cpu, GFN(DATA + 1), 18, &half, 2), 0);
	model_store(r.p->m, DATA + 1, 1, value);
	model_store(r.p->m, DATA + 1, 2, half << 16);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), 0);		/* nothing had been mapped */

	replicate(&r, DATA + 1);
	program_access(r.p, MMU_USER, VA(1), 0);
	assert_int_equal(mmu_write(r.cpu->cpu, GFN(DATA + 1), 16, &value, 8), 0);
	assert_int_equal(mmu_update(r.cpu->cpu, GFN(DATA + 1), 3, value, false), 0);
	model_store(r.p->m, DATA + 1, 2, value);
	model_store(r.p->m, DATA + 1, 3, value);
	for (i = 0; i < 2; i++) {
		assert_int_equal(world_mfn_words(r.w, at + i)[2], value);
		assert_int_equal(world_mfn_words(r.w, at + i)[3], value);
	}
	assert_int_equal(mmu_write(r.cpu->cpu, GFN(DATA + 1), 4095, &value, 2), -EINVAL);
	assert_int_equal(mmu_write(r.cpu->cpu, GFN(NR_GFNS), 0, &value, 2), -EINVAL);
	program_kick(r.p);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), 0);

	/* A store into a table reaches its shadows. */
	program_access(r.p, MMU_USER, VA(5), 0);
	value = (uint64_t)(DATA + 6) << 12 | LEAF;
	assert_int_equal(mmu_write(r.cpu->cpu, GFN(L1), 5 * 8, &value, 8), 0);
	model_store(r.p->m, L1, 5, value);
	assert_int_equal(mapped(&r, 0, VA(5), 0), 0);
	rig_close(&r);
}

/* A table has no copies. */
static void test_tables(void **state)
{
	struct rig r = open_two(false);
	uint64_t at = r.w->spare;

	replicate(&r, DATA + 1);
	program_access(r.p, MMU_USER, VA(1), 0);
	program_pin(r.p, DATA + 1, 1);
	assert_true(r.w->collapsed[DATA + 1]);
	assert_int_equal(mmu_pmap(r.w->mmu, GFN(DATA + 1)).n, DATA + 1);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 1)), 0);
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, GFN(DATA + 1)), -EBUSY);
	program_unpin(r.p, DATA + 1);

	/* A table that nobody has walked yet may be replicated as the data it is; the walk ends that. */
	program_update(r.p, DATA + 2, 0, (uint64_t)(DATA + 9) << 12 | (LEAF & ~(MMU_PTE_A | MMU_PTE_D)));
	program_update(r.p, L2, 1, (uint64_t)(DATA + 2) << 12 | LINK);
	replicate(&r, DATA + 2);
	program_access(r.p, MMU_USER, 1ull << 21, MMU_PF_W);
	assert_true(r.w->collapsed[DATA + 2]);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(DATA + 2)), 0);
	assert_true(world_mfn_words(r.w, mmu_pmap(r.w->mmu, GFN(DATA + 2)).n)[0] & MMU_PTE_D);
	r.w->mfn_gfn[at + 1] = -1;
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, GFN(L4)), -EBUSY);
	rig_close(&r);
}

static void test_fixed(void **state)
{
	struct rig r = open_two(false);

	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(NR_GFNS)), -EINVAL);
	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(DATA + 1)), 0);
	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(DATA + 1)), 0);
	mmu_unfix(r.cpu->cpu, GFN(DATA + 1));
	assert_int_equal(mmu_remap_begin(r.cpu->cpu, GFN(DATA + 1)), -EBUSY);
	assert_int_equal(mmu_watch(r.cpu->cpu, GFN(DATA + 1)), -EBUSY);
	mmu_unfix(r.cpu->cpu, GFN(DATA + 1));
	begin(&r, DATA + 1);
	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(DATA + 1)), -EAGAIN);
	mmu_remap_abort(r.cpu->cpu, GFN(DATA + 1));
	assert_int_equal(mmu_fix(r.cpu->cpu, GFN(DATA + 1)), 0);
	mmu_unfix(r.cpu->cpu, GFN(DATA + 1));
	rig_close(&r);
}

/* ---- 2 MiB ------------------------------------------------------------------------------------------------------ */

#define FROM	512u	/* a region of the guest's ... */
#define TO	1024u	/* ... and one of machine frames, whose guest frames nobody uses */
#define VA_2M	(2ull << 21)

static void move_one(struct rig *r, uint64_t gfn, uint64_t to)
{
	begin(r, gfn);
	r->w->mfn_gfn[r->w->gfn_mfn[gfn]] = -1;
	r->w->mfn_gfn[to] = gfn;
	assert_int_equal(mmu_remap_commit(r->cpu->cpu, GFN(gfn), (mfn_t){ to }), 0);
	r->w->gfn_mfn[gfn] = to;
}

/* A large page that moves frame by frame is mapped by small leaves, until it is in one piece again. */
static void test_large(void **state)
{
	struct rig r = open_two(true);
	uint64_t stay = FROM + 77, i;

	program_update(r.p, L2, 2, (uint64_t)FROM << 12 | LEAF | MMU_PTE_PS);
	program_access(r.p, MMU_USER, VA_2M, MMU_PF_W);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	for (i = 0; i < 512; i++) {
		if (FROM + i == stay)
			continue;
		move_one(&r, FROM + i, TO + i);
		if (i % 64 == 0)
			program_access(r.p, MMU_USER, VA_2M + VA(i), MMU_PF_W);
		assert_int_equal(usage_of(&r).large_leaves, 0);
	}
	program_access(r.p, MMU_USER, VA_2M + VA(77), MMU_PF_W);
	assert_int_equal(mapped(&r, 0, VA_2M + VA(77), MMU_PF_W), stay);
	move_one(&r, stay, TO + 77);
	program_access(r.p, MMU_USER, VA_2M + VA(77), MMU_PF_W);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	assert_int_equal(mapped(&r, 0, VA_2M + VA(511), MMU_PF_W), TO + 511);
	run_on(&r, 1);
	program_access(r.p, MMU_USER, VA_2M + VA(5), 0);
	assert_int_equal(usage_of(&r).large_leaves, 2);		/* one per node */

	/* Copies of one frame of it, then home again. */
	replicate(&r, FROM + 5);
	assert_int_equal(usage_of(&r).large_leaves, 0);
	program_access(r.p, MMU_USER, VA_2M + VA(5), 0);
	assert_int_equal(usage_of(&r).large_leaves, 0);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(FROM + 5)), -EAGAIN);
	program_kick(r.p);
	assert_int_equal(mmu_collapse(r.cpu->cpu, GFN(FROM + 5)), 0);
	program_access(r.p, MMU_USER, VA_2M + VA(5), MMU_PF_W);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	for (i = 0; i < 512; i++)
		move_one(&r, FROM + i, FROM + i);
	program_access(r.p, MMU_USER, VA_2M + VA(9), MMU_PF_W);
	assert_int_equal(usage_of(&r).large_leaves, 1);
	assert_int_equal(mapped(&r, 1, VA_2M + VA(9), MMU_PF_W), FROM + 9);
	rig_close(&r);
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

/*
 * Processor i owns word i of each frame and counts in it; what it has written it then tells the others. Who was told of
 * a count, and reads less, has read a copy that it should have forgotten, or a store was lost in a move.
 */
#define FRAMES		12u
#define WRITERS		3u
#define HELD		4u	/* frames replicated at a time */

struct shared {
	struct world *w;
	uint64_t told[FRAMES][WRITERS], round[WRITERS];	/* atomic */
	uint64_t rounds;			/* at least; and until the mover has done enough */
	int enough, stop;			/* atomic */
};

struct shared_thread {
	struct shared *s;
	unsigned i;
};

/* One access to the end: stores `*value` in, or loads it from, word `index`. */
static void access_word(struct world_cpu *cpu, uint64_t va, unsigned index, bool write, uint64_t *value)
{
	uint32_t access = write ? MMU_PF_W : 0;
	struct mmu_result r;
	unsigned tries;
	uint64_t mfn;
	bool ok, hit;

	for (tries = 0; tries < 200000; tries++) {
		pthread_mutex_lock(&cpu->lock);
		ok = world_try(cpu, MMU_USER, va, access, &mfn, &hit);
		if (ok && write)
			__atomic_store_n(&world_mfn_words(cpu->world, mfn)[index], *value, __ATOMIC_SEQ_CST);
		else if (ok)
			*value = __atomic_load_n(&world_mfn_words(cpu->world, mfn)[index], __ATOMIC_SEQ_CST);
		pthread_mutex_unlock(&cpu->lock);
		if (ok)
			return;
		r = mmu_fault(cpu->cpu, MMU_USER, (gva_t){ va }, access);
		world_check(cpu, r.verdict <= MMU_SPURIOUS || r.verdict == MMU_AGAIN, "verdict %d", r.verdict);
		world_forget(cpu, MMU_USER, va);
		if (r.verdict == MMU_AGAIN && !mmu_kick_pending(cpu->cpu))
			sched_yield();
		sched_yield();		/* others find the leaf before our kicks are done */
		world_kick(cpu);
	}
	world_fail(cpu, "va %#llx access %#x gets nowhere", (unsigned long long)va, access);
}

static void read_word(struct shared *s, struct world_cpu *cpu, unsigned frame, unsigned index)
{
	uint64_t told = __atomic_load_n(&s->told[frame][index], __ATOMIC_SEQ_CST), value;

	access_word(cpu, VA(frame), index, false, &value);
	world_check(cpu, value >= told && value <= __atomic_load_n(&s->round[index], __ATOMIC_SEQ_CST), "frame %u word %u holds %llu, after %llu was written", frame,
		    index, (unsigned long long)value, (unsigned long long)told);
}

static void *run_processor(void *arg)
{
	struct shared_thread *t = arg;
	struct shared *s = t->s;
	struct world_cpu *cpu = &s->w->cpus[t->i];
	uint64_t rng = s->w->opt.seed + t->i, n;
	unsigned frame, k;
	int err;

	for (n = 1; n <= s->rounds || !__atomic_load_n(&s->enough, __ATOMIC_ACQUIRE); n++) {
		__atomic_store_n(&s->round[t->i], n, __ATOMIC_SEQ_CST);
		for (k = 0; k < 12; k++)
			read_word(s, cpu, rng_below(&rng, FRAMES), rng_below(&rng, WRITERS));
		if (rng_percent(&rng, 50))
			continue;
		frame = rng_below(&rng, FRAMES);
		if (rng_percent(&rng, 80)) {
			access_word(cpu, VA(frame), t->i, true, &n);
		} else {
			err = mmu_write(cpu->cpu, GFN(DATA + frame), t->i * 8, &n, 8);
			world_check(cpu, !err, "mmu_write: %d", err);
		}
		__atomic_store_n(&s->told[frame][t->i], n, __ATOMIC_SEQ_CST);
		read_word(s, cpu, frame, t->i);
		if (mmu_kick_pending(cpu->cpu) && rng_percent(&rng, 50))
			world_kick(cpu);
	}
	world_kick(cpu);
	return NULL;
}

struct held {
	uint64_t gfn, at[2];
};

/* What was left, or is a copy no longer used, is overwritten at once. */
static void give_back(struct world *w, uint64_t mfn, uint64_t *spare, unsigned *nr)
{
	unsigned i;

	for (i = 0; i < 512; i++)
		__atomic_store_n(&world_mfn_words(w, mfn)[i], ~0ull, __ATOMIC_RELAXED);
	spare[(*nr)++] = mfn;
}

static void *run_mover(void *arg)
{
	struct shared *s = ((struct shared_thread *)arg)->s;
	struct world *w = s->w;
	struct world_cpu *cpu = &w->cpus[WRITERS];
	uint64_t rng = w->opt.seed ^ 0x6d6f, spare[WORLD_SPARE + FRAMES], gfn, from, to;
	struct held held[HELD];
	unsigned nr = 0, nr_held = 0, ended = 0, i;
	int err;

	for (i = 0; i < WORLD_SPARE; i++)
		spare[nr++] = w->spare + i;
	while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
		i = rng_below(&rng, HELD);
		if (i < nr_held && (__atomic_load_n(&w->collapsed[held[i].gfn], __ATOMIC_ACQUIRE) || rng_percent(&rng, 5))) {
			err = mmu_collapse(cpu->cpu, GFN(held[i].gfn));
			world_kick(cpu);
			world_check(cpu, !err || err == -EAGAIN, "collapse: %d", err);
			to = mmu_pmap(w->mmu, GFN(held[i].gfn)).n;
			for (unsigned k = 0; !err && k < 2; k++)
				if (held[i].at[k] != to)
					give_back(w, held[i].at[k], spare, &nr);
			if (!err) {
				held[i] = held[--nr_held];
				__atomic_store_n(&s->enough, ++ended >= 100, __ATOMIC_RELEASE);
			}
		}
		gfn = DATA + rng_below(&rng, FRAMES);
		for (i = 0; i < nr_held && held[i].gfn != gfn; i++)
			;
		if (i < nr_held)
			continue;
		if (rng_percent(&rng, 15)) {
			err = mmu_watch(cpu->cpu, GFN(gfn));
			world_check(cpu, !err, "watch: %d", err);
			world_kick(cpu);
			continue;
		}
		err = mmu_remap_begin(cpu->cpu, GFN(gfn));
		world_check(cpu, !err, "remap_begin: %d", err);
		world_kick(cpu);
		from = mmu_pmap(w->mmu, GFN(gfn)).n;
		to = spare[--nr];
		if (nr_held < HELD && rng_percent(&rng, 60)) {
			bool first = rng_percent(&rng, 50);
			mfn_t at[2] = { { first ? from : to }, { first ? to : from } };

			__atomic_store_n(&w->collapsed[gfn], 0, __ATOMIC_RELEASE);
			err = mmu_replicate(cpu->cpu, GFN(gfn), at);
			held[nr_held++] = (struct held){ gfn, { from, to } };
		} else if (rng_percent(&rng, 10)) {
			mmu_remap_abort(cpu->cpu, GFN(gfn));
			spare[nr++] = to;
		} else {
			err = mmu_remap_commit(cpu->cpu, GFN(gfn), (mfn_t){ to });
			give_back(w, from, spare, &nr);
		}
		world_check(cpu, !err, "end of a move: %d", err);
		sched_yield();
	}
	return NULL;
}

static void run_shared(uint64_t seed)
{
	struct world_options wo = { .nr_gfns = 1024, .pool_pages = 128, .nodes = 2, .cpus = WRITERS + 1, .nx = true, .seed = seed,
				    .prefetch = seed & 3, .prefetch_n = 4, .preset_ad = seed & 1, .fill_linear = seed >> 1 & 1,
				    .table_kick_min = seed & 2 ? 8 : 0 };
	struct shared s = { .w = world_create(&wo), .rounds = env_number("UMBRA_STEPS", 30000 / SCALE) };
	struct shared_thread args[WRITERS + 1];
	pthread_t threads[WRITERS + 1];
	struct world_cpu *cpu = &s.w->cpus[WRITERS];
	struct mmu_stats stats;
	unsigned i, k;

	for (i = 0; i < 3; i++)
		world_write(s.w, L4 + i, 0, (uint64_t)(L4 + 1 + i) << 12 | LINK);
	for (i = 0; i < FRAMES; i++)
		world_write(s.w, L1, i, (uint64_t)(DATA + i) << 12 | LEAF);
	for (i = 0; i < WRITERS; i++)
		world_load(&s.w->cpus[i], MMU_USER, L4);
	for (i = 0; i <= WRITERS; i++) {
		args[i] = (struct shared_thread){ &s, i };
		pthread_create(&threads[i], NULL, i < WRITERS ? run_processor : run_mover, &args[i]);
	}
	for (i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
	pthread_join(threads[WRITERS], NULL);
	world_kick(cpu);
	for (i = 0; i < FRAMES; i++)
		for (k = 0; k < WRITERS; k++)
			world_check(cpu, ((uint64_t *)mmu_gfn_hva(s.w->mmu, GFN(DATA + i)))[k] == s.told[i][k],
				    "frame %u word %u: the last store was lost", i, k);
	mmu_stats(s.w->mmu, &stats);
	world_check(cpu, stats.remaps && stats.replicas && stats.collapses, "%llu moves, %llu replicas, %llu collapses",
		    (unsigned long long)stats.remaps, (unsigned long long)stats.replicas,
		    (unsigned long long)stats.collapses);
	if (getenv("UMBRA_VERBOSE"))
		printf("%llu moves, %llu replicas, %llu collapses\n", (unsigned long long)stats.remaps,
		       (unsigned long long)stats.replicas, (unsigned long long)stats.collapses);
	mmu_flush(cpu->cpu);
	world_kick(cpu);
	world_check(cpu, mmu_audit(cpu->cpu) == 0, "the audit complains");
	world_destroy(s.w);
}

static void test_writers_and_readers(void **state)
{
	uint64_t one = env_number("UMBRA_SEED", 0), seed;

	for (seed = one ? one : 8000; seed < (one ? one + 1 : 8004); seed++)
		run_shared(seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_others_owe),
		cmocka_unit_test(test_stores),
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_fixed),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_writers_and_readers),
	};

	return cmocka_run_group_tests_name("mmu: moves and copies", tests, NULL, NULL);
}
