/* The command line of `umbra bench` and `umbra compare`: a workload, modes, and how often. */
#include <argp.h>
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/image.h"

#define COUNT_MAX	1000000u
#define TIMEOUT_MAX	100000u		/* s */
#define TIMEOUT_OWN	600u		/* of a workload of the user's */
#define OWN_MODES_MAX	24u
#define EXIT_MISTAKE	2

enum { OPT_MODES = 256, OPT_MODE, OPT_COUNT, OPT_JSON, OPT_RUN, OPT_DIR, OPT_TIMEOUT };

static const struct argp_option options[] = {
	{ NULL, 0, NULL, 0, "The workload, in place of WORKLOAD:", 1 },
	{ "run", OPT_RUN, "COMMAND", 0, "A command for the guest's shell; what it takes is measured", 1 },
	{ "dir", OPT_DIR, "DIR", 0, "A folder copied into the guest, where --run's command runs", 1 },
	{ "initrd", 'i', "FILE", 0, "An initrd of your own: the whole run is measured, from power on to power off. With "
	  "WORKLOAD or --run: the image these run in", 1 },
	{ "append", 'p', "CMDLINE", 0, "More for the kernel's command line", 1 },
	{ "count", OPT_COUNT, "N", 0, "The same as WORKLOAD=N", 1 },

	{ NULL, 0, NULL, 0, "How it runs:", 2 },
	{ "modes", OPT_MODES, "LIST", 0, "Modes, separated by commas; help lists them and the workloads", 2 },
	{ "mode", OPT_MODE, "NAME=FLAGS", 0, "One more mode: any flags of 'umbra run' (repeatable)", 2 },
	{ "vcpus", 'c', "LIST", 0, "Every mode of umbra's with each of these numbers of vCPUs, such as 1,2,4", 2 },
	{ "repetitions", 'n', "N", 0, "Rounds, each through all modes (default 5)", 2 },
	{ "kernel", 'k', "FILE", 0, "Kernel (default: vmlinuz in $UMBRA_CACHE or cache/)", 2 },
	{ "memory", 'm', "SIZE", 0, "Guest memory, with M or G (default: the workload's own, mostly 512M)", 2 },
	{ "timeout", OPT_TIMEOUT, "SECONDS", 0, "For one run (default: the workload's own)", 2 },

	{ NULL, 0, NULL, 0, "Results:", 3 },
	{ "json", OPT_JSON, "FILE", 0, "All samples as JSON; - for stdout, in place of the table", 3 },
	{ NULL },
};

/* What was said, before it is made into a request. */
struct words {
	struct request *q;
	const char *modes, *workload, *initrd, *vcpus;
	char *own[OWN_MODES_MAX];
	unsigned nr_own;
	unsigned timeout, count;
};

__attribute__((format(printf, 2, 3)))
static error_t mistake(const struct bench *b, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", b->program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EINVAL;
}

static error_t parse_number(const struct request *q, const char *what, const char *text, unsigned max, unsigned *out)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*end || errno || *text < '0' || *text > '9' || n < 1 || n > max)
		return mistake(&q->bench, "%s=%s: a number from 1 to %u is needed", what, text, max);
	*out = n;
	return 0;
}

/* The form that both umbra and QEMU take. */
static error_t parse_memory(struct request *q, const char *text)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 6 || !strchr("MG", text[digits]) || !text[digits] || text[digits + 1])
		return mistake(&q->bench, "--memory=%s: a size such as 512M or 2G is needed", text);
	q->bench.memory = text;
	return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct words *w = state->input;
	struct request *q = w->q;

	switch (key) {
	case OPT_RUN:
		if (!*arg)
			return mistake(&q->bench, "--run: a command is needed");
		q->run = arg;
		return 0;
	case OPT_DIR:
		q->dir = arg;
		return 0;
	case 'i':
		w->initrd = arg;
		return 0;
	case 'p':
		q->bench.append = arg;
		return 0;
	case OPT_COUNT:
		return parse_number(q, "--count", arg, COUNT_MAX, &w->count);
	case OPT_MODES:
		w->modes = arg;
		return 0;
	case OPT_MODE:
		if (w->nr_own == OWN_MODES_MAX)
			return mistake(&q->bench, "--mode: more than %u", OWN_MODES_MAX);
		w->own[w->nr_own++] = arg;
		return 0;
	case 'c':
		w->vcpus = arg;
		return 0;
	case 'n':
		return parse_number(q, "--repetitions", arg, ROUNDS_MAX, &q->bench.repetitions);
	case 'k':
		if (strlen(arg) >= sizeof q->bench.kernel)
			return mistake(&q->bench, "--kernel: too long a path");
		strcpy(q->bench.kernel, arg);
		return 0;
	case 'm':
		return parse_memory(q, arg);
	case OPT_TIMEOUT:
		return parse_number(q, "--timeout", arg, TIMEOUT_MAX, &w->timeout);
	case OPT_JSON:
		q->json = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (w->workload)
			return mistake(&q->bench, "'%s' is too much: one workload at a time", arg);
		w->workload = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* What is built lies beside this program. */
static int find_files(struct bench *b)
{
	const char *cache = getenv("UMBRA_CACHE");
	char self[400], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n < 0)
		return mistake(b, "cannot tell where this program lies: %s", strerror(errno));
	self[n] = 0;
	snprintf(b->umbra, sizeof b->umbra, "%s", self);
	slash = strrchr(self, '/');
	*slash = 0;
	snprintf(b->workload, sizeof b->workload, "%s/workload", self);
	snprintf(b->dir, sizeof b->dir, "%s/compile", self);
	snprintf(b->image, sizeof b->image, "%s/%s", self, b->job->image && !b->job->setup ? b->job->image : "initrd.cpio.gz");
	if (!*b->kernel)
		snprintf(b->kernel, sizeof b->kernel, "%s/vmlinuz", cache && *cache ? cache : "cache");
	return 0;
}

/* NAME, NAME=N or NAME=WORD. */
static error_t choose_job(struct words *w)
{
	struct request *q = w->q;
	char name[32];
	const char *value = strchr(w->workload, '=');
	size_t len = value ? (size_t)(value - w->workload) : strlen(w->workload);

	snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name - 1), w->workload);
	q->bench.job = len < sizeof name ? job_find(name, value ? value + 1 : NULL) : NULL;
	if (!q->bench.job)
		return mistake(&q->bench, "no workload '%s' (--modes=help lists them)", w->workload);
	if (value && !q->bench.job->word && parse_number(q, name, value + 1, COUNT_MAX, &w->count))
		return EINVAL;
	if (w->count && q->bench.job->arg != JOB_COUNT)
		return mistake(&q->bench, "%s takes no count", name);
	q->bench.count = w->count ? w->count : q->bench.job->count;
	return 0;
}

static error_t choose_workload(struct words *w)
{
	struct request *q = w->q;

	if (!!w->workload + !!q->run > 1)
		return mistake(&q->bench, "'%s' and --run: one workload at a time", w->workload);
	if (q->dir && !q->run)
		return mistake(&q->bench, "--dir needs --run: what is to run there");
	if (w->workload)
		return choose_job(w);
	if (w->count)
		return mistake(&q->bench, "--count needs a workload that takes one");
	if (!q->run && !w->initrd)
		return mistake(&q->bench, "a workload is needed: one of --modes=help, --run=COMMAND or --initrd=FILE");
	q->own = (struct job){ .name = q->run ? "command" : "initrd", .what = q->run ? q->run : w->initrd, .unit = "run",
			       .timeout_s = TIMEOUT_OWN, .whole = !q->run, .modes = "nested,lazy,kvm8,helper",
			       .parse = q->run ? job_parse_command : NULL,
			       .begins = q->run ? "UMBRA-COMMAND begins" : NULL };
	q->bench.job = &q->own;
	return 0;
}

static error_t choose_modes(struct words *w, const char *usual)
{
	struct request *q = w->q;
	char bad[32];
	int r;

	r = modes_add_names(&q->bench.modes, w->modes ? w->modes : usual ? usual : q->bench.job->modes, bad);
	if (r == -ENOENT)
		return mistake(&q->bench, "no mode '%s' (--modes=help lists them)", bad);
	for (unsigned i = 0; i < w->nr_own && !r; i++) {
		r = modes_define(&q->bench.modes, w->own[i]);
		if (r == -EINVAL)
			return mistake(&q->bench, "--mode=%s: NAME=FLAGS is needed, at most %u flags", w->own[i], MODE_FLAGS);
		if (r == -EEXIST)
			return mistake(&q->bench, "--mode=%s: there is a mode of that name", w->own[i]);
	}
	if (!r && w->vcpus) {
		r = modes_by_vcpus(&q->bench.modes, w->vcpus);
		if (r == -EINVAL)
			return mistake(&q->bench, "--vcpus=%s: up to %u different numbers from 1 to %u, separated by commas, are needed",
				       w->vcpus, VCPU_COUNTS, VCPUS_MAX);
	}
	return r ? mistake(&q->bench, "out of memory") : 0;
}

/* 0, or the exit code. */
static int check_files(const struct bench *b)
{
	const struct {
		const char *path, *fix;
	} need[] = {
		{ b->kernel, "'make kernel' fetches Debian's, -k names another" },
		{ b->image, "'make bench' and 'make bench-compile' build the images, -i names another" },
		{ b->umbra, "run 'make'" },
		{ b->job->whole || b->job->parse == job_parse_command ? b->umbra : b->workload, "run 'make'" },
	};

	for (unsigned i = 0; i < sizeof need / sizeof *need; i++)
		if (access(need[i].path, R_OK)) {
			fprintf(stderr, "%s: %s: %s; %s\n", b->program, need[i].path, strerror(errno), need[i].fix);
			return 1;
		}
	return 0;
}

int options_parse(const struct bench_command *command, int argc, char **argv, struct request *q)
{
	const struct argp argp = {
		.options = options, .parser = parse_option, .args_doc = "[WORKLOAD[=N|=SIZE]]", .doc = command->doc,
	};
	struct words w = { .q = q };
	int r;

	q->bench.program = argv[0];
	q->bench.repetitions = 5;
	q->bench.image_fd = -1;
	if (argp_parse(&argp, argc, argv, 0, NULL, &w))
		return EXIT_MISTAKE;
	if (w.modes && !strcmp(w.modes, "help")) {
		modes_help();
		job_help();
		return 0;
	}
	if (choose_workload(&w) || choose_modes(&w, command->modes))
		return EXIT_MISTAKE;
	q->bench.timeout_s = w.timeout ? w.timeout : q->bench.job->timeout_s;
	if (!q->bench.memory)
		q->bench.memory = q->bench.job->memory ? q->bench.job->memory : "512M";
	if (find_files(&q->bench))
		return 1;
	if (w.initrd && snprintf(q->bench.image, sizeof q->bench.image, "%s", w.initrd) >= (int)sizeof q->bench.image) {
		mistake(&q->bench, "--initrd: too long a path");
		return EXIT_MISTAKE;
	}
	r = check_files(&q->bench);
	if (!r && q->bench.job->setup)
		r = q->bench.job->setup(&q->bench) ? 1 : 0;
	if (r || !q->run)
		return r ? r : -1;
	r = image_with_command(q->bench.image, q->run, q->dir, q->made_image);
	if (r)
		return 1;
	strcpy(q->bench.image, q->made_image);
	return -1;
}

void request_release(struct request *q)
{
	for (unsigned i = 0; i < q->bench.nr_samples; i++)
		sample_release(&q->bench.samples[i]);
	free(q->bench.samples);
	modes_release(&q->bench.modes);
	if (q->bench.image_fd >= 0)
		close(q->bench.image_fd);
	if (*q->made_image)
		unlink(q->made_image);
}
