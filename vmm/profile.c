/*
 * profile.c - the timers, and what a tick finds.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/profile.h"
#include "vmm/profile_vmm.h"
#include "vmm/symbols.h"
#include "vmm/vm.h"

#define TICK_SIGNAL	SIGPROF

/* Where the guest was at an exit. */
struct position {
	bool user;
	enum profile_place place;
	uint64_t rip, rsp;		/* rip 0: not known, as in PROFILE_GATE and _SHIM */
	uint64_t vmm;			/* what the exit was: profile_vmm() */
};

struct profile_cpu {
	struct profile_set *set;
	struct profile_cache cache;
	timer_t timer;
	bool timer_made;
	struct position last;
	volatile sig_atomic_t guest_ticks, vmm_ticks;	/* the handler adds, the same thread takes */
};

static __thread struct vcpu *this_vcpu;

static void on_tick(int sig, siginfo_t *info, void *context)
{
	struct vcpu *v = this_vcpu;
	int ticks = 1 + (info->si_code == SI_TIMER && info->si_overrun > 0 ? info->si_overrun : 0);

	if (!v)
		return;
	if (v->in_kvm) {
		v->profile->guest_ticks += ticks;
		v->run->immediate_exit = 1;	/* if KVM_RUN is yet to begin */
	} else {
		v->profile->vmm_ticks += ticks;
	}
}

static void set_timer(struct vcpu *v, bool on)
{
	unsigned hz = v->vm->config->profile_hz;
	struct timespec period = { .tv_sec = hz == 1, .tv_nsec = hz == 1 ? 0 : 1000000000 / hz };
	struct itimerspec t = { .it_interval = period, .it_value = period };

	if (!on)
		t = (struct itimerspec){ 0 };
	timer_settime(v->profile->timer, 0, &t, NULL);
}

/* ---- samples ------------------------------------------------------------------------------------------------------ */

static int read_kernel(void *vcpu, uint64_t va, void *to, size_t n)
{
	return guest_read(vcpu, va, to, n);
}

/* `vmm`: the VMM was at work for that position. */
static void take(struct vcpu *v, const struct position *p, bool vmm, uint64_t times)
{
	const struct symbols *syms = v->vm->symbols;
	struct profile_stack s;
	uint64_t start = p->rip;

	s.user = p->user;
	s.depth = 0;
	if (vmm)
		s.frame[s.depth++] = (struct profile_frame){ p->vmm, PROFILE_VMM };
	if (p->place == PROFILE_GATE || p->place == PROFILE_SHIM)
		s.frame[s.depth++] = (struct profile_frame){ 0, p->place };
	if (p->user) {
		if (p->rip)
			s.frame[s.depth++] = (struct profile_frame){ p->rip & ~4095ull, PROFILE_USER };
	} else {
		if (p->rip) {
			symbols_start(syms, p->rip, &start);
			s.frame[s.depth++] = (struct profile_frame){ start, PROFILE_KERNEL };
		}
		if (p->rsp)
			profile_walk(&s, p->rip, p->rsp, syms, &v->profile->cache, read_kernel, v);
	}
	profile_set_add(v->profile->set, &s, times);
}

static bool in_shim(const struct vm *vm, uint64_t rip)
{
	return shim_on(vm) && rip >= SHIM_VA && rip < SHIM_VA + SHIM_CODE_PAGES * 4096;
}

static struct position position(const struct vcpu *v, const struct gate_exit *e)
{
	const struct kvm_regs *raw = &v->run->s.regs.regs;
	uint32_t detail = e->event == GATE_EXCEPTION ? e->vector : ~0u;
	struct position p = { .user = v->mode == MMU_USER, .rip = v->regs.r.rip, .rsp = v->regs.r.rsp };

	if (e->event == GATE_SYSCALL_IN && !p.user && v->regs.r.rax < COUNTERS_HYPERCALLS)
		detail = v->regs.r.rax;
	p.vmm = profile_vmm(e->event, detail);
	p.place = p.user ? PROFILE_USER : PROFILE_KERNEL;
	if (e->event == GATE_INTERRUPTED && v->state == VCPU_MID_GATE) {	/* v->regs are from an earlier exit */
		p.place = in_shim(v->vm, raw->rip) ? PROFILE_SHIM : PROFILE_GATE;
		p.rip = 0;
		p.rsp = p.place == PROFILE_SHIM ? raw->rsp : 0;
	} else if (e->event == GATE_INTERRUPTED && v->state == VCPU_IN_GATE) {
		p.place = PROFILE_GATE;		/* on the way to v->regs */
		if (in_shim(v->vm, p.rip))
			p.rip = 0;
	} else if (in_shim(v->vm, p.rip)) {	/* a hypercall that the shim left to us */
		p.place = PROFILE_SHIM;
		p.rip = 0;
	}
	return p;
}

void profile_after_exit(struct vcpu *v, const struct gate_exit *e)
{
	struct profile_cpu *p = v->profile;
	int ticks;

	if (!p)
		return;
	ticks = __atomic_exchange_n(&p->vmm_ticks, 0, __ATOMIC_RELAXED);
	if (ticks)		/* from the way in */
		take(v, &p->last, true, ticks);
	p->last = position(v, e);
	ticks = __atomic_exchange_n(&p->guest_ticks, 0, __ATOMIC_RELAXED);
	if (ticks)
		take(v, &p->last, false, ticks);
}

void profile_after_handling(struct vcpu *v)
{
	struct profile_cpu *p = v->profile;
	int ticks;

	if (!p)
		return;
	ticks = __atomic_exchange_n(&p->vmm_ticks, 0, __ATOMIC_RELAXED);
	if (ticks)
		take(v, &p->last, true, ticks);
}

const char *profile_vmm_name(uint64_t vmm, char *to, size_t size)
{
	static const char *const events[] = {
		[GATE_EXCEPTION] = "exception", [GATE_SYSCALL_IN] = "syscall", [GATE_SYSCALL32_IN] = "syscall32",
		[GATE_KICKED] = "kicked", [GATE_INTERRUPTED] = "interrupted", [GATE_FAILED] = "failed",
	};
	unsigned event = vmm >> 32, detail = vmm;
	const char *call = event == GATE_SYSCALL_IN ? xen_hypercall_name(detail) : NULL;

	if (event == GATE_EXCEPTION && detail == 14)
		snprintf(to, size, "page_fault");
	else if (event == GATE_EXCEPTION)
		snprintf(to, size, "exception_%u", detail);
	else
		snprintf(to, size, "%s", call ? call : event < sizeof events / sizeof *events ? events[event] : "?");
	return to;
}

/* ---- beginning and end -------------------------------------------------------------------------------------------- */

int profile_start(struct vm *vm)
{
	struct sigaction sa = { .sa_sigaction = on_tick, .sa_flags = SA_SIGINFO | SA_RESTART };

	if (!vm->config->profile)
		return 0;
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct profile_cpu *p = calloc(1, sizeof *p);

		if (!p)
			return -ENOMEM;
		vm->vcpus[i].profile = p;
		p->set = profile_set_create();
		if (!p->set)
			return -ENOMEM;
	}
	return sigaction(TICK_SIGNAL, &sa, NULL) ? -errno : 0;
}

void profile_free(struct vm *vm)
{
	for (unsigned i = 0; vm->vcpus && i < vm->nr_vcpus; i++) {
		struct profile_cpu *p = vm->vcpus[i].profile;

		if (p)
			profile_set_destroy(p->set);
		free(p);
		vm->vcpus[i].profile = NULL;
	}
}

void profile_thread_begin(struct vcpu *v)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TICK_SIGNAL };
	sigset_t set;

	if (!v->profile)
		return;
	ev._sigev_un._tid = v->tid;
	this_vcpu = v;
	sigemptyset(&set);
	sigaddset(&set, TICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (timer_create(CLOCK_MONOTONIC, &ev, &v->profile->timer)) {
		vm_stop(v->vm, VMM_EXIT_ERROR, "no timer for --profile: %s", strerror(errno));
		return;
	}
	v->profile->timer_made = true;
	set_timer(v, true);
}

void profile_thread_end(struct vcpu *v)
{
	if (!v->profile)
		return;
	if (v->profile->timer_made)
		timer_delete(v->profile->timer);
	v->profile->timer_made = false;
	this_vcpu = NULL;
}

void profile_pause(struct vcpu *v, bool pause)
{
	if (v->profile && v->profile->timer_made)
		set_timer(v, !pause);
}

static int write_folded(const char *path, const char *folded)
{
	FILE *f = fopen(path, "we");
	int r = 0;

	if (!f)
		return -errno;
	if (fputs(folded, f) == EOF)
		r = -errno;
	if (fclose(f) && !r)
		r = -errno;
	return r;
}

static int write_flame(const struct vm *vm, const char *path, const char *folded)
{
	char name[4096], title[256];
	FILE *f;
	int r;

	if ((size_t)snprintf(name, sizeof name, "%s.svg", path) >= sizeof name)
		return -ENAMETOOLONG;
	snprintf(title, sizeof title, "umbra: %.80s %.100s", vm->config->kernel, vm->config->cmdline ? vm->config->cmdline : "");
	f = fopen(name, "we");
	if (!f)
		return -errno;
	r = flame_write(f, folded, title);
	if (fclose(f) && !r)
		r = -errno;
	return r;
}

int profile_finish(struct vm *vm)
{
	const char *path = vm->config->profile;
	struct profile_set *all;
	char *folded = NULL;
	int r = -ENOMEM;

	if (!path)
		return 0;
	all = profile_set_create();
	if (!all)
		goto out;
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		profile_set_merge(all, vm->vcpus[i].profile->set);
	folded = profile_set_folded(all, vm->symbols);
	if (!folded)
		goto out;
	if (!profile_set_samples(all)) {
		fprintf(stderr, "umbra: --profile: no sample was taken: the guest ran too short\n");
		r = 0;
		goto out;
	}
	r = write_folded(path, folded);
	if (!r)
		r = write_flame(vm, path, folded);
	if (!r && !vm->config->quiet)
		fprintf(stderr, "umbra: %llu samples are in %s, as a flame graph in %s.svg%s\n",
			(unsigned long long)profile_set_samples(all), path, path,
			vm->symbols ? "" : "; the kernel has no names in a form umbra knows (--symbols)");
out:
	if (r)
		fprintf(stderr, "umbra: --profile=%s: %s\n", path, strerror(-r));
	free(folded);
	profile_set_destroy(all);
	return r;
}
