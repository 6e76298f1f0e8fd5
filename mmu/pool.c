/*
 * pool.c - the fixed set of frames that shadow tables are made from: the free lists, and reclaim.
 *
 * A page that is zapped is not free at once: processors may still walk it. It becomes free with the last hold that a
 * cpu's pending kicks have on it (kick.c). So there is a reserve: reclaim starts while some pages are left, and what it
 * zaps is there again after the next round of kicks.
 *
 * Each node has a part of the pool, with a lock, a reserve and a reclaim of its own, so that its processors walk tables in
 * memory of theirs. A page belongs to its part for good; whose table it holds is said by its key.
 */
#include "mmu/internal.h"

void pool_init(struct mmu *mmu)
{
	uint32_t pages = mmu->cfg.pool_pages, each = pages / mmu->cfg.nr_nodes, page;
	unsigned i;

	for (i = 0; i < mmu->cfg.nr_nodes; i++) {
		struct pool_part *part = &mmu->parts[i];

		part->first = i * each;
		part->count = i + 1 < mmu->cfg.nr_nodes ? each : pages - part->first;
		part->reserve = part->count / 16 < 8 ? 8 : part->count / 16 > 64 ? 64 : part->count / 16;
	}
	mmu->pool_used = pages;
	for (page = pages; page--; )
		pool_give(mmu, page);
}

void mmu_pool_part(struct mmu *mmu, unsigned node, mfn_t *first, uint32_t *count)
{
	bool exists = node < mmu->cfg.nr_nodes;

	*first = (mfn_t){ mmu->cfg.pool.n + (exists ? mmu->parts[node].first : 0) };
	*count = exists ? mmu->parts[node].count : 0;
}

static uint32_t nr_free(const struct pool_part *part)
{
	return __atomic_load_n(&part->nr_free, __ATOMIC_RELAXED);
}

static void count_taken(struct mmu *mmu)
{
	uint32_t used = __atomic_add_fetch(&mmu->pool_used, 1, __ATOMIC_RELAXED);
	uint32_t peak = __atomic_load_n(&mmu->pool_peak, __ATOMIC_RELAXED);

	while (used > peak && !__atomic_compare_exchange_n(&mmu->pool_peak, &peak, used, false, __ATOMIC_RELAXED,
							   __ATOMIC_RELAXED))
		;
}

/* Page + 1; 0: no more than `leave` are free. */
static uint32_t take(struct mmu *mmu, struct pool_part *part, uint32_t leave)
{
	uint32_t page;

	spin_lock(&part->lock);
	page = part->nr_free > leave ? part->free_list : 0;
	if (page) {
		part->free_list = mmu->pages[page - 1].next;
		__atomic_store_n(&part->nr_free, part->nr_free - 1, __ATOMIC_RELAXED);
	}
	spin_unlock(&part->lock);
	if (page)
		count_taken(mmu);
	return page;
}

/* Pages of the part that come back with this cpu's kicks, if no other holds them. */
static uint32_t owed(const struct mmu_cpu *cpu, unsigned part)
{
	return cpu->owed_pages[part] + cpu->owed_drained[part];
}

/* The part that can best spare a page for a node whose own is dry. */
static struct pool_part *fullest(struct mmu *mmu)
{
	struct pool_part *best = &mmu->parts[0];
	unsigned i;

	for (i = 1; i < mmu->cfg.nr_nodes; i++)
		if (nr_free(&mmu->parts[i]) > nr_free(best))
			best = &mmu->parts[i];
	return best;
}

uint32_t pool_take(struct mmu_cpu *cpu, unsigned node)
{
	uint32_t page = take(cpu->mmu, &cpu->mmu->parts[node], 0);

	return page || owed(cpu, node) ? page : take(cpu->mmu, fullest(cpu->mmu), 0);
}

uint32_t pool_take_spare(struct mmu *mmu, unsigned node)
{
	return take(mmu, &mmu->parts[node], 2 * mmu->parts[node].reserve);
}

void pool_give(struct mmu *mmu, uint32_t page)
{
	struct pool_part *part = &mmu->parts[pool_part_of(mmu, page)];
	struct spage *p = &mmu->pages[page];

	__atomic_store_n(&p->state, PAGE_FREE, __ATOMIC_RELEASE);
	__atomic_sub_fetch(&mmu->pool_used, 1, __ATOMIC_RELAXED);
	spin_lock(&part->lock);
	p->next = part->free_list;
	part->free_list = page + 1;
	__atomic_store_n(&part->nr_free, part->nr_free + 1, __ATOMIC_RELAXED);
	spin_unlock(&part->lock);
}

bool pool_has(const struct mmu_cpu *cpu, unsigned node, uint32_t pages)
{
	struct mmu *mmu = cpu->mmu;

	return nr_free(&mmu->parts[node]) >= pages || (!owed(cpu, node) && nr_free(fullest(mmu)) >= pages);
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

void pool_make_room(struct mmu_cpu *cpu, unsigned node)
{
	struct pool_part *part = &cpu->mmu->parts[node];
	uint32_t n, hand, need, have = nr_free(part);
	unsigned sweep;

	if (have < part->reserve)
		have += owed(cpu, node);
	if (have >= part->reserve)
		return;
	need = part->reserve - have;
	for (sweep = 0; sweep < SWEEPS && need; sweep++) {
		for (n = 0; n < part->count && need; n++) {
			hand = part->first + __atomic_fetch_add(&part->hand, 1, __ATOMIC_RELAXED) % part->count;
			if (reclaim_page(cpu, hand, sweep == SWEEPS - 1))
				need--;
		}
	}
}
