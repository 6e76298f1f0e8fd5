/*
 * entry.c - what a guest entry asks for, and making one shadow entry say so.
 */
#include "mmu/internal.h"
#include "mmu/probe.h"

#define SYNTHETIC	(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D)

uint64_t entry_gpte(const struct mmu *mmu, const struct shadow_key *key, unsigned index)
{
	uint64_t frame;

	if (!(key->role & ROLE_DIRECT))
		return gpte_load(mmu, key->gfn, index);
	frame = key->gfn + ((uint64_t)index << (9 * (key->level - 1)));
	return frame << MMU_PAGE_SHIFT | SYNTHETIC | (key->level > 1 ? MMU_PTE_PS : 0);
}

/* The role of the table that a link of a guest table leads to. */
static uint8_t child_role(const struct mmu *mmu, const struct shadow_key *key, uint64_t gpte)
{
	if (key->role & ROLE_STRICT)
		return ROLE_STRICT;
	/* The user half of a kernel root is that of the user root, unless the kernel needs more rights there. */
	if (key->level == MMU_LEVELS && (gpte & MMU_PTE_U) && !(frame_flags(mmu, pte_frame(gpte)) & FRAME_MIXED))
		return ROLE_STRICT;
	return (key->role & ROLE_RO) | (gpte & MMU_PTE_W ? 0 : ROLE_RO);
}

static void want_big(const struct mmu *mmu, const struct shadow_key *key, uint64_t gpte, struct want *out)
{
	bool ro = (key->role & ROLE_RO) || (!(key->role & ROLE_STRICT) && !(gpte & MMU_PTE_W));

	out->gfn = pte_frame(gpte) & ~((1ull << (9 * (key->level - 1))) - 1);
	if (out->gfn >= mmu->nr_gfns)
		return;
	out->kind = WANT_BIG;
	out->w = !ro && (gpte & MMU_PTE_W) && (gpte & MMU_PTE_D);
	out->link_w = ro || out->w;
	out->child = (struct shadow_key){ .gfn = out->gfn, .level = key->level - 1, .node = key->node,
					  .role = ROLE_DIRECT | (ro ? ROLE_RO : 0) };
}

/*
 * What the guest's tables ask for; the state of the target frame comes on top (frame_may_write()). Strict tables copy W
 * of upper entries, the processor combines them. Permissive ones (kernel only) link with W=1 and remember a missing W
 * in the child's role, so that one leaf can be writable all the same: the PT write that is let through.
 */
void entry_want(const struct mmu *mmu, const struct shadow_key *key, unsigned index, uint64_t gpte, struct want *out)
{
	*out = (struct want){ .kind = WANT_NONE, .nx = gpte & MMU_PTE_NX };
	if (!(gpte & MMU_PTE_P) || !(gpte & MMU_PTE_A) || is_hole(key->level, index) ||
	    ((key->role & ROLE_STRICT) && !(gpte & MMU_PTE_U)) || gpte_reserved(mmu, key->level, gpte))
		return;
	if (key->level > 1 && gpte_is_leaf(key->level, gpte)) {
		want_big(mmu, key, gpte, out);
		return;
	}
	out->gfn = pte_frame(gpte);
	if (out->gfn >= mmu->nr_gfns)
		return;
	if (key->level == 1) {
		out->kind = WANT_LEAF;
		out->w = (gpte & MMU_PTE_W) && (gpte & MMU_PTE_D) && !(key->role & ROLE_RO);
		return;
	}
	out->kind = WANT_LINK;
	out->child = (struct shadow_key){ .gfn = out->gfn, .level = key->level - 1, .node = key->node,
					  .role = child_role(mmu, key, gpte) };
	out->link_w = !(out->child.role & ROLE_STRICT) || (gpte & MMU_PTE_W);
}

/* ---- leaves ---------------------------------------------------------------------------------------------------- */

/* Bucket lock, to be certain. */
static bool region_may_be_large(const struct mmu *mmu, uint64_t gfn)
{
	const struct region2m *r = &mmu->regions2m[gfn >> 9];

	return mmu->cfg.large && __atomic_load_n(&r->whole, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&r->special, __ATOMIC_RELAXED) && !is_logging(mmu);
}

/* W of a leaf that maps `gfn`, and SPTE_OVERRIDE. Bucket lock. */
static uint64_t leaf_w(const struct mmu *mmu, const struct want *want, uint64_t gfn, bool override)
{
	if (!frame_may_write(mmu, gfn))
		return 0;
	if (want->w)
		return MMU_PTE_W;
	return override && (frame_flags(mmu, gfn) & FRAME_UNSYNC) ? MMU_PTE_W | SPTE_OVERRIDE : 0;
}

/* A write is about to be let through: the frame counts as dirty from now on. Bucket lock. */
static void note_write(struct mmu *mmu, const struct want *want, bool large, unsigned flags)
{
	uint32_t frame = frame_flags(mmu, want->gfn);

	if ((flags & APPLY_WRITE) && !large && !(frame & FRAME_READ_ONLY) &&
	    (want->w || ((flags & APPLY_OVERRIDE) && (frame & FRAME_UNSYNC))))
		dirty_set(mmu, want->gfn);
}

/* Rights of a present leaf that maps what it should. Bucket lock. True: changed. */
static bool adjust_leaf(struct mmu_cpu *cpu, uint32_t id, uint64_t spte, const struct want *want, bool large,
			unsigned flags)
{
	const uint64_t rights = MMU_PTE_W | SPTE_OVERRIDE | MMU_PTE_NX;
	bool override = (spte & SPTE_OVERRIDE) || (flags & APPLY_OVERRIDE);
	uint64_t now;

	now = leaf_w(cpu->mmu, want, want->gfn, override) | (want->nx ? MMU_PTE_NX : 0);
	if ((spte & rights) == now)
		return false;
	if ((now & MMU_PTE_W) && (cpu->mmu->cfg.preset_ad || (flags & APPLY_WRITE)))
		now |= MMU_PTE_D;
	leaf_set_rights(cpu, id, want->gfn, large, now, rights & ~now);
	return true;
}

static void install_leaf(struct mmu_cpu *cpu, uint32_t page, unsigned index, const struct want *want, bool large,
			 unsigned source, unsigned flags)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t id = spte_id(page, index);
	uint64_t spte;

	spte = pmap_on(mmu, want->gfn, page_key(&mmu->pages[page]).node) << MMU_PAGE_SHIFT | MMU_PTE_P | MMU_PTE_U;
	spte |= leaf_w(mmu, want, want->gfn, flags & APPLY_OVERRIDE);
	spte |= want->nx ? MMU_PTE_NX : 0;
	spte |= large ? MMU_PTE_PS : 0;
	spte |= (uint64_t)source << SPTE_SOURCE_SHIFT;
	if (flags & APPLY_SAMPLE)	/* D costs nothing to see A by, and KVM one fault less */
		spte |= SPTE_SAMPLE | (mmu->cfg.preset_ad ? MMU_PTE_D : 0);
	else if (mmu->cfg.preset_ad)
		spte |= MMU_PTE_A | MMU_PTE_D;
	else if (source == MMU_SRC_DEMAND)	/* the processor is about to set them */
		spte |= MMU_PTE_A | (flags & APPLY_WRITE ? MMU_PTE_D : 0);
	if (source != MMU_SRC_DEMAND)
		touched_by_prebuild(cpu, want->gfn);
	list_add(mmu, large ? &mmu->regions2m[want->gfn >> 9].rmap : &mmu->frames[want->gfn].rmap, id);
	__atomic_add_fetch(&mmu->pages[page].present, 1, __ATOMIC_RELAXED);
	if (large)
		__atomic_add_fetch(&mmu->large_leaves, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&mmu->pool[id], spte, __ATOMIC_RELEASE);
}

static uint64_t leaf_gfn(const struct mmu *mmu, uint64_t spte)
{
	return __atomic_load_n(&mmu->m2g[pte_frame(spte)], __ATOMIC_ACQUIRE);
}

/* Does the present leaf map what it should? A 2 MiB leaf's first frame stands for all of them. */
static bool maps_wanted(const struct mmu *mmu, const struct want *want, const struct shadow_key *key, uint64_t spte)
{
	/* No leaf is left from before its frame was replicated: where the pmap says is right without a look at the flags. */
	return want->kind == (key->level == 1 ? WANT_LEAF : WANT_BIG) &&
	       (pte_frame(spte) == pmap_get(mmu, want->gfn) || pte_frame(spte) == pmap_on(mmu, want->gfn, key->node));
}

/* Nothing to do, seen without the bucket lock: what the frame's state forbids was taken away under it. */
static bool leaf_is_right(const struct mmu *mmu, const struct want *want, const struct shadow_key *key, uint64_t spte)
{
	return maps_wanted(mmu, want, key, spte) && !(spte & MMU_PTE_NX) == !want->nx &&
	       !(spte & MMU_PTE_W) == !want->w && !(spte & SPTE_OVERRIDE);
}

bool entry_in_line(const struct mmu *mmu, const struct shadow_key *key, uint32_t page, unsigned index)
{
	uint64_t spte = spte_load(mmu, spte_id(page, index));
	struct want want;

	if (!(spte & MMU_PTE_P))
		return true;
	entry_want(mmu, key, index, entry_gpte(mmu, key, index), &want);
	return maps_wanted(mmu, &want, key, spte) && (want.w || !(spte & MMU_PTE_W) || (spte & SPTE_OVERRIDE)) &&
	       (!want.nx || (spte & MMU_PTE_NX));
}

/* 1: still present; 0: absent now; *changed. */
static int fix_present_leaf(struct mmu_cpu *cpu, uint32_t page, unsigned index, const struct shadow_key *key,
			    const struct want *want, unsigned flags, bool *changed)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t id = spte_id(page, index);
	uint64_t spte = spte_load(mmu, id), gfn;
	struct spin *bucket;
	int present = 0;

	if (!(spte & MMU_PTE_P))
		return 0;
	if (!flags && leaf_is_right(mmu, want, key, spte))
		return 1;
	gfn = leaf_gfn(mmu, spte);
	bucket = bucket_of(mmu, gfn);
	spin_lock(bucket);
	/* It may have been removed while we had no lock; only this page's lock, which we hold, lets another in. */
	spte = spte_load(mmu, id);
	if (spte & MMU_PTE_P) {
		if (maps_wanted(mmu, want, key, spte)) {
			note_write(mmu, want, key->level > 1, flags);
			*changed |= adjust_leaf(cpu, id, spte, want, key->level > 1, flags);
			present = 1;
		} else {
			leaf_remove(cpu, id, gfn, key->level > 1);
			*changed = true;
		}
	}
	spin_unlock(bucket);
	return present;
}

/* May a leaf be put where there is none? Bucket lock. A watched frame is mapped only for who asks for it. */
static bool may_install(const struct mmu *mmu, const struct want *want, bool large, unsigned source)
{
	uint32_t flags = frame_flags(mmu, want->gfn);

	if (large)
		return region_may_be_large(mmu, want->gfn);
	return !(flags & FRAME_MOVING) && (!(flags & FRAME_WATCH) || source == MMU_SRC_DEMAND);
}

int entry_apply_leaf(struct mmu_cpu *cpu, uint32_t page, unsigned index, const struct want *want, unsigned source,
		     unsigned flags)
{
	struct mmu *mmu = cpu->mmu;
	struct shadow_key key = page_key(&mmu->pages[page]);
	uint64_t spte = spte_load(mmu, spte_id(page, index));
	bool changed = false, large = key.level > 1;
	struct spin *bucket;
	int r;

	/* A link gives way to a large leaf, if that can be: a look without the lock saves links that would be made anew. */
	if ((spte & MMU_PTE_P) && !spte_is_leaf(key.level, spte)) {
		if (want->kind == WANT_BIG && !region_may_be_large(mmu, want->gfn))
			return -EAGAIN;
		entry_remove(cpu, page, index);
	} else if (fix_present_leaf(cpu, page, index, &key, want, flags, &changed)) {
		return 1;
	}
	if (!(flags & APPLY_INSTALL) || want->kind != (large ? WANT_BIG : WANT_LEAF))
		return 0;
	bucket = bucket_of(mmu, want->gfn);
	spin_lock(bucket);
	if (!may_install(mmu, want, large, source)) {
		r = -EAGAIN;
	} else {
		note_write(mmu, want, large, flags);
		install_leaf(cpu, page, index, want, large, source, flags);
		r = 1;
	}
	spin_unlock(bucket);
	if (r == 1 && mmu->cfg.audit)
		audit_entry(cpu, page, index);
	return r;
}

/* ---- links ----------------------------------------------------------------------------------------------------- */

static uint64_t link_spte(const struct mmu *mmu, const struct want *want, uint32_t child)
{
	return (mmu->cfg.pool.n + child) << MMU_PAGE_SHIFT | MMU_PTE_P | MMU_PTE_U | MMU_PTE_A |
	       (want->link_w ? MMU_PTE_W : 0) | (want->nx ? MMU_PTE_NX : 0);
}

static bool wants_child(const struct mmu *mmu, const struct want *want, uint32_t child)
{
	return (want->kind == WANT_LINK || want->kind == WANT_BIG) && page_has_key(&mmu->pages[child], &want->child);
}

/* A present link. True: changed. */
static bool fix_present_link(struct mmu_cpu *cpu, uint32_t id, const struct want *want)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t spte = spte_load(mmu, id), now;
	uint32_t child = pte_frame(spte) - mmu->cfg.pool.n;
	bool changed = false;

	if (!(spte & MMU_PTE_P))
		return false;
	spin_lock(&mmu->pages[child].parents_lock);
	if (spte_load(mmu, id) & MMU_PTE_P) {
		if (!wants_child(mmu, want, child)) {
			link_remove(cpu, id, child);
			changed = true;
		} else {
			spte = spte_load(mmu, id);
			now = link_spte(mmu, want, child);
			if ((spte & ~now & MMU_PTE_W) || (now & ~spte & MMU_PTE_NX)) {
				kick_entry(cpu, id);
				kick_hold(cpu, child);
			}
			changed = (spte ^ now) & (MMU_PTE_W | MMU_PTE_NX);
			if (changed)
				__atomic_store_n(&mmu->pool[id], now, __ATOMIC_SEQ_CST);
		}
	}
	spin_unlock(&mmu->pages[child].parents_lock);
	return changed;
}

int entry_apply_link(struct mmu_cpu *cpu, uint32_t page, unsigned index, const struct want *want, uint32_t child,
		     uint32_t child_gen)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t id = spte_id(page, index);
	struct spage *c = &mmu->pages[child];
	unsigned level = page_key(&mmu->pages[page]).level;
	uint64_t spte = spte_load(mmu, id);
	int err = -EAGAIN;

	if (spte & MMU_PTE_P) {
		if (!spte_is_leaf(level, spte) && pte_frame(spte) == mmu->cfg.pool.n + child) {
			fix_present_link(cpu, id, want);
			return spte_load(mmu, id) & MMU_PTE_P ? 0 : -EAGAIN;
		}
		entry_remove(cpu, page, index);
	}
	spin_lock(&c->parents_lock);
	if (page_alive(c, child_gen) && page_has_key(c, &want->child)) {
		list_add(mmu, &c->parents, id);
		__atomic_add_fetch(&mmu->pages[page].present, 1, __ATOMIC_RELAXED);
		reach_link(mmu, page, index, level, child);
		__atomic_store_n(&mmu->pool[id], link_spte(mmu, want, child), __ATOMIC_RELEASE);
		err = 0;
	}
	spin_unlock(&c->parents_lock);
	if (!err) {
		STAT(cpu, links);
		if (mmu->cfg.audit)
			audit_entry(cpu, page, index);
	}
	return err;
}

/* ---- either ---------------------------------------------------------------------------------------------------- */

void entry_remove(struct mmu_cpu *cpu, uint32_t page, unsigned index)
{
	static const struct want nothing = { .kind = WANT_NONE };
	struct shadow_key key = page_key(&cpu->mmu->pages[page]);
	bool changed = false;

	if (spte_is_leaf(key.level, spte_load(cpu->mmu, spte_id(page, index))))
		fix_present_leaf(cpu, page, index, &key, &nothing, 0, &changed);
	else
		fix_present_link(cpu, spte_id(page, index), &nothing);
}

bool entry_sync(struct mmu_cpu *cpu, uint32_t page, unsigned index)
{
	struct mmu *mmu = cpu->mmu;
	struct shadow_key key = page_key(&mmu->pages[page]);
	uint64_t spte = spte_load(mmu, spte_id(page, index));
	struct want want;
	bool changed = false;

	if (!(spte & MMU_PTE_P) || is_hole(key.level, index))
		return false;
	entry_want(mmu, &key, index, entry_gpte(mmu, &key, index), &want);
	if (spte_is_leaf(key.level, spte))
		fix_present_leaf(cpu, page, index, &key, &want, 0, &changed);
	else
		changed = fix_present_link(cpu, spte_id(page, index), &want);
	if (mmu->cfg.audit && changed)
		audit_entry(cpu, page, index);
	return changed;
}

/* Frame lock of the table. False: the entry is not what it was. */
static bool set_young(struct mmu_cpu *cpu, const struct shadow_key *key, unsigned index, uint64_t gpte)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t *at = (uint64_t *)mmu_gfn_hva(mmu, (gfn_t){ key->gfn }) + index;

	if ((frame_flags(mmu, key->gfn) & FRAME_APART) ||
	    !__atomic_compare_exchange_n(at, &gpte, gpte | MMU_PTE_A, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		return false;
	dirty_set(mmu, key->gfn);
	STAT(cpu, prebuilt_young);
	return true;
}

enum mmu_prebuilt entry_prebuild(struct mmu_cpu *cpu, uint32_t page, unsigned index, unsigned source, unsigned flags,
				 struct want *link)
{
	struct mmu *mmu = cpu->mmu;
	struct shadow_key key = page_key(&mmu->pages[page]);
	unsigned apply = APPLY_INSTALL;
	struct want want;
	uint64_t gpte;
	bool young;

	if (is_hole(key.level, index))
		return MMU_PB_NOTHING;
	if (spte_load(mmu, spte_id(page, index)) & MMU_PTE_P)
		return MMU_PB_PRESENT;
	gpte = entry_gpte(mmu, &key, index);
	young = (flags & MMU_PB_YOUNG) && (gpte & MMU_PTE_P) && !(gpte & MMU_PTE_A);
	entry_want(mmu, &key, index, young ? gpte | MMU_PTE_A : gpte, &want);
	if (want.kind == WANT_NONE || (want.kind == WANT_BIG && key.level > 2) || (want.kind == WANT_LINK && !link))
		return MMU_PB_NOTHING;
	if (young && !set_young(cpu, &key, index, gpte))
		return MMU_PB_BUSY;
	if (want.kind == WANT_LINK) {
		*link = want;
		return MMU_PB_NO_SHADOW;
	}
	if ((flags & MMU_PB_SAMPLE) || sample_due(cpu))
		apply |= APPLY_SAMPLE;
	if (entry_apply_leaf(cpu, page, index, &want, source, apply) != 1)
		return MMU_PB_NOTHING;
	STAT_SOURCE(cpu, source, built);
	if (apply & APPLY_SAMPLE)
		STAT_SOURCE(cpu, source, sampled);
	PROBE(prebuild, key.gfn, index, source, want.gfn);
	return MMU_PB_BUILT;
}
