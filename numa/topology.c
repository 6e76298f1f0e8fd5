/*
 * topology.c - the host's nodes, by libnuma.
 */
#include <errno.h>
#include <numa.h>
#include <string.h>
#include <unistd.h>

#include "numa/numa.h"

/* A kernel without NUMA: everything is node 0. */
static int single_node(struct numa_topology *t)
{
	struct numa_node *n = &t->node[0];

	t->nr_nodes = 1;
	t->with_memory = t->with_cpus = 1;
	n->exists = true;
	n->bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
	n->free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
	n->distance[0] = 10;
	if (sched_getaffinity(0, sizeof n->cpus, &n->cpus))
		return -EIO;
	n->nr_cpus = CPU_COUNT(&n->cpus);
	return 0;
}

static int read_cpus(struct numa_node *n, unsigned id, const cpu_set_t *mine)
{
	struct bitmask *cpus = numa_allocate_cpumask();
	int r = cpus && !numa_node_to_cpus(id, cpus) ? 0 : -EIO;

	for (unsigned c = 0; !r && c < CPU_SETSIZE && c < cpus->size; c++)
		if (numa_bitmask_isbitset(cpus, c) && CPU_ISSET(c, mine))
			CPU_SET(c, &n->cpus);
	n->nr_cpus = CPU_COUNT(&n->cpus);
	if (cpus)
		numa_free_cpumask(cpus);
	return r;
}

int numa_topology_read(struct numa_topology *t)
{
	cpu_set_t mine;

	memset(t, 0, sizeof *t);
	if (numa_available() < 0)
		return single_node(t);
	if (sched_getaffinity(0, sizeof mine, &mine))
		return -EIO;
	for (int id = 0; id <= numa_max_node() && id < (int)NUMA_MAX_NODES; id++) {
		struct numa_node *n = &t->node[id];
		long long free_bytes = 0, bytes = numa_node_size64(id, &free_bytes);

		if (bytes < 0 && !numa_bitmask_isbitset(numa_all_nodes_ptr, id))
			continue;		/* a hole in the numbers */
		n->exists = true;
		n->bytes = bytes > 0 ? bytes : 0;
		n->free_bytes = free_bytes > 0 ? free_bytes : 0;
		if (read_cpus(n, id, &mine))
			return -EIO;
		for (int to = 0; to <= numa_max_node() && to < (int)NUMA_MAX_NODES; to++)
			n->distance[to] = numa_distance(id, to);
		t->nr_nodes++;
		t->highest = id;
		if (n->bytes && numa_bitmask_isbitset(numa_all_nodes_ptr, id))
			t->with_memory |= 1ull << id;
		if (n->nr_cpus)
			t->with_cpus |= 1ull << id;
	}
	return t->nr_nodes ? 0 : -EIO;
}
