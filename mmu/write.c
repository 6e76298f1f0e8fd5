/*
 * write.c - the VMM's own stores into guest frames, and frames that it keeps pointers to.
 */
#include "mmu/internal.h"

int mmu_write(struct mmu_cpu *cpu, gfn_t gfn, unsigned offset, const void *from, unsigned bytes)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;

	if (gfn.n >= mmu->nr_gfns || offset > MMU_PAGE_SIZE || bytes > MMU_PAGE_SIZE - offset)
		return -EINVAL;
	if (!bytes)
		return 0;
	lock = frame_lock_of(mmu, gfn.n);
	spin_lock(lock);
	replica_before_store(cpu, gfn.n);
	store_bytes((char *)mmu_gfn_hva(mmu, gfn) + offset, from, bytes);
	replica_stored(mmu, gfn.n, offset, bytes);
	dirty_set(mmu, gfn.n);
	if (frame_is_table(&mmu->frames[gfn.n]))
		sync_entries(cpu, gfn.n, offset / 8, (offset + bytes - 1) / 8 - offset / 8 + 1);
	spin_unlock(lock);
	return 0;
}

int mmu_fix(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct gframe *f;
	struct spin *lock;
	int err = 0;

	if (gfn.n >= mmu->nr_gfns)
		return -EINVAL;
	f = &mmu->frames[gfn.n];
	lock = frame_lock_of(mmu, gfn.n);
	spin_lock(lock);
	replica_collapse(cpu, gfn.n, NO_NODE);
	if ((frame_flags(mmu, gfn.n) & FRAME_MOVING) || !replica_settled(cpu, gfn.n))
		err = -EAGAIN;
	else if (f->fixed == UINT16_MAX)
		err = -EBUSY;
	else
		f->fixed++;
	spin_unlock(lock);
	return err;
}

void mmu_unfix(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;

	if (gfn.n >= mmu->nr_gfns)
		return;
	lock = frame_lock_of(mmu, gfn.n);
	spin_lock(lock);
	if (mmu->frames[gfn.n].fixed)
		mmu->frames[gfn.n].fixed--;
	spin_unlock(lock);
}
