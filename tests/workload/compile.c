/* C files through cc1 -O2 and as, as a build does: fork, exec, much anonymous memory, files. Checked by the objects. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"
#include "workload.h"

#define FILES_MAX	100

static int run_tool(char *const argv[])
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execv(argv[0], argv);
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

static int compile_one(const char *source, const char *dir, unsigned nr)
{
	char asm_file[64], object[64];

	snprintf(asm_file, sizeof asm_file, "%s/%u.s", dir, nr);
	snprintf(object, sizeof object, "%s/%u.o", dir, nr);
	if (run_tool((char *[]){ "./cc1", "-quiet", "-fpreprocessed", "-O2", "-w", (char *)source, "-o", asm_file, NULL }))
		return -1;
	return run_tool((char *[]){ "./as", "--64", "-o", object, asm_file, NULL });
}

int digest_file(struct digest *d, const char *path)
{
	char buf[16384];
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	while ((n = read(fd, buf, sizeof buf)) > 0)
		digest_bytes(d, buf, n);
	close(fd);
	return n;
}

/* Digests the objects and removes all that was made. */
static int take_objects(const char *dir, unsigned n, struct digest *d)
{
	char path[64];
	int ret = 0;

	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof path, "%s/%u.o", dir, i);
		ret |= digest_file(d, path);
		unlink(path);
		snprintf(path, sizeof path, "%s/%u.s", dir, i);
		unlink(path);
	}
	rmdir(dir);
	return ret;
}

/* As many at once as there are processors; one after the other on one. 0, or the number of a file that failed, from 1. */
static unsigned compile_all(const glob_t *files, const char *dir)
{
	unsigned jobs, running = 0, next = 0, failed = 0;
	pid_t pids[FILES_MAX] = { 0 };
	cpu_set_t cpus;
	int status;

	jobs = sched_getaffinity(0, sizeof cpus, &cpus) ? 1 : CPU_COUNT(&cpus);
	if (jobs == 1) {
		for (; next < files->gl_pathc && !failed; next++)
			if (compile_one(files->gl_pathv[next], dir, next))
				failed = next + 1;
		return failed;
	}
	while (running || (next < files->gl_pathc && !failed)) {
		pid_t pid;

		if (running < jobs && next < files->gl_pathc && !failed) {
			pid = fork();
			if (!pid)
				_exit(compile_one(files->gl_pathv[next], dir, next) ? errno : 0);
			pids[next++] = pid;
			running += pid > 0;
			if (pid < 0)
				failed = next;
			continue;
		}
		pid = wait(&status);
		running--;
		for (unsigned i = 0; i < next; i++)
			if (pids[i] == pid && status) {
				failed = i + 1;
				errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
			}
	}
	return failed;
}

/* DIR holds cc1, as, *.i, and maybe 'digest', which is what must come out. */
int compile_main(int argc, char **argv)
{
	char dir[] = "/dev/shm/compile.XXXXXX", found[24], expected[24] = "";
	struct digest d = DIGEST_INIT;
	unsigned failed;
	glob_t files;
	uint64_t t;
	FILE *f;

	if (argc != 2) {
		fprintf(stderr, "workload: compile needs a folder\n");
		return 2;
	}
	if (chdir(argv[1]))
		return bench_fail("compile", argv[1]);
	errno = ENOENT;
	if (glob("*.i", 0, NULL, &files) || files.gl_pathc > FILES_MAX)
		return bench_fail("compile", "*.i");
	f = fopen("digest", "re");
	if (f) {
		if (fscanf(f, "%23s", expected) != 1)
			*expected = 0;
		fclose(f);
	}
	if (!mkdtemp(dir))
		return bench_fail("compile", dir);

	mark(MARK_BEGIN);
	t = bench_now_ns();
	failed = compile_all(&files, dir);
	if (failed) {
		int err = errno;

		take_objects(dir, files.gl_pathc, &d);
		errno = err;
		return bench_fail("compile", files.gl_pathv[failed - 1]);
	}
	t = bench_now_ns() - t;
	mark(MARK_END);

	if (take_objects(dir, files.gl_pathc, &d))
		return bench_fail("compile", "objects");
	printf("compile %zu files: %.1f ms\n", files.gl_pathc, t / 1e6);
	globfree(&files);
	snprintf(found, sizeof found, "%016llx", (unsigned long long)d.h);
	if (*expected && strcmp(expected, found)) {
		printf("UMBRA-RESULT FAIL compile objects are %s, not %s\n", found, expected);
		return 1;
	}
	printf("UMBRA-RESULT ok %s\n", found);
	return 0;
}
