/* Subtests: what belongs to a thread - registers, segments, signals, timers - survives whatever else runs. */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

#define RW	(PROT_READ | PROT_WRITE)

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Both sides of a test that is about switching have to share a processor. */
static void one_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

enum { RING_LEN = 64, RING_ITEMS = 6000, RING_PEERS = 2 };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more, room;
	uint64_t item[RING_LEN];
	unsigned head, tail;
	uint64_t sum[RING_PEERS];
} ring = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.more = PTHREAD_COND_INITIALIZER,
	.room = PTHREAD_COND_INITIALIZER,
};

static __thread uint64_t thread_word;	/* %fs-relative */

static void *ring_producer(void *arg)
{
	thread_word = (uintptr_t)arg;
	for (uint64_t i = 0; i < RING_ITEMS; i++) {
		pthread_mutex_lock(&ring.lock);
		while (ring.head - ring.tail == RING_LEN)
			pthread_cond_wait(&ring.room, &ring.lock);
		ring.item[ring.head++ % RING_LEN] = i * thread_word;
		pthread_cond_signal(&ring.more);
		pthread_mutex_unlock(&ring.lock);
	}
	return thread_word == (uintptr_t)arg ? NULL : (void *)1;
}

static void *ring_consumer(void *arg)
{
	uint64_t sum = 0;

	thread_word = (uintptr_t)arg;
	for (uint64_t i = 0; i < RING_ITEMS; i++) {
		pthread_mutex_lock(&ring.lock);
		while (ring.head == ring.tail)
			pthread_cond_wait(&ring.more, &ring.lock);
		sum += ring.item[ring.tail++ % RING_LEN];
		pthread_cond_signal(&ring.room);
		pthread_mutex_unlock(&ring.lock);
	}
	ring.sum[thread_word] = sum;
	return thread_word == (uintptr_t)arg ? NULL : (void *)1;
}

static void *thread_short(void *arg)
{
	uint8_t *p = mmap(NULL, 8 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	thread_word++;
	if (p == MAP_FAILED || thread_word != 1)
		return (void *)1;
	for (unsigned i = 0; i < 8; i++) {
		if (p[i * PAGE])
			return (void *)1;
		p[i * PAGE] = 1;
	}
	munmap(p, 8 * PAGE);
	return arg;
}

static const char *test_threads(struct digest *d)
{
	pthread_t t[2 * RING_PEERS];
	uint64_t want = 0;
	void *ret;

	for (unsigned i = 0; i < RING_PEERS; i++) {
		CHECK(!pthread_create(&t[2 * i], NULL, ring_producer, (void *)(uintptr_t)(i + 3)) &&
		      !pthread_create(&t[2 * i + 1], NULL, ring_consumer, (void *)(uintptr_t)i),
		      "pthread_create failed");
		want += (i + 3) * (uint64_t)RING_ITEMS * (RING_ITEMS - 1) / 2;
	}
	for (unsigned i = 0; i < 2 * RING_PEERS; i++) {
		pthread_join(t[i], &ret);
		CHECK(!ret, "thread %u lost its thread-local word", i);
	}
	CHECK(ring.sum[0] + ring.sum[1] == want, "items got lost or changed between threads");
	digest_u64(d, want);
	for (unsigned i = 0; i < 100; i++) {
		CHECK(!pthread_create(&t[0], NULL, thread_short, NULL), "pthread_create failed");
		pthread_join(t[0], &ret);
		CHECK(!ret, "short thread %u found stale memory", i);
	}
	return NULL;
}

enum { REVOKE_WRITERS = 3, REVOKE_ROUNDS = 40 };

static struct { _Atomic uint64_t n; char pad[PAGE - 8]; } *revoke_page;
static atomic_bool revoke_stop;
static atomic_uint revoke_faults;

static void revoke_handler(int sig)
{
	atomic_fetch_add(&revoke_faults, 1);
	usleep(200);	/* then the write is tried again */
}

static void *revoke_writer(void *arg)
{
	while (!atomic_load(&revoke_stop))
		atomic_fetch_add(&revoke_page[(uintptr_t)arg].n, 1);
	return NULL;
}

/* When mprotect() has returned, no thread writes any more, whatever its processor's TLB held. */
static const char *test_revoke(struct digest *d)
{
	struct sigaction sa = { .sa_handler = revoke_handler, .sa_flags = SA_RESTART };
	uint64_t before[REVOKE_WRITERS], start;
	pthread_t t[REVOKE_WRITERS];

	revoke_page = mmap(NULL, REVOKE_WRITERS * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(revoke_page != MAP_FAILED, "mmap: %s", strerror(errno));
	sigaction(SIGSEGV, &sa, NULL);
	for (uintptr_t i = 0; i < REVOKE_WRITERS; i++)
		CHECK(!pthread_create(&t[i], NULL, revoke_writer, (void *)i), "pthread_create failed");
	for (unsigned round = 0; round < REVOKE_ROUNDS; round++) {
		mprotect(revoke_page, REVOKE_WRITERS * PAGE, PROT_READ);
		for (unsigned i = 0; i < REVOKE_WRITERS; i++)
			before[i] = revoke_page[i].n;
		usleep(1000);
		for (unsigned i = 0; i < REVOKE_WRITERS; i++)
			CHECK(revoke_page[i].n == before[i], "round %u: thread %u wrote after mprotect()", round, i);
		mprotect(revoke_page, REVOKE_WRITERS * PAGE, RW);
		usleep(1000);
	}
	start = revoke_page[0].n;
	while (revoke_page[0].n == start)	/* the writers are still alive */
		usleep(1000);
	atomic_store(&revoke_stop, true);
	for (unsigned i = 0; i < REVOKE_WRITERS; i++)
		pthread_join(t[i], NULL);
	CHECK(revoke_faults, "no writer ever faulted");
	digest_u64(d, REVOKE_ROUNDS);
	return NULL;
}

/* ---- signals and time ------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;
static volatile uint64_t queued;

static void alarm_handler(int sig)
{
	alarms++;
}

static void queued_handler(int sig, siginfo_t *si, void *ctx)
{
	queued = queued * 31 + si->si_value.sival_int;
}

static const char *test_signals(struct digest *d)
{
	struct sigaction sa = { .sa_sigaction = queued_handler, .sa_flags = SA_SIGINFO };
	uint64_t want = 0;
	sigset_t set;
	pid_t pid;

	sigaction(SIGRTMIN, &sa, NULL);
	for (int i = 0; i < 200; i++) {
		CHECK(!sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = i }), "sigqueue: %s", strerror(errno));
		want = want * 31 + i;
	}
	CHECK(queued == want, "signals arrived in another order, or not all");
	/* Blocked, sent by another process, delivered at once when unblocked. */
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 50; i++)
			if (sigqueue(getppid(), SIGRTMIN, (union sigval){ .sival_int = i }))
				_exit(1);
		_exit(0);
	}
	TRY(child_expect(pid, 0));
	CHECK(queued == want, "a blocked signal was delivered");
	for (int i = 0; i < 50; i++)
		want = want * 31 + i;
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	CHECK(queued == want, "signals of another process arrived in another order, or not all");
	digest_u64(d, queued);
	return NULL;
}

/* A loop that never enters the kernel by itself must still be interrupted. */
static const char *test_alarm(struct digest *d)
{
	static const int which[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };
	static const int sig[] = { SIGALRM, SIGVTALRM, SIGPROF };
	struct itimerval every = { { 0, 20000 }, { 0, 20000 } }, off = { 0 };

	for (unsigned i = 0; i < 3; i++) {
		uint64_t t = now_ns(CLOCK_MONOTONIC);

		alarms = 0;
		signal(sig[i], alarm_handler);
		CHECK(!setitimer(which[i], &every, NULL), "setitimer: %s", strerror(errno));
		while (alarms < 8)
			;
		setitimer(which[i], &off, NULL);
		t = now_ns(CLOCK_MONOTONIC) - t;
		/* Expiries of a late signal merge: 8 signals take 8 periods or more. The first may be a tick early. */
		CHECK(t >= 130000000, "timer %u: 8 signals of 20 ms in %lu us", i, t / 1000);
		digest_u64(d, alarms >= 8);
	}
	return NULL;
}

/* One way to wait 10 ms. */
static void wait_nanosleep(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
}

static void wait_poll(void)
{
	poll(NULL, 0, 10);
}

static void wait_timerfd(void)
{
	struct itimerspec in = { .it_value.tv_nsec = 10000000 };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t n = 0;

	timerfd_settime(fd, 0, &in, NULL);
	if (read(fd, &n, sizeof(n)) != sizeof(n) || n < 1)
		sleep(1);	/* shows as a wait that is far too long */
	close(fd);
}

static const char *test_sleep(struct digest *d)
{
	void (*const wait[])(void) = { wait_nanosleep, wait_poll, wait_timerfd };

	for (unsigned i = 0; i < 3; i++) {
		uint64_t best = ~0ull;

		for (unsigned k = 0; k < 15; k++) {
			uint64_t t = now_ns(CLOCK_MONOTONIC);

			wait[i]();
			t = now_ns(CLOCK_MONOTONIC) - t;
			CHECK(t >= 10000000, "way %u: 10 ms were over after %lu us", i, t / 1000);
			best = t < best ? t : best;
		}
		/* A busy host may delay any of them, but not each. */
		CHECK(best < 25000000, "way %u: of 15 waits of 10 ms the shortest took %lu us", i, best / 1000);
		digest_u64(d, i);
	}
	return NULL;
}

static const char *test_clock(struct digest *d)
{
	uint64_t mono = now_ns(CLOCK_MONOTONIC), real = now_ns(CLOCK_REALTIME), boot = now_ns(CLOCK_BOOTTIME);
	uint64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID), last = mono, drift;

	CHECK(real > 1600000000ull * 1000000000ull, "the wall clock says %lu s since 1970", real / 1000000000);
	for (unsigned i = 0; i < 50000 || last - mono < 200000000; i++) {
		uint64_t t = now_ns(CLOCK_MONOTONIC);

		CHECK(t >= last, "time went back by %lu ns", last - t);
		last = t;
	}
	mono = last - mono;
	real = now_ns(CLOCK_REALTIME) - real;
	boot = now_ns(CLOCK_BOOTTIME) - boot;
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	drift = real > boot ? real - boot : boot - real;
	CHECK(drift < 100000000, "wall clock and boot clock differ by %lu us after %lu us", drift / 1000, mono / 1000);
	CHECK(cpu <= boot + 20000000, "%lu us of CPU time in %lu us", cpu / 1000, boot / 1000);
	digest_u64(d, 1);
	return NULL;
}

/* ---- registers -------------------------------------------------------------------------------------------------- */

struct fpu_state {
	uint8_t vec[32][64];	/* zmm0-31; fewer and shorter without AVX-512 */
	uint32_t mxcsr;
	uint16_t x87;
} __attribute__((aligned(64)));

/* Loads every register, spins a little, yields, stores every register: any loss between is the kernel's or ours. */
#define FPU_ROUND(name, load16, store16)						\
static void name(const struct fpu_state *in, struct fpu_state *out)			\
{											\
	asm volatile(load16								\
		     "	mov	$3000, %%ecx\n"						\
		     "1:	pause\n"						\
		     "	dec	%%ecx\n"						\
		     "	jnz	1b\n"							\
		     "	mov	%[yield], %%eax\n"					\
		     "	syscall\n"							\
		     store16								\
		     : : "D"(in->vec), "S"(out->vec), [yield] "i"(SYS_sched_yield)	\
		     : "rax", "rcx", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
		       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");	\
}

#define LD(insn, reg, n)	"	" insn "	64*" #n "(%%rdi), %%" reg #n "\n"
#define ST(insn, reg, n)	"	" insn "	%%" reg #n ", 64*" #n "(%%rsi)\n"
#define ALL16(f, insn, reg)	f(insn, reg, 0) f(insn, reg, 1) f(insn, reg, 2) f(insn, reg, 3) f(insn, reg, 4) \
	f(insn, reg, 5) f(insn, reg, 6) f(insn, reg, 7) f(insn, reg, 8) f(insn, reg, 9) f(insn, reg, 10) \
	f(insn, reg, 11) f(insn, reg, 12) f(insn, reg, 13) f(insn, reg, 14) f(insn, reg, 15)
#define ALL32(f, insn, reg)	ALL16(f, insn, reg) f(insn, reg, 16) f(insn, reg, 17) f(insn, reg, 18) \
	f(insn, reg, 19) f(insn, reg, 20) f(insn, reg, 21) f(insn, reg, 22) f(insn, reg, 23) f(insn, reg, 24) \
	f(insn, reg, 25) f(insn, reg, 26) f(insn, reg, 27) f(insn, reg, 28) f(insn, reg, 29) f(insn, reg, 30) \
	f(insn, reg, 31)

FPU_ROUND(fpu_round_sse, ALL16(LD, "movdqu", "xmm"), ALL16(ST, "movdqu", "xmm"))
FPU_ROUND(fpu_round_avx, ALL16(LD, "vmovdqu", "ymm"), ALL16(ST, "vmovdqu", "ymm") "	vzeroupper\n")
FPU_ROUND(fpu_round_avx512, ALL32(LD, "vmovdqu64", "zmm"), ALL32(ST, "vmovdqu64", "zmm") "	vzeroupper\n")

static const struct fpu_level {
	const char *name;
	void (*round)(const struct fpu_state *in, struct fpu_state *out);
	unsigned regs, bytes;
} fpu_levels[] = {
	{ "SSE", fpu_round_sse, 16, 16 },
	{ "AVX", fpu_round_avx, 16, 32 },
	{ "AVX-512", fpu_round_avx512, 32, 64 },
};

/* What the processor itself reports to user mode: that is what libraries go by. */
static const struct fpu_level *fpu_level(void)
{
	uint32_t lo, hi;

	if (!__builtin_cpu_supports("avx"))
		return &fpu_levels[0];
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return &fpu_levels[__builtin_cpu_supports("avx512f") && (lo & 0xe6) == 0xe6 ? 2 : 1];
}

/* Exit code: 0, 1 a vector register changed, 2 MXCSR, 3 the x87 control word, 4 the signal handler never ran. */
static int fpu_process(const struct fpu_level *l, unsigned who, unsigned rounds, struct digest *d)
{
	static struct fpu_state in, out;
	struct rng r = { who };
	struct itimerval every = { { 0, 7000 }, { 0, 7000 } }, off = { 0 };

	in.mxcsr = 0x1f80 | who % 4 << 13;	/* all masked; the rounding mode tells who it is */
	in.x87 = 0x037f | who % 4 << 10;
	asm volatile("ldmxcsr %0; fldcw %1" : : "m"(in.mxcsr), "m"(in.x87));
	signal(SIGALRM, alarm_handler);
	setitimer(ITIMER_REAL, &every, NULL);
	alarms = 0;
	for (unsigned i = 0; i < rounds || !alarms; i++) {
		rng_fill(&r, in.vec, sizeof(in.vec));
		l->round(&in, &out);
		asm volatile("stmxcsr %0; fnstcw %1" : "=m"(out.mxcsr), "=m"(out.x87));
		for (unsigned k = 0; k < l->regs; k++)
			if (memcmp(in.vec[k], out.vec[k], l->bytes))
				return 1;
		if ((in.mxcsr ^ out.mxcsr) & 0xffc0)
			return 2;
		if (in.x87 != out.x87)
			return 3;
		if (d && i < rounds)
			digest_bytes(d, out.vec, 16);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	return 0;
}

static const char *test_fpu(struct digest *d)
{
	const struct fpu_level *l = fpu_level();
	pid_t pid[3];
	int bad;

	one_processor();
	for (unsigned i = 0; i < 3; i++) {
		pid[i] = fork();
		if (!pid[i])
			_exit(fpu_process(l, i + 1, 400, NULL));
	}
	bad = fpu_process(l, 0, 400, d);
	CHECK(!bad, "%s: state lost (%d) in the parent", l->name, bad);
	for (unsigned i = 0; i < 3; i++) {
		const char *w = child_expect(pid[i], 0);

		CHECK(!w, "%s: state lost in process %u (1 registers, 2 MXCSR, 3 x87)", l->name, i);
	}
	return NULL;
}

/* The GS base belongs to the thread (test_threads relies on FS). */
static const char *test_gs_base(struct digest *d)
{
	uint64_t *low = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	uint64_t word, base;
	pid_t pid;

	CHECK(low != MAP_FAILED, "mmap: %s", strerror(errno));
	one_processor();
	low[0] = 0x1111;
	low[512] = 0x2222;
	CHECK(!syscall(SYS_arch_prctl, ARCH_SET_GS, (uintptr_t)low), "ARCH_SET_GS: %s", strerror(errno));
	pid = fork();
	if (!pid) {	/* inherits GS, then sets its own while the parent runs */
		asm volatile("mov %%gs:0, %0" : "=r"(word));
		if (word != 0x1111 || syscall(SYS_arch_prctl, ARCH_SET_GS, (uintptr_t)(low + 512)))
			_exit(1);
		for (unsigned i = 0; i < 200; i++) {
			sched_yield();
			asm volatile("mov %%gs:0, %0" : "=r"(word));
			if (word != 0x2222)
				_exit(2);
		}
		_exit(0);
	}
	for (unsigned i = 0; i < 200; i++) {
		sched_yield();
		asm volatile("mov %%gs:0, %0" : "=r"(word));
		CHECK(word == 0x1111, "GS base lost after %u switches", i);
	}
	TRY(child_expect(pid, 0));
	CHECK(!syscall(SYS_arch_prctl, ARCH_GET_GS, &base) && base == (uintptr_t)low, "ARCH_GET_GS gives %#lx", base);
	digest_u64(d, 0x2222);
	return NULL;
}

/* A segment of the process's own LDT: inherited at fork, changed under a running thread. */
static const char *test_ldt(struct digest *d)
{
	enum { SELECTOR = 0 << 3 | 4 | 3 };	/* entry 0, LDT, ring 3 */
	uint64_t *low = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct user_desc desc = { .entry_number = 0, .seg_32bit = 1, .useable = 1, .limit_in_pages = 1, .limit = 0 };
	uint16_t sel = SELECTOR, back;
	uint64_t word;
	pid_t pid;

	CHECK(low != MAP_FAILED, "mmap: %s", strerror(errno));
	one_processor();
	low[0] = 0x1111;
	low[512] = 0x2222;
	desc.base_addr = (uintptr_t)(low + 512);
	if (syscall(SYS_modify_ldt, 1, &desc, sizeof(desc)))
		return errno == ENOSYS ? skip("this kernel has no modify_ldt") : why("modify_ldt: %s", strerror(errno));
	asm volatile("mov %1, %%gs; mov %%gs, %0" : "=r"(back) : "r"(sel));
	if (back != sel)	/* the kernel cannot save what it does not see: KVM on PVM */
		return skip("this host keeps no LDT selector in a segment register");
	pid = fork();
	for (unsigned i = 0; i < 100; i++) {
		sched_yield();
		asm volatile("mov %%gs:0, %0" : "=r"(word));
		if (!pid && word != 0x2222)
			_exit(1);
		CHECK(word == 0x2222, "LDT segment reads %#lx after %u switches", word, i);
	}
	if (!pid)
		_exit(0);
	TRY(child_expect(pid, 0));
	/* An LDT that was changed is changed for a running thread as well. */
	desc.base_addr = (uintptr_t)low;
	CHECK(!syscall(SYS_modify_ldt, 1, &desc, sizeof(desc)), "modify_ldt: %s", strerror(errno));
	asm volatile("mov %1, %%gs; mov %%gs:0, %0" : "=r"(word) : "r"(sel));
	CHECK(word == 0x1111, "changed LDT segment reads %#lx", word);
	return NULL;
}

/* ---- other ways in and out of the kernel ------------------------------------------------------------------------ */

static const char *trace_stop(pid_t pid, int sig, const char *where)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == sig, "at %s: status %#x, not stopped by signal %d", where,
	      status, sig);
	return NULL;
}

enum { TRACE_NOPS = 60 };

static const char *test_ptrace(struct digest *d)
{
	struct user_regs_struct r;
	unsigned long rip = 0;
	unsigned steps = 0;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		asm volatile("int3\n\t.rept %c0\n\tnop\n\t.endr\n\tint3" : : "i"(TRACE_NOPS) : "memory");
		_exit(33);
	}
	TRY(trace_stop(pid, SIGTRAP, "first int3"));
	for (;; steps++) {
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		if (steps)
			CHECK(r.rip == rip + 1, "step %u went from %#lx to %#llx", steps, rip, r.rip);
		rip = r.rip;
		if (steps == TRACE_NOPS)
			break;
		CHECK(!ptrace(PTRACE_SINGLESTEP, pid, 0, 0), "PTRACE_SINGLESTEP: %s", strerror(errno));
		TRY(trace_stop(pid, SIGTRAP, "a single step"));
	}
	CHECK(!ptrace(PTRACE_CONT, pid, 0, 0), "PTRACE_CONT: %s", strerror(errno));
	TRY(trace_stop(pid, SIGTRAP, "second int3"));
	ptrace(PTRACE_GETREGS, pid, 0, &r);
	CHECK(r.rip == rip + 1, "second int3 at %#llx, not %#lx", r.rip, rip + 1);
	CHECK(!ptrace(PTRACE_CONT, pid, 0, 0), "PTRACE_CONT: %s", strerror(errno));
	TRY(child_expect(pid, 33));
	digest_u64(d, steps);
	return NULL;
}

static volatile uint32_t watched;

/*
 * A write to a word that a debugger watches. Some hosts (KVM on PVM, nested emulation) deliver no breakpoint of a debug
 * register to any guest: one that never fires is a skip, one that fires wrongly a failure.
 */
static const char *test_watchpoint(struct digest *d)
{
	unsigned long dr6;
	int status;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		watched = 0x600d;
		asm volatile("nop" : : : "memory");
		_exit(watched == 0x600d ? 33 : 1);
	}
	TRY(trace_stop(pid, SIGSTOP, "the start"));
	CHECK(!ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]), &watched) &&
	      !ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]), 0xd0001ul),	/* 4 bytes, write */
	      "setting a watchpoint: %s", strerror(errno));
	CHECK(!ptrace(PTRACE_CONT, pid, 0, 0), "PTRACE_CONT: %s", strerror(errno));
	CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 33)
		return skip("no breakpoint of a debug register fires here");
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP, "at the watchpoint: status %#x, not SIGTRAP", status);
	errno = 0;
	dr6 = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg[6]), 0);
	CHECK(!errno && (dr6 & 15) == 1, "after the watchpoint DR6 is %#lx", dr6);
	CHECK(ptrace(PTRACE_PEEKDATA, pid, &watched, 0) == 0x600d, "the watched word was not written");
	CHECK(!ptrace(PTRACE_CONT, pid, 0, 0), "PTRACE_CONT: %s", strerror(errno));
	return child_expect(pid, 33);
}

extern const uint8_t compat32_elf[], compat32_elf_end[];

/* A 32-bit program: compat32.c, carried inside this one. */
static const char *test_compat32(struct digest *d)
{
	size_t len = compat32_elf_end - compat32_elf;
	int fd = memfd_create("compat32", 0);
	char *const argv[] = { "compat32", NULL };
	int status;
	pid_t pid;

	CHECK(fd >= 0 && write(fd, compat32_elf, len) == (ssize_t)len, "memfd: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		fexecve(fd, argv, environ);
		_exit(errno == ENOEXEC ? 126 : 127);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid, "fork: %s", strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == 126)
		return skip("this kernel runs no 32-bit programs");
	CHECK(!WIFSIGNALED(status), "killed by signal %d", WTERMSIG(status));
	CHECK(!WEXITSTATUS(status), "check %d of compat32.c failed", WEXITSTATUS(status));
	return NULL;
}

const struct subtest cpu_tests[] = {
	{ "threads", test_threads },
	{ "revoke", test_revoke },
	{ "signals", test_signals },
	{ "alarm", test_alarm },
	{ "sleep", test_sleep },
	{ "clock", test_clock },
	{ "fpu", test_fpu },
	{ "gs_base", test_gs_base },
	{ "ldt", test_ldt },
	{ "ptrace", test_ptrace },
	{ "watchpoint", test_watchpoint },
	{ "compat32", test_compat32 },
	{ 0 },
};
