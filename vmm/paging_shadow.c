/*
 * paging_shadow.c - struct paging_ops over mmu/: the processor walks our shadow tables, the guest's are mere data.
 */
#include <errno.h>
#include <sched.h>

#include "vmm/vm.h"

#define LINK_SEARCH	64u	/* level-2 tables looked through for one store; each maps 1 GiB */

static int shadow_create(struct vm *vm)
{
	return 0;
}

static void shadow_destroy(struct vm *vm)
{
}

static int shadow_load(struct vcpu *v, enum mmu_mode mode, gfn_t l4, mfn_t *root)
{
	int r;

	shim_sync_others(v);
	r = mmu_load(v->mmu, mode, l4, root);

	if (!r && l4.n != MMU_NO_GFN.n)
		feed_switch(v, mode, l4);
	return r;
}

static int shadow_pin(struct vcpu *v, gfn_t table, unsigned level)
{
	int r = shim_pin(v, table, level);

	if (!r)
		feed_pin(v, table, level);
	return r;
}

static int shadow_unpin(struct vcpu *v, gfn_t table)
{
	feed_pin(v, table, 0);
	return shim_pin(v, table, 0);
}

static int shadow_update(struct vcpu *v, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad)
{
	int r = mmu_update(v->mmu, table, index, gpte, preserve_ad);

	if (!r)
		feed_update(v, table, index);
	return r;
}

static void shadow_flush(struct vcpu *v)
{
	shim_sync_others(v);
	mmu_flush(v->mmu);
}

static void shadow_invlpg(struct vcpu *v, gva_t va)
{
	shim_sync_others(v);
	mmu_invlpg(v->mmu, va);
}

/* ---- faults ---------------------------------------------------------------------------------------------------------- */

/* Whether a level-2 table below the running kernel's root links `gfn`. Bounded: tables beyond LINK_SEARCH are not seen. */
static bool linked_as_leaf_table(struct vcpu *v, gfn_t gfn)
{
	struct mmu *mmu = v->vm->mmu;
	const uint64_t *l4 = mmu_gfn_hva(mmu, v->l4[MMU_KERNEL]), *l3, *l2;
	unsigned left = LINK_SEARCH;

	for (unsigned i = 0; l4 && i < MMU_ENTRIES; i++) {
		l3 = l4[i] & MMU_PTE_P ? mmu_gfn_hva(mmu, (gfn_t){ (l4[i] & MMU_PTE_ADDR) >> 12 }) : NULL;
		for (unsigned j = 0; l3 && j < MMU_ENTRIES; j++) {
			if ((l3[j] & (MMU_PTE_P | MMU_PTE_PS)) != MMU_PTE_P)
				continue;
			l2 = mmu_gfn_hva(mmu, (gfn_t){ (l3[j] & MMU_PTE_ADDR) >> 12 });
			if (!left--)
				return false;
			for (unsigned k = 0; l2 && k < MMU_ENTRIES; k++)
				if ((l2[k] & (MMU_PTE_P | MMU_PTE_PS)) == MMU_PTE_P &&
				    (l2[k] & MMU_PTE_ADDR) >> 12 == gfn.n)
					return true;
		}
	}
	return false;
}

/*
 * To Xen a frame is a leaf table from the moment an upper table links it, and the kernel may store to it through a
 * read-only mapping. The MMU knows only tables that are pinned or shadowed; a store to any other is a true fault there.
 * If it is one after all, say so: true, and the fault is to be tried again.
 */
static bool pin_linked_table(struct vcpu *v, gva_t va, const struct mmu_result *r)
{
	const uint32_t store = MMU_PF_P | MMU_PF_W;
	struct mmu_walk w;

	if (v->mode != MMU_KERNEL || (r->error_code & (store | MMU_PF_RSVD)) != store ||
	    mmu_translate(v->vm->mmu, v->l4[MMU_KERNEL], MMU_KERNEL, va, 0, &w) || w.level != 1)
		return false;
	return linked_as_leaf_table(v, w.gfn) && !shim_pin(v, w.gfn, 1);
}

static struct mmu_result shadow_fault(struct vcpu *v, gva_t va, uint32_t access)
{
	struct mmu_result r = mmu_fault(v->mmu, v->mode, va, access);

	/* A table may be none any more, or the other way round, by what another vCPU's shim did. */
	if ((r.verdict == MMU_TRUE || r.verdict == MMU_BAD) && shim_sync_others(v))
		r = mmu_fault(v->mmu, v->mode, va, access);
	if (r.verdict == MMU_TRUE && pin_linked_table(v, va, &r))
		r = mmu_fault(v->mmu, v->mode, va, access);
	feed_fault(v, va.a, access, r.verdict);
	return r;
}

/* ---- the rest -------------------------------------------------------------------------------------------------------- */

/* A table of the guest's is data to the VMM as well; what it holds is checked when it is used. */
static bool shadow_may_write(struct vcpu *v, gfn_t gfn)
{
	return true;
}

static int shadow_keep_writable(struct vcpu *v, gfn_t gfn)
{
	return mover_keep_home(v, gfn);
}

static bool shadow_kick_pending(struct vcpu *v)
{
	return mmu_kick_pending(v->mmu);
}

static unsigned shadow_kick_next(struct vcpu *v, struct mmu_kick *out, unsigned max)
{
	return mmu_kick_next(v->mmu, out, max);
}

static void shadow_kick_done(struct vcpu *v)
{
	mmu_kick_done(v->mmu);
}

static void shadow_add_stats(struct vm *vm, struct mmu_stats *m)
{
}

static void shadow_dump_walk(struct vcpu *v, enum mmu_mode mode, gva_t va, FILE *to)
{
	mmu_dump_walk(v->mmu, mode, va, to);
}

const struct paging_ops paging_shadow = {
	.name = "shadow",
	.create = shadow_create,
	.destroy = shadow_destroy,
	.load = shadow_load,
	.pin = shadow_pin,
	.unpin = shadow_unpin,
	.update = shadow_update,
	.flush = shadow_flush,
	.invlpg = shadow_invlpg,
	.fault = shadow_fault,
	.may_write = shadow_may_write,
	.keep_writable = shadow_keep_writable,
	.kick_pending = shadow_kick_pending,
	.kick_next = shadow_kick_next,
	.kick_done = shadow_kick_done,
	.add_stats = shadow_add_stats,
	.dump_walk = shadow_dump_walk,
};
