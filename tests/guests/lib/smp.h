/*
 * smp.h - more than one vCPU: starting them, what is each one's own, events and faults per vCPU.
 *
 * All run on the boot root. Each has a struct cpu at its kernel GS base. Only vCPU 0 may say(), fail a test or end the guest.
 */
#ifndef TESTS_GUESTS_SMP_H
#define TESTS_GUESTS_SMP_H

#include "lib/guest.h"

#define SMP_MAX	32u

struct cpu {
	struct cpu *self;
	unsigned id;
	struct vcpu_info *info;
	volatile unsigned job, done;		/* jobs given and finished */
	void (*volatile fn)(struct cpu *c);
	volatile uint64_t arg;
	volatile unsigned events[SMP_MAX];	/* upcalls for smp_port[from][this] */
	volatile unsigned timer_events, kick_events;
	volatile unsigned faults, traps;	/* #PF caught by cpu_read() and cpu_write(); int3 */
	uint64_t fault_resume;
	volatile uint64_t fault_va;
	uint64_t seed;
	const char *volatile why;		/* a job's complaint, with two numbers; the first is kept */
	volatile uint64_t why_a, why_b;
	uint8_t stack[16384] __attribute__((aligned(16)));
};

extern struct cpu cpus[SMP_MAX];
extern unsigned nr_cpus;			/* from the command line: cpus=N */
extern uint32_t smp_port[SMP_MAX][SMP_MAX];	/* [from][to]: an IPI port, bound to `to` */
extern uint32_t smp_timer_port[SMP_MAX];

static inline struct cpu *this_cpu(void)
{
	struct cpu *c;

	asm volatile("movq %%gs:0, %0" : "=r"(c));
	return c;
}

static inline void relax(void)
{
	hcall2(sched_op, SCHEDOP_yield, 0);
}

void smp_init(void);		/* vCPU 0's side; idempotent. Starts all others; their idle loop waits for jobs */
bool smp_context(unsigned id, struct vcpu_guest_context *c);
/* Gives vCPU `id` a job, waits for it. smp_wait() reports its complaint, and gives up after 20 s. */
void smp_give(unsigned id, void (*fn)(struct cpu *c), uint64_t arg);
void smp_wait(unsigned id);
bool smp_late(uint64_t since_ns, uint64_t ns);
void cpu_fail(struct cpu *c, const char *why, uint64_t a, uint64_t b);
void cpu_events_mask(struct cpu *c);
void cpu_events_unmask(struct cpu *c);
/* Sleeps until an event comes, unless the handler has counted on from `old` already: then the event that is waited for
 * has been delivered, and no other may come. Events are open afterwards. */
void cpu_block(struct cpu *c, const volatile unsigned *count, unsigned old);
long cpu_send(uint32_t port);
uint64_t cpu_time(struct cpu *c);		/* ns, by its own pvclock */
/* False: it faulted. */
bool cpu_read(struct cpu *c, uint64_t va, uint64_t *value);
bool cpu_write(struct cpu *c, uint64_t va, uint64_t value);

#endif
