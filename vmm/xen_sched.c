/* xen_sched.c - giving up the processor: yield, block, poll, and ending the domain (xen/sched.h). */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>
#include <x86intrin.h>

#include "vmm/profile.h"
#include "vmm/xen_clock.h"

#define POLL_PORTS_MAX	128	/* as Xen's do_poll() */
/* A guest that was idle sets its timer first thing, some milliseconds ahead, and is idle again soon. With our own timer set to
 * this the shim may take that deadline without an exit (struct shim_data, armed). */
#define LOOKOUT_NS	1000000u

/* Whether a blocked vCPU has a reason to go on; counts which. Consumes v->wake: the run loop looks at everything anyway. */
static bool has_reason(struct vcpu *v)
{
	bool woken = atomic_exchange(&v->wake, false), event = evtchn_pending(v) || evtchn_polled(v);

	xen_timer_expired(v);
	if (event)
		v->counters.vcpu.woken_event++;
	else if (evtchn_pending(v) || (v->poll_deadline && v->poll_deadline <= vm_now(v->vm)))
		v->counters.vcpu.woken_timer++;
	else if (woken || atomic_load(&v->vm->stop))
		v->counters.vcpu.woken_idle++;
	else
		return false;
	return true;
}

/* Moves frames for others meanwhile, if somebody asks; he writes to wake_fd alone. */
static void serve(struct vcpu *v)
{
	if (!mover_wanted(v))
		return;
	atomic_store(&v->blocked, false);
	shim_owes(v, true);
	mover_serve(v);
	if (vcpu_do_kicks(v))
		shim_owes(v, false);
	atomic_store(&v->blocked, true);
}

/*
 * Sleeps until there is an unmasked event, a deadline that makes one, the end of v->poll_deadline, vcpu_wake() or the
 * end of the VM. May return early. On the vCPU's own thread, which is not in KVM_RUN.
 *
 * No wake-up is lost: vcpu_wake() sets `wake` and then reads `blocked`; here `blocked` is set before `wake` is read.
 */
void vcpu_block(struct vcpu *v)
{
	struct pollfd fd = { .fd = v->wake_fd, .events = POLLIN };
	uint64_t before = __rdtsc(), idle, count;

	v->counters.vcpu.blocks++;
	/* Others may need the tables that wait for a kick of ours (mmu.h). */
	if (v->vm->nr_vcpus > 1 && !vcpu_do_kicks(v))
		return;
	shim_owes(v, false);
	v->recheck = 0;		/* this is a look at events */
	atomic_store(&v->blocked, true);
	if (!has_reason(v)) {
		xen_runstate(v, RUNSTATE_blocked);
		profile_pause(v, true);
		do {
			uint64_t next = xen_next_deadline(v), now = next ? vm_now(v->vm) : 0;
			uint64_t left = next > now ? next - now : 0;
			struct timespec t = { .tv_sec = left / 1000000000, .tv_nsec = left % 1000000000 };

			serve(v);
			if (atomic_load(&v->wake))
				continue;
			/* Readable perhaps from a wake-up that was too late for the block before: then once round. */
			if (ppoll(&fd, 1, next ? &t : NULL, NULL) > 0)
				(void)!read(v->wake_fd, &count, sizeof count);
		} while (!has_reason(v));
		profile_pause(v, false);
		xen_runstate(v, RUNSTATE_running);
	}
	atomic_store(&v->blocked, false);
	if (shim_on(v->vm))
		v->recheck = vm_now(v->vm) + LOOKOUT_NS;
	shim_owes(v, true);
	idle = __rdtsc() - before;
	v->counters.idle_cycles += idle;
	v->exit_tsc += idle;	/* or it would count as the VMM's, too */
}

static long sched_block(struct vcpu *v)
{
	/* Unmasking and blocking are one step to the guest, so an event in between is not slept over. */
	__atomic_store_n(&atomic_load(&v->info)->evtchn_upcall_mask, 0, __ATOMIC_SEQ_CST);
	if (!evtchn_pending(v))
		vcpu_block(v);
	return 0;
}

static long poll_ports(struct vcpu *v, const evtchn_port_t *ports, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int r = evtchn_port_pending(v->vm, ports[i]);

		if (r)
			return r;
	}
	return 0;
}

/* poll(ports, timeout): as block, but for named ports, masked or not. May return early, as Xen's. */
static long sched_poll(struct vcpu *v, uint64_t arg)
{
	evtchn_port_t ports[POLL_PORTS_MAX];
	struct sched_poll p;
	long r;

	if (guest_get(v, arg, &p))
		return -EFAULT;
	if (p.nr_ports > POLL_PORTS_MAX)
		return -EINVAL;
	if (guest_read(v, (uintptr_t)p.ports.p, ports, p.nr_ports * sizeof *ports))
		return -EFAULT;
	evtchn_poll_begin(v, p.nr_ports == 1 ? ports[0] : 0);
	v->counters.vcpu.polls++;
	r = poll_ports(v, ports, p.nr_ports);
	if (r == 0 && !evtchn_pending(v)) {
		v->poll_deadline = p.timeout;
		vcpu_block(v);
		v->poll_deadline = 0;
	}
	evtchn_poll_end(v);
	return r < 0 ? r : 0;
}

long xen_shutdown(struct vcpu *v, unsigned reason)
{
	struct vm *vm = v->vm;

	switch (reason) {
	case SHUTDOWN_poweroff:
		vm_stop(vm, VMM_EXIT_OK, "guest powered off");
		return 0;
	case SHUTDOWN_reboot:
		pthread_mutex_lock(&vm->end_lock);
		if (!atomic_load(&vm->stop))
			vm->reboot = true;
		pthread_mutex_unlock(&vm->end_lock);
		vm_stop(vm, VMM_EXIT_OK, "guest rebooted");
		return 0;
	case SHUTDOWN_suspend:
		return 1;	/* "cancelled": the guest goes on. There is nothing to save it to */
	case SHUTDOWN_crash:
		vcpu_crash(v, "the guest kernel says that it has crashed");
		return 0;
	case SHUTDOWN_watchdog:
		vcpu_crash(v, "the guest's watchdog has expired");
		return 0;
	default:
		return -EINVAL;
	}
}

/* sched_op(op, arg). Watchdog timers, pinning and other domains are -ENOSYS: guests take that for 'not available'. */
long xen_sched_op(struct vcpu *v, const uint64_t a[6])
{
	struct sched_shutdown s;

	switch (a[0]) {
	case SCHEDOP_yield:
		sched_yield();
		return 0;
	case SCHEDOP_block:
		return sched_block(v);
	case SCHEDOP_poll:
		return sched_poll(v, a[1]);
	case SCHEDOP_shutdown:
		return guest_get(v, a[1], &s) ? -EFAULT : xen_shutdown(v, s.reason);
	case SCHEDOP_shutdown_code:	/* names the reason of a later shutdown, which names its own: only checked */
		return guest_get(v, a[1], &s) ? -EFAULT : s.reason > SHUTDOWN_MAX ? -EINVAL : 0;
	default:
		return -ENOSYS;
	}
}

/* The interface before 3.1: the reason of a shutdown is the argument itself. */
long xen_sched_op_compat(struct vcpu *v, const uint64_t a[6])
{
	switch (a[0]) {
	case SCHEDOP_yield:
		sched_yield();
		return 0;
	case SCHEDOP_block:
		return sched_block(v);
	case SCHEDOP_shutdown:
		return xen_shutdown(v, a[1]);
	default:
		return -ENOSYS;
	}
}
