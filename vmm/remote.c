/*
 * remote.c - one vCPU and the others: getting them out of the guest, and making them forget translations.
 *
 * A vCPU's phase is odd from just before KVM_RUN until just after. Who wants something of it writes down what, then looks
 * at the phase; the vCPU makes it odd, then looks at what is written down. So a wish is either seen before the guest runs,
 * or the wisher sees an odd phase and sends a signal, which ends KVM_RUN, or by immediate_exit the one about to begin. A
 * vCPU that is not in the guest costs the wisher two memory accesses and is not disturbed.
 *
 * No deadlock: who waits for others is out of the guest itself, so nobody waits for him.
 */
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/vm.h"

#define SPINS	200u	/* looks at a phase before sleeping: about what a signal needs on an idle core */

void remote_enter(struct vcpu *v)
{
	atomic_fetch_add(&v->phase, 1);
	if (atomic_load(&v->wake) || atomic_load(&v->flush_wanted) || v->signalled)
		v->run->immediate_exit = 1;
}

void remote_leave(struct vcpu *v)
{
	atomic_fetch_add(&v->phase, 1);
	if (atomic_exchange(&v->phase_waited, false))
		syscall(SYS_futex, &v->phase, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void wait_for(struct vcpu *o, uint32_t phase)
{
	for (unsigned i = 0; i < SPINS; i++) {
		if (atomic_load(&o->phase) != phase)
			return;
		__builtin_ia32_pause();
	}
	while (atomic_load(&o->phase) == phase) {
		atomic_store(&o->phase_waited, true);
		if (atomic_load(&o->phase) == phase)
			syscall(SYS_futex, &o->phase, FUTEX_WAIT_PRIVATE, phase, NULL, NULL, 0);
	}
}

void remote_flush(struct vcpu *v, uint64_t cpus)
{
	struct vm *vm = v->vm;
	uint32_t phase[VMM_MAX_VCPUS];
	uint64_t inside = 0;

	v->counters.vcpu.remote_flushes++;
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *o = &vm->vcpus[i];

		if (o == v)
			continue;
		if (!(cpus >> mmu_cpu_number(o->mmu) & 1)) {
			v->counters.vcpu.remote_skips += atomic_load(&o->phase) & 1;
			continue;
		}
		atomic_store(&o->flush_wanted, true);
		phase[i] = atomic_load(&o->phase);
		if (!(phase[i] & 1))
			continue;
		inside |= 1ull << i;
		syscall(SYS_tgkill, getpid(), o->tid, SIGUSR1);
	}
	for (; inside; inside &= inside - 1) {
		unsigned i = __builtin_ctzll(inside);

		v->counters.vcpu.remote_waits++;
		wait_for(&vm->vcpus[i], phase[i]);
	}
}
