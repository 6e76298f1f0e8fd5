/* mover_json.c - what the mover has done, in numbers. */
#include <string.h>

#include "vmm/kvm_stats.h"
#include "vmm/mover.h"
#include "vmm/stats.h"

#define MEND_PARTS	2u	/* of an exit to us: an exit to KVM, an entry made, and back */

void mover_stats(const struct vm *vm, struct mover_counters *out)
{
	memset(out, 0, sizeof *out);
	if (!vm->mover)
		return;
#define X(name, what) out->name = __atomic_load_n(&vm->mover->counters.name, __ATOMIC_RELAXED);
	MOVER_COUNTERS(X)
#undef X
}

/*
 * A rewrite of one entry makes KVM drop the whole of its shadow table, so up to 512 entries fault once more, which only KVM sees.
 * Of the faults that it mended since the last call the mover has the share that it has of the rounds of kicks.
 */
uint64_t mover_refill_ns(struct vm *vm)
{
	struct mover *m = vm->mover;
	struct vcpu_counters c;
	struct mmu_stats s;
	struct kvm_counts k;
	struct mover_counters did;
	uint64_t kicks, ours;

	mover_stats(vm, &did);
	if (!vm->kick->rewrites)
		return did.refill_ns;
	stats_sum(vm, &c, &s);
	kvm_stats_read(vm->kvm_stats, &k);
	kicks = c.vcpu.kick_rounds - m->seen.kicks;
	ours = did.batches + did.collapses - m->seen.ours;
	if (kicks && k.pf_fixed > m->seen.mended)
		MOVER_COUNT(m, refill_ns, (k.pf_fixed - m->seen.mended) * (ours < kicks ? ours : kicks) / kicks *
						 atomic_load(&vm->costs.fetch_ns) / MEND_PARTS);
	m->seen.mended = k.pf_fixed;
	m->seen.kicks = c.vcpu.kick_rounds;
	m->seen.ours = did.batches + did.collapses;
	mover_stats(vm, &did);
	return did.refill_ns;
}

json_t *mover_json(const struct vm *vm)
{
	struct mover_counters c;
	json_t *o = vm->mover ? json_object() : json_null();

	mover_stats(vm, &c);
#define X(name, what) if (vm->mover) json_object_set_new(o, #name, json_integer(c.name));
	MOVER_COUNTERS(X)
#undef X
	return o;
}
