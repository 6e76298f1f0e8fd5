/*
 * pool.c - the fixed set of frames that shadow tables are made from: the free list, and reclaim.
 *
 * A page that is zapped is not free at once: processors may still walk it. It becomes free with the last hold that a
 * cpu's pending kicks have on it (kick.c). So there is a reserve: reclaim starts while some pages are left, and what it
 * zaps is there again after the next round of kicks.
 */
#include "mmu/internal.h"

uint32_t pool_take(struct mmu *mmu, uint32_t leave)
{
	uint32_t page, used;

	spin_lock(&mmu->pool_lock);
	page = mmu->nr_free > leave ? mmu->free_list : 0;
	if (page) {
		mmu->free_list = mmu->pages[page - 1].next;
		__atomic_store_n(&mmu->nr_free, mmu->nr_free - 1, __ATOMIC_RELAXED);
		used = mmu->cfg.pool_pages - mmu->nr_free;
		if (used > mmu->used_peak)
			mmu->used_peak = used;
	}
	spin_unlock(&mmu->pool_lock);
	return page;
}

void pool_give(struct mmu *mmu, uint32_t page)
{
	struct spage *p = &mmu->pages[page];

	__atomic_store_n(&p->state, PAGE_FREE, __ATOMIC_RELEASE);
	spin_lock(&mmu->pool_lock);
	p->next = mmu->free_list;
	mmu->free_list = page + 1;
	__atomic_store_n(&mmu->nr_free, mmu->nr_free + 1, __ATOMIC_RELAXED);
	spin_unlock(&mmu->pool_lock);
}

/* ---- reclaim --------------------------------------------------------------------------------------------------- */

/*
 * A clock: a page that was used since the hand came by last is passed once. All levels alike: a guest with many processes
 * has more tables above its leaf tables than such ones, and if those of sleeping processes stayed, the few leaf tables
 * that one instruction needs would evict each other for ever. Dropping an upper table keeps the tables below: they are
 * found again by their key, and age on their own if not.
 */
#define SWEEPS	3u	/* the first may find all used, the second what is not used since; the third takes anything */

static bool on_path(const struct mmu_cpu *cpu, uint32_t page)
{
	unsigned level;

	for (level = 1; level <= MMU_LEVELS; level++)
		if (cpu->path[level] == page + 1)
			return true;
	return false;
}

/* A guess without locks: reclaim_page() looks again. */
static bool may_take(const struct mmu_cpu *cpu, uint32_t page, const struct shadow_key *key, bool any)
{
	const struct spage *p = &cpu->mmu->pages[page];

	return !__atomic_load_n(&p->refs, __ATOMIC_RELAXED) && !on_path(cpu, page) && key->gfn != cpu->keep_gfn &&
	       (any || !__atomic_load_n(&p->used, __ATOMIC_RELAXED));
}

/* The key of a page that may change hands at any time; false: it is not in use. */
static bool read_key(const struct mmu *mmu, uint32_t page, struct shadow_key *key, uint32_t *gen)
{
	const struct spage *p = &mmu->pages[page];

	*gen = __atomic_load_n(&p->gen, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) != PAGE_LIVE)
		return false;
	*key = page_key(p);
	return page_alive(p, *gen);
}

static bool reclaim_page(struct mmu_cpu *cpu, uint32_t page, bool any)
{
	struct mmu *mmu = cpu->mmu;
	struct shadow_key key;
	struct spin *lock;
	uint32_t gen;
	bool took = false;

	if (!read_key(mmu, page, &key, &gen) || !may_take(cpu, page, &key, any)) {
		__atomic_store_n(&mmu->pages[page].used, 0, __ATOMIC_RELAXED);
		return false;
	}
	lock = frame_lock_of(mmu, key.gfn);
	spin_lock(lock);
	if (page_alive(&mmu->pages[page], gen) && !__atomic_load_n(&mmu->pages[page].refs, __ATOMIC_RELAXED)) {
		shadow_zap(cpu, page, false);
		frame_refresh(cpu, key.gfn);
		STAT(cpu, reclaims);
		took = true;
	}
	spin_unlock(lock);
	return took;
}

void pool_make_room(struct mmu_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t n, hand, need, have = __atomic_load_n(&mmu->nr_free, __ATOMIC_RELAXED);
	unsigned sweep;

	have += cpu->owed_pages + cpu->owed_drained;
	if (have >= mmu->reserve)
		return;
	need = mmu->reserve - have;
	for (sweep = 0; sweep < SWEEPS && need; sweep++) {
		for (n = 0; n < mmu->cfg.pool_pages && need; n++) {
			hand = __atomic_fetch_add(&mmu->reclaim_hand, 1, __ATOMIC_RELAXED) % mmu->cfg.pool_pages;
			if (reclaim_page(cpu, hand, sweep == SWEEPS - 1))
				need--;
		}
	}
}
