/*
 * vnuma.c - the layout of virtual NUMA nodes, and XENMEM_get_vnumainfo (xen/memory.h), by which a PV guest asks for it.
 *
 * Linux's PV kernels do not ask: xen_arch_setup() switches NUMA off. Others do.
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

/* ---- what the guest asks -------------------------------------------------------------------------------------------- */

/* Guest arrays as big as `info` says, which is enough; -EFAULT: not the guest's to write to. */
static int put_arrays(struct vcpu *v, const struct xen_vnuma_topology_info *info)
{
	const struct vnuma *u = &v->vm->vnuma;
	unsigned n = u->nr_vnodes, row[NUMA_MAX_NODES], vnode[VMM_MAX_VCPUS];
	struct xen_vmemrange range[NUMA_MAX_NODES];

	for (unsigned i = 0; i < n; i++)
		range[i] = (struct xen_vmemrange){ .start = u->first[i] << 12, .end = u->first[i + 1] << 12, .nid = i };
	for (unsigned i = 0; i < v->vm->nr_vcpus; i++)
		vnode[i] = u->vnode[i];
	if (guest_write(v, (uintptr_t)info->vmemrange.h.p, range, n * sizeof *range))
		return -EFAULT;
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < n; k++)
			row[k] = vnuma_distance(v->vm, i, k);
		if (guest_write(v, (uintptr_t)info->vdistance.h.p + i * n * sizeof *row, row, n * sizeof *row))
			return -EFAULT;
	}
	return guest_write(v, (uintptr_t)info->vcpu_to_vnode.h.p, vnode, v->vm->nr_vcpus * sizeof *vnode) ? -EFAULT : 0;
}

/* The order of checks is Xen's (xen/common/memory.c). */
long xen_get_vnumainfo(struct vcpu *v, uint64_t va)
{
	const struct vnuma *u = &v->vm->vnuma;
	struct xen_vnuma_topology_info info;
	bool fits;
	int r;

	if (guest_get(v, va, &info))
		return -EFAULT;
	if (info.pad)
		return -EINVAL;
	if (info.domid != DOMID_SELF)
		return -ESRCH;
	if (!u->nr_vnodes)
		return -EOPNOTSUPP;
	fits = info.nr_vnodes >= u->nr_vnodes && info.nr_vcpus >= v->vm->nr_vcpus && info.nr_vmemranges >= u->nr_vnodes;
	info.nr_vnodes = info.nr_vmemranges = u->nr_vnodes;
	info.nr_vcpus = v->vm->nr_vcpus;
	r = fits ? put_arrays(v, &info) : -ENOBUFS;
	if (r == -EFAULT)
		return r;
	return guest_put(v, va, &info) ? -EFAULT : r;
}
