/*
 * events.c - the upcall handler: as Linux's, selector word, pending words, masks.
 */
#include "lib/events.h"

struct regs event_frame;
uint8_t event_mask_inside;

static unsigned counts[4096];
static uint64_t owned[64];
static uint32_t virq_port[NR_VIRQS];

static bool upcall(struct regs *r)
{
	struct vcpu_info *v = this_vcpu();
	uint64_t sel;

	event_frame = *r;
	event_mask_inside = v->evtchn_upcall_mask;
	v->evtchn_upcall_pending = 0;
	sel = __atomic_exchange_n(&v->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
	while (sel) {
		unsigned word = (unsigned)__builtin_ctzl(sel);
		uint64_t pending = shared_info->evtchn_pending[word] & ~shared_info->evtchn_mask[word];

		sel &= sel - 1;
		while (pending) {
			unsigned bit = (unsigned)__builtin_ctzl(pending);

			pending &= pending - 1;
			__atomic_and_fetch(&shared_info->evtchn_pending[word], ~(1ul << bit), __ATOMIC_SEQ_CST);
			counts[word * 64 + bit]++;
		}
	}
	return (r->cs & 3) != 3;	/* from user mode: user_run() wants to know */
}

void events_init(void)
{
	trap_hook(VEC_EVENT, upcall);
}

void event_reset(void)
{
	events_init();
	memset(counts, 0, sizeof(counts));
}

unsigned event_count(uint32_t port)
{
	return *(volatile unsigned *)&counts[port];
}

void event_mask_port(uint32_t port, bool masked)
{
	if (masked)
		__atomic_or_fetch(&shared_info->evtchn_mask[port / 64], 1ul << port % 64, __ATOMIC_SEQ_CST);
	else
		__atomic_and_fetch(&shared_info->evtchn_mask[port / 64], ~(1ul << port % 64), __ATOMIC_SEQ_CST);
}

void event_clear_pending(uint32_t port)
{
	__atomic_and_fetch(&shared_info->evtchn_pending[port / 64], ~(1ul << port % 64), __ATOMIC_SEQ_CST);
}

uint32_t event_bind_ipi(void)
{
	struct evtchn_bind_ipi bind = { .vcpu = 0 };

	events_init();
	if (hcall2(event_channel_op, EVTCHNOP_bind_ipi, PTR(&bind))) {
		test_fail("bind_ipi");
		return 0;
	}
	counts[bind.port] = 0;
	event_mask_port(bind.port, false);
	return bind.port;
}

uint32_t event_bind_virq(uint32_t virq)
{
	struct evtchn_bind_virq bind = { .virq = virq, .vcpu = 0 };

	events_init();
	if (!virq_port[virq]) {
		if (hcall2(event_channel_op, EVTCHNOP_bind_virq, PTR(&bind))) {
			test_fail("bind_virq %u", virq);
			return 0;
		}
		virq_port[virq] = bind.port;
		event_mask_port(bind.port, false);
	}
	return virq_port[virq];
}

long event_send(uint32_t port)
{
	struct evtchn_send send = { .port = port };

	return hcall2(event_channel_op, EVTCHNOP_send, PTR(&send));
}

long event_close(uint32_t port)
{
	struct evtchn_close close = { .port = port };

	return hcall2(event_channel_op, EVTCHNOP_close, PTR(&close));
}

void event_owned(uint32_t port)
{
	owned[port / 64] |= 1ul << port % 64;
}

void event_close_owned(void)
{
	for (uint32_t port = 0; port < 4096; port++)
		if (owned[port / 64] >> port % 64 & 1)
			event_close(port);
	memset(owned, 0, sizeof(owned));
}
