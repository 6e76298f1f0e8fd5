/*
 * mmu_world.h - a machine for tests of mmu/: VM memory, software processors that walk the shadow tables, and the kicks
 * between them.
 *
 * A software processor has a TLB that also keeps upper-level paths and survives root loads. An entry remembers the
 * sPTEs it was formed from and leaves only when one of them is kicked, so a kick that mmu/ forgot shows as a stale
 * access. An access holds the processor's lock from walk to data, as an instruction delays the flush IPI of another.
 */
#ifndef UMBRA_TESTS_MMU_WORLD_H
#define UMBRA_TESTS_MMU_WORLD_H

#include <pthread.h>
#include <stdarg.h>

#include "mmu/mmu.h"
#include "mmu_model.h"

#define WORLD_CPUS	4
#define WORLD_TLB	256
#define WORLD_PATHS	64
#define WORLD_SPARE	64u	/* frames to move guest frames to */
#define WORLD_TRACE	200
#define WORLD_LARGE_POOL	256u	/* pages for a node with which no program runs dry */

struct world_options {
	uint64_t nr_gfns;
	uint32_t pool_pages;	/* of all nodes */
	unsigned cpus, nodes;	/* 0 nodes: as 1 */
	enum mmu_fill fill;
	enum mmu_prefetch_kind prefetch;
	unsigned prefetch_n;
	bool large, nx, preset_ad, link_ahead, fill_linear;
	bool reach;		/* kicks reach only those whom mmu/ names */
	unsigned table_kick_min, audit, sample_every;
	bool serial;		/* one thread drives all processors */
	uint64_t seed;		/* printed when a check fails */
};

struct tlb_entry {
	bool valid;
	uint64_t cr3, vpn;	/* for a path: va >> 21 */
	uint64_t mfn;		/* the data frame; for a path: the level-1 table */
	bool w, x;
	enum mmu_mode mode;	/* what the root stood for when this was cached */
	uint64_t l4;
	unsigned nr_src;
	uint64_t src[MMU_LEVELS];	/* sPTEs: mfn * 512 + index */
};

#define WORLD_VIEW_SLOT	5

struct world_cpu {
	struct world *world;
	struct mmu_cpu *cpu;
	pthread_mutex_t lock;		/* TLB, and the whole of an access */
	struct tlb_entry tlb[WORLD_TLB], path[WORLD_PATHS];
	uint64_t cr3[2], l4[2];		/* [enum mmu_mode]; MODEL_NONE: nothing loaded */
	unsigned node, root_node[2];	/* where it is, and was when it loaded the root */
	uint64_t (*kick_bits)[8];	/* scratch of the kicker: [pool page] */
	uint8_t *kick_whole;
	struct mmu_stats seen;		/* verdicts as this side counted them */
	char trace[WORLD_TRACE][128];
	unsigned nr_trace;
};

struct world {
	struct world_options opt;
	struct mmu_config config;
	uint64_t view_entry[WORLD_CPUS];	/* kernel roots are each cpu's own: hole slot WORLD_VIEW_SLOT names it */
	struct mmu *mmu;
	uint8_t *mem;			/* every frame: RAM, spare, hole tables, pool */
	uint64_t nr_mfns, spare, holes, pool;
	int64_t *mfn_gfn;		/* which guest frame a machine frame holds; -1: none. Atomic */
	uint64_t *gfn_mfn;		/* atomic */
	uint8_t *collapsed;		/* [gfn] mmu/ has said so since the test cleared it; atomic */
	struct world_cpu cpus[WORLD_CPUS];
	int nr_audit_failed;
	uint64_t kicks_spared;	/* atomic: kicks times processors that did not hear of them */
};

struct world *world_create(const struct world_options *opt);
void world_destroy(struct world *w);

/* Prints what failed, the seed, and what this cpu did last; does not return. */
_Noreturn void world_fail(struct world_cpu *cpu, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_trace(struct world_cpu *cpu, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define world_check(cpu, cond, ...) do { if (!(cond)) world_fail(cpu, __VA_ARGS__); } while (0)

static inline uint64_t *world_mfn_words(struct world *w, uint64_t mfn)
{
	return (uint64_t *)(w->mem + mfn * MMU_PAGE_SIZE);
}

uint64_t world_read(struct world *w, uint64_t gfn, unsigned index);
void world_write(struct world *w, uint64_t gfn, unsigned index, uint64_t value);

/* Drains `cpu`'s kicks, makes every processor forget, says done. */
void world_kick(struct world_cpu *cpu);

/* The processor is on another node from now on; roots follow when they are loaded. */
void world_set_node(struct world_cpu *cpu, unsigned node);

/* Loads a root, doing the kicks while the pool is dry. */
void world_load(struct world_cpu *cpu, enum mmu_mode mode, uint64_t l4);

struct soft_walk {
	bool present;		/* a translation, with these rights: */
	bool w, x, large;
	bool path_w, path_x;	/* what the levels above the leaf leave */
	uint64_t mfn;
	unsigned nr_src;
	uint64_t src[MMU_LEVELS];
};

/* Walks the shadow in memory, no TLB. Fails the test if it meets an entry no processor could accept. */
void world_soft_walk(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va, struct soft_walk *out);
bool soft_allows(const struct soft_walk *walk, uint32_t access);

/* One attempt of the processor: TLB, paths, shadow. False: page fault. On success *mfn is the frame; *hit: the TLB
 * answered. The caller holds cpu->lock, and accesses the frame before letting go of it. */
bool world_try(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va, uint32_t access, uint64_t *mfn, bool *hit);
/* The processor drops what it holds for the address, as it does at a fault of its own. Takes cpu->lock. */
void world_forget(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va);

/* Calls `fn` for every present leaf below a loaded root (hole excluded), until `max` were visited. */
typedef void (*world_leaf_fn)(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va, const struct soft_walk *leaf,
			      void *arg);
void world_for_each_leaf(struct world_cpu *cpu, enum mmu_mode mode, unsigned max, world_leaf_fn fn, void *arg);

/* splitmix64 */
static inline uint64_t rng_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline unsigned rng_below(uint64_t *state, unsigned n)
{
	return (rng_next(state) >> 32) * n >> 32;
}

static inline bool rng_percent(uint64_t *state, unsigned percent)
{
	return rng_below(state, 100) < percent;
}

uint64_t env_number(const char *name, uint64_t otherwise);

#endif
