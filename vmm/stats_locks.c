/*
 * stats_locks.c - how often a lock was found taken, in the order that locks nest.
 */
#include "vmm/stats.h"

json_t *stats_locks_json(const struct vcpu_counters *c, const struct mmu_stats *m)
{
	json_t *list = json_array();

	/* Mutexes, of which a waiter sleeps; then spinlocks. */
#define MUTEX(name, what, waits) \
	json_array_append_new(list, json_pack("{ss ss ss sI sn}", "module", "vmm", "name", name, "guards", what, "waits", \
					      (json_int_t)c->vcpu.waits, "spins"))
	MUTEX("pin", "applying what the pins of a guest frame say; by frame", pin_waits);
	MUTEX("ring", "taking up the ring of one vCPU's shim", ring_waits);
	MUTEX("vcpu", "one vCPU's descriptor tables and runstate", vcpu_waits);
	MUTEX("ports", "binding and closing event channels", port_waits);
#undef MUTEX
#define X(name, what) \
	json_array_append_new(list, json_pack("{ss ss ss sI sI}", "module", "mmu", "name", #name, "guards", what, "waits", \
					      (json_int_t)m->waits_##name, "spins", (json_int_t)m->spins_##name));
	MMU_LOCKS(X)
#undef X
	return list;
}
