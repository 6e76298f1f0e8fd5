/* vcpu.c - a vCPU's thread: run the guest, see to what it stopped for, run it again. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "mmu/probe.h"
#include "vmm/faultmap.h"
#include "vmm/profile.h"
#include "vmm/vm.h"

/* The signal that ends KVM_RUN: a timer of the vCPU's own, or another thread's vcpu_wake(). */
#define WAKE_SIGNAL SIGUSR1

/* Where no event may be delivered the vCPU looks again after this long, then twice as long, up to the second: an emulated
 * machine may need longer than the first just to get back into the guest. */
#define EVENT_RECHECK_NS	50000u
#define EVENT_RECHECK_MAX_NS	5000000u

static __thread struct vcpu *this_vcpu;

/* immediate_exit covers the signal that comes just before KVM_RUN (Documentation/virt/kvm/api.rst), `signalled` the one that
 * ends a KVM_RUN in which only kicks were done. */
static void on_wake(int sig)
{
	if (!this_vcpu)
		return;
	this_vcpu->signalled = true;
	this_vcpu->run->immediate_exit = 1;
}

/* The shim writes FS and GS base natively, for which KVM wants to see the feature; the guest kernel is not told of it (it
 * reads CPUID by the forced-emulation prefix), so it goes on asking us. */
static int set_cpuid(struct vcpu *v)
{
	struct kvm_cpuid2 *c = v->vm->cpuid;
	struct kvm_cpuid_entry2 *leaf7 = NULL;
	int r;

	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == 7 && c->entries[i].index == 0)
			leaf7 = &c->entries[i];
	if (leaf7 && shim_wants_fsgsbase(v->vm))
		leaf7->ebx |= 1;
	r = ioctl(v->fd, KVM_SET_CPUID2, c) < 0 ? -errno : 0;
	if (leaf7)
		leaf7->ebx &= ~1u;
	return r;
}

int vcpu_init(struct vm *vm, struct vcpu *v, unsigned id)
{
	long size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_device_attr offset = {
		.group = 0 /* KVM_VCPU_TSC_CTRL */, .attr = 0 /* KVM_VCPU_TSC_OFFSET */, .addr = (uintptr_t)&(uint64_t){ 0 },
	};
	int r;

	v->vm = vm;
	v->id = id;
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->ring_lock, NULL);
	v->gs_selector = -1;
	v->recheck_ns = EVENT_RECHECK_NS;
	v->l4[MMU_KERNEL] = v->l4[MMU_USER] = MMU_NO_GFN;
	v->cr0 = 0x80050033;
	v->cr4 = 0x620;
	if (cpuid_xcr0(vm)) {	/* the guest finds XSAVE on, as under Xen; XCR0 as after a reset */
		v->cr4 |= 0x40000;
		v->xcr0 = 1;
	}
	v->debugreg[6] = 0xffff0ff0;
	v->debugreg[7] = 0x400;
	v->info = &vm->shared->vcpu_info[id % XEN_LEGACY_MAX_VCPUS];
	v->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (v->wake_fd < 0)
		return -errno;
	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
	if (v->fd < 0)
		return -errno;
	v->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED)
		return -errno;
	r = set_cpuid(v);
	if (r)
		return r;
	ioctl(v->fd, KVM_SET_DEVICE_ATTR, &offset);	/* guest TSC = host TSC where there is an offset at all */
	v->trace_size = vm->config->trace_exits;
	v->trace = calloc(v->trace_size ? v->trace_size : 1, sizeof *v->trace);
	if (!v->trace)
		return -ENOMEM;
	v->faultmap = vm->config->fault_map ? faultmap_new() : NULL;
	if (vm->config->fault_map && !v->faultmap)
		return -ENOMEM;
	r = mmu_cpu_create(vm->mmu, &v->mmu);
	if (r)
		return r;
	if (shim_on(vm))
		mmu_cpu_set_view(v->mmu, id);
	monitor_init_vcpu(v);
	shim_init_vcpu(v);
	xen_time_init(v);
	return 0;
}

void vcpu_fini(struct vcpu *v)
{
	if (v->timer_made)
		timer_delete(v->timer);
	if (v->mmu)
		mmu_cpu_destroy(v->mmu);
	if (v->run && v->run != MAP_FAILED)
		munmap(v->run, ioctl(v->vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
	if (v->fd > 0)
		close(v->fd);
	if (v->wake_fd > 0)
		close(v->wake_fd);
	free(v->trace);
	free(v->start);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->ring_lock);
	free(v->faultmap);
}

/* `wake` is cleared before the vCPU looks at what it may have been woken for; so whoever finds it set can rely on whoever
 * set it. */
void vcpu_wake(struct vcpu *v)
{
	uint64_t one = 1;

	if (atomic_exchange(&v->wake, true))
		return;
	if (atomic_load(&v->blocked)) {
		if (write(v->wake_fd, &one, sizeof one) < 0)
			return;		/* EAGAIN: awake for certain */
	} else if (atomic_load(&v->phase) & 1) {
		syscall(SYS_tgkill, getpid(), v->tid, WAKE_SIGNAL);
	}
}

bool vcpu_park(struct vcpu *v)
{
	struct pollfd fd = { .fd = v->wake_fd, .events = POLLIN };
	uint64_t before = __rdtsc(), count, idle;

	profile_pause(v, true);
	atomic_store(&v->blocked, true);
	for (;;) {
		atomic_store(&v->wake, false);
		if (atomic_load(&v->up) || atomic_load(&v->vm->stop))
			break;
		if (poll(&fd, 1, -1) > 0)
			(void)!read(v->wake_fd, &count, sizeof count);
	}
	atomic_store(&v->blocked, false);
	profile_pause(v, false);
	idle = __rdtsc() - before;
	v->counters.idle_cycles += idle;
	if (v->exit_tsc)
		v->exit_tsc += idle;
	return !atomic_load(&v->vm->stop);
}

void vcpu_set_mode(struct vcpu *v, enum mmu_mode mode)
{
	if (v->mode == mode)
		return;
	v->mode = mode;
	v->need_bases = true;
}

/* Counts and dispatches. */
static void handle(struct vcpu *v, const struct gate_exit *e)
{
	switch (e->event) {
	case GATE_EXCEPTION:
		trap_exception(v, e);
		break;
	case GATE_SYSCALL_IN:
	case GATE_SYSCALL32_IN:
		trap_syscall(v, e->event == GATE_SYSCALL32_IN);
		break;
	case GATE_FAILED:
		v->counters.exits.other++;
		if (!atomic_load(&v->vm->stop))
			vcpu_crash(v, "%s (exit reason %u)", e->why, v->run->exit_reason);
		break;
	case GATE_INTERRUPTED:
	case GATE_KICKED:
		break;
	}
}

/* Why a signal ended KVM_RUN. */
static void count_stop(struct vcpu *v)
{
	uint64_t next = xen_next_deadline(v);

	if (atomic_load_explicit(&v->flush_wanted, memory_order_relaxed))
		v->counters.vcpu.stopped_flush++;
	else if (evtchn_pending(v))
		v->counters.vcpu.stopped_event++;
	else if (next && next <= vm_now(v->vm))
		v->counters.vcpu.stopped_timer++;
	else
		v->counters.vcpu.stopped_idle++;
}

/* Pins the thread. Consecutive CPUs by default, but only if one is left for others: the helper, the console, the host. */
static void pin_thread(const struct vcpu *v)
{
	const struct vmm_config *c = v->vm->config;
	unsigned skip = v->id;
	cpu_set_t may, set;
	int cpu = -1;

	if (c->vcpus_float || sched_getaffinity(0, sizeof may, &may))
		return;
	if (c->nr_vcpu_cpus)
		cpu = c->vcpu_cpus[v->id % c->nr_vcpu_cpus];
	else if (v->vm->nr_vcpus > 1 && (unsigned)CPU_COUNT(&may) > v->vm->nr_vcpus)
		for (cpu = 0; !CPU_ISSET(cpu, &may) || skip--; cpu++)
			;
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set) && c->nr_vcpu_cpus)
		fprintf(stderr, "umbra: vCPU %u cannot be pinned to CPU %d: %s; it runs on any\r\n", v->id, cpu, strerror(errno));
}

void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct sigaction sa = { .sa_handler = on_wake };
	struct gate_exit e;
	sigset_t set;
	bool started;
	char name[16];

	this_vcpu = v;
	v->tid = gettid();
	mmu_cpu_bind(v->mmu);
	snprintf(name, sizeof name, "vcpu%u", v->id);
	pthread_setname_np(pthread_self(), name);
	pin_thread(v);
	sigaction(WAKE_SIGNAL, &sa, NULL);
	/* Terminal signals belong to the main thread; this one must see its own. */
	sigfillset(&set);
	sigdelset(&set, WAKE_SIGNAL);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGABRT);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGILL);
	pthread_sigmask(SIG_SETMASK, &set, NULL);

	/* It may be up before its thread runs. */
	started = (atomic_load(&v->up) || vcpu_park(v)) && xen_vcpu_start(v);
	if (started && v->id == 0)
		measure_transitions(v);
	profile_thread_begin(v);
	placement_thread(v);
	while (started && !atomic_load(&v->vm->stop)) {
		vcpu_begin_look(v);
		mover_serve(v);
		xen_timer_expired(v);
		if (evtchn_pending(v)) {
			/* On top of gate and shim nothing is delivered; they are over in microseconds. */
			if (v->state != VCPU_MID_GATE && !shim_busy(v)) {
				bounce_event(v);
				v->recheck_ns = EVENT_RECHECK_NS;
			} else {
				v->recheck = vm_now(v->vm) + v->recheck_ns;
				if (v->recheck_ns < EVENT_RECHECK_MAX_NS)
					v->recheck_ns *= 2;
			}
		}
		node_tables_follow(v);
		debugreg_before_run(v);
		xen_timer_arm(v);
		shim_sync_out(v);
		vcpu_enter(v, &e);
		shim_sync_in(v);
		if (e.event == GATE_INTERRUPTED)
			count_stop(v);
		debugreg_after_run(v, &e);
		trace_exit(v, &e);
		PROBE(exit, v->id, v->mode, v->regs.r.rip, e.event, e.vector, e.cr2);
		profile_after_exit(v, &e);
		handle(v, &e);
		profile_after_handling(v);
	}
	profile_thread_end(v);
	this_vcpu = NULL;
	return NULL;
}
