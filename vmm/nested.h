/*
 * nested.h - the state of --mmu=nested. Not for other modules.
 *
 * The processor walks the guest's tables, fixed up as Xen does it (frames.h has the rules), and KVM does the second level.
 * docs/nested.md tells why that is safe.
 */
#ifndef UMBRA_VMM_NESTED_H
#define UMBRA_VMM_NESTED_H

#include "vmm/frames.h"
#include "vmm/vm.h"

#define NESTED_ENTRY_KICKS	4096u	/* kicks kept entry by entry; more of them become kicks of whole tables */
#define NESTED_KEPT		(VMM_MAX_VCPUS + 1)

struct nested_cpu {
	gfn_t root[2];			/* [enum mmu_mode] held as level-4 tables */
	gfn_t left;			/* held too: replaced as a root, but the processor has not loaded another one yet */
	uint64_t *kicks;		/* gfn << 16 | index, or MMU_ENTRIES for a whole table */
	size_t nr_kicks, room, handed;
	unsigned audit_at;
	/* counters as in struct mmu_stats */
	uint64_t true_faults, pt_write, spurious;
};

struct nested {
	struct frames *frames;
	gfn_t kept[NESTED_KEPT];	/* frames the VMM writes to by their number */
	unsigned nr_kept;
	struct nested_cpu cpu[VMM_MAX_VCPUS];
};

/* nested_kick.c: what KVM has to be told, where it shadows the guest's tables; nothing elsewhere. */
bool nested_kick_pending(struct vcpu *v);
unsigned nested_kick_next(struct vcpu *v, struct mmu_kick *out, unsigned max);
void nested_kick_entry(struct vcpu *v, gfn_t table, unsigned index);

/* emulate_store.c: a store of the guest kernel to the entry that `va` is in, done by frames_exchange(). */
enum emulated emulate_table_store(struct vcpu *v, uint64_t va, gfn_t table);

#endif
