/*
 * xen_time.c - the guest's clock, its timers, and the account of where its time went.
 *
 * System time is ns since the guest started and comes from the TSC by the very formula that the guest uses (struct
 * vcpu_time_info), so that a deadline it names means the same here. With a constant TSC the anchor never moves and the
 * guest may read the clock in user mode (XEN_PVCLOCK_TSC_STABLE_BIT). Else the TSC is measured against CLOCK_MONOTONIC and
 * the formula follows it every second, by rate: time never goes back, nor does a deadline come early.
 *
 * A running vCPU is interrupted by a POSIX timer that signals its thread; a blocked one sleeps in ppoll() with a
 * timeout (xen_sched.c). The POSIX timer is left alone while it will fire no later than needed: guests push deadlines
 * forward all the time, and one exit too many is cheaper than a system call for each.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "vmm/xen_clock.h"

#define NS_PER_S	1000000000ull
#define TICK_NS		10000000ull	/* PV guests start with a 100 Hz ticker (xen/arch/x86/pv/domain.c) */
#define ANCHOR_NS	NS_PER_S	/* how often an unstable clock is anchored anew */
#define CATCH_UP_NS	(NS_PER_S / 10)	/* an error up to this is made good in one period, a larger lag by a jump */
#define STALE_SHIFT	50		/* a deadline 2^50 ns away is a guest's overflow (Xen: do_set_timer_op) */
/* By how much a timer may be early, as a shift: CLOCK_MONOTONIC may be slewed by 500 ppm (adjtimex(2)), and an unstable
 * clock of ours runs up to CATCH_UP_NS in ANCHOR_NS beside it. */
#define SLEW_SHIFT	10
#define UNSTABLE_SHIFT	3

/* ---- the clock ------------------------------------------------------------------------------------------------ */

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static uint64_t host_now(const struct vm *vm)
{
	return monotonic_ns() - vm->start_ns;
}

static bool clock_stable(const struct vm *vm)
{
	return vm->host.tsc_constant && vm->tsc_khz;
}

/* Other processors see our stores in program order (SDM vol. 3A, 8.2.2): the compiler has to keep it, too. */
static void store_order(void)
{
	atomic_signal_fence(memory_order_seq_cst);
}

/* Writes a time area in the order its version demands: odd, contents, even. */
static void store_time(struct vcpu_time_info *to, struct vcpu_time_info t)
{
	__atomic_store_n(&to->version, t.version | 1, __ATOMIC_SEQ_CST);
	store_order();
	memcpy(&to->tsc_timestamp, &t.tsc_timestamp, sizeof t - offsetof(struct vcpu_time_info, tsc_timestamp));
	__atomic_store_n(&to->version, t.version, __ATOMIC_SEQ_CST);
}

/* The formula in force. */
struct anchor {
	uint64_t tsc, ns;
	struct time_scale scale;
	uint32_t seq;
};

static struct anchor clock_anchor(const struct vm *vm)
{
	struct anchor a;

	if (clock_stable(vm))
		return (struct anchor){ .tsc = vm->tsc_start, .scale = time_scale_from_khz(vm->tsc_khz) };
	do {
		a.seq = atomic_load(&vm->clock.seq);
		a.tsc = vm->clock.tsc;
		a.ns = vm->clock.ns;
		a.scale = (struct time_scale){ .mul = vm->clock.mul, .shift = vm->clock.shift };
		atomic_thread_fence(memory_order_acquire);
	} while (a.seq & 1 || a.seq != atomic_load(&vm->clock.seq));
	return a;
}

static uint64_t anchor_ns(const struct anchor *a, uint64_t tsc)
{
	return a->ns + (tsc > a->tsc ? time_scale_ns(a->scale, tsc - a->tsc) : 0);
}

uint64_t vm_now(const struct vm *vm)
{
	struct anchor a = clock_anchor(vm);

	return anchor_ns(&a, __rdtsc());
}

/* Anchors an unstable clock: it goes on from where it is, at a rate that meets CLOCK_MONOTONIC again in ANCHOR_NS. */
static void clock_follow(struct vm *vm, bool first)
{
	struct anchor old = clock_anchor(vm);
	uint64_t host = host_now(vm), tsc = __rdtsc(), ns = first ? host : anchor_ns(&old, tsc);
	uint64_t khz = vm->tsc_khz ? vm->tsc_khz : NS_PER_S / 1000;
	int64_t lag = host - ns;
	struct time_scale s;

	if (lag > (int64_t)CATCH_UP_NS) {	/* the host stood still, or the TSC did: nothing to measure */
		ns = host;
		lag = 0;
	} else if (!first && tsc > old.tsc && host > vm->clock.host_ns) {
		khz = (unsigned __int128)(tsc - old.tsc) * 1000000 / (host - vm->clock.host_ns);
	}
	if (lag < -(int64_t)CATCH_UP_NS)
		lag = -(int64_t)CATCH_UP_NS;
	khz = (unsigned __int128)khz * ANCHOR_NS / (ANCHOR_NS + lag);
	s = time_scale_from_khz(khz ? khz : 1);

	atomic_store(&vm->clock.seq, old.seq + 1);
	atomic_thread_fence(memory_order_release);
	vm->clock.tsc = tsc;
	vm->clock.ns = ns;
	__atomic_store_n(&vm->clock.host_ns, host, __ATOMIC_RELAXED);
	vm->clock.mul = s.mul;
	vm->clock.shift = s.shift;
	atomic_store(&vm->clock.seq, old.seq + 2);
}

static bool clock_is_old(const struct vm *vm)
{
	return (int64_t)(host_now(vm) - __atomic_load_n(&vm->clock.host_ns, __ATOMIC_RELAXED)) >= (int64_t)ANCHOR_NS;
}

void xen_time_publish_info(struct vcpu *v)
{
	struct anchor a = clock_anchor(v->vm);

	v->time_anchor = a.seq;
	v->time = (struct vcpu_time_info){
		.version = (v->time.version + 2) & ~1u,
		.tsc_timestamp = a.tsc,
		.system_time = a.ns,
		.tsc_to_system_mul = a.scale.mul,
		.tsc_shift = a.scale.shift,
		.flags = clock_stable(v->vm) ? XEN_PVCLOCK_TSC_STABLE_BIT : 0,
	};
	store_time(&atomic_load(&v->info)->time, v->time);
}

void xen_time_publish(struct vcpu *v)
{
	uint32_t odd;

	xen_time_publish_info(v);
	if (!v->time_va.a)
		return;
	/* Guest memory by address: may fail at any time, then the guest has only itself to blame. */
	odd = v->time.version - 1;
	if (guest_write(v, v->time_va.a, &odd, sizeof odd) == 0) {
		store_order();
		guest_write(v, v->time_va.a + 4, (char *)&v->time + 4, sizeof v->time - 4);
		store_order();
		guest_write(v, v->time_va.a, &v->time.version, 4);
	}
}

int xen_time_set_area(struct vcpu *v, uint64_t va)
{
	struct vcpu_time_info probe = { 0 };

	if (va && guest_write(v, va, &probe, sizeof probe))
		return -EFAULT;
	v->time_va = (gva_t){ va };
	xen_time_publish(v);
	return 0;
}

/* Wall clock at system time 0. */
static void publish_wallclock(struct vm *vm)
{
	struct shared_info *s = vm->shared;
	struct timespec t;
	uint64_t ns;

	clock_gettime(CLOCK_REALTIME, &t);
	ns = t.tv_sec * NS_PER_S + t.tv_nsec - vm_now(vm);
	__atomic_store_n(&s->wc_version, s->wc_version | 1, __ATOMIC_SEQ_CST);
	s->wc_sec = ns / NS_PER_S;
	s->wc_sec_hi = ns / NS_PER_S >> 32;
	s->wc_nsec = ns % NS_PER_S;
	__atomic_store_n(&s->wc_version, s->wc_version + 1, __ATOMIC_SEQ_CST);
}

void xen_time_init(struct vcpu *v)
{
	struct vm *vm = v->vm;

	if (v->id == 0) {
		if (!vm->tsc_khz) {
			int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

			vm->tsc_khz = khz > 0 ? khz : 0;
		}
		if (!clock_stable(vm))
			clock_follow(vm, true);
		publish_wallclock(vm);
	}
	v->period = TICK_NS;
	v->next_period = vm_now(vm) + TICK_NS;
	v->runstate = (struct vcpu_runstate_info){
		.state = v->id ? RUNSTATE_offline : RUNSTATE_running, .state_entry_time = vm_now(vm) };
	xen_time_publish(v);
}

/* ---- timers --------------------------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

uint64_t xen_next_deadline(const struct vcpu *v)
{
	uint64_t next = earlier(earlier(v->deadline, v->poll_deadline), v->recheck);

	/* The ticker neither wakes a vCPU that blocks (Xen: only running vCPUs get it) nor runs for nobody. */
	if (v->period && !atomic_load(&v->blocked) && evtchn_virq_bound((struct vcpu *)v, VIRQ_TIMER))
		next = earlier(next, v->next_period);
	return next;
}

void xen_timer_expired(struct vcpu *v)
{
	bool fire = false;
	uint64_t now;

	if (!v->deadline && !v->period && !v->recheck && clock_stable(v->vm))
		return;
	now = vm_now(v->vm);
	if (v->recheck <= now)
		v->recheck = 0;
	if (v->deadline && v->deadline <= now) {
		v->deadline = 0;
		fire = true;
	}
	if (v->period && v->next_period <= now) {
		v->next_period += (now - v->next_period) / v->period * v->period + v->period;
		fire = true;
	}
	if (fire)
		evtchn_raise_virq(v, VIRQ_TIMER);
	if (clock_stable(v->vm))
		return;
	if (clock_is_old(v->vm) && !atomic_flag_test_and_set(&v->vm->clock_lock)) {
		if (clock_is_old(v->vm))
			clock_follow(v->vm, false);
		atomic_flag_clear(&v->vm->clock_lock);
	}
	if (v->time_anchor != atomic_load(&v->vm->clock.seq))
		xen_time_publish(v);
}

static bool make_timer(struct vcpu *v)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };

	ev._sigev_un._tid = v->tid;
	if (timer_create(CLOCK_MONOTONIC, &ev, &v->timer)) {
		vm_stop(v->vm, VMM_EXIT_ERROR, "no timer for vCPU %u: %s; raise the limit of signals (ulimit -i)",
			v->id, strerror(errno));
		return false;
	}
	v->timer_made = true;
	return true;
}

void xen_timer_arm(struct vcpu *v)
{
	uint64_t next = xen_next_deadline(v), now, left;
	struct itimerspec it = { 0 };

	if (!next)
		return;
	now = vm_now(v->vm);
	if (v->armed > now && v->armed <= next)
		return;
	if (!v->timer_made && !make_timer(v))
		return;
	left = next > now ? next - now : 1;
	/* Until then it cannot have fired. */
	v->armed = next - (left >> (clock_stable(v->vm) ? SLEW_SHIFT : UNSTABLE_SHIFT));
	it.it_value.tv_sec = left / NS_PER_S;
	it.it_value.tv_nsec = left % NS_PER_S;
	timer_settime(v->timer, 0, &it, NULL);
}

void xen_timer_set(struct vcpu *v, uint64_t ns)
{
	v->deadline = ns;
	xen_timer_expired(v);
}

void xen_timer_set_period(struct vcpu *v, uint64_t ns)
{
	v->period = ns;
	v->next_period = vm_now(v->vm) + ns;
}

/* set_timer_op(deadline): 0 stops the timer. */
long xen_set_timer_op(struct vcpu *v, const uint64_t a[6])
{
	uint64_t at = a[0], now = vm_now(v->vm);

	if (at && ((int64_t)at < 0 || (at > now && (at - now) >> STALE_SHIFT)))
		at = now + NS_PER_S / 10;
	xen_timer_set(v, at);
	return 0;
}

/* ---- runstate ------------------------------------------------------------------------------------------------- */

/* v->lock. */
static struct vcpu_runstate_info runstate_now(const struct vcpu *v)
{
	struct vcpu_runstate_info r = v->runstate;
	uint64_t now = vm_now(v->vm);

	if (now > r.state_entry_time)
		r.time[r.state] += now - r.state_entry_time;
	r.state_entry_time = now;
	return r;
}

/* Through the address space of `by`: the vCPU itself, or who registers the area for it. v->lock. */
static int publish_runstate(struct vcpu *by, struct vcpu *v)
{
	const uint64_t at = v->runstate_va.a + offsetof(struct vcpu_runstate_info, state_entry_time);
	struct vcpu_runstate_info r = v->runstate;

	if (!(atomic_load(&v->vm->vm_assist) & 1u << VMASST_TYPE_runstate_update_flag))
		return guest_write(by, v->runstate_va.a, &r, sizeof r);
	r.state_entry_time |= XEN_RUNSTATE_UPDATE;
	if (guest_write(by, at, &r.state_entry_time, sizeof r.state_entry_time))
		return -EFAULT;
	store_order();
	if (guest_write(by, v->runstate_va.a, &r, sizeof r))
		return -EFAULT;
	store_order();
	r.state_entry_time &= ~XEN_RUNSTATE_UPDATE;
	return guest_write(by, at, &r.state_entry_time, sizeof r.state_entry_time);
}

void xen_runstate(struct vcpu *v, int state)
{
	vm_lock(&v->lock, &v->counters.vcpu.vcpu_waits);
	v->runstate = runstate_now(v);
	v->runstate.state = state;
	if (v->runstate_va.a)
		publish_runstate(v, v);
	pthread_mutex_unlock(&v->lock);
}

int xen_runstate_set_area(struct vcpu *by, struct vcpu *o, uint64_t va)
{
	gva_t old;
	int r = 0;

	vm_lock(&o->lock, &by->counters.vcpu.vcpu_waits);
	old = o->runstate_va;
	o->runstate_va = (gva_t){ va };
	if (va && publish_runstate(by, o)) {
		o->runstate_va = old;
		r = -EFAULT;
	}
	pthread_mutex_unlock(&o->lock);
	return r;
}

struct vcpu_runstate_info xen_runstate_get(struct vcpu *o)
{
	struct vcpu_runstate_info now;

	pthread_mutex_lock(&o->lock);
	now = runstate_now(o);
	now.state_entry_time = o->runstate.state_entry_time;
	pthread_mutex_unlock(&o->lock);
	return now;
}
