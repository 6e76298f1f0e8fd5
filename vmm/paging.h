/*
 * paging.h - whose tables the processor walks: ours (paging_shadow.c) or the guest's own (paging_nested.c). The ABI layer
 * above and the run loop below know only this table. Not for other modules.
 */
#ifndef UMBRA_VMM_PAGING_H
#define UMBRA_VMM_PAGING_H

#include <stdio.h>

#include "mmu/mmu.h"

struct vm;
struct vcpu;
struct gate_exit;

/* Every member is mandatory. `v` is the calling thread's own vCPU, out of the guest. Frames, indices and entries may come
 * from the guest unchecked. Functions return 0 or -errno unless they say otherwise. */
struct paging_ops {
	const char *name;		/* as in --mmu= */
	bool guest_tables;		/* the processor walks the guest's: ring 0 needs a map of them */

	/* Of the VM, before and after its vCPUs. create: vm->mmu and vm->hole are there. */
	int (*create)(struct vm *vm);
	void (*destroy)(struct vm *vm);

	/* The space that `mode` runs in from now on; a TLB flush. MMU_NO_GFN: none, and *root is left alone. *root: what CR3 is
	 * to be. -EINVAL: no root table. -EAGAIN: after pending kicks. */
	int (*load)(struct vcpu *v, enum mmu_mode mode, gfn_t l4, mfn_t *root);
	/* The guest says that the frame is a table of this level, or that it is none any more. */
	int (*pin)(struct vcpu *v, gfn_t table, unsigned level);
	int (*unpin)(struct vcpu *v, gfn_t table);
	/* Stores an entry; preserve_ad: with A and D of the one before. */
	int (*update)(struct vcpu *v, gfn_t table, unsigned index, uint64_t gpte, bool preserve_ad);
	void (*flush)(struct vcpu *v);
	void (*invlpg)(struct vcpu *v, gva_t va);
	/* A page fault outside the hole. `access`: MMU_PF_W and MMU_PF_FETCH as the processor reported them. The verdicts mean
	 * what they do for mmu_fault(). */
	struct mmu_result (*fault)(struct vcpu *v, gva_t va, uint32_t access);

	/* May the VMM write to this frame by its number, now? Where the processor walks the guest's tables, not to a table. */
	bool (*may_write)(struct vcpu *v, gfn_t gfn);
	/* The same from now on until the VM ends, by a pointer that is kept: the frame stays where it is, and where the
	 * processor walks the guest's tables does not become one. -EBUSY: it is one, or does not stop moving. */
	int (*keep_writable)(struct vcpu *v, gfn_t gfn);

	/* Entries changed and not kicked yet, as in mmu.h; tables may be guest frames. */
	bool (*kick_pending)(struct vcpu *v);
	unsigned (*kick_next)(struct vcpu *v, struct mmu_kick *out, unsigned max);
	/* What was handed out took effect; so did a TLB flush. */
	void (*kick_done)(struct vcpu *v);

	/* Adds what the mode counts itself. Any thread. */
	void (*add_stats)(struct vm *vm, struct mmu_stats *m);
	/* For a crash dump. */
	void (*dump_walk)(struct vcpu *v, enum mmu_mode mode, gva_t va, FILE *to);
};

extern const struct paging_ops paging_shadow, paging_nested;

#endif
