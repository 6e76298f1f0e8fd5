/*
 * walk.c - the guest's page tables: reading them as a processor does, and setting A and D in them.
 */
#include "mmu/internal.h"

/* What guest memory the module reads and writes goes through here. `table` is in range. */
static uint64_t *gpte_at(const struct mmu *mmu, uint64_t table, unsigned index)
{
	return (uint64_t *)mmu_gfn_hva((struct mmu *)mmu, (gfn_t){ table }) + index;
}

uint64_t gpte_load(const struct mmu *mmu, uint64_t table, unsigned index)
{
	uint64_t mfn = pmap_get(mmu, table), now, gpte;

	/* What was read where the table no longer stands is somebody else's by now, perhaps. */
	for (;; mfn = now) {
		gpte = __atomic_load_n((uint64_t *)mmu_mfn_hva((struct mmu *)mmu, (mfn_t){ mfn }) + index, __ATOMIC_SEQ_CST);
		chaos();
		now = pmap_get(mmu, table);
		if (now == mfn)
			return gpte;
	}
}

/* SDM vol. 3A, 4.5, tables 4-15 to 4-20. Frame numbers beyond the guest's memory are the caller's business. */
bool gpte_reserved(const struct mmu *mmu, unsigned level, uint64_t gpte)
{
	if ((gpte & MMU_PTE_NX) && !mmu->cfg.nx)
		return true;
	if (level == 1 || !(gpte & MMU_PTE_PS))
		return false;
	switch (level) {
	case 2:
		return gpte & 0x1fe000;		/* bit 12 is PAT */
	case 3:
		return gpte & 0x3fffe000;
	default:
		return true;
	}
}

static enum mmu_verdict stop(struct gwalk *w, enum mmu_verdict verdict, uint32_t error_code)
{
	w->error_code |= error_code;
	return verdict;
}

enum mmu_verdict walk_guest(const struct mmu *mmu, uint64_t l4, enum mmu_mode mode, uint64_t va, uint32_t access,
			    struct gwalk *w)
{
	const uint32_t bad = MMU_PF_P | MMU_PF_RSVD;
	bool fetch = (access & MMU_PF_FETCH) && mmu->cfg.nx;
	uint64_t gpte, frame, span;
	bool no_u, no_w, no_x;
	unsigned level;

	w->error_code = (access & MMU_PF_W) | (fetch ? MMU_PF_FETCH : 0) | (mode == MMU_USER ? MMU_PF_U : 0);
	w->w = w->u = true;
	w->nx = w->only_w = false;
	w->table[MMU_LEVELS] = l4;
	for (level = MMU_LEVELS; ; level--) {
		unsigned index = va_index(va, level);

		w->level = level;
		if (is_hole(level, index)) {
			w->gpte[level] = 0;
			return stop(w, MMU_TRUE, mmu->cfg.hole[mode][index - HOLE_FIRST] & MMU_PTE_P ? MMU_PF_P : 0);
		}
		gpte = gpte_load(mmu, w->table[level], index);
		w->gpte[level] = gpte;
		if (!(gpte & MMU_PTE_P))
			return stop(w, MMU_TRUE, 0);
		if (gpte_reserved(mmu, level, gpte))
			return stop(w, MMU_BAD, bad);
		w->w &= !!(gpte & MMU_PTE_W);
		w->u &= !!(gpte & MMU_PTE_U);
		w->nx |= !!(gpte & MMU_PTE_NX);
		frame = pte_frame(gpte);
		if (gpte_is_leaf(level, gpte))
			break;
		if (frame >= mmu->nr_gfns)
			return stop(w, MMU_BAD, bad);
		w->table[level - 1] = frame;
	}
	span = 1ull << (9 * (level - 1));
	w->gfn = (frame & ~(span - 1)) | (va >> MMU_PAGE_SHIFT & (span - 1));
	if (w->gfn >= mmu->nr_gfns)
		return stop(w, MMU_BAD, bad);
	no_u = mode == MMU_USER && !w->u;
	no_w = (access & MMU_PF_W) && !w->w;
	no_x = fetch && w->nx;
	w->only_w = no_w && !no_u && !no_x;
	return no_u || no_w || no_x ? stop(w, MMU_TRUE, MMU_PF_P) : MMU_HIDDEN;
}

int gpte_set_bits(struct mmu_cpu *cpu, uint64_t table, unsigned index, uint64_t old, uint64_t bits)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock = frame_lock_of(mmu, table);
	int err = -EAGAIN;

	if ((old & bits) == bits)
		return 0;
	spin_lock(lock);
	replica_before_store(cpu, table);
	if (!(frame_flags(mmu, table) & FRAME_MOVING) &&
	    __atomic_compare_exchange_n(gpte_at(mmu, table, index), &old, old | bits, false, __ATOMIC_SEQ_CST,
					__ATOMIC_SEQ_CST)) {
		replica_stored(mmu, table, index * 8, 8);
		dirty_set(mmu, table);
		err = 0;
	}
	spin_unlock(lock);
	return err;
}

int mmu_translate(struct mmu *mmu, gfn_t l4, enum mmu_mode mode, gva_t va, uint32_t access, struct mmu_walk *out)
{
	enum mmu_verdict verdict;
	struct gwalk w;

	if (l4.n >= mmu->nr_gfns)
		return -EINVAL;
	verdict = walk_guest(mmu, l4.n, mode, va.a, access, &w);
	*out = (struct mmu_walk){
		.error_code = verdict == MMU_HIDDEN ? 0 : w.error_code,
		.gfn = { verdict == MMU_HIDDEN ? w.gfn : ~0ull },
		.table = { w.table[w.level] },
		.index = va_index(va.a, w.level),
		.level = w.level,
		.gpte = w.gpte[w.level],
	};
	return verdict == MMU_HIDDEN ? 0 : -EFAULT;
}
