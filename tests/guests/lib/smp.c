/*
 * smp.c - more than one vCPU (smp.h).
 */
#include "lib/smp.h"

struct cpu cpus[SMP_MAX];
unsigned nr_cpus;
uint32_t smp_port[SMP_MAX][SMP_MAX], smp_timer_port[SMP_MAX];
static uint8_t port_from[4096], port_kind[4096];	/* 1: IPI, 2: timer */

void cpu_fail(struct cpu *c, const char *why, uint64_t a, uint64_t b)
{
	if (c->why)
		return;
	c->why_a = a;
	c->why_b = b;
	c->why = why;
}

static bool on_event(struct regs *r)
{
	struct cpu *c = this_cpu();
	uint64_t sel;

	c->info->evtchn_upcall_pending = 0;
	sel = __atomic_exchange_n(&c->info->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);
	for (; sel; sel &= sel - 1) {
		unsigned word = (unsigned)__builtin_ctzl(sel);
		uint64_t pending = __atomic_load_n(&shared_info->evtchn_pending[word], __ATOMIC_SEQ_CST) &
				   ~__atomic_load_n(&shared_info->evtchn_mask[word], __ATOMIC_SEQ_CST);

		for (; pending; pending &= pending - 1) {
			unsigned port = word * 64 + (unsigned)__builtin_ctzl(pending);
			unsigned from = port_from[port];

			/* Other vCPUs' ports share the words: Linux looks only at those bound to itself. */
			if (port_kind[port] == 1 && smp_port[from][c->id] == port) {
				__atomic_and_fetch(&shared_info->evtchn_pending[word], ~(1ul << port % 64), __ATOMIC_SEQ_CST);
				c->events[from]++;
			} else if (port_kind[port] == 2 && smp_timer_port[c->id] == port) {
				__atomic_and_fetch(&shared_info->evtchn_pending[word], ~(1ul << port % 64), __ATOMIC_SEQ_CST);
				c->timer_events++;
			}
		}
	}
	return true;
}

static bool on_fault(struct regs *r)
{
	struct cpu *c = this_cpu();

	if (!c->fault_resume)
		return false;
	c->fault_va = c->info->arch.cr2;
	c->faults++;
	r->rip = c->fault_resume;
	c->fault_resume = 0;
	return true;
}

static bool on_int3(struct regs *r)
{
	this_cpu()->traps++;
	return true;
}

bool cpu_read(struct cpu *c, uint64_t va, uint64_t *value)
{
	unsigned before = c->faults;
	uint64_t v = 0;

	asm volatile("leaq 1f(%%rip), %%rcx\n\tmovq %%rcx, %1\n\tmovq (%2), %0\n1:"
		     : "=&r"(v), "=m"(c->fault_resume) : "a"(va) : "rcx", "memory");
	c->fault_resume = 0;
	*value = v;
	return c->faults == before;
}

bool cpu_write(struct cpu *c, uint64_t va, uint64_t value)
{
	unsigned before = c->faults;

	asm volatile("leaq 1f(%%rip), %%rcx\n\tmovq %%rcx, %0\n\tmovq %2, (%1)\n1:"
		     : "=m"(c->fault_resume) : "a"(va), "r"(value) : "rcx", "memory");
	c->fault_resume = 0;
	return c->faults == before;
}

void cpu_events_mask(struct cpu *c)
{
	*(volatile uint8_t *)&c->info->evtchn_upcall_mask = 1;
	asm volatile("" ::: "memory");
}

void cpu_events_unmask(struct cpu *c)
{
	asm volatile("" ::: "memory");
	*(volatile uint8_t *)&c->info->evtchn_upcall_mask = 0;
	asm volatile("" ::: "memory");
	if (*(volatile uint8_t *)&c->info->evtchn_upcall_pending)
		hcall2(xen_version, XENVER_version, 0);
}

void cpu_block(struct cpu *c, const volatile unsigned *count, unsigned old)
{
	cpu_events_mask(c);
	if (*count == old)
		hcall2(sched_op, SCHEDOP_block, 0);	/* opens events and sleeps in one */
	cpu_events_unmask(c);
}

long cpu_send(uint32_t port)
{
	struct evtchn_send send = { .port = port };

	return hcall2(event_channel_op, EVTCHNOP_send, PTR(&send));
}

uint64_t cpu_time(struct cpu *c)
{
	volatile struct vcpu_time_info *t = &c->info->time;
	uint64_t delta, ns;
	uint32_t version;

	do {
		version = t->version;
		asm volatile("lfence" ::: "memory");
		delta = rdtsc() - t->tsc_timestamp;
		delta = t->tsc_shift < 0 ? delta >> -t->tsc_shift : delta << t->tsc_shift;
		ns = t->system_time + (uint64_t)((unsigned __int128)delta * t->tsc_to_system_mul >> 32);
		asm volatile("" ::: "memory");
	} while (version & 1 || version != t->version);
	return ns;
}

bool smp_late(uint64_t since, uint64_t ns)
{
	return system_time() - since > ns;
}

/* Where a vCPU starts, RDI: its struct cpu. */
static void __attribute__((noreturn)) cpu_main(struct cpu *c)
{
	cpu_events_unmask(c);
	for (;;) {
		unsigned job = __atomic_load_n(&c->job, __ATOMIC_ACQUIRE);

		if (job == c->done) {
			relax();
			continue;
		}
		c->fn(c);
		__atomic_store_n(&c->done, job, __ATOMIC_RELEASE);
	}
}

bool smp_context(unsigned id, struct vcpu_guest_context *c)
{
	memset(c, 0, sizeof(*c));
	traps_context(c);
	c->user_regs.rip = PTR(cpu_main);
	c->user_regs.rdi = PTR(&cpus[id]);
	c->user_regs.rsp = PTR(cpus[id].stack + sizeof(cpus[id].stack) - 8);
	c->user_regs.rflags = 0x1200;
	c->user_regs.cs = FLAT_KERNEL_CS;
	c->user_regs.ss = FLAT_KERNEL_SS;
	c->kernel_ss = FLAT_KERNEL_SS;
	c->kernel_sp = PTR(cpus[id].stack + sizeof(cpus[id].stack) / 2);
	c->gs_base_kernel = PTR(&cpus[id]);
	c->ctrlreg[3] = va_to_mfn(root_va()) << 12;
	return true;
}

static void bind_ports(void)
{
	for (unsigned to = 0; to < nr_cpus; to++) {
		struct evtchn_bind_virq virq = { .virq = VIRQ_TIMER, .vcpu = to };

		for (unsigned from = 0; from < nr_cpus; from++) {
			struct evtchn_bind_ipi bind = { .vcpu = to };

			if (hcall2(event_channel_op, EVTCHNOP_bind_ipi, PTR(&bind)))
				return test_fail("bind_ipi to vCPU %u", to);
			port_from[bind.port] = (uint8_t)from;
			port_kind[bind.port] = 1;
			smp_port[from][to] = bind.port;
			__atomic_and_fetch(&shared_info->evtchn_mask[bind.port / 64], ~(1ul << bind.port % 64), __ATOMIC_SEQ_CST);
		}
		if (hcall2(event_channel_op, EVTCHNOP_bind_virq, PTR(&virq)))
			return test_fail("bind_virq to vCPU %u", to);
		port_kind[virq.port] = 2;
		smp_timer_port[to] = virq.port;
		__atomic_and_fetch(&shared_info->evtchn_mask[virq.port / 64], ~(1ul << virq.port % 64), __ATOMIC_SEQ_CST);
		hcall3(vcpu_op, VCPUOP_stop_periodic_timer, to, 0);	/* for vCPU 0; the others do it themselves */
	}
}

static void stop_ticker(struct cpu *c)
{
	if (hcall3(vcpu_op, VCPUOP_stop_periodic_timer, c->id, 0))
		cpu_fail(c, "stop_periodic_timer", 0, 0);
}

void smp_init(void)
{
	static struct vcpu_guest_context c;
	long r;

	if (nr_cpus)
		return;
	nr_cpus = (unsigned)option_number("cpus", 2);
	if (nr_cpus > SMP_MAX)
		nr_cpus = SMP_MAX;
	for (unsigned i = 0; i < nr_cpus; i++) {
		cpus[i].self = &cpus[i];
		cpus[i].id = i;
		cpus[i].info = &shared_info->vcpu_info[i];
		cpus[i].seed = option_number("seed", 1) * 977 + i + 1;
	}
	hcall2(set_segment_base, SEGBASE_GS_KERNEL, PTR(&cpus[0]));
	trap_hook(VEC_EVENT, on_event);
	trap_hook(14, on_fault);
	trap_hook(3, on_int3);
	bind_ports();
	for (unsigned i = 1; i < nr_cpus; i++) {
		smp_context(i, &c);
		r = hcall3(vcpu_op, VCPUOP_initialise, i, PTR(&c));
		if (!r)
			r = hcall3(vcpu_op, VCPUOP_up, i, 0);
		if (r)
			return test_fail("vCPU %u does not start: %ld", i, r);
		smp_give(i, stop_ticker, 0);
		smp_wait(i);
	}
	cpu_events_unmask(&cpus[0]);
}

void smp_give(unsigned id, void (*fn)(struct cpu *c), uint64_t arg)
{
	struct cpu *c = &cpus[id];

	c->fn = fn;
	c->arg = arg;
	__atomic_store_n(&c->job, c->job + 1, __ATOMIC_RELEASE);
}

void smp_wait(unsigned id)
{
	struct cpu *c = &cpus[id];
	uint64_t since = system_time();

	while (__atomic_load_n(&c->done, __ATOMIC_ACQUIRE) != c->job && !smp_late(since, 20000000000ul))
		relax();
	if (c->done != c->job)
		test_fail("vCPU %u has not come to its end", id);
	if (c->why)
		test_fail("vCPU %u: %s (%lu, %lu)", id, c->why, (uint64_t)c->why_a, (uint64_t)c->why_b);
	c->why = NULL;
}
