/* test_vmm_sched.c - the guest's clock and timers, blocking and polling, vcpu_op, and how a run ends. */
#include <signal.h>
#include <unistd.h>
#include <x86intrin.h>

#include "tests/unit/fake_vm.h"
#include "vmm/xen_clock.h"

#define ARG	(FAKE_VA + 0x100)
#define AREA	(FAKE_VA + 0x1000)
#define MS	1000000ull

static struct vcpu *v;
static unsigned timer_port;
static _Atomic unsigned signals;

static void on_signal(int sig)
{
	atomic_fetch_add(&signals, 1);
}

static uint64_t host_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* The host's TSC frequency, well enough for timeouts. */
static uint64_t tsc_khz(void)
{
	static uint64_t khz;
	uint64_t ns = host_ns(), tsc = __rdtsc();

	if (!khz) {
		usleep(20000);
		tsc = __rdtsc() - tsc;
		ns = host_ns() - ns;
		khz = tsc * 1000000 / ns;
	}
	return khz;
}

static void start(bool stable)
{
	struct evtchn_bind_virq bind = { .virq = VIRQ_TIMER };

	v = fake_reset();
	fake.vm.tsc_khz = tsc_khz();
	fake.vm.host.tsc_constant = stable;
	fake.vm.tsc_start = __rdtsc();
	fake.vm.start_ns = host_ns();
	pthread_mutex_init(&fake.vm.end_lock, NULL);
	v->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	v->tid = gettid();
	assert_int_equal(evtchn_init(&fake.vm), 0);
	xen_time_init(v);
	memcpy(fake_at(ARG, sizeof bind), &bind, sizeof bind);
	assert_int_equal(xen_event_channel_op(v, (const uint64_t[6]){ EVTCHNOP_bind_virq, ARG }), 0);
	memcpy(&bind, fake_at(ARG, sizeof bind), sizeof bind);
	timer_port = bind.port;
}

static int setup(void **state)
{
	start(true);
	return 0;
}

static int teardown(void **state)
{
	if (v->timer_made)
		timer_delete(v->timer);
	close(v->wake_fd);
	evtchn_fini(&fake.vm);
	return 0;
}

static long vcpu_op(unsigned op, unsigned id, const void *arg, size_t bytes)
{
	if (arg)
		memcpy(fake_at(ARG, bytes), arg, bytes);
	return xen_vcpu_op(v, (const uint64_t[6]){ op, id, arg ? ARG : 0 });
}

static long sched_op(unsigned op, const void *arg, size_t bytes)
{
	if (arg)
		memcpy(fake_at(ARG, bytes), arg, bytes);
	return xen_sched_op(v, (const uint64_t[6]){ op, ARG });
}

static bool timer_event(void)
{
	uint64_t bit = 1ul << timer_port % 64;
	bool was = __atomic_fetch_and(&fake.shared.evtchn_pending[timer_port / 64], ~bit, __ATOMIC_SEQ_CST) & bit;

	atomic_load(&v->info)->evtchn_upcall_pending = 0;
	atomic_load(&v->info)->evtchn_pending_sel = 0;
	return was;
}

/* ---- the clock ------------------------------------------------------------------------------------------------ */

static void test_time_scale(void **state)
{
	static const uint64_t khz[] = {
		1, 1000, 999999, 1000000, 1000001, 1999999, 2000000, 2345678, 3700000, 4294968, 8000000,
	};

	for (unsigned i = 0; i < sizeof khz / sizeof *khz; i++) {
		struct time_scale s = time_scale_from_khz(khz[i]);

		assert_true(s.mul >= 0x80000000u);	/* no precision given away */
		for (uint64_t ticks = 1; ticks < 1ull << 50; ticks = ticks * 7 + 3) {
			uint64_t exact = (unsigned __int128)ticks * 1000000 / khz[i], got;

			if (exact >> 55)
				break;
			got = time_scale_ns(s, ticks);
			assert_true(got <= exact + 1 + exact / 1000000000 && got + 2 + exact / 100000000 >= exact);
		}
	}
}

/* What pvclock_clocksource_read() of Linux does. */
static uint64_t guest_clock(const struct vcpu_time_info *t)
{
	uint64_t ticks = __rdtsc() - t->tsc_timestamp;

	ticks = t->tsc_shift < 0 ? ticks >> -t->tsc_shift : ticks << t->tsc_shift;
	return t->system_time + (uint64_t)((unsigned __int128)ticks * t->tsc_to_system_mul >> 32);
}

static void test_guest_reads_our_clock(void **state)
{
	struct vcpu_register_time_memory_area a = { .addr.p = AREA };
	const struct vcpu_time_info *t = &fake.shared.vcpu_info[0].time, *copy = (void *)fake_at(AREA, sizeof *t);
	uint64_t before, guest, after;

	assert_int_equal(t->version & 1, 0);
	assert_true(t->version);
	assert_int_equal(t->flags, XEN_PVCLOCK_TSC_STABLE_BIT);
	for (unsigned i = 0; i < 1000; i++) {
		before = vm_now(&fake.vm);
		guest = guest_clock(t);
		after = vm_now(&fake.vm);
		assert_true(before <= guest && guest <= after);
	}
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &a, sizeof a), 0);
	assert_memory_equal(copy, t, sizeof *t);
	a.addr.p = 0x1000;
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &a, sizeof a), -EFAULT);
	a.addr.p = 0;
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_time_memory_area, 0, &a, sizeof a), 0);
	assert_int_equal(v->time_va.a, 0);
}

static void test_unstable_clock(void **state)
{
	const struct vcpu_time_info *t = &fake.shared.vcpu_info[0].time;
	uint32_t version;
	uint64_t guest;

	teardown(NULL);
	start(false);
	assert_int_equal(t->flags, 0);
	version = t->version;
	xen_timer_expired(v);
	assert_int_equal(t->version, version);
	fake.vm.start_ns -= 2000 * MS;		/* two seconds later */
	xen_timer_expired(v);
	assert_int_equal(t->version, version + 2);
	guest = guest_clock(t);
	assert_true(guest <= vm_now(&fake.vm) + MS && guest + MS >= vm_now(&fake.vm));
}

static void test_wallclock(void **state)
{
	uint64_t sec = (uint64_t)fake.shared.wc_sec_hi << 32 | fake.shared.wc_sec, now;
	uint64_t then = sec * 1000000000ull + fake.shared.wc_nsec;
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	now = t.tv_sec * 1000000000ull + t.tv_nsec;
	then += vm_now(&fake.vm);
	assert_true(fake.shared.wc_version && !(fake.shared.wc_version & 1));
	assert_true(fake.shared.wc_nsec < 1000000000);
	assert_true(then <= now + 10 * MS && then + 10 * MS >= now);
}

/* ---- timers --------------------------------------------------------------------------------------------------- */

static void test_singleshot(void **state)
{
	struct vcpu_set_singleshot_timer a = { .timeout_abs_ns = vm_now(&fake.vm) + 3600000 * MS };

	assert_int_equal(vcpu_op(VCPUOP_stop_periodic_timer, 0, NULL, 0), 0);
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 0, &a, sizeof a), 0);
	assert_int_equal(xen_next_deadline(v), a.timeout_abs_ns);
	xen_timer_expired(v);
	assert_false(timer_event());
	a.timeout_abs_ns = 1;
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 0, &a, sizeof a), 0);
	assert_true(timer_event());		/* the past is now */
	assert_int_equal(xen_next_deadline(v), 0);
	a.timeout_abs_ns = 0;
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 0, &a, sizeof a), 0);
	assert_true(timer_event());
	a.flags = VCPU_SSHOTTMR_future;
	a.timeout_abs_ns = 1;
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 0, &a, sizeof a), -ETIME);
	assert_false(timer_event());
	a.timeout_abs_ns = vm_now(&fake.vm) + 3600000 * MS;
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 0, &a, sizeof a), 0);
	assert_int_equal(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL, 0), 0);
	assert_int_equal(xen_next_deadline(v), 0);
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 1, &a, sizeof a), -EINVAL);
}

static void test_set_timer_op(void **state)
{
	uint64_t now = vm_now(&fake.vm), soon;

	v->period = 0;
	assert_int_equal(xen_set_timer_op(v, (const uint64_t[6]){ now + 5000 * MS }), 0);
	assert_int_equal(v->deadline, now + 5000 * MS);
	assert_int_equal(xen_set_timer_op(v, (const uint64_t[6]){ 0 }), 0);
	assert_int_equal(v->deadline, 0);
	/* A guest's overflow: soon, rather than never. */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(xen_set_timer_op(v, (const uint64_t[6]){ i ? 1ull << 60 : ~0ull }), 0);
		soon = vm_now(&fake.vm);
		assert_true(v->deadline <= soon + 100 * MS && v->deadline > now);
	}
}

static void test_periodic(void **state)
{
	struct vcpu_set_periodic_timer a = { .period_ns = MS - 1 };

	assert_int_equal(v->period, 10 * MS);	/* what Xen starts a PV guest with */
	assert_int_equal(vcpu_op(VCPUOP_set_periodic_timer, 0, &a, sizeof a), -EINVAL);
	a.period_ns = ~0ull;
	assert_int_equal(vcpu_op(VCPUOP_set_periodic_timer, 0, &a, sizeof a), -EINVAL);
	a.period_ns = 1000 * MS;
	assert_int_equal(vcpu_op(VCPUOP_set_periodic_timer, 0, &a, sizeof a), 0);
	xen_timer_expired(v);
	assert_false(timer_event());
	fake.vm.tsc_start -= 7500 * fake.vm.tsc_khz;	/* several periods late: one event, and the beat is kept */
	xen_timer_expired(v);
	assert_true(timer_event());
	assert_true(v->next_period > vm_now(&fake.vm) && v->next_period <= vm_now(&fake.vm) + 1000 * MS);
	xen_timer_expired(v);
	assert_false(timer_event());
	assert_int_equal(xen_next_deadline(v), v->next_period);
	atomic_store(&v->blocked, true);
	assert_int_equal(xen_next_deadline(v), 0);	/* ticks are for running vCPUs */
	atomic_store(&v->blocked, false);
}

/* The POSIX timer fires once for a deadline, is not set again for a later one, and is for an earlier one. */
static void test_posix_timer(void **state)
{
	struct sigaction sa = { .sa_handler = on_signal };
	uint64_t now = vm_now(&fake.vm), armed, deadline;

	sigaction(SIGUSR1, &sa, NULL);
	atomic_store(&signals, 0);
	v->period = 0;
	xen_timer_arm(v);
	assert_false(v->timer_made);		/* nothing to wait for */
	xen_timer_set(v, now + 100000 * MS);
	xen_timer_arm(v);
	armed = v->armed;
	assert_true(armed > now && armed <= v->deadline);
	xen_timer_set(v, now + 200000 * MS);
	xen_timer_arm(v);
	assert_int_equal(v->armed, armed);
	deadline = vm_now(&fake.vm) + 20 * MS;
	xen_timer_set(v, deadline);
	xen_timer_arm(v);
	assert_true(v->armed <= deadline && v->armed + 20 * MS >= deadline);
	while (!atomic_load(&signals) && vm_now(&fake.vm) < deadline + 5000 * MS)
		pause();
	assert_int_equal(signals, 1);
	assert_true(vm_now(&fake.vm) + MS >= deadline);
	while (vm_now(&fake.vm) < deadline)
		continue;
	xen_timer_expired(v);
	assert_true(timer_event());
}

/* ---- blocking ------------------------------------------------------------------------------------------------- */

static void test_block_until_deadline(void **state)
{
	uint64_t began = vm_now(&fake.vm), deadline = began + 30 * MS;

	v->info->evtchn_upcall_mask = 1;
	xen_timer_set(v, deadline);
	assert_int_equal(sched_op(SCHEDOP_block, NULL, 0), 0);
	assert_true(vm_now(&fake.vm) >= deadline);
	assert_int_equal(v->info->evtchn_upcall_mask, 0);
	assert_true(evtchn_pending(v));
	assert_true(timer_event());
	assert_int_equal(v->counters.vcpu.blocks, 1);
	assert_int_equal(v->counters.vcpu.woken_timer, 1);
	assert_int_equal(v->counters.vcpu.woken_event + v->counters.vcpu.woken_idle, 0);
	assert_true(v->counters.idle_cycles > 0);
	assert_int_equal(v->runstate.state, RUNSTATE_running);
	assert_true(v->runstate.time[RUNSTATE_blocked] >= 25 * MS);
	assert_false(atomic_load(&v->blocked));
}

static void test_block_with_an_event_does_not(void **state)
{
	evtchn_raise_virq(v, VIRQ_TIMER);
	v->info->evtchn_upcall_mask = 1;
	assert_int_equal(sched_op(SCHEDOP_block, NULL, 0), 0);
	assert_int_equal(v->counters.vcpu.blocks, 0);
	assert_int_equal(v->info->evtchn_upcall_mask, 0);
}

/* After a sleep our timer is set ahead of the guest's, so that the shim may take what it sets first; the next sleep is not
 * cut short by that. */
static void test_block_leaves_a_lookout(void **state)
{
	uint64_t began;

	v->period = 0;
	fake.config.shim = ~0u;
	for (unsigned i = 0; i < 2; i++) {
		began = vm_now(&fake.vm);
		xen_timer_set(v, began + 30 * MS);
		assert_int_equal(sched_op(SCHEDOP_block, NULL, 0), 0);
		assert_true(vm_now(&fake.vm) >= began + 30 * MS);
		assert_true(timer_event());
		assert_int_equal(v->deadline, 0);
		xen_timer_arm(v);
		assert_true(v->armed > began + 30 * MS);
		assert_true(v->armed <= vm_now(&fake.vm) + MS);
	}
	assert_int_equal(v->counters.vcpu.woken_timer, 2);
	assert_int_equal(v->counters.vcpu.woken_idle, 0);
	fake.config.shim = 0;
	assert_int_equal(vcpu_op(VCPUOP_stop_singleshot_timer, 0, NULL, 0), 0);
	v->recheck = 0;
	began = vm_now(&fake.vm);
	xen_timer_set(v, began + MS);
	assert_int_equal(sched_op(SCHEDOP_block, NULL, 0), 0);
	assert_int_equal(v->recheck, 0);	/* nobody would use it */
}

static void *wake_later(void *arg)
{
	usleep(20000);
	if (arg)
		atomic_store(&fake.vm.stop, true);
	vcpu_wake(v);
	return NULL;
}

static void test_block_until_woken(void **state)
{
	pthread_t t;

	v->period = 0;
	for (unsigned stop = 0; stop < 2; stop++) {
		assert_int_equal(pthread_create(&t, NULL, wake_later, stop ? v : NULL), 0);
		assert_int_equal(sched_op(SCHEDOP_block, NULL, 0), 0);
		pthread_join(t, NULL);
	}
	assert_int_equal(v->counters.vcpu.blocks, 2);
}

/* Wake-ups that come just before, during and just after going to sleep: one that is lost hangs the test. */
static void *wake_always(void *arg)
{
	_Atomic bool *over = arg;

	while (!atomic_load(over))
		vcpu_wake(v);
	return NULL;
}

static void test_no_wake_is_lost(void **state)
{
	_Atomic bool over = false;
	pthread_t t;

	v->period = 0;
	assert_int_equal(pthread_create(&t, NULL, wake_always, &over), 0);
	for (unsigned i = 0; i < 20000; i++)
		assert_int_equal(sched_op(SCHEDOP_block, NULL, 0), 0);
	atomic_store(&over, true);
	pthread_join(t, NULL);
	assert_int_equal(v->counters.vcpu.blocks, 20000);
}

static void test_poll(void **state)
{
	struct sched_poll p = { .nr_ports = 1, .timeout = 0 };
	uint64_t began = vm_now(&fake.vm);

	v->period = 0;
	p.ports.p = (void *)AREA;
	memcpy(fake_at(AREA, 4), &timer_port, 4);
	fake.shared.evtchn_mask[0] = ~0ul;
	p.timeout = began + 20 * MS;
	assert_int_equal(sched_op(SCHEDOP_poll, &p, sizeof p), 0);
	assert_true(vm_now(&fake.vm) >= began + 20 * MS);
	assert_int_equal(v->poll_deadline, 0);
	evtchn_raise_virq(v, VIRQ_TIMER);
	p.timeout = 0;				/* none: would sleep for ever */
	assert_int_equal(sched_op(SCHEDOP_poll, &p, sizeof p), 0);
	assert_int_equal(v->counters.vcpu.blocks, 1);
	p.nr_ports = 129;
	assert_int_equal(sched_op(SCHEDOP_poll, &p, sizeof p), -EINVAL);
	p.nr_ports = 1;
	p.ports.p = (void *)0x1000;
	assert_int_equal(sched_op(SCHEDOP_poll, &p, sizeof p), -EFAULT);
	p.ports.p = (void *)AREA;
	memset(fake_at(AREA, 4), 0xff, 4);
	assert_int_equal(sched_op(SCHEDOP_poll, &p, sizeof p), -EINVAL);
	assert_int_equal(xen_sched_op(v, (const uint64_t[6]){ SCHEDOP_poll, 0x1000 }), -EFAULT);
}

/* ---- vcpu_op -------------------------------------------------------------------------------------------------- */

static void test_vcpu_op_ids(void **state)
{
	v->initialised = true;
	fake.vcpu[1].up = false;
	for (unsigned op = 0; op < 20; op++) {
		assert_int_equal(vcpu_op(op, FAKE_VCPUS, NULL, 0), -ENOENT);
		assert_int_equal(vcpu_op(op, ~0u, NULL, 0), -ENOENT);
	}
	assert_int_equal(vcpu_op(VCPUOP_is_up, 0, NULL, 0), 1);
	assert_int_equal(vcpu_op(VCPUOP_is_up, 1, NULL, 0), 0);
	assert_int_equal(vcpu_op(VCPUOP_initialise, 0, NULL, 0), -EEXIST);
	assert_int_equal(vcpu_op(VCPUOP_up, 0, NULL, 0), 0);
	assert_int_equal(vcpu_op(VCPUOP_up, 1, NULL, 0), -EINVAL);
	assert_int_equal(vcpu_op(VCPUOP_get_physid, 0, NULL, 0), -EINVAL);
	assert_int_equal(vcpu_op(14, 0, NULL, 0), -ENOSYS);
	assert_int_equal(vcpu_op(VCPUOP_set_singleshot_timer, 0, NULL, 0), -EFAULT);
	assert_false(atomic_load(&fake.vm.stop));
	assert_int_equal(vcpu_op(VCPUOP_down, 0, NULL, 0), 0);	/* the last one turns off the light */
	assert_true(atomic_load(&fake.vm.stop));
	assert_int_equal(fake.vm.exit_code, VMM_EXIT_CRASHED);
}

static void test_vcpu_life(void **state)
{
	static struct vcpu_guest_context good = {
		.flags = VGCF_in_kernel | VGCF_syscall_disables_events, .user_regs = { .rip = 0xffffffff81000000, .rsp = 64,
		.rdi = 5, .rflags = 0x1000 }, .gdt_ents = 16, .ldt_ents = 3, .kernel_sp = 128, .gs_base_kernel = 4096,
		.event_callback_eip = 7, .trap_ctxt[14] = { .vector = 14, .address = 99 }, .ctrlreg = { [1] = 1 << 12, [3] = 2 << 12 },
		.vm_assist = 1 << VMASST_TYPE_architectural_iopl | 1 << 30,
	};
	struct vcpu *o = &fake.vcpu[1];
	struct vcpu_guest_context c;
	const uint64_t op[6] = { VCPUOP_initialise, 1, FAKE_VA + 0x2000 };
	struct vcpu_register_vcpu_info info = { .mfn = 3 };

	o->up = false;
	v->initialised = true;
	assert_int_equal(xen_vcpu_op(v, (const uint64_t[6]){ VCPUOP_initialise, 1, 0x1000 }), -EFAULT);
#define REFUSED(change) \
	do { \
		c = good; \
		change; \
		memcpy(fake_at(op[2], sizeof c), &c, sizeof c); \
		assert_int_equal(xen_vcpu_op(v, op), -EINVAL); \
	} while (0)
	REFUSED(c.flags = 0);
	REFUSED(c.user_regs.rip = 1ull << 47);
	REFUSED(c.trap_ctxt[255].address = 1ull << 47);
	REFUSED(c.gs_base_user = 1ull << 63);
	REFUSED(c.gdt_ents = FIRST_RESERVED_GDT_ENTRY + 1);
	REFUSED(c.ldt_ents = 8193);
	REFUSED(c.ctrlreg[3] = 1ull << 40);
	REFUSED(c.ctrlreg[1] = 1ull << 40);
#undef REFUSED
	assert_int_equal(vcpu_op(VCPUOP_up, 1, NULL, 0), -EINVAL);
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_info, 1, &info, sizeof info), 0);	/* of one that is down */
	memcpy(fake_at(op[2], sizeof good), &good, sizeof good);
	assert_int_equal(xen_vcpu_op(v, op), 0);
	assert_int_equal(xen_vcpu_op(v, op), -EEXIST);
	assert_int_equal(atomic_load(&o->info)->evtchn_upcall_mask, 1);
	assert_int_equal(vcpu_op(VCPUOP_is_up, 1, NULL, 0), 0);
	assert_int_equal(vcpu_op(VCPUOP_up, 1, NULL, 0), 0);
	assert_int_equal(fake.wakes[1], 1);
	assert_int_equal(vcpu_op(VCPUOP_up, 1, NULL, 0), 0);
	assert_int_equal(fake.wakes[1], 1);
	assert_int_equal(vcpu_op(VCPUOP_is_up, 1, NULL, 0), 1);
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_info, 1, &info, sizeof info), -EINVAL);
	assert_int_equal(vcpu_op(VCPUOP_down, 1, NULL, 0), -EINVAL);	/* only by itself */

	assert_true(xen_vcpu_start(o));
	assert_true(xen_vcpu_start(o));			/* nothing left to take over */
	assert_int_equal(o->regs.r.rip, 0xffffffff81000000);
	assert_int_equal(o->regs.r.rdi, 5);
	assert_int_equal(o->iopl, 1);
	assert_int_equal(o->l4[MMU_KERNEL].n, 2);
	assert_int_equal(fake.user_baseptr, 1);
	assert_int_equal(fake.gdt_entries, 16);
	assert_int_equal(fake.ldt_entries, 3);
	assert_int_equal(o->traps[14].address, 99);
	assert_true(o->callback_mask[CALLBACKTYPE_syscall]);
	assert_false(o->callback_mask[CALLBACKTYPE_failsafe]);
	assert_int_equal(atomic_load(&fake.vm.vm_assist), 1 << VMASST_TYPE_architectural_iopl);
	assert_int_equal(o->runstate.state, RUNSTATE_running);

	/* Down, and up again where it was. */
	assert_int_equal(xen_vcpu_op(o, (const uint64_t[6]){ VCPUOP_down, 1 }), 0);
	assert_int_equal(fake.parks, 1);
	assert_int_equal(vcpu_op(VCPUOP_is_up, 1, NULL, 0), 0);
	assert_int_equal(vcpu_op(VCPUOP_up, 1, NULL, 0), 0);
	assert_true(xen_vcpu_start(o));
	assert_int_equal(o->regs.r.rdi, 5);
	assert_false(atomic_load(&fake.vm.stop));
}

static void test_register_vcpu_info(void **state)
{
	struct vcpu_register_vcpu_info a = { .mfn = 3, .offset = 64 };
	static const struct {
		uint64_t mfn;
		uint32_t offset;
		long result;
	} bad[] = {
		{ 3, 4096 - 63, -ENXIO }, { 3, ~0u, -ENXIO }, { 3, 1, -ENXIO },
		{ FAKE_BYTES >> 12, 0, -EINVAL },		/* shared_info itself */
		{ ~0ull, 0, -EINVAL }, { 1ull << 52, 0, -EINVAL },
	};
	struct vcpu_info *new = guest_phys(&fake.vm, 3 << 12 | 64, 64);

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct vcpu_register_vcpu_info b = { .mfn = bad[i].mfn, .offset = bad[i].offset };

		assert_int_equal(vcpu_op(VCPUOP_register_vcpu_info, 0, &b, sizeof b), bad[i].result);
		assert_ptr_equal(atomic_load(&v->info), &fake.shared.vcpu_info[0]);
	}
	fake.shared.vcpu_info[0].evtchn_upcall_mask = 1;
	fake.shared.vcpu_info[0].arch.cr2 = 0x1234;
	memset(new, 0xee, sizeof *new);
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_info, 0, &a, sizeof a), 0);
	assert_ptr_equal(atomic_load(&v->info), new);
	assert_ptr_equal(fake.shim_info, new);
	assert_int_equal(new->evtchn_upcall_mask, 1);
	assert_int_equal(new->evtchn_upcall_pending, 1);
	assert_int_equal(new->evtchn_pending_sel, ~0ul);
	assert_int_equal(new->arch.cr2, 0x1234);
	assert_memory_equal(&new->time.tsc_timestamp, &fake.shared.vcpu_info[0].time.tsc_timestamp, 24);
	assert_int_equal(new->time.version & 1, 0);
	assert_int_equal(vcpu_op(VCPUOP_register_vcpu_info, 0, &a, sizeof a), -EINVAL);	/* once */
}

static void test_runstate(void **state)
{
	struct vcpu_register_runstate_memory_area a = { .addr.p = AREA };
	const struct vcpu_runstate_info *area = (void *)fake_at(AREA, sizeof *area);
	struct vcpu_runstate_info got;
	uint64_t sum = 0;

	assert_int_equal(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &a, sizeof a), 0);
	assert_int_equal(area->state, RUNSTATE_running);
	for (unsigned flag = 0; flag < 2; flag++) {
		v->vm->vm_assist = flag << VMASST_TYPE_runstate_update_flag;
		xen_runstate(v, RUNSTATE_blocked);
		assert_int_equal(area->state, RUNSTATE_blocked);
		usleep(2000);
		xen_runstate(v, RUNSTATE_running);
		assert_memory_equal(area, &v->runstate, sizeof *area);	/* the update flag is gone again */
	}
	assert_true(area->time[RUNSTATE_blocked] >= 4 * MS);
	assert_int_equal(area->time[RUNSTATE_runnable] | area->time[RUNSTATE_offline], 0);
	memset(fake_at(ARG, sizeof got), 0, sizeof got);
	assert_int_equal(xen_vcpu_op(v, (const uint64_t[6]){ VCPUOP_get_runstate_info, 0, ARG }), 0);
	memcpy(&got, fake_at(ARG, sizeof got), sizeof got);
	for (unsigned i = 0; i < 4; i++)
		sum += got.time[i];
	assert_true(sum <= vm_now(&fake.vm) && sum + 50 * MS >= vm_now(&fake.vm));
	a.addr.p = 0x1000;
	assert_int_equal(vcpu_op(VCPUOP_register_runstate_memory_area, 0, &a, sizeof a), -EFAULT);
	assert_int_equal(v->runstate_va.a, AREA);
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

static void test_shutdown_reasons(void **state)
{
	static const struct {
		unsigned reason;
		long result;
		bool stops, reboots;
		int code;
	} cases[] = {
		{ SHUTDOWN_poweroff, 0, true, false, VMM_EXIT_OK },
		{ SHUTDOWN_reboot, 0, true, true, VMM_EXIT_OK },
		{ SHUTDOWN_suspend, 1, false, false, 0 },
		{ SHUTDOWN_crash, 0, true, false, VMM_EXIT_CRASHED },
		{ SHUTDOWN_watchdog, 0, true, false, VMM_EXIT_CRASHED },
		{ SHUTDOWN_soft_reset, -EINVAL, false, false, 0 },
		{ 77, -EINVAL, false, false, 0 },
	};

	for (unsigned compat = 0; compat < 2; compat++) {
		for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
			struct sched_shutdown s = { .reason = cases[i].reason };
			long r;

			teardown(NULL);
			start(true);
			if (compat)
				r = xen_sched_op_compat(v, (const uint64_t[6]){ SCHEDOP_shutdown, s.reason });
			else
				r = sched_op(SCHEDOP_shutdown, &s, sizeof s);
			assert_int_equal(r, cases[i].result);
			assert_int_equal(atomic_load(&fake.vm.stop), cases[i].stops);
			assert_int_equal(fake.vm.reboot, cases[i].reboots);
			assert_int_equal(fake.vm.exit_code, cases[i].code);
		}
	}
}

static void test_sched_refusals(void **state)
{
	struct sched_shutdown s = { .reason = SHUTDOWN_MAX + 1 };

	assert_int_equal(sched_op(SCHEDOP_yield, NULL, 0), 0);
	assert_int_equal(sched_op(SCHEDOP_shutdown_code, &s, sizeof s), -EINVAL);
	s.reason = SHUTDOWN_crash;
	assert_int_equal(sched_op(SCHEDOP_shutdown_code, &s, sizeof s), 0);
	assert_false(atomic_load(&fake.vm.stop));
	assert_int_equal(xen_sched_op(v, (const uint64_t[6]){ SCHEDOP_shutdown, 0x1000 }), -EFAULT);
	for (unsigned op = SCHEDOP_watchdog; op < 12; op++)
		assert_int_equal(sched_op(op, &s, sizeof s), -ENOSYS);
	assert_int_equal(xen_sched_op_compat(v, (const uint64_t[6]){ SCHEDOP_poll, 0 }), -ENOSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time_scale),
		cmocka_unit_test_setup_teardown(test_guest_reads_our_clock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unstable_clock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wallclock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_singleshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_set_timer_op, setup, teardown),
		cmocka_unit_test_setup_teardown(test_periodic, setup, teardown),
		cmocka_unit_test_setup_teardown(test_posix_timer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_until_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_leaves_a_lookout, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_with_an_event_does_not, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_until_woken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_wake_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poll, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vcpu_op_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vcpu_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_register_vcpu_info, setup, teardown),
		cmocka_unit_test_setup_teardown(test_runstate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shutdown_reasons, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sched_refusals, setup, teardown),
	};

	alarm(120);	/* what waits for an event that never comes ends here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
