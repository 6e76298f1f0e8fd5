/*
 * ept.h - EPT or NPT violations of a run: measured where a processor made them, modelled elsewhere, and never one called the
 * other. docs/nested.md has the model and how far it is off. Not for other modules.
 */
#ifndef UMBRA_VMM_EPT_H
#define UMBRA_VMM_EPT_H

#include "vmm/kvm_stats.h"
#include "vmm/vm.h"

enum ept_kind {
	EPT_NONE,	/* the guest's own tables, and no second level to measure */
	EPT_MEASURED,	/* KVM's count of violations: umbra's own frames in the VM are among them */
	EPT_MODELLED,	/* a violation per distinct guest frame that faults led to, page tables included */
};

struct ept {
	enum ept_kind kind;
	int64_t violations;	/* at 4 KiB; -1: EPT_NONE */
	/* EPT_MODELLED */
	uint64_t tables;	/* of them page-table pages */
	uint64_t violations_2m;	/* were the second level of 2 MiB entries */
	uint64_t at_most;	/* violations if all that was prebuilt was used; the same if nothing was prebuilt */
};

/* From the counters of a run, or of a part of it. */
void ept_count(const struct vm *vm, const struct mmu_stats *m, const struct kvm_counts *k, struct ept *out);
const char *ept_kind_name(enum ept_kind kind);

/* Memory references of one TLB miss with four levels of guest tables (AMD APM vol. 2, 15.25.5): through our shadow tables, or
 * through a second level with entries of 4 KiB or 2 MiB. */
#define EPT_REFS_SHADOW		4u
#define EPT_REFS_4K		24u
#define EPT_REFS_2M		19u

/* Host memory behind the guest's RAM that was there before the guest ran, in frames. */
uint64_t ept_populated(const struct vm *vm);

#endif
