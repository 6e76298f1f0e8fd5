/*
 * events.c - event channels: binding, masks, selectors, upcalls in kernel and user mode, blocking.
 */
#include "lib/events.h"
#include "lib/guest.h"
#include "lib/user_code.h"

TEST(ipi_reaches_the_handler)
{
	uint32_t port = event_bind_ipi();

	events_init();
	events_unmask();
	for (unsigned i = 1; i < 20; i++) {
		expect_eq(event_send(port), 0);
		expect_eq(event_count(port), i);
	}
	events_mask();
	expect_eq(event_close(port), 0);
}

TEST(masked_upcall_waits)
{
	uint32_t port = event_bind_ipi();

	events_mask();
	event_reset();
	expect_eq(event_send(port), 0);
	expect_eq(event_count(port), 0);
	expect_eq(this_vcpu()->evtchn_upcall_pending, 1);
	expect(shared_info->evtchn_pending[port / 64] >> port % 64 & 1, "pending bit");
	expect(this_vcpu()->evtchn_pending_sel >> port / 64 & 1, "selector %lx", (uint64_t)this_vcpu()->evtchn_pending_sel);
	/* the mask is memory of ours: the next entry to the hypervisor looks at it */
	events_unmask();
	expect_eq(event_count(port), 1);
	events_mask();
	event_close(port);
}

TEST(masked_port_waits)
{
	uint32_t port = event_bind_ipi();
	struct evtchn_unmask unmask = { .port = port };

	event_reset();
	events_unmask();
	event_mask_port(port, true);
	expect_eq(event_send(port), 0);
	expect_eq(event_count(port), 0);
	expect(shared_info->evtchn_pending[port / 64] >> port % 64 & 1, "pending bit");
	expect_eq(this_vcpu()->evtchn_upcall_pending, 0);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_unmask, PTR(&unmask)), 0);
	expect_eq(event_count(port), 1);
	expect(!(shared_info->evtchn_mask[port / 64] >> port % 64 & 1), "the mask bit is still set");
	events_mask();
	event_close(port);
}

TEST(frames_of_an_upcall)
{
	uint32_t port = event_bind_ipi();

	event_reset();
	events_unmask();
	expect_eq(event_send(port), 0);
	expect_eq(event_count(port), 1);
	expect_eq(event_frame.cs & 0xffff, FLAT_KERNEL_CS & ~3);
	expect_eq(event_frame.cs >> 32 & 0xff, 0);
	expect(event_frame.rflags & RFLAGS_IF, "IF of the frame is clear");
	expect_eq(event_mask_inside, 1);
	expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
	events_mask();
	event_close(port);
}

static bool return_masked(struct regs *r)
{
	r->rip += 2;
	r->rflags &= ~RFLAGS_IF;
	return true;
}

static bool return_unmasked(struct regs *r)
{
	r->rip += 2;
	r->rflags |= RFLAGS_IF;
	return true;
}

TEST(iret_sets_the_mask)
{
	uint32_t port = event_bind_ipi();

	event_reset();
	events_unmask();
	trap_hook(6, return_masked);
	asm volatile("ud2" ::: "memory");
	expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
	event_send(port);
	expect_eq(event_count(port), 0);
	/* unmasking by iret delivers what is pending */
	trap_hook(6, return_unmasked);
	asm volatile("ud2" ::: "memory");
	expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
	expect_eq(event_count(port), 1);
	trap_hook(6, NULL);
	events_mask();
	event_close(port);
}

TEST(many_ports)
{
	static uint32_t port[200];

	event_reset();
	events_mask();
	for (unsigned i = 0; i < ARRAY_SIZE(port); i++)
		port[i] = event_bind_ipi();
	for (unsigned i = 0; i < ARRAY_SIZE(port); i++)
		expect_eq(event_send(port[i]), 0);
	events_unmask();
	for (unsigned i = 0; i < ARRAY_SIZE(port); i++)
		expect_eq(event_count(port[i]), 1);
	events_mask();
	for (unsigned i = 0; i < ARRAY_SIZE(port); i++)
		event_close(port[i]);
}

TEST(loopback_channel)
{
	struct evtchn_alloc_unbound alloc = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
	struct evtchn_bind_interdomain bind = { .remote_dom = DOMID_SELF };
	struct evtchn_status status = { .dom = DOMID_SELF };

	event_reset();
	expect_eq(hcall2(event_channel_op, EVTCHNOP_alloc_unbound, PTR(&alloc)), 0);
	status.port = alloc.port;
	expect_eq(hcall2(event_channel_op, EVTCHNOP_status, PTR(&status)), 0);
	expect_eq(status.status, EVTCHNSTAT_unbound);
	bind.remote_port = alloc.port;
	expect_eq(hcall2(event_channel_op, EVTCHNOP_bind_interdomain, PTR(&bind)), 0);
	expect(bind.local_port != alloc.port, "both ends are port %u", bind.local_port);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_status, PTR(&status)), 0);
	expect_eq(status.status, EVTCHNSTAT_interdomain);
	event_mask_port(alloc.port, false);
	event_mask_port(bind.local_port, false);
	events_unmask();
	event_reset();
	expect_eq(event_send(bind.local_port), 0);
	expect_eq(event_count(alloc.port), 1);
	expect_eq(event_count(bind.local_port), 0);
	expect_eq(event_send(alloc.port), 0);
	expect_eq(event_count(bind.local_port), 1);
	events_mask();
	expect_eq(event_close(bind.local_port), 0);
	expect_eq(event_close(alloc.port), 0);
}

TEST(refusals)
{
	struct evtchn_bind_virq virq = { .virq = 99 };
	struct evtchn_bind_ipi ipi = { .vcpu = 77 };
	struct evtchn_alloc_unbound alloc = { .dom = 5, .remote_dom = DOMID_SELF };
	struct evtchn_unmask unmask = { .port = 0xffffffff };
	struct evtchn_status status = { .dom = DOMID_SELF, .port = 0x7fffffff };
	struct evtchn_bind_vcpu bind_vcpu = { .port = 0xfffffff, .vcpu = 0 };

	expect_eq(event_send(4000), -XEN_EINVAL);
	expect_eq(event_send(0xffffffff), -XEN_EINVAL);
	expect_eq(event_close(0xffffffff), -XEN_EINVAL);
	expect_eq(event_close(4000), -XEN_EINVAL);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_bind_virq, PTR(&virq)), -XEN_EINVAL);
	virq.virq = VIRQ_TIMER;
	virq.vcpu = 77;
	expect_eq(hcall2(event_channel_op, EVTCHNOP_bind_virq, PTR(&virq)), -XEN_ENOENT);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_bind_ipi, PTR(&ipi)), -XEN_ENOENT);
	expect(hcall2(event_channel_op, EVTCHNOP_alloc_unbound, PTR(&alloc)) < 0, "a port of domain 5");
	expect_eq(hcall2(event_channel_op, EVTCHNOP_unmask, PTR(&unmask)), -XEN_EINVAL);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_status, PTR(&status)), -XEN_EINVAL);
	expect_eq(hcall2(event_channel_op, EVTCHNOP_bind_vcpu, PTR(&bind_vcpu)), -XEN_EINVAL);
	expect_eq(hcall2(event_channel_op, 77, PTR(&status)), -XEN_ENOSYS);
}

TEST(all_ports)
{
	uint32_t last = 0;
	unsigned n = 0;
	long r;

	event_reset();
	for (;; n++) {
		struct evtchn_bind_ipi ipi = { .vcpu = 0 };

		r = hcall2(event_channel_op, EVTCHNOP_bind_ipi, PTR(&ipi));
		if (r || n > 5000)
			break;
		event_owned(ipi.port);
		last = ipi.port;
	}
	expect_eq(r, -XEN_ENOSPC);
	expect(n > 900 && last < 4096, "%u ports, the last one is %u", n, last);
	event_mask_port(last, false);
	events_unmask();
	expect_eq(event_send(last), 0);
	expect_eq(event_count(last), 1);
	events_mask();
	event_close_owned();
}

TEST(block_returns_at_once_when_pending)
{
	uint32_t port = event_bind_ipi();
	uint64_t before = system_time();

	event_reset();
	events_mask();
	event_send(port);
	expect_eq(hcall2(sched_op, SCHEDOP_block, 0), 0);
	expect_eq(event_count(port), 1);		/* block has unmasked */
	expect_eq(this_vcpu()->evtchn_upcall_mask, 0);
	expect(system_time() - before < 1000000000, "it took %lu ns", system_time() - before);
	events_mask();
	event_close(port);
}

TEST(poll)
{
	uint32_t port = event_bind_ipi();
	struct sched_poll poll = { .nr_ports = 1 };
	uint64_t before;

	set_xen_guest_handle(poll.ports, &port);
	events_mask();
	event_reset();
	before = system_time();
	poll.timeout = before + 20000000;
	expect_eq(hcall2(sched_op, SCHEDOP_poll, PTR(&poll)), 0);
	expect(system_time() - before >= 20000000, "back after %lu ns of 20 ms", system_time() - before);
	expect(system_time() - before < 2000000000, "back after %lu ns of 20 ms", system_time() - before);
	event_mask_port(port, true);	/* polls see masked ports */
	event_send(port);
	before = system_time();
	poll.timeout = before + 5000000000;
	expect_eq(hcall2(sched_op, SCHEDOP_poll, PTR(&poll)), 0);
	expect(system_time() - before < 2000000000, "a pending port did not end the poll");
	poll.timeout = 1;		/* long past */
	event_clear_pending(port);
	expect_eq(hcall2(sched_op, SCHEDOP_poll, PTR(&poll)), 0);
	poll.nr_ports = 129;
	expect_eq(hcall2(sched_op, SCHEDOP_poll, PTR(&poll)), -XEN_EINVAL);
	poll.nr_ports = 1;
	port = 0x7fffffff;
	expect_eq(hcall2(sched_op, SCHEDOP_poll, PTR(&poll)), -XEN_EINVAL);
}

TEST(yield_returns)
{
	for (unsigned i = 0; i < 20; i++)
		expect_eq(hcall2(sched_op, SCHEDOP_yield, 0), 0);
	expect_eq(hcall2(sched_op, 99, 0), -XEN_ENOSYS);
}
