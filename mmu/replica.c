/*
 * replica.c - copies of frames that are read on several nodes (Bugnion et al., Disco, SOSP '97): one per node, until the
 * first write makes them one again.
 *
 * Copies are equal while there are several, so it does not matter who reads which. A collapse takes all leaves away and
 * leaves one copy for new ones; but until its kicks are done a processor may go on reading another copy by its TLB. So long
 * (FRAME_SETTLING) no leaf lets the guest write, and what the VMM stores goes to all of them.
 */
#include "mmu/internal.h"
#include "mmu/probe.h"

mfn_t mmu_pmap_on(struct mmu *mmu, gfn_t gfn, unsigned node)
{
	return (mfn_t){ gfn.n < mmu->nr_gfns && node < mmu->cfg.nr_nodes ? pmap_on(mmu, gfn.n, node) : ~0ull };
}

int mmu_replicate(struct mmu_cpu *cpu, gfn_t gfn, const mfn_t *at)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock, *bucket;
	unsigned node;
	int err = -EINVAL;

	if (gfn.n >= mmu->nr_gfns || !mmu->copies)
		return -EINVAL;
	for (node = 0; node < mmu->cfg.nr_nodes; node++)
		if (!mfn_is_place(mmu, at[node].n))
			return -EINVAL;
	lock = frame_lock_of(mmu, gfn.n);
	bucket = bucket_of(mmu, gfn.n);
	spin_lock(lock);
	if (!(frame_flags(mmu, gfn.n) & FRAME_MOVING))
		goto out;
	err = -EBUSY;
	if (frame_is_table(&mmu->frames[gfn.n]))
		goto out;
	for (node = 0; node < mmu->cfg.nr_nodes; node++)
		if (at[node].n != pmap_get(mmu, gfn.n))
			copy_frame(mmu, at[node].n, pmap_get(mmu, gfn.n));
	spin_lock(bucket);
	for (node = 0; node < mmu->cfg.nr_nodes; node++) {
		__atomic_store_n(&mmu->m2g[at[node].n], gfn.n, __ATOMIC_RELEASE);
		__atomic_store_n(&mmu->copies[gfn.n * mmu->cfg.nr_nodes + node], at[node].n, __ATOMIC_RELEASE);
	}
	frame_set(mmu, gfn.n, FRAME_REPLICA);
	frame_clear(mmu, gfn.n, FRAME_MOVING | FRAME_SETTLING);
	spin_unlock(bucket);
	STAT(cpu, replicas);
	err = 0;
out:
	spin_unlock(lock);
	PROBE(replicate, gfn.n, err);
	return err;
}

void replica_collapse(struct mmu_cpu *cpu, uint64_t gfn, unsigned node)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *bucket = bucket_of(mmu, gfn);
	uint64_t kept;

	if (!(frame_flags(mmu, gfn) & FRAME_REPLICA))
		return;
	spin_lock(bucket);
	kept = node == NO_NODE ? pmap_get(mmu, gfn) : copy_get(mmu, gfn, node);
	rmap_drop(cpu, gfn);
	/* After the kicks are queued. Who took a leaf away before, and owes that kick, counts as well. */
	mmu->frames[gfn].w_clock = kick_clock(mmu);
	__atomic_store_n(&mmu->pmap[gfn], kept, __ATOMIC_SEQ_CST);
	frame_set(mmu, gfn, FRAME_SETTLING);
	frame_clear(mmu, gfn, FRAME_REPLICA);
	__atomic_store_n(&mmu->regions2m[gfn >> 9].whole, region_whole(mmu, gfn), __ATOMIC_RELAXED);
	spin_unlock(bucket);
	STAT(cpu, collapses);
	PROBE(collapse, gfn, kept);
	if (mmu->cfg.collapsed)
		mmu->cfg.collapsed(mmu->cfg.collapsed_arg, (gfn_t){ gfn }, (mfn_t){ kept });
}

bool replica_settled(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *bucket = bucket_of(mmu, gfn);

	if (!(frame_flags(mmu, gfn) & FRAME_SETTLING))
		return true;
	if (!kick_settled(mmu, mmu->frames[gfn].w_clock))
		return false;
	spin_lock(bucket);
	frame_clear(mmu, gfn, FRAME_SETTLING);
	spin_unlock(bucket);
	frame_refresh(cpu, gfn);
	return true;
}

void replica_look(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct spin *lock = frame_lock_of(cpu->mmu, gfn);

	spin_lock(lock);
	replica_settled(cpu, gfn);
	spin_unlock(lock);
}

void replica_before_store(struct mmu_cpu *cpu, uint64_t gfn)
{
	if (!(frame_flags(cpu->mmu, gfn) & (FRAME_REPLICA | FRAME_SETTLING)))
		return;
	replica_collapse(cpu, gfn, cpu->node);
	replica_settled(cpu, gfn);
}

void replica_stored(struct mmu *mmu, uint64_t gfn, unsigned offset, unsigned bytes)
{
	const char *from = (const char *)mmu_gfn_hva(mmu, (gfn_t){ gfn }) + offset;
	unsigned node;

	if (!(frame_flags(mmu, gfn) & FRAME_SETTLING))
		return;
	for (node = 0; node < mmu->cfg.nr_nodes; node++)
		if (copy_get(mmu, gfn, node) != pmap_get(mmu, gfn))
			store_bytes((char *)mmu_mfn_hva(mmu, (mfn_t){ copy_get(mmu, gfn, node) }) + offset, from, bytes);
}

int mmu_collapse(struct mmu_cpu *cpu, gfn_t gfn)
{
	struct spin *lock;
	int err;

	if (gfn.n >= cpu->mmu->nr_gfns)
		return -EINVAL;
	lock = frame_lock_of(cpu->mmu, gfn.n);
	spin_lock(lock);
	replica_collapse(cpu, gfn.n, NO_NODE);
	err = replica_settled(cpu, gfn.n) ? 0 : -EAGAIN;
	spin_unlock(lock);
	return err;
}
