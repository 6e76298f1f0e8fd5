/*
 * commands.c - `umbra bench` and `umbra compare`: a workload under several modes in turn, then a table and raw samples.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/commands.h"

#define EXIT_NO_HOST	77

static volatile int stop;

static void on_signal(int sig)
{
	stop = 128 + sig;
}

/* Measures, prints, writes. Returns the exit code. */
static int run(struct request *q, void (*print)(const struct bench *b))
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct bench *b = &q->bench;
	int failed, err, r;

	stop = 0;
	b->stop = &stop;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	failed = measure(b);
	r = failed == -EOPNOTSUPP ? EXIT_NO_HOST : failed != 0;
	if (failed != (int)b->nr_samples && b->nr_samples && !(q->json && !strcmp(q->json, "-")))
		print(b);
	if (b->nr_samples && q->json) {
		err = results_write(b, q->json);
		if (err) {
			fprintf(stderr, "%s: %s: %s\n", b->program, q->json, strerror(-err));
			r = 1;
		}
	}
	if (failed > 0)
		fprintf(stderr, "%s: %d of %u runs failed\n", b->program, failed, b->nr_samples);
	return stop ? stop : r;
}

int compare_main(int argc, char **argv)
{
	static const struct bench_command command = {
		.modes = "nested,lazy,kvm8,helper",
		.doc = "Runs a workload under several modes in turn and compares them with the first: faults by class, exits by "
		       "cause, hypercalls, prebuilding, kicks and time, and which differences are real.\v"
		       "Exit codes: 0, 1 a run failed, 2 usage, 77 the host runs none of the modes.",
	};
	struct request q = { .bench.compare = true };
	int r = options_parse(&command, argc, argv, &q);

	if (r < 0)
		r = run(&q, compare_print);
	request_release(&q);
	return r;
}

int bench_main(int argc, char **argv)
{
	static const struct bench_command command = {
		.doc = "Runs a workload under several modes in turn: counts and times per unit of work, medians, a row per mode.\v"
		       "Exit codes: 0, 1 a run failed, 2 usage, 77 the host runs none of the modes.",
	};
	struct request q = { .json = NULL };
	int r = options_parse(&command, argc, argv, &q);

	if (r < 0)
		r = run(&q, table_print);
	request_release(&q);
	return r;
}
