/* Runs the subtests, each in a process group of its own, under a time limit. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "workload.h"

struct report {		/* shared with the process that runs the subtest */
	struct digest digest;
	bool done, skipped;
	char why[200];
};

static bool skipping;

const char *skip(const char *reason)
{
	skipping = true;
	return reason;
}

static void subtest_child(const struct subtest *t, struct report *rep)
{
	const char *failed;

	setpgid(0, 0);
	sigprocmask(SIG_SETMASK, &(sigset_t){ 0 }, NULL);
	failed = t->run(&rep->digest);
	if (failed)
		snprintf(rep->why, sizeof(rep->why), "%s", failed);
	rep->skipped = skipping;
	rep->done = true;
	_exit(failed != NULL);
}

/* Waits at most `seconds`; SIGCHLD is blocked. False: time is up and the process is still there. */
static bool wait_limited(pid_t pid, int *status, unsigned seconds)
{
	sigset_t chld;
	struct timespec now, end;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	while (!waitpid(pid, status, WNOHANG)) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= end.tv_sec)
			return false;
		sigtimedwait(&chld, NULL, &(struct timespec){ .tv_sec = 1 });
	}
	return true;
}

static bool subtest_run(const struct subtest *t, struct report *rep)
{
	int status = 0;
	pid_t pid;

	*rep = (struct report){ .digest = DIGEST_INIT };
	digest_bytes(&rep->digest, t->name, strlen(t->name));
	pid = fork();
	if (pid < 0) {
		snprintf(rep->why, sizeof(rep->why), "fork: %s", strerror(errno));
	} else if (!pid) {
		subtest_child(t, rep);
	} else if (!wait_limited(pid, &status, SUBTEST_TIMEOUT_S)) {
		kill(-pid, SIGKILL);
		waitpid(pid, &status, 0);
		snprintf(rep->why, sizeof(rep->why), "still running after %u s", SUBTEST_TIMEOUT_S);
	} else {
		kill(-pid, SIGKILL);	/* children it left behind */
		if (WIFSIGNALED(status))
			snprintf(rep->why, sizeof(rep->why), "killed by signal %d (%s)", WTERMSIG(status),
				 strsignal(WTERMSIG(status)));
		else if (!rep->done)
			snprintf(rep->why, sizeof(rep->why), "exited early with %d", WEXITSTATUS(status));
	}
	return !rep->why[0];
}

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return argc < 2;
}

int selftest_main(int argc, char **argv)
{
	const struct subtest *tables[] = { memory_tests, process_tests, io_tests, cpu_tests };
	unsigned run = 0, failed = 0;
	struct digest all = DIGEST_INIT;
	struct report *rep;
	sigset_t chld;

	rep = mmap(NULL, sizeof(*rep), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rep == MAP_FAILED) {
		printf("UMBRA-RESULT FAIL selftest mmap: %s\n", strerror(errno));
		return 1;
	}
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);

	for (size_t i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		for (const struct subtest *t = tables[i]; t->name; t++) {
			if (!wanted(t->name, argc, argv))
				continue;
			run++;
			if (!subtest_run(t, rep) && !rep->skipped) {
				printf("FAIL %s %s\n", t->name, rep->why);
				failed++;
				continue;
			}
			if (rep->skipped)
				printf("skip %s %s\n", t->name, rep->why);
			else
				printf("ok %s %016lx\n", t->name, rep->digest.h);
			digest_u64(&all, rep->digest.h);
		}
	}
	if (failed || !run)
		printf("UMBRA-RESULT FAIL selftest %u of %u failed\n", failed, run);
	else
		printf("UMBRA-RESULT ok %016lx\n", all.h);
	return failed || !run;
}
