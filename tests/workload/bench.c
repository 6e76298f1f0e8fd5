/* Measurements. Each interval lies between two marks, so that the VMM's counters can be had for just that interval. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mark.h"
#include "workload.h"

#define MICRO_MIN_NS	200000000ull	/* operations are doubled until they last this long */

uint64_t bench_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int bench_fail(const char *name, const char *what)
{
	printf("UMBRA-RESULT FAIL %s %s: %s\n", name, what, strerror(errno));
	return 1;
}

static int bench_ok(void)
{
	printf("UMBRA-RESULT ok -\n");
	return 0;
}

/* The number after the command; 0 if there is none or it is not one. */
static unsigned long bench_count(int argc, char **argv)
{
	char *end;
	unsigned long n;

	if (argc != 2 || argv[1][0] == '-')
		return 0;
	errno = 0;
	n = strtoul(argv[1], &end, 10);
	return *end || errno ? 0 : n;
}

static int fork_exec_once(void)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execlp("busybox", "busybox", "true", NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	if (status) {
		errno = ENOEXEC;
		return -1;
	}
	return 0;
}

int forks_main(int argc, char **argv)
{
	unsigned long n = bench_count(argc, argv);
	uint64_t t;

	if (!n) {
		fprintf(stderr, "workload: forks needs a count\n");
		return 2;
	}
	if (fork_exec_once())	/* page cache warm, marks probed */
		return bench_fail("forks", "busybox true");
	mark(MARK_BEGIN);
	t = bench_now_ns();
	for (unsigned long i = 0; i < n; i++)
		if (fork_exec_once())
			return bench_fail("forks", "busybox true");
	t = bench_now_ns() - t;
	mark(MARK_END);
	printf("forks %lu: %.1f us per fork+exec\n", n, t / 1e3 / n);
	return bench_ok();
}

/* ---- micro: a case does `n` operations and returns 0, or -1 and errno ------------------------------------------ */

static int micro_getppid(unsigned long n)
{
	while (n--)
		getppid();
	return 0;
}

#define CHUNK	1024ul	/* pages mapped at a time */

static int touch_pages(unsigned long n, int fd, int prot, bool write)
{
	for (; n; n -= n < CHUNK ? n : CHUNK) {
		unsigned long pages = n < CHUNK ? n : CHUNK;
		volatile uint8_t *p = mmap(NULL, CHUNK * PAGE, prot, MAP_PRIVATE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

		if (p == MAP_FAILED)
			return -1;
		for (unsigned long i = 0; i < pages; i++) {
			if (write)
				p[i * PAGE] = 1;
			else
				p[i * PAGE];
		}
		munmap((void *)p, CHUNK * PAGE);
	}
	return 0;
}

static int micro_anon(unsigned long n)
{
	return touch_pages(n, -1, PROT_READ | PROT_WRITE, true);
}

static int micro_fd = -1;	/* CHUNK pages of tmpfs, in the page cache */

static int micro_file_read(unsigned long n)
{
	return touch_pages(n, micro_fd, PROT_READ, false);
}

static int micro_file_cow(unsigned long n)
{
	return touch_pages(n, micro_fd, PROT_READ | PROT_WRITE, true);
}

static int micro_mprotect(unsigned long n)
{
	volatile uint8_t *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret = 0;

	if (p == MAP_FAILED)
		return -1;
	while (n-- && !ret) {
		*p = 1;
		ret = mprotect((void *)p, PAGE, PROT_READ) | mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE);
	}
	munmap((void *)p, PAGE);
	return ret;
}

static int micro_pipe(unsigned long n)
{
	int to[2], from[2], status, ret = 0;
	char c = 0;
	pid_t pid;

	if (pipe(to) || pipe(from))
		return -1;
	pid = fork();
	if (pid < 0)
		return -1;
	if (!pid) {
		close(to[1]);
		while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1)
			;
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	while (n-- && !ret)
		ret = write(to[1], &c, 1) == 1 && read(from[0], &c, 1) == 1 ? 0 : -1;
	close(to[1]);
	close(from[0]);
	waitpid(pid, &status, 0);
	return ret;
}

static int micro_fork(unsigned long n)
{
	while (n--) {
		pid_t pid = fork();

		if (!pid)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			return -1;
	}
	return 0;
}

static const struct micro {
	const char *name, *what;
	int (*run)(unsigned long n);
	unsigned long first;	/* operations in the first try */
} micros[] = {
	{ "getppid", "system call", micro_getppid, 1000 },
	{ "anon_fault", "first write to an anonymous page", micro_anon, CHUNK },
	{ "file_fault", "first read of a page of a mapped file (fault-around included)", micro_file_read, CHUNK },
	{ "cow_fault", "first write to a page of a private file map", micro_file_cow, CHUNK },
	{ "mprotect_pair", "read-only and back, with a write in between", micro_mprotect, 250 },
	{ "pipe_rtt", "one byte there and back between two processes", micro_pipe, 250 },
	{ "fork_exit", "fork, _exit, wait", micro_fork, 10 },
};

static int micro_one(const struct micro *m)
{
	unsigned long n = m->first;
	uint64_t t;

	for (;; n *= 2) {
		t = bench_now_ns();
		if (m->run(n))
			return -1;
		if (bench_now_ns() - t >= MICRO_MIN_NS)
			break;
	}
	mark(MARK_BEGIN);
	t = bench_now_ns();
	if (m->run(n))
		return -1;
	t = bench_now_ns() - t;
	mark(MARK_END);
	printf("micro %-13s %9lu x %10.1f ns  %s\n", m->name, n, (double)t / n, m->what);
	return 0;
}

int micro_main(int argc, char **argv)
{
	uint8_t page[PAGE] = { 1 };

	micro_fd = scratch_file(CHUNK * PAGE);
	if (micro_fd < 0)
		return bench_fail("micro", "scratch file");
	for (unsigned long i = 0; i < CHUNK; i++)
		if (pwrite(micro_fd, page, PAGE, i * PAGE) != PAGE)
			return bench_fail("micro", "scratch file");
	for (size_t i = 0; i < sizeof(micros) / sizeof(*micros); i++)
		if (micro_one(&micros[i]))
			return bench_fail("micro", micros[i].name);
	return bench_ok();
}

int spin_main(int argc, char **argv)
{
	unsigned long n = bench_count(argc, argv);
	struct rng r = { 1 };
	uint64_t t, sum = 0;

	if (!n) {
		fprintf(stderr, "workload: spin needs a count of millions\n");
		return 2;
	}
	mark(MARK_BEGIN);
	t = bench_now_ns();
	for (unsigned long i = 0; i < n * 1000000; i++)
		sum ^= rng_next(&r);
	t = bench_now_ns() - t;
	mark(MARK_END);
	printf("spin %lu: %lu ns, sum %016lx\n", n, t, sum);
	return bench_ok();
}

int idle_main(int argc, char **argv)
{
	unsigned long n = bench_count(argc, argv);

	if (!n) {
		fprintf(stderr, "workload: idle needs a number of seconds\n");
		return 2;
	}
	mark(MARK_BEGIN);
	for (unsigned left = n; left;)
		left = sleep(left);
	mark(MARK_END);
	return bench_ok();
}

/* As the first process (rdinit=/bin/workload -- boot): says so and powers off. */
int boot_main(int argc, char **argv)
{
	mark(MARK_BOOT);
	printf("UMBRA-FIRST-PROCESS\n");
	bench_ok();
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 0;
}
