/*
 * watch.c - who uses a frame? Its translations are dropped, and what comes by as hidden faults afterwards tells.
 */
#include "mmu/internal.h"
#include "mmu/probe.h"

int mmu_watch(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock, *bucket;
	int err = -EBUSY;

	if (gfn.n >= mmu->nr_gfns)
		return -EINVAL;
	lock = frame_lock_of(mmu, gfn.n);
	bucket = bucket_of(mmu, gfn.n);
	spin_lock(lock);
	if ((frame_flags(mmu, gfn.n) & FRAME_MOVING) || mmu->frames[gfn.n].fixed || frame_is_table(&mmu->frames[gfn.n]))
		goto out;
	spin_lock(bucket);
	frame_set(mmu, gfn.n, FRAME_WATCH);
	rmap_drop(cpu, gfn.n);
	spin_unlock(bucket);
	frame_refresh(cpu, gfn.n);	/* drops what maps its 2 MiB */
	STAT(cpu, watches);
	err = 0;
out:
	spin_unlock(lock);
	PROBE(watch, gfn.n, err);
	return err;
}

void watch_end(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct spin *bucket = bucket_of(cpu->mmu, gfn);

	if (!(frame_flags(cpu->mmu, gfn) & FRAME_WATCH))
		return;
	spin_lock(bucket);
	frame_clear(cpu->mmu, gfn, FRAME_WATCH);
	spin_unlock(bucket);
	frame_refresh(cpu, gfn);
}

void mmu_unwatch(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct spin *lock;

	if (gfn.n >= cpu->mmu->nr_gfns)
		return;
	lock = frame_lock_of(cpu->mmu, gfn.n);
	spin_lock(lock);
	watch_end(cpu, gfn.n);
	spin_unlock(lock);
}
