/* One run: the command line, the console read line by line, the counters that umbra wrote. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/bench.h"

#define NO_HOST		77		/* exit code of `umbra run`: this host runs no guests */
#define ARGS_MAX	(MODE_FLAGS + 40)
#define MISTAKE		2		/* ... it does not know these flags */
#define WORDS_MAX	2048
#define QEMU		"qemu-system-x86_64"
#define MARK_END	2		/* tests/workload/mark.h */
#define MARK_BOOT	3
#define OUTPUT_KEPT	16384u		/* bytes: an oops and umbra's dump */
#define MARK_COMMAND_BEGIN 4
#define MARK_COMMAND_END 5

/* All that makes the peer's boot and kernel fast: it gets every advantage. */
#define QEMU_WORDS	"console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check " \
			"random.trust_cpu=on"

struct command {
	char *argv[ARGS_MAX];
	unsigned argc;
	char words[WORDS_MAX], count[16], timeout[16];	/* texts that argv points at */
	char flags[1024];
	bool native, pinned;
};

static void arg(struct command *c, const char *word)
{
	c->argv[c->argc++] = (char *)word;
	c->argv[c->argc] = NULL;
}

#define args(c, ...) do { \
	const char *const words_[] = { __VA_ARGS__ }; \
	for (unsigned i_ = 0; i_ < sizeof words_ / sizeof *words_; i_++) \
		arg(c, words_[i_]); \
} while (0)

/* The kernel command line that makes the guest run the job. */
static void guest_words(const struct bench *b, const char *first, char *out, size_t size)
{
	const struct job *job = b->job;

	if (job->from_boot)
		snprintf(out, size, "%s rdinit=/bin/workload -- boot", first);
	else if (job->arg == JOB_COUNT)
		snprintf(out, size, "%s umbra.run=%s=%u", first, job->name, b->count);
	else if (job->arg == JOB_WORD)
		snprintf(out, size, "%s umbra.run=%s=%s", first, job->name, job->word);
	else if (!job->whole)
		snprintf(out, size, "%s umbra.run=%s%s", first, job->name, job->arg == JOB_DIR ? "=/compile" : "");
	else
		snprintf(out, size, "%s", first);
	if (b->append && strlen(out) + strlen(b->append) + 2 <= size) {
		strcat(out, " ");
		strcat(out, b->append);
	}
}

static int umbra_command(const struct bench *b, const struct mode *mode, const char *stats, struct command *c)
{
	guest_words(b, "", c->words, sizeof c->words);
	snprintf(c->timeout, sizeof c->timeout, "%us", b->timeout_s);
	args(c, b->umbra, "run", "-q", "-k", b->kernel, "-i", b->image, "-m", b->memory, "-p", c->words, "--no-reboot",
	     "--timeout", c->timeout, "--stats", stats);
	if (b->compare)
		arg(c, "--fault-map");
	if (strlen(mode->flags) >= sizeof c->flags)
		return -E2BIG;
	strcpy(c->flags, mode->flags);
	for (char *save, *word = strtok_r(c->flags, " ", &save); word; word = strtok_r(NULL, " ", &save))
		arg(c, word);
	return 0;
}

static void native_command(const struct bench *b, struct command *c)
{
	snprintf(c->count, sizeof c->count, "%u", b->count);
	c->native = true;
	c->pinned = b->job->pinned;
	args(c, b->workload, b->job->name);
	if (b->job->arg == JOB_WORD)
		arg(c, b->job->word);
	if (b->job->arg != JOB_NO_ARG)
		arg(c, b->job->arg == JOB_COUNT ? c->count : b->dir);
}

static void qemu_command(const struct bench *b, enum mode_kind kind, struct command *c)
{
	guest_words(b, QEMU_WORDS, c->words, sizeof c->words);
	args(c, QEMU, "-accel", kind == MODE_KVM ? "kvm" : "tcg", "-cpu", kind == MODE_KVM ? "host" : "max,-la57", "-m", b->memory, "-nodefaults", "-display", "none", "-monitor",
	     "none", "-serial", "stdio", "-no-reboot", "-kernel", b->kernel, "-initrd", b->image, "-append", c->words);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* On the last processor it may use: the first is where interrupts tend to go. */
static void pin(void)
{
	cpu_set_t may, one;
	int cpu = CPU_SETSIZE;

	if (sched_getaffinity(0, sizeof may, &may))
		return;
	while (--cpu > 0 && !CPU_ISSET(cpu, &may))
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof one, &one);
}

/* Starts the program; returns the pipe that its output and messages come in, or -errno. Natively PATH is the guest's, so
 * that looking for busybox costs the same. */
static int start(const struct command *c, pid_t *pid)
{
	int out[2], failed[2], in, err = 0;

	if (pipe2(out, O_CLOEXEC))
		return -errno;
	if (pipe2(failed, O_CLOEXEC)) {
		err = -errno;
		close(out[0]);
		close(out[1]);
		return err;
	}
	*pid = fork();
	if (*pid < 0)
		err = -errno;
	if (!*pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGINT, SIG_DFL);
		signal(SIGTERM, SIG_DFL);
		in = open("/dev/null", O_RDONLY);
		dup2(in, 0);
		dup2(out[1], 1);
		dup2(out[1], 2);
		if (c->native)
			setenv("PATH", "/bin", 1);
		if (c->pinned)
			pin();
		execvp(c->argv[0], c->argv);
		err = errno;
		_exit(write(failed[1], &err, sizeof err) != sizeof err);
	}
	close(out[1]);
	close(failed[1]);
	if (!err && read(failed[0], &err, sizeof err) == sizeof err) {
		waitpid(*pid, NULL, 0);
		err = -err;
	}
	close(failed[0]);
	if (err)
		close(out[0]);
	return err ? err : out[0];
}

/* ---- the console ----------------------------------------------------------------------------------------------- */

struct console {
	const struct bench *b;
	struct sample *s;
	double began;
	pid_t pid;		/* of the program */
	double cpu_began;	/* its processor time when the workload said that it begins, in ns; negative: it did not */
	bool verdict;		/* the workload said how it went */
	char line[512];
	size_t len;
	char last[200];		/* line that is not empty: why a run failed */
	char *output;		/* a ring of OUTPUT_KEPT bytes, or NULL: no memory for it */
	size_t printed;		/* bytes so far */
};

static void fail(struct sample *s, const char *why)
{
	if (!*s->why)
		snprintf(s->why, sizeof s->why, "%.255s", why);
	s->ok = false;
}

/* Processor time of the program so far, guest and threads included, in ns. */
static double cpu_ns(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	return clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t) ? -1 : t.tv_sec * 1e9 + t.tv_nsec;
}

/* Natively the workload knows; in a guest only its host does. */
static void note_cpu(const struct console *c, struct reading *r)
{
	double now;

	if (c->b->modes.at[c->s->mode].kind == MODE_NATIVE)
		return;
	now = c->cpu_began < 0 ? -1 : cpu_ns(c->pid);
	r->cpu_ns = now < 0 ? 0 : (now - c->cpu_began) / r->units;
}

static void console_line(struct console *c)
{
	struct sample *s = c->s;
	const char *line = c->line;
	struct reading r = { .units = 0 };

	c->line[c->len] = 0;
	c->len = 0;
	if (!*line)
		return;
	if (sscanf(line, "UMBRA-RESULT ok %19s", s->digest) == 1) {
		c->verdict = true;
	} else if (!strncmp(line, "UMBRA-RESULT FAIL", 17)) {
		fail(s, line);
		if (*c->last && c->b->job->parse == job_parse_command)	/* what the command said about it */
			snprintf(s->why, sizeof s->why, "%.80s: %.160s", line + 18, c->last);
	} else if (c->b->job->begins && !strcmp(line, c->b->job->begins)) {
		c->cpu_began = cpu_ns(c->pid);
	} else if (c->b->job->parse && c->b->job->parse(line, (now_s() - c->began) * 1e9, &r)) {
		note_cpu(c, &r);
		if (s->nr_cases < BENCH_CASES)
			s->cases[s->nr_cases++] = r;
		else
			fail(s, "more measurements than expected");
	}
	snprintf(c->last, sizeof c->last, "%.199s", line);
}

static void console_bytes(struct console *c, const char *p, size_t n)
{
	for (; n--; p++) {
		if (c->output && *p != '\r' && *p)
			c->output[c->printed++ % OUTPUT_KEPT] = *p;
		if (*p == '\n')
			console_line(c);
		else if (*p != '\r' && c->len < sizeof c->line - 1)
			c->line[c->len++] = *p;
	}
}

/* What the ring holds, in order; NULL: no memory. */
static char *console_end(const struct console *c)
{
	size_t n = c->printed < OUTPUT_KEPT ? c->printed : OUTPUT_KEPT, from = c->printed - n;
	char *text = c->output ? malloc(n + 1) : NULL;

	if (!text)
		return NULL;
	for (size_t i = 0; i < n; i++)
		text[i] = c->output[(from + i) % OUTPUT_KEPT];
	text[n] = 0;
	return text;
}

/* Reads until the end of the output, or kills what is still running after the job's time. */
static void console_read(struct console *c, int fd, pid_t pid)
{
	double end = c->began + c->b->timeout_s + 10;	/* umbra's own comes first */
	char buf[4096];
	ssize_t n;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		double left = end - now_s();

		if (left <= 0 || *c->b->stop) {
			fail(c->s, left <= 0 ? "still running when its time was over" : "stopped");
			kill(pid, SIGKILL);
			break;
		}
		if (poll(&p, 1, left * 1e3 + 1) <= 0)
			continue;
		n = read(fd, buf, sizeof buf);
		if (n <= 0)
			break;
		console_bytes(c, buf, n);
	}
	if (c->len)
		console_line(c);
}

/* ---- counters -------------------------------------------------------------------------------------------------- */

/* What was counted between two marks: integers subtracted, at any depth. NULL: no memory. */
static json_t *json_difference(const json_t *end, const json_t *begin)
{
	json_t *o = json_object(), *value;
	const char *name;

	json_object_foreach((json_t *)end, name, value) {
		const json_t *before = json_object_get(begin, name);

		if (json_is_object(value))
			json_object_set_new(o, name, json_difference(value, before));
		else if (json_is_integer(value))
			json_object_set_new(o, name, json_integer(json_integer_value(value) - json_integer_value(before)));
	}
	return o;
}

/* From the first mark where a command began to the last where it ended. */
static void take_command(struct sample *s)
{
	json_t *mark, *begin = NULL, *end = NULL, *since;
	size_t i, from = 0, to = 0;

	json_array_foreach(json_object_get(s->report, "marks"), i, mark) {
		if (!begin && json_number_at(mark, "id") == MARK_COMMAND_BEGIN) {
			begin = mark;
			from = i;
		}
		if (json_number_at(mark, "id") == MARK_COMMAND_END) {
			end = mark;
			to = i;
		}
	}
	since = json_object_get(end, "since_previous");		/* knows what cannot be subtracted */
	if (begin && end && to == from + 1 && since && s->nr_cases == 1)
		s->counted[0] = json_incref(since);
	else if (begin && end && s->nr_cases == 1)
		s->counted[0] = json_difference(end, begin);
	else
		fail(s, "the guest did not mark where the command begins and ends");
}

void sample_take_whole(struct sample *s)
{
	s->cases[0] = (struct reading){ .name = "run", .units = 1, .ns = json_number_at(s->report, "end.wall_ns") };
	s->counted[0] = json_pack("{sO? sO? sO?}", "counters", json_object_get(s->report, "total"), "mmu",
				  json_object_get(s->report, "mmu"), "ept", json_object_get(s->report, "ept"));
}

/* The intervals that the guest marked belong to the lines it printed, in order. */
static void take_counters(const struct bench *b, struct sample *s, const char *path)
{
	json_error_t error;
	json_t *mark, *counted;
	unsigned n = 0;
	size_t i;

	s->report = json_load_file(path, 0, &error);
	if (!s->report) {
		fail(s, "umbra wrote no counters that can be read");
		return;
	}
	if (b->job->whole) {
		sample_take_whole(s);
		return;
	}
	if (b->job->parse == job_parse_command) {
		take_command(s);
		return;
	}
	json_array_foreach(json_object_get(s->report, "marks"), i, mark) {
		if (json_number_at(mark, "id") != (b->job->from_boot ? MARK_BOOT : MARK_END))
			continue;
		counted = b->job->from_boot ? mark : json_object_get(mark, "since_previous");
		if (counted && n < s->nr_cases)
			s->counted[n] = json_incref(counted);
		n++;
	}
	if (n != s->nr_cases)
		fail(s, "the guest's marks do not match what it printed");
}

/* ---- a sample -------------------------------------------------------------------------------------------------- */

static int run(const struct bench *b, struct command *c, struct sample *s, int *status)
{
	struct console console = { .b = b, .s = s, .began = now_s(), .cpu_began = -1 };
	pid_t pid = -1;
	int fd = start(c, &pid);

	if (fd < 0) {
		snprintf(s->why, sizeof s->why, "%s: %s", c->argv[0], strerror(-fd));
		return fd == -ENOENT || fd == -EACCES ? -EOPNOTSUPP : fd;
	}
	console.pid = pid;
	console.output = malloc(OUTPUT_KEPT);
	console_read(&console, fd, pid);
	close(fd);
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	s->wall_s = now_s() - console.began;
	if (*status && !*s->why)
		snprintf(s->why, sizeof s->why, "%s %d: %s", WIFEXITED(*status) ? "exit code" : "signal",
			 WIFEXITED(*status) ? WEXITSTATUS(*status) : WTERMSIG(*status), console.last);
	else if (b->job->whole)
		s->cases[s->nr_cases++] = (struct reading){ .name = "run", .units = 1, .ns = s->wall_s * 1e9 };
	else if (!console.verdict || !s->nr_cases)
		fail(s, "it ended without a measurement");
	s->ok = !*s->why;
	if (!s->ok)
		s->output = console_end(&console);
	free(console.output);
	return 0;
}

/* Does this host's KVM leave the guest's second level of tables to the processor? */
static bool second_level(void)
{
	static const char *const parameters[] = {
		"/sys/module/kvm_intel/parameters/ept", "/sys/module/kvm_amd/parameters/npt",
	};

	for (unsigned i = 0; i < sizeof parameters / sizeof *parameters; i++) {
		FILE *f = fopen(parameters[i], "re");
		int c = f ? fgetc(f) : EOF;

		if (f)
			fclose(f);
		if (c == 'Y' || c == '1')
			return true;
	}
	return false;
}

int sample_take(const struct bench *b, unsigned nr, struct sample *s)
{
	const struct mode *mode = &b->modes.at[nr];
	char stats[] = "/tmp/umbra-bench.XXXXXX";
	struct command c = { .argc = 0 };
	int fd, r, status = 0;

	switch (mode->kind) {
	case MODE_NATIVE:
		if (b->job->from_boot || b->job->whole || b->job->parse == job_parse_command) {
			snprintf(s->why, sizeof s->why, "'%s' does not run on the host itself", b->job->name);
			return -EOPNOTSUPP;
		}
		native_command(b, &c);
		return run(b, &c, s, &status);
	case MODE_KVM:
		if (!second_level()) {
			snprintf(s->why, sizeof s->why, "this host's KVM has neither EPT nor NPT");
			return -EOPNOTSUPP;
		}
		/* fall through */
	case MODE_TCG:
		qemu_command(b, mode->kind, &c);
		return run(b, &c, s, &status);
	case MODE_UMBRA:
		break;
	}

	fd = mkostemp(stats, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	r = umbra_command(b, mode, stats, &c);
	if (!r)
		r = run(b, &c, s, &status);
	if (!r && WIFEXITED(status) && WEXITSTATUS(status) == NO_HOST)
		r = -EOPNOTSUPP;
	else if (!r && WIFEXITED(status) && WEXITSTATUS(status) == MISTAKE && !mode->users)
		r = -EOPNOTSUPP;
	else if (!r && s->ok)
		take_counters(b, s, stats);
	unlink(stats);
	return r;
}

void sample_release(struct sample *s)
{
	for (unsigned i = 0; i < s->nr_cases; i++)
		json_decref(s->counted[i]);
	json_decref(s->report);
	free(s->output);
}
