/* test_vmm_evtchn.c - event channels: every operation, every refusal, and events that cross threads. */
#include <sched.h>
#include <unistd.h>

#include "tests/unit/fake_vm.h"
#include "vmm/xen_clock.h"

#define ARG	(FAKE_VA + 0x100)
#define PORTS	4096u

static struct vcpu *v;

static int setup(void **state)
{
	v = fake_reset();
	assert_int_equal(evtchn_init(&fake.vm), 0);
	return 0;
}

static int teardown(void **state)
{
	evtchn_fini(&fake.vm);
	return 0;
}

static long op(unsigned cmd, void *arg, size_t bytes)
{
	const uint64_t a[6] = { cmd, ARG };
	long r;

	memcpy(fake_at(ARG, bytes), arg, bytes);
	r = xen_event_channel_op(v, a);
	memcpy(arg, fake_at(ARG, bytes), bytes);
	return r;
}

#define OP(cmd, arg) op(EVTCHNOP_##cmd, arg, sizeof *(arg))

static long bind_virq(unsigned virq, unsigned vcpu, unsigned *port)
{
	struct evtchn_bind_virq a = { .virq = virq, .vcpu = vcpu };
	long r = OP(bind_virq, &a);

	*port = a.port;
	return r;
}

static unsigned bind_ipi(unsigned vcpu)
{
	struct evtchn_bind_ipi a = { .vcpu = vcpu };

	assert_int_equal(OP(bind_ipi, &a), 0);
	return a.port;
}

static unsigned alloc_unbound(domid_t remote)
{
	struct evtchn_alloc_unbound a = { .dom = DOMID_SELF, .remote_dom = remote };

	assert_int_equal(OP(alloc_unbound, &a), 0);
	return a.port;
}

static long send(unsigned port)
{
	struct evtchn_send a = { .port = port };

	return OP(send, &a);
}

static long close_port(unsigned port)
{
	struct evtchn_close a = { .port = port };

	return OP(close, &a);
}

static struct evtchn_status status(unsigned port)
{
	struct evtchn_status a = { .dom = DOMID_SELF, .port = port };

	assert_int_equal(OP(status, &a), 0);
	return a;
}

static bool is_pending(unsigned port)
{
	return fake.shared.evtchn_pending[port / 64] >> port % 64 & 1;
}

static void mask(unsigned port)
{
	fake.shared.evtchn_mask[port / 64] |= 1ul << port % 64;
}

/* What a guest's upcall does. Returns how many ports it found, the last one in *port. */
static unsigned take_events(struct vcpu *c, unsigned *port)
{
	struct vcpu_info *info = atomic_load(&c->info);
	unsigned n = 0;
	uint64_t sel;

	while (__atomic_exchange_n(&info->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST)) {
		sel = __atomic_exchange_n(&info->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
		for (; sel; sel &= sel - 1) {
			unsigned w = __builtin_ctzl(sel);
			uint64_t bits = __atomic_load_n(&fake.shared.evtchn_pending[w], __ATOMIC_SEQ_CST) &
					~__atomic_load_n(&fake.shared.evtchn_mask[w], __ATOMIC_SEQ_CST);

			for (; bits; bits &= bits - 1) {
				*port = w * 64 + __builtin_ctzl(bits);
				__atomic_fetch_and(&fake.shared.evtchn_pending[w], ~(bits & -bits), __ATOMIC_SEQ_CST);
				n++;
			}
		}
	}
	return n;
}

/* ---- kinds of channels ---------------------------------------------------------------------------------------- */

static void test_virq(void **state)
{
	unsigned port, again, got = 0;

	evtchn_raise_virq(v, VIRQ_TIMER);	/* nobody listens */
	assert_false(evtchn_pending(v));
	assert_false(evtchn_virq_bound(v, VIRQ_TIMER));
	assert_int_equal(bind_virq(VIRQ_TIMER, 0, &port), 0);
	assert_true(port > 0);
	assert_true(evtchn_virq_bound(v, VIRQ_TIMER));
	assert_int_equal(bind_virq(VIRQ_TIMER, 0, &again), -EEXIST);
	assert_int_equal(bind_virq(VIRQ_TIMER, 1, &again), 0);
	assert_int_not_equal(again, port);

	evtchn_raise_virq(v, VIRQ_TIMER);
	assert_true(is_pending(port));
	assert_int_equal(fake.shared.vcpu_info[0].evtchn_pending_sel, 1ul << port / 64);
	assert_int_equal(fake.shared.vcpu_info[1].evtchn_upcall_pending, 0);
	assert_true(evtchn_pending(v));
	fake.shared.vcpu_info[0].evtchn_upcall_mask = 1;
	assert_false(evtchn_pending(v));
	assert_int_equal(fake.wakes[0], 0);	/* its own thread */
	assert_int_equal(take_events(v, &got), 1);
	assert_int_equal(got, port);

	evtchn_raise_virq(&fake.vcpu[1], VIRQ_TIMER);
	evtchn_raise_virq(&fake.vcpu[1], VIRQ_TIMER);
	assert_int_equal(fake.wakes[1], 1);	/* an edge, not a level */
	assert_int_equal(status(again).status, EVTCHNSTAT_virq);
	assert_int_equal(status(again).u.virq, VIRQ_TIMER);
	assert_int_equal(status(again).vcpu, 1);
}

static void test_virq_refused(void **state)
{
	unsigned port;

	assert_int_equal(bind_virq(NR_VIRQS, 0, &port), -EINVAL);
	assert_int_equal(bind_virq(~0u, 0, &port), -EINVAL);
	assert_int_equal(bind_virq(VIRQ_TIMER, FAKE_VCPUS, &port), -ENOENT);
	assert_int_equal(bind_virq(VIRQ_TIMER, ~0u, &port), -ENOENT);
	assert_int_equal(bind_virq(VIRQ_CONSOLE, 1, &port), -EINVAL);	/* global: vCPU 0's to bind */
	assert_int_equal(bind_virq(VIRQ_CONSOLE, 0, &port), 0);
}

static void test_ipi(void **state)
{
	unsigned port = bind_ipi(1), got = 0;
	struct evtchn_bind_ipi bad = { .vcpu = FAKE_VCPUS };

	assert_int_equal(send(port), 0);
	assert_int_equal(fake.wakes[1], 1);
	assert_int_equal(take_events(&fake.vcpu[1], &got), 1);
	assert_int_equal(got, port);
	assert_int_equal(status(port).status, EVTCHNSTAT_ipi);
	assert_int_equal(OP(bind_ipi, &bad), -ENOENT);
}

static void test_loopback(void **state)
{
	unsigned far = alloc_unbound(DOMID_SELF), near, got = 0;
	struct evtchn_bind_interdomain b = { .remote_dom = DOMID_SELF, .remote_port = far };

	assert_int_equal(status(far).status, EVTCHNSTAT_unbound);
	assert_int_equal(send(far), 0);		/* dropped */
	assert_false(evtchn_pending(v));
	assert_int_equal(OP(bind_interdomain, &b), 0);
	near = b.local_port;
	assert_int_not_equal(near, far);
	assert_int_equal(take_events(v, &got), 1);	/* always pending at first */
	assert_int_equal(got, near);
	assert_int_equal(OP(bind_interdomain, &b), -EINVAL);	/* taken */

	assert_int_equal(send(near), 0);
	assert_int_equal(take_events(v, &got), 1);
	assert_int_equal(got, far);
	assert_int_equal(send(far), 0);
	assert_int_equal(take_events(v, &got), 1);
	assert_int_equal(got, near);
	assert_int_equal(status(near).status, EVTCHNSTAT_interdomain);
	assert_int_equal(status(near).u.interdomain.port, far);

	assert_int_equal(close_port(near), 0);
	assert_int_equal(status(near).status, EVTCHNSTAT_closed);
	assert_int_equal(status(far).status, EVTCHNSTAT_unbound);
	b.remote_port = far;
	assert_int_equal(OP(bind_interdomain, &b), 0);	/* may be bound again */
}

static void test_console(void **state)
{
	int port = evtchn_make_console(&fake.vm);
	unsigned got = 0;

	assert_true(port > 0);
	fake.vm.console_port = port;
	assert_int_equal(send(port), 0);
	assert_int_equal(fake.console_kicks, 1);
	assert_false(is_pending(port));
	evtchn_raise_port(&fake.vm, port);
	assert_int_equal(take_events(v, &got), 1);
	assert_int_equal(got, port);
	assert_int_equal(status(port).status, EVTCHNSTAT_interdomain);
	assert_int_equal(status(port).u.interdomain.dom, 0);

	assert_int_equal(close_port(port), 0);
	assert_int_equal(bind_ipi(0), port);	/* the port is somebody else's now */
	evtchn_raise_port(&fake.vm, port);
	assert_false(is_pending(port));
	assert_int_equal(send(port), 0);
	assert_int_equal(fake.console_kicks, 1);
	evtchn_raise_port(&fake.vm, 0);
	evtchn_raise_port(&fake.vm, PORTS);
}

/* ---- masks, bindings, limits ---------------------------------------------------------------------------------- */

static void test_unmask(void **state)
{
	unsigned port = bind_ipi(1), got = 0;
	struct evtchn_unmask a = { .port = port };

	mask(port);
	assert_int_equal(send(port), 0);
	assert_true(is_pending(port));
	assert_int_equal(fake.shared.vcpu_info[1].evtchn_upcall_pending, 0);
	assert_int_equal(fake.wakes[1], 0);
	assert_int_equal(OP(unmask, &a), 0);
	assert_int_equal(fake.wakes[1], 1);
	assert_int_equal(take_events(&fake.vcpu[1], &got), 1);
	assert_int_equal(OP(unmask, &a), 0);	/* was not masked: nothing happens */
	assert_int_equal(fake.shared.vcpu_info[1].evtchn_upcall_pending, 0);
	assert_int_equal(close_port(port), 0);
	assert_int_equal(OP(unmask, &a), -EINVAL);
}

static void test_bind_vcpu(void **state)
{
	unsigned ipi = bind_ipi(0), timer, console, far = alloc_unbound(DOMID_SELF);
	struct evtchn_bind_vcpu a = { .port = far, .vcpu = 1 };
	struct evtchn_bind_interdomain b = { .remote_dom = DOMID_SELF, .remote_port = far };

	assert_int_equal(bind_virq(VIRQ_TIMER, 0, &timer), 0);
	assert_int_equal(bind_virq(VIRQ_CONSOLE, 0, &console), 0);
	assert_int_equal(OP(bind_vcpu, &a), 0);
	assert_int_equal(OP(bind_interdomain, &b), 0);
	assert_int_equal(status(far).vcpu, 1);	/* outlives the binding */
	assert_int_equal(send(b.local_port), 0);
	assert_int_equal(fake.wakes[1], 1);

	a.port = console;
	assert_int_equal(OP(bind_vcpu, &a), 0);
	evtchn_raise_virq(v, VIRQ_CONSOLE);
	assert_true(is_pending(console));
	assert_int_equal(fake.shared.vcpu_info[0].evtchn_upcall_pending, 1);	/* b's, set when it was bound */
	assert_int_equal(fake.shared.vcpu_info[1].evtchn_upcall_pending, 1);
	a.port = ipi;
	assert_int_equal(OP(bind_vcpu, &a), -EINVAL);
	a.port = timer;
	assert_int_equal(OP(bind_vcpu, &a), -EINVAL);
	a.port = PORTS;
	assert_int_equal(OP(bind_vcpu, &a), -EINVAL);
	a = (struct evtchn_bind_vcpu){ .port = far, .vcpu = FAKE_VCPUS };
	assert_int_equal(OP(bind_vcpu, &a), -ENOENT);
}

static void test_exhaustion_and_reset(void **state)
{
	struct evtchn_alloc_unbound a = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
	struct evtchn_reset r = { .dom = DOMID_SELF };
	unsigned n = 0, port;

	while (OP(alloc_unbound, &a) == 0)
		n++;
	assert_int_equal(n, PORTS - 1);		/* port 0 is never given out */
	assert_int_equal(OP(alloc_unbound, &a), -ENOSPC);
	assert_int_equal(bind_virq(VIRQ_TIMER, 0, &port), -ENOSPC);
	assert_false(evtchn_virq_bound(v, VIRQ_TIMER));
	assert_int_equal(OP(reset, &r), 0);
	assert_int_equal(bind_virq(VIRQ_TIMER, 0, &port), 0);
	assert_int_equal(port, 1);
	assert_int_equal(OP(reset, &r), 0);
	assert_false(evtchn_virq_bound(v, VIRQ_TIMER));
	evtchn_raise_virq(v, VIRQ_TIMER);
	assert_false(evtchn_pending(v));
}

static void test_close_forgets_pending(void **state)
{
	unsigned port = bind_ipi(0);

	assert_int_equal(send(port), 0);
	assert_int_equal(close_port(port), 0);
	assert_false(is_pending(port));
	assert_int_equal(close_port(port), -EINVAL);
	assert_int_equal(send(port), -EINVAL);
	assert_int_equal(close_port(0), -EINVAL);
}

static void test_refusals(void **state)
{
	static const unsigned bad_ports[] = { 0, PORTS, PORTS + 1, 0x80000000u, ~0u };
	struct evtchn_alloc_unbound alloc = { .dom = 7 };
	struct evtchn_bind_interdomain bind = { .remote_dom = 7 };
	struct evtchn_status st = { .dom = 7 };
	struct evtchn_reset reset = { .dom = 7 };
	struct evtchn_bind_pirq pirq = { .pirq = 1 };
	struct evtchn_send s = { 0 };

	for (unsigned i = 0; i < sizeof bad_ports / sizeof *bad_ports; i++) {
		struct evtchn_bind_interdomain b = { .remote_dom = DOMID_SELF, .remote_port = bad_ports[i] };
		struct evtchn_unmask u = { .port = bad_ports[i] };

		assert_int_equal(send(bad_ports[i]), -EINVAL);
		assert_int_equal(close_port(bad_ports[i]), -EINVAL);
		assert_int_equal(OP(unmask, &u), -EINVAL);
		assert_int_equal(OP(bind_interdomain, &b), -EINVAL);
		assert_int_equal(evtchn_port_pending(&fake.vm, bad_ports[i]), -EINVAL);
	}
	assert_int_equal(OP(alloc_unbound, &alloc), -EPERM);
	assert_int_equal(OP(bind_interdomain, &bind), -ESRCH);
	assert_int_equal(OP(status, &st), -EPERM);
	assert_int_equal(OP(reset, &reset), -EPERM);
	assert_int_equal(OP(bind_pirq, &pirq), -EINVAL);
	for (unsigned cmd = EVTCHNOP_init_control; cmd < 20; cmd++)
		assert_int_equal(op(cmd, &s, sizeof s), -ENOSYS);
	assert_int_equal(xen_event_channel_op(v, (const uint64_t[6]){ ~0ull, ARG }), -ENOSYS);
	for (unsigned cmd = 0; cmd <= EVTCHNOP_reset; cmd++)
		assert_int_equal(xen_event_channel_op(v, (const uint64_t[6]){ cmd, 0x1000 }), -EFAULT);
}

static void test_poll_wakes_for_masked_ports(void **state)
{
	unsigned port = bind_ipi(1);

	mask(port);
	assert_int_equal(evtchn_port_pending(&fake.vm, port), 0);
	evtchn_poll_begin(&fake.vcpu[1], 0);
	assert_int_equal(send(port), 0);
	assert_int_equal(fake.wakes[1], 1);
	assert_int_equal(evtchn_port_pending(&fake.vm, port), 1);
	evtchn_poll_end(&fake.vcpu[1]);
	fake.shared.evtchn_pending[port / 64] = 0;
	assert_int_equal(send(port), 0);
	assert_int_equal(fake.wakes[1], 1);
}

/* Who waits for one port is not disturbed by the others. */
static void test_poll_of_one_port(void **state)
{
	unsigned mine = bind_ipi(1), other = bind_ipi(1);

	mask(mine);
	mask(other);
	evtchn_poll_begin(&fake.vcpu[1], mine);
	assert_int_equal(send(other), 0);
	assert_int_equal(fake.wakes[1], 0);
	assert_int_equal(send(mine), 0);
	assert_int_equal(fake.wakes[1], 1);
	evtchn_poll_end(&fake.vcpu[1]);
}

/* ---- threads -------------------------------------------------------------------------------------------------- */

#define ROUNDS	20000u
#define RAISERS	2u

static struct raiser {
	pthread_t thread;
	unsigned port;
	_Atomic unsigned raised, taken;
} raisers[RAISERS];

/* Raises its port again each time the last event was taken. */
static void *raise_all(void *arg)
{
	struct raiser *r = arg;

	for (unsigned i = 0; i < ROUNDS; i++) {
		while (atomic_load(&r->taken) != i)
			sched_yield();
		atomic_store(&r->raised, i + 1);
		evtchn_raise_port(&fake.vm, r->port);
	}
	return NULL;
}

/* No event is lost, also while the guest moves its vcpu_info: after a lost one its raiser waits for ever. */
static void test_no_event_is_lost(void **state)
{
	struct vcpu_register_vcpu_info move = { .mfn = 2, .offset = 0x40 };
	unsigned taken = 0;

	fake.vcpu[0].thread = 0;
	for (unsigned i = 0; i < RAISERS; i++) {
		raisers[i] = (struct raiser){ .port = evtchn_make_console(&fake.vm) };
		assert_int_equal(pthread_create(&raisers[i].thread, NULL, raise_all, &raisers[i]), 0);
	}
	while (taken < RAISERS * ROUNDS) {
		struct vcpu_info *info = atomic_load(&v->info);

		if (!__atomic_exchange_n(&info->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST)) {
			sched_yield();
			continue;
		}
		__atomic_exchange_n(&info->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
		for (unsigned i = 0; i < RAISERS; i++) {
			unsigned port = raisers[i].port;

			if (__atomic_fetch_and(&fake.shared.evtchn_pending[port / 64], ~(1ul << port % 64),
					       __ATOMIC_SEQ_CST) >> port % 64 & 1) {
				taken++;
				atomic_fetch_add(&raisers[i].taken, 1);
			}
		}
		if (taken > ROUNDS && info == &fake.shared.vcpu_info[0]) {
			memcpy(fake_at(ARG, sizeof move), &move, sizeof move);
			assert_int_equal(xen_vcpu_op(v, (const uint64_t[6]){ VCPUOP_register_vcpu_info, 0, ARG }), 0);
		}
	}
	assert_ptr_equal(atomic_load(&v->info), guest_phys(&fake.vm, 2 << 12 | 0x40, 1));
	for (unsigned i = 0; i < RAISERS; i++) {
		pthread_join(raisers[i].thread, NULL);
		assert_int_equal(raisers[i].raised, ROUNDS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_virq, setup, teardown),
		cmocka_unit_test_setup_teardown(test_virq_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ipi, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loopback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_console, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unmask, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bind_vcpu, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exhaustion_and_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_close_forgets_pending, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poll_of_one_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poll_wakes_for_masked_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poll_of_one_port, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_event_is_lost, setup, teardown),
	};

	alarm(120);	/* what waits for an event that never comes ends here */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
