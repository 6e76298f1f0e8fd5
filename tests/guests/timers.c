/*
 * timers.c - clocks, timers, run states, vcpu_info. Upper bounds are wide: the machine may be busy.
 */
#include "lib/events.h"
#include "lib/guest.h"
#include "lib/user_code.h"

#define MS	1000000ul
#define LATE	(3000 * MS)

static long singleshot(uint64_t at, uint32_t flags)
{
	struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = at, .flags = flags };

	return hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&t));
}

/* Waits with events unmasked until the timer's count changes or LATE; returns how late after `at` it was. */
static int64_t wait_spinning(uint32_t port, uint64_t at)
{
	unsigned before = event_count(port);

	events_unmask();
	while (event_count(port) == before && system_time() < at + LATE)
		;
	events_mask();
	return event_count(port) == before ? -1 : (int64_t)(system_time() - at);
}

TEST(clock_is_monotonic)
{
	uint64_t last = system_time(), first = last;

	for (unsigned i = 0; i < 200000; i++) {
		uint64_t now = system_time();

		expect(now >= last, "%lu ns back", last - now);
		last = now;
	}
	expect(last > first, "it stands still");
}

TEST(wallclock)
{
	uint64_t s = (uint64_t)shared_info->wc_sec_hi << 32 | shared_info->wc_sec, want = option_number("now", 0);

	expect(!(shared_info->wc_version & 1), "wc_version %u", shared_info->wc_version);
	expect(shared_info->wc_nsec < 1000000000, "wc_nsec %u", shared_info->wc_nsec);
	s += system_time() / 1000000000;
	if (want)
		expect(s + 5 >= want && s <= want + 120, "it is %lu, the wallclock says %lu", want, s);
	else
		expect(s > 1700000000, "the wallclock says %lu", s);
}

TEST(timer_virq_binds_once)
{
	struct evtchn_bind_virq bind = { .virq = VIRQ_TIMER, .vcpu = 0 };

	event_bind_virq(VIRQ_TIMER);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_bind_virq, PTR(&bind)), -XEN_EEXIST);
}

TEST(singleshot_while_spinning)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);

	hcall2(vcpu_op, VCPUOP_stop_periodic_timer, 0);
	event_clear_pending(port);		/* a tick from between the two */
	for (unsigned i = 0; i < 5; i++) {
		uint64_t at = system_time() + 5 * MS;
		int64_t late;

		event_reset();
		expect_eq(singleshot(at, 0), 0);
		late = wait_spinning(port, at);
		expect(late >= 0 && late < (int64_t)LATE, "%ld ns after its time", late);
		expect_eq(event_count(port), 1);
	}
}

TEST(singleshot_while_blocked)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);

	for (unsigned i = 0; i < 5; i++) {
		uint64_t at = system_time() + 10 * MS;

		event_reset();
		expect_eq(singleshot(at, 0), 0);
		events_mask();
		expect_eq(hcall2(sched_op, SCHEDOP_block, 0), 0);
		events_mask();
		expect_eq(event_count(port), 1);
		expect(system_time() >= at, "%lu ns early", at - system_time());
		expect(system_time() < at + LATE, "%lu ns late", system_time() - at);
	}
}

TEST(singleshot_in_the_past)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);

	long r;

	event_reset();
	events_mask();
	r = singleshot(system_time() - MS, VCPU_SSHOTTMR_future);
	/* Xen refused until 4.16; since then the flag means nothing */
	expect(r == -XEN_ETIME || !r, "it is %ld", r);
	if (r)
		expect(!this_vcpu()->evtchn_upcall_pending, "refused, but fired");
	else
		expect(wait_spinning(port, system_time()) >= 0, "accepted, but never fired");
	event_reset();
	expect_eq(singleshot(system_time() - MS, 0), 0);
	expect(wait_spinning(port, system_time()) >= 0, "never fired");
	events_mask();
	/* armed, then called off */
	event_reset();
	expect_eq(singleshot(system_time() + 20 * MS, 0), 0);
	expect_eq(hcall2(vcpu_op, VCPUOP_stop_singleshot_timer, 0), 0);
	for (uint64_t end = system_time() + 60 * MS; system_time() < end; )
		;
	events_unmask();
	events_mask();
	expect_eq(event_count(port), 0);
}

TEST(periodic)
{
	struct vcpu_set_periodic_timer t = { .period_ns = 10 * MS };
	uint32_t port = event_bind_virq(VIRQ_TIMER);
	uint64_t start = system_time();

	event_reset();
	events_unmask();
	expect_eq(hcall3(vcpu_op, VCPUOP_set_periodic_timer, 0, PTR(&t)), 0);
	while (event_count(port) < 8 && system_time() < start + LATE)
		;
	expect_eq(hcall2(vcpu_op, VCPUOP_stop_periodic_timer, 0), 0);
	events_mask();
	expect(event_count(port) >= 8, "%u ticks", event_count(port));
	expect(system_time() - start >= 60 * MS, "8 ticks of 10 ms in %lu ns", system_time() - start);
	t.period_ns = 1;
	expect_eq(hcall3(vcpu_op, VCPUOP_set_periodic_timer, 0, PTR(&t)), -XEN_EINVAL);
}

TEST(set_timer_op)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);
	uint64_t at = system_time() + 5 * MS;
	int64_t late;

	event_reset();
	expect_eq(hcall1(set_timer_op, at), 0);
	late = wait_spinning(port, at);
	expect(late >= 0, "never fired");
	expect_eq(hcall1(set_timer_op, 0), 0);
}

TEST(halt_waits_for_an_event)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);

	if (!on_umbra()) {
		test_skip("Xen 4.17 emulates no hlt");
		return;
	}
	event_reset();
	expect_eq(singleshot(system_time() + 50 * MS, 0), 0);
	events_unmask();
	probe("hlt");
	events_mask();
	expect_eq(seen.vector == VEC_EVENT ? -1 : seen.vector, -1);
	expect_eq(event_count(port), 1);
}

TEST(event_in_user_mode)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);
	uint64_t delay = 5 * MS, rbx;
	struct regs r;

	user_init();
	for (unsigned i = 0; i < 5; i++) {
		/* an emulated host may need longer than that to get to user mode at all */
		for (;; delay *= 4) {
			event_reset();
			events_mask();
			expect_eq(singleshot(system_time() + delay, 0), 0);
			expect_eq(user_call(&r, user_spin, 0, 0), VEC_EVENT);
			if (r.rbx || delay > 1000 * MS)
				break;
		}
		expect_eq(event_count(port), 1);
		expect_eq(r.cs & 0xffff, FLAT_USER_CS64);
		expect_eq(r.cs >> 32 & 0xff, 0);
		expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
		expect(r.rbx > 0, "user code has not run");
		/* and on, where it was */
		rbx = r.rbx;
		expect_eq(singleshot(system_time() + 2 * delay, 0), 0);
		expect_eq(user_run(&r), VEC_EVENT);
		expect(r.rbx > rbx, "user code has not gone on");
	}
	events_mask();
}

TEST(pending_event_at_the_return_to_user)
{
	uint32_t port = event_bind_ipi();
	struct regs r;

	user_init();
	event_reset();
	events_mask();
	event_send(port);
	expect_eq(user_call(&r, user_spin, 0, 0), VEC_EVENT);
	expect_eq(event_count(port), 1);
	events_mask();
	event_close(port);
}

TEST(runstate)
{
	static struct vcpu_runstate_info info __attribute__((aligned(64)));
	struct vcpu_register_runstate_memory_area area = { .addr.p = 0 };
	struct vcpu_runstate_info now;
	uint64_t sum = 0, blocked;

	set_xen_guest_handle(area.addr.h, &info);
	expect_eq(hcall3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, PTR(&area)), 0);
	expect_eq(hcall3(vcpu_op, VCPUOP_get_runstate_info, 0, PTR(&now)), 0);
	expect_eq(now.state, RUNSTATE_running);
	for (unsigned i = 0; i < 4; i++)
		sum += now.time[i];
	expect(sum <= system_time() + 1000 * MS && now.time[RUNSTATE_running], "the times add up to %lu", sum);
	expect_eq(info.state, RUNSTATE_running);
	blocked = info.time[RUNSTATE_blocked];
	event_bind_virq(VIRQ_TIMER);
	expect_eq(singleshot(system_time() + 20 * MS, 0), 0);
	events_mask();
	hcall2(sched_op, SCHEDOP_block, 0);
	events_mask();
	expect(info.time[RUNSTATE_blocked] - blocked >= 10 * MS, "blocked for 20 ms, accounted %lu ns",
	       info.time[RUNSTATE_blocked] - blocked);
	set_xen_guest_handle(area.addr.h, (struct vcpu_runstate_info *)0);
	hcall3(vcpu_op, VCPUOP_register_runstate_memory_area, 0, PTR(&area));
}

TEST(vcpu_ops)
{
	expect_eq(hcall2(vcpu_op, VCPUOP_is_up, 0), 1);
	expect_eq(hcall2(vcpu_op, VCPUOP_is_up, 5000), -XEN_ENOENT);
	expect_eq(hcall2(vcpu_op, 99, 0), -XEN_ENOSYS);
}

/* Last: vcpu_info moves away from shared_info for good. */
TEST(vcpu_info_moves)
{
	static uint8_t page[8192] __attribute__((aligned(4096)));
	struct vcpu_info *info = (struct vcpu_info *)(page + 128);
	struct vcpu_register_vcpu_info reg = { .mfn = va_to_mfn(page), .offset = 4090 };
	uint32_t port = event_bind_ipi();
	uint64_t time = system_time();

	events_mask();
	event_reset();
	expect(hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)) < 0, "across the end of the page");
	reg.offset = 3;
	expect(hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)) < 0 || !on_umbra(), "unaligned");
	reg.offset = 128;
	reg.mfn = 0xffffffffful;
	expect(hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)) < 0, "a frame that is not ours");
	reg.mfn = va_to_mfn(page);
	event_send(port);
	expect_eq(hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)), 0);
	vcpu_info_at = info;
	expect_eq(info->evtchn_upcall_mask, 1);
	expect_eq(info->evtchn_upcall_pending, 1);
	events_unmask();
	expect_eq(event_count(port), 1);
	expect(system_time() >= time, "time jumped");
	expect_eq(event_send(port), 0);
	expect_eq(event_count(port), 2);
	events_mask();
	expect(hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)) < 0, "moved twice");
	event_close(port);
}

TEST(timer_after_the_move)
{
	uint32_t port = event_bind_virq(VIRQ_TIMER);
	uint64_t at = system_time() + 5 * MS;

	event_reset();
	expect_eq(singleshot(at, 0), 0);
	expect(wait_spinning(port, at) >= 0, "never fired");
}
