/*
 * node_tables.c - shadow tables for each node that vCPUs run on (mmu_config.nr_nodes): memory for them there, and vCPUs
 * that change their node.
 */
#include <errno.h>
#include <stdio.h>

#include "vmm/vm.h"

#define FRAMES_2M	512u
#define ALONG		16384u	/* entries of each root that a vCPU takes along to another node: 64 MiB */
#define POOL_MAX_2M	2048u	/* of a pool whose size nobody asked for: 4 GiB */

int node_tables_start(struct vm *vm, uint32_t one)
{
	const uint64_t asked = vm->config->shadow_pages, n = vm->nr_places, part = (one + FRAMES_2M - 1) / FRAMES_2M;

	vm->node_tables = vm->config->node_tables && n > 1;
	vm->pool_pages = asked ? asked : one;
	if (!vm->node_tables)
		return 0;
	if (asked && asked / n < MMU_POOL_MIN) {
		fprintf(stderr, "umbra: --shadow-pages=%llu is too little for shadow tables on each of %u nodes: ask for %u or more, or "
			"for --node-tables=off\n", (unsigned long long)asked, vm->nr_places, vm->nr_places * MMU_POOL_MIN);
		return -EINVAL;
	}
	if (!asked)	/* parts begin and end at 2 MiB, so that the host can back them with huge pages */
		vm->pool_pages = (n * part < POOL_MAX_2M ? part : POOL_MAX_2M / n) * n * FRAMES_2M;
	return 0;
}

/* Each part prefers its node and does not insist: a node that is full gives slower tables, not a guest that dies. */
int node_tables_place(struct vm *vm)
{
	for (unsigned i = 0; vm->node_tables && !vm->topology.fake && i < vm->nr_places; i++) {
		uint32_t pages;
		mfn_t first;
		int r;

		mmu_pool_part(vm->mmu, i, &first, &pages);
		r = places_prefer(mmu_mfn_hva(vm->mmu, first), (uint64_t)pages << 12, vm->place[i]);
		if (r)
			return r;
	}
	return 0;
}

/* The root of one mode, from the tables of the node that mmu_cpu_set_node() named. */
static bool reload(struct vcpu *v, enum mmu_mode mode)
{
	mfn_t root;

	if (v->l4[mode].n == MMU_NO_GFN.n)
		return true;
	if (v->vm->paging->load(v, mode, v->l4[mode], &root))
		return false;
	v->root[mode] = root;
	return true;
}

/*
 * A root that cannot be had, because the pool is dry until kicks are done, is asked for again at the next way in; until then
 * the old one serves. Between two gates, and in the shim, which names roots to the gate, the vCPU keeps what it has.
 */
void node_tables_switch(struct vcpu *v)
{
	unsigned place = atomic_load(&v->place);

	if (v->state == VCPU_MID_GATE || shim_busy(v) || mmu_cpu_set_node(v->mmu, place))
		return;
	if (!(reload(v, MMU_KERNEL) & reload(v, MMU_USER)))
		return;
	for (int mode = MMU_USER; mode >= MMU_KERNEL; mode--)
		mmu_prebuild_along(v->mmu, mode, v->tables_place, MMU_SRC_PREFETCH, ALONG);
	v->tables_place = place;
	v->counters.vcpu.node_switches++;
}
