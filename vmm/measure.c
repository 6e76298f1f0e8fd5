/*
 * measure.c - what it costs to leave the VM and what a transition inside costs, on this host, before the guest runs: by
 * that the ways of shim and gate are chosen. Ring 0 is emulated on some hosts and native on others, an exit costs from one
 * to a hundred microseconds, and the same host changes from one hour to the next.
 */
#include <string.h>

#include "vmm/shim_abi.h"
#include "vmm/vm.h"

#define ROUNDS	5u		/* the best counts: all that disturbs makes it slower */
#define TIMES	16u

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Runs ring-3 code of the shim from `rip` until it leaves the VM. RCX: where it says it goes on; RDX: an argument. */
static bool run_shim(struct vcpu *v, uint64_t rip, uint64_t rcx, uint64_t rdx)
{
	struct gate_exit e;

	v->regs.r = (struct kvm_regs){ .rip = rip, .rcx = rcx, .rdx = rdx, .rsp = SHIM_STACK_VA + 0x2000,
				       .rflags = RFLAGS_FIXED };
	v->regs.cs = FLAT_KERNEL_CS;
	v->regs.ss = FLAT_KERNEL_SS;
	do {
		vcpu_begin_look(v);
		vcpu_enter(v, &e);
	} while (e.event == GATE_INTERRUPTED && !atomic_load(&v->vm->stop));
	return e.event == GATE_SYSCALL_IN;
}

/* ns per exit and return, 0 if it does not work. */
static uint64_t measure_exit(struct vcpu *v, uint64_t rip)
{
	uint64_t best = 0, t;

	for (unsigned i = 0; i < ROUNDS; i++) {
		t = now_ns();
		for (unsigned k = 0; k < TIMES; k++)
			if (!run_shim(v, rip, rip, 0))
				return 0;
		t = (now_ns() - t) / TIMES;
		if (!best || t < best)
			best = t;
	}
	return best;
}

/* ns per int3, gate and iretq, 0 if it does not work. */
static uint64_t measure_gate(struct vcpu *v, uint64_t exit_ns)
{
	uint64_t best = 0, t, *gdt = monitor_gdt(v), cs = gdt[LINUX_USER_CS / 8], ss = gdt[LINUX_USER_SS / 8];
	bool ok = true;

	/* The gate returns to selectors that the guest has yet to define. */
	gdt[LINUX_USER_CS / 8] = gdt[FLAT_RING3_CS64 / 8];
	gdt[LINUX_USER_SS / 8] = gdt[FLAT_RING3_DS32 / 8];
	for (unsigned i = 0; ok && i < ROUNDS; i++) {
		t = now_ns();
		ok = run_shim(v, shim_measure_rip(), 0, TIMES);
		t = now_ns() - t;
		t = t > exit_ns ? (t - exit_ns) / TIMES : 1;
		if (!best || t < best)
			best = t;
	}
	gdt[LINUX_USER_CS / 8] = cs;
	gdt[LINUX_USER_SS / 8] = ss;
	return ok ? best : 0;
}

/* Measures and decides. Before the guest runs, on the thread of vCPU 0; its registers and counters stay as they are. */
void measure_transitions(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct vcpu_counters counters = v->counters;
	struct guest_regs regs = v->regs;
	struct transition_costs *m = &vm->costs;
	uint64_t exit_ns;
	bool gates = vm->gates;

	if (!shim_on(vm) || v->mode != MMU_KERNEL)
		return;
	m->fetch_ns = measure_exit(v, GATE_VA + GATE_SYSCALL);
	m->store_ns = measure_exit(v, shim_exit_rip());
	m->by_store = m->store_ns && (!m->fetch_ns || m->store_ns < m->fetch_ns);
	exit_ns = m->by_store ? m->store_ns : m->fetch_ns;
	shim_install(vm, m->by_store);
	if (gates)
		m->gate_ns = measure_gate(v, exit_ns);
	/* There and back: an exception and an iret, each with an exit, or each inside. What the VMM does at an exit is not in
	 * what was measured; it is about a quarter of it here. */
	if (gates && vm->config->gates == VMM_GATES_AUTO &&
	    !(m->gate_ns && 2 * m->gate_ns < (m->fetch_ns + exit_ns) * 5 / 4)) {
		vm->gates = false;
		monitor_build_gates(vm);
	}
	v->regs = regs;
	v->counters = counters;
	v->exit_tsc = 0;
	if (vm->config->verbose)
		fprintf(stderr, "umbra: an exit costs %llu ns by a fetch, %llu ns by a store; a transition inside the VM %llu ns: "
			"the shim leaves by a %s, gates are %s\r\n", (unsigned long long)m->fetch_ns,
			(unsigned long long)m->store_ns, (unsigned long long)m->gate_ns, m->by_store ? "store" : "fetch",
			vm->gates ? "inside" : "not used");
}
