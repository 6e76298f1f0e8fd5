/*
 * counters.h - what the VMM counts. Each vCPU owns a struct, so counting is an increment; readers sum.
 * One X list makes the struct, the sum, the table and the JSON.
 */
#ifndef UMBRA_VMM_COUNTERS_H
#define UMBRA_VMM_COUNTERS_H

#include <stdint.h>

/* Exits from KVM_RUN by cause: X(name, "what"). They add up to all exits. */
#define EXIT_COUNTERS(X) \
	X(page_fault,	"#PF") \
	X(hypercall,	"hypercall (syscall of the guest kernel)") \
	X(syscall,	"syscall of guest user code") \
	X(gp,		"#GP: privileged instruction, or a real one") \
	X(ud,		"#UD: forced emulation prefix, or a real one") \
	X(debug,	"#DB, #BP") \
	X(fpu,		"#NM, #MF, #XM") \
	X(exception,	"other exceptions and int N") \
	X(interrupted,	"a signal: timer, event or request from another thread") \
	X(kicked,	"end of a kick list of its own") \
	X(other,	"none of these")

/* Emulated instructions: X(name, "what"). */
#define EMUL_COUNTERS(X) \
	X(cpuid,	"cpuid") \
	X(msr,		"rdmsr, wrmsr") \
	X(cr,		"mov to or from a control register, clts, lmsw") \
	X(dr,		"mov to or from a debug register") \
	X(port,		"in, out") \
	X(flag,		"cli, sti, popf") \
	X(misc,		"hlt, wbinvd, invlpg, rdpmc, xsetbv, ...")

/* Other things worth counting: X(name, "what"). */
#define VCPU_COUNTERS(X) \
	X(events,	"event upcalls delivered") \
	X(reflected,	"exceptions reflected into the guest") \
	X(irets,	"returns to user mode") \
	X(blocks,	"times the vCPU had nothing to do") \
	X(polls,	"... for named events, as a waiter for a lock does") \
	X(remote_flushes, "times other vCPUs had to flush their TLBs") \
	X(remote_waits,	"vCPUs that had to leave the guest for it") \
	X(remote_skips,	"vCPUs that stayed there, for they cannot know what was changed") \
	X(ring_waits,	"waits for a shim's ring that another vCPU was taking up") \
	X(pin_waits,	"waits for a pin that another vCPU was applying") \
	X(vcpu_waits,	"waits for a vCPU's descriptor tables or runstate") \
	X(port_waits,	"waits to bind or close an event channel; sending takes no lock") \
	X(woken_event,	"blocks that ended with an event, or were not needed for there was one") \
	X(woken_timer,	"... with the vCPU's own timer") \
	X(woken_idle,	"... with nothing to do") \
	X(stopped_flush, "signals that got the vCPU out of the guest: to flush its TLB") \
	X(stopped_event, "... to deliver an event") \
	X(stopped_timer, "... its timer") \
	X(stopped_idle,	"... with nothing to do, as when the guest has put its timer off") \
	X(kick_rounds,	"kick lists handed to the gate") \
	X(kick_writes,	"sPTEs rewritten by the gate") \
	X(cr3_loads,	"resumes that loaded CR3") \
	X(node_switches,	"changes to the shadow tables of another node") \
	X(multicalls,	"calls inside multicalls") \
	X(invm_syscalls, "system calls that reached the guest kernel without an exit") \
	X(invm_irets,	"returns to user mode without an exit") \
	X(invm_faults,	"true faults reflected without an exit") \
	X(ring_entries,	"page-table updates and pins taken from the shim's ring")

#define COUNTERS_HYPERCALLS	64

struct vcpu_counters {
	struct {
#define X(name, what) uint64_t name;
		EXIT_COUNTERS(X)
	} exits;
	struct {
		EMUL_COUNTERS(X)
	} emulated;
	struct {
		VCPU_COUNTERS(X)
	} vcpu;
#undef X
	uint64_t hypercalls[COUNTERS_HYPERCALLS];	/* by number, those inside multicalls included */
	uint64_t invm_hypercalls[COUNTERS_HYPERCALLS];	/* the same, done by the shim without an exit */
	uint64_t vmm_cycles;				/* TSC cycles between an exit and the next KVM_RUN */
	uint64_t guest_cycles;				/* TSC cycles inside KVM_RUN, exit costs included */
	uint64_t idle_cycles;				/* TSC cycles blocked */
};

#endif
