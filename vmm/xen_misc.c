/* xen_misc.c - the small hypercalls: version, memory map, console_io, physdev, vm_assist. */
#include <errno.h>
#include <string.h>

#include "vmm/vm.h"

#define XEN_VERSION	(4u << 16 | 17)

/* Features as bits of submap 0 (xen/features.h). Linux dies before any console without preserve_ad and gnttab_map. */
uint32_t xen_features(const struct vm *vm)
{
	uint32_t f = 1u << XENFEAT_pae_pgdir_above_4gb | 1u << XENFEAT_mmu_pt_update_preserve_ad |
		     1u << XENFEAT_highmem_assist | 1u << XENFEAT_gnttab_map_avail_bits |
		     1u << XENFEAT_writable_descriptor_tables;

	if (vm->config->initdomain)
		f |= 1u << XENFEAT_dom0;
	return f;
}

long xen_version_op(struct vcpu *v, const uint64_t a[6])
{
	xen_extraversion_t extra = ".umbra";
	xen_compile_info_t compile = { .compiler = "cc", .compile_by = "umbra", .compile_domain = "", .compile_date = "" };
	xen_capabilities_info_t caps = "xen-3.0-x86_64";
	xen_changeset_info_t changes = "umbra";
	xen_platform_parameters_t platform = { .virt_start = 0xffff800000000000 };
	xen_feature_info_t features;
	xen_domain_handle_t handle = { 0 };

	switch (a[0]) {
	case XENVER_version:
		return XEN_VERSION;
	case XENVER_extraversion:
		return guest_put(v, a[1], &extra) ? -EFAULT : 0;
	case XENVER_compile_info:
		return guest_put(v, a[1], &compile) ? -EFAULT : 0;
	case XENVER_capabilities:
		return guest_put(v, a[1], &caps) ? -EFAULT : 0;
	case XENVER_changeset:
		return guest_put(v, a[1], &changes) ? -EFAULT : 0;
	case XENVER_platform_parameters:
		return guest_put(v, a[1], &platform) ? -EFAULT : 0;
	case XENVER_get_features:
		if (guest_get(v, a[1], &features))
			return -EFAULT;
		features.submap = features.submap_idx == 0 ? xen_features(v->vm) : 0;
		return guest_put(v, a[1], &features) ? -EFAULT : 0;
	case XENVER_pagesize:
		return 4096;
	case XENVER_guest_handle:
		return guest_put(v, a[1], &handle) ? -EFAULT : 0;
	default:
		return -ENOSYS;
	}
}

struct e820_entry {
	uint64_t addr, size;
	uint32_t type;
} __attribute__((packed));

#define E820_RAM 1

static long memory_map(struct vcpu *v, uint64_t va)
{
	struct xen_memory_map map;
	struct e820_entry ram = { 0, v->vm->ram_frames << 12, E820_RAM };

	if (guest_get(v, va, &map))
		return -EFAULT;
	if (map.nr_entries < 1)
		return -EINVAL;
	map.nr_entries = 1;
	if (guest_put(v, (uint64_t)map.buffer.p, &ram) || guest_put(v, va, &map))
		return -EFAULT;
	return 0;
}

#define MEMOP_EXTENT_SHIFT	6	/* above it: where a call that was cut short goes on (xen/hypercall.h) */

long xen_memory_op(struct vcpu *v, const uint64_t a[6])
{
	struct xen_machphys_mapping m2p = {
		.v_start = M2P_VA,
		.v_end = M2P_VA + (v->vm->nr_gfns * 8 + 4095) / 4096 * 4096,
		.max_mfn = v->vm->nr_gfns - 1,
	};
	uint16_t domid;

	switch (a[0] & ((1u << MEMOP_EXTENT_SHIFT) - 1)) {
	case XENMEM_memory_map:
		return memory_map(v, a[1]);
	case XENMEM_machine_memory_map:
		return v->vm->config->initdomain ? memory_map(v, a[1]) : -EPERM;
	case XENMEM_machphys_mapping:
		return guest_put(v, a[1], &m2p) ? -EFAULT : 0;
	case XENMEM_maximum_ram_page:
		return v->vm->nr_gfns - 1;
	case XENMEM_current_reservation:
	case XENMEM_maximum_reservation:
		if (guest_get(v, a[1], &domid))
			return -EFAULT;
		return domid == DOMID_SELF ? (long)v->vm->ram_frames : -ESRCH;
	case XENMEM_get_vnumainfo:
		return a[0] >> MEMOP_EXTENT_SHIFT ? -EINVAL : xen_get_vnumainfo(v, a[1]);
	default:
		return -ENOSYS;
	}
}

long xen_console_io(struct vcpu *v, const uint64_t a[6])
{
	uint64_t count = (uint32_t)a[1], done = 0;
	char chunk[256];
	size_t n;

	switch (a[0]) {
	case CONSOLEIO_write:
		for (; done < count; done += n) {
			n = count - done < sizeof chunk ? count - done : sizeof chunk;
			if (guest_read(v, a[2] + done, chunk, n))
				return -EFAULT;
			console_write(v->vm, chunk, n);
			if (atomic_load(&v->vm->stop))
				break;
		}
		return 0;
	case CONSOLEIO_read:
		n = console_read(v->vm, chunk, count < sizeof chunk ? count : sizeof chunk);
		return guest_write(v, a[2], chunk, n) ? -EFAULT : (long)n;
	default:
		return -ENOSYS;
	}
}

long xen_physdev_op(struct vcpu *v, const uint64_t a[6])
{
	struct physdev_set_iobitmap map;
	struct physdev_set_iopl iopl;

	switch (a[0]) {
	case PHYSDEVOP_set_iopl:
		if (guest_get(v, a[1], &iopl))
			return -EFAULT;
		if (iopl.iopl > 3)
			return -EINVAL;
		v->iopl = iopl.iopl;
		return 0;
	case PHYSDEVOP_set_iobitmap:
		if (guest_get(v, a[1], &map))
			return -EFAULT;
		if (map.nr_ports > 65536)
			return -EINVAL;
		v->iobmp = (gva_t){ (uintptr_t)map.bitmap.p };
		v->iobmp_ports = map.nr_ports;
		return 0;
	default:
		return -ENOSYS;
	}
}

long xen_vm_assist(struct vcpu *v, const uint64_t a[6])
{
	if (a[1] > 31 || !(XEN_VM_ASSISTS >> a[1] & 1))
		return -EINVAL;
	switch (a[0]) {
	case VMASST_CMD_enable:
		atomic_fetch_or(&v->vm->vm_assist, 1ull << a[1]);
		return 0;
	case VMASST_CMD_disable:
		atomic_fetch_and(&v->vm->vm_assist, ~(1ull << a[1]));
		return 0;
	default:
		return -ENOSYS;
	}
}
