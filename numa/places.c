/* places.c - the nodes of the host that one VM uses, numbered densely; hosts with made-up nodes. */
#include <errno.h>
#include <string.h>

#include "numa/numa.h"

unsigned numa_places(const struct numa_config *config, const struct numa_topology *t, uint8_t place[static NUMA_MAX_PLACES])
{
	uint64_t from = config->membind ? config->membind & t->with_memory : t->with_memory;
	unsigned n = 0;

	for (unsigned i = 0; i < NUMA_MAX_NODES && n < NUMA_MAX_PLACES; i++)
		if (from >> i & 1)
			place[n++] = i;
	return n;
}

void numa_machine_describe(struct numa_machine *machine, const struct numa_topology *t, const uint8_t place[static NUMA_MAX_PLACES])
{
	for (unsigned i = 0; i < machine->nr_places; i++) {
		const struct numa_node *n = &t->node[place[i]];

		machine->cpus[i] = n->nr_cpus;
		machine->bytes[i] = n->bytes;
		for (unsigned k = 0; k < machine->nr_places; k++) {
			uint8_t d = n->distance[place[k]];

			/* A kernel that does not say: Linux's own REMOTE_DISTANCE. */
			machine->distance[i][k] = i == k ? 10 : d > 10 ? d : 20;
		}
	}
}

/* Distances of a ring, so that with four nodes some are farther than others. */
static uint8_t ring_distance(unsigned from, unsigned to, unsigned n)
{
	unsigned hops = from > to ? from - to : to - from;

	return 10 + 10 * (hops < n - hops ? hops : n - hops);
}

int numa_topology_fake(struct numa_topology *t, unsigned n)
{
	cpu_set_t all;
	uint64_t bytes = 0, free_bytes = 0;
	unsigned nr, dealt = 0;

	if (n < 2 || n > NUMA_MAX_PLACES)
		return -EINVAL;
	CPU_ZERO(&all);
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++) {
		CPU_OR(&all, &all, &t->node[i].cpus);
		bytes += t->node[i].bytes;
		free_bytes += t->node[i].free_bytes;
	}
	nr = CPU_COUNT(&all);
	memset(t, 0, sizeof *t);
	t->fake = true;
	t->nr_nodes = n;
	t->highest = n - 1;
	t->with_memory = t->with_cpus = (1ull << n) - 1;
	for (unsigned i = 0; i < n; i++) {
		t->node[i].exists = true;
		t->node[i].bytes = bytes / n;
		t->node[i].free_bytes = free_bytes / n;
		for (unsigned k = 0; k < n; k++)
			t->node[i].distance[k] = ring_distance(i, k, n);
		if (nr < n)
			t->node[i].cpus = all;
	}
	for (unsigned c = 0; nr >= n && c < CPU_SETSIZE; c++)
		if (CPU_ISSET(c, &all))
			CPU_SET(c, &t->node[dealt++ * n / nr].cpus);
	for (unsigned i = 0; i < n; i++)
		t->node[i].nr_cpus = CPU_COUNT(&t->node[i].cpus);
	return 0;
}
