/* A shell script, timed as a whole: for `umbra compare --run`. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"
#include "workload.h"

static int run_script(const char *script)
{
	int status, in;
	pid_t pid = fork();

	if (!pid) {
		in = open("/dev/null", O_RDONLY);
		if (in >= 0)
			dup2(in, 0);
		execl("/bin/sh", "sh", script, NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

int command_main(int argc, char **argv)
{
	const char *script = argc > 1 ? argv[1] : "/command";
	uint64_t t;
	int status;

	if (access(script, R_OK))
		return bench_fail("command", script);
	if (chdir("/work"))
		return bench_fail("command", "/work");
	printf("UMBRA-COMMAND begins\n");
	mark(MARK_COMMAND_BEGIN);
	t = bench_now_ns();
	status = run_script(script);
	t = bench_now_ns() - t;
	mark(MARK_COMMAND_END);
	if (status < 0)
		return bench_fail("command", "sh");
	if (status) {
		printf("\nUMBRA-RESULT FAIL command %s %d\n", WIFSIGNALED(status) ? "signal" : "exit status",
		       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		return 1;
	}
	printf("\nUMBRA-COMMAND %llu ns\n", (unsigned long long)t);
	printf("UMBRA-RESULT ok -\n");
	return 0;
}
