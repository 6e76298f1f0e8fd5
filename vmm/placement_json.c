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

/* "0-1,4": what the thread may run on; "" if that cannot be told. */
static const char *affinity_of(pid_t tid, char *to, size_t size)
{
	cpu_set_t cpus;
	size_t n = 0;

	*to = '\0';
	if (tid <= 0 || sched_getaffinity(tid, sizeof cpus, &cpus))
		return to;
	for (int first = 0, last; first < CPU_SETSIZE && n < size; first = last + 1) {
		last = first;
		if (!CPU_ISSET(first, &cpus))
			continue;
		while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &cpus))
			last++;
		n += snprintf(to + n, size - n, first == last ? "%s%d" : "%s%d-%d", n ? "," : "", first, last);
	}
	return to;
}

static int node_of_processor(const struct numa_topology *t, int cpu)
{
	for (unsigned k = 0; cpu >= 0 && t->nr_nodes && k <= t->highest; k++)
		if (t->node[k].exists && CPU_ISSET(cpu, &t->node[k].cpus))
			return k;
	return -1;
}

/* Null: negative. */
static json_t *known(int64_t n)
{
	return n < 0 ? json_null() : json_integer(n);
}

static json_t *vcpu_json(const struct vm *vm, unsigned id)
{
	pid_t tid = vm->vcpus[id].tid;
	int cpu = processor_of(tid);
	char text[256];

	return json_pack("{sI so so ss}", "vcpu", (json_int_t)id, "cpu", known(cpu), "node",
			 known(node_of_processor(&vm->topology, cpu)), "may_run_on", affinity_of(tid, text, sizeof text));
}

/* `now`: the same, read again; NULL: it cannot be. */
static json_t *node_json(const struct numa_topology *t, const struct numa_topology *now, unsigned id)
{
	const struct numa_node *n = &t->node[id];
	json_t *distance = json_array();

	for (unsigned k = 0; k <= t->highest; k++)
		if (t->node[k].exists)
			json_array_append_new(distance, json_integer(n->distance[k]));
	return json_pack("{sI sI sI so sI so}", "node", (json_int_t)id, "bytes", (json_int_t)n->bytes,
			 "free_bytes_at_start", (json_int_t)n->free_bytes, "free_bytes",
			 known(now && now->node[id].exists ? (int64_t)now->node[id].free_bytes : -1), "cpus",
			 (json_int_t)n->nr_cpus, "distance", distance);
}

/* Policy, nodes, and, if there are several, where the frames of 4 KiB are by the kernel's word. NULL: no memory. Any
 * thread. */
json_t *placement_json(const struct vm *vm)
{
	const struct numa_topology *t = &vm->topology;
	const char *pool = (char *)vm->mon + ((vm->pool.n - vm->mon_first.n) << 12);
	struct numa_topology now;
	bool read = !numa_topology_read(&now);
	json_t *o = json_pack("{ss s[] s[] so so so so}", "policy", numa_policy_name(vm->config->numa.policy), "nodes", "vcpus",
			      "vnuma", vnuma_json(vm),
			      "guest_frames", nodes_of(vm, vm->ram, vm->ram_frames),
			      "monitor_frames", nodes_of(vm, vm->mon, vm->mon_frames),
			      "shadow_pool_frames", nodes_of(vm, pool, vm->pool_pages));

	for (unsigned i = 0; o && t->nr_nodes && i <= t->highest; i++)
		if (t->node[i].exists)
			json_array_append_new(json_object_get(o, "nodes"), node_json(t, read ? &now : NULL, i));
	for (unsigned i = 0; o && i < vm->nr_vcpus; i++)
		json_array_append_new(json_object_get(o, "vcpus"), vcpu_json(vm, i));
	if (o)
		json_object_set_new(o, "mover", mover_json(vm));
	return o;
}
