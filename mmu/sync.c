/*
 * sync.c - tables that may differ from their shadows, and the flush that ends it.
 *
 * A frame is listed while its shadows may lag behind the table: because the guest may write it (FRAME_UNSYNC), or
 * because it could until a moment ago and a processor may still do so by a TLB entry whose kick is owed. A flush
 * write-protects and compares every listed frame. It takes a frame off the list only if no such kick was owed *before*
 * it compared.
 */
#include "mmu/internal.h"

static void push(struct mmu *mmu, uint64_t gfn)
{
	spin_lock(&mmu->listed_lock);
	mmu->frames[gfn].listed_next = mmu->listed;
	mmu->listed = gfn + 1;
	spin_unlock(&mmu->listed_lock);
}

void sync_list(struct mmu *mmu, uint64_t gfn)
{
	if (frame_flags(mmu, gfn) & FRAME_LISTED)
		return;
	frame_set(mmu, gfn, FRAME_LISTED);
	__atomic_add_fetch(&mmu->nr_listed, 1, __ATOMIC_SEQ_CST);
	push(mmu, gfn);
}

/*
 * Frame lock; the frame was taken off the list and compared. If it stays, flag and count never say otherwise in between:
 * who has written it since, through a TLB entry that is still owed a kick, looks at them without a lock when it flushes.
 */
static void list_again(struct mmu *mmu, uint64_t gfn, bool stay)
{
	if (stay) {
		push(mmu, gfn);
		return;
	}
	frame_clear(mmu, gfn, FRAME_LISTED);
	__atomic_sub_fetch(&mmu->nr_listed, 1, __ATOMIC_SEQ_CST);
}

/* ---- what a listed table is shown below ------------------------------------------------------------------------ */

#define LISTED_LOOK	16u	/* listed tables looked at; with more, or with a longer way up, the answer is yes */
#define CLIMB_LOOK	64u

/* Whether a way up from shadow page `from` leads to `page`. Parents locks are taken one at a time: what is linked after
 * that is compared by whoever links it. */
static bool climbs_to(struct mmu *mmu, uint32_t from, uint32_t page, unsigned *left)
{
	uint32_t up[CLIMB_LOOK], n = 0;
	struct spage *p = &mmu->pages[from];

	if (from == page)
		return true;
	spin_lock(&p->parents_lock);
	for (uint32_t id = p->parents; id; id = mmu->links[id - 1].next) {
		if (!*left) {
			spin_unlock(&p->parents_lock);
			return true;
		}
		--*left;
		up[n++] = (id - 1) / MMU_ENTRIES;
	}
	spin_unlock(&p->parents_lock);
	while (n)
		if (climbs_to(mmu, up[--n], page, left))
			return true;
	return false;
}

bool sync_any_listed_below(struct mmu *mmu, uint32_t page)
{
	const unsigned node = page_key(&mmu->pages[page]).node;		/* tables are linked by those of their node only */
	uint32_t listed[LISTED_LOOK], n = 0, gfn;
	bool found = false;

	if (!sync_any_listed(mmu))
		return false;
	spin_lock(&mmu->listed_lock);
	for (gfn = mmu->listed; gfn && n < LISTED_LOOK; gfn = mmu->frames[gfn - 1].listed_next)
		listed[n++] = gfn - 1;
	spin_unlock(&mmu->listed_lock);
	/* A flush at work has some of them off the list. */
	if (gfn || n < __atomic_load_n(&mmu->nr_listed, __ATOMIC_SEQ_CST))
		return true;
	while (n && !found) {
		struct spin *lock = frame_lock_of(mmu, listed[--n]);
		unsigned left = CLIMB_LOOK;

		if (!spin_trylock(lock))	/* the caller holds a page lock */
			return true;
		for_each_shadow(mmu, listed[n], from)
			found |= page_key(&mmu->pages[from]).node == node && climbs_to(mmu, from, page, &left);
		spin_unlock(lock);
	}
	return found;
}

void sync_unsync(struct mmu_cpu *cpu, uint64_t gfn)
{
	frame_set(cpu->mmu, gfn, FRAME_UNSYNC);
	sync_list(cpu->mmu, gfn);
	frame_refresh(cpu, gfn);
	STAT(cpu, unsyncs);
}

void sync_entries(struct mmu_cpu *cpu, uint64_t gfn, unsigned first, unsigned count)
{
	struct mmu *mmu = cpu->mmu;
	unsigned i, changed = 0;

	for_each_shadow(mmu, gfn, page) {
		struct spage *p = &mmu->pages[page];

		if (page_key(p).role & ROLE_DIRECT)
			continue;
		spin_lock(&p->lock);
		for (i = first; i < first + count; i++)
			changed += entry_sync(cpu, page, i);
		spin_unlock(&p->lock);
	}
	STAT_ADD(cpu, resync_changed, changed);
}

static bool settled(struct mmu *mmu, uint64_t gfn)
{
	struct spin *bucket = bucket_of(mmu, gfn);
	uint64_t frame, region;

	spin_lock(bucket);
	frame = mmu->frames[gfn].w_clock;
	region = mmu->regions2m[gfn >> 9].w_clock;
	spin_unlock(bucket);
	return kick_settled(mmu, frame > region ? frame : region);
}

static uint64_t resync(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock = frame_lock_of(mmu, gfn);
	uint32_t next;
	bool quiet;

	spin_lock(lock);
	next = mmu->frames[gfn].listed_next;
	frame_clear(mmu, gfn, FRAME_UNSYNC);
	frame_refresh(cpu, gfn);
	quiet = settled(mmu, gfn);
	sync_entries(cpu, gfn, 0, MMU_ENTRIES);
	list_again(mmu, gfn, !quiet && frame_is_table(&mmu->frames[gfn]));
	STAT(cpu, resyncs);
	if (mmu->cfg.audit >= 2)
		audit_table(cpu, gfn);
	spin_unlock(lock);
	return next;
}

void sync_all(struct mmu_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t gfn;

	if (!sync_any_listed(mmu))
		return;
	/* One at a time: a second flush must not be over before the first has done the frames both wait for. */
	spin_lock(&mmu->flush_lock);
	spin_lock(&mmu->listed_lock);
	gfn = mmu->listed;
	mmu->listed = 0;
	spin_unlock(&mmu->listed_lock);
	while (gfn)
		gfn = resync(cpu, gfn - 1);
	spin_unlock(&mmu->flush_lock);
}

void sync_one(struct mmu_cpu *cpu, uint64_t gfn, unsigned first, unsigned count)
{
	struct spin *lock = frame_lock_of(cpu->mmu, gfn);

	if (!(frame_flags(cpu->mmu, gfn) & FRAME_LISTED))
		return;
	spin_lock(lock);
	sync_entries(cpu, gfn, first, count);
	spin_unlock(lock);
}

void sync_table(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct spin *lock = frame_lock_of(cpu->mmu, gfn);

	spin_lock(lock);
	sync_entries(cpu, gfn, 0, MMU_ENTRIES);
	spin_unlock(lock);
}

void mmu_flush(struct mmu_cpu *cpu)
{
	sync_all(cpu);
	kick_adopt(cpu);
	STAT(cpu, flushes);
	if (cpu->mmu->cfg.audit >= 3)
		audit_all(cpu);
}

bool mmu_out_of_sync(struct mmu *mmu)
{
	return sync_any_listed(mmu);
}

void mmu_invlpg(struct mmu_cpu *cpu, gva_t va)
{
	struct mmu *mmu = cpu->mmu;
	struct gwalk w;
	unsigned level;
	int mode;

	STAT(cpu, invlpgs);
	for (mode = 0; mode < 2 && sync_any_listed(mmu); mode++) {
		if (!cpu->root[mode])
			continue;
		walk_guest(mmu, cpu->root_l4[mode], mode, va.a, 0, &w);
		for (level = MMU_LEVELS; level >= w.level; level--)
			sync_one(cpu, w.table[level], va_index(va.a, level), 1);
	}
	kick_adopt(cpu);
}
