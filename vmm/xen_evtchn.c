/*
 * xen_evtchn.c - event channels, 2-level ABI (xen/event_channel.h; as xen/common/event_channel.c and event_2l.c).
 *
 * A channel is one 8-byte word. Changes are made under `lock`; senders only load the word, so raising an event takes
 * no lock on any thread. A send that races a close of the same port may leave a stray pending bit behind: an event too
 * many, which guests have to stand anyway.
 *
 * Order in raise(): pending bit, then v->info, then the selector. VCPUOP_register_vcpu_info sets every selector after
 * it has stored v->info, so an event that hit the old area is still found.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/xen_clock.h"

#define NR_PORTS	(unsigned)EVTCHN_2L_NR_CHANNELS
#define PORTS_PER_WORD	64u

enum channel_state { CHAN_FREE, CHAN_RESERVED, CHAN_UNBOUND, CHAN_INTERDOMAIN, CHAN_VIRQ, CHAN_IPI };

struct channel {
	uint8_t state;		/* enum channel_state */
	uint8_t vcpu;		/* whom it notifies */
	domid_t remote;		/* UNBOUND: who may bind; INTERDOMAIN: whose the other end is */
	uint16_t peer;		/* INTERDOMAIN: the other end's port; VIRQ: which */
	uint16_t pad;
};

struct evtchn {
	pthread_mutex_t lock;
	struct channel _Atomic chan[NR_PORTS];
	_Atomic uint16_t virq[VMM_MAX_VCPUS][NR_VIRQS];		/* port, 0: not bound */
	_Atomic uint64_t pollers;				/* bit per vCPU that polls ... */
	_Atomic uint32_t polled[VMM_MAX_VCPUS];			/* ... for this port, 0: several */
};

_Static_assert(sizeof(struct channel) == 8, "a channel is read with one load");
_Static_assert(VMM_MAX_VCPUS <= UINT8_MAX, "struct channel names a vCPU in 8 bits");

/* The VMM is the domain at the other end of the console, so it needs a name that differs from the guest's. */
static domid_t domid_self(const struct vm *vm)
{
	return vm->config->initdomain ? 0 : 1;
}

static domid_t domid_vmm(const struct vm *vm)
{
	return vm->config->initdomain ? DOMID_XEN : 0;
}

static bool is_self(const struct vm *vm, domid_t dom)
{
	return dom == DOMID_SELF || dom == domid_self(vm);
}

static bool virq_is_global(unsigned virq)
{
	return virq != VIRQ_TIMER && virq != VIRQ_DEBUG && virq != VIRQ_XENOPROF && virq != VIRQ_XENPMU;
}

static bool set_bit(xen_ulong_t *words, unsigned bit)
{
	xen_ulong_t mask = 1ul << bit % PORTS_PER_WORD;

	return __atomic_fetch_or(&words[bit / PORTS_PER_WORD], mask, __ATOMIC_SEQ_CST) & mask;
}

static bool clear_bit(xen_ulong_t *words, unsigned bit)
{
	xen_ulong_t mask = 1ul << bit % PORTS_PER_WORD;

	return __atomic_fetch_and(&words[bit / PORTS_PER_WORD], ~mask, __ATOMIC_SEQ_CST) & mask;
}

static bool test_bit(const xen_ulong_t *words, unsigned bit)
{
	return __atomic_load_n(&words[bit / PORTS_PER_WORD], __ATOMIC_SEQ_CST) >> bit % PORTS_PER_WORD & 1;
}

/* ---- raising -------------------------------------------------------------------------------------------------- */

/* A vCPU on its own thread looks at its events before it resumes; any other has to be told, masked or not: the guest's
 * unmask-then-look is no barrier against our set-then-look. */
static void notify(struct vcpu *v)
{
	if (!pthread_equal(v->thread, pthread_self()))
		vcpu_wake(v);
}

static void select_word(struct vcpu *v, unsigned port)
{
	struct vcpu_info *info = atomic_load(&v->info);

	if (!set_bit(&info->evtchn_pending_sel, port / PORTS_PER_WORD) &&
	    !__atomic_exchange_n(&info->evtchn_upcall_pending, 1, __ATOMIC_SEQ_CST))
		notify(v);
}

/* A waiter for a spinlock polls its own port: only those whom the event may concern are woken. */
static void wake_pollers(struct vm *vm, unsigned port)
{
	for (uint64_t left = atomic_load(&vm->evtchn->pollers); left; left &= left - 1) {
		unsigned i = __builtin_ctzll(left);
		uint32_t polled = atomic_load(&vm->evtchn->polled[i]);

		if (!polled || polled == port)
			vcpu_wake(&vm->vcpus[i]);
	}
}

static void raise(struct vm *vm, unsigned port, unsigned vcpu)
{
	struct shared_info *s = vm->shared;

	if (set_bit(s->evtchn_pending, port))
		return;
	if (!test_bit(s->evtchn_mask, port))
		select_word(&vm->vcpus[vcpu], port);
	if (atomic_load(&vm->evtchn->pollers))
		wake_pollers(vm, port);
}

bool evtchn_pending(struct vcpu *v)
{
	struct vcpu_info *info = atomic_load(&v->info);

	return __atomic_load_n(&info->evtchn_upcall_pending, __ATOMIC_SEQ_CST) &&
	       !__atomic_load_n(&info->evtchn_upcall_mask, __ATOMIC_SEQ_CST);
}

bool evtchn_virq_bound(struct vcpu *v, unsigned virq)
{
	return atomic_load(&v->vm->evtchn->virq[v->id][virq]) != 0;
}

void evtchn_raise_virq(struct vcpu *v, unsigned virq)
{
	unsigned port = atomic_load(&v->vm->evtchn->virq[v->id][virq]);
	struct channel c;

	if (!port)
		return;
	c = atomic_load(&v->vm->evtchn->chan[port]);
	if (c.state == CHAN_VIRQ && c.peer == virq)
		raise(v->vm, port, c.vcpu);
}

void evtchn_raise_port(struct vm *vm, unsigned port)
{
	struct channel c;

	if (!port || port >= NR_PORTS)
		return;
	c = atomic_load(&vm->evtchn->chan[port]);
	if (c.state == CHAN_INTERDOMAIN && c.remote == domid_vmm(vm))
		raise(vm, port, c.vcpu);
}

/* ---- polling -------------------------------------------------------------------------------------------------- */

void evtchn_poll_begin(struct vcpu *v, unsigned port)
{
	atomic_store(&v->vm->evtchn->polled[v->id], port);
	atomic_fetch_or(&v->vm->evtchn->pollers, 1ull << v->id);
}

void evtchn_poll_end(struct vcpu *v)
{
	atomic_fetch_and(&v->vm->evtchn->pollers, ~(1ull << v->id));
}

bool evtchn_polled(struct vcpu *v)
{
	uint32_t port = atomic_load(&v->vm->evtchn->polled[v->id]);

	return atomic_load(&v->vm->evtchn->pollers) >> v->id & 1 && port && test_bit(v->vm->shared->evtchn_pending, port);
}

int evtchn_port_pending(struct vm *vm, unsigned port)
{
	if (!port || port >= NR_PORTS)
		return -EINVAL;
	return test_bit(vm->shared->evtchn_pending, port);
}

/* ---- the table, under evtchn->lock ---------------------------------------------------------------------------- */

static int port_alloc(struct evtchn *e, struct channel c)
{
	for (unsigned port = 1; port < NR_PORTS; port++) {
		if (atomic_load(&e->chan[port]).state == CHAN_FREE) {
			atomic_store(&e->chan[port], c);
			return port;
		}
	}
	return -ENOSPC;
}

static int port_close(struct vm *vm, unsigned port)
{
	struct evtchn *e = vm->evtchn;
	struct channel c, other;

	if (port >= NR_PORTS)
		return -EINVAL;
	c = atomic_load(&e->chan[port]);
	switch (c.state) {
	case CHAN_FREE:
	case CHAN_RESERVED:
		return -EINVAL;
	case CHAN_VIRQ:
		for (unsigned i = 0; i < vm->nr_vcpus; i++)
			if (atomic_load(&e->virq[i][c.peer]) == port)
				atomic_store(&e->virq[i][c.peer], 0);
		break;
	case CHAN_INTERDOMAIN:
		if (c.remote == domid_vmm(vm))
			break;
		other = atomic_load(&e->chan[c.peer]);
		other.state = CHAN_UNBOUND;
		atomic_store(&e->chan[c.peer], other);
		break;
	}
	atomic_store(&e->chan[port], (struct channel){ .state = CHAN_FREE });
	clear_bit(vm->shared->evtchn_pending, port);	/* whoever gets the port next starts clean */
	return 0;
}

int evtchn_make_console(struct vm *vm)
{
	struct evtchn *e = vm->evtchn;
	int port;

	pthread_mutex_lock(&e->lock);
	port = port_alloc(e, (struct channel){ .state = CHAN_INTERDOMAIN, .remote = domid_vmm(vm) });
	pthread_mutex_unlock(&e->lock);
	return port;
}

int evtchn_init(struct vm *vm)
{
	struct evtchn *e = calloc(1, sizeof *e);

	if (!e)
		return -ENOMEM;
	pthread_mutex_init(&e->lock, NULL);
	atomic_store(&e->chan[0], (struct channel){ .state = CHAN_RESERVED });
	vm->evtchn = e;
	return 0;
}

void evtchn_fini(struct vm *vm)
{
	if (!vm->evtchn)
		return;
	pthread_mutex_destroy(&vm->evtchn->lock);
	free(vm->evtchn);
	vm->evtchn = NULL;
}

/* ---- the operations. Called with the lock held and a private copy of the argument ----------------------------- */

union evtchn_arg {
	struct evtchn_alloc_unbound alloc_unbound;
	struct evtchn_bind_interdomain bind_interdomain;
	struct evtchn_bind_virq bind_virq;
	struct evtchn_bind_pirq bind_pirq;
	struct evtchn_bind_ipi bind_ipi;
	struct evtchn_close close;
	struct evtchn_send send;
	struct evtchn_status status;
	struct evtchn_bind_vcpu bind_vcpu;
	struct evtchn_unmask unmask;
	struct evtchn_reset reset;
};

static long op_alloc_unbound(struct vcpu *v, union evtchn_arg *arg)
{
	struct evtchn_alloc_unbound *a = &arg->alloc_unbound;
	struct vm *vm = v->vm;
	int port;

	if (!is_self(vm, a->dom))
		return -EPERM;
	port = port_alloc(vm->evtchn, (struct channel){
		.state = CHAN_UNBOUND, .remote = is_self(vm, a->remote_dom) ? domid_self(vm) : a->remote_dom });
	if (port < 0)
		return port;
	a->port = port;
	return 0;
}

static long op_bind_interdomain(struct vcpu *v, union evtchn_arg *arg)
{
	struct evtchn_bind_interdomain *a = &arg->bind_interdomain;
	struct vm *vm = v->vm;
	struct evtchn *e = vm->evtchn;
	struct channel there;
	int port;

	if (!is_self(vm, a->remote_dom))
		return -ESRCH;
	if (a->remote_port >= NR_PORTS)
		return -EINVAL;
	there = atomic_load(&e->chan[a->remote_port]);
	if (there.state != CHAN_UNBOUND || there.remote != domid_self(vm))
		return -EINVAL;
	port = port_alloc(e, (struct channel){
		.state = CHAN_INTERDOMAIN, .remote = domid_self(vm), .peer = a->remote_port });
	if (port < 0)
		return port;
	there.state = CHAN_INTERDOMAIN;
	there.peer = port;
	atomic_store(&e->chan[a->remote_port], there);
	raise(vm, port, 0);	/* what was sent before the channel was whole is not lost */
	a->local_port = port;
	return 0;
}

static long op_bind_virq(struct vcpu *v, union evtchn_arg *arg)
{
	struct evtchn_bind_virq *a = &arg->bind_virq;
	struct evtchn *e = v->vm->evtchn;
	int port;

	if (a->virq >= NR_VIRQS || (virq_is_global(a->virq) && a->vcpu != 0))
		return -EINVAL;
	if (a->vcpu >= v->vm->nr_vcpus)
		return -ENOENT;
	if (atomic_load(&e->virq[a->vcpu][a->virq]))
		return -EEXIST;
	port = port_alloc(e, (struct channel){ .state = CHAN_VIRQ, .vcpu = a->vcpu, .peer = a->virq });
	if (port < 0)
		return port;
	atomic_store(&e->virq[a->vcpu][a->virq], port);
	a->port = port;
	return 0;
}

static long op_bind_pirq(struct vcpu *v, union evtchn_arg *arg)
{
	return -EINVAL;		/* there are no physical interrupts: every number is out of range */
}

static long op_bind_ipi(struct vcpu *v, union evtchn_arg *arg)
{
	struct evtchn_bind_ipi *a = &arg->bind_ipi;
	int port;

	if (a->vcpu >= v->vm->nr_vcpus)
		return -ENOENT;
	port = port_alloc(v->vm->evtchn, (struct channel){ .state = CHAN_IPI, .vcpu = a->vcpu });
	if (port < 0)
		return port;
	a->port = port;
	return 0;
}

static long op_close(struct vcpu *v, union evtchn_arg *arg)
{
	return port_close(v->vm, arg->close.port);
}

static long op_status(struct vcpu *v, union evtchn_arg *arg)
{
	struct evtchn_status *a = &arg->status;
	struct channel c;

	if (!is_self(v->vm, a->dom))
		return -EPERM;
	if (a->port >= NR_PORTS)
		return -EINVAL;
	c = atomic_load(&v->vm->evtchn->chan[a->port]);
	switch (c.state) {
	case CHAN_FREE:
	case CHAN_RESERVED:
		a->status = EVTCHNSTAT_closed;
		break;
	case CHAN_UNBOUND:
		a->status = EVTCHNSTAT_unbound;
		a->u.unbound.dom = c.remote;
		break;
	case CHAN_INTERDOMAIN:
		a->status = EVTCHNSTAT_interdomain;
		a->u.interdomain.dom = c.remote;
		a->u.interdomain.port = c.peer;
		break;
	case CHAN_VIRQ:
		a->status = EVTCHNSTAT_virq;
		a->u.virq = c.peer;
		break;
	case CHAN_IPI:
		a->status = EVTCHNSTAT_ipi;
		break;
	}
	a->vcpu = c.vcpu;
	return 0;
}

static long op_bind_vcpu(struct vcpu *v, union evtchn_arg *arg)
{
	struct evtchn_bind_vcpu *a = &arg->bind_vcpu;
	struct evtchn *e = v->vm->evtchn;
	struct channel c;

	if (a->vcpu >= v->vm->nr_vcpus)
		return -ENOENT;
	if (a->port >= NR_PORTS)
		return -EINVAL;
	c = atomic_load(&e->chan[a->port]);
	if (c.state != CHAN_UNBOUND && c.state != CHAN_INTERDOMAIN && (c.state != CHAN_VIRQ || !virq_is_global(c.peer)))
		return -EINVAL;
	c.vcpu = a->vcpu;
	atomic_store(&e->chan[a->port], c);
	return 0;
}

static long op_reset(struct vcpu *v, union evtchn_arg *arg)
{
	if (!is_self(v->vm, arg->reset.dom))
		return -EPERM;
	for (unsigned port = 1; port < NR_PORTS; port++)
		port_close(v->vm, port);	/* -EINVAL: was not open */
	return 0;
}

/* ---- the two that need no lock -------------------------------------------------------------------------------- */

static long op_send(struct vcpu *v, union evtchn_arg *arg)
{
	struct vm *vm = v->vm;
	unsigned port = arg->send.port;
	struct channel c, other;

	if (port >= NR_PORTS)
		return -EINVAL;
	c = atomic_load(&vm->evtchn->chan[port]);
	switch (c.state) {
	case CHAN_INTERDOMAIN:
		if (c.remote == domid_vmm(vm)) {
			if (port == vm->console_port)
				console_kick(vm);
			return 0;
		}
		other = atomic_load(&vm->evtchn->chan[c.peer]);
		raise(vm, c.peer, other.vcpu);
		return 0;
	case CHAN_IPI:
		raise(vm, port, c.vcpu);
		return 0;
	case CHAN_UNBOUND:	/* nobody listens */
		return 0;
	default:
		return -EINVAL;
	}
}

static long op_unmask(struct vcpu *v, union evtchn_arg *arg)
{
	struct vm *vm = v->vm;
	unsigned port = arg->unmask.port;
	struct channel c;

	if (port >= NR_PORTS)
		return -EINVAL;
	c = atomic_load(&vm->evtchn->chan[port]);
	if (c.state == CHAN_FREE || c.state == CHAN_RESERVED)
		return -EINVAL;
	if (clear_bit(vm->shared->evtchn_mask, port) && test_bit(vm->shared->evtchn_pending, port))
		select_word(&vm->vcpus[c.vcpu], port);
	return 0;
}

static const struct evtchn_op_desc {
	long (*fn)(struct vcpu *v, union evtchn_arg *arg);
	uint8_t size;		/* of the argument */
	bool answers;		/* the argument is written back */
	bool lockless;
} ops[] = {
	[EVTCHNOP_bind_interdomain] = { op_bind_interdomain, sizeof(struct evtchn_bind_interdomain), .answers = true },
	[EVTCHNOP_bind_virq] = { op_bind_virq, sizeof(struct evtchn_bind_virq), .answers = true },
	[EVTCHNOP_bind_pirq] = { op_bind_pirq, sizeof(struct evtchn_bind_pirq) },
	[EVTCHNOP_close] = { op_close, sizeof(struct evtchn_close) },
	[EVTCHNOP_send] = { op_send, sizeof(struct evtchn_send), .lockless = true },
	[EVTCHNOP_status] = { op_status, sizeof(struct evtchn_status), .answers = true },
	[EVTCHNOP_alloc_unbound] = { op_alloc_unbound, sizeof(struct evtchn_alloc_unbound), .answers = true },
	[EVTCHNOP_bind_ipi] = { op_bind_ipi, sizeof(struct evtchn_bind_ipi), .answers = true },
	[EVTCHNOP_bind_vcpu] = { op_bind_vcpu, sizeof(struct evtchn_bind_vcpu) },
	[EVTCHNOP_unmask] = { op_unmask, sizeof(struct evtchn_unmask), .lockless = true },
	[EVTCHNOP_reset] = { op_reset, sizeof(struct evtchn_reset) },
};

/* event_channel_op(op, arg). The FIFO ABI (init_control, expand_array, set_priority) is -ENOSYS: guests fall back. */
long xen_event_channel_op(struct vcpu *v, const uint64_t a[6])
{
	struct evtchn *e = v->vm->evtchn;
	const struct evtchn_op_desc *op;
	union evtchn_arg arg;
	long r;

	if (a[0] >= sizeof ops / sizeof *ops)
		return -ENOSYS;
	op = &ops[a[0]];
	if (guest_read(v, a[1], &arg, op->size))
		return -EFAULT;
	if (op->lockless)
		return op->fn(v, &arg);
	vm_lock(&e->lock, &v->counters.vcpu.port_waits);
	r = op->fn(v, &arg);
	pthread_mutex_unlock(&e->lock);
	if (!r && op->answers && guest_write(v, a[1], &arg, op->size))
		r = -EFAULT;
	return r;
}
