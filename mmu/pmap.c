/*
 * pmap.c - where guest frames stand, and moving them.
 */
#include <string.h>

#include "mmu/internal.h"
#include "mmu/probe.h"

mfn_t mmu_pmap(struct mmu *mmu, gfn_t gfn)
{
	return (mfn_t){ gfn.n < mmu->nr_gfns ? pmap_get(mmu, gfn.n) : ~0ull };
}

void *mmu_mfn_hva(struct mmu *mmu, mfn_t mfn)
{
	unsigned i;

	for (i = 0; i < mmu->nr_regions; i++)
		if (mfn.n - mmu->regions[i].first.n < mmu->regions[i].count)
			return (char *)mmu->regions[i].hva + (mfn.n - mmu->regions[i].first.n) * MMU_PAGE_SIZE;
	return NULL;
}

void *mmu_gfn_hva(struct mmu *mmu, gfn_t gfn)
{
	return gfn.n < mmu->nr_gfns ? mmu_mfn_hva(mmu, (mfn_t){ pmap_get(mmu, gfn.n) }) : NULL;
}

/* Frame lock. */
static bool table_in_use(const struct mmu *mmu, uint64_t gfn)
{
	for_each_shadow(mmu, gfn, page)
		if (__atomic_load_n(&mmu->pages[page].refs, __ATOMIC_RELAXED))
			return true;
	return false;
}

int mmu_remap_begin(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock, *bucket;
	int err = -EBUSY;

	if (gfn.n >= mmu->nr_gfns)
		return -EINVAL;
	lock = frame_lock_of(mmu, gfn.n);
	bucket = bucket_of(mmu, gfn.n);
	spin_lock(lock);
	if ((frame_flags(mmu, gfn.n) & FRAME_MOVING) || mmu->frames[gfn.n].fixed || mmu->frames[gfn.n].pin ||
	    table_in_use(mmu, gfn.n))
		goto out;
	replica_collapse(cpu, gfn.n, NO_NODE);
	for_each_shadow(mmu, gfn.n, page)
		if (!(page_key(&mmu->pages[page]).role & ROLE_DIRECT))
			shadow_zap(cpu, page, false);
	spin_lock(bucket);
	frame_set(mmu, gfn.n, FRAME_MOVING);
	frame_clear(mmu, gfn.n, FRAME_WATCH);
	rmap_drop(cpu, gfn.n);
	rmap_drop_large(cpu, gfn.n);
	spin_unlock(bucket);
	frame_refresh(cpu, gfn.n);
	err = 0;
out:
	spin_unlock(lock);
	kick_adopt(cpu);
	PROBE(remap__begin, gfn.n, err);
	return err;
}

bool mfn_is_place(const struct mmu *mmu, uint64_t mfn)
{
	return mmu_mfn_hva((struct mmu *)mmu, (mfn_t){ mfn }) && mfn - mmu->cfg.pool.n >= mmu->cfg.pool_pages;
}

void store_bytes(char *to, const char *from, unsigned bytes)
{
	unsigned n;

	for (; bytes; to += n, from += n, bytes -= n) {
		if (!((uintptr_t)to & 7) && bytes >= 8) {
			uint64_t word;

			n = sizeof(word);
			memcpy(&word, from, n);
			__atomic_store_n((uint64_t *)to, word, __ATOMIC_RELAXED);
		} else if (!((uintptr_t)to & 3) && bytes >= 4) {
			uint32_t word;

			n = sizeof(word);
			memcpy(&word, from, n);
			__atomic_store_n((uint32_t *)to, word, __ATOMIC_RELAXED);
		} else {
			n = 1;
			__atomic_store_n(to, *from, __ATOMIC_RELAXED);
		}
	}
}

/* By words: a walk without locks may read either frame, `to` if that was a place of this or another frame before. */
void copy_frame(struct mmu *mmu, uint64_t to, uint64_t from)
{
	uint64_t *t = mmu_mfn_hva(mmu, (mfn_t){ to });
	const uint64_t *f = mmu_mfn_hva(mmu, (mfn_t){ from });
	unsigned i;

	for (i = 0; i < MMU_PAGE_SIZE / 8; i++)
		__atomic_store_n(&t[i], __atomic_load_n(&f[i], __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

bool region_whole(const struct mmu *mmu, uint64_t gfn)
{
	uint64_t base = gfn & ~(uint64_t)(REGION_FRAMES - 1), first, i;

	if (base + REGION_FRAMES > mmu->nr_gfns)
		return false;
	first = pmap_get(mmu, base);
	for (i = 0; i < REGION_FRAMES; i++)
		if (pmap_get(mmu, base + i) != first + i)
			return false;
	return !(first % REGION_FRAMES);
}

/* Frame lock: nobody of ours stores into the frame. False: it was not moving. */
static bool end_move(struct mmu_cpu *cpu, uint64_t gfn, uint64_t to, bool commit)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *bucket = bucket_of(mmu, gfn);
	bool moving = frame_flags(mmu, gfn) & FRAME_MOVING;

	if (!moving)
		return false;
	if (commit && to != pmap_get(mmu, gfn))
		copy_frame(mmu, to, pmap_get(mmu, gfn));
	spin_lock(bucket);
	if (commit) {
		__atomic_store_n(&mmu->m2g[to], gfn, __ATOMIC_RELEASE);
		__atomic_store_n(&mmu->pmap[gfn], to, __ATOMIC_SEQ_CST);
		__atomic_store_n(&mmu->regions2m[gfn >> 9].whole, region_whole(mmu, gfn), __ATOMIC_RELAXED);
		frame_clear(mmu, gfn, FRAME_SETTLING);	/* what the caller kicked since the beginning includes it */
	}
	frame_clear(mmu, gfn, FRAME_MOVING);
	spin_unlock(bucket);
	frame_refresh(cpu, gfn);
	return true;
}

int mmu_remap_commit(struct mmu_cpu *cpu, gfn_t gfn, mfn_t to)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;
	bool moved;

	if (gfn.n >= mmu->nr_gfns || !mfn_is_place(mmu, to.n))
		return -EINVAL;
	lock = frame_lock_of(mmu, gfn.n);
	spin_lock(lock);
	moved = end_move(cpu, gfn.n, to.n, true);
	spin_unlock(lock);
	if (!moved)
		return -EINVAL;
	STAT(cpu, remaps);
	PROBE(remap__commit, gfn.n, to.n);
	return 0;
}

void mmu_remap_abort(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct spin *lock;

	if (gfn.n >= cpu->mmu->nr_gfns)
		return;
	lock = frame_lock_of(cpu->mmu, gfn.n);
	spin_lock(lock);
	end_move(cpu, gfn.n, 0, false);
	spin_unlock(lock);
	PROBE(remap__abort, gfn.n);
}
