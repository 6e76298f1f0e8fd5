/*
 * placement_json.c - where the VM's memory and vCPUs are: by the kernel's word, for reports and the control socket.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/stats.h"

#define BATCH	512u

/* Pages of 4 KiB by the host's node numbers. */
struct census {
	uint64_t on[NUMA_MAX_NODES], absent;
};

/* Adds what is at `at`, by the kernel's word; where the nodes are made up, what is there is on `fake`. 0 or -errno. */
static int count(const struct vm *vm, const void *at, uint64_t frames, unsigned fake, struct census *c)
{
	uint64_t pages[NUMA_MAX_NODES], absent;
	int r = numa_census(at, frames << 12, pages, &absent);

	if (r)
		return r;
	c->absent += absent;
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++)
		c->on[vm->topology.fake ? fake : i] += pages[i];
	return 0;
}

/* Each guest frame where it stands now; of one with copies, the master. */
static int count_frames(const struct vm *vm, struct census *c)
{
	uint64_t gfns[BATCH];
	uint8_t places[BATCH];

	if (!vm->mover)
		return count(vm, vm->ram, vm->ram_frames, vm->place[0], c);
	for (uint64_t at = 0; at < vm->ram_frames; at += BATCH) {	/* a multiple of it */
		for (unsigned i = 0; i < BATCH; i++)
			gfns[i] = at + i;
		placement_nodes(vm, gfns, BATCH, places);
		for (unsigned i = 0; i < BATCH; i++) {
			if (places[i] < vm->nr_places)
				c->on[vm->place[places[i]]]++;
			else
				c->absent++;
		}
	}
	return 0;
}

/* All memory that frames stand on, or stood on and have not given back: in their homes and in the slots of nodes. */
static int count_copies(const struct vm *vm, const struct census *masters, struct census *c)
{
	int r = count(vm, vm->ram, vm->ram_frames, vm->place[0], c);

	for (unsigned i = 0; !r && i < vm->nr_places; i++)
		r = count(vm, vm->place_hva[i], vm->ram_frames, vm->place[i], c);
	c->absent = 0;
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++)	/* not at one moment */
		c->on[i] -= c->on[i] < masters->on[i] ? c->on[i] : masters->on[i];
	return r;
}

static int count_pool(const struct vm *vm, struct census *c)
{
	uint32_t frames;
	mfn_t first;
	int r = 0;

	for (unsigned i = 0; !r && i < (vm->topology.fake ? vm->nr_places : 1); i++) {
		first = vm->pool;
		frames = vm->pool_pages;
		if (vm->topology.fake)
			mmu_pool_part(vm->mmu, i, &first, &frames);
		r = count(vm, (char *)vm->mon + ((first.n - vm->mon_first.n) << 12), frames, vm->place[i], c);
	}
	return r;
}

static json_t *census_json(const struct vm *vm, const struct census *c)
{
	json_t *o = json_pack("{sI s{}}", "not_allocated", (json_int_t)c->absent, "by_node");

	for (unsigned i = 0; o && i <= vm->topology.highest; i++) {
		char id[8];

		snprintf(id, sizeof id, "%u", i);
		if (vm->topology.node[i].exists)
			json_object_set_new(json_object_get(o, "by_node"), id, json_integer(c->on[i]));
	}
	return o;
}

/* Null members where there is one node: the answer is not worth a look at every page. */
static int add_memory(const struct vm *vm, json_t *to)
{
	struct census guest = { 0 }, copies = { 0 }, monitor = { 0 }, pool = { 0 };
	bool several = vm->topology.nr_nodes > 1;
	bool frames = several && !count_frames(vm, &guest);
	bool more = frames && vm->mover && !count_copies(vm, &guest, &copies);
	bool mon = several && !count(vm, vm->mon, vm->mon_frames, vm->place[0], &monitor);
	bool tables = several && !count_pool(vm, &pool);

	for (unsigned i = 0; vm->topology.fake && mon && tables && i < NUMA_MAX_NODES; i++) {	/* the tables are dealt out */
		monitor.on[i] += pool.on[i];
		monitor.on[vm->place[0]] -= pool.on[i];
	}
	return json_object_update_new(to, json_pack("{so so so so}", "guest_frames", frames ? census_json(vm, &guest) : json_null(),
						    "guest_copies", more ? census_json(vm, &copies) : json_null(), "monitor_frames",
						    mon ? census_json(vm, &monitor) : json_null(), "shadow_pool_frames",
						    tables ? census_json(vm, &pool) : json_null()));
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
	const struct vcpu *v = &vm->vcpus[id];
	uint64_t local, remote;
	pid_t tid = v->tid;
	int cpu = processor_of(tid), node = node_of_processor(&vm->topology, cpu);
	char text[256];
	json_t *o;

	/* Made-up nodes may share processors: then the vCPU's own word. */
	if (vm->topology.fake && vm->nr_places > 1)
		node = vm->place[atomic_load(&v->place)];
	o = json_pack("{sI so so ss}", "vcpu", (json_int_t)id, "cpu", known(cpu), "node", known(node), "may_run_on",
		      affinity_of(tid, text, sizeof text));
	if (!vm->numa)
		return o;
	numa_manager_vcpu(vm->numa, id, &local, &remote);
	json_object_set_new(o, "samples_local", json_integer(local));
	json_object_set_new(o, "samples_remote", json_integer(remote));
	return o;
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

/* "0,2-3"; null: any. */
static json_t *mask_json(uint64_t mask)
{
	char text[256] = "";
	size_t n = 0;

	if (!mask || mask == ~0ull)
		return mask ? json_string("all") : json_null();
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++)
		if (mask >> i & 1)
			n += snprintf(text + n, sizeof text - n, n ? ",%u" : "%u", i);
	return json_string(text);
}

/* Policy, nodes, and, if there are several, where the frames of 4 KiB are by the kernel's word. NULL: no memory. Any
 * thread. */
json_t *placement_json(const struct vm *vm)
{
	const struct numa_topology *t = &vm->topology;
	struct numa_config c = vm->placed;
	struct numa_topology now;
	bool read = !t->fake && !numa_topology_read(&now);
	json_t *o;

	if (vm->numa)
		numa_manager_config(vm->numa, &c);
	o = json_pack("{ss so so so sb s[] s[] so so so}", "policy", numa_policy_name(c.policy), "membind", mask_json(c.membind),
		      "preferred", known(c.policy ? c.preferred : -1), "cpunodebind", mask_json(c.cpunodebind), "made_up", t->fake, "nodes",
		      "vcpus", "vnuma", vnuma_json(vm), "manager", numa_manager_json(vm),
		      "mover", mover_json(vm));
	if (!o || add_memory(vm, o)) {
		json_decref(o);
		return NULL;
	}
	for (unsigned i = 0; t->nr_nodes && i <= t->highest; i++)
		if (t->node[i].exists)
			json_array_append_new(json_object_get(o, "nodes"), node_json(t, read ? &now : NULL, i));
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		json_array_append_new(json_object_get(o, "vcpus"), vcpu_json(vm, i));
	return o;
}
