/* Subtests: address spaces. What a page table says must be what the program sees, at once. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

/* Page `i` of a pattern: a pure function, so that every word of a page is checked, not just the first. */
static void page_fill(void *page, uint64_t i)
{
	rng_fill(&(struct rng){ i }, page, PAGE);
}

static bool page_is(const void *page, uint64_t i)
{
	uint8_t want[PAGE];

	page_fill(want, i);
	return !memcmp(page, want, PAGE);
}

static bool page_is_zero(const void *page)
{
	static const uint8_t zero[PAGE];

	return !memcmp(page, zero, PAGE);
}

static void *anon(size_t pages)
{
	void *p = mmap(NULL, pages * PAGE, RW, ANON, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ---- a random program of map, unmap, protect, move, discard against a model ------------------------------------- */

enum { CHURN_PAGES = 1536, CHURN_STEPS = 3000, CHURN_RUN = 48 };	/* 1536 pages: four leaf tables */

struct churn_page {
	bool mapped;
	int prot;
	uint64_t tag;	/* page_fill() argument; 0: reads as zero */
};

static const char *churn_check(uint8_t *base, const struct churn_page *m, unsigned i, struct digest *d)
{
	uint8_t *p = base + i * PAGE;
	struct probe r = probe_read(p);

	if (!m[i].mapped || !(m[i].prot & PROT_READ)) {
		int code = m[i].mapped ? SEGV_ACCERR : SEGV_MAPERR;

		CHECK(r.signo == SIGSEGV && r.code == code && r.addr == (uintptr_t)p,
		      "page %u: read gave signal %d code %d, not SIGSEGV %d", i, r.signo, r.code, code);
		digest_u64(d, code);
		return NULL;
	}
	CHECK(!r.signo, "page %u: read gave signal %d code %d", i, r.signo, r.code);
	if (m[i].tag)
		CHECK(page_is(p, m[i].tag), "page %u: wrong contents", i);
	else
		CHECK(page_is_zero(p), "page %u: not zero", i);
	if (!(m[i].prot & PROT_WRITE)) {
		r = probe_write(p, 0);
		CHECK(r.signo == SIGSEGV && r.code == SEGV_ACCERR, "page %u: write gave signal %d code %d, not ACCERR",
		      i, r.signo, r.code);
	}
	digest_u64(d, m[i].tag);
	return NULL;
}

static const char *test_churn(struct digest *d)
{
	static const int prots[] = { RW, PROT_READ, PROT_NONE, RW, RW };
	static struct churn_page m[CHURN_PAGES];
	struct rng r = { 42 };
	uint64_t tag = 0;
	uint8_t *base = mmap(NULL, CHURN_PAGES * PAGE, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);

	CHECK(base != MAP_FAILED, "mmap: %s", strerror(errno));
	munmap(base, CHURN_PAGES * PAGE);
	for (unsigned step = 0; step < CHURN_STEPS; step++) {
		unsigned n = 1 + rng_next(&r) % CHURN_RUN, i = rng_next(&r) % (CHURN_PAGES - n);
		unsigned to = rng_next(&r) % (CHURN_PAGES - n), op = rng_next(&r) % 8;
		int prot = prots[rng_next(&r) % 5];
		uint8_t *p = base + i * PAGE;
		bool all = true;

		for (unsigned k = 0; k < n; k++)
			all &= m[i + k].mapped;
		switch (op) {
		case 0: case 1:
			CHECK(mmap(p, n * PAGE, prot, ANON | MAP_FIXED, -1, 0) == p, "mmap: %s", strerror(errno));
			for (unsigned k = 0; k < n; k++)
				m[i + k] = (struct churn_page){ true, prot, 0 };
			break;
		case 2:
			CHECK(!munmap(p, n * PAGE), "munmap: %s", strerror(errno));
			memset(m + i, 0, n * sizeof(*m));
			break;
		case 3:
			if (!all)
				break;
			CHECK(!mprotect(p, n * PAGE, prot), "mprotect: %s", strerror(errno));
			for (unsigned k = 0; k < n; k++)
				m[i + k].prot = prot;
			break;
		case 4:
			if (!all)
				break;
			CHECK(!madvise(p, n * PAGE, MADV_DONTNEED), "madvise: %s", strerror(errno));
			for (unsigned k = 0; k < n; k++)
				m[i + k].tag = 0;
			break;
		case 5: {
			/* mremap moves one mapping; a page is one for sure. */
			struct churn_page moved = m[i];
			uint8_t *q = base + to * PAGE;

			if (!moved.mapped || to == i)
				break;
			CHECK(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q, "mremap: %s",
			      strerror(errno));
			m[i].mapped = false;
			m[to] = moved;
			break;
		}
		default:
			for (unsigned k = 0; k < n; k++)
				if (m[i + k].mapped && m[i + k].prot == RW)
					page_fill(p + k * PAGE, m[i + k].tag = ++tag);
			break;
		}
		if (step % 16 == 0)
			for (unsigned k = 0; k < n; k++)
				TRY(churn_check(base, m, i + k, d));
	}
	for (unsigned i = 0; i < CHURN_PAGES; i++)
		TRY(churn_check(base, m, i, d));
	return NULL;
}

/* ---- faults that the program handles itself --------------------------------------------------------------------- */

static uint8_t *upgrade_base;
static size_t upgrade_len;
static volatile unsigned upgrade_faults, upgrade_bad;

static void upgrade_handler(int sig, siginfo_t *si, void *ctx)
{
	uint8_t *page = (uint8_t *)((uintptr_t)si->si_addr & ~(PAGE - 1));

	upgrade_faults++;
	if (si->si_code != SEGV_ACCERR || page < upgrade_base || page >= upgrade_base + upgrade_len ||
	    mprotect(page, PAGE, RW)) {
		upgrade_bad++;
		_exit(99);
	}
}

/* Write barriers of a garbage collector: exactly one fault per protected page, each repaired in the handler. */
static const char *test_segv_upgrade(struct digest *d)
{
	enum { PAGES = 700, ROUNDS = 3 };
	struct sigaction sa = { .sa_sigaction = upgrade_handler, .sa_flags = SA_SIGINFO };
	static const int from[ROUNDS] = { PROT_NONE, PROT_READ, PROT_NONE };

	upgrade_base = anon(PAGES);
	upgrade_len = PAGES * PAGE;
	CHECK(upgrade_base, "mmap: %s", strerror(errno));
	for (unsigned i = 0; i < PAGES; i++)
		page_fill(upgrade_base + i * PAGE, i);
	sigaction(SIGSEGV, &sa, NULL);
	for (unsigned round = 0; round < ROUNDS; round++) {
		upgrade_faults = 0;
		CHECK(!mprotect(upgrade_base, upgrade_len, from[round]), "mprotect: %s", strerror(errno));
		for (unsigned i = 0; i < PAGES; i++)
			((volatile uint8_t *)upgrade_base)[i * PAGE + 5] = upgrade_base[i * PAGE + 5];
		CHECK(upgrade_faults == PAGES, "%u faults for %u pages", upgrade_faults, PAGES);
	}
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(page_is(upgrade_base + i * PAGE, i), "page %u: wrong contents", i);
	digest_u64(d, upgrade_faults);
	return NULL;
}

/* What the kernel tells about a fault: address, kind, and the processor's error code. */
static const char *test_segv_codes(struct digest *d)
{
	enum { P = 1, W = 2, U = 4 };
	uint8_t *p = anon(4);
	struct probe r;

	CHECK(p, "mmap: %s", strerror(errno));
	p[0] = p[PAGE] = p[2 * PAGE] = 1;
	mprotect(p + PAGE, PAGE, PROT_READ);
	mprotect(p + 2 * PAGE, PAGE, PROT_NONE);
	munmap(p + 3 * PAGE, PAGE);

	r = probe_write(p + PAGE + 123, 1);
	CHECK(r.code == SEGV_ACCERR && r.addr == (uintptr_t)p + PAGE + 123, "write to read-only: code %d at %#lx",
	      r.code, r.addr);
	CHECK((r.error & (P | W | U)) == (P | W | U), "write to read-only: error code %#lx, not 7", r.error);
	r = probe_read(p + 2 * PAGE + 7);
	CHECK(r.code == SEGV_ACCERR && r.addr == (uintptr_t)p + 2 * PAGE + 7, "PROT_NONE: code %d at %#lx", r.code,
	      r.addr);
	CHECK((r.error & (W | U)) == U, "read of PROT_NONE: error code %#lx", r.error);
	r = probe_write(p + 3 * PAGE, 1);
	CHECK(r.code == SEGV_MAPERR, "unmapped: code %d", r.code);
	CHECK((r.error & (P | W | U)) == (W | U), "write to unmapped: error code %#lx, not 6", r.error);
	r = probe_read((void *)0xffffffff81000000ul);
	CHECK(r.signo == SIGSEGV, "the kernel's text is readable");
	r = probe_write((void *)0xffff888000001000ul, 1);
	CHECK(r.signo == SIGSEGV, "the kernel's direct map is writable");
	r = probe_read((void *)0xffff800000000000ul);
	CHECK(r.signo == SIGSEGV, "the hypervisor's hole is readable");
	r = probe_read((void *)0x8000000000000000ul);	/* not canonical: #GP, for which Linux reports no address */
	CHECK(r.signo == SIGSEGV && !r.addr, "non-canonical: signal %d at %#lx", r.signo, r.addr);
	digest_u64(d, 8);
	return NULL;
}

/* Code that is written, run, and rewritten at the same address. */
static const char *test_exec_pages(struct digest *d)
{
	enum { PAGES = 8 };
	uint8_t *p = anon(PAGES);
	struct probe r;
	int got;

	CHECK(p, "mmap: %s", strerror(errno));
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < PAGES; i++) {
			int value = round * 100 + i;

			p[i * PAGE] = 0xb8;	/* mov $value, %eax; ret */
			memcpy(p + i * PAGE + 1, &value, 4);
			p[i * PAGE + 5] = 0xc3;
		}
		CHECK(!mprotect(p, PAGES * PAGE, PROT_READ | PROT_EXEC), "mprotect: %s", strerror(errno));
		for (int i = 0; i < PAGES; i++) {
			got = -1;
			r = probe_call(p + i * PAGE, &got);
			CHECK(!r.signo && got == round * 100 + i, "round %d page %d: signal %d, value %d", round, i,
			      r.signo, got);
		}
		CHECK(!mprotect(p, PAGES * PAGE, RW), "mprotect: %s", strerror(errno));
		digest_u64(d, got);
	}
	r = probe_call(p, &got);
	CHECK(r.signo == SIGSEGV && r.code == SEGV_ACCERR, "code ran in a page without PROT_EXEC (no NX?)");
	CHECK(r.addr == (uintptr_t)p && (r.error & 16), "fetch fault at %#lx, error code %#lx", r.addr, r.error);
	return NULL;
}

/* The kernel's own accesses to user memory: faults it must survive, and faults it must repair. */
static const char *test_uaccess(struct digest *d)
{
	uint8_t *p = anon(4), buf[2 * PAGE];
	int fd[2], status;
	ssize_t n;
	pid_t pid;

	CHECK(p && !pipe(fd), "set-up: %s", strerror(errno));
	munmap(p + 3 * PAGE, PAGE);
	page_fill(p + 2 * PAGE, 7);
	CHECK(write(fd[1], p + 3 * PAGE, 1) == -1 && errno == EFAULT, "write from an unmapped page was accepted");
	mprotect(p + PAGE, PAGE, PROT_NONE);
	CHECK(write(fd[1], p + PAGE, 1) == -1 && errno == EFAULT, "write from a PROT_NONE page was accepted");
	mprotect(p + PAGE, PAGE, PROT_READ);
	CHECK(write(fd[1], "x", 1) == 1, "write: %s", strerror(errno));
	CHECK(read(fd[0], p + PAGE, 1) == -1 && errno == EFAULT, "read into a read-only page was accepted");
	CHECK(write(1, (void *)0xffff888000001000ul, 8) == -1 && errno == EFAULT,
	      "write from kernel memory was accepted");

	/* Half of the buffer is missing: a short count, and the first half is right. */
	close(fd[0]);
	close(fd[1]);
	int file = scratch_file(0);

	n = write(file, p + 2 * PAGE, 2 * PAGE);
	CHECK(n == (ssize_t)PAGE, "write across a missing page gave %zd, not 4096", n);
	CHECK(pread(file, buf, sizeof(buf), 0) == n && page_is(buf, 7), "wrong data after a short write");

	/* The kernel is the first to write: to a fresh page, and to one shared after fork. */
	uint8_t *fresh = anon(2);

	page_fill(fresh + PAGE, 9);
	pid = fork();
	if (!pid) {
		bool ok = pread(file, fresh, PAGE, 0) == (ssize_t)PAGE;

		ok = ok && pread(file, fresh + PAGE, PAGE, 0) == (ssize_t)PAGE;
		_exit(!ok || !page_is(fresh, 7) || !page_is(fresh + PAGE, 7));
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status, "child: pages the kernel wrote are wrong (%#x)", status);
	CHECK(page_is_zero(fresh) && page_is(fresh + PAGE, 9), "the kernel's write in the child shows in the parent");
	digest_bytes(d, fresh, 2 * PAGE);
	return NULL;
}

/* ---- moving, discarding, growing -------------------------------------------------------------------------------- */

static const char *test_mremap(struct digest *d)
{
	enum { PAGES = 600, BIG = 1024 };	/* BIG: 4 MiB, aligned, so that whole leaf tables move */
	uint8_t *p = anon(PAGES), *q, *arena, *to;

	CHECK(p, "mmap: %s", strerror(errno));
	for (unsigned i = 0; i < PAGES; i++)
		page_fill(p + i * PAGE, i);
	arena = mmap(NULL, 8 * BIG * PAGE, PROT_NONE, ANON | MAP_NORESERVE, -1, 0);
	CHECK(arena != MAP_FAILED, "mmap: %s", strerror(errno));
	to = (uint8_t *)(((uintptr_t)arena + BIG * PAGE) & ~(BIG * PAGE - 1));

	q = mremap(p, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to + 3 * PAGE);
	CHECK(q == to + 3 * PAGE, "grow and move: %s", strerror(errno));
	CHECK(probe_read(p).signo == SIGSEGV, "the old address still reads");
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(page_is(q + i * PAGE, i), "page %u: wrong contents after the move", i);
	for (unsigned i = PAGES; i < 2 * PAGES; i++)
		CHECK(page_is_zero(q + i * PAGE), "page %u: not zero after growing", i);
	CHECK(mremap(q, 2 * PAGES * PAGE, 10 * PAGE, 0) == q, "shrink: %s", strerror(errno));
	CHECK(probe_read(q + 10 * PAGE).signo == SIGSEGV, "the cut tail still reads");
	CHECK(page_is(q + 9 * PAGE, 9), "wrong contents after shrinking");
	munmap(q, 10 * PAGE);

	p = mmap(to, BIG * PAGE, RW, ANON | MAP_FIXED, -1, 0);
	CHECK(p == to, "mmap: %s", strerror(errno));
	for (unsigned i = 0; i < BIG; i++)
		page_fill(p + i * PAGE, 7000 + i);
	for (unsigned hop = 0; hop < 4; hop++) {
		q = p == to ? to + 2 * BIG * PAGE : to;
		CHECK(mremap(p, BIG * PAGE, BIG * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q, "hop: %s",
		      strerror(errno));
		CHECK(probe_read(p + hop * PAGE).signo == SIGSEGV, "hop %u: the old address still reads", hop);
		for (unsigned i = 0; i < BIG; i++)
			CHECK(page_is(q + i * PAGE, 7000 + i), "hop %u page %u: wrong contents", hop, i);
		p = q;
	}
	digest_bytes(d, p, BIG * PAGE);
	return NULL;
}

static const char *test_dontneed(struct digest *d)
{
	enum { PAGES = 520 };
	int fd = scratch_file(PAGES * PAGE);
	uint8_t *a = anon(PAGES), *f, page[PAGE];

	CHECK(a && fd >= 0, "set-up: %s", strerror(errno));
	for (unsigned i = 0; i < PAGES; i++) {
		page_fill(page, 100 + i);
		CHECK(pwrite(fd, page, PAGE, i * PAGE) == (ssize_t)PAGE, "pwrite: %s", strerror(errno));
	}
	f = mmap(NULL, PAGES * PAGE, RW, MAP_PRIVATE, fd, 0);
	CHECK(f != MAP_FAILED, "mmap: %s", strerror(errno));
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < PAGES; i++) {
			page_fill(a + i * PAGE, i + 1);
			page_fill(f + i * PAGE, i + 2);
		}
		CHECK(!madvise(a + PAGE, (PAGES - 2) * PAGE, MADV_DONTNEED) &&
		      !madvise(f + PAGE, (PAGES - 2) * PAGE, MADV_DONTNEED), "madvise: %s", strerror(errno));
		for (unsigned i = 0; i < PAGES; i++) {
			bool kept = i == 0 || i == PAGES - 1;

			CHECK(kept ? page_is(a + i * PAGE, i + 1) : page_is_zero(a + i * PAGE), "anonymous page %u", i);
			CHECK(page_is(f + i * PAGE, kept ? i + 2 : 100 + i), "file page %u", i);
		}
		digest_bytes(d, a, 2 * PAGE);
		digest_bytes(d, f, 2 * PAGE);
	}
	return NULL;
}

static const char *test_brk(struct digest *d)
{
	enum { STEP = 96, STEPS = 20 };
	uint8_t *base = sbrk(0);

	base += -(uintptr_t)base & (PAGE - 1);
	CHECK(!brk(base), "brk: %s", strerror(errno));
	for (int round = 0; round < 2; round++) {
		for (int s = 0; s < STEPS; s++) {
			uint8_t *p = base + s * STEP * PAGE;

			CHECK(!brk(p + STEP * PAGE), "brk: %s", strerror(errno));
			for (int i = 0; i < STEP; i++) {
				CHECK(page_is_zero(p + i * PAGE), "round %d: page %d of step %d not zero", round, i, s);
				page_fill(p + i * PAGE, s * STEP + i);
			}
		}
		for (int i = 0; i < STEPS * STEP; i++)
			CHECK(page_is(base + i * PAGE, i), "round %d: page %d wrong", round, i);
		digest_bytes(d, base, PAGE);
		CHECK(!brk(base), "brk down: %s", strerror(errno));
		CHECK(probe_read(base).signo == SIGSEGV, "memory below the old break still reads");
	}
	return NULL;
}

static __attribute__((noinline)) uint64_t stack_dive(unsigned depth, uint64_t seed)
{
	volatile uint64_t frame[256];
	uint64_t below;

	for (unsigned i = 0; i < 256; i++)
		frame[i] = seed * 31 + i;
	below = depth ? stack_dive(depth - 1, seed + 1) : 0;
	for (unsigned i = 0; i < 256; i++)
		if (frame[i] != seed * 31 + i)
			return ~0ull;
	return below == ~0ull ? below : below + frame[255];
}

static sig_atomic_t volatile stack_overflows;

static void stack_overflow_handler(int sig)
{
	stack_overflows++;
	_exit(55);
}

static const char *test_stack_growth(struct digest *d)
{
	struct rlimit limit = { 8 << 20, 8 << 20 };
	stack_t alt = { .ss_size = 65536 };
	uint64_t sum, want = 0;
	pid_t pid;

	setrlimit(RLIMIT_STACK, &limit);
	for (unsigned i = 0; i <= 2000; i++)
		want += (1 + i) * 31 + 255;
	for (int round = 0; round < 2; round++) {
		sum = stack_dive(2000, 1);	/* 2000 frames of 2 KiB */
		CHECK(sum == want, "the stack lost data: %#lx, not %#lx", sum, want);
		digest_u64(d, sum);
	}
	pid = fork();
	if (!pid) {	/* run off the stack: the handler runs on the alternate one */
		struct sigaction sa = { .sa_handler = stack_overflow_handler, .sa_flags = SA_ONSTACK };

		alt.ss_sp = anon(16);
		sigaltstack(&alt, NULL);
		sigaction(SIGSEGV, &sa, NULL);
		stack_dive(1000000, 1);
		_exit(0);
	}
	return child_expect(pid, 55);
}

const struct subtest memory_tests[] = {
	{ "churn", test_churn },
	{ "segv_upgrade", test_segv_upgrade },
	{ "segv_codes", test_segv_codes },
	{ "exec_pages", test_exec_pages },
	{ "uaccess", test_uaccess },
	{ "mremap", test_mremap },
	{ "dontneed", test_dontneed },
	{ "brk", test_brk },
	{ "stack_growth", test_stack_growth },
	{ 0 },
};
