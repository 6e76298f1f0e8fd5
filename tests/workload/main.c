/* The command: picks what to run; the helpers that every part uses. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "workload.h"

void digest_bytes(struct digest *d, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len--)
		d->h = (d->h ^ *p++) * 0x100000001b3ull;
}

void digest_u64(struct digest *d, uint64_t v)
{
	digest_bytes(d, &v, sizeof(v));
}

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

void rng_fill(struct rng *r, void *buf, size_t len)
{
	uint8_t *p = buf;

	for (; len >= 8; p += 8, len -= 8)
		memcpy(p, &(uint64_t){ rng_next(r) }, 8);
	if (len)
		memcpy(p, &(uint64_t){ rng_next(r) }, len);
}

const char *why(const char *fmt, ...)
{
	static char buf[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	return buf;
}

const char *child_expect(pid_t pid, int code)
{
	int status;

	CHECK(pid >= 0, "fork: %s", strerror(errno));
	CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	CHECK(!WIFSIGNALED(status), "child killed by signal %d", WTERMSIG(status));
	CHECK(WEXITSTATUS(status) == code, "child exited with %d, not %d", WEXITSTATUS(status), code);
	return NULL;
}

int scratch_file(size_t size)
{
	int fd = memfd_create("workload", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, size)) {
		close(fd);
		return -1;
	}
	return fd;
}

static sigjmp_buf probe_out;
static struct probe probe_seen;

static void probe_handler(int sig, siginfo_t *si, void *ctx)
{
	const ucontext_t *uc = ctx;

	probe_seen = (struct probe){ sig, si->si_code, (uintptr_t)si->si_addr, uc->uc_mcontext.gregs[REG_ERR] };
	siglongjmp(probe_out, 1);
}

enum probe_kind { PROBE_READ, PROBE_WRITE, PROBE_CALL };

static struct probe probe(enum probe_kind kind, void *p, int value, int *result)
{
	struct sigaction sa = { .sa_sigaction = probe_handler, .sa_flags = SA_SIGINFO }, segv, bus;

	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	probe_seen = (struct probe){ 0 };
	if (!sigsetjmp(probe_out, 1)) {
		switch (kind) {
		case PROBE_READ:
			*(volatile uint8_t *)p;
			break;
		case PROBE_WRITE:
			*(volatile uint8_t *)p = value;
			break;
		case PROBE_CALL:
			*result = ((int (*)(void))p)();
			break;
		}
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return probe_seen;
}

struct probe probe_read(const volatile void *p)
{
	return probe(PROBE_READ, (void *)p, 0, NULL);
}

struct probe probe_write(volatile void *p, uint8_t value)
{
	return probe(PROBE_WRITE, (void *)p, value, NULL);
}

struct probe probe_call(void *code, int *result)
{
	return probe(PROBE_CALL, code, 0, result);
}

static const struct {
	const char *name, *args, *what;
	int (*main)(int argc, char **argv);
} commands[] = {
	{ "selftest", "[NAME...]", "tests that check their own data (all, or the named ones)", selftest_main },
	{ "forks", "N", "time per fork + exec + wait of 'busybox true'", forks_main },
	{ "micro", "", "time per system call, page fault, pipe round trip ...", micro_main },
	{ "spin", "N", "time of N million steps of an integer loop", spin_main },
	{ "shared", "N", "time of N passes over shared and own memory, a process on each processor", shared_main },
	{ "compile", "DIR", "time of DIR's *.i through DIR's cc1 -O2 and as", compile_main },
	{ "kbuild", "SIZE [ROOT]", "time of a kernel build (small, tiny, defconfig) in ROOT, default /kbuild", kbuild_main },
	{ "boot", "", "be the first process: mark that, power off", boot_main },
	{ "command", "[FILE]", "time of a shell script, default /command, in /work", command_main },
	{ "idle", "SECONDS", "do nothing", idle_main },
	{ "exec-child", NULL, NULL, exec_child_main },	/* for selftest */
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].main(argc - 1, argv + 1);

	fprintf(stderr, argc > 1 ? "workload: no command '%s'\n" : "usage: workload COMMAND\n", argv[1]);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (commands[i].what)
			fprintf(stderr, "  %-9s %-9s  %s\n", commands[i].name, commands[i].args, commands[i].what);
	return 2;
}
