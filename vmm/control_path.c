/*
 * control_path.c - where control sockets are: one folder per user, <pid>.sock in it. For the VMM that makes one and for
 * whoever looks for it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define SUFFIX	".sock"

_Static_assert(VMM_SOCKET_PATH == sizeof((struct sockaddr_un *)0)->sun_path, "sun_path");

/* In the order in which they are tried. -ENOENT: no more; -ENAMETOOLONG, -EAGAIN: not this one. */
int vmm_control_dir(unsigned i, char dir[static VMM_SOCKET_PATH])
{
	const char *only = getenv("UMBRA_RUNTIME_DIR"), *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	if (only && *only == '/') {
		if (i)
			return -ENOENT;
		n = snprintf(dir, VMM_SOCKET_PATH, "%s", only);
		return n < VMM_SOCKET_PATH ? 0 : -ENAMETOOLONG;
	}
	switch (i) {
	case 0:
		if (!runtime || *runtime != '/')
			return -EAGAIN;
		n = snprintf(dir, VMM_SOCKET_PATH, "%s/umbra", runtime);
		break;
	case 1:
		n = snprintf(dir, VMM_SOCKET_PATH, "/run/user/%u/umbra", geteuid());
		break;
	case 2:
		if (geteuid())
			return -EAGAIN;
		n = snprintf(dir, VMM_SOCKET_PATH, "/run/umbra");
		break;
	default:
		return -ENOENT;
	}
	return n < VMM_SOCKET_PATH ? 0 : -ENAMETOOLONG;
}

int vmm_control_connect(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, r;

	if (strlen(path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&a, sizeof a))
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* "123.sock": 123; otherwise 0. */
static pid_t pid_of(const char *name)
{
	char *end;
	long pid;

	if (*name < '1' || *name > '9')
		return 0;
	errno = 0;
	pid = strtol(name, &end, 10);
	return errno || strcmp(end, SUFFIX) || pid != (pid_t)pid ? 0 : pid;
}

static int compare_pids(const void *a, const void *b)
{
	const struct vmm_socket *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Adds what answers in `dir` to found[n...] as far as there is room; what no longer does is removed. Returns the new n. */
static unsigned look_in(const char *dir, struct vmm_socket *found, unsigned n, unsigned max)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		struct vmm_socket s = { .pid = pid_of(e->d_name) };
		int fd;

		if (!s.pid || (size_t)snprintf(s.path, sizeof s.path, "%s/%s", dir, e->d_name) >= sizeof s.path)
			continue;
		fd = vmm_control_connect(s.path);
		if (fd == -ECONNREFUSED)	/* its umbra was killed; a living one listens before it has this name */
			unlink(s.path);
		if (fd >= 0)
			close(fd);
		if ((fd >= 0 || fd == -EAGAIN) && n < max)	/* EAGAIN: alive, and busy */
			found[n++] = s;
	}
	if (d)
		closedir(d);
	return n;
}

unsigned vmm_control_find(struct vmm_socket *found, unsigned max)
{
	char dir[VMM_SOCKET_PATH], first[VMM_SOCKET_PATH] = "";
	unsigned n = 0;
	int r;

	for (unsigned i = 0; (r = vmm_control_dir(i, dir)) != -ENOENT; i++) {
		if (r || !strcmp(dir, first))	/* $XDG_RUNTIME_DIR is /run/user/<uid> as a rule */
			continue;
		if (!i)
			strcpy(first, dir);
		n = look_in(dir, found, n, max);
	}
	qsort(found, n, sizeof *found, compare_pids);
	return n;
}

/* A folder of ours that nobody else can write to, made if need be. */
static int check_dir(const char *dir)
{
	struct stat st;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return -errno;
	if (lstat(dir, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return st.st_uid != geteuid() || (st.st_mode & 022) ? -EPERM : 0;
}

int vmm_control_default(char path[static VMM_SOCKET_PATH])
{
	char dir[VMM_SOCKET_PATH];
	int r, last = -ENOENT;

	for (unsigned i = 0; (r = vmm_control_dir(i, dir)) != -ENOENT; i++) {
		if (!r)
			r = check_dir(dir);
		if (!r && snprintf(path, VMM_SOCKET_PATH, "%s/%d" SUFFIX, dir, getpid()) >= VMM_SOCKET_PATH)
			r = -ENAMETOOLONG;
		if (!r) {
			look_in(dir, NULL, 0, 0);	/* stale ones go */
			return 0;
		}
		last = r;
	}
	return last;
}
