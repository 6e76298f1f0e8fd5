/*
 * fault.c - a page fault: ask the guest's tables; if they allow the access, make the shadow do so too.
 */
#include "mmu/internal.h"
#include "mmu/probe.h"

/* Inside this file, beside the verdicts: a race was lost, look again. */
#define RETRY	(-EAGAIN)

struct fault {
	struct mmu_cpu *cpu;
	enum mmu_mode mode;
	uint64_t va;
	uint32_t access;
	struct gwalk walk;
	bool override;		/* a PT write through a read-only mapping */
	bool pt_write;		/* a table went out of sync or was dropped for it */
	bool watched;
};

static bool write_access(const struct fault *f)
{
	return f->access & MMU_PF_W;
}

static bool rights_suffice(const struct fault *f, uint64_t spte)
{
	return (spte & MMU_PTE_P) && (!write_access(f) || (spte & MMU_PTE_W)) &&
	       (!(f->access & MMU_PF_FETCH) || !(spte & MMU_PTE_NX));
}

/* Does the shadow allow the access as it is? */
static bool shadow_allows(const struct fault *f)
{
	struct mmu *mmu = f->cpu->mmu;
	uint32_t page = f->cpu->root[f->mode] - 1;
	uint64_t spte;
	unsigned level;

	if (is_hole(MMU_LEVELS, va_index(f->va, MMU_LEVELS)))
		return false;
	for (level = MMU_LEVELS; ; level--) {
		spte = spte_load(mmu, spte_id(page, va_index(f->va, level)));
		if (!rights_suffice(f, spte))
			return false;
		if (spte_is_leaf(level, spte))
			return true;
		page = pte_frame(spte) - mmu->cfg.pool.n;
	}
}

/* ---- writes to page tables ------------------------------------------------------------------------------------- */

static bool walk_uses_upper(const struct gwalk *w, uint64_t gfn)
{
	unsigned level;

	for (level = MMU_LEVELS; level >= 2 && level >= w->level; level--)
		if (w->table[level] == gfn)
			return true;
	return false;
}

/* Frame lock. Zaps the frame's shadows of level 1, or those above. False: one is loaded as a root. */
static bool zap_shadows(struct mmu_cpu *cpu, uint64_t gfn, bool upper)
{
	struct mmu *mmu = cpu->mmu;

	for_each_shadow(mmu, gfn, loaded)
		if (upper && __atomic_load_n(&mmu->pages[loaded].refs, __ATOMIC_RELAXED))
			return false;
	for_each_shadow(mmu, gfn, page) {
		struct shadow_key key = page_key(&mmu->pages[page]);

		if (!(key.role & ROLE_DIRECT) && upper == (key.level > 1))
			shadow_zap(cpu, page, false);
	}
	return true;
}

/* Frame lock. A leaf shadow that no table links is a leftover. */
static bool any_leaf_linked(const struct mmu *mmu, uint64_t gfn)
{
	for_each_shadow(mmu, gfn, page) {
		const struct spage *p = &mmu->pages[page];
		struct shadow_key key = page_key(p);

		if (!(key.role & ROLE_DIRECT) && key.level == 1 && __atomic_load_n(&p->parents, __ATOMIC_RELAXED))
			return true;
	}
	return false;
}

/*
 * A write to a frame that may be a page table, watched or replicated. 0: go on, the frame may be mapped writable. MMU_TRUE: it
 * may not. MMU_AGAIN: not before all processors have forgotten the other copies; else one that reads there would miss what
 * another, which finds our writable leaf, writes here.
 * A mapping that is writable in the guest says that the guest gave the table up, unless it pinned it: its shadows go. A
 * leaf table that is still linked is written for real, so that it goes out of sync instead.
 */
static int prepare_write(struct fault *f)
{
	struct mmu_cpu *cpu = f->cpu;
	uint64_t gfn = f->walk.gfn;
	struct gframe *frame = &cpu->mmu->frames[gfn];
	struct spin *lock = frame_lock_of(cpu->mmu, gfn);
	int r = MMU_TRUE;

	if (!f->override && !(frame_flags(cpu->mmu, gfn) & FRAME_READ_ONLY))
		return 0;
	spin_lock(lock);
	if (frame->pin > 1 || (f->override && (frame->nr_upper || !frame_is_table(frame))))
		goto out;
	replica_collapse(cpu, gfn, page_key(&cpu->mmu->pages[cpu->root[f->mode] - 1]).node);
	if (!replica_settled(cpu, gfn)) {
		r = MMU_AGAIN;
		goto out;
	}
	if (!f->override && !(frame_flags(cpu->mmu, gfn) & FRAME_WPROT)) {
		watch_end(cpu, gfn);
		r = 0;
		goto out;
	}
	if (frame->nr_upper && (walk_uses_upper(&f->walk, gfn) || !zap_shadows(cpu, gfn, true)))
		goto out;
	if (!frame->pin && !f->override && !any_leaf_linked(cpu->mmu, gfn))
		zap_shadows(cpu, gfn, false);
	if (frame_is_table(frame) && !(frame_flags(cpu->mmu, gfn) & FRAME_UNSYNC))
		sync_unsync(cpu, gfn);
	frame_refresh(cpu, gfn);
	f->pt_write = true;
	cpu->keep_gfn = gfn;
	r = 0;
out:
	spin_unlock(lock);
	return r;
}

/* ---- the way down ---------------------------------------------------------------------------------------------- */

static bool any_moving(const struct mmu *mmu, const struct gwalk *w)
{
	unsigned level;

	for (level = w->level; level <= MMU_LEVELS; level++)
		if (frame_flags(mmu, w->table[level]) & FRAME_MOVING)
			return true;
	return frame_flags(mmu, w->gfn) & FRAME_MOVING;
}

/* As a processor does (SDM vol. 3A, 4.8), before the shadow may show the entries. */
static int set_accessed_dirty(struct fault *f)
{
	struct gwalk *w = &f->walk;
	unsigned level;
	uint64_t bits;

	for (level = MMU_LEVELS; level >= w->level; level--) {
		bits = MMU_PTE_A;
		if (level == w->level && write_access(f) && w->w) {
			bits |= MMU_PTE_D;
			if (!(w->gpte[level] & MMU_PTE_D) && (w->gpte[level] & MMU_PTE_A))
				STAT(f->cpu, ad_faults);
		}
		if (gpte_set_bits(f->cpu, w->table[level], va_index(f->va, level), w->gpte[level], bits))
			return RETRY;
		w->gpte[level] |= bits;
	}
	return 0;
}

/* A page of the shadow, as far as we know. */
struct place {
	uint32_t page, gen;
};

/* Takes the page lock if the page is what it was and the guest's entry still wants the same. */
static bool lock_place(struct fault *f, const struct place *at, unsigned level, const struct want *want)
{
	struct mmu *mmu = f->cpu->mmu;
	struct spage *p = &mmu->pages[at->page];
	struct shadow_key key;
	struct want now;

	spin_lock(&p->lock);
	if (page_alive(p, at->gen)) {
		key = page_key(p);
		entry_want(mmu, &key, va_index(f->va, level), entry_gpte(mmu, &key, va_index(f->va, level)), &now);
		if (now.kind == want->kind && now.gfn == want->gfn && now.w == want->w && now.nx == want->nx &&
		    now.link_w == want->link_w && key_pack(&now.child) == key_pack(&want->child))
			return true;
	}
	spin_unlock(&p->lock);
	return false;
}

/* A leaf of 4 KiB, or of 2 MiB. MMU_HIDDEN, RETRY, or MMU_BAD: not as a large leaf. */
static int fill_leaf(struct fault *f, const struct place *at, unsigned level, const struct want *want)
{
	struct mmu_cpu *cpu = f->cpu;
	unsigned index = va_index(f->va, level), flags = APPLY_INSTALL;
	uint64_t before, after;
	int r;

	flags |= write_access(f) ? APPLY_WRITE : 0;
	flags |= f->override && level == 1 ? APPLY_OVERRIDE : 0;
	if (!lock_place(f, at, level, want))
		return RETRY;
	before = spte_load(cpu->mmu, spte_id(at->page, index));
	if (before & SPTE_SAMPLE)
		sample_fault(cpu, spte_id(at->page, index));
	r = entry_apply_leaf(cpu, at->page, index, want, MMU_SRC_DEMAND, flags);
	after = spte_load(cpu->mmu, spte_id(at->page, index));
	spin_unlock(&cpu->mmu->pages[at->page].lock);
	if (r != 1)
		return level > 1 ? MMU_BAD : RETRY;
	if (!rights_suffice(f, after))
		return RETRY;
	if (!(before & MMU_PTE_P)) {
		if (level > 1)
			STAT(cpu, fills_large);
		else
			STAT(cpu, fills);
	} else if (is_logging(cpu->mmu) && write_access(f) && !(before & MMU_PTE_W)) {
		STAT(cpu, dirty_faults);
	}
	return MMU_HIDDEN;
}

/* The child that a present entry links already, if it is as wanted. */
static bool linked_child(const struct mmu *mmu, const struct place *at, unsigned index, const struct want *want,
			 struct place *child)
{
	uint64_t spte = spte_load(mmu, spte_id(at->page, index));
	const struct spage *c;

	if (!(spte & MMU_PTE_P) || (spte & MMU_PTE_PS) || !(spte & MMU_PTE_W) == want->link_w ||
	    !(spte & MMU_PTE_NX) == want->nx)
		return false;
	child->page = pte_frame(spte) - mmu->cfg.pool.n;
	c = &mmu->pages[child->page];
	child->gen = __atomic_load_n(&c->gen, __ATOMIC_ACQUIRE);
	return page_has_key(c, &want->child) && page_alive(c, child->gen);
}

/*
 * MMU_HIDDEN: *child is linked now. A shadow that exists already may lag behind its table. A TLB that never went this
 * way would find the table as it is, so the new way has to as well.
 */
static int link_child(struct fault *f, const struct place *at, unsigned level, const struct want *want,
		      struct place *child)
{
	struct mmu_cpu *cpu = f->cpu;
	bool fresh;
	int err;

	if (shadow_get(cpu, &want->child, false, &child->page, &child->gen, &fresh))
		return MMU_AGAIN;
	if (!shadow_in_line(cpu->mmu, &want->child, child->page)) {
		if (want->child.level > 1)
			sync_all(cpu);
		else
			sync_table(cpu, want->child.gfn);
	}
	if (!lock_place(f, at, level, want))
		return RETRY;
	err = 0;
	if (want->child.level == 1 && !shadow_in_line(cpu->mmu, &want->child, child->page))
		err = -EAGAIN;		/* written again, and this link perhaps taken away and made anew in between */
	err = err ? err : entry_apply_link(cpu, at->page, va_index(f->va, level), want, child->page, child->gen);
	spin_unlock(&cpu->mmu->pages[at->page].lock);
	return err ? RETRY : MMU_HIDDEN;
}

/* The other mode's root of this processor: the kernel and its process share what is the user's. */
static void link_other_root(struct fault *f, const struct want *want, const struct place *child)
{
	struct mmu_cpu *cpu = f->cpu;
	struct mmu *mmu = cpu->mmu;
	unsigned index = va_index(f->va, MMU_LEVELS);
	struct shadow_key key;
	struct want now;
	uint32_t page;

	if (!cpu->root[!f->mode] || !mmu->cfg.link_ahead)
		return;
	page = cpu->root[!f->mode] - 1;
	key = page_key(&mmu->pages[page]);
	spin_lock(&mmu->pages[page].lock);
	if (!(spte_load(mmu, spte_id(page, index)) & MMU_PTE_P)) {
		entry_want(mmu, &key, index, entry_gpte(mmu, &key, index), &now);
		if (now.kind == WANT_LINK && key_pack(&now.child) == key_pack(&want->child) &&
		    shadow_in_line(mmu, &now.child, child->page) &&
		    !entry_apply_link(cpu, page, index, &now, child->page, child->gen))
			STAT(cpu, links_ahead);
	}
	spin_unlock(&mmu->pages[page].lock);
}

static int descend(struct fault *f)
{
	struct mmu_cpu *cpu = f->cpu;
	struct mmu *mmu = cpu->mmu;
	struct place at = { .page = cpu->root[f->mode] - 1 }, child;
	struct shadow_key key;
	struct want want;
	unsigned level, index;
	int r;

	at.gen = __atomic_load_n(&mmu->pages[at.page].gen, __ATOMIC_ACQUIRE);
	for (level = MMU_LEVELS; ; level--, at = child) {
		index = va_index(f->va, level);
		key = page_key(&mmu->pages[at.page]);
		if (key.level != level)
			return RETRY;
		cpu->path[level] = at.page + 1;
		__atomic_store_n(&mmu->pages[at.page].used, 1, __ATOMIC_RELAXED);
		entry_want(mmu, &key, index, entry_gpte(mmu, &key, index), &want);
		if (want.kind == WANT_NONE)
			return RETRY;
		if (want.kind == WANT_LEAF) {
			if (want.gfn != f->walk.gfn)
				return RETRY;
			r = fill_leaf(f, &at, level, &want);
			if (r == MMU_HIDDEN && mmu->cfg.prefetch != MMU_PREFETCH_OFF)
				prefetch_around(cpu, at.page, at.gen, index);
			if (r == MMU_HIDDEN && mmu->cfg.fill_linear && f->mode == MMU_KERNEL)
				fill_linear(cpu, at.page, at.gen, index);
			return r;
		}
		if (want.kind == WANT_BIG && level == 2 && mmu->cfg.large && !f->override) {
			r = fill_leaf(f, &at, level, &want);
			if (r != MMU_BAD)
				return r;
		}
		if (!linked_child(mmu, &at, index, &want, &child)) {
			r = link_child(f, &at, level, &want, &child);
			if (r != MMU_HIDDEN)
				return r;
			if (level == MMU_LEVELS)
				link_other_root(f, &want, &child);
		}
	}
}

/* One attempt: a verdict, or RETRY. */
static int attempt(struct fault *f)
{
	struct mmu_cpu *cpu = f->cpu;
	struct mmu *mmu = cpu->mmu;
	struct gwalk *w = &f->walk;
	int r;

	r = walk_guest(mmu, cpu->root_l4[f->mode], f->mode, f->va, f->access, w);
	f->override = r == MMU_TRUE && w->only_w && f->mode == MMU_KERNEL;
	if (r != MMU_HIDDEN && !f->override)
		return r;
	if (any_moving(mmu, w))
		return MMU_AGAIN;
	f->watched |= !!(frame_flags(mmu, w->gfn) & FRAME_WATCH);
	if (frame_flags(mmu, w->gfn) & FRAME_SETTLING)
		replica_look(cpu, w->gfn);
	if (write_access(f)) {
		r = prepare_write(f);
		if (r == MMU_TRUE)
			w->error_code |= MMU_PF_P;
		if (r)
			return r;
	}
	/* From here on A gets set. A write that is no access of the gPTE's must then come through: room for the way. */
	if (f->override) {
		unsigned node = page_key(&mmu->pages[cpu->root[f->mode] - 1]).node;

		if (!pool_has(cpu, node, MMU_LEVELS))
			pool_make_room(cpu, node);
		if (!pool_has(cpu, node, MMU_LEVELS))
			return MMU_AGAIN;
	}
	if (set_accessed_dirty(f))
		return RETRY;
	if (f->mode == MMU_KERNEL && (w->gpte[MMU_LEVELS] & MMU_PTE_U) && (!w->u || f->override) &&
	    !(frame_flags(mmu, w->table[3]) & FRAME_MIXED))
		frame_make_mixed(cpu, w->table[3]);
	return descend(f);
}

static void count_verdict(struct mmu_cpu *cpu, enum mmu_verdict verdict)
{
	switch (verdict) {
	case MMU_HIDDEN:
		STAT(cpu, hidden);
		break;
	case MMU_SPURIOUS:
		STAT(cpu, spurious);
		break;
	case MMU_PTWRITE:
		STAT(cpu, pt_write);
		break;
	case MMU_TRUE:
		STAT(cpu, true_faults);
		break;
	case MMU_AGAIN:
		STAT(cpu, again);
		break;
	case MMU_BAD:
		STAT(cpu, bad);
		break;
	}
}

struct mmu_result mmu_fault(struct mmu_cpu *cpu, enum mmu_mode mode, gva_t va, uint32_t access)
{
	const uint32_t fetch = cpu->mmu->cfg.nx ? MMU_PF_FETCH : 0;
	struct fault f = { .cpu = cpu, .mode = mode, .va = va.a, .access = access & (MMU_PF_W | fetch) };
	struct mmu_result result = { .gfn = MMU_NO_GFN, .write = access & MMU_PF_W };
	bool before;
	unsigned tries, level;
	int r = MMU_TRUE;

	PROBE(fault__entry, va.a, mode, access);
	if (!cpu->root[mode]) {
		f.walk.error_code = f.access | (mode == MMU_USER ? MMU_PF_U : 0);
		goto out;
	}
	before = shadow_allows(&f);
	for (tries = 0, r = RETRY; r == RETRY && tries < RETRIES; tries++)
		r = attempt(&f);
	if (r == RETRY)
		r = MMU_AGAIN;
	if (r == MMU_HIDDEN)
		r = f.pt_write ? MMU_PTWRITE : before ? MMU_SPURIOUS : MMU_HIDDEN;
	for (level = 1; level <= MMU_LEVELS; level++)
		cpu->path[level] = 0;
	cpu->keep_gfn = MMU_NO_GFN.n;
	touched_by_fault(cpu, &f.walk, r);
out:
	result.verdict = r;
	if (r == MMU_TRUE || r == MMU_BAD)
		result.error_code = f.walk.error_code;
	if (r == MMU_HIDDEN || r == MMU_SPURIOUS) {
		result.gfn.n = f.walk.gfn;
		result.watched = f.watched;
	}
	if (result.watched)
		STAT(cpu, watch_faults);
	count_verdict(cpu, r);
	PROBE(fault__exit, f.va, f.mode, r, result.error_code);
	if (cpu->mmu->cfg.audit >= 3 && ++cpu->faults % 64 == 0)
		audit_all(cpu);
	return result;
}
