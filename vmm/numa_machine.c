/*
 * numa_machine.c - this VM as the NUMA manager sees it: struct numa_machine_ops over the mover, the places and the vCPUs.
 */
#include <errno.h>
#include <numa.h>
#include <string.h>
#include <unistd.h>

#include "vmm/vm.h"

#define FAULT_WORK_NS	3000u	/* of the VMM at a hidden fault, beside the exit; docs/results.md */

static int machine_watch(void *arg, const uint64_t *gfns, unsigned n)
{
	return mover_watch(arg, gfns, n);
}

static void machine_move(void *arg, struct numa_move *moves, unsigned n)
{
	mover_do(arg, moves, n);
}

static int machine_move_vcpu(void *arg, unsigned vcpu, unsigned place)
{
	return places_move_vcpu(arg, vcpu, place);
}

static unsigned machine_vcpu_node(void *arg, unsigned vcpu)
{
	struct vm *vm = arg;

	return atomic_load(&vm->vcpus[vcpu].place);
}

static uint64_t machine_vcpu_busy_ns(void *arg, unsigned vcpu)
{
	struct vm *vm = arg;
	struct vcpu *v = &vm->vcpus[vcpu];
	struct timespec t;

	if (!atomic_load(&v->up) || !atomic_load(&v->has_clock) || clock_gettime(v->cpu_clock, &t))
		return 0;
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void machine_frame_nodes(void *arg, const uint64_t *gfns, unsigned n, uint8_t *places)
{
	placement_nodes(arg, gfns, n, places);
}

static uint64_t machine_node_free(void *arg, unsigned place)
{
	struct vm *vm = arg;
	long long free_bytes = 0;

	if (vm->topology.fake)
		return (uint64_t)sysconf(_SC_AVPHYS_PAGES) * 4096 / vm->nr_places;
	return numa_node_size64(vm->place[place], &free_bytes) < 0 || free_bytes < 0 ? 0 : free_bytes;
}

static uint64_t machine_now_ns(void *arg)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t machine_work_ns(void *arg)
{
	struct mover_counters c;

	mover_stats(arg, &c);
	return c.move_ns + c.watch_ns;
}

static uint64_t machine_fault_ns(void *arg)
{
	struct vm *vm = arg;

	/* vCPU 0's thread measures before it says that it has a clock. */
	return (atomic_load(&vm->vcpus[0].has_clock) ? vm->costs.fetch_ns : 0) + FAULT_WORK_NS;
}

static uint64_t machine_refill_ns(void *arg)
{
	return mover_refill_ns(arg);
}

static const struct numa_machine_ops machine_ops = {
	.watch = machine_watch,
	.move = machine_move,
	.move_vcpu = machine_move_vcpu,
	.vcpu_node = machine_vcpu_node,
	.vcpu_busy_ns = machine_vcpu_busy_ns,
	.frame_nodes = machine_frame_nodes,
	.node_free = machine_node_free,
	.now_ns = machine_now_ns,
	.work_ns = machine_work_ns,
	.fault_ns = machine_fault_ns,
	.refill_ns = machine_refill_ns,
};

int machine_manager_create(struct vm *vm)
{
	struct numa_machine machine = { .ops = &machine_ops, .arg = vm, .nr_gfns = vm->ram_frames, .nr_places = vm->nr_places,
					.nr_vcpus = vm->nr_vcpus };

	if (!vm->mover)
		return 0;
	numa_machine_describe(&machine, &vm->topology, vm->place);
	return numa_manager_create(&vm->config->numa, &machine, &vm->numa);
}
