/*
 * A process on each processor: all read one file that is mapped into them, each has memory of its own that it adds to. For
 * NUMA placement: the file and each process's memory are first touched by another processor than the one that uses them.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"
#include "workload.h"

#define FILE_BYTES	(8ul << 20)
#define OWN_BYTES	(4ul << 20)	/* of each process */
#define PROCESSES_MAX	64l

static int run_on(long cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof set, &set);
}

static uint64_t sum(const uint64_t *at, size_t bytes)
{
	uint64_t s = 0;

	for (size_t i = 0; i < bytes / 8; i++)
		s = (s ^ at[i]) * 0x100000001b3ull;
	return s;
}

/* 0, or what is wrong as an exit status. */
static int passes(const uint64_t *file, uint64_t file_sum, uint64_t *own, unsigned long n)
{
	for (unsigned long pass = 0; pass < n; pass++) {
		if (sum(file, FILE_BYTES) != file_sum)
			return 1;
		for (size_t i = 0; i < OWN_BYTES / 8; i++)
			if (own[i]++ != i + pass)
				return 2;
	}
	return 0;
}

static int process(long cpu, long others, const uint64_t *file, uint64_t file_sum, unsigned long n, int ready, int go)
{
	uint64_t *own = mmap(NULL, OWN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char byte = 0;

	if (own == MAP_FAILED || run_on(others))
		return 3;
	for (size_t i = 0; i < OWN_BYTES / 8; i++)
		own[i] = i;
	if (run_on(cpu) || write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
		return 3;
	return passes(file, file_sum, own, n);
}

/* The worst exit status of all; -1 and errno. */
static int run_all(long cpus, const uint64_t *file, uint64_t file_sum, unsigned long n, uint64_t *ns)
{
	static char bytes[PROCESSES_MAX];
	int ready[2], go[2], status, worst = 0;

	if (pipe(ready) || pipe(go))
		return -1;
	fflush(stdout);
	for (long i = 0; i < cpus; i++) {
		pid_t pid = fork();

		if (!pid)
			_exit(process(i, cpus - 1 - i, file, file_sum, n, ready[1], go[0]));
		if (pid < 0)
			return -1;
	}
	close(ready[1]);
	for (long i = 0; i < cpus; i++)
		if (read(ready[0], bytes, 1) != 1)
			return errno = ESRCH, -1;
	mark(MARK_BEGIN);
	*ns = bench_now_ns();
	if (write(go[1], bytes, (size_t)cpus) != cpus)
		return -1;
	while (wait(&status) > 0) {
		status = WIFEXITED(status) ? WEXITSTATUS(status) : 4;
		worst = status > worst ? status : worst;
	}
	*ns = bench_now_ns() - *ns;
	mark(MARK_END);
	return worst;
}

int shared_main(int argc, char **argv)
{
	static const char *const what[] = { "", "the file is not what it was", "its own memory is not what it was", "set-up", "killed" };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned long n = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
	struct rng rng = { 1 };
	uint64_t *file, file_sum, ns;
	int fd, worst;

	if (!n) {
		fprintf(stderr, "workload: shared needs a count of passes\n");
		return 2;
	}
	cpus = cpus < 1 ? 1 : cpus > PROCESSES_MAX ? PROCESSES_MAX : cpus;
	fd = scratch_file(FILE_BYTES);
	file = fd < 0 ? MAP_FAILED : mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		return bench_fail("shared", "a file in memory");
	rng_fill(&rng, file, FILE_BYTES);
	file_sum = sum(file, FILE_BYTES);
	if (mprotect(file, FILE_BYTES, PROT_READ))
		return bench_fail("shared", "mprotect");
	worst = run_all(cpus, file, file_sum, n, &ns);
	if (worst < 0)
		return bench_fail("shared", "processes");
	if (worst) {
		printf("UMBRA-RESULT FAIL shared %s\n", what[worst < 4 ? worst : 4]);
		return 1;
	}
	printf("shared %lu passes, %ld processes: %.1f us per pass\n", n, cpus, ns / 1e3 / n);
	printf("UMBRA-RESULT ok %016llx\n", (unsigned long long)file_sum);
	return 0;
}
