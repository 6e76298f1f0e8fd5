/* xen_vcpu.c - vcpu_op: a vCPU's state, timers and shared memory areas (xen/vcpu.h; as xen/common/domain.c). */
#include <errno.h>

#include "vmm/xen_clock.h"

#define PERIOD_MIN_NS	1000000ull		/* Xen: MILLISECS(1) */
#define PERIOD_MAX_NS	(1ull << 50)		/* ... STIME_DELTA_MAX is of this order */

/*
 * Moves `o`'s vcpu_info to a frame of the guest's choice, once. What was pending stays so: after the move every
 * selector is set, so an event raised through the old address meanwhile is found too (xen_evtchn.c).
 */
static long register_vcpu_info(struct vcpu *v, struct vcpu *o, const struct vcpu_register_vcpu_info *a)
{
	struct vm *vm = o->vm;
	struct vcpu_info *old = atomic_load(&o->info), *new;

	if (a->offset > 4096 - sizeof *new || a->offset % _Alignof(struct vcpu_info))
		return -ENXIO;
	if (old != &vm->shared->vcpu_info[o->id % XEN_LEGACY_MAX_VCPUS])
		return -EINVAL;
	if (a->mfn >= vm->ram_frames)
		return -EINVAL;
	if (vm->paging->keep_writable(v, (gfn_t){ a->mfn }))
		return -EINVAL;
	new = guest_phys(vm, (a->mfn << 12) + a->offset, sizeof *new);
	if (!new)
		return -EINVAL;
	/* All but what other threads write: that is set below. */
	new->evtchn_upcall_mask = old->evtchn_upcall_mask;
	new->arch = old->arch;
	mmu_mark_dirty(vm->mmu, (gfn_t){ a->mfn });
	atomic_store(&o->info, new);
	shim_set_info(o, new);
	xen_time_publish_info(o);
	__atomic_store_n(&new->evtchn_pending_sel, ~0ul, __ATOMIC_SEQ_CST);
	__atomic_store_n(&new->evtchn_upcall_pending, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static long set_singleshot(struct vcpu *v, uint64_t arg)
{
	struct vcpu_set_singleshot_timer a;

	if (guest_get(v, arg, &a))
		return -EFAULT;
	if (a.flags & VCPU_SSHOTTMR_future && a.timeout_abs_ns < vm_now(v->vm))
		return -ETIME;
	/* 0 is a time in the past, not 'none' as for set_timer_op. */
	xen_timer_set(v, a.timeout_abs_ns ? a.timeout_abs_ns : 1);
	return 0;
}

static long set_periodic(struct vcpu *v, uint64_t arg)
{
	struct vcpu_set_periodic_timer a;

	if (guest_get(v, arg, &a))
		return -EFAULT;
	if (a.period_ns < PERIOD_MIN_NS || a.period_ns > PERIOD_MAX_NS)
		return -EINVAL;
	xen_timer_set_period(v, a.period_ns);
	return 0;
}

/* What a vCPU may ask only about itself: the state belongs to its thread. */
static long vcpu_op_self(struct vcpu *v, unsigned op, uint64_t arg)
{
	struct vcpu_register_time_memory_area time;

	switch (op) {
	case VCPUOP_down:
		return xen_vcpu_down(v);
	case VCPUOP_set_periodic_timer:
		return set_periodic(v, arg);
	case VCPUOP_stop_periodic_timer:
		xen_timer_set_period(v, 0);
		return 0;
	case VCPUOP_set_singleshot_timer:
		return set_singleshot(v, arg);
	case VCPUOP_stop_singleshot_timer:
		xen_timer_set(v, 0);
		return 0;
	case VCPUOP_register_vcpu_time_memory_area:
		return guest_get(v, arg, &time) ? -EFAULT : xen_time_set_area(v, time.addr.p);
	case VCPUOP_get_physid:
		return -EINVAL;		/* for pinned vCPUs only */
	default:
		return -ENOSYS;
	}
}

/* What a vCPU may ask about any, itself included. */
static long vcpu_op_any(struct vcpu *v, struct vcpu *o, unsigned op, uint64_t arg)
{
	struct vcpu_register_runstate_memory_area area;
	struct vcpu_register_vcpu_info info;
	struct vcpu_runstate_info now;

	switch (op) {
	case VCPUOP_initialise:
		return xen_vcpu_initialise(v, o, arg);
	case VCPUOP_up:
		return xen_vcpu_up(o);
	case VCPUOP_is_up:
		return atomic_load(&o->up);
	case VCPUOP_get_runstate_info:
		now = xen_runstate_get(o);
		return guest_put(v, arg, &now);
	case VCPUOP_register_runstate_memory_area:
		return guest_get(v, arg, &area) ? -EFAULT : xen_runstate_set_area(v, o, area.addr.p);
	case VCPUOP_register_vcpu_info:
		if (o != v && atomic_load(&o->up))
			return -EINVAL;
		return guest_get(v, arg, &info) ? -EFAULT : register_vcpu_info(v, o, &info);
	default:
		return o == v ? vcpu_op_self(v, op, arg) : -EINVAL;
	}
}

/* vcpu_op(op, vcpu, arg). */
long xen_vcpu_op(struct vcpu *v, const uint64_t a[6])
{
	uint64_t op = a[0], id = (uint32_t)a[1];

	if (id >= v->vm->nr_vcpus)
		return -ENOENT;
	if (op > VCPUOP_register_vcpu_time_memory_area)
		return -ENOSYS;
	return vcpu_op_any(v, &v->vm->vcpus[id], op, a[2]);
}
