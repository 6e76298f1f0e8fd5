/*
 * live.c - finding a running guest and talking to it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/live.h"

#define ANSWER_MAX	(64u << 20)
#define GUESTS_MAX	256u

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static int wait_for(int fd, short events, int64_t until)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left;
	int r;

	do {
		left = until - now_ms();
		r = poll(&p, 1, left > 0 ? left : 0);
	} while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : r < 0 ? -errno : -ETIMEDOUT;
}

/* A socket whose queue is full says EAGAIN, and cannot be polled. */
static int connect_to(const char *path)
{
	int64_t until = now_ms() + LIVE_TIMEOUT_S * 1000;
	int fd;

	while ((fd = vmm_control_connect(path)) == -EAGAIN && now_ms() < until)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	return fd;
}

static int send_line(int fd, const char *request, int64_t until)
{
	char line[1024];
	size_t at = 0, size = snprintf(line, sizeof line, "%s\n", request);
	ssize_t n;
	int r;

	if (size >= sizeof line)
		return -E2BIG;
	while (at < size) {
		n = send(fd, line + at, size - at, MSG_NOSIGNAL);
		if (n >= 0) {
			at += n;
			continue;
		}
		r = errno == EAGAIN ? wait_for(fd, POLLOUT, until) : errno == EINTR ? 0 : -errno;
		if (r)
			return r == -ECONNRESET ? -EPIPE : r;
	}
	return 0;
}

/* A line, to be freed. */
static int receive_line(int fd, char **out, int64_t until)
{
	size_t n = 0, room = 0;
	char *line = NULL, *grown;
	ssize_t got;
	int r = 0;

	for (;;) {
		if (n + 1 >= room) {
			room = room ? 2 * room : 65536;
			grown = room > ANSWER_MAX ? NULL : realloc(line, room);
			if (!grown) {
				r = -ENOMEM;
				break;
			}
			line = grown;
		}
		got = recv(fd, line + n, room - n - 1, 0);
		if (got > 0) {
			n += got;
			if (line[n - 1] == '\n') {
				line[n - 1] = 0;
				*out = line;
				return 0;
			}
			continue;
		}
		r = !got || errno == ECONNRESET ? -EPIPE : errno == EAGAIN ? wait_for(fd, POLLIN, until) :
		    errno == EINTR ? 0 : -errno;
		if (r)
			break;
	}
	free(line);
	return r;
}

static int take_reply(const char *text, json_t **reply, char why[static LIVE_WHY])
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *r = json_object_get(root, "reply");

	if (json_is_true(json_object_get(root, "ok")) && json_is_object(r)) {
		*reply = json_incref(r);
		json_decref(root);
		return 0;
	}
	live_clean(live_text(root, "error", "the answer makes no sense: no umbra listens there"), why, LIVE_WHY);
	json_decref(root);
	return -EPROTO;
}

int live_ask(struct live *l, const char *request, json_t **reply, char why[static LIVE_WHY])
{
	int64_t until = now_ms() + l->timeout_s * 1000ll;
	char *text;
	int r = send_line(l->fd, request, until);

	if (!r)
		r = receive_line(l->fd, &text, until);
	if (r) {
		if (r == -ETIMEDOUT)
			snprintf(why, LIVE_WHY, "no answer within %u seconds", l->timeout_s);
		else
			snprintf(why, LIVE_WHY, "%s", r == -EPIPE ? "the guest has ended" : strerror(-r));
		return r;
	}
	r = take_reply(text, reply, why);
	free(text);
	return r;
}

void live_close(struct live *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

/* ---- finding ------------------------------------------------------------------------------------------------------- */

static const char *time_text(double ns, char to[static 32])
{
	uint64_t s = ns / 1e9;

	if (s < 60)
		snprintf(to, 32, "%.1f s", ns / 1e9);
	else if (s < 3600)
		snprintf(to, 32, "%u min %02u s", (unsigned)(s / 60), (unsigned)(s % 60));
	else
		snprintf(to, 32, "%llu h %02u min", (unsigned long long)s / 3600, (unsigned)(s / 60 % 60));
	return to;
}

static void print_guest(FILE *to, const struct vmm_socket *s)
{
	struct live l = { .fd = connect_to(s->path), .timeout_s = LIVE_TIMEOUT_S };
	char why[LIVE_WHY] = "", up[32], size[CLI_SIZE_TEXT], kernel[80], cmdline[200];
	json_t *info = NULL;

	if (l.fd < 0 || live_ask(&l, "info", &info, why))
		fprintf(to, "%8d  (%s)\n", s->pid, l.fd < 0 ? strerror(-l.fd) : why);
	else
		fprintf(to, "%8d  %-14s  %6s  %s%s%s\n", s->pid, time_text(live_number(info, "uptime_ns", 0), up),
			cli_size_text(live_number(info, "config.memory_bytes", 0), size),
			live_clean(live_text(info, "config.kernel", "?"), kernel, sizeof kernel),
			live_at(info, "config.cmdline") ? "  " : "",
			live_clean(live_text(info, "config.cmdline", ""), cmdline, sizeof cmdline));
	json_decref(info);
	live_close(&l);
}

unsigned live_list(FILE *to)
{
	static struct vmm_socket found[GUESTS_MAX];
	unsigned n = vmm_control_find(found, GUESTS_MAX);

	if (n)
		fprintf(to, "%8s  %-14s  %6s  %s\n", "PID", "UP", "MEMORY", "KERNEL, COMMAND LINE");
	for (unsigned i = 0; i < n; i++)
		print_guest(to, &found[i]);
	return n;
}

/* The only guest, or an exit code. */
static int find_only(const char *command, char path[static VMM_SOCKET_PATH])
{
	struct vmm_socket found[2];
	unsigned n = vmm_control_find(found, 2);

	if (n == 1) {
		strcpy(path, found[0].path);
		return VMM_EXIT_OK;
	}
	if (!n) {
		fprintf(stderr, "%s: no guest of this user runs, or none with a control socket in the usual place\n", command);
		return VMM_EXIT_ERROR;
	}
	fprintf(stderr, "%s: several guests run: name one by its pid\n", command);
	live_list(stderr);
	return VMM_EXIT_USAGE;
}

static int find_pid(const char *command, uint64_t pid, const char *who, char path[static VMM_SOCKET_PATH])
{
	static struct vmm_socket found[GUESTS_MAX];
	unsigned n = vmm_control_find(found, GUESTS_MAX);

	for (unsigned i = 0; i < n; i++)
		if ((uint64_t)found[i].pid == pid) {
			strcpy(path, found[i].path);
			return VMM_EXIT_OK;
		}
	fprintf(stderr, "%s: process %s runs no guest, or it has no control socket in the usual place ('umbra stat --list' lists "
		"those that have)\n", command, who);
	return VMM_EXIT_ERROR;
}

int live_open(const char *command, const char *who, struct live *out)
{
	uint64_t pid;
	int r;

	out->fd = -1;
	out->timeout_s = LIVE_TIMEOUT_S;
	if (!who) {
		r = find_only(command, out->path);
	} else if (*who && !who[strspn(who, "0123456789")]) {
		r = find_pid(command, cli_parse_uint(who, 1, INT32_MAX, &pid) ? 0 : pid, who, out->path);
	} else if (!*who || strlen(who) >= sizeof out->path) {
		fprintf(stderr, "%s: '%s' is neither a pid nor the path of a socket\n", command, who);
		return VMM_EXIT_USAGE;
	} else {
		strcpy(out->path, who);
		r = VMM_EXIT_OK;
	}
	if (r)
		return r;
	out->fd = connect_to(out->path);
	if (out->fd >= 0)
		return VMM_EXIT_OK;
	fprintf(stderr, "%s: %s: %s\n", command, out->path, out->fd == -ECONNREFUSED ? "nobody listens there any more" :
		strerror(-out->fd));
	return VMM_EXIT_ERROR;
}
