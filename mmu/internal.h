/*
 * internal.h - the data structures of mmu/ and who may touch them. docs/mmu.md tells the story.
 *
 * Lock order, outermost first:
 *	flush lock -> frame lock -> page lock -> parents lock | bucket lock
 *		   -> listed lock
 *		   -> cpus lock -> kick lock (two of them: by address) -> pool lock (one per part)
 * Waits for them are counted by these names (MMU_LOCKS in mmu.h, lock.c).
 * No two locks of one kind are held at once. The helper thread only tries frame and page locks.
 *
 *	frame lock	hashed by gfn. The frame as a page table: its list of shadows, pin level, FRAME_UNSYNC, _LISTED
 *			and _MIXED; the birth and death of its shadows; every store of ours into the frame
 *	page lock	one per shadow page. Entries 0 -> present, and whether the page is alive
 *	parents lock	one per shadow page: the list of entries that link it, and changing or clearing such an entry
 *	bucket lock	hashed by gfn >> 9. The leaf entries that map the frame, changing or clearing one; FRAME_WPROT,
 *			_MOVING, _WATCH, _REPLICA, _SETTLING, _SPECIAL; where its copies are; the 2 MiB region's state
 *
 * So a present entry is changed or cleared without its page's lock, under the lock of the list it is on. Descriptors of
 * shadow pages are never freed: a stale pointer is found out by its generation, under the page or parents lock.
 */
#ifndef UMBRA_MMU_INTERNAL_H
#define UMBRA_MMU_INTERNAL_H

#include <errno.h>

#include "mmu/lock.h"
#include "mmu/mmu.h"

#define FRAME_LOCKS	1024u
#define BUCKETS		1024u
#define HOLE_FIRST	256u	/* L4 slots of the hole */
#define HOLE_SLOTS	16u
#define RETRIES		64u	/* lost races before a fault says MMU_AGAIN */
#define REGION_FRAMES	512u	/* 4 KiB frames in 2 MiB */
#define CLOCK_NEVER	(~0ull)

/* Software bits of a leaf sPTE (ignored by the processor; 59-62 stay zero, they are PKU's). */
#define SPTE_SOURCE_SHIFT	52
#define SPTE_SOURCE_MASK	(0x1full << SPTE_SOURCE_SHIFT)
#define SPTE_SAMPLE		(1ull << 57)	/* installed with A clear to see whether it is used */
#define SPTE_OVERRIDE		(1ull << 58)	/* W although the gPTE says read-only: a PT write let through */

/*
 * Role of a shadow page; with gfn, level and node its key. What a shadow page shows depends on its key and the guest
 * table alone, so any number of parents may share it. Tables link tables of their own node only: which node's a walk
 * meets is decided by the root.
 *	ROLE_STRICT	the guest's U bit counts: entries without it are absent. Level 4: the root of user mode
 *	ROLE_RO		the path to here is read-only in the guest, but not in the shadow: leaves are read-only, except
 *			those that let a PT write through
 *	ROLE_DIRECT	no table of the guest's: the frames gfn, gfn + 1, ... of a large guest page
 */
#define ROLE_STRICT	1u
#define ROLE_RO		2u
#define ROLE_DIRECT	4u

struct shadow_key {
	uint64_t gfn;
	uint8_t level, role;
	uint8_t view;		/* of a kernel root: whose (mmu_config.view_entry); else 0 */
	uint8_t node;		/* whose processors walk it */
};

enum page_state { PAGE_FREE, PAGE_LIVE, PAGE_DEAD };

struct spage {
	struct spin lock, parents_lock;
	uint64_t key;		/* packed; atomic, written before the page is live */
	uint32_t gen;		/* page lock and parents lock to write, either to rely on */
	uint8_t state;
	uint8_t used;		/* a fault came by since reclaim looked last */
	uint32_t parents;	/* id + 1 of the first entry that links this page */
	uint32_t next;		/* page + 1: list of the frame's shadows (frame lock), or of free pages (pool lock) */
	uint32_t refs;		/* cpus that have it loaded as a root; frame lock to change */
	uint32_t holds;		/* cpus that owe a kick of an entry in it or of one that linked it */
	uint32_t present;	/* entries, hole slots excluded */
	uint32_t via;		/* reach.c; atomic */
	uint64_t cpus;		/* reach.c; atomic */
};

#define FRAME_WPROT	(1u << 0)	/* no sPTE maps it writable: a page table in sync */
#define FRAME_MOVING	(1u << 1)	/* no sPTE maps it at all */
#define FRAME_SPECIAL	(1u << 2)	/* table, or FRAME_APART: counted in its region, which no 2 MiB sPTE maps */
#define FRAME_UNSYNC	(1u << 3)	/* level-1 table that the guest may write directly */
#define FRAME_LISTED	(1u << 4)	/* to be compared with its shadows at the next flush */
#define FRAME_MIXED	(1u << 5)	/* level-3 table: kernel roots need a permissive shadow of it */
#define FRAME_WATCH	(1u << 6)	/* no table. Until its next write nobody maps it writable, or without a fault */

#define FRAME_REPLICA	(1u << 7)	/* no table. The leaves of each node map the node's copy (mmu->copies) */
#define FRAME_SETTLING	(1u << 8)	/* one copy again, but a processor may still read another: it is not written alone */

/* Frame and bucket lock to change these, then frame_refresh(). */
#define FRAME_APART	(FRAME_MOVING | FRAME_WATCH | FRAME_REPLICA | FRAME_SETTLING)
#define FRAME_READ_ONLY	(FRAME_APART | FRAME_WPROT)	/* no leaf maps it writable */

struct gframe {
	uint32_t rmap;		/* id + 1 of the first 4 KiB leaf that maps the frame */
	uint32_t shadows;	/* page + 1 */
	uint32_t listed_next;	/* gfn + 1 */
	uint32_t flags;		/* atomic; see above for who may change what */
	uint64_t w_clock;	/* kick clock when a writable leaf was last taken away or weakened, or copies became one */
	uint8_t pin;		/* level, 0: not pinned */
	uint16_t nr_leaf, nr_upper;	/* shadows of level 1, and of levels 2-4, DIRECT ones excluded */
	uint16_t fixed;		/* mmu_fix() calls; frame lock */
};

struct region2m {		/* 512 guest frames; bucket lock. `special` and `whole` are looked at without it, for a guess */
	uint32_t rmap;		/* id + 1 of the first 2 MiB leaf */
	uint32_t special;
	uint64_t w_clock;
	bool whole;		/* backed by contiguous, aligned machine frames, all of them in range */
};

struct links {
	uint32_t next, prev;	/* id + 1 */
};

/* Where a page stands in the life of a kick of one cpu; a page can be in several at once. */
enum { KICK_COLLECT, KICK_DRAIN, KICK_RELEASE, KICK_LISTS };

struct mmu_cpu {
	struct mmu *mmu;
	struct mmu_cpu *next;		/* mmu->cpus, under cpus_lock */
	struct mmu_stats stats;
	struct mmu_source_stats sources[MMU_SOURCES];
	uint64_t sample_rng;
	uint64_t root_l4[2];		/* ~0: none */
	uint32_t root[2];		/* page + 1 */
	uint32_t left[2];		/* page + 1: replaced, but CR3 may still name it; kept as a root until mmu_entered() */
	uint32_t path[MMU_LEVELS + 1];	/* page + 1: what the fault at work goes through, not to be reclaimed */
	uint64_t keep_gfn;		/* nor are shadows of this frame: the fault has made it writable; ~0: none */
	struct spin kick_lock;		/* owner to write the following, others to read */
	uint64_t (*kick_bits)[8];	/* [page] to be given out */
	uint64_t (*kick_given)[8];	/* [page] given out, not done */
	uint8_t *kick_flags;		/* [page] bit per list */
	uint32_t *kick_list[KICK_LISTS], nr_kick[KICK_LISTS];
	uint64_t oldest_collect, oldest_drained;
	uint64_t oldest;		/* atomic: clock of the oldest change whose kick is owed, or CLOCK_NEVER */
	uint32_t owed_pages[MMU_MAX_NODES], owed_drained[MMU_MAX_NODES];	/* [part] pages it zapped, that wait for its kicks */
	uint32_t *orphans, nr_orphans;
	unsigned faults;
	unsigned number;		/* below MMU_MAX_CPUS */
	uint8_t view, node;
};

/* The pages of the pool that a node's tables come from. */
struct pool_part {
	struct spin lock;
	uint32_t first, count;		/* pages */
	uint32_t free_list;		/* page + 1; lock */
	uint32_t nr_free;		/* lock; atomic to read without */
	uint32_t reserve;		/* reclaim keeps so many free */
	uint32_t hand;			/* of reclaim; atomic, counts on and on */
};

struct mmu {
	struct mmu_config cfg;
	struct mmu_region *regions;
	unsigned nr_regions;
	uint64_t nr_gfns, max_mfn;
	uint64_t view_entry[MMU_MAX_VIEWS];
	uint64_t *pool;			/* the sPTEs, [id] */
	struct spage *pages;		/* [page] */
	struct links *links;		/* [id] */
	struct gframe *frames;		/* [gfn] */
	struct region2m *regions2m;	/* [gfn >> 9] */
	uint64_t *pmap;			/* [gfn] mfn; atomic */
	uint64_t *copies;		/* [gfn * cfg.nr_nodes + node] mfn, of FRAME_REPLICA and _SETTLING; atomic. NULL: one node */
	uint32_t *m2g;			/* [mfn] gfn that the frame stands for; bucket lock of that gfn */
	uint64_t *dirty;		/* bit per gfn; atomic */
	uint8_t *touched, *touched2m;	/* [gfn], [gfn >> 9]; atomic; touched.c */
	uint32_t logging;		/* atomic */
	uint64_t clock;			/* atomic: counts finished kick rounds */
	uint32_t nr_owing;		/* atomic: cpus that owe kicks */
	struct spin frame_locks[FRAME_LOCKS], buckets[BUCKETS];
	struct spin listed_lock, flush_lock, cpus_lock;
	struct pool_part parts[MMU_MAX_NODES];
	uint32_t pool_used, pool_peak;	/* of all parts; atomic */
	uint32_t listed;		/* gfn + 1 of the first; listed_lock */
	uint32_t nr_listed;		/* frames with FRAME_LISTED; atomic */
	uint64_t large_leaves;
	struct mmu_cpu *cpus;
	uint64_t cpu_numbers;		/* in use; cpus_lock */
	struct mmu_stats gone;		/* counters of destroyed cpus; cpus_lock */
	struct mmu_source_stats gone_sources[MMU_SOURCES];	/* and of sweeps; atomic */
	uint64_t mapped_bytes;
};

#define STAT_ADD(cpu, name, n) \
	__atomic_store_n(&(cpu)->stats.name, __atomic_load_n(&(cpu)->stats.name, __ATOMIC_RELAXED) + (n), \
			 __ATOMIC_RELAXED)
#define STAT(cpu, name) STAT_ADD(cpu, name, 1)
#define STAT_SOURCE(cpu, source, name) \
	__atomic_store_n(&(cpu)->sources[source].name, \
			 __atomic_load_n(&(cpu)->sources[source].name, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED)

/* ---- small things --------------------------------------------------------------------------------------------- */

static inline struct spin *frame_lock_of(struct mmu *mmu, uint64_t gfn)
{
	return &mmu->frame_locks[(gfn * 0x9e3779b97f4a7c15ull >> 32) % FRAME_LOCKS];
}

static inline struct spin *bucket_of(struct mmu *mmu, uint64_t gfn)
{
	return &mmu->buckets[(gfn >> 9) % BUCKETS];
}

static inline uint32_t frame_flags(const struct mmu *mmu, uint64_t gfn)
{
	return __atomic_load_n(&mmu->frames[gfn].flags, __ATOMIC_ACQUIRE);
}

static inline void frame_set(struct mmu *mmu, uint64_t gfn, uint32_t flags)
{
	__atomic_fetch_or(&mmu->frames[gfn].flags, flags, __ATOMIC_SEQ_CST);
	chaos();
}

static inline void frame_clear(struct mmu *mmu, uint64_t gfn, uint32_t flags)
{
	__atomic_fetch_and(&mmu->frames[gfn].flags, ~flags, __ATOMIC_SEQ_CST);
	chaos();
}

/* Bucket lock. */
static inline void region_count_special(struct region2m *r, int n)
{
	__atomic_store_n(&r->special, r->special + n, __ATOMIC_RELAXED);
}

static inline uint64_t pmap_get(const struct mmu *mmu, uint64_t gfn)
{
	return __atomic_load_n(&mmu->pmap[gfn], __ATOMIC_ACQUIRE);
}

static inline uint64_t copy_get(const struct mmu *mmu, uint64_t gfn, unsigned node)
{
	return __atomic_load_n(&mmu->copies[gfn * mmu->cfg.nr_nodes + node], __ATOMIC_ACQUIRE);
}

/* What the leaves of a node's tables map. Bucket lock, to be certain. */
static inline uint64_t pmap_on(const struct mmu *mmu, uint64_t gfn, unsigned node)
{
	return mmu->copies && (frame_flags(mmu, gfn) & FRAME_REPLICA) ? copy_get(mmu, gfn, node) : pmap_get(mmu, gfn);
}

static inline uint32_t spte_id(uint32_t page, unsigned index)
{
	return page * MMU_ENTRIES + index;
}

static inline uint64_t spte_load(const struct mmu *mmu, uint32_t id)
{
	chaos();
	return __atomic_load_n(&mmu->pool[id], __ATOMIC_ACQUIRE);
}

static inline uint64_t pte_frame(uint64_t pte)
{
	return (pte & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT;
}

static inline bool spte_is_leaf(unsigned level, uint64_t spte)
{
	return level == 1 || (spte & MMU_PTE_PS);
}

static inline unsigned va_index(uint64_t va, unsigned level)
{
	return va >> (MMU_PAGE_SHIFT + 9 * (level - 1)) & (MMU_ENTRIES - 1);
}

static inline bool is_hole(unsigned level, unsigned index)
{
	return level == MMU_LEVELS && index >= HOLE_FIRST && index < HOLE_FIRST + HOLE_SLOTS;
}

/* What slot HOLE_FIRST+i of a root shows. */
static inline uint64_t hole_entry(const struct mmu *mmu, const struct shadow_key *key, unsigned i)
{
	if (key->role & ROLE_STRICT)
		return mmu->cfg.hole[MMU_USER][i];
	return mmu->cfg.nr_views && i == mmu->cfg.view_slot ? mmu->view_entry[key->view] : mmu->cfg.hole[MMU_KERNEL][i];
}

static inline bool page_alive(const struct spage *p, uint32_t gen)
{
	return __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == PAGE_LIVE &&
	       __atomic_load_n(&p->gen, __ATOMIC_ACQUIRE) == gen;
}

static inline uint64_t key_pack(const struct shadow_key *key)
{
	return key->gfn << 32 | (uint64_t)key->node << 24 | (uint64_t)key->view << 16 | (uint64_t)key->level << 8 | key->role;
}

/* Stable under the page lock or the parents lock of a live page; else to be validated by the generation. */
static inline struct shadow_key page_key(const struct spage *p)
{
	uint64_t key = __atomic_load_n(&p->key, __ATOMIC_ACQUIRE);

	return (struct shadow_key){ .gfn = key >> 32, .node = key >> 24 & 255, .view = key >> 16 & 255,
				    .level = key >> 8 & 255, .role = key & 255 };
}

static inline bool page_has_key(const struct spage *p, const struct shadow_key *key)
{
	return __atomic_load_n(&p->key, __ATOMIC_ACQUIRE) == key_pack(key);
}

static inline bool dirty_test(const struct mmu *mmu, uint64_t gfn)
{
	return __atomic_load_n(&mmu->dirty[gfn / 64], __ATOMIC_ACQUIRE) >> (gfn % 64) & 1;
}

static inline bool is_logging(const struct mmu *mmu)
{
	return __atomic_load_n(&mmu->logging, __ATOMIC_SEQ_CST);
}

static inline void dirty_set(struct mmu *mmu, uint64_t gfn)
{
	if (is_logging(mmu))
		__atomic_fetch_or(&mmu->dirty[gfn / 64], 1ull << (gfn % 64), __ATOMIC_SEQ_CST);
}

/* May a leaf map the frame writable? Bucket lock. */
static inline bool frame_may_write(const struct mmu *mmu, uint64_t gfn)
{
	return !(frame_flags(mmu, gfn) & FRAME_READ_ONLY) && (!is_logging(mmu) || dirty_test(mmu, gfn));
}

/* ---- walk.c: the guest's tables ------------------------------------------------------------------------------- */

struct gwalk {
	uint64_t table[MMU_LEVELS + 1], gpte[MMU_LEVELS + 1];	/* [level] as read; valid from `level` up */
	unsigned level;		/* where the walk stopped: that of the leaf if it got there */
	uint64_t gfn;		/* the 4 KiB frame */
	bool w, u, nx;		/* combined */
	bool only_w;		/* a true fault, and W is all that is missing */
	uint32_t error_code;
};

/* An entry of a table as it is at some moment of the call, whether the table is moved meanwhile or not. */
uint64_t gpte_load(const struct mmu *mmu, uint64_t table, unsigned index);
bool gpte_reserved(const struct mmu *mmu, unsigned level, uint64_t gpte);
static inline bool gpte_is_leaf(unsigned level, uint64_t gpte)
{
	return level == 1 || (level <= 3 && (gpte & MMU_PTE_PS));
}

/* MMU_HIDDEN: allowed; MMU_TRUE or MMU_BAD: out->error_code. `l4` in range. Sets nothing. */
enum mmu_verdict walk_guest(const struct mmu *mmu, uint64_t l4, enum mmu_mode mode, uint64_t va, uint32_t access,
			    struct gwalk *out);
/* Sets `bits` in an entry that still holds `old`, as a processor sets A and D. -EAGAIN: it changed, or its frame moves.
 * Takes the frame lock of the table. */
int gpte_set_bits(struct mmu_cpu *cpu, uint64_t table, unsigned index, uint64_t old, uint64_t bits);

/* ---- pool.c ---------------------------------------------------------------------------------------------------- */

void pool_init(struct mmu *mmu);	/* all pages free */
/* Page + 1 for a table of `node`, from its part. If that is empty and `cpu` waits for no page of it, from another; 0: dry. */
uint32_t pool_take(struct mmu_cpu *cpu, unsigned node);
/* The same of the node's part only, and of what faults can spare. */
uint32_t pool_take_spare(struct mmu *mmu, unsigned node);
void pool_give(struct mmu *mmu, uint32_t page);	/* a zeroed page, no holds */
/* Would pool_take() have `pages` to give? */
bool pool_has(const struct mmu_cpu *cpu, unsigned node, uint32_t pages);
/* Zaps cold pages of the node's part if free ones run short; they come back when the kicks are done. No locks held. */
void pool_make_room(struct mmu_cpu *cpu, unsigned node);
static inline unsigned pool_part_of(const struct mmu *mmu, uint32_t page)
{
	unsigned part = page / mmu->parts[0].count;

	return part < mmu->cfg.nr_nodes ? part : mmu->cfg.nr_nodes - 1;	/* the last has what the division left */
}

/* ---- reach.c --------------------------------------------------------------------------------------------------- */

void reach_reset(struct spage *p);
/* Before a link of `child` is stored in entry `index` of `page`, whose lock is held. */
void reach_link(struct mmu *mmu, uint32_t page, unsigned index, unsigned level, uint32_t child);
/* Before the cpu's CR3 can name the root; once it cannot any more, and has been loaded since it did. */
void reach_load(struct mmu_cpu *cpu, uint32_t root);
void reach_left(struct mmu_cpu *cpu, uint32_t root);
/* The cpus, by number, that may have cached what an entry of the page was before the change that comes before this. */
uint64_t reach_of(const struct mmu *mmu, uint32_t page);

/* ---- kick.c ---------------------------------------------------------------------------------------------------- */

/* Both come *before* the change they belong to, so that settled() can never miss one. */
void kick_entry(struct mmu_cpu *cpu, uint32_t id);
void kick_hold(struct mmu_cpu *cpu, uint32_t page);	/* it is not reused before this cpu's kicks are done */
/* Are all kicks done for changes made up to `clock`? */
bool kick_settled(struct mmu *mmu, uint64_t clock);
/* Takes over what other cpus owe, all of it or one entry. No frame, page, parents or bucket lock is needed. */
void kick_adopt(struct mmu_cpu *cpu);
void kick_adopt_entry(struct mmu_cpu *cpu, uint32_t id);
void kick_abandon(struct mmu_cpu *cpu);
static inline uint64_t kick_clock(const struct mmu *mmu)
{
	return __atomic_load_n(&mmu->clock, __ATOMIC_SEQ_CST);
}

/* ---- rmap.c ---------------------------------------------------------------------------------------------------- */

void list_add(struct mmu *mmu, uint32_t *head, uint32_t id);
void list_del(struct mmu *mmu, uint32_t *head, uint32_t id);
/* The following need the bucket lock of the frame. */
void leaf_remove(struct mmu_cpu *cpu, uint32_t id, uint64_t gfn, bool large);
/* Exchanges the rights bits of a present leaf; kicks if one was lost. */
void leaf_set_rights(struct mmu_cpu *cpu, uint32_t id, uint64_t gfn, bool large, uint64_t set, uint64_t clear);
void rmap_write_protect(struct mmu_cpu *cpu, uint64_t gfn);
void rmap_end_overrides(struct mmu_cpu *cpu, uint64_t gfn);
void rmap_drop(struct mmu_cpu *cpu, uint64_t gfn);
void rmap_drop_large(struct mmu_cpu *cpu, uint64_t gfn);
/* Parents lock of the child. */
void link_remove(struct mmu_cpu *cpu, uint32_t id, uint32_t child);

/* ---- shadow.c -------------------------------------------------------------------------------------------------- */

/* Finds or makes the shadow of `key`. *gen validates it later; *fresh: it is new, hence empty. `ref`: as a root, kept
 * until shadow_unref(). -EAGAIN: pool dry, or the table is being moved. No locks held. */
int shadow_get(struct mmu_cpu *cpu, const struct shadow_key *key, bool ref, uint32_t *page, uint32_t *gen, bool *fresh);
/* The same without reclaim, kicks, or waiting for the frame lock. -ENOENT: there is none, and not `make`; -ENOSPC: the
 * free pages are left to faults; -EBUSY: locked, moving, or a processor may write the frame. No page lock held. */
int shadow_get_quiet(struct mmu_cpu *cpu, const struct shadow_key *key, bool make, uint32_t *page, uint32_t *gen,
		     bool *fresh);
/* Gives back at once what shadow_get_quiet() made, if it was used for nothing. No locks held. */
void shadow_discard(struct mmu_cpu *cpu, uint32_t page, uint32_t gen);
/* May another table link the shadow, now that it is there? See shadow.c. No locks needed but the page lock of that table. */
bool shadow_in_line(struct mmu *mmu, const struct shadow_key *key, uint32_t page);
/* The shadow of `key`: page + 1, or 0. Frame lock. */
uint32_t shadow_find(struct mmu *mmu, const struct shadow_key *key);
void shadow_unref(struct mmu_cpu *cpu, uint32_t page);
/* Frame lock of the page's frame. A root in use is emptied instead. `orphans`: queue children nobody links any more. */
void shadow_zap(struct mmu_cpu *cpu, uint32_t page, bool orphans);
/* Zaps what was queued and is still linked by nobody, and their children likewise. No locks held. */
void shadow_zap_orphans(struct mmu_cpu *cpu);
/* Brings FRAME_WPROT and _SPECIAL in line with what the frame is now. Frame lock. */
void frame_refresh(struct mmu_cpu *cpu, uint64_t gfn);
/* Makes kernel roots link the level-3 table permissively. No locks held. */
void frame_make_mixed(struct mmu_cpu *cpu, uint64_t gfn);
static inline bool frame_is_table(const struct gframe *f)
{
	return f->pin || f->nr_leaf || f->nr_upper;
}

#define for_each_shadow(mmu, gfn, p) \
	for (uint32_t next_ = (mmu)->frames[gfn].shadows, p; \
	     next_ && ((p = next_ - 1), (next_ = (mmu)->pages[p].next), true); )

/* ---- entry.c: what a gPTE asks for ------------------------------------------------------------------------------ */

enum want_kind {
	WANT_NONE,
	WANT_LEAF,	/* a 4 KiB leaf */
	WANT_BIG,	/* a 2 MiB leaf, or a link to the DIRECT table `child` */
	WANT_LINK,	/* a link to `child` */
};

struct want {
	enum want_kind kind;
	bool w, nx;		/* of a leaf, as far as the guest's tables go */
	bool link_w;
	uint64_t gfn;		/* frame, or first frame */
	struct shadow_key child;
};

#define APPLY_INSTALL	(1u << 0)	/* absent -> present too */
#define APPLY_WRITE	(1u << 1)	/* on behalf of a write: the frame is dirty */
#define APPLY_OVERRIDE	(1u << 2)	/* writable although the gPTE is not: the frame is FRAME_UNSYNC */
#define APPLY_SAMPLE	(1u << 3)	/* a new leaf is a sample */

/* The gPTE behind an entry of a shadow page; made up for DIRECT pages. Page lock, to be certain of its freshness. */
uint64_t entry_gpte(const struct mmu *mmu, const struct shadow_key *key, unsigned index);
void entry_want(const struct mmu *mmu, const struct shadow_key *key, unsigned index, uint64_t gpte, struct want *out);
/* Page lock held, page alive. */
void entry_remove(struct mmu_cpu *cpu, uint32_t page, unsigned index);
/* Makes the leaf what `want` says; without APPLY_INSTALL only takes away, changes rights in place. 1: is present now;
 * 0: is absent; -EAGAIN: the frame is moving or changed its nature. */
int entry_apply_leaf(struct mmu_cpu *cpu, uint32_t page, unsigned index, const struct want *want, unsigned source,
		     unsigned flags);
/* Links `child`. -EAGAIN: it died meanwhile. */
int entry_apply_link(struct mmu_cpu *cpu, uint32_t page, unsigned index, const struct want *want, uint32_t child,
		     uint32_t child_gen);
/* Brings a present entry in line with its gPTE. True: something changed. */
bool entry_sync(struct mmu_cpu *cpu, uint32_t page, unsigned index);
/* Is what a present leaf shows allowed by its gPTE as that is now? No locks needed. */
bool entry_in_line(const struct mmu *mmu, const struct shadow_key *key, uint32_t page, unsigned index);
/* Absent -> present for a leaf. An absent link is only described: *link, MMU_PB_NO_SHADOW. MMU_PB_YOUNG: frame lock. */
enum mmu_prebuilt entry_prebuild(struct mmu_cpu *cpu, uint32_t page, unsigned index, unsigned source, unsigned flags,
				 struct want *link);

/* ---- sample.c -------------------------------------------------------------------------------------------------- */

/* Is the leaf that is about to be installed a sample? */
bool sample_due(struct mmu_cpu *cpu);
/* Counts what became of a leaf just removed. */
void sample_removed(struct mmu_cpu *cpu, uint64_t spte);
/* A fault came for the leaf although it is present. */
void sample_fault(struct mmu_cpu *cpu, uint32_t id);
/* Keeps the counts of a cpu that goes away. cpus_lock. */
void sample_cpu_gone(struct mmu_cpu *cpu);

/* ---- sync.c ---------------------------------------------------------------------------------------------------- */

/* Frame lock. Queues the table for comparison at the next flush. */
void sync_list(struct mmu *mmu, uint64_t gfn);
/* Frame lock. Lets the guest write the level-1 table from now on. */
void sync_unsync(struct mmu_cpu *cpu, uint64_t gfn);
/* No locks held. */
void sync_all(struct mmu_cpu *cpu);
void sync_one(struct mmu_cpu *cpu, uint64_t gfn, unsigned first, unsigned count);
/* Frame lock. Compares entries with those of the table's shadows. */
void sync_entries(struct mmu_cpu *cpu, uint64_t gfn, unsigned first, unsigned count);
/* Compares a whole table, listed or not. */
void sync_table(struct mmu_cpu *cpu, uint64_t gfn);
/* Whether a listed table may be shown somewhere below shadow page `page`. A page lock may be held. */
bool sync_any_listed_below(struct mmu *mmu, uint32_t page);
static inline bool sync_any_listed(const struct mmu *mmu)
{
	return __atomic_load_n(&mmu->nr_listed, __ATOMIC_SEQ_CST);
}

/* ---- prebuild.c ------------------------------------------------------------------------------------------------ */

/* Links what has a shadow already into a root that has just been loaded. No locks held. */
void link_root(struct mmu_cpu *cpu, uint32_t page);
/* After a hidden fault of the kernel: the whole table, if it belongs to a linear map. No locks held. */
void fill_linear(struct mmu_cpu *cpu, uint32_t page, uint32_t gen, unsigned index);
/* The synchronous baselines, after a hidden fault on `index` of `page`. No locks held. */
void prefetch_around(struct mmu_cpu *cpu, uint32_t page, uint32_t gen, unsigned index);

/* ---- touched.c ------------------------------------------------------------------------------------------------- */

/* A fault is over, and this was its last walk. */
void touched_by_fault(struct mmu_cpu *cpu, const struct gwalk *w, enum mmu_verdict verdict);
/* An entry that nobody has faulted on maps the frame now. */
void touched_by_prebuild(struct mmu_cpu *cpu, uint64_t gfn);
/* The leaf `id`, whose value is or was `spte`, has been used without a fault. cpu: NULL if the thread has none. */
void touched_by_use(struct mmu *mmu, struct mmu_cpu *cpu, uint32_t id, uint64_t spte);

/* ---- pmap.c ---------------------------------------------------------------------------------------------------- */

bool mfn_is_place(const struct mmu *mmu, uint64_t mfn);		/* a frame that a guest frame can stand in */
void copy_frame(struct mmu *mmu, uint64_t to, uint64_t from);
/* Guest memory is looked at by others at any time: aligned words are stored at one time. */
void store_bytes(char *to, const char *from, unsigned bytes);
/* Are the 512 frames around `gfn` one aligned run? Bucket lock. */
bool region_whole(const struct mmu *mmu, uint64_t gfn);

/* ---- replica.c ------------------------------------------------------------------------------------------------- */

#define NO_NODE	(~0u)

/* The next access to a frame that was collapsed: perhaps all is settled, and its 2 MiB can be mapped as one. No locks held. */
void replica_look(struct mmu_cpu *cpu, uint64_t gfn);
/* The rest needs the frame lock. Makes one copy of many, if there are: that of `node`, or NO_NODE: where the pmap says. */
void replica_collapse(struct mmu_cpu *cpu, uint64_t gfn, unsigned node);
/* Has no processor another copy any more? */
bool replica_settled(struct mmu_cpu *cpu, uint64_t gfn);
/* Both of these, before a store of ours into the frame; and after it, what was stored goes to the other copies, if any. */
void replica_before_store(struct mmu_cpu *cpu, uint64_t gfn);
void replica_stored(struct mmu *mmu, uint64_t gfn, unsigned offset, unsigned bytes);

/* ---- watch.c --------------------------------------------------------------------------------------------------- */

/* Frame lock. The guest writes the frame: its watch is over. */
void watch_end(struct mmu_cpu *cpu, uint64_t gfn);

/* ---- audit.c --------------------------------------------------------------------------------------------------- */

/* Level 1: an entry just installed. Page lock. */
void audit_entry(struct mmu_cpu *cpu, uint32_t page, unsigned index);
/* Level 2: a table just resynced. Frame lock. */
void audit_table(struct mmu_cpu *cpu, uint64_t gfn);
unsigned audit_all(struct mmu_cpu *cpu);

#endif
