/*
 * update.c - explicit updates: the guest asks for a store into one of its tables, or says that it was done.
 */
#include "mmu/internal.h"

static bool in_table(const struct mmu *mmu, gfn_t table, unsigned index)
{
	return table.n < mmu->nr_gfns && index < MMU_ENTRIES;
}

/*
 * Frame lock, after the store. An installer reads the gPTE under the page lock: either it had the lock before us, and
 * we find its entry here; or it gets it after us, and reads what was stored.
 */
static void fix_shadows(struct mmu_cpu *cpu, uint64_t table, unsigned index)
{
	struct mmu *mmu = cpu->mmu;
	bool any = false;

	STAT(cpu, updates);
	for_each_shadow(mmu, table, page) {
		struct spage *p = &mmu->pages[page];

		if (page_key(p).role & ROLE_DIRECT)
			continue;
		any = true;
		spin_lock(&p->lock);
		if (!entry_sync(cpu, page, index))
			kick_adopt_entry(cpu, spte_id(page, index));
		if (mmu->cfg.fill == MMU_FILL_EAGER &&
		    entry_prebuild(cpu, page, index, MMU_SRC_EAGER, 0, NULL) == MMU_PB_BUILT)
			STAT(cpu, eager);
		spin_unlock(&p->lock);
	}
	if (any)
		STAT(cpu, updates_shadowed);
}

int mmu_update(struct mmu_cpu *cpu, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;
	uint64_t *at, old;

	if (!in_table(mmu, table, index))
		return -EINVAL;
	lock = frame_lock_of(mmu, table.n);
	spin_lock(lock);
	/* On the move it is still where it was: mmu_remap_commit() copies under this lock. */
	replica_before_store(cpu, table.n);
	at = (uint64_t *)mmu_gfn_hva(mmu, table) + index;
	if (preserve_ad) {
		old = __atomic_load_n(at, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(at, &old, gpte | (old & (MMU_PTE_A | MMU_PTE_D)), false,
						    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
			;
	} else {
		__atomic_store_n(at, gpte, __ATOMIC_SEQ_CST);
	}
	replica_stored(mmu, table.n, index * 8, 8);
	dirty_set(mmu, table.n);
	fix_shadows(cpu, table.n, index);
	spin_unlock(lock);
	return 0;
}

int mmu_updated(struct mmu_cpu *cpu, gfn_t table, unsigned index)
{
	struct spin *lock;

	if (!in_table(cpu->mmu, table, index))
		return -EINVAL;
	lock = frame_lock_of(cpu->mmu, table.n);
	spin_lock(lock);
	fix_shadows(cpu, table.n, index);
	spin_unlock(lock);
	return 0;
}
