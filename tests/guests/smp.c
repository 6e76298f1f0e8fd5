/*
 * smp.c - several vCPUs: bring-up, IPIs, polling, timers, and flushes that reach the others. cpus=N on the command line.
 */
#include "lib/smp.h"

#define WINDOW	(TEST_VA + 0x400000)

static volatile uint64_t published, stop;
static uint64_t rounds;		/* rounds=N: how often, 400 */
static uint64_t *frames[2];
static uint64_t window_pte;	/* machine address of the window's leaf entry */

static void start(void)
{
	rounds = option_number("rounds", 400);
	smp_init();
}

static void nothing(struct cpu *c)
{
	if (this_cpu() != c)
		cpu_fail(c, "GS base is not its own", 0, 0);
}

TEST(bring_up)
{
	static struct vcpu_guest_context c;

	start();
	for (unsigned i = 1; i < nr_cpus; i++) {
		smp_give(i, nothing, 0);
		smp_wait(i);
		expect_eq(hcall3(vcpu_op, VCPUOP_is_up, i, 0), 1);
		smp_context(i, &c);
		expect_eq(hcall3(vcpu_op, VCPUOP_initialise, i, PTR(&c)), -XEN_EEXIST);
		expect_eq(hcall3(vcpu_op, VCPUOP_up, i, 0), 0);
	}
	expect_eq(hcall3(vcpu_op, VCPUOP_is_up, nr_cpus, 0), -XEN_ENOENT);
	expect_eq(hcall3(vcpu_op, VCPUOP_up, nr_cpus, 0), -XEN_ENOENT);
}

static void down(struct cpu *c)
{
	for (unsigned i = 0; i < c->arg; i++)
		if (hcall3(vcpu_op, VCPUOP_down, c->id, 0))
			cpu_fail(c, "VCPUOP_down", i, 0);
}

/* Down is in the middle of its hypercall: up lets it return, with nothing lost. */
TEST(down_and_up)
{
	start();
	for (unsigned i = 1; i < nr_cpus; i++) {
		smp_give(i, down, 3);
		for (unsigned round = 0; round < 3; round++) {
			uint64_t since = system_time();

			while (hcall3(vcpu_op, VCPUOP_is_up, i, 0) == 1 && !smp_late(since, 5000000000ul))
				relax();
			expect_eq(hcall3(vcpu_op, VCPUOP_is_up, i, 0), 0);
			expect_eq(hcall3(vcpu_op, VCPUOP_down, i, 0), -XEN_EINVAL);
			expect_eq(hcall3(vcpu_op, VCPUOP_up, i, 0), 0);
		}
		smp_wait(i);
	}
}

/* Every event from the one before is passed on: the token goes round. */
static void pass_on(struct cpu *c)
{
	unsigned from = (c->id + nr_cpus - 1) % nr_cpus, to = (c->id + 1) % nr_cpus;

	for (unsigned n = 0; n < c->arg; n++) {
		uint64_t since = cpu_time(c);

		while (c->events[from] == n) {
			if (cpu_time(c) - since > 10000000000ul)
				return cpu_fail(c, "an event is lost", n, c->events[from]);
			cpu_block(c, &c->events[from], n);
		}
		if (c->id && cpu_send(smp_port[c->id][to]))
			cpu_fail(c, "send", n, 0);
	}
}

TEST(events_go_round)
{
	start();
	for (unsigned i = 0; i < nr_cpus; i++)
		for (unsigned k = 0; k < nr_cpus; k++)
			cpus[i].events[k] = 0;
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_give(i, pass_on, rounds);
	for (uint64_t n = 0; n < rounds && !test_failed(); n++) {
		uint64_t since = system_time();

		expect_eq(cpu_send(smp_port[0][1]), 0);
		while (cpus[0].events[nr_cpus - 1] == n) {
			if (smp_late(since, 10000000000ul))
				return test_fail("the token is lost in round %lu", n);
			cpu_block(&cpus[0], &cpus[0].events[nr_cpus - 1], n);
		}
	}
	for (unsigned i = 1; i < nr_cpus; i++) {
		smp_wait(i);
		expect_eq(cpus[i].events[i - 1], rounds);
	}
	expect_eq(cpus[0].events[nr_cpus - 1], rounds);
}

/* As a waiter for a spinlock: a masked port of its own, polled. */
static void poll_port(struct cpu *c)
{
	evtchn_port_t port = smp_port[0][c->id];
	struct sched_poll poll = { .ports.p = &port, .nr_ports = 1 };
	uint64_t *pending = &shared_info->evtchn_pending[port / 64], bit = 1ul << port % 64;

	for (uint64_t n = 0; n < rounds; n++) {
		uint64_t since = cpu_time(c);

		__atomic_store_n(&published, n + 1, __ATOMIC_SEQ_CST);
		while (!(__atomic_load_n(pending, __ATOMIC_SEQ_CST) & bit)) {
			poll.timeout = cpu_time(c) + 5000000000ul;
			if (hcall2(sched_op, SCHEDOP_poll, PTR(&poll)))
				return cpu_fail(c, "SCHEDOP_poll", n, 0);
			if (cpu_time(c) - since > 4000000000ul)
				return cpu_fail(c, "poll was not woken", n, 0);
		}
		__atomic_and_fetch(pending, ~bit, __ATOMIC_SEQ_CST);
	}
}

TEST(poll_wakes)
{
	start();
	for (unsigned i = 1; i < nr_cpus && !test_failed(); i++) {
		uint32_t port = smp_port[0][i];

		published = 0;
		__atomic_or_fetch(&shared_info->evtchn_mask[port / 64], 1ul << port % 64, __ATOMIC_SEQ_CST);
		smp_give(i, poll_port, 0);
		for (uint64_t n = 0; n < rounds; n++) {
			uint64_t since = system_time();

			while (published != n + 1 && !smp_late(since, 10000000000ul))
				relax();
			for (volatile unsigned spin = 0; spin < n * 16; spin++)
				;
			expect_eq(cpu_send(port), 0);
		}
		smp_wait(i);
		__atomic_and_fetch(&shared_info->evtchn_mask[port / 64], ~(1ul << port % 64), __ATOMIC_SEQ_CST);
	}
}

static void timers(struct cpu *c)
{
	for (unsigned n = 0; n < 10; n++) {
		struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = cpu_time(c) + 1000000 + c->id * 100000 };
		unsigned before = c->timer_events;

		if (hcall3(vcpu_op, VCPUOP_set_singleshot_timer, c->id, PTR(&t)))
			return cpu_fail(c, "set_singleshot_timer", n, 0);
		while (c->timer_events == before) {
			if (cpu_time(c) > t.timeout_abs_ns + 5000000000ul)
				return cpu_fail(c, "the timer does not fire", n, 0);
			if (n & 1)
				cpu_block(c, &c->timer_events, before);
		}
		if (cpu_time(c) < t.timeout_abs_ns)
			cpu_fail(c, "the timer is early", n, t.timeout_abs_ns - cpu_time(c));
	}
}

TEST(timers_of_each_vcpu)
{
	start();
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_give(i, timers, 0);
	timers(&cpus[0]);
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_wait(i);
	if (cpus[0].why)
		test_fail("vCPU 0: %s", cpus[0].why);
}

/* ---- flushes ------------------------------------------------------------------------------------------------------ */

static bool window_init(void)
{
	if (!window_pte) {
		for (unsigned i = 0; i < 2; i++)
			frames[i] = page_alloc();
		if (map_page(root_va(), WINDOW, 0))
			return false;
		window_pte = mach(pte_of(root_va(), WINDOW, 1));
	}
	return true;
}

/* What was published before it looked is what it must see. */
static void watch(struct cpu *c)
{
	uint64_t value, last = 0, looks = 0;

	while (!stop) {
		uint64_t least = __atomic_load_n(&published, __ATOMIC_SEQ_CST);

		if (!cpu_read(c, WINDOW, &value))
			return cpu_fail(c, "a mapped page faults", least, c->fault_va);
		if (value < least)
			return cpu_fail(c, "a stale translation", value, least);
		last = value;
		if (++looks % 1024 == 0)
			relax();
	}
	c->arg = last;
}

static uint64_t everybody = ~0ul;

static long flush_by(unsigned how, uint64_t va)
{
	switch (how) {
	case 0:
		return mmuext(MMUEXT_INVLPG_MULTI, va, PTR(&everybody));
	case 1:
		return mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, PTR(&everybody));
	case 2:
		return mmuext(MMUEXT_INVLPG_ALL, va, 0);
	default:
		return mmuext(MMUEXT_TLB_FLUSH_ALL, 0, 0);
	}
}

TEST(flush_reaches_all)
{
	uint64_t n = 1;

	start();
	expect(window_init(), "no window");
	stop = published = 0;
	*frames[1] = 1;
	expect_eq(mmu_update_one(window_pte, pte_make(va_to_mfn(frames[1]), PTE_DATA)), 0);
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_give(i, watch, 0);
	for (n = 2; n < rounds && !test_failed(); n++) {
		uint64_t *frame = frames[n & 1], pte = pte_make(va_to_mfn(frame), PTE_DATA);

		*(volatile uint64_t *)frame = n;
		if (n % 6 == 4) {
			expect_eq(update_va(WINDOW, pte, UVMF_TLB_FLUSH | UVMF_ALL), 0);
		} else if (n % 6 == 5) {
			expect_eq(update_va(WINDOW, pte, UVMF_INVLPG | PTR(&everybody)), 0);
		} else {
			expect_eq(mmu_update_one(window_pte, pte), 0);
			expect_eq(flush_by(n % 6, WINDOW), 0);
		}
		__atomic_store_n(&published, n, __ATOMIC_SEQ_CST);
		if (n % 32 == 0)
			relax();
	}
	stop = 1;
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_wait(i);
}

/* One changes the entry, another flushes its own TLB afterwards: it has to see the change. */
static void change(struct cpu *c)
{
	for (uint64_t n = 2; n < rounds; n++) {
		uint64_t *frame = frames[n & 1];

		*(volatile uint64_t *)frame = n;
		if (mmu_update_one(window_pte, pte_make(va_to_mfn(frame), PTE_DATA)))
			return cpu_fail(c, "mmu_update", n, 0);
		__atomic_store_n(&published, n, __ATOMIC_SEQ_CST);
		while (!stop && c->arg != n)
			;
	}
}

TEST(flush_sees_others_changes)
{
	uint64_t value;

	start();
	expect(window_init(), "no window");
	stop = published = 0;
	*frames[1] = 1;
	expect_eq(mmu_update_one(window_pte, pte_make(va_to_mfn(frames[1]), PTE_DATA)), 0);
	smp_give(1, change, 1);
	for (uint64_t n = 2; n < rounds && !test_failed(); n++) {
		uint64_t since = system_time();

		while (__atomic_load_n(&published, __ATOMIC_SEQ_CST) != n && !smp_late(since, 5000000000ul))
			;
		expect_eq(mmuext(n & 2 ? MMUEXT_INVLPG_LOCAL : MMUEXT_TLB_FLUSH_LOCAL, WINDOW, 0), 0);
		expect(cpu_read(&cpus[0], WINDOW, &value), "it faults");
		expect_eq(value, n);
		cpus[1].arg = n;
	}
	stop = 1;
	smp_wait(1);
}

/* Counts up in the window until it faults. */
static void scribble(struct cpu *c)
{
	uint64_t va = WINDOW + c->id * 8;

	for (uint64_t n = 1; !stop; n++) {
		if (!cpu_write(c, va, n))
			break;
		c->arg = n;
	}
	if (!stop && c->fault_va != va)
		cpu_fail(c, "a fault elsewhere", c->fault_va, va);
}

TEST(write_protection_reaches_all)
{
	uint64_t before[SMP_MAX];
	volatile uint64_t *words;

	start();
	expect(window_init(), "no window");
	words = frames[0];
	for (unsigned n = 0; n < 40 && !test_failed(); n++) {
		stop = 0;
		expect_eq(mmu_update_one(window_pte, pte_make(va_to_mfn(frames[0]), PTE_DATA)), 0);
		for (unsigned i = 1; i < nr_cpus; i++) {
			words[i] = 0;
			smp_give(i, scribble, 0);
		}
		for (unsigned i = 1; i < nr_cpus; i++)
			while (!words[i])
				relax();
		expect_eq(mmu_update_one(window_pte, n & 1 ? 0 : pte_make(va_to_mfn(frames[0]), PTE_RO_DATA)), 0);
		expect_eq(flush_by(n & 3, WINDOW), 0);
		for (unsigned i = 1; i < nr_cpus; i++)
			before[i] = words[i];
		for (unsigned i = 0; i < 20; i++)
			relax();
		for (unsigned i = 1; i < nr_cpus; i++) {
			if (words[i] != before[i])
				test_fail("vCPU %u wrote after the flush: %lu, then %lu", i, before[i], (uint64_t)words[i]);
		}
		stop = test_failed();
		for (unsigned i = 1; i < nr_cpus; i++)
			smp_wait(i);
	}
}

/* ---- pins ------------------------------------------------------------------------------------------------------------ */

static void pin_table(struct cpu *c)
{
	long r = mmuext(MMUEXT_PIN_L3_TABLE, c->arg, 0);

	if (r)
		cpu_fail(c, "pin", (uint64_t)-r, c->arg);
}

/* One pins a table, another gives it up and uses the page for something else. The order is the guest's, not the rings'. */
TEST(pins_of_several_vcpus)
{
	start();
	for (unsigned n = 0; n < 100 && !test_failed(); n++) {
		uint64_t *table = table_alloc(), mfn = va_to_mfn(table);
		unsigned who = 1 + n % (nr_cpus - 1);

		smp_give(who, pin_table, mfn);
		smp_wait(who);
		expect_eq(mmuext(MMUEXT_UNPIN_TABLE, mfn, 0), 0);
		page_protect(table, PTE_DATA);
		expect(cpu_write(&cpus[0], PTR(table), n), "a page that was a table cannot be written, round %u", n);
		smp_give(who, nothing, 0);
		smp_wait(who);
		expect(cpu_write(&cpus[0], PTR(table) + 8, n), "a page that was a table cannot be written any more, round %u", n);
		page_free(table);
	}
}
