/*
 * mmu_rig.h - a small guest for written tests of mmu/: two roots over the same three tables, one page per leaf entry.
 */
#ifndef UMBRA_TESTS_MMU_RIG_H
#define UMBRA_TESTS_MMU_RIG_H

#include "mmu_program.h"

#define NR_GFNS	1536u
#define LINK	(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A)
#define LEAF	(LINK | MMU_PTE_D)
#define L4	10u		/* two roots: 10, 14 */
#define L4B	14u
#define L3	11u
#define L2	12u
#define L1	13u
#define DATA	64u
#define VA(i)	((uint64_t)(i) << 12)	/* entry i of L1 */
#define VA2(i)	(1ull << 39 | (uint64_t)(i) << 12)	/* the same by slot 1 of the root */

struct rig {
	struct world *w;
	struct world_cpu *cpu;
	struct program *p;
};

/* Root 10 and 14 -> 11 -> 12 -> 13; entry i of 13 maps DATA + i for i < 64. */
static inline struct rig rig_open(struct world_options wo)
{
	struct program_options po = { .seed = 1, .alone = true, .empty = true };
	struct rig r;
	struct world_cpu *cpus[WORLD_CPUS];
	unsigned i;

	wo.nr_gfns = NR_GFNS;
	wo.cpus = wo.cpus ? wo.cpus : 1;
	wo.pool_pages = wo.pool_pages ? wo.pool_pages : 128;
	r.w = world_create(&wo);
	r.cpu = &r.w->cpus[0];
	for (i = 0; i < wo.cpus; i++)
		cpus[i] = &r.w->cpus[i];
	r.p = program_create(r.w, cpus, wo.cpus, &po);
	program_update(r.p, L4, 0, (uint64_t)L3 << 12 | LINK);
	program_update(r.p, L4, 1, (uint64_t)L3 << 12 | LINK);
	program_update(r.p, L4B, 0, (uint64_t)L3 << 12 | LINK);
	program_update(r.p, L3, 0, (uint64_t)L2 << 12 | LINK);
	program_update(r.p, L2, 0, (uint64_t)L1 << 12 | LINK);
	for (i = 0; i < 64; i++)
		program_update(r.p, L1, i, (uint64_t)(DATA + i) << 12 | LEAF);
	program_load(r.p, MMU_KERNEL, L4);
	program_load(r.p, MMU_USER, L4);
	return r;
}

static inline struct rig rig_open_plain(void)
{
	return rig_open((struct world_options){ .nx = true, .audit = 1 });
}

static inline void rig_close(struct rig *r)
{
	program_finish(r->p, true);
	program_destroy(r->p);
	world_destroy(r->w);
}

static inline bool shadow_allows(struct rig *r, enum mmu_mode mode, uint64_t va, uint32_t access)
{
	struct soft_walk walk;

	world_soft_walk(r->cpu, mode, va, &walk);
	return soft_allows(&walk, access);
}

static inline struct mmu_stats stats_of(struct rig *r)
{
	struct mmu_stats s;

	mmu_cpu_stats(r->cpu->cpu, &s);
	return s;
}

static inline struct mmu_usage usage_of(struct rig *r)
{
	struct mmu_usage u;

	mmu_usage(r->w->mmu, &u);
	return u;
}

#endif
