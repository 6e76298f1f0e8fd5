/*
 * touched.c - distinct guest frames: a model of what a second level of tables (EPT, NPT) would fault on. With one, the first
 * access to a frame is a violation, and so is the first walk through a page-table page; later ones are none, whatever the
 * guest does to its tables. Without one the first access to a frame is a fault here: on the way a fault takes, every table and
 * the leaf is noted. What was prebuilt may be used without a fault, so frames shown by it are counted apart.
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

static void note_frame(struct mmu_cpu *cpu, uint64_t gfn, unsigned flags)
{
	struct mmu *mmu = cpu->mmu;
	unsigned fresh = gfn < mmu->nr_gfns ? note(&mmu->touched[gfn], flags) : 0;

	if (!fresh)
		return;
	if (fresh & TOUCHED)
		STAT(cpu, touched);
	if (fresh & TOUCHED_TABLE)
		STAT(cpu, touched_tables);
	if (fresh & REACHABLE)
		STAT(cpu, reachable);
	if ((fresh & TOUCHED) && note(&mmu->touched2m[gfn >> 9], TOUCHED))
		STAT(cpu, touched_2m);
}

void touched_by_fault(struct mmu_cpu *cpu, const struct gwalk *w, enum mmu_verdict verdict)
{
	unsigned level;

	/* The walk itself reads tables, granted or not. */
	for (level = MMU_LEVELS; level >= w->level && level; level--)
		note_frame(cpu, w->table[level], TOUCHED | TOUCHED_TABLE | REACHABLE);
	if (verdict == MMU_HIDDEN || verdict == MMU_SPURIOUS || verdict == MMU_PTWRITE)
		note_frame(cpu, w->gfn, TOUCHED | REACHABLE);
}

void touched_by_prebuild(struct mmu_cpu *cpu, uint64_t gfn)
{
	note_frame(cpu, gfn, REACHABLE);
}
