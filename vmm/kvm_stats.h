/*
 * kvm_stats.h - KVM's own counters of a VM (KVM_GET_STATS_FD, Linux 5.14): no root, no debugfs. Not for other modules.
 */
#ifndef UMBRA_VMM_KVM_STATS_H
#define UMBRA_VMM_KVM_STATS_H

#include <stdint.h>

struct vm;

/* X(name, "what"), named as KVM does. Of the VM: what there is now, or how often something happened ... */
#define KVM_VM_COUNTS(X) \
	X(pages_4k,		"4 KiB pages that KVM's tables map now") \
	X(pages_2m,		"2 MiB pages") \
	X(pages_1g,		"1 GiB pages") \
	X(mmu_shadow_zapped,	"tables that KVM dropped") \
	X(mmu_pte_write,	"writes of the guest to tables that KVM shadows") \
	X(remote_tlb_flush,	"TLB flushes of all vCPUs")
/* ... and summed over the vCPUs: how often. */
#define KVM_VCPU_COUNTS(X) \
	X(pf_taken,		"page faults that KVM looked at: with EPT or NPT, violations") \
	X(pf_fixed,		"... and mended by an entry of its own") \
	X(pf_emulate,		"... by emulation") \
	X(pf_spurious,		"... that were mended already") \
	X(pf_fast,		"... without a lock") \
	X(pf_guest,		"page faults that KVM handed to the guest") \
	X(tlb_flush,		"TLB flushes") \
	X(invlpg,		"invlpg") \
	X(insn_emulation,	"instructions emulated") \
	X(exits,		"exits of the processor, KVM's own included")

/* -1: this kernel has no such counter. */
struct kvm_counts {
#define X(name, what) int64_t name;
	KVM_VM_COUNTS(X)
	KVM_VCPU_COUNTS(X)
#undef X
};

struct kvm_stats;

/* Of a VM with all its vCPUs made. NULL: no memory, or the kernel has none of it; the others take that. */
struct kvm_stats *kvm_stats_open(const struct vm *vm);
void kvm_stats_close(struct kvm_stats *s);
/* Any thread. */
void kvm_stats_read(const struct kvm_stats *s, struct kvm_counts *out);
/* *c -= from, but for what is no count of events: pages_*. */
void kvm_stats_subtract(struct kvm_counts *c, const struct kvm_counts *from);

#endif
