/*
 * shadow.c - shadow pages: found by key, made, dropped; and what their existence means for the frame they shadow.
 */
#include <string.h>

#include "mmu/internal.h"

#define QUIET_RMAP	64u	/* leaves of a frame that prebuilding looks through; more: it leaves the frame alone */

uint32_t shadow_find(struct mmu *mmu, const struct shadow_key *key)
{
	for_each_shadow(mmu, key->gfn, p)
		if (page_has_key(&mmu->pages[p], key))
			return p + 1;
	return 0;
}

/* +1 or -1 shadow of the guest table. */
static void count_shadow(struct mmu *mmu, const struct shadow_key *key, int n)
{
	struct gframe *f = &mmu->frames[key->gfn];

	if (key->role & ROLE_DIRECT)
		return;
	if (key->level == 1)
		f->nr_leaf += n;
	else
		f->nr_upper += n;
}

/* The page is ours alone until it is on the list and live. */
static void birth(struct mmu_cpu *cpu, uint32_t page, const struct shadow_key *key)
{
	struct mmu *mmu = cpu->mmu;
	struct spage *p = &mmu->pages[page];
	unsigned i;

	if (!__atomic_load_n(&p->gen, __ATOMIC_RELAXED))	/* first use; later ones find it zeroed by the zap */
		memset(&mmu->pool[spte_id(page, 0)], 0, MMU_PAGE_SIZE);
	__atomic_store_n(&p->key, key_pack(key), __ATOMIC_RELEASE);
	__atomic_store_n(&p->used, 1, __ATOMIC_RELAXED);
	reach_reset(p);
	if (key->level == MMU_LEVELS)
		for (i = 0; i < HOLE_SLOTS; i++)
			__atomic_store_n(&mmu->pool[spte_id(page, HOLE_FIRST + i)], hole_entry(mmu, key, i),
					 __ATOMIC_RELEASE);
	p->next = mmu->frames[key->gfn].shadows;
	__atomic_store_n(&mmu->frames[key->gfn].shadows, page + 1, __ATOMIC_RELAXED);
	count_shadow(mmu, key, 1);
	__atomic_store_n(&p->state, PAGE_LIVE, __ATOMIC_RELEASE);
	STAT(cpu, allocs);
}

int shadow_get(struct mmu_cpu *cpu, const struct shadow_key *key, bool ref, uint32_t *page, uint32_t *gen, bool *fresh)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock = frame_lock_of(mmu, key->gfn);
	uint32_t found;
	int err = -EAGAIN;

	pool_make_room(cpu, key->node);
	*fresh = false;
	spin_lock(lock);
	if (!(key->role & ROLE_DIRECT) && (frame_flags(mmu, key->gfn) & FRAME_MOVING))
		goto out;
	found = shadow_find(mmu, key);
	if (!found) {
		found = pool_take(cpu, key->node);
		if (!found)
			goto out;
		birth(cpu, found - 1, key);
		frame_refresh(cpu, key->gfn);
		*fresh = true;
	}
	*page = found - 1;
	*gen = __atomic_load_n(&mmu->pages[*page].gen, __ATOMIC_ACQUIRE);
	if (ref)
		__atomic_add_fetch(&mmu->pages[*page].refs, 1, __ATOMIC_RELAXED);
	err = 0;
out:
	spin_unlock(lock);
	return err;
}

/*
 * Frame lock. Makes of the frame what frame_refresh() would for a shadow of `level`, if that takes nothing away from any
 * processor. False: it would have to.
 */
static bool protect_quietly(struct mmu_cpu *cpu, uint64_t gfn, unsigned level)
{
	struct mmu *mmu = cpu->mmu;
	struct gframe *f = &mmu->frames[gfn];
	struct region2m *r = &mmu->regions2m[gfn >> 9];
	struct spin *bucket = bucket_of(mmu, gfn);
	uint32_t flags, id, seen = 0;
	uint64_t clock = 0;
	bool ok, unsync, newly = false;

	spin_lock(bucket);
	flags = frame_flags(mmu, gfn);
	unsync = (flags & FRAME_UNSYNC) && level == 1 && f->pin <= 1 && !f->nr_upper;
	ok = ((flags & FRAME_SPECIAL) || !r->rmap) && !(flags & FRAME_REPLICA);
	for (id = f->rmap; ok && id && !unsync && !(flags & FRAME_WPROT); id = mmu->links[id - 1].next)
		ok = !(spte_load(mmu, id - 1) & MMU_PTE_W) && ++seen < QUIET_RMAP;
	if (ok && !(flags & FRAME_SPECIAL)) {
		frame_set(mmu, gfn, FRAME_SPECIAL);
		region_count_special(r, 1);
	}
	if (ok && !unsync && !(flags & FRAME_WPROT)) {
		frame_set(mmu, gfn, FRAME_WPROT);
		clock = f->w_clock > r->w_clock ? f->w_clock : r->w_clock;
		newly = true;
	}
	spin_unlock(bucket);
	if (newly && !kick_settled(mmu, clock))
		sync_list(mmu, gfn);
	return ok;
}

/*
 * Who prebuilds may look at what was a table a moment ago. A shadow that nobody asked for must not take the guest's right to
 * write a frame: a root has to be pinned as one, and no other table may be known at another level.
 */
static bool may_become(const struct gframe *f, unsigned level)
{
	if (f->pin && f->pin != level)
		return false;
	if (level == MMU_LEVELS)
		return f->pin;
	return level == 1 ? !f->nr_upper : !f->nr_leaf;
}

int shadow_get_quiet(struct mmu_cpu *cpu, const struct shadow_key *key, bool make, uint32_t *page, uint32_t *gen,
		     bool *fresh)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock = frame_lock_of(mmu, key->gfn);
	uint32_t found;
	int err = -EBUSY;

	*fresh = false;
	if (!spin_trylock(lock))
		return -EBUSY;
	if (frame_flags(mmu, key->gfn) & FRAME_MOVING)
		goto out;
	found = shadow_find(mmu, key);
	if (!found) {
		err = make ? -ENOSPC : -ENOENT;
		if (make && !may_become(&mmu->frames[key->gfn], key->level)) {
			err = -EBUSY;
			goto out;
		}
		if (!make || !(found = pool_take_spare(mmu, key->node)))
			goto out;
		err = -EBUSY;
		if (!protect_quietly(cpu, key->gfn, key->level)) {
			pool_give(mmu, found - 1);
			goto out;
		}
		birth(cpu, found - 1, key);
		frame_refresh(cpu, key->gfn);
		STAT(cpu, prebuilt_tables);
		*fresh = true;
	}
	*page = found - 1;
	*gen = __atomic_load_n(&mmu->pages[*page].gen, __ATOMIC_ACQUIRE);
	err = 0;
out:
	spin_unlock(lock);
	return err;
}

void shadow_unref(struct mmu_cpu *cpu, uint32_t page)
{
	struct spage *p = &cpu->mmu->pages[page];
	struct spin *lock = frame_lock_of(cpu->mmu, page_key(p).gfn);	/* stable: a page with refs lives */

	spin_lock(lock);
	__atomic_sub_fetch(&p->refs, 1, __ATOMIC_RELAXED);
	spin_unlock(lock);
}

/*
 * A TLB that never went a new way would find the tables below it as they are, so a shadow that lags behind its table must
 * not become reachable by one. The caller holds the lock of the page that will link it and has read *there* that the gPTE
 * names the table: what is written to the table later could have been cached before (rule 1). A leaf table is compared
 * entry by entry, which finds stores of which nobody told us, too. Above, what is listed anywhere might be below.
 */
bool shadow_in_line(struct mmu *mmu, const struct shadow_key *key, uint32_t page)
{
	const struct spage *p = &mmu->pages[page];
	unsigned i;

	if (!__atomic_load_n(&p->present, __ATOMIC_ACQUIRE) || (key->role & ROLE_DIRECT))
		return true;
	if (key->level > 1)
		return !sync_any_listed_below(mmu, page);
	for (i = 0; i < MMU_ENTRIES; i++)
		if (!entry_in_line(mmu, key, page, i))
			return false;
	return true;
}

/* ---- the end of a shadow page ---------------------------------------------------------------------------------- */

/* A child that nobody links any more, so it seems; looked at again when its turn comes. */
static void queue_orphan(struct mmu_cpu *cpu, uint32_t child)
{
	if (!__atomic_load_n(&cpu->mmu->pages[child].parents, __ATOMIC_RELAXED) &&
	    cpu->nr_orphans < cpu->mmu->cfg.pool_pages)
		cpu->orphans[cpu->nr_orphans++] = child;
}

static void empty_page(struct mmu_cpu *cpu, uint32_t page, bool orphans)
{
	struct mmu *mmu = cpu->mmu;
	struct spage *p = &mmu->pages[page];
	unsigned i, level = page_key(p).level;
	uint64_t spte;

	for (i = 0; i < MMU_ENTRIES && __atomic_load_n(&p->present, __ATOMIC_RELAXED); i++) {
		spte = spte_load(mmu, spte_id(page, i));
		if (!(spte & MMU_PTE_P) || is_hole(level, i))
			continue;
		entry_remove(cpu, page, i);
		if (orphans && !spte_is_leaf(level, spte))
			queue_orphan(cpu, pte_frame(spte) - mmu->cfg.pool.n);
	}
}

static void clear_hole(struct mmu_cpu *cpu, uint32_t page)
{
	unsigned i;

	for (i = 0; i < HOLE_SLOTS; i++) {
		uint32_t id = spte_id(page, HOLE_FIRST + i);

		if (spte_load(cpu->mmu, id) & MMU_PTE_P)
			kick_entry(cpu, id);
		__atomic_store_n(&cpu->mmu->pool[id], 0, __ATOMIC_SEQ_CST);
	}
}

static void unlink_shadow(struct mmu *mmu, uint64_t gfn, uint32_t page)
{
	uint32_t *at = &mmu->frames[gfn].shadows;

	while (*at != page + 1)
		at = &mmu->pages[*at - 1].next;
	__atomic_store_n(at, mmu->pages[page].next, __ATOMIC_RELAXED);
}

void shadow_zap(struct mmu_cpu *cpu, uint32_t page, bool orphans)
{
	struct mmu *mmu = cpu->mmu;
	struct spage *p = &mmu->pages[page];
	struct shadow_key key = page_key(p);

	if (__atomic_load_n(&p->refs, __ATOMIC_RELAXED)) {
		spin_lock(&p->lock);
		empty_page(cpu, page, orphans);
		spin_unlock(&p->lock);
		return;
	}
	kick_hold(cpu, page);
	unlink_shadow(mmu, key.gfn, page);
	count_shadow(mmu, &key, -1);

	spin_lock(&p->lock);
	spin_lock(&p->parents_lock);
	/* From here on nobody links it or installs an entry in it. */
	__atomic_add_fetch(&p->gen, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&p->state, PAGE_DEAD, __ATOMIC_RELEASE);
	while (p->parents)
		link_remove(cpu, p->parents - 1, page);
	spin_unlock(&p->parents_lock);
	empty_page(cpu, page, orphans);
	if (key.level == MMU_LEVELS)
		clear_hole(cpu, page);
	spin_unlock(&p->lock);
	cpu->owed_pages[pool_part_of(mmu, page)]++;
	STAT(cpu, zaps);
}

/* A page that no entry ever linked since its last kicks, nor has one: no processor knows it. Roots may be cached. */
static bool unknown(const struct spage *p, uint32_t gen)
{
	return page_alive(p, gen) && page_key(p).level < MMU_LEVELS && !__atomic_load_n(&p->parents, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&p->present, __ATOMIC_ACQUIRE) && !__atomic_load_n(&p->holds, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&p->refs, __ATOMIC_ACQUIRE);
}

void shadow_discard(struct mmu_cpu *cpu, uint32_t page, uint32_t gen)
{
	struct mmu *mmu = cpu->mmu;
	struct spage *p = &mmu->pages[page];
	struct shadow_key key = page_key(p);
	struct spin *lock = frame_lock_of(mmu, key.gfn);
	bool mine = false;

	if (!page_alive(p, gen) || !spin_trylock(lock))
		return;		/* as an orphan it ages and is reclaimed */
	if (page_alive(p, gen) && spin_trylock(&p->lock)) {
		spin_lock(&p->parents_lock);
		mine = unknown(p, gen);
		if (mine) {
			__atomic_add_fetch(&p->gen, 1, __ATOMIC_RELEASE);
			__atomic_store_n(&p->state, PAGE_DEAD, __ATOMIC_RELEASE);
		}
		spin_unlock(&p->parents_lock);
		spin_unlock(&p->lock);
	}
	if (mine) {
		unlink_shadow(mmu, key.gfn, page);
		count_shadow(mmu, &key, -1);
		frame_refresh(cpu, key.gfn);
		pool_give(mmu, page);
	}
	spin_unlock(lock);
}

void shadow_zap_orphans(struct mmu_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;

	while (cpu->nr_orphans) {
		uint32_t page = cpu->orphans[--cpu->nr_orphans], gen;
		struct spage *p = &mmu->pages[page];
		struct shadow_key key;
		struct spin *lock;

		gen = __atomic_load_n(&p->gen, __ATOMIC_ACQUIRE);
		key = page_key(p);
		lock = frame_lock_of(mmu, key.gfn);
		spin_lock(lock);
		if (page_alive(p, gen) && page_has_key(p, &key) && !__atomic_load_n(&p->parents, __ATOMIC_RELAXED) &&
		    key.level < MMU_LEVELS) {
			shadow_zap(cpu, page, true);
			frame_refresh(cpu, key.gfn);
		}
		spin_unlock(lock);
	}
}

/* ---- what it means for the frame ------------------------------------------------------------------------------- */

void frame_refresh(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct gframe *f = &mmu->frames[gfn];
	struct region2m *r = &mmu->regions2m[gfn >> 9];
	struct spin *bucket = bucket_of(mmu, gfn);
	bool table = frame_is_table(f), special, newly = false;
	uint64_t clock = 0;
	uint32_t flags;

	if (table)
		replica_collapse(cpu, gfn, NO_NODE);
	if (!table)
		frame_clear(mmu, gfn, FRAME_UNSYNC | FRAME_MIXED);
	else if (f->pin > 1 || f->nr_upper)
		frame_clear(mmu, gfn, FRAME_UNSYNC);	/* only leaf tables can be followed */

	spin_lock(bucket);
	if (table)
		frame_clear(mmu, gfn, FRAME_WATCH);
	flags = frame_flags(mmu, gfn);
	special = table || (flags & FRAME_APART);
	if (special && !(flags & FRAME_SPECIAL)) {
		frame_set(mmu, gfn, FRAME_SPECIAL);
		region_count_special(r, 1);
		rmap_drop_large(cpu, gfn);
	} else if (!special && (flags & FRAME_SPECIAL)) {
		frame_clear(mmu, gfn, FRAME_SPECIAL);
		region_count_special(r, -1);
	}
	if (!table || (flags & FRAME_UNSYNC)) {
		frame_clear(mmu, gfn, FRAME_WPROT);
		if (!table)
			rmap_end_overrides(cpu, gfn);
	} else if (!(flags & FRAME_WPROT)) {
		frame_set(mmu, gfn, FRAME_WPROT);
		rmap_write_protect(cpu, gfn);
		clock = f->w_clock > r->w_clock ? f->w_clock : r->w_clock;
		newly = true;
	}
	spin_unlock(bucket);
	/* A processor may still write it through a TLB entry whose kick is owed. */
	if (newly && !kick_settled(mmu, clock))
		sync_list(mmu, gfn);
}

void frame_make_mixed(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock = frame_lock_of(mmu, gfn);

	spin_lock(lock);
	frame_set(mmu, gfn, FRAME_MIXED);
	for_each_shadow(mmu, gfn, page) {
		struct spage *p = &mmu->pages[page];
		struct shadow_key key = page_key(p);
		uint32_t id, next;

		if (key.level != 3 || key.role != ROLE_STRICT)
			continue;
		spin_lock(&p->parents_lock);
		for (id = p->parents; id; id = next) {
			next = mmu->links[id - 1].next;
			/* A page with a present entry is alive, and its key stable, while we hold that entry's lock. */
			if (page_key(&mmu->pages[(id - 1) / MMU_ENTRIES]).role == 0)
				link_remove(cpu, id - 1, page);
		}
		spin_unlock(&p->parents_lock);
	}
	spin_unlock(lock);
}
