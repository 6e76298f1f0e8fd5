/*
 * dirty.c - which guest frames were written, by write protection.
 *
 * While logging, a leaf may be writable only if the frame's bit is set; the bit and the rights change under the bucket
 * lock. Large leaves are not used meanwhile.
 */
#include <string.h>

#include "mmu/internal.h"

/* No leaf that is installed after this returns can have missed what was set before. */
static void wait_for_installers(struct mmu *mmu)
{
	unsigned i;

	for (i = 0; i < BUCKETS; i++) {
		spin_lock(&mmu->buckets[i]);
		spin_unlock(&mmu->buckets[i]);
	}
}

static void protect_leaf(struct mmu_cpu *cpu, uint32_t id, bool large)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t spte = spte_load(mmu, id), gfn;
	struct spin *bucket;

	if (!(spte & MMU_PTE_P) || (large ? !(spte & MMU_PTE_PS) : !(spte & MMU_PTE_W)))
		return;
	gfn = __atomic_load_n(&mmu->m2g[pte_frame(spte)], __ATOMIC_ACQUIRE);
	bucket = bucket_of(mmu, gfn);
	spin_lock(bucket);
	/* Another one by now? It was installed under the new rule. */
	if (spte_load(mmu, id) == spte || (spte_load(mmu, id) & MMU_PTE_ADDR) == (spte & MMU_PTE_ADDR)) {
		if (large && (spte_load(mmu, id) & MMU_PTE_PS))
			leaf_remove(cpu, id, gfn, true);
		else if (!large && (spte_load(mmu, id) & MMU_PTE_W) && !dirty_test(mmu, gfn))
			leaf_set_rights(cpu, id, gfn, false, 0, MMU_PTE_W | SPTE_OVERRIDE);
	}
	spin_unlock(bucket);
}

int mmu_dirty_start(struct mmu_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t page, off = 0;
	uint64_t word;
	unsigned i;

	if (!__atomic_compare_exchange_n(&mmu->logging, &off, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return -EALREADY;
	/* Who was let through before his bit is cleared here has his leaf protected below. */
	for (word = 0; word < (mmu->nr_gfns + 63) / 64; word++)
		__atomic_store_n(&mmu->dirty[word], 0, __ATOMIC_SEQ_CST);
	wait_for_installers(mmu);
	for (page = 0; page < mmu->cfg.pool_pages; page++) {
		/* Read without a lock: a page that changes its level meanwhile lost the leaves we look for. */
		unsigned level = page_key(&mmu->pages[page]).level;

		if (level != 1 && level != 2)
			continue;
		for (i = 0; i < MMU_ENTRIES && __atomic_load_n(&mmu->pages[page].present, __ATOMIC_RELAXED); i++)
			protect_leaf(cpu, spte_id(page, i), level == 2);
	}
	kick_adopt(cpu);
	return 0;
}

int mmu_dirty_fetch(struct mmu_cpu *cpu, gfn_t first, uint64_t count, uint64_t *bitmap)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t i, gfn;

	if (!is_logging(mmu) || first.n > mmu->nr_gfns || count > mmu->nr_gfns - first.n)
		return -EINVAL;
	memset(bitmap, 0, (count + 63) / 64 * 8);
	for (i = 0; i < count; i++) {
		struct spin *bucket;

		gfn = first.n + i;
		if (!(gfn & 63) && !__atomic_load_n(&mmu->dirty[gfn / 64], __ATOMIC_RELAXED)) {
			i += 63;
			continue;
		}
		if (!dirty_test(mmu, gfn))
			continue;
		bucket = bucket_of(mmu, gfn);
		spin_lock(bucket);
		__atomic_fetch_and(&mmu->dirty[gfn / 64], ~(1ull << (gfn % 64)), __ATOMIC_SEQ_CST);
		rmap_write_protect(cpu, gfn);
		spin_unlock(bucket);
		bitmap[i / 64] |= 1ull << (i % 64);
	}
	kick_adopt(cpu);
	return 0;
}

int mmu_dirty_stop(struct mmu_cpu *cpu)
{
	uint32_t on = 1;

	return __atomic_compare_exchange_n(&cpu->mmu->logging, &on, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ?
	       0 : -EINVAL;
}

void mmu_mark_dirty(struct mmu *mmu, gfn_t gfn)
{
	if (gfn.n < mmu->nr_gfns)
		dirty_set(mmu, gfn.n);
}
