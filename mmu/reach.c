/*
 * reach.c - which cpus may have walked a table, so that only those need to hear that an entry of it was taken away.
 *
 * A page knows by whom its entries may be cached:
 *	level 4		`cpus`: who has it loaded as a root, or had it and is not known to have loaded CR3 since
 *	level 3		`cpus`: who has such a root that links it, or linked it at some time since. Once a slot of the
 *			guest kernel's half has linked it: everybody
 *	below		`via`: the one page that has ever linked it in this life, whose answer is its own. A second one
 *			makes it everybody
 * Sets only grow but for one case: a cpu that has left a root, and flushed by loading another, leaves the tables that its
 * present roots do not link. A page starts anew when it is taken from the pool, which is after all kicks that concern
 * it, so nobody caches anything by way of its former life.
 *
 * Order. Who takes an entry away changes it and then asks (mmu_kick_next()). Who makes a table reachable says so before:
 * reach_link() before the link is stored, reach_load() before CR3 names the root. So whoever could cache the entry before
 * it changed is in the answer. A load and a link that meet are put in order by the root's page lock: the one that comes
 * second sees the other's bit, or entry.
 */
#include "mmu/internal.h"

#define USER_SLOTS	HOLE_FIRST	/* of a root: the half of user space */
#define VIA_MANY	(~0u)
#define KEEP_MAX	16u		/* level-3 tables that the roots of one cpu link, beyond that nothing is left */

void reach_reset(struct spage *p)
{
	__atomic_store_n(&p->cpus, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&p->via, 0, __ATOMIC_RELAXED);
}

static void add(struct spage *p, uint64_t cpus)
{
	if (cpus & ~__atomic_load_n(&p->cpus, __ATOMIC_SEQ_CST))
		__atomic_fetch_or(&p->cpus, cpus, __ATOMIC_SEQ_CST);
}

void reach_link(struct mmu *mmu, uint32_t page, unsigned index, unsigned level, uint32_t child)
{
	struct spage *p = &mmu->pages[page], *c = &mmu->pages[child];
	uint32_t none = 0;

	if (!mmu->cfg.track_reach)
		return;
	if (level == MMU_LEVELS)
		add(c, index < USER_SLOTS ? __atomic_load_n(&p->cpus, __ATOMIC_SEQ_CST) : MMU_CPUS_ALL);
	else if (!__atomic_compare_exchange_n(&c->via, &none, page + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) &&
		 none != page + 1)
		__atomic_store_n(&c->via, VIA_MANY, __ATOMIC_SEQ_CST);
}

/* The page that entry `index` of a root links; page + 1, 0: none. */
static uint32_t linked(const struct mmu *mmu, uint32_t root, unsigned index)
{
	uint64_t spte = spte_load(mmu, spte_id(root, index));

	return spte & MMU_PTE_P ? pte_frame(spte) - mmu->cfg.pool.n + 1 : 0;
}

void reach_load(struct mmu_cpu *cpu, uint32_t root)
{
	struct mmu *mmu = cpu->mmu;
	struct spage *p = &mmu->pages[root];
	uint32_t child;

	if (!mmu->cfg.track_reach)
		return;
	spin_lock(&p->lock);
	add(p, 1ull << cpu->number);
	spin_unlock(&p->lock);
	for (unsigned i = 0; i < USER_SLOTS; i++)
		if ((child = linked(mmu, root, i)))
			add(&mmu->pages[child - 1], 1ull << cpu->number);
}

/* What the roots loaded now link. False: too many. */
static bool gather(const struct mmu_cpu *cpu, uint32_t keep[KEEP_MAX], unsigned *n)
{
	uint32_t child;

	for (unsigned mode = 0; mode < 2; mode++) {
		for (unsigned i = 0; cpu->root[mode] && i < USER_SLOTS; i++) {
			child = linked(cpu->mmu, cpu->root[mode] - 1, i);
			if (!child)
				continue;
			if (*n == KEEP_MAX)
				return false;
			keep[(*n)++] = child;
		}
	}
	return true;
}

/* A table that is everybody's stays so: its last bit says it, whatever becomes of the others. */
static void leave(struct mmu_cpu *cpu, uint32_t page)
{
	__atomic_fetch_and(&cpu->mmu->pages[page].cpus, ~(1ull << cpu->number), __ATOMIC_SEQ_CST);
}

void reach_left(struct mmu_cpu *cpu, uint32_t root)
{
	uint32_t keep[KEEP_MAX], child;
	unsigned n = 0, i, k;

	if (!cpu->mmu->cfg.track_reach || cpu->root[0] == root + 1 || cpu->root[1] == root + 1 || !gather(cpu, keep, &n))
		return;
	leave(cpu, root);
	for (i = 0; i < USER_SLOTS; i++) {
		child = linked(cpu->mmu, root, i);
		for (k = 0; k < n && keep[k] != child; k++)
			;
		if (child && k == n)
			leave(cpu, child - 1);
	}
	/* Somebody may have linked one of these in a present root after gather(), and set the bit before leave(). This
	 * processor is out of the guest, so it has not been there yet. */
	for (unsigned mode = 0; mode < 2; mode++)
		if (cpu->root[mode])
			reach_load(cpu, cpu->root[mode] - 1);
}

uint64_t reach_of(const struct mmu *mmu, uint32_t page)
{
	const struct spage *p = &mmu->pages[page];
	uint64_t cpus;
	uint32_t via;

	if (!mmu->cfg.track_reach)
		return MMU_CPUS_ALL;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);	/* after the entry was changed */
	for (unsigned level = page_key(p).level; level < 3; level++) {
		via = __atomic_load_n(&p->via, __ATOMIC_SEQ_CST);
		if (!via || via == VIA_MANY)
			return MMU_CPUS_ALL;
		p = &mmu->pages[via - 1];
	}
	cpus = __atomic_load_n(&p->cpus, __ATOMIC_SEQ_CST);
	return cpus >> MMU_MAX_CPUS ? MMU_CPUS_ALL : cpus;
}
