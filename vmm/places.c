/*
 * places.c - the nodes that a VM uses when things move between them: their numbering, a slot of machine frames on each, and
 * which of them a vCPU is on.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/mover.h"

#define ALIGN_2M	512ull

int places_prefer(void *at, size_t bytes, unsigned node)
{
	unsigned long mask = 1ul << node;

	return syscall(SYS_mbind, at, bytes, MPOL_PREFERRED, &mask, (unsigned long)NUMA_MAX_NODES + 1, 0) ? -errno : 0;
}

int places_start(struct vm *vm)
{
	const struct vmm_config *c = vm->config;

	vm->nr_places = 1;
	if (!numa_policy_moves(c->numa.policy) || vm->topology.nr_nodes < 2)
		return 0;
	if (vm->paging->guest_tables) {
		fprintf(stderr, "umbra: --numa=%s moves single pages, which it cannot under the guest's own tables: leave "
			"--mmu=nested out, or place with --numa=local, interleave or bind\n", numa_policy_name(c->numa.policy));
		return -EINVAL;
	}
	vm->nr_places = numa_places(&c->numa, &vm->topology, vm->place);
	if (vm->nr_places < 2 && !c->quiet)
		fprintf(stderr, "umbra: --numa=%s: one node is left to use, so there is nothing to move\n",
			numa_policy_name(c->numa.policy));
	return 0;
}

/* After monitor_layout(): behind what the VM has anyway, and the two frames that must have no memory. */
int places_map(struct vm *vm, void *(*map)(uint64_t frames, bool huge))
{
	uint64_t at = (vm->exit_frame.n + 2 + ALIGN_2M - 1) / ALIGN_2M * ALIGN_2M;

	for (unsigned i = 0; vm->nr_places > 1 && i < vm->nr_places; i++, at += vm->ram_frames) {
		void *p = map(vm->ram_frames, false);
		int r;

		if (p == MAP_FAILED)
			return -errno;
		vm->place_hva[i] = p;
		vm->node_base[i] = (mfn_t){ at };
		r = vm->topology.fake ? 0 : places_prefer(p, vm->ram_frames << 12, vm->place[i]);
		if (r)
			return r;
	}
	if (vm->nr_places > 1 && !vm->topology.fake)
		madvise((char *)vm->mon + MON_VCPU_AREAS * 4096, vm->nr_vcpus * VCPU_AREA_PAGES * 4096, MADV_NOHUGEPAGE);
	return 0;
}

/* The monitor's memory of a vCPU, stack, ring and shim data, goes where the vCPU is. Page by page: others lie beside it. */
static void bring_area(struct vcpu *v, unsigned node)
{
	struct numa_moved moved = { 0 };

	if (!v->vm->topology.fake)
		numa_move_range(v->area, VCPU_AREA_PAGES * 4096, node, &moved);
}

void places_unmap(struct vm *vm)
{
	for (unsigned i = 0; i < NUMA_MAX_PLACES; i++)
		if (vm->place_hva[i])
			munmap(vm->place_hva[i], vm->ram_frames << 12);
}

static unsigned place_of_node(const struct vm *vm, int node)
{
	for (unsigned i = 0; i < vm->nr_places; i++)
		if (vm->place[i] == node)
			return i;
	return NUMA_NOWHERE;
}

/* Of a frame on a host that has these nodes only in our words: its slot; home is the first. */
static uint8_t fake_place(const struct vm *vm, uint64_t gfn, uint64_t mfn)
{
	for (unsigned i = 0; i < vm->nr_places; i++)
		if (mfn == vm->node_base[i].n + gfn)
			return i;
	return 0;
}

void placement_nodes(const struct vm *vm, const uint64_t *gfns, unsigned n, uint8_t *places)
{
	for (unsigned at = 0; at < n; at += NUMA_MAX_BATCH) {
		unsigned some = n - at < NUMA_MAX_BATCH ? n - at : NUMA_MAX_BATCH;
		void *hva[NUMA_MAX_BATCH];
		int nodes[NUMA_MAX_BATCH];

		for (unsigned i = 0; i < some; i++) {
			uint64_t mfn = mmu_pmap(vm->mmu, (gfn_t){ gfns[at + i] }).n;

			places[at + i] = vm->topology.fake ? fake_place(vm, gfns[at + i], mfn) : NUMA_NOWHERE;
			hva[i] = mmu_mfn_hva(vm->mmu, (mfn_t){ mfn });	/* NULL: the kernel knows no such page, and says so */
		}
		if (vm->topology.fake || numa_where(hva, some, nodes))
			continue;
		for (unsigned i = 0; i < some; i++)
			places[at + i] = place_of_node(vm, nodes[i]);
	}
}

unsigned placement_node_of(struct vm *vm, gfn_t gfn)
{
	uint8_t place;

	placement_nodes(vm, &gfn.n, 1, &place);
	return place;
}

/* ---- vCPUs ---------------------------------------------------------------------------------------------------------------- */

/* A vCPU that the user has pinned is where its processor is; else the nodes are filled one after the other. */
static unsigned first_place(const struct vm *vm, unsigned id)
{
	const struct vmm_config *c = vm->config;
	uint64_t nodes = c->numa.cpunodebind ? c->numa.cpunodebind : ~0ull;
	unsigned cpus = 0, at;

	for (unsigned i = 0; i < vm->nr_places && c->nr_vcpu_cpus; i++)
		if (CPU_ISSET(c->vcpu_cpus[id % c->nr_vcpu_cpus], &vm->topology.node[vm->place[i]].cpus))
			return i;
	for (unsigned i = 0; i < vm->nr_places; i++)
		if (nodes >> vm->place[i] & 1)
			cpus += vm->topology.node[vm->place[i]].nr_cpus;
	at = cpus ? id % cpus : 0;
	for (unsigned i = 0; cpus && i < vm->nr_places; i++) {
		unsigned here = nodes >> vm->place[i] & 1 ? vm->topology.node[vm->place[i]].nr_cpus : 0;

		if (at < here)
			return i;
		at -= here;
	}
	return 0;
}

void places_choose(struct vm *vm)
{
	for (unsigned i = 0; vm->nr_places > 1 && i < vm->nr_vcpus; i++)
		atomic_store(&vm->vcpus[i].place, vm->topology.fake ? i % vm->nr_places : first_place(vm, i));
}

/* On the vCPU's own thread. */
void places_thread(struct vcpu *v)
{
	struct vm *vm = v->vm;
	const cpu_set_t *cpus = &vm->topology.node[vm->place[atomic_load(&v->place)]].cpus;

	atomic_store(&v->has_clock, !pthread_getcpuclockid(pthread_self(), &v->cpu_clock));
	if (vm->nr_places > 1 && !vm->topology.fake && !vm->config->nr_vcpu_cpus && CPU_COUNT(cpus))
		pthread_setaffinity_np(pthread_self(), sizeof *cpus, cpus);
	if (vm->nr_places > 1)
		bring_area(v, vm->place[atomic_load(&v->place)]);
}

int places_move_vcpu(struct vm *vm, unsigned vcpu, unsigned place)
{
	return vcpu < vm->nr_vcpus && place < vm->nr_places ? placement_move_vcpu(vm, vcpu, vm->place[place]) : -EINVAL;
}

void places_vcpu_moved(struct vcpu *v, unsigned node)
{
	unsigned place = place_of_node(v->vm, node);

	if (v->vm->nr_places < 2 || place == NUMA_NOWHERE)
		return;
	atomic_store(&v->place, place);
	bring_area(v, node);
	vcpu_wake(v);		/* a root of the new node is loaded on its way in */
}
