/*
 * xen_vnuma.c - XENMEM_get_vnumainfo (xen/memory.h): a PV guest asks which NUMA nodes it has.
 *
 * Linux's PV kernels do not ask: xen_arch_setup() switches NUMA off. Others do.
 */
#include <errno.h>

#include "vmm/vm.h"

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
