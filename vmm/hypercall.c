/* hypercall.c - the hypercall table, and multicalls. Numbers and arguments: xen/include/public/xen.h. */
#include <errno.h>
#include <stddef.h>

#include "mmu/probe.h"
#include "vmm/vm.h"

struct hypercall {
	const char *name;
	xen_handler_fn *fn;
};

/* What is not here, or has no function, is -ENOSYS; the guests seen cope with that. */
static const struct hypercall table[COUNTERS_HYPERCALLS] = {
	[__HYPERVISOR_set_trap_table] = { "set_trap_table", xen_set_trap_table },
	[__HYPERVISOR_mmu_update] = { "mmu_update", xen_mmu_update },
	[__HYPERVISOR_set_gdt] = { "set_gdt", xen_set_gdt },
	[__HYPERVISOR_stack_switch] = { "stack_switch", xen_stack_switch },
	[__HYPERVISOR_set_callbacks] = { "set_callbacks", xen_set_callbacks },
	[__HYPERVISOR_fpu_taskswitch] = { "fpu_taskswitch", xen_fpu_taskswitch },
	[__HYPERVISOR_sched_op_compat] = { "sched_op_compat", xen_sched_op_compat },
	[__HYPERVISOR_platform_op] = { "platform_op", NULL },
	[__HYPERVISOR_set_debugreg] = { "set_debugreg", xen_set_debugreg },
	[__HYPERVISOR_get_debugreg] = { "get_debugreg", xen_get_debugreg },
	[__HYPERVISOR_update_descriptor] = { "update_descriptor", xen_update_descriptor },
	[__HYPERVISOR_memory_op] = { "memory_op", xen_memory_op },
	[__HYPERVISOR_multicall] = { "multicall", xen_multicall },
	[__HYPERVISOR_update_va_mapping] = { "update_va_mapping", xen_update_va_mapping },
	[__HYPERVISOR_set_timer_op] = { "set_timer_op", xen_set_timer_op },
	[__HYPERVISOR_event_channel_op_compat] = { "event_channel_op_compat", NULL },
	[__HYPERVISOR_xen_version] = { "xen_version", xen_version_op },
	[__HYPERVISOR_console_io] = { "console_io", xen_console_io },
	[__HYPERVISOR_physdev_op_compat] = { "physdev_op_compat", NULL },
	[__HYPERVISOR_grant_table_op] = { "grant_table_op", NULL },
	[__HYPERVISOR_vm_assist] = { "vm_assist", xen_vm_assist },
	[__HYPERVISOR_update_va_mapping_otherdomain] = { "update_va_mapping_otherdomain", NULL },
	[__HYPERVISOR_iret] = { "iret", xen_iret },
	[__HYPERVISOR_vcpu_op] = { "vcpu_op", xen_vcpu_op },
	[__HYPERVISOR_set_segment_base] = { "set_segment_base", xen_set_segment_base },
	[__HYPERVISOR_mmuext_op] = { "mmuext_op", xen_mmuext_op },
	[__HYPERVISOR_xsm_op] = { "xsm_op", NULL },
	[__HYPERVISOR_nmi_op] = { "nmi_op", NULL },
	[__HYPERVISOR_sched_op] = { "sched_op", xen_sched_op },
	[__HYPERVISOR_callback_op] = { "callback_op", xen_callback_op },
	[__HYPERVISOR_xenoprof_op] = { "xenoprof_op", NULL },
	[__HYPERVISOR_event_channel_op] = { "event_channel_op", xen_event_channel_op },
	[__HYPERVISOR_physdev_op] = { "physdev_op", xen_physdev_op },
	[__HYPERVISOR_hvm_op] = { "hvm_op", NULL },
	[__HYPERVISOR_sysctl] = { "sysctl", NULL },
	[__HYPERVISOR_domctl] = { "domctl", NULL },
	[__HYPERVISOR_kexec_op] = { "kexec_op", NULL },
	[__HYPERVISOR_tmem_op] = { "tmem_op", NULL },
	[__HYPERVISOR_argo_op] = { "argo_op", NULL },
	[__HYPERVISOR_xenpmu_op] = { "xenpmu_op", NULL },
	[__HYPERVISOR_dm_op] = { "dm_op", NULL },
};

const char *xen_hypercall_name(unsigned nr)
{
	return nr < COUNTERS_HYPERCALLS ? table[nr].name : NULL;
}

long xen_do_call(struct vcpu *v, unsigned nr, const uint64_t a[6])
{
	long ret;

	if (nr >= COUNTERS_HYPERCALLS)
		return -ENOSYS;
	v->counters.hypercalls[nr]++;
	PROBE(hypercall, v->id, nr, a[0], a[1]);
	ret = table[nr].fn ? table[nr].fn(v, a) : -ENOSYS;
	PROBE(hypercall__done, v->id, nr, ret);
	return ret;
}

void xen_hypercall(struct vcpu *v)
{
	struct kvm_regs *r = &v->regs.r;
	const uint64_t a[6] = { r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9 };
	uint64_t nr = r->rax, ret;

	/* iret replaces every register; its handler's value is the RAX it restored. */
	ret = xen_do_call(v, nr >> 32 ? ~0u : nr, a);
	if (v->restart) {	/* SYSCALL is two bytes; the arguments are as they were */
		v->restart = false;
		r->rip -= 2;
		return;
	}
	v->retries = 0;
	r->rax = ret;
}

/* multicall(list, count): entries may not contain what leaves the calling context. */
long xen_multicall(struct vcpu *v, const uint64_t a[6])
{
	uint64_t list = a[0], count = (uint32_t)a[1];
	struct multicall_entry e;

	for (uint64_t i = shim_multicall_done(v, count); i < count; i++) {
		uint64_t at = list + i * sizeof e;

		if (guest_get(v, at, &e))
			return -EFAULT;
		v->counters.vcpu.multicalls++;
		if (e.op == __HYPERVISOR_multicall)
			e.result = -EINVAL;
		else if (e.op == __HYPERVISOR_iret || e.op >= COUNTERS_HYPERCALLS)
			e.result = -ENOSYS;
		else
			e.result = xen_do_call(v, e.op, e.args);
		if (v->restart)		/* what went before is idempotent */
			return 0;
		if (guest_write(v, at + offsetof(struct multicall_entry, result), &e.result, sizeof e.result))
			return -EFAULT;
		if (atomic_load(&v->vm->stop))
			return -EINTR;
	}
	return 0;
}
