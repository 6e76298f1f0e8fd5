/*
 * placement.c - where the VM's memory and vCPU threads are put (numa/ knows how). placement_json.c says where they are.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vm.h"

int placement_start(struct vm *vm)
{
	const struct numa_config *c = &vm->config->numa;
	char why[160];
	int r = numa_topology_read(&vm->topology);

	vm->placed = *c;
	if (!r && vm->config->numa_fake)
		r = numa_topology_fake(&vm->topology, vm->config->numa_fake);
	if (r) {
		vm->topology.nr_nodes = 0;
		if (!c->policy)
			return 0;
		fprintf(stderr, "umbra: the host's NUMA nodes cannot be read: %s; leave --numa out\n", strerror(-r));
		return r;
	}
	if (vm->config->vnuma || !c->policy)
		return 0;
	if (numa_check(c, &vm->topology, why, sizeof why)) {
		fprintf(stderr, "umbra: %s\n", why);
		return -EINVAL;
	}
	if (vm->topology.nr_nodes < 2 && !vm->config->quiet)
		fprintf(stderr, "umbra: --numa=%s: this host has one NUMA node, so there is nothing to place\n",
			numa_policy_name(c->policy));
	return 0;
}

int placement_memory(struct vm *vm)
{
	const struct numa_config *c = &vm->config->numa;
	int r;

	if (vm->config->vnuma)
		return vnuma_start(vm);
	if (!c->policy || vm->topology.nr_nodes < 2 || vm->topology.fake)
		return 0;
	r = numa_place(c, &vm->topology, vm->ram, vm->ram_frames << 12, false);
	if (!r)
		r = numa_place(c, &vm->topology, vm->mon, vm->mon_frames << 12, true);
	if (r)
		fprintf(stderr, "umbra: --numa=%s: the kernel refuses: %s\n", numa_policy_name(c->policy), strerror(-r));
	return r;
}

/* On the vCPU's own thread, before it runs. */
void placement_thread(struct vcpu *v)
{
	cpu_set_t cpus;

	if (vnuma_cpus(v->vm, v->id, &cpus))
		pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
	if (v->vm->topology.nr_nodes > 1 && !v->vm->topology.fake && numa_cpus(&v->vm->config->numa, &v->vm->topology, &cpus))
		pthread_setaffinity_np(pthread_self(), sizeof cpus, &cpus);
	places_thread(v);
}

int placement_move_vcpu(struct vm *vm, unsigned vcpu, unsigned node)
{
	pid_t tid = vm->vcpus[vcpu].tid;

	if (node >= NUMA_MAX_NODES || !vm->topology.node[node].nr_cpus)
		return -EINVAL;
	if (!tid)
		return -EAGAIN;
	if (!vm->topology.fake && sched_setaffinity(tid, sizeof(cpu_set_t), &vm->topology.node[node].cpus))
		return -errno;
	places_vcpu_moved(&vm->vcpus[vcpu], node);
	return 0;
}
