/*
 * umbra-bench - a job under several modes in turn: counts and times, medians, one table, raw samples as JSON.
 *
 * Modes take turns within each repetition, so that a disturbance of the host meets all of them.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"

#define REPETITIONS_MAX	101u
#define COUNT_MAX	1000000u

static volatile int stop;

static void on_signal(int sig)
{
	stop = 128 + sig;
}

static const char usage[] =
	"usage: umbra-bench JOB [OPTION...]\n"
	"  --modes LIST       modes in that order, separated by commas; 'help' lists them and the jobs\n"
	"  --mode NAME=FLAGS  one more mode: any flags of 'umbra run' (repeatable)\n"
	"  -n, --repetitions N  rounds, each through all modes (default 5)\n"
	"  --count N          size of the job: forks, million steps\n"
	"  -k, --kernel FILE  default: vmlinuz in $UMBRA_CACHE or cache/\n"
	"  -i, --initrd FILE  default: the job's, beside this program\n"
	"  --json FILE        all samples as JSON; - for stdout, instead of the table\n"
	"Exit codes: 0, 1 a run failed, 2 usage, 77 the host runs none of the modes.\n";

enum { OPT_MODES = 256, OPT_MODE, OPT_COUNT, OPT_JSON };

static const struct option options[] = {
	{ "modes", required_argument, NULL, OPT_MODES },
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "repetitions", required_argument, NULL, 'n' },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "kernel", required_argument, NULL, 'k' },
	{ "initrd", required_argument, NULL, 'i' },
	{ "json", required_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static _Noreturn void refuse(const char *what, const char *value)
{
	fprintf(stderr, "umbra-bench: %s%s%s%s\n", what, value ? ": '" : "", value ? value : "", value ? "'" : "");
	exit(2);
}

static unsigned number(const char *text, unsigned max, const char *what)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (*end || errno || *text < '0' || *text > '9' || n < 1 || n > max)
		refuse(what, text);
	return n;
}

struct request {
	struct bench bench;
	const char *json;
	char kernel[512];
};

/* What is built lies beside this program. */
static void find_files(struct bench *b, char *kernel, size_t size)
{
	const char *cache = getenv("UMBRA_CACHE");
	char self[400];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	if (n < 0)
		refuse("cannot tell where this program lies", strerror(errno));
	self[n] = 0;
	*strrchr(self, '/') = 0;
	snprintf(b->umbra, sizeof b->umbra, "%s/umbra", self);
	snprintf(b->workload, sizeof b->workload, "%s/workload", self);
	snprintf(b->dir, sizeof b->dir, "%s/compile", self);
	if (!*b->image)
		snprintf(b->image, sizeof b->image, "%s/%s", self, b->job->image);
	if (!b->kernel) {
		snprintf(kernel, size, "%s/vmlinuz", cache && *cache ? cache : "cache");
		b->kernel = kernel;
	}
}

/* Returns the exit code if there is nothing to do, else -1. */
static int parse(int argc, char **argv, struct request *q)
{
	struct bench *b = &q->bench;
	const char *names = NULL;
	char *defined[MODE_FLAGS], bad[32];
	unsigned nr_defined = 0;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "n:k:i:h", options, NULL)) != -1) {
		switch (c) {
		case OPT_MODES:
			names = optarg;
			break;
		case OPT_MODE:
			if (nr_defined == MODE_FLAGS)
				refuse("too many --mode", NULL);
			defined[nr_defined++] = optarg;
			break;
		case OPT_COUNT:
			b->count = number(optarg, COUNT_MAX, "--count needs a number from 1 to 1000000");
			break;
		case OPT_JSON:
			q->json = optarg;
			break;
		case 'n':
			b->repetitions = number(optarg, REPETITIONS_MAX, "-n needs a number from 1 to 101");
			break;
		case 'k':
			b->kernel = optarg;
			break;
		case 'i':
			if (snprintf(b->image, sizeof b->image, "%s", optarg) >= (int)sizeof b->image)
				refuse("too long a path", optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (names && !strcmp(names, "help")) {
		modes_help();
		job_help();
		return 0;
	}
	if (optind + 1 != argc) {
		fputs(usage, stderr);
		return 2;
	}
	b->job = job_find(argv[optind]);
	if (!b->job)
		refuse("no job of that name (--modes=help lists them)", argv[optind]);
	if (b->count && b->job->arg != JOB_COUNT)
		refuse("this job takes no --count", b->job->name);
	if (!b->count)
		b->count = b->job->count;
	r = modes_add_names(&b->modes, names ? names : b->job->modes, bad);
	if (r == -ENOENT)
		refuse("no mode of that name (--modes=help lists them)", bad);
	for (unsigned i = 0; i < nr_defined && !r; i++) {
		r = modes_define(&b->modes, defined[i]);
		if (r == -EINVAL)
			refuse("--mode needs NAME=FLAGS", defined[i]);
		if (r == -EEXIST)
			refuse("there is a mode of that name", defined[i]);
	}
	if (r)
		refuse("out of memory", NULL);
	find_files(b, q->kernel, sizeof q->kernel);
	return -1;
}

static int check_files(const struct bench *b)
{
	const char *need[] = { b->kernel, b->image, b->umbra, b->workload };
	const char *from[] = { "'make kernel' fetches Debian's", "'make bench' and 'make bench-compile' build it",
			       "run 'make'", "run 'make'" };

	for (unsigned i = 0; i < sizeof need / sizeof *need; i++)
		if (access(need[i], R_OK)) {
			fprintf(stderr, "umbra-bench: %s: %s; %s\n", need[i], strerror(errno), from[i]);
			return 1;
		}
	return 0;
}

static void progress(const struct bench *b, const struct sample *s, unsigned total)
{
	char time[TIME_TEXT];

	fprintf(stderr, "bench: %s %u/%u %s: ", b->job->name, b->nr_samples, total, b->modes.at[s->mode].name);
	if (!s->ok)
		fprintf(stderr, "FAILED: %s\n", s->why);
	else if (s->nr_cases > 1)
		fprintf(stderr, "%u cases (%.1f s)\n", s->nr_cases, s->wall_s);
	else {
		time_text(time, s->cases[0].ns);
		fprintf(stderr, "%s per %s (%.1f s)\n", time, b->job->unit, s->wall_s);
	}
}

/* Modes change counts, never results: a digest that differs from that of the first good sample is a failure. */
static void check_digest(const struct bench *b, struct sample *s)
{
	for (unsigned i = 0; s->ok && i < b->nr_samples; i++) {
		if (!b->samples[i].ok)
			continue;
		if (strcmp(b->samples[i].digest, s->digest)) {
			snprintf(s->why, sizeof s->why, "its result %s differs from %s of %s", s->digest,
				 b->samples[i].digest, b->modes.at[b->samples[i].mode].name);
			s->ok = false;
		}
		return;
	}
}

/* Number of runs that failed, or -errno. -EOPNOTSUPP: no umbra mode can run here. */
static int measure(struct bench *b)
{
	bool *without = calloc(b->modes.n, sizeof *without);
	unsigned total = b->modes.n * b->repetitions, mode;
	int failed = 0, r = 0;

	b->samples = calloc(total, sizeof *b->samples);
	if (!without || !b->samples) {
		r = -ENOMEM;
		goto out;
	}
	for (unsigned i = 0; i < b->modes.n * b->repetitions && !stop; i++) {
		struct sample *s = &b->samples[b->nr_samples];

		mode = i % b->modes.n;
		if (without[mode])
			continue;
		s->mode = mode;
		s->repetition = i / b->modes.n;
		r = sample_take(b, mode, s);
		if (r == -EOPNOTSUPP) {
			fprintf(stderr, "bench: %s left out: %s\n", b->modes.at[mode].name, s->why);
			without[mode] = true;
			total -= b->repetitions;
			sample_release(s);
			memset(s, 0, sizeof *s);
			if (b->modes.at[mode].kind == MODE_UMBRA)
				goto out;
			r = 0;
			continue;
		}
		if (r) {
			fprintf(stderr, "umbra-bench: %s: %s\n", b->modes.at[mode].name, strerror(-r));
			goto out;
		}
		if (stop) {
			sample_release(s);
			break;
		}
		check_digest(b, s);
		failed += !s->ok;
		b->nr_samples++;
		progress(b, s, total);
	}
out:
	free(without);
	return r ? r : failed;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct request q = { .bench = { .repetitions = 5, .stop = &stop, .load = -1 } };
	struct bench *b = &q.bench;
	int r = parse(argc, argv, &q), failed;

	if (r >= 0)
		return r;
	if (check_files(b))
		return 1;
	if (getloadavg(&b->load, 1) != 1)
		b->load = -1;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	failed = measure(b);
	if (failed == -EOPNOTSUPP || (!failed && !b->nr_samples))
		r = 77;
	else
		r = failed != 0;
	if (b->nr_samples && !(q.json && !strcmp(q.json, "-")))
		table_print(b);
	if (b->nr_samples && q.json) {
		int err = results_write(b, q.json);

		if (err) {
			fprintf(stderr, "umbra-bench: %s: %s\n", q.json, strerror(-err));
			r = 1;
		}
	}
	if (failed > 0)
		fprintf(stderr, "umbra-bench: %d of %u runs failed\n", failed, b->nr_samples);
	for (unsigned i = 0; i < b->nr_samples; i++)
		sample_release(&b->samples[i]);
	free(b->samples);
	free(b->modes.at);
	return stop ? stop : r;
}
