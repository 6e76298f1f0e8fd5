/*
 * control.c - the control socket's thread: accepts, reads lines, writes answers.
 *
 * A client gets little: CLIENTS of them at once, a line of CONTROL_LINE_MAX, one answer at a time, STALL_MS to end a line
 * it has begun or to take its answer, IDLE_MS between requests. A client too many takes the place of the one that has been
 * silent longest. Everything is non-blocking.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/control.h"
#include "vmm/vm.h"

#define CLIENTS		16u
#define STALL_MS	5000
#define IDLE_MS		600000

struct client {
	int fd;				/* -1: free */
	bool last;			/* nothing is read any more: close when the answer is out */
	int64_t since;			/* ms: the last byte of progress */
	int64_t begun;			/* ms: the first byte of the unfinished line */
	size_t in_len;
	char in[CONTROL_LINE_MAX + 1];
	char *out;			/* NULL: no answer is on its way */
	size_t out_at, out_len;
};

struct control {
	struct vm *vm;
	pthread_t thread;
	int listen_fd, stop_fd;
	char path[VMM_SOCKET_PATH];
	ino_t inode;
	struct client clients[CLIENTS];
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static void drop(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->out);
	c->fd = -1;
	c->out = NULL;
}

static struct client *place_for(struct control *ctl)
{
	struct client *oldest = &ctl->clients[0];

	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &ctl->clients[i];

		if (c->fd < 0)
			return c;
		if (c->since < oldest->since)
			oldest = c;
	}
	drop(oldest);
	return oldest;
}

static void accept_client(struct control *ctl, int64_t now)
{
	int fd = accept4(ctl->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct client *c;

	if (fd < 0)
		return;
	c = place_for(ctl);
	c->fd = fd;
	c->last = false;
	c->since = c->begun = now;
	c->in_len = c->out_at = c->out_len = 0;
}

/* The client is gone, or its answer is not: false. */
static bool send_answer(struct client *c, int64_t now)
{
	ssize_t n;

	while (c->out_at < c->out_len) {
		n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				drop(c);
			return false;
		}
		c->out_at += n;
		c->since = now;
	}
	free(c->out);
	c->out = NULL;
	if (c->last)
		drop(c);
	return !c->last;
}

static void answer(struct control *ctl, struct client *c, char *line, size_t n)
{
	c->out = control_answer(ctl->vm, line, n);
	c->out_at = 0;
	c->out_len = c->out ? strlen(c->out) : 0;
	if (!c->out)
		c->last = true;
}

/* Answers the lines that have come, as long as the client takes the answers. */
static void serve_lines(struct control *ctl, struct client *c, int64_t now)
{
	char line[CONTROL_LINE_MAX + 1], *end;
	size_t n;

	while (c->fd >= 0 && !c->out && (end = memchr(c->in, '\n', c->in_len))) {
		n = end - c->in;
		memcpy(line, c->in, n);
		c->in_len -= n + 1;
		memmove(c->in, end + 1, c->in_len);
		c->begun = now;
		answer(ctl, c, line, n);
		if (!send_answer(c, now))
			return;
	}
	if (c->fd < 0 || c->out || c->in_len < CONTROL_LINE_MAX)
		return;
	c->out = strdup("{\"schema\":1,\"ok\":false,\"error\":\"the line is too long\"}\n");
	c->out_at = 0;
	c->out_len = c->out ? strlen(c->out) : 0;
	c->last = true;
	send_answer(c, now);
}

static void receive(struct control *ctl, struct client *c, int64_t now)
{
	ssize_t n = recv(c->fd, c->in + c->in_len, CONTROL_LINE_MAX - c->in_len, 0);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		drop(c);
		return;
	}
	if (n < 0)
		return;
	if (!c->in_len)
		c->begun = now;
	c->in_len += n;
	c->since = now;
	serve_lines(ctl, c, now);
}

/* When this client has to be dropped if nothing comes. */
static int64_t deadline(const struct client *c)
{
	if (c->out)
		return c->since + STALL_MS;
	return c->in_len ? c->begun + STALL_MS : c->since + IDLE_MS;
}

/* ---- the thread --------------------------------------------------------------------------------------------------- */

static void *control_thread(void *arg)
{
	struct control *ctl = arg;
	struct pollfd p[CLIENTS + 2];

	pthread_setname_np(pthread_self(), "control");
	for (;;) {
		int64_t now = now_ms(), next = now + IDLE_MS;

		p[0] = (struct pollfd){ .fd = ctl->stop_fd, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = ctl->listen_fd, .events = POLLIN };
		for (unsigned i = 0; i < CLIENTS; i++) {
			struct client *c = &ctl->clients[i];

			if (c->fd >= 0 && deadline(c) <= now)
				drop(c);
			if (c->fd >= 0 && deadline(c) < next)
				next = deadline(c);
			p[i + 2] = (struct pollfd){ .fd = c->fd, .events = c->out ? POLLOUT : POLLIN };
		}
		if (poll(p, CLIENTS + 2, next - now) < 0)
			continue;		/* EINTR: signals are blocked but for those that stop and continue us */
		if (p[0].revents)
			return NULL;
		now = now_ms();
		for (unsigned i = 0; i < CLIENTS; i++) {
			struct client *c = &ctl->clients[i];

			if (!p[i + 2].revents || c->fd < 0)
				continue;
			if (!c->out)
				receive(ctl, c, now);
			else if (send_answer(c, now))
				serve_lines(ctl, c, now);
		}
		if (p[1].revents)
			accept_client(ctl, now);
	}
}

/* ---- the socket ----------------------------------------------------------------------------------------------------- */

/* Somebody listens there: -EADDRINUSE. It is something else: -EEXIST. */
static int check_free(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = vmm_control_connect(path);
	if (fd == -ECONNREFUSED)
		return 0;
	if (fd >= 0)
		close(fd);
	return fd >= 0 || fd == -EAGAIN ? -EADDRINUSE : fd;
}

/* It listens before it has its name, so that one which refuses is certainly dead; and it is never seen with other rights. */
static int listen_at(struct control *ctl)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	int r = check_free(ctl->path);

	if (r)
		return r;
	if ((size_t)snprintf(a.sun_path, sizeof a.sun_path, "%s.new", ctl->path) >= sizeof a.sun_path)
		return -ENAMETOOLONG;
	ctl->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ctl->listen_fd < 0)
		return -errno;
	unlink(a.sun_path);
	if (fchmod(ctl->listen_fd, 0600) || bind(ctl->listen_fd, (struct sockaddr *)&a, sizeof a))
		return -errno;
	if (listen(ctl->listen_fd, CLIENTS) || stat(a.sun_path, &st) || rename(a.sun_path, ctl->path)) {
		r = -errno;
		unlink(a.sun_path);
		return r;
	}
	ctl->inode = st.st_ino;
	return 0;
}

static void unlink_own(const struct control *ctl)
{
	struct stat st;

	if (ctl->inode && !lstat(ctl->path, &st) && st.st_ino == ctl->inode)
		unlink(ctl->path);
}

static void control_free(struct control *ctl)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		drop(&ctl->clients[i]);
	if (ctl->listen_fd >= 0)
		close(ctl->listen_fd);
	if (ctl->stop_fd >= 0)
		close(ctl->stop_fd);
	unlink_own(ctl);
	free(ctl);
}

static int start_thread(struct control *ctl)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&ctl->thread, NULL, control_thread, ctl);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* What the user has to know of an error: the path was theirs, or ours. */
static int complain(const struct vm *vm, const char *path, int r)
{
	if (vm->config->control)
		fprintf(stderr, "umbra: --control=%s: %s\n", path, r == -EADDRINUSE ? "another umbra listens there" :
			r == -EEXIST ? "there is something that is no socket" : strerror(-r));
	else if (vm->config->verbose)
		fprintf(stderr, "umbra: no control socket: %s; --control names another place\n", strerror(-r));
	return vm->config->control ? r : 0;
}

int control_start(struct vm *vm)
{
	const char *wanted = vm->config->control;
	struct control *ctl;
	int r = 0;

	if (wanted && !*wanted)
		return 0;
	ctl = calloc(1, sizeof *ctl);
	if (!ctl)
		return complain(vm, wanted ? wanted : "", -ENOMEM);
	ctl->vm = vm;
	ctl->listen_fd = -1;
	for (unsigned i = 0; i < CLIENTS; i++)
		ctl->clients[i].fd = -1;
	ctl->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ctl->stop_fd < 0)
		r = -errno;
	else if (!wanted)
		r = vmm_control_default(ctl->path);
	else if ((size_t)snprintf(ctl->path, sizeof ctl->path, "%s", wanted) >= sizeof ctl->path)
		r = -ENAMETOOLONG;
	if (!r)
		r = listen_at(ctl);
	if (!r)
		r = start_thread(ctl);
	if (r) {
		r = complain(vm, wanted ? wanted : "", r);
		control_free(ctl);
		return r;
	}
	vm->control = ctl;
	return 0;
}

void control_stop(struct vm *vm)
{
	struct control *ctl = vm->control;

	if (!ctl)
		return;
	if (write(ctl->stop_fd, &(uint64_t){ 1 }, 8) == 8)
		pthread_join(ctl->thread, NULL);
	control_free(ctl);
	vm->control = NULL;
}
