/*
 * vnuma.h - --vnuma: NUMA nodes that a guest is told of, and that are kept true. Not for other modules.
 *
 * A virtual node is a range of guest frames, bound to a node of the host, and vCPUs, which run on that node's processors.
 * Nothing of it changes while the guest runs, so what it was told at boot stays so.
 */
#ifndef UMBRA_VMM_VNUMA_H
#define UMBRA_VMM_VNUMA_H

#include <sched.h>
#include <stdbool.h>

#include <jansson.h>

#include "vmm/vmm.h"

struct vm;

struct vnuma {
	unsigned nr_vnodes;
	uint64_t first[NUMA_MAX_NODES + 1];	/* [i], [i + 1]: from here, to before there; 2 MiB aligned */
	uint8_t host[NUMA_MAX_NODES];		/* node of the host */
	uint8_t vnode[VMM_MAX_VCPUS];		/* by vCPU */
};

/* Lays the nodes out and binds the guest's memory, before anything has touched it. The topology is known. 0 or -errno after a
 * message. */
int vnuma_start(struct vm *vm);
/* The processors that a vCPU may run on; false: any. */
bool vnuma_cpus(const struct vm *vm, unsigned vcpu, cpu_set_t *cpus);
/* As SLIT: the host's, between the nodes behind the two. */
unsigned vnuma_distance(const struct vm *vm, unsigned from, unsigned to);
/* Null: the guest is told nothing. NULL: no memory. */
json_t *vnuma_json(const struct vm *vm);

#endif
