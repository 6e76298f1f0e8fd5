/*
 * xen_clock.h - between the files that implement the PV ABI's time, events and scheduling. Not for others.
 */
#ifndef UMBRA_VMM_XEN_CLOCK_H
#define UMBRA_VMM_XEN_CLOCK_H

#include "vmm/vm.h"

/* ---- time_scale.c. Any thread --------------------------------------------------------------------------------- */

/* TSC ticks to ns as the guest computes it: ns = ((ticks << shift) * mul) >> 32, shift right if negative. */
struct time_scale {
	uint32_t mul;
	int8_t shift;
};
/* khz > 0. */
struct time_scale time_scale_from_khz(uint64_t khz);
uint64_t time_scale_ns(struct time_scale s, uint64_t ticks);

/* ---- xen_time.c. All on the vCPU's own thread, or before it exists -------------------------------------------- */

/* The single-shot timer fires at `ns` (system time; past: at once). 0: stopped. */
void xen_timer_set(struct vcpu *v, uint64_t ns);
/* The periodic timer, in ns. 0: stopped. */
void xen_timer_set_period(struct vcpu *v, uint64_t ns);
/* The guest's copies of time and runstate are brought up to date; 0 or -EFAULT. */
int xen_time_set_area(struct vcpu *v, uint64_t va);
/* For `o`, by `by` in whose address space `va` is checked. */
int xen_runstate_set_area(struct vcpu *by, struct vcpu *o, uint64_t va);
/* o->runstate with the time since the last change added to the current state. */
struct vcpu_runstate_info xen_runstate_get(struct vcpu *o);

/* ---- xen_evtchn.c --------------------------------------------------------------------------------------------- */

/* Between begin and end an event that becomes pending on `port` wakes `v`, masked or not; 0: on any port. On its own thread. */
void evtchn_poll_begin(struct vcpu *v, unsigned port);
void evtchn_poll_end(struct vcpu *v);
/* `v` polls one port, and its event has come. */
bool evtchn_polled(struct vcpu *v);
/* 1, 0, or -EINVAL. */
int evtchn_port_pending(struct vm *vm, unsigned port);
bool evtchn_virq_bound(struct vcpu *v, unsigned virq);

/* ---- xen_sched.c ---------------------------------------------------------------------------------------------- */

/* Ends the run for a SHUTDOWN_* reason; what the hypercall returns. On the thread of `v`. */
long xen_shutdown(struct vcpu *v, unsigned reason);

#endif
