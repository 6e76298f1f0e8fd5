/* frames.c - types of guest frames: who may be a page table, and what a page table may name. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/frames.h"
#include "vmm/layout.h"

#define HOLE_SLOTS	16u

/* Xen's L2-L4 _DISALLOW_MASK as far as it matters: no large pages; G is reserved in level 4 (AMD APM vol. 2, 5.3.3). */
#define UPPER_REFUSED	(MMU_PTE_PS | MMU_PTE_G)
/* What a processor or KVM may have cached of an entry and has to forget when it goes. */
#define RIGHTS		(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D)
#define NATURE		(MMU_PTE_ADDR | MMU_PTE_PWT | MMU_PTE_PCD | MMU_PTE_PS)

struct frame {
	uint32_t count;		/* users as `type`; 0: no type */
	uint8_t type;
	bool pinned;		/* one of them is the guest's pin */
	uint64_t freed;		/* clock when count fell to 0 */
};

struct frames {
	struct frames_config cfg;
	pthread_mutex_t lock;
	uint64_t clock;		/* counts flushes */
	struct frames_stats stats;
	struct frame frames[];
};

static uint64_t pte_frame(uint64_t gpte)
{
	return (gpte & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT;
}

static bool is_table(const struct frame *fr)
{
	return fr->count && fr->type != FRAME_WRITABLE;
}

static bool is_hole(unsigned level, unsigned index)
{
	return level == FRAME_L4 && index - HOLE_SLOT_FIRST < HOLE_SLOTS;
}

static uint64_t *entry_at(const struct frames *f, uint64_t gfn, unsigned index)
{
	return (uint64_t *)((char *)f->cfg.ram + gfn * MMU_PAGE_SIZE) + index;
}

static uint64_t entry_load(const struct frames *f, uint64_t gfn, unsigned index)
{
	return __atomic_load_n(entry_at(f, gfn, index), __ATOMIC_SEQ_CST);
}

/* ---- references ------------------------------------------------------------------------------------------------------- */

static const uint64_t no_hole[HOLE_SLOTS];

static int get_type(struct frames *f, uint64_t gfn, unsigned type, void *arg);
static void put_type(struct frames *f, uint64_t gfn, unsigned type);

/* A root that shows itself read-only, the one recursion that Xen allows (get_l4_linear_pagetable()): no reference. */
static bool is_self_map(uint64_t table, unsigned level, uint64_t gpte)
{
	return level == FRAME_L4 && pte_frame(gpte) == table && !(gpte & MMU_PTE_W);
}

/* The type that a present entry needs of the frame it names; FRAME_NONE: any. */
static unsigned needed_type(uint64_t table, unsigned level, uint64_t gpte)
{
	if (level > FRAME_L1)
		return is_self_map(table, level, gpte) ? FRAME_NONE : level - 1;
	return gpte & MMU_PTE_W ? FRAME_WRITABLE : FRAME_NONE;
}

static int entry_get(struct frames *f, uint64_t table, unsigned level, uint64_t gpte, void *arg)
{
	uint64_t limit = level > FRAME_L1 ? f->cfg.ram_frames : f->cfg.nr_gfns;
	unsigned type = needed_type(table, level, gpte);

	if (!(gpte & MMU_PTE_P))
		return 0;
	if (pte_frame(gpte) >= limit || (level > FRAME_L1 && (gpte & UPPER_REFUSED)))
		return -EINVAL;
	return type == FRAME_NONE ? 0 : get_type(f, pte_frame(gpte), type, arg);
}

static void entry_put(struct frames *f, uint64_t table, unsigned level, uint64_t gpte)
{
	unsigned type = needed_type(table, level, gpte);

	if ((gpte & MMU_PTE_P) && type != FRAME_NONE && pte_frame(gpte) < f->cfg.nr_gfns)
		put_type(f, pte_frame(gpte), type);
}

static void set_hole(struct frames *f, uint64_t l4, const uint64_t hole[16], void *arg)
{
	for (unsigned i = 0; i < HOLE_SLOTS; i++) {
		uint64_t *at = entry_at(f, l4, HOLE_SLOT_FIRST + i), old = *at;

		/* A set by the processor; nothing else can differ but by what is taken away here. */
		if (((old ^ hole[i]) & ~MMU_PTE_A) == 0)
			continue;
		__atomic_store_n(at, hole[i], __ATOMIC_SEQ_CST);
		if (arg && (old & MMU_PTE_P))
			f->cfg.owner->changed(arg, (gfn_t){ l4 }, HOLE_SLOT_FIRST + i);
	}
}

/* Entries [0, end) are given back. */
static void release(struct frames *f, uint64_t gfn, unsigned level, unsigned end)
{
	for (unsigned i = 0; i < end; i++)
		if (!is_hole(level, i))
			entry_put(f, gfn, level, entry_load(f, gfn, i));
}

/* The frame has no user and no cached writable mapping. U as in adjust_guest_l*e(): the guest kernel runs at ring 3, and what
 * user mode must not see is not in its root. */
static int validate(struct frames *f, uint64_t gfn, unsigned level, void *arg)
{
	for (unsigned i = 0; i < MMU_ENTRIES; i++) {
		uint64_t gpte = entry_load(f, gfn, i);
		int r;

		if (is_hole(level, i) || !(gpte & MMU_PTE_P))
			continue;
		r = entry_get(f, gfn, level, gpte, arg);
		if (r) {
			release(f, gfn, level, i);
			return r;
		}
		if (!(gpte & MMU_PTE_U))
			__atomic_fetch_or(entry_at(f, gfn, i), MMU_PTE_U, __ATOMIC_SEQ_CST);
	}
	if (level == FRAME_L4)
		set_hole(f, gfn, f->cfg.hole[MMU_USER], NULL);
	f->stats.validated++;
	f->cfg.owner->changed(arg, (gfn_t){ gfn }, MMU_ENTRIES);
	return 0;
}

/* Recursion ends: each step is one level down. */
static int get_type(struct frames *f, uint64_t gfn, unsigned type, void *arg)
{
	struct frame *fr = &f->frames[gfn];
	int r;

	if (fr->count) {
		if (fr->type != type || fr->count == UINT32_MAX)
			return -EINVAL;
		fr->count++;
		return 0;
	}
	/* What the frame was before may still be in a TLB, or in a paging-structure cache (SDM vol. 3A, 4.10.3). A frame that is
	 * used as before has nothing to hide. */
	if (fr->type != type && fr->type != FRAME_NONE && fr->freed == f->clock) {
		f->cfg.owner->retyped(arg);
		f->stats.retyped++;
	}
	fr->type = type;
	fr->count = 1;
	if (type == FRAME_WRITABLE)
		return 0;
	r = validate(f, gfn, type, arg);
	if (r)
		fr->count = 0;		/* `freed` and the flush asked for stand: harmless */
	return r;
}

static void put_type(struct frames *f, uint64_t gfn, unsigned type)
{
	struct frame *fr = &f->frames[gfn];

	if (!fr->count || fr->type != type)	/* cannot be; and if it is, the frame keeps its type */
		return;
	if (--fr->count)
		return;
	fr->freed = f->clock;
	if (type != FRAME_WRITABLE)
		release(f, gfn, type, MMU_ENTRIES);
	if (type == FRAME_L4)
		set_hole(f, gfn, no_hole, NULL);
}

/* ---- stores ------------------------------------------------------------------------------------------------------------ */

static bool takes_away(unsigned level, uint64_t old, uint64_t new)
{
	if (!(old & MMU_PTE_P) || old == new)
		return false;
	return level > FRAME_L1 || (old & ~new & RIGHTS) || (~old & new & MMU_PTE_NX) || ((old ^ new) & NATURE);
}

/* expected: NULL, or what the entry has to hold. */
static int store(struct frames *f, uint64_t table, unsigned index, const uint64_t *expected, uint64_t gpte, bool preserve_ad,
		 void *arg)
{
	struct frame *fr = &f->frames[table];
	uint64_t *at = entry_at(f, table, index), old = expected ? *expected : entry_load(f, table, index), new;
	unsigned level = is_table(fr) ? fr->type : FRAME_NONE;
	int r;

	if (is_hole(level, index))
		return -EINVAL;
	if (!level) {	/* plain memory, and as such not what a processor may still take for a table */
		r = get_type(f, table, FRAME_WRITABLE, arg);
		if (r)
			return r;
	} else {
		f->stats.checked++;
		r = entry_get(f, table, level, gpte, arg);
		if (r)
			return r;
		if (gpte & MMU_PTE_P)
			gpte |= MMU_PTE_U;
	}
	do {
		new = preserve_ad ? gpte | (old & (MMU_PTE_A | MMU_PTE_D)) : gpte;
		if (__atomic_compare_exchange_n(at, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			break;
	} while (!expected);
	r = expected && old != *expected ? -EAGAIN : 0;
	if (!level) {
		put_type(f, table, FRAME_WRITABLE);
		return r;
	}
	if (!r && takes_away(level, old, new))
		f->cfg.owner->changed(arg, (gfn_t){ table }, index);
	entry_put(f, table, level, r ? gpte : old);
	return r;
}

/* ---- the interface ----------------------------------------------------------------------------------------------------- */

int frames_create(const struct frames_config *config, struct frames **out)
{
	uint64_t bytes = sizeof(struct frames) + config->nr_gfns * sizeof(struct frame);
	struct frames *f = calloc(1, bytes);

	if (!f)
		return -ENOMEM;
	f->cfg = *config;
	pthread_mutex_init(&f->lock, NULL);
	for (uint64_t i = config->ram_frames; i < config->nr_gfns; i++)
		f->frames[i] = (struct frame){ .count = 1, .type = FRAME_WRITABLE };
	*out = f;
	return 0;
}

void frames_destroy(struct frames *f)
{
	if (!f)
		return;
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static int refused(struct frames *f, int r)
{
	f->stats.refused += r == -EINVAL;
	return r;
}

int frames_get(struct frames *f, gfn_t gfn, enum frame_type type, void *arg)
{
	uint64_t limit = type == FRAME_WRITABLE ? f->cfg.nr_gfns : f->cfg.ram_frames;
	int r = -EINVAL;

	pthread_mutex_lock(&f->lock);
	if (gfn.n < limit)
		r = get_type(f, gfn.n, type, arg);
	r = refused(f, r);
	pthread_mutex_unlock(&f->lock);
	return r;
}

void frames_put(struct frames *f, gfn_t gfn, enum frame_type type)
{
	pthread_mutex_lock(&f->lock);
	if (gfn.n < f->cfg.nr_gfns)
		put_type(f, gfn.n, type);
	pthread_mutex_unlock(&f->lock);
}

int frames_pin(struct frames *f, gfn_t gfn, unsigned level, void *arg)
{
	int r = -EINVAL;

	pthread_mutex_lock(&f->lock);
	if (gfn.n < f->cfg.ram_frames && level >= 1 && level <= MMU_LEVELS && !f->frames[gfn.n].pinned) {
		r = get_type(f, gfn.n, level, arg);
		f->frames[gfn.n].pinned = !r;
	}
	r = refused(f, r);
	pthread_mutex_unlock(&f->lock);
	return r;
}

int frames_unpin(struct frames *f, gfn_t gfn)
{
	int r = -EINVAL;

	pthread_mutex_lock(&f->lock);
	if (gfn.n < f->cfg.ram_frames && f->frames[gfn.n].pinned) {
		f->frames[gfn.n].pinned = false;
		put_type(f, gfn.n, f->frames[gfn.n].type);
		r = 0;
	}
	r = refused(f, r);
	pthread_mutex_unlock(&f->lock);
	return r;
}

int frames_store(struct frames *f, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad, void *arg)
{
	int r = -EINVAL;

	pthread_mutex_lock(&f->lock);
	if (table.n < f->cfg.ram_frames && index < MMU_ENTRIES)
		r = store(f, table.n, index, NULL, gpte, preserve_ad, arg);
	r = refused(f, r);
	pthread_mutex_unlock(&f->lock);
	return r;
}

int frames_exchange(struct frames *f, gfn_t table, unsigned index, uint64_t old, uint64_t gpte, void *arg)
{
	int r = -EINVAL;

	pthread_mutex_lock(&f->lock);
	if (table.n < f->cfg.ram_frames && index < MMU_ENTRIES)
		r = store(f, table.n, index, &old, gpte, false, arg);
	r = refused(f, r);
	pthread_mutex_unlock(&f->lock);
	return r;
}

uint64_t frames_read(struct frames *f, gfn_t table, unsigned index)
{
	return table.n < f->cfg.ram_frames && index < MMU_ENTRIES ? entry_load(f, table.n, index) : 0;
}

void frames_set_hole(struct frames *f, gfn_t l4, enum mmu_mode mode, void *arg)
{
	pthread_mutex_lock(&f->lock);
	if (l4.n < f->cfg.ram_frames && is_table(&f->frames[l4.n]) && f->frames[l4.n].type == FRAME_L4)
		set_hole(f, l4.n, f->cfg.hole[mode], arg);
	pthread_mutex_unlock(&f->lock);
}

enum frame_type frames_type(struct frames *f, gfn_t gfn)
{
	enum frame_type t = FRAME_NONE;

	pthread_mutex_lock(&f->lock);
	if (gfn.n < f->cfg.nr_gfns && f->frames[gfn.n].count)
		t = f->frames[gfn.n].type;
	pthread_mutex_unlock(&f->lock);
	return t;
}

void frames_flushed(struct frames *f)
{
	pthread_mutex_lock(&f->lock);
	f->clock++;
	pthread_mutex_unlock(&f->lock);
}

void frames_stats(struct frames *f, struct frames_stats *out)
{
	pthread_mutex_lock(&f->lock);
	*out = f->stats;
	pthread_mutex_unlock(&f->lock);
}

/* ---- audit ------------------------------------------------------------------------------------------------------------- */

static unsigned complain(char *why, size_t size, unsigned wrong, uint64_t gfn, const char *what, uint64_t a, uint64_t b)
{
	if (!wrong)
		snprintf(why, size, "frame %#" PRIx64 ": %s (%" PRIu64 ", %" PRIu64 ")", gfn, what, a, b);
	return 1;
}

unsigned frames_audit(struct frames *f, const gfn_t *held, unsigned nr_held, const gfn_t *kept, unsigned nr_kept, char *why,
		      size_t size)
{
	uint32_t *count = calloc(f->cfg.nr_gfns, sizeof *count);
	unsigned wrong = 0;

	if (!count)
		return 0;
	pthread_mutex_lock(&f->lock);
	for (uint64_t i = f->cfg.ram_frames; i < f->cfg.nr_gfns; i++)
		count[i]++;
	for (unsigned i = 0; i < nr_held; i++)
		count[held[i].n]++;
	for (unsigned i = 0; i < nr_kept; i++)
		count[kept[i].n]++;
	for (uint64_t gfn = 0; gfn < f->cfg.ram_frames; gfn++) {
		const struct frame *fr = &f->frames[gfn];

		count[gfn] += fr->pinned;
		for (unsigned i = 0; is_table(fr) && i < MMU_ENTRIES; i++) {
			uint64_t gpte = entry_load(f, gfn, i), to = pte_frame(gpte);
			unsigned type = needed_type(gfn, fr->type, gpte);

			if (is_hole(fr->type, i)) {
				if (((gpte ^ f->cfg.hole[MMU_USER][i - HOLE_SLOT_FIRST]) & ~MMU_PTE_A) &&
				    ((gpte ^ f->cfg.hole[MMU_KERNEL][i - HOLE_SLOT_FIRST]) & ~MMU_PTE_A))
					wrong += complain(why, size, wrong, gfn, "a slot of the hole differs", i, gpte);
				continue;
			}
			if (!(gpte & MMU_PTE_P))
				continue;
			if (to >= (fr->type > FRAME_L1 ? f->cfg.ram_frames : f->cfg.nr_gfns)) {
				wrong += complain(why, size, wrong, gfn, "an entry names a frame that is not the guest's", i, to);
				continue;
			}
			if (!(gpte & MMU_PTE_U))
				wrong += complain(why, size, wrong, gfn, "an entry without U", i, gpte);
			if (type == FRAME_NONE)
				continue;
			count[to]++;
			if (!f->frames[to].count || f->frames[to].type != type)
				wrong += complain(why, size, wrong, to, "not of the type that a table needs", f->frames[to].type,
						  type);
		}
	}
	for (uint64_t gfn = 0; gfn < f->cfg.nr_gfns; gfn++)
		if (count[gfn] != f->frames[gfn].count)
			wrong += complain(why, size, wrong, gfn, "users counted anew, and as kept", count[gfn],
					  f->frames[gfn].count);
	pthread_mutex_unlock(&f->lock);
	free(count);
	return wrong;
}
