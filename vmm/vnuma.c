/*
 * vnuma.c - the layout of virtual NUMA nodes: which frames and vCPUs are on which node of the host. xen_vnuma.c tells the guest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vm.h"
#include "vmm/vnuma.h"

#define GRAIN	512u		/* frames: no large page belongs to two nodes */
#define LOCAL	10u		/* of a SLIT (ACPI 5.2.17) */
#define REMOTE	20u

static int refuse(const struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int refuse(const struct vm *vm, const char *fmt, ...)
{
	va_list ap;

	fputs("umbra: --vnuma: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return -EINVAL;
}

/* The nth node of the host that has memory, counted round and round. */
static unsigned host_node(const struct numa_topology *t, unsigned nth)
{
	uint64_t left = t->with_memory;

	for (nth %= __builtin_popcountll(left); nth; nth--)
		left &= left - 1;
	return __builtin_ctzll(left);
}

static int lay_out(struct vm *vm, unsigned n)
{
	struct vnuma *u = &vm->vnuma;
	uint64_t grains = vm->ram_frames / GRAIN;

	if (n > grains)
		return refuse(vm, "%u nodes of at least 2 MiB each need %uM of memory", n, 2 * n);
	u->nr_vnodes = n;
	for (unsigned i = 0; i < n; i++) {
		u->first[i] = grains * i / n * GRAIN;
		u->host[i] = host_node(&vm->topology, i);
	}
	u->first[n] = vm->ram_frames;
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		u->vnode[i] = i * n / vm->nr_vcpus;
	return 0;
}

/* A vnode's memory comes from its node and from no other: a guest that was told so would rather be short of it. */
static int bind(struct vm *vm)
{
	struct numa_config c = { .policy = numa_policy_find("bind"), .preferred = -1 };
	const struct vnuma *u = &vm->vnuma;
	int r = 0;

	for (unsigned i = 0; !r && i < u->nr_vnodes; i++) {
		c.membind = 1ull << u->host[i];
		r = numa_place(&c, &vm->topology, (char *)vm->ram + (u->first[i] << 12), (u->first[i + 1] - u->first[i]) << 12,
			       false);
		if (r)
			refuse(vm, "the kernel does not bind memory to node %u: %s", u->host[i], strerror(-r));
	}
	return r;
}

int vnuma_start(struct vm *vm)
{
	const struct vmm_config *c = vm->config;
	unsigned nodes;
	int r;

	if (!c->vnuma)
		return 0;
	if (!vm->topology.nr_nodes)
		return refuse(vm, "the host's NUMA nodes cannot be read; leave it out");
	nodes = __builtin_popcountll(vm->topology.with_memory);
	r = lay_out(vm, c->vnuma == VMM_VNUMA_HOST ? nodes : c->vnuma);
	if (r)
		return r;
	if (nodes < 2 && !c->quiet)
		fprintf(stderr, "umbra: --vnuma: this host has one NUMA node, so all of the guest's are there\n");
	return bind(vm);
}

unsigned vnuma_distance(const struct vm *vm, unsigned from, unsigned to)
{
	unsigned a = vm->vnuma.host[from], b = vm->vnuma.host[to], known = vm->topology.node[a].distance[b];

	return from == to ? LOCAL : known ? known : a == b ? LOCAL : REMOTE;
}

/* A node with memory alone: that with processors which is nearest to it. */
bool vnuma_cpus(const struct vm *vm, unsigned vcpu, cpu_set_t *cpus)
{
	const struct vnuma *u = &vm->vnuma;
	const struct numa_topology *t = &vm->topology;
	unsigned home, best = 0, distance = ~0u;

	if (!u->nr_vnodes || t->nr_nodes < 2)
		return false;
	home = u->host[u->vnode[vcpu]];
	for (unsigned i = 0; i <= t->highest; i++) {
		if (!t->node[i].nr_cpus || t->node[home].distance[i] >= distance)
			continue;
		best = i;
		distance = t->node[home].distance[i];
	}
	*cpus = t->node[best].cpus;
	return distance != ~0u;
}

json_t *vnuma_json(const struct vm *vm)
{
	const struct vnuma *u = &vm->vnuma;
	json_t *list = u->nr_vnodes ? json_array() : json_null();

	for (unsigned i = 0; i < u->nr_vnodes; i++) {
		json_t *vcpus = json_array(), *distances = json_array();

		for (unsigned k = 0; k < vm->nr_vcpus; k++)
			if (u->vnode[k] == i)
				json_array_append_new(vcpus, json_integer(k));
		for (unsigned k = 0; k < u->nr_vnodes; k++)
			json_array_append_new(distances, json_integer(vnuma_distance(vm, i, k)));
		json_array_append_new(list, json_pack("{sI sI sI sI so so}", "vnode", (json_int_t)i, "node", (json_int_t)u->host[i],
						      "first_frame", (json_int_t)u->first[i], "frames",
						      (json_int_t)(u->first[i + 1] - u->first[i]), "vcpus", vcpus, "distance",
						      distances));
	}
	return list;
}
