/*
 * placement_json.c - where the VM's memory and vCPUs are: by the kernel's word, for reports and the control socket.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/stats.h"

static json_t *nodes_of(const struct vm *vm, const void *at, uint64_t frames)
{
	uint64_t pages[NUMA_MAX_NODES], absent;
	json_t *o;

	/* Where there is one node, the answer is not worth a look at every page. */
	if (vm->topology.nr_nodes < 2 || numa_census(at, frames << 12, pages, &absent))
		return json_null();
	o = json_pack("{sI s{}}", "not_allocated", (json_int_t)absent, "by_node");
	for (unsigned i = 0; o && i <= vm->topology.highest; i++) {
		char id[8];

		snprintf(id, sizeof id, "%u", i);
		if (vm->topology.node[i].exists)
			json_object_set_new(json_object_get(o, "by_node"), id, json_integer(pages[i]));
	}
	return o;
}

/* The processor that a thread of ours last ran on, -1: not known (proc(5), /proc/pid/stat, field 39). */
static int processor_of(pid_t tid)
{
	char path[64], line[1024], *at;
	int cpu = -1;
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
	f = tid > 0 ? fopen(path, "re") : NULL;
	if (!f)
		return -1;
	at = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;	/* the name may hold blanks */
	for (unsigned field = 2; at && field < 39; field++)
		at = strchr(at + 1, ' ');
	if (at)
		cpu = atoi(at + 1);
	fclose(f);
	return cpu;
}

/* Policy, nodes, and, if there are several, where the frames of 4 KiB are by the kernel's word. NULL: no memory. Any
 * thread. */
json_t *placement_json(const struct vm *vm)
{
	const struct numa_topology *t = &vm->topology;
	json_t *o = json_pack("{ss s[] s[] so so}", "policy", numa_policy_name(vm->config->numa.policy), "nodes", "vcpus",
			      "guest_frames", nodes_of(vm, vm->ram, vm->ram_frames),
			      "monitor_frames", nodes_of(vm, vm->mon, vm->mon_frames));

	for (unsigned i = 0; o && t->nr_nodes && i <= t->highest; i++) {
		const struct numa_node *n = &t->node[i];
		json_t *distance;

		if (!n->exists)
			continue;
		distance = json_array();
		for (unsigned k = 0; k <= t->highest; k++)
			if (t->node[k].exists)
				json_array_append_new(distance, json_integer(n->distance[k]));
		json_array_append_new(json_object_get(o, "nodes"),
				      json_pack("{sI sI sI sI so}", "node", (json_int_t)i, "bytes", (json_int_t)n->bytes,
						"free_bytes_at_start", (json_int_t)n->free_bytes, "cpus", (json_int_t)n->nr_cpus,
						"distance", distance));
	}
	for (unsigned i = 0; o && i < vm->nr_vcpus; i++) {
		int cpu = processor_of(vm->vcpus[i].tid), node = -1;

		for (unsigned k = 0; cpu >= 0 && t->nr_nodes && k <= t->highest; k++)
			if (t->node[k].exists && CPU_ISSET(cpu, &t->node[k].cpus))
				node = k;
		json_array_append_new(json_object_get(o, "vcpus"),
				      json_pack("{sI so so}", "vcpu", (json_int_t)i, "cpu",
						cpu < 0 ? json_null() : json_integer(cpu), "node",
						node < 0 ? json_null() : json_integer(node)));
	}
	return o;
}
