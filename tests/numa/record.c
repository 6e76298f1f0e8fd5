/*
 * record.c - runs `umbra run` with the kernel tests/guests/numa.c and writes down what scripts/numa-share computes from.
 *
 * usage: numa-record [--also=REQUEST]... UMBRA run ARGUMENT...
 *
 * Passes on the guest's console line by line. Behind each numa-period line it puts
 *   numa-where {...}            where the host has the arena's pages, by their contents and the kernel's word (record.h)
 *   numa-cpu {...}              processor time that umbra has used so far, all its threads and the guest
 *   numa-asked REQUEST {...}    what the control socket says to `stats`, `numa map` of the arena, and each --also
 * Exit status: umbra's, or 1.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/numa/record.h"

#define ALSO_MAX	8u

struct record {
	pid_t pid;
	char socket[64];
	uint32_t pages;
	uint64_t first_gfn;
	const char *also[ALSO_MAX];
	unsigned nr_also;
};

static FILE *connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FILE *f;

	strcpy(address.sun_path, path);
	if (fd < 0)
		return NULL;
	f = connect(fd, (struct sockaddr *)&address, sizeof address) ? NULL : fdopen(fd, "r+");
	if (!f)
		close(fd);
	return f;
}

static void ask(const struct record *r, const char *request)
{
	FILE *f = connect_to(r->socket);
	char *answer = NULL;
	size_t size = 0;

	if (!f) {
		printf("numa-asked %s {\"ok\":false,\"error\":\"%s\"}\n", request, strerror(errno));
		return;
	}
	fprintf(f, "%s\n", request);
	fflush(f);
	if (getline(&answer, &size, f) > 0)
		printf("numa-asked %s %s", request, answer);
	else
		printf("numa-asked %s {\"ok\":false,\"error\":\"no answer\"}\n", request);
	free(answer);
	fclose(f);
}

static void print_cpu(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (!clock_getcpuclockid(pid, &clock) && !clock_gettime(clock, &t))
		printf("numa-cpu {\"ns\":%lu}\n", t.tv_sec * 1000000000ul + (unsigned long)t.tv_nsec);
}

static void on_period(const struct record *r)
{
	char request[64];
	int e;

	printf("numa-where ");
	e = where_print(stdout, r->pid, r->pages);
	if (e)
		printf("{\"error\":\"%s\"}\n", strerror(-e));
	print_cpu(r->pid);
	snprintf(request, sizeof request, "numa map %lu %u", r->first_gfn, r->pages);
	ask(r, request);
	ask(r, "stats");
	for (unsigned i = 0; i < r->nr_also; i++)
		ask(r, r->also[i]);
}

static void on_line(struct record *r, char *line)
{
	const char *first = strstr(line, "\"first_gfn\":"), *pages = strstr(line, "\"pages\":");

	line[strcspn(line, "\r\n")] = 0;
	puts(line);
	if (!strncmp(line, "numa-arena ", 11) && first && pages) {
		r->first_gfn = strtoull(first + 12, NULL, 10);
		r->pages = (uint32_t)strtoul(pages + 8, NULL, 10);
	} else if (!strncmp(line, "numa-period ", 12) && r->pages) {
		on_period(r);
	}
	fflush(stdout);
}

/* umbra with its console at *console. 0 or -errno. */
static int start(struct record *r, char **argv, int argc, FILE **console)
{
	char **args = calloc((size_t)argc + 2, sizeof *args), control[80];
	int pipes[2] = { -1, -1 };

	snprintf(control, sizeof control, "--control=%s", r->socket);
	if (!args || pipe(pipes))
		return -errno;
	memcpy(args, argv, (size_t)argc * sizeof *args);
	args[argc] = control;
	r->pid = fork();
	if (!r->pid) {
		dup2(pipes[1], 1);
		close(pipes[0]);
		close(pipes[1]);
		execvp(args[0], args);
		fprintf(stderr, "numa-record: %s: %s\n", args[0], strerror(errno));
		_exit(127);
	}
	free(args);
	close(pipes[1]);
	if (r->pid < 0)
		return -errno;
	*console = fdopen(pipes[0], "r");
	return *console ? 0 : -errno;
}

int main(int argc, char **argv)
{
	struct record r = { 0 };
	char *line = NULL;
	size_t size = 0;
	FILE *console;
	int status, e;

	for (; argc > 1 && !strncmp(argv[1], "--also=", 7) && r.nr_also < ALSO_MAX; argc--, argv++)
		r.also[r.nr_also++] = argv[1] + 7;
	if (argc < 3 || argv[1][0] == '-') {
		fprintf(stderr, "usage: numa-record [--also=REQUEST]... UMBRA run ARGUMENT...\n");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	snprintf(r.socket, sizeof r.socket, "/tmp/numa-record.%d", (int)getpid());
	e = start(&r, argv + 1, argc - 1, &console);
	if (e) {
		fprintf(stderr, "numa-record: %s\n", strerror(-e));
		return 1;
	}
	while (getline(&line, &size, console) > 0)
		on_line(&r, line);
	free(line);
	fclose(console);
	if (waitpid(r.pid, &status, 0) != r.pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
