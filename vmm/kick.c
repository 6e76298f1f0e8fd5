/*
 * kick.c - how a changed sPTE takes effect, by kind of host (docs/coherence.md, rule 4). Chosen at start-up, or forced by
 * --kick= for tests.
 */
#include "vmm/vm.h"

static uint64_t entry_va(const struct vm *vm, mfn_t table, unsigned index)
{
	return POOL_VA + (table.n - (vm->paging->guest_tables ? 0 : vm->pool.n)) * 4096 + index * 8;
}

/* EPT/NPT: the processor walks our tables; the host's store is enough once the TLB is flushed. */
static unsigned fill_flush(struct vcpu *v, uint64_t *list, unsigned max)
{
	struct mmu_kick k[64];
	unsigned got;

	while ((got = v->vm->paging->kick_next(v, k, 64)))
		for (unsigned i = 0; i < got; i++)
			v->kick_cpus |= k[i].cpus;
	return 0;
}

/*
 * KVM shadows our tables and sees only writes from inside the VM. An aligned 8-byte write refreshes that entry; a write
 * across two entries makes KVM drop its whole shadow of the table, recycled ones included. Both need the CR3 load that
 * ends the kick (docs/coherence-hosts.md has the measurements).
 */
static unsigned fill_entries(struct vcpu *v, uint64_t *list, unsigned max)
{
	struct mmu_kick k;
	unsigned n = 0;

	while (max - n >= MMU_ENTRIES && v->vm->paging->kick_next(v, &k, 1)) {
		v->kick_cpus |= k.cpus;
		if (!k.whole) {
			list[n++] = entry_va(v->vm, k.table, k.index);
			continue;
		}
		for (unsigned i = 0; i < MMU_ENTRIES; i++)
			list[n++] = entry_va(v->vm, k.table, i);
	}
	return n;
}

static unsigned fill_tables(struct vcpu *v, uint64_t *list, unsigned max)
{
	struct mmu_kick k[64];
	unsigned n = 0, got;

	while (max - n >= 64 && (got = v->vm->paging->kick_next(v, k, 64)))
		for (unsigned i = 0; i < got; i++) {
			v->kick_cpus |= k[i].cpus;
			list[n++] = entry_va(v->vm, k[i].table, k[i].index) + (k[i].whole ? 4 : 0);
		}
	return n;
}

static const struct kick_ops kick_methods[] = {
	[VMM_KICK_FLUSH] = {
		.name = "flush",
		.when = "EPT or NPT on",
		.table_min = 1,
		.fill = fill_flush,
	},
	[VMM_KICK_REWRITE] = {
		.name = "rewrite",
		.when = "every host; slower than table",
		.table_min = 0,
		.rewrites = true,
		.fill = fill_entries,
	},
	[VMM_KICK_TABLE] = {
		.name = "table",
		.when = "KVM shadows our tables: ept=0, npt=0, PVM",
		.table_min = 6,
		.rewrites = true,
		.fill = fill_tables,
	},
};

const struct kick_ops *kick_choose(enum vmm_kick wanted, const struct vmm_host *host)
{
	if (wanted == VMM_KICK_AUTO)
		wanted = host->second_level == 1 ? VMM_KICK_FLUSH : VMM_KICK_TABLE;
	return &kick_methods[wanted];
}
