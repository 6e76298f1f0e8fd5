/*
 * stress.c - all vCPUs at once: page-table updates, direct stores to page tables, flushes, events, polls, timers, int3, pins,
 * roots. Every word read and every event is checked. cpus=N, seconds=N (default 5), seed=N.
 *
 * Each vCPU owns SLOTS pages of the window and two frames for each. A slot's entry alternates between the frames; a frame's
 * first word says which generation it is. What an owner has published, after a flush that reached all, everybody must see.
 */
#include "lib/smp.h"

#define SLOTS	4u
#define WINDOW	(TEST_VA + 0x400000)

static struct slot {
	uint64_t *frame[2], *entry, generation;
	volatile uint64_t published;
} slots[SMP_MAX][SLOTS];
static volatile uint64_t sent[SMP_MAX][SMP_MAX];
static volatile unsigned stop;
static uint64_t all_vcpus = ~0ul;
static uint64_t steps[SMP_MAX];
static uint64_t *own_root[SMP_MAX], *own_table[SMP_MAX];

static uint64_t slot_va(unsigned cpu, unsigned i)
{
	return WINDOW + (cpu * SLOTS + i) * PAGE;
}

static void update_own(struct cpu *c)
{
	unsigned i = random64(&c->seed) % SLOTS, how = random64(&c->seed) % 10;
	struct slot *s = &slots[c->id][i];
	uint64_t generation = s->generation + 1, *frame = s->frame[generation & 1], va = slot_va(c->id, i);
	uint64_t pte = pte_make(va_to_mfn(frame), generation % 3 ? PTE_DATA : PTE_RO_DATA);
	long r = 0;

	*(volatile uint64_t *)frame = generation;
	if (how < 2)
		r = update_va(va, pte, how ? UVMF_TLB_FLUSH | UVMF_ALL : UVMF_INVLPG | PTR(&all_vcpus));
	else if (how < 6)
		r = mmu_update_one(mach(s->entry), pte);
	else	/* a table that is only mapped read-only: the store comes through */
		*(volatile uint64_t *)s->entry = pte;
	if (!r && how > 1 && how % 4 == 2)
		r = mmuext(MMUEXT_INVLPG_MULTI, va, PTR(&all_vcpus));
	else if (!r && how > 1 && how % 4 == 3)
		r = mmuext(MMUEXT_TLB_FLUSH_MULTI, 0, PTR(&all_vcpus));
	else if (!r && how > 1 && how % 4 == 0)
		r = mmuext(MMUEXT_INVLPG_ALL, va, 0);
	else if (!r && how > 1)
		r = mmuext(MMUEXT_TLB_FLUSH_ALL, 0, 0);
	if (r)
		return cpu_fail(c, "an update is refused", how, (uint64_t)-r);
	s->generation = generation;
	__atomic_store_n(&s->published, generation, __ATOMIC_SEQ_CST);
	if (cpu_write(c, va + 8 * (c->id + 1), generation) != !!(pte & PTE_W))
		cpu_fail(c, "a write is let through, or is not", pte, generation);
}

static void look(struct cpu *c)
{
	unsigned cpu = random64(&c->seed) % nr_cpus, i = random64(&c->seed) % SLOTS;
	uint64_t least = __atomic_load_n(&slots[cpu][i].published, __ATOMIC_SEQ_CST), value;

	if (!cpu_read(c, slot_va(cpu, i), &value))
		return cpu_fail(c, "a mapped page faults", cpu, c->fault_va);
	if (value < least)
		cpu_fail(c, "a stale translation", value, least);
}

/* Events coalesce; none is lost. */
static void send_event(struct cpu *c)
{
	unsigned to = random64(&c->seed) % nr_cpus;

	__atomic_add_fetch(&sent[c->id][to], 1, __ATOMIC_SEQ_CST);
	if (cpu_send(smp_port[c->id][to]))
		cpu_fail(c, "an event cannot be sent", to, 0);
}

static void set_timer(struct cpu *c)
{
	struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = cpu_time(c) + random64(&c->seed) % 2000000 };
	unsigned before = c->timer_events;

	if (hcall3(vcpu_op, VCPUOP_set_singleshot_timer, c->id, PTR(&t)))
		return cpu_fail(c, "a timer cannot be set", 0, 0);
	while (c->timer_events == before && cpu_time(c) < t.timeout_abs_ns + 10000000000ul)
		cpu_block(c, &c->timer_events, before);
	if (c->timer_events == before)
		cpu_fail(c, "a timer is lost", t.timeout_abs_ns, cpu_time(c));
}

static void breakpoint(struct cpu *c)
{
	unsigned before = c->traps;
	uint64_t rax = 0x1234567;

	asm volatile("int3" : "+a"(rax) :: "memory");
	if (c->traps != before + 1 || rax != 0x1234567)
		cpu_fail(c, "int3", c->traps - before, rax);
}

/* Another root, which shares all below it, and back. */
static void other_root(struct cpu *c)
{
	uint64_t value;

	if (mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(own_root[c->id]), 0))
		return cpu_fail(c, "a root is refused", 0, 0);
	if (!cpu_read(c, PTR(&all_vcpus), &value) || value != all_vcpus)
		cpu_fail(c, "another root shows something else", value, 0);
	look(c);
	if (mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(root_va()), 0))
		cpu_fail(c, "the root is refused", 0, 0);
}

/* A page is a table and a page again; who pins and who unpins take turns. */
static void pin(struct cpu *c)
{
	uint64_t mfn = va_to_mfn(own_table[c->id]);

	page_protect(own_table[c->id], PTE_RO_DATA);
	if (mmuext(MMUEXT_PIN_L3_TABLE, mfn, 0) || mmuext(MMUEXT_UNPIN_TABLE, mfn, 0))
		cpu_fail(c, "pin and unpin", mfn, 0);
	page_protect(own_table[c->id], PTE_DATA);
	if (!cpu_write(c, PTR(own_table[c->id]), 0))
		cpu_fail(c, "a page that was a table cannot be written", mfn, 0);
}

static void hammer(struct cpu *c)
{
	uint64_t n = 0;

	for (; !stop && !c->why; n++) {
		switch (random64(&c->seed) % 32) {
		case 0 ... 9:
			update_own(c);
			break;
		case 10 ... 22:
			look(c);
			break;
		case 23 ... 26:
			send_event(c);
			break;
		case 27:
			set_timer(c);
			break;
		case 28:
			breakpoint(c);
			break;
		case 29:
			other_root(c);
			break;
		case 30:
			pin(c);
			break;
		default:
			relax();
		}
	}
	steps[c->id] = n;
}

/* Nobody has been sent an event without an upcall, and none is left pending. */
static bool events_arrived(void)
{
	for (unsigned from = 0; from < nr_cpus; from++)
		for (unsigned to = 0; to < nr_cpus; to++)
			if (sent[from][to] && !cpus[to].events[from])
				return false;
	for (unsigned port = 0; port < 4096; port += 64)
		if (shared_info->evtchn_pending[port / 64] & ~shared_info->evtchn_mask[port / 64])
			return false;
	return true;
}

TEST(stress)
{
	uint64_t since, ns = option_number("seconds", 5) * 1000000000ul, total = 0;

	smp_init();
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		own_root[cpu] = root_clone();
		expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(own_root[cpu]), 0), 0);
		own_table[cpu] = page_alloc();
	}
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++) {
		for (unsigned i = 0; i < SLOTS; i++) {
			struct slot *s = &slots[cpu][i];

			s->frame[0] = page_alloc();
			s->frame[1] = page_alloc();
			expect_eq(map_page(root_va(), slot_va(cpu, i), pte_make(va_to_mfn(s->frame[0]), PTE_DATA)), 0);
			s->entry = pte_of(root_va(), slot_va(cpu, i), 1);
			/* the L4 entry of the window came after the roots were cloned */
			for (unsigned k = 0; k < nr_cpus; k++)
				mmu_update_one(mach(&own_root[k][slot_va(cpu, i) >> 39 & 511]),
					       root_va()[slot_va(cpu, i) >> 39 & 511]);
		}
	}
	since = system_time();
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_give(i, hammer, 0);
	while (!smp_late(since, ns) && !test_failed()) {
		struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = system_time() + 50000000 };
		unsigned before;

		for (unsigned i = 0; i < 50; i++) {
			look(&cpus[0]);
			update_own(&cpus[0]);
			send_event(&cpus[0]);
		}
		for (unsigned i = 0; i < nr_cpus; i++)
			if (cpus[i].why)
				test_fail("vCPU %u: %s (%lu, %lu)", i, cpus[i].why, (uint64_t)cpus[i].why_a, (uint64_t)cpus[i].why_b);
		before = cpus[0].timer_events;
		hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&t));
		cpu_block(&cpus[0], &cpus[0].timer_events, before);
	}
	stop = 1;
	for (unsigned i = 1; i < nr_cpus; i++) {
		smp_wait(i);
		total += steps[i];
	}
	since = system_time();
	while (!events_arrived() && !smp_late(since, 5000000000ul))
		relax();
	expect(events_arrived(), "an event is lost");
	say("stress: %lu steps on %u vCPUs", total, nr_cpus);
	expect(total > 100, "next to nothing was done");
}
