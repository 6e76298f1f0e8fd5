/*
 * touched.c - distinct guest frames: a model of what a second level of tables (EPT, NPT) would fault on. With one, the first
 * access to a frame is a violation, and so is the first walk through a page-table page; later ones are none, whatever the
 * guest does to its tables. Without one the first access to a frame is a fault here: on the way a fault takes, every table and
 * the leaf is noted. What was prebuilt may be used without a fault, so frames shown by it are counted apart; a sample that
 * turns out to have been used (sample.c) is a touch like any other.
 */
#include "mmu/internal.h"

#define TOUCHED		1u
#define TOUCHED_TABLE	2u
#define REACHABLE	4u	/* touched or shown */

/* The flags that were not there before. */
static unsigned note(uint8_t *at, unsigned flags)
{
	if ((__atomic_load_n(at, __ATOMIC_RELAXED) & flags) == flags)
		return 0;
	return flags & ~__atomic_fetch_or(at, flags, __ATOMIC_RELAXED);
}

/* Counts for the cpu, or for the MMU where there is none. */
static void note_frame(struct mmu *mmu, struct mmu_cpu *cpu, uint64_t gfn, unsigned flags)
{
	struct mmu_stats *stats = cpu ? &cpu->stats : &mmu->gone;
	unsigned fresh = gfn < mmu->nr_gfns ? note(&mmu->touched[gfn], flags) : 0;

	if (!fresh)
		return;
	if (fresh & TOUCHED)
		__atomic_add_fetch(&stats->touched, 1, __ATOMIC_RELAXED);
	if (fresh & TOUCHED_TABLE)
		__atomic_add_fetch(&stats->touched_tables, 1, __ATOMIC_RELAXED);
	if (fresh & REACHABLE)
		__atomic_add_fetch(&stats->reachable, 1, __ATOMIC_RELAXED);
	if ((fresh & TOUCHED) && note(&mmu->touched2m[gfn >> 9], TOUCHED))
		__atomic_add_fetch(&stats->touched_2m, 1, __ATOMIC_RELAXED);
}

void touched_by_fault(struct mmu_cpu *cpu, const struct gwalk *w, enum mmu_verdict verdict)
{
	unsigned level;

	/* The walk itself reads tables, granted or not. */
	for (level = MMU_LEVELS; level >= w->level && level; level--)
		note_frame(cpu->mmu, cpu, w->table[level], TOUCHED | TOUCHED_TABLE | REACHABLE);
	if (verdict == MMU_HIDDEN || verdict == MMU_SPURIOUS || verdict == MMU_PTWRITE)
		note_frame(cpu->mmu, cpu, w->gfn, TOUCHED | REACHABLE);
}

void touched_by_prebuild(struct mmu_cpu *cpu, uint64_t gfn)
{
	note_frame(cpu->mmu, cpu, gfn, REACHABLE);
}

void touched_by_use(struct mmu *mmu, struct mmu_cpu *cpu, uint32_t id, uint64_t spte)
{
	struct shadow_key key = page_key(&mmu->pages[id / MMU_ENTRIES]);

	if (!(key.role & ROLE_DIRECT))
		note_frame(mmu, cpu, key.gfn, TOUCHED | TOUCHED_TABLE | REACHABLE);
	note_frame(mmu, cpu, __atomic_load_n(&mmu->m2g[pte_frame(spte)], __ATOMIC_ACQUIRE), TOUCHED | REACHABLE);
}
