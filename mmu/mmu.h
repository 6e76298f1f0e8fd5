/*
 * mmu.h - shadow paging as a library: the one public header of mmu/.
 *
 * The guest writes page tables; the processor never walks them. It walks shadow tables that this module builds from
 * them, in a pool of frames of the VM. The shadow is a TLB of the guest's tables: it may be stale exactly where a TLB
 * may be (docs/coherence.md, rule 1).
 *
 * This module knows guest tables, shadow tables and the pmap. It does not know KVM, Xen or who owns a thread.
 *
 * Conventions, stated once:
 *  - Functions return 0 or -errno unless they say otherwise.
 *  - A function that takes a `struct mmu_cpu *` may be called by any number of threads at once, each with an mmu_cpu
 *    of its own; one mmu_cpu is used by one thread at a time. Functions that take a `struct mmu *` say their rule.
 *  - The guest is hostile: frame numbers, indices and addresses that came from it may be passed in unchecked; every
 *    function checks them against a private copy. No guest input makes this module assert, loop or crash.
 */
#ifndef UMBRA_MMU_H
#define UMBRA_MMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- words ---------------------------------------------------------------------------------------------------- */

typedef struct { uint64_t n; } gfn_t;	/* guest frame number: what the guest writes in its own tables */
typedef struct { uint64_t n; } mfn_t;	/* machine frame: a 4 KiB frame of the VM's physical space (KVM slots) */
typedef struct { uint64_t a; } gva_t;	/* guest virtual address */

#define MMU_PAGE_SHIFT	12
#define MMU_PAGE_SIZE	4096ull
#define MMU_ENTRIES	512u		/* entries per table */
#define MMU_LEVELS	4		/* 4: root .. 1: leaf table */
#define MMU_NO_GFN	((gfn_t){ ~0ull })

/* Bits of a page-table entry, guest or shadow (Intel SDM vol. 3A, 4.5; AMD APM vol. 2, 5.3). */
#define MMU_PTE_P	(1ull << 0)
#define MMU_PTE_W	(1ull << 1)
#define MMU_PTE_U	(1ull << 2)
#define MMU_PTE_PWT	(1ull << 3)
#define MMU_PTE_PCD	(1ull << 4)
#define MMU_PTE_A	(1ull << 5)
#define MMU_PTE_D	(1ull << 6)
#define MMU_PTE_PS	(1ull << 7)	/* levels 2 and 3: a large page */
#define MMU_PTE_G	(1ull << 8)
#define MMU_PTE_NX	(1ull << 63)
#define MMU_PTE_ADDR	0x000ffffffffff000ull

/* Page-fault error code bits (SDM vol. 3A, 4.7). */
#define MMU_PF_P	(1u << 0)
#define MMU_PF_W	(1u << 1)
#define MMU_PF_U	(1u << 2)
#define MMU_PF_RSVD	(1u << 3)
#define MMU_PF_FETCH	(1u << 4)

/* What an address space serves. Guest kernel and guest user both run at ring 3, so every shadow entry that is present
 * has U=1: a MMU_KERNEL space ignores the guest's U bit, a MMU_USER space shows only what the guest marked U. */
enum mmu_mode { MMU_KERNEL, MMU_USER };

/* ---- set-up --------------------------------------------------------------------------------------------------- */

enum mmu_fill { MMU_FILL_LAZY, MMU_FILL_EAGER };	/* EAGER: prebuild what an explicit update just wrote */

/* Prefetch done synchronously on a hidden fault: baselines to hold the helper thread against. */
enum mmu_prefetch_kind {
	MMU_PREFETCH_OFF,
	MMU_PREFETCH_KVM8,	/* the aligned group of 8 around the fault, as KVM's shadow MMU */
	MMU_PREFETCH_XEN32,	/* the 32 entries from the fault on, as Xen's shadow code */
	MMU_PREFETCH_AROUND,	/* N entries on both sides, within the table */
};

/* `count` machine frames from `first` stand at `hva` in this process. */
struct mmu_region {
	mfn_t first;
	uint64_t count;
	void *hva;
};

struct mmu_config {
	const struct mmu_region *regions;	/* guest RAM, special frames, pool; copied */
	unsigned nr_regions;
	uint64_t nr_gfns;	/* the guest may name gfns 0 .. nr_gfns-1; the pmap starts as identity over them */
	mfn_t pool;		/* shadow pool: first frame (inside a region, not below nr_gfns) ... */
	uint32_t pool_pages;	/* ... and its size. At least MMU_POOL_MIN for each node */
	unsigned nr_nodes;	/* shadow tables for each of so many nodes, up to MMU_MAX_NODES, in a part of the pool each
				 * (mmu_pool_part()). 0 or 1: one set of tables for all */
	uint64_t hole[2][16];	/* [enum mmu_mode][i]: raw entry for L4 slot 256+i of every root of that mode; 0: empty.
				 * The guest's own entries there are ignored */
	const uint64_t *view_entry;	/* [view]: what kernel roots of that view have in L4 slot 256+view_slot instead; copied.
				 * NULL: kernel roots are alike for all processors */
	unsigned view_slot, nr_views;	/* 0..15; 1..MMU_MAX_VIEWS, each with kernel roots of its own */
	enum mmu_fill fill;
	enum mmu_prefetch_kind prefetch;
	unsigned prefetch_n;	/* for MMU_PREFETCH_AROUND: 1..511 */
	bool fill_linear;	/* a hidden fault of the kernel in a leaf table that maps frames in a row fills the table */
	bool link_ahead;	/* link tables that have a shadow when a root is loaded, and into both modes' roots at one fault */
	bool track_reach;	/* know which cpus a kick concerns. Needs every CR3 load to flush what the roots before it left */
	bool large;		/* build 2 MiB shadow entries where guest mapping and backing allow */
	bool nx;		/* the processor honours NX (else bit 63 is reserved) */
	bool preset_ad;		/* install leaves with A and D set: lets KVM's own shadow prefetch (7x cheaper) */
	unsigned sample_every;	/* of about so many leaves that nobody asked for one is a sample (mmu_source_stats()); 0: none */
	unsigned table_kick_min;/* from so many removed entries on, a whole-table kick is used; 0: never */
	unsigned audit;		/* 0 none; 1 every entry installed; 2 also whole tables at resync; 3 also everything,
				 * including rmap and parent links, at every mmu_flush() and every 64th fault */
	void (*audit_failed)(void *arg, const char *what);	/* NULL: print to stderr and abort() */
	void *audit_arg;
	/* A replicated frame has one copy again, at `kept` (mmu_replicate()). Comes with locks held, on any thread that uses an
	 * mmu_cpu: only to be noted. NULL: nobody cares. */
	void (*collapsed)(void *arg, gfn_t gfn, mfn_t kept);
	void *collapsed_arg;
};

#define MMU_MAX_VIEWS	64u
#define MMU_MAX_NODES	8u
#define MMU_POOL_MIN	48u	/* pages of the pool for a node below which mmu_create() refuses */

struct mmu;
struct mmu_cpu;

/* Builds an MMU over memory that the caller owns and keeps until mmu_destroy(). -EINVAL: a bad config (regions overlap,
 * pool outside every region, ...); -ENOMEM. */
int mmu_create(const struct mmu_config *config, struct mmu **out);
/* No mmu_cpu of it may exist any more. */
void mmu_destroy(struct mmu *mmu);

/* Which frames of the pool the tables of a node are made from, as long as there are any: to place them there. Any thread. */
void mmu_pool_part(struct mmu *mmu, unsigned node, mfn_t *first, uint32_t *count);

/* The handle of one thread: its counters, its kick list, the roots it runs on. -ENOMEM; -EUSERS: MMU_MAX_CPUS exist. Any
 * thread. */
int mmu_cpu_create(struct mmu *mmu, struct mmu_cpu **out);
/* Which view its kernel roots show, 0 if never called. Before its first mmu_load(). -EINVAL: the MMU has no such view. */
int mmu_cpu_set_view(struct mmu_cpu *cpu, unsigned view);
/* From now on what the calling thread waits for locks of this module is counted as this cpu's; NULL: as nobody's, as of a
 * thread that never calls it. Ends before the cpu is destroyed, with the thread or by NULL. */
void mmu_cpu_bind(struct mmu_cpu *cpu);
/*
 * Whose shadow tables it runs on, 0 if never called. A root loaded before stays what it is: the new node counts from the
 * next mmu_load() of each mode on. A cpu that only prebuilds loads nothing: for it, the node is the one whose root
 * mmu_prebuild_tree() makes where no node has one. -EINVAL: the MMU has no such node.
 */
int mmu_cpu_set_node(struct mmu_cpu *cpu, unsigned node);
/* The owner does the kicks first if any other processor still runs: what the cpu owes counts as done afterwards. */
void mmu_cpu_destroy(struct mmu_cpu *cpu);

/* ---- spaces --------------------------------------------------------------------------------------------------- */

/*
 * Loads the space whose guest root table is `l4` as this cpu's root for `mode`; the root it replaces may be reclaimed
 * from the next mmu_entered() on. MMU_NO_GFN only releases. A load is a TLB flush of the guest's: out-of-sync tables are resynced.
 * *root: the frame to put in CR3. -EINVAL: gfn out of range. -EAGAIN: pool dry until pending kicks are done.
 */
int mmu_load(struct mmu_cpu *cpu, enum mmu_mode mode, gfn_t l4, mfn_t *root);

/* The processor has entered the guest on the roots loaded now. Until then the ones it had before stay in the pool, for its
 * CR3 still names one of them while it is on its way in. */
void mmu_entered(struct mmu_cpu *cpu);

/* Says that `table` is a page table of `level` 1..4 until mmu_unpin(): from now on its frame is write-protected in the
 * shadow. A write by the guest kernel through a read-only gPTE to a pinned (or shadowed) level-1 table is let through
 * by taking the table out of sync; above level 1 it is a true fault. A second pin replaces the first. -EINVAL. */
int mmu_pin(struct mmu_cpu *cpu, gfn_t table, unsigned level);
/* Ends the above; shadows of the table are dropped, and with them every shadow below that no other table links.
 * A root that is loaded stays, emptied. -EINVAL: out of range or not pinned. */
int mmu_unpin(struct mmu_cpu *cpu, gfn_t table);

/* ---- faults --------------------------------------------------------------------------------------------------- */

enum mmu_verdict {
	MMU_HIDDEN,	/* the gPTEs allow it; the shadow now does too: run the guest again */
	MMU_SPURIOUS,	/* the shadow already allowed it: run again */
	MMU_PTWRITE,	/* write to a page-table page; it is writable and out of sync now: run again */
	MMU_TRUE,	/* the gPTEs forbid it: reflect #PF with error_code */
	MMU_AGAIN,	/* the pool is dry, or a frame of the walk is being moved: do the kicks, run again */
	MMU_BAD,	/* the guest's tables name a frame it does not own, or set reserved bits: MMU_TRUE with RSVD */
};

struct mmu_result {
	enum mmu_verdict verdict;
	uint32_t error_code;	/* for MMU_TRUE and MMU_BAD: P, W, FETCH as found by the walk; U iff mode is MMU_USER */
	gfn_t gfn;		/* for MMU_HIDDEN and MMU_SPURIOUS: the 4 KiB frame that the access lands in; else MMU_NO_GFN */
	bool write;		/* the access is one */
	bool watched;		/* that frame was watched (mmu_watch()) when the fault came; a write has ended that */
};

/* `access`: MMU_PF_W and MMU_PF_FETCH as in the hardware's error code; other bits are ignored. The space is the one
 * that `cpu` has loaded for `mode`. Sets A and D in the gPTEs as a processor would. Never blocks for long. */
struct mmu_result mmu_fault(struct mmu_cpu *cpu, enum mmu_mode mode, gva_t va, uint32_t access);

/* ---- what the guest does to its tables ------------------------------------------------------------------------- */

/* Explicit update: stores `gpte` in entry `index` of `table` and brings every shadow of the table in line. With
 * `preserve_ad`, A and D that the old entry had are kept, atomically (Xen: MMU_PT_UPDATE_PRESERVE_AD). -EINVAL. */
int mmu_update(struct mmu_cpu *cpu, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad);
/* The same when the store has already happened by other means (a ring that the guest filled). */
int mmu_updated(struct mmu_cpu *cpu, gfn_t table, unsigned index);

/* The guest flushes its TLB: resync every out-of-sync table. The flush is complete once this cpu's kicks are done, also
 * where another cpu made the change and still owes the kick. */
void mmu_flush(struct mmu_cpu *cpu);
/* Whether a flush would find anything to resync. Any thread. */
bool mmu_out_of_sync(struct mmu *mmu);
/* The guest flushes one address of the spaces loaded on `cpu`. */
void mmu_invlpg(struct mmu_cpu *cpu, gva_t va);

/* ---- walking for the VMM -------------------------------------------------------------------------------------- */

struct mmu_walk {
	uint32_t error_code;	/* when -EFAULT: as in mmu_result */
	gfn_t gfn;		/* the 4 KiB frame that `va` lands in */
	gfn_t table;		/* table holding the leaf entry ... */
	unsigned index, level;	/* ... its index there, and its level: 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB) */
	uint64_t gpte;		/* the leaf entry as read */
};

/* Walks the guest tables from `l4`. 0, -EFAULT (not mapped or forbidden: out->error_code; table, index, level and gpte
 * name the entry where the walk stopped, so that a not-present leaf can be found and written) or -EINVAL (`l4` out of
 * range). Sets no A/D bits. Any thread; the answer may be stale when it returns. */
int mmu_translate(struct mmu *mmu, gfn_t l4, enum mmu_mode mode, gva_t va, uint32_t access, struct mmu_walk *out);

/* Where a guest frame stands in this process, NULL if out of range. Stays valid until the frame is moved: a caller that
 * can race a mover takes it anew for each use. Any thread. */
void *mmu_gfn_hva(struct mmu *mmu, gfn_t gfn);
void *mmu_mfn_hva(struct mmu *mmu, mfn_t mfn);
/*
 * The VMM writes `bytes` from `offset` on into a guest frame: nothing is lost if the frame is on the move, dirty logging
 * knows, and shadows of a table are brought in line with it. 4 and 8 bytes aligned to their size are stored
 * at one time. -EINVAL: no such frame, or beyond its end.
 */
int mmu_write(struct mmu_cpu *cpu, gfn_t gfn, unsigned offset, const void *from, unsigned bytes);

/*
 * From now on the frame stays where it is, until as many mmu_unfix(): mmu_gfn_hva() may be kept, and written by if
 * mmu_mark_dirty() follows. -EINVAL; -EAGAIN: it is moving, or was replicated; do the kicks, call again; -EBUSY: 65535 times
 * fixed.
 */
int mmu_fix(struct mmu_cpu *cpu, gfn_t gfn);
void mmu_unfix(struct mmu_cpu *cpu, gfn_t gfn);
/* The VMM wrote into a fixed guest frame, or the guest did by ways that mmu/ does not see. Any thread. */
void mmu_mark_dirty(struct mmu *mmu, gfn_t gfn);

/* ---- prebuilding ---------------------------------------------------------------------------------------------- */

enum mmu_prebuilt {
	MMU_PB_BUILT,		/* entry installed */
	MMU_PB_PRESENT,		/* there was one */
	MMU_PB_NO_SHADOW,	/* the table has no shadow, or a link's child has none and MMU_PB_TABLES was not given */
	MMU_PB_NOTHING,		/* the gPTE is absent, has A=0, names a bad or moving frame ... */
	MMU_PB_NO_ROOM,		/* the link's child needs a table, and the pool has none to spare */
	MMU_PB_BUSY,		/* a lock was taken, the child lags behind its table or cannot be protected without a kick;
				 * later it may work */
};

#define MMU_SOURCES 32u		/* who installed a leaf: 0 demand (fault), 1 prefetch, 2 eager fill; 3.. heuristics */
enum { MMU_SRC_DEMAND, MMU_SRC_PREFETCH, MMU_SRC_EAGER, MMU_SRC_FIRST_HEURISTIC };

#define MMU_PB_TABLES	1u	/* makes the missing shadow table of a link: from free frames of the pool only, of which a
				 * reserve is left to faults; never by reclaim */
#define MMU_PB_YOUNG	2u	/* entries whose gPTE has A clear too: sets A in the gPTE first, as a processor's speculative
				 * access may (SDM vol. 3A, 4.8). Never sets D: a W gPTE without D is installed read-only */
#define MMU_PB_SAMPLE	4u	/* a leaf is installed with A clear whatever cfg.preset_ad says, so that its use can be seen
				 * (mmu_source_stats()). Some others are too: cfg.sample_every */

/*
 * Installs the shadow of entry `index` of guest table `table`, not-present -> present only, in each existing shadow of
 * the table: a leaf of 4 KiB, one of 2 MiB where it can be mapped as such, or a link (levels 2-4) to the shadow of the
 * table below, on each node that has one of the table. Concurrent with everything; only tries locks that others may hold for long; never recycles and never owes
 * a kick. `source` < MMU_SOURCES is remembered in a leaf sPTE; `flags`: MMU_PB_*. Several shadows: the best answer.
 *
 * A link makes a shadow reachable that exists already only if that is in line with its table, as far as mmu/ was told:
 * after a store to a table of level 2 or 3 that nobody has reported yet (mmu_updated()), a new link may show what that
 * table said before.
 */
enum mmu_prebuilt mmu_prebuild(struct mmu_cpu *cpu, gfn_t table, unsigned index, unsigned source, unsigned flags);

/*
 * The same for every entry that the walks of first_va .. last_va (inclusive) in the space of `root` and `mode` meet, from
 * the root down, on every node where the root has a shadow; these share the budget. Without MMU_PB_TABLES it keeps to
 * shadows that exist, the root's included; with it, a root that is pinned as one gets a shadow on the cpu's node if it has none, and so do tables that are not pinned or shadowed at another level. Ends after `budget` leaves,
 * where the pool runs dry, or after a number of tables that a tree of so many leaves cannot need. Returns the leaves built.
 */
unsigned mmu_prebuild_tree(struct mmu_cpu *cpu, gfn_t root, enum mmu_mode mode, gva_t first_va, gva_t last_va,
			   unsigned source, unsigned flags, unsigned budget);

/* Which of the 512 pages from `va` (2 MiB aligned) on have a 4 KiB leaf sPTE in a space. */
struct mmu_present {
	gva_t va;
	gfn_t table;			/* the guest's level-1 table that says so */
	uint64_t bits[MMU_ENTRIES / 64];
};

/* Calls `fn` for each shadow of a level-1 table with anything present that the shadow of the space links within first_va ..
 * last_va, without locks: a hint, possibly old. `fn` says whether to go on, and may call mmu_prebuild_set(). Returns the
 * number of calls; 0 also when the root has no shadow. */
unsigned mmu_present_set(struct mmu_cpu *cpu, gfn_t root, enum mmu_mode mode, gva_t first_va, gva_t last_va,
			 bool (*fn)(void *arg, const struct mmu_present *set), void *arg);
/* As mmu_prebuild_tree() for the pages of `set` alone, in any space: what a parent used, in its child. */
unsigned mmu_prebuild_set(struct mmu_cpu *cpu, gfn_t root, enum mmu_mode mode, const struct mmu_present *set,
			  unsigned source, unsigned flags);

/* After a cpu has loaded its root for `mode` on another node: builds there what the root's shadow on node `from` shows as 4 KiB
 * leaves, at most `budget` of them, tables included as with MMU_PB_TABLES. So the processor finds on its new node what it used
 * on the old one. Returns the leaves built; 0 also if `from` has no shadow of the root. */
unsigned mmu_prebuild_along(struct mmu_cpu *cpu, enum mmu_mode mode, unsigned from, unsigned source, unsigned budget);

/*
 * What became of the leaves of one source. Leaves preset with A (cfg.preset_ad) do not show whether they are used; a
 * sample is installed with A clear, and is settled when it is removed or swept, or when a fault comes for it:
 *	sampled = sampled_used + sampled_unused + sampled_late + those not settled yet
 * A is set by whoever walks the shadow: the processor, with EPT or NPT, on any access, speculative ones included; KVM's own
 * walk where KVM shadows our tables, at its own fault on the entry. KVM prefetches no entry with A clear.
 */
struct mmu_source_stats {
	uint64_t built;		/* leaves installed */
	uint64_t removed;	/* ... removed again */
	uint64_t sampled;	/* ... installed with A clear */
	uint64_t sampled_used, sampled_unused;
	uint64_t sampled_late;	/* a fault came all the same: before the entry was there, or for a right it lacked */
};

/* -EINVAL: no such source. Any thread. */
int mmu_source_stats(struct mmu *mmu, unsigned source, struct mmu_source_stats *out);
/* Settles the samples that were used; with `final` those that were not, too. Any thread, beside anything. */
void mmu_sample_sweep(struct mmu *mmu, bool final);

/* ---- pmap ----------------------------------------------------------------------------------------------------- */

mfn_t mmu_pmap(struct mmu *mmu, gfn_t gfn);

/*
 * Moves a guest frame, with the guest running:
 *   begin   no sPTE maps the frame any more and none will (faults on it say MMU_AGAIN); then do the kicks
 *   commit  copies the 4 KiB, and the pmap names `to`; faults fill from it. Or abort: the old frame stays
 * begin: -EINVAL out of range, -EBUSY fixed, already moving, or a page table that is pinned or loaded as a root; shadows
 * of any other table are dropped, a watch ends, copies become one. commit: -EINVAL not moving, or `to` is no frame outside the pool; the frame
 * is moving still. One mover per frame; different frames at once are fine.
 *
 * Guest tables are walked without locks. A walk that overlaps the commit may still read the old place; the value is not
 * used if the frame has moved since. So the caller leaves the old place as it is, and puts nothing else there, until each
 * thread that was inside a function of this header at the commit has been seen outside.
 */
int mmu_remap_begin(struct mmu_cpu *cpu, gfn_t gfn);
int mmu_remap_commit(struct mmu_cpu *cpu, gfn_t gfn, mfn_t to);
void mmu_remap_abort(struct mmu_cpu *cpu, gfn_t gfn);

/*
 * After mmu_remap_begin() and its kicks, in place of commit: copies the frame to each at[node] (of mmu_config.nr_nodes) that
 * is not where it stands, and the shadow tables of each node map the node's own copy, read-only, from now on. The pmap and
 * who reads through it keep to where the frame stood. -EINVAL: not moving, one node only, or an at[] that is no frame
 * outside the pool; -EBUSY: it was pinned meanwhile. After an error it is moving still.
 *
 * The first write of the guest makes one copy of them again, that of the writer's node: all sPTEs go, `collapsed` is
 * told, and the fault says MMU_AGAIN until every processor has forgotten the other copies. So does a store of the VMM
 * (mmu_update(), mmu_write(), A and D in a table that has no shadow), which goes to all copies until then; and so do use as
 * a table, a pin and a move, which keep what the pmap names.
 */
int mmu_replicate(struct mmu_cpu *cpu, gfn_t gfn, const mfn_t *at);
/*
 * One copy again, where the pmap says, if there are several. 0: no processor uses another copy any more, nor does mmu/: they
 * may be given back as the old place of a move may. -EAGAIN: kicks of the collapse are owed still, by this cpu or another;
 * call again when they are done. -EINVAL. The way to find out after `collapsed`, too.
 */
int mmu_collapse(struct mmu_cpu *cpu, gfn_t gfn);
/* What the shadow tables of a node map for the frame; ~0: no such frame or node. Any thread; may be old when it returns. */
mfn_t mmu_pmap_on(struct mmu *mmu, gfn_t gfn, unsigned node);

/*
 * Watches who uses a frame: no sPTE maps it any more. From the kicks on, the first access by each shadow table is a
 * hidden fault (mmu_result.watched): leaves are read-only and are made for faults alone, nobody prebuilds them. The first
 * write by the guest ends it, or a move, or use as a page table. Again on a watched frame: from the beginning. No 2 MiB
 * sPTE covers the frame meanwhile. -EINVAL out of range, -EBUSY fixed, moving, or a page table.
 */
int mmu_watch(struct mmu_cpu *cpu, gfn_t gfn);
void mmu_unwatch(struct mmu_cpu *cpu, gfn_t gfn);

/* ---- dirty logging (live migration, snapshots) ------------------------------------------------------------------ */

/* From the moment the kicks after mmu_dirty_start() are done, every frame written by guest or VMM is found by a later
 * fetch. -EALREADY. */
int mmu_dirty_start(struct mmu_cpu *cpu);
/* bit i of bitmap[i / 64]: frame first+i was written since the last fetch; those frames are write-protected again,
 * which holds once the kicks are done. -EINVAL: not started or out of range. */
int mmu_dirty_fetch(struct mmu_cpu *cpu, gfn_t first, uint64_t count, uint64_t *bitmap);
int mmu_dirty_stop(struct mmu_cpu *cpu);

/* ---- kicks ---------------------------------------------------------------------------------------------------- */

/*
 * A kick makes a changed, previously present sPTE take effect (docs/coherence.md rules 3-5). What is to be kicked is
 * collected per mmu_cpu, without bound and without duplicates. The owner of the cpu
 *   1. drains the list with mmu_kick_next() into a private copy,
 *   2. makes every processor that may cache one of them forget it, by whatever its host needs,
 *   3. calls mmu_kick_done(), which lets the pool reuse tables freed before step 1.
 * Before a processor enters the guest its cpu has to have done this; nor may a cpu sleep on kicks it owes, for others
 * may need the tables. A drain may be partial: then nothing is reused before the rest was drained and done too.
 * Pending with nothing to give out is possible: a table waits, and step 3 is needed all the same.
 */
struct mmu_kick {
	mfn_t table;		/* a frame of the pool */
	uint16_t index;		/* the entry, when !whole */
	bool whole;		/* every entry of the table */
	uint64_t cpus;		/* by number: whose processors may cache it, the owner's aside. MMU_CPUS_ALL without track_reach */
};

#define MMU_MAX_CPUS	63u
#define MMU_CPUS_ALL	(~0ull)
/* Bit of this cpu in mmu_kick.cpus. */
unsigned mmu_cpu_number(const struct mmu_cpu *cpu);

bool mmu_kick_pending(struct mmu_cpu *cpu);
/* Takes up to `max` kicks off the list; returns how many. 0: drained. */
unsigned mmu_kick_next(struct mmu_cpu *cpu, struct mmu_kick *out, unsigned max);
void mmu_kick_done(struct mmu_cpu *cpu);

/* ---- counters, audit ------------------------------------------------------------------------------------------ */

/* One list makes the struct, the sum and the JSON: X(name, "what it counts"). Per cpu, owner writes, no atomics needed
 * by readers that accept a slightly old value. */
/* Kinds of lock, outermost first (internal.h). */
#define MMU_LOCKS(X) \
	X(flush,	"comparing the tables that are out of sync, at a flush or a root's load") \
	X(frame,	"a guest frame as a page table; by hash") \
	X(page,		"a shadow table: installing entries") \
	X(parents,	"the list of entries that link a shadow table") \
	X(bucket,	"the leaves that map the frames of 2 MiB; by hash") \
	X(listed,	"the list of tables that the next flush compares") \
	X(cpus,		"the list of mmu_cpus: taking over what others owe") \
	X(kick,		"what one mmu_cpu owes") \
	X(pool,		"the free shadow tables")

#define MMU_LOCK_COUNTERS_OF(X, name) \
	X(waits_##name,		"times the " #name " lock was found taken") \
	X(spins_##name,		"looks at it until it was free")

#define MMU_LOCK_COUNTERS(X) \
	MMU_LOCK_COUNTERS_OF(X, flush) \
	MMU_LOCK_COUNTERS_OF(X, frame) \
	MMU_LOCK_COUNTERS_OF(X, page) \
	MMU_LOCK_COUNTERS_OF(X, parents) \
	MMU_LOCK_COUNTERS_OF(X, bucket) \
	MMU_LOCK_COUNTERS_OF(X, listed) \
	MMU_LOCK_COUNTERS_OF(X, cpus) \
	MMU_LOCK_COUNTERS_OF(X, kick) \
	MMU_LOCK_COUNTERS_OF(X, pool) \
	X(locks_missed,		"locks found taken by who does not wait for them, the helper thread above all")

#define MMU_COUNTERS(X) \
	X(hidden,		"hidden faults: gPTE allowed, sPTE was absent or weaker") \
	X(spurious,		"faults on an entry that was fine already") \
	X(true_faults,		"true faults, to be reflected into the guest") \
	X(pt_write,		"PT-write faults: a page table went out of sync or was dropped") \
	X(bad,			"faults over frames the guest does not own or reserved bits") \
	X(again,		"faults put off because the pool was dry or the frame moving") \
	X(dirty_faults,		"hidden faults taken only to log a dirty frame") \
	X(ad_faults,		"hidden faults taken only to set D") \
	X(fills,		"leaf entries installed on demand") \
	X(fills_large,		"2 MiB leaf entries installed") \
	X(links,		"table links installed") \
	X(links_ahead,		"... of those, at a root's load or in the other mode's root, with no fault") \
	X(prefetched,		"entries installed by --prefetch") \
	X(eager,		"entries installed by --fill=eager") \
	X(prebuilt,		"leaf entries installed by mmu_prebuild() and its kin") \
	X(prebuilt_links,	"table links installed by these") \
	X(prebuilt_tables,	"shadow tables made by these") \
	X(prebuilt_young,	"gPTEs in which these set A") \
	X(prebuilt_removed,	"prebuilt entries (any source) removed or weakened again") \
	X(updates,		"explicit updates of a gPTE") \
	X(updates_shadowed,	"... of a table that had a shadow") \
	X(flushes,		"guest TLB flushes") \
	X(invlpgs,		"guest invlpg") \
	X(loads,		"root loads") \
	X(unsyncs,		"tables taken out of sync") \
	X(resyncs,		"tables resynced") \
	X(resync_changed,	"entries a resync found changed") \
	X(zaps,			"shadow tables dropped") \
	X(reclaims,		"shadow tables reclaimed for room") \
	X(allocs,		"shadow tables made") \
	X(kick_entries,		"sPTEs queued for a kick") \
	X(kick_tables,		"whole tables queued for a kick") \
	X(remaps,		"frames moved") \
	X(replicas,		"frames replicated") \
	X(collapses,		"... made one again") \
	X(watches,		"frames watched") \
	X(watch_faults,		"hidden or spurious faults on watched frames") \
	X(touched,		"distinct guest frames that faults led to, page tables included (touched.c)") \
	X(touched_tables,	"... of them page tables walked") \
	X(touched_2m,		"distinct 2 MiB regions with one of them") \
	X(reachable,		"distinct guest frames touched, or shown by prebuilding") \
	X(audits,		"audits run") \
	X(audit_errors,		"audit complaints") \
	MMU_LOCK_COUNTERS(X)

struct mmu_stats {
#define X(name, what) uint64_t name;
	MMU_COUNTERS(X)
#undef X
};

void mmu_cpu_stats(const struct mmu_cpu *cpu, struct mmu_stats *out);
/* Sum over all cpus that exist or existed. Any thread. */
void mmu_stats(struct mmu *mmu, struct mmu_stats *out);

struct mmu_usage {
	uint32_t pool_pages, pool_used, pool_peak;	/* frames; used includes those waiting for a kick */
	uint32_t by_level[MMU_LEVELS + 1];		/* [1..4] tables in use */
	unsigned nr_nodes;				/* 1: the pool is one */
	struct mmu_node_usage {
		uint32_t pool_pages, pool_used;		/* of the node's part, whosever tables stand there */
		uint32_t tables, tables_outside;	/* the node's; ... of them in the part of another */
	} node[MMU_MAX_NODES];
	uint64_t leaves, large_leaves;			/* present leaf sPTEs */
	uint64_t bookkeeping_bytes;			/* memory of this module outside the pool */
};
void mmu_usage(struct mmu *mmu, struct mmu_usage *out);
/* The same but for bookkeeping_bytes, which take long to count: 0. Any thread, while others run. */
void mmu_pool_usage(struct mmu *mmu, struct mmu_usage *out);

/* Re-walks and compares everything, as level 3. Returns the number of complaints; each goes to audit_failed. The caller
 * keeps other threads out and has done the kicks and a flush. */
unsigned mmu_audit(struct mmu_cpu *cpu);

/* Writes the walk of `va` through guest and shadow tables, for a crash dump. Any thread, best effort. */
struct _IO_FILE;
void mmu_dump_walk(struct mmu_cpu *cpu, enum mmu_mode mode, gva_t va, struct _IO_FILE *to);

#endif
