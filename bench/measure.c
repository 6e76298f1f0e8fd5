/* Rounds through all modes: modes take turns within each, so that a disturbance of the host meets all of them. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

#define OUTPUT_LINES	120u		/* of a run that failed */

/* Seconds that the runs still to come will take, from those of the same mode so far, or of any. NaN: none was. */
static double time_left(const struct bench *b)
{
	double any = 0, sum = 0;

	for (unsigned i = 0; i < b->nr_samples; i++)
		any += b->samples[i].wall_s / b->nr_samples;
	if (!b->nr_samples)
		return NAN;
	for (unsigned m = 0; m < b->modes.n; m++) {
		double own = 0;
		unsigned n = 0;

		if (*b->modes.at[m].left_out)
			continue;
		for (unsigned i = 0; i < b->nr_samples; i++)
			if (b->samples[i].mode == m) {
				own += b->samples[i].wall_s;
				n++;
			}
		sum += (b->repetitions - n) * (n ? own / n : any);
	}
	return sum;
}

static unsigned runs_in_all(const struct bench *b)
{
	unsigned n = 0;

	for (unsigned m = 0; m < b->modes.n; m++)
		n += *b->modes.at[m].left_out ? 0 : b->repetitions;
	return n;
}

/* Why a run failed is often told well before its end: an oops, then umbra's dump. */
static void print_output(const char *text)
{
	const char *from = text + strlen(text);
	unsigned lines = 0;

	while (from > text && (from[-1] != '\n' || lines++ < OUTPUT_LINES))
		from--;
	while (*from) {
		size_t n = strcspn(from, "\n");

		if (n)
			fprintf(stderr, "  | %.*s\n", (int)n, from);
		from += n + (from[n] == '\n');
	}
}

static void progress(const struct bench *b, const struct sample *s)
{
	unsigned total = runs_in_all(b);
	char time[NUMBER_TEXT];

	fprintf(stderr, "%s: %u/%u %s: ", b->job->name, b->nr_samples, total, b->modes.at[s->mode].name);
	if (!s->ok)
		fprintf(stderr, "FAILED: %s", s->why);
	else if (s->nr_cases > 1)
		fprintf(stderr, "%u cases (%.1f s)", s->nr_cases, s->wall_s);
	else {
		time_text(time, s->cases[0].ns);
		fprintf(stderr, "%s per %s (%.1f s)", time, b->job->unit, s->wall_s);
	}
	if (b->nr_samples < total) {
		double left = time_left(b);

		if (left < 100)
			fprintf(stderr, ", about %.0f s left", left);
		else
			fprintf(stderr, ", about %.0f min left", left / 60);
	}
	fputc('\n', stderr);
	if (s->output)
		print_output(s->output);
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

/* One run, kept as a sample unless the mode cannot run or all was stopped meanwhile. 0 or -errno. */
static int measure_one(struct bench *b, unsigned mode, unsigned repetition, unsigned *failed)
{
	struct sample *s = &b->samples[b->nr_samples];
	struct mode *m = &b->modes.at[mode];
	int r;

	s->mode = mode;
	s->repetition = repetition;
	r = sample_take(b, mode, s);
	if (r == -EOPNOTSUPP) {
		snprintf(m->left_out, sizeof m->left_out, "%.199s", s->why);
		fprintf(stderr, "%s: %s left out: %s\n", b->job->name, m->name, s->why);
	} else if (r) {
		fprintf(stderr, "%s: %s: %s\n", b->program, m->name, strerror(-r));
	}
	if (r || *b->stop) {
		sample_release(s);
		memset(s, 0, sizeof *s);
		return r == -EOPNOTSUPP ? 0 : r;
	}
	check_digest(b, s);
	*failed += !s->ok;
	b->nr_samples++;
	progress(b, s);
	return 0;
}

/* This host runs none of the modes, or none of umbra's though some were asked for. */
static bool cannot_run(const struct bench *b)
{
	unsigned umbra = 0, can = 0;

	for (unsigned m = 0; m < b->modes.n; m++) {
		umbra += b->modes.at[m].kind == MODE_UMBRA;
		can += b->modes.at[m].kind == MODE_UMBRA && !*b->modes.at[m].left_out;
	}
	return !b->nr_samples || (umbra && !can);
}

int measure(struct bench *b)
{
	unsigned failed = 0;
	int r = 0;

	b->samples = calloc(b->modes.n * b->repetitions, sizeof *b->samples);
	if (!b->samples)
		return -ENOMEM;
	if (getloadavg(&b->load, 1) != 1)
		b->load = -1;
	for (unsigned i = 0; i < b->modes.n * b->repetitions && !*b->stop && !r; i++) {
		unsigned repetition = i / b->modes.n, mode = (i + repetition) % b->modes.n;

		if (!*b->modes.at[mode].left_out)
			r = measure_one(b, mode, repetition, &failed);
	}
	if (r)
		return r;
	return !*b->stop && cannot_run(b) ? -EOPNOTSUPP : (int)failed;
}
