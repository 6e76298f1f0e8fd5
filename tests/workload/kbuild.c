/*
 * A Linux kernel built from source in the tree that scripts/guest-image makes, which becomes the root folder: here, in a
 * guest or on the host, the same tools at the same paths. Checked by the objects.
 *
 * Nothing is written to the tree: output and temporary files lie on file systems in memory that are mounted in a
 * namespace of this process and end with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mark.h"
#include "workload.h"

#define TMPFS	0x01021994		/* statfs.f_type; linux/magic.h */
#define RAMFS	0x858458f6
#define LOG	"/tmp/log"

static const struct build {
	const char *size, *config;
	const char *targets[8];
} builds[] = {
	{ "small", "tinyconfig", { "kernel/sched/", "kernel/time/", "kernel/locking/", "lib/crypto/" } },
	{ "tiny", "tinyconfig", { "vmlinux" } },
	{ "defconfig", "defconfig", { "vmlinux" } },
};

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -1;
	r = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
	close(fd);
	return r;
}

/* A mount namespace of our own; who is not root gets it with a user namespace, as root of that. */
static int own_namespace(void)
{
	char map[40];
	unsigned uid = getuid(), gid = getgid();

	if (!unshare(CLONE_NEWNS))
		return 0;
	if (errno != EPERM || unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return -1;
	snprintf(map, sizeof map, "0 %u 1", uid);
	if (write_file("/proc/self/uid_map", map) || write_file("/proc/self/setgroups", "deny"))
		return -1;
	snprintf(map, sizeof map, "0 %u 1", gid);
	return write_file("/proc/self/gid_map", map);
}

/* NULL, or what failed; errno says why. */
static const char *enter(const char *root)
{
	static const struct {
		const char *from, *at;
	} mounts[] = {
		{ "/dev", "dev" }, { "/proc", "proc" }, { NULL, "build" }, { NULL, "tmp" },
	};

	if (chdir(root))
		return root;
	if (own_namespace())
		return "a namespace";
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return "private mounts";
	for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
		if (mounts[i].from ? mount(mounts[i].from, mounts[i].at, NULL, MS_BIND | MS_REC, NULL) :
		    mount("kbuild", mounts[i].at, "tmpfs", 0, "size=90%"))
			return mounts[i].at;
	}
	if (chroot(".") || chdir("/linux"))
		return "linux";
	return NULL;
}

static int read_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	static char buf[1 << 18];
	int fd = type == FTW_F ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	while (fd >= 0 && read(fd, buf, sizeof buf) > 0)
		;
	if (fd >= 0)
		close(fd);
	return 0;
}

/* A guest has its files in memory; on the host they come there before anything is measured. */
static void warm_up(void)
{
	struct statfs fs;

	if (!statfs("/linux", &fs) && (fs.f_type == TMPFS || fs.f_type == RAMFS))
		return;
	nftw("/linux", read_one, 16, FTW_PHYS | FTW_MOUNT);
	nftw("/usr", read_one, 16, FTW_PHYS | FTW_MOUNT);
}

/* Output goes to LOG. Returns the wait status, or -1 and errno. */
static int run_tool(const char *const argv[])
{
	int status, fd;
	pid_t pid = fork();

	if (!pid) {
		fd = open("/dev/null", O_RDONLY);
		dup2(fd, 0);
		fd = open(LOG, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		dup2(fd, 1);
		dup2(fd, 2);
		execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

static int run_make(const struct build *b)
{
	char jobs[16];
	const char *argv[16] = { "/make", jobs };
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	sched_getaffinity(0, sizeof cpus, &cpus);
	snprintf(jobs, sizeof jobs, "-j%d", CPU_COUNT(&cpus) ? CPU_COUNT(&cpus) : 1);
	for (size_t i = 0; i < sizeof b->targets / sizeof *b->targets; i++)
		argv[2 + i] = b->targets[i];
	return run_tool(argv);
}

/* The end of what it said, then the verdict with the last line of that. */
static int tool_failed(const char *tool, int status)
{
	char tail[2048], *last;
	FILE *f = fopen(LOG, "re");
	size_t n = 0;

	if (status < 0)
		return bench_fail("kbuild", "fork");
	if (f && (!fseek(f, 1 - (long)sizeof tail, SEEK_END) || !fseek(f, 0, SEEK_SET)))
		n = fread(tail, 1, sizeof tail - 1, f);
	if (f)
		fclose(f);
	while (n && tail[n - 1] == '\n')
		n--;
	tail[n] = 0;
	last = strrchr(tail, '\n');
	puts(tail);
	printf("UMBRA-RESULT FAIL kbuild %s ended with %s %d: %.120s\n", tool, WIFSIGNALED(status) ? "signal" : "status",
	       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), last ? last + 1 : tail);
	return 1;
}

/* ---- what was built -------------------------------------------------------------------------------------------- */

static const char *prepared_folder;
static char **objects;
static size_t nr_objects;

static int note_object(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	const char *name = path + ftw->base, *dot = strrchr(name, '.');
	char **grown, prepared[PATH_MAX];

	if (type != FTW_F || ((!dot || strcmp(dot, ".o")) && strcmp(name, "vmlinux")))
		return 0;
	snprintf(prepared, sizeof prepared, "%s%s", prepared_folder, path + strlen("/build"));
	if (!access(prepared, F_OK))
		return 0;
	grown = realloc(objects, (nr_objects + 1) * sizeof *objects);
	if (!grown)
		return -1;
	objects = grown;
	objects[nr_objects] = strdup(path);
	return objects[nr_objects++] ? 0 : -1;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int digest_objects(struct digest *d)
{
	if (nftw("/build", note_object, 16, FTW_PHYS))
		return -1;
	qsort(objects, nr_objects, sizeof *objects, by_name);
	for (size_t i = 0; i < nr_objects; i++) {
		digest_bytes(d, objects[i], strlen(objects[i]) + 1);
		if (digest_file(d, objects[i]))
			return -1;
	}
	return 0;
}

/* Processor time of all children so far. */
static uint64_t cpu_ns(void)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000ull + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000ull;
}

/* SIZE, and the tree: /kbuild unless it is given. */
int kbuild_main(int argc, char **argv)
{
	struct digest d = DIGEST_INIT;
	const struct build *b = builds, *end = builds + sizeof builds / sizeof *builds;
	char from[64];
	const char *failed;
	uint64_t t, cpu;
	int status;

	while (argc > 1 && b < end && strcmp(b->size, argv[1]))
		b++;
	if (argc < 2 || argc > 3 || b == end) {
		fprintf(stderr, "workload: kbuild needs small, tiny or defconfig, and perhaps a folder\n");
		return 2;
	}
	failed = enter(argc > 2 ? argv[2] : "/kbuild");
	if (failed)
		return bench_fail("kbuild", failed);
	warm_up();
	snprintf(from, sizeof from, "/prepared/%s/.", b->config);
	status = run_tool((const char *[]){ "/bin/cp", "-a", from, "/build/", NULL });
	if (status)
		return tool_failed("cp", status);

	printf("kbuild begins\n");
	fflush(stdout);		/* the host's clocks are read at this line */
	cpu = cpu_ns();
	mark(MARK_BEGIN);
	t = bench_now_ns();
	status = run_make(b);
	t = bench_now_ns() - t;
	mark(MARK_END);
	cpu = cpu_ns() - cpu;
	if (status)
		return tool_failed("make", status);

	printf("kbuild %s: %.1f ms, %.1f ms of processor time\n", b->size, t / 1e6, cpu / 1e6);
	fflush(stdout);		/* and at this one */

	from[strlen(from) - 2] = 0;
	prepared_folder = from;
	if (digest_objects(&d))
		return bench_fail("kbuild", "objects");
	if (!nr_objects) {
		printf("UMBRA-RESULT FAIL kbuild no objects were built\n");
		return 1;
	}
	printf("%zu objects\n", nr_objects);
	printf("UMBRA-RESULT ok %016llx\n", (unsigned long long)d.h);
	return 0;
}
