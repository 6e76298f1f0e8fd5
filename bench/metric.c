/* What is made of samples: sums of counters, medians, and numbers as text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

/* The sum of "path" over the members of an array; members that lack it do not count. */
static double sum_over(const json_t *array, const char *path)
{
	double sum = NAN, v;
	const json_t *o;
	size_t i;

	json_array_foreach(array, i, o) {
		v = json_number_at(o, path);
		if (!isnan(v))
			sum = (isnan(sum) ? 0 : sum) + v;
	}
	return sum;
}

double json_number_at(const json_t *o, const char *path)
{
	char name[64];

	while (o && *path) {
		size_t len = strcspn(path, ".");

		if (len == 1 && *path == '*')
			return path[1] ? sum_over(o, path + 2) : NAN;
		if (len >= sizeof name)
			return NAN;
		memcpy(name, path, len);
		name[len] = 0;
		o = json_object_get(o, name);
		path += len + (path[len] == '.');
	}
	return json_is_number(o) ? json_number_value(o) : NAN;
}

/* What json_number_at() looks at, if it is a text; NULL. No arrays. */
static const char *text_at(const json_t *o, const char *path)
{
	char name[64];

	while (o && *path) {
		size_t len = strcspn(path, ".");

		if (len >= sizeof name)
			return NULL;
		memcpy(name, path, len);
		name[len] = 0;
		o = json_object_get(o, name);
		path += len + (path[len] == '.');
	}
	return json_string_value(o);
}

static double sum_terms(const struct metric *metric, const json_t *o)
{
	const unsigned max = sizeof metric->terms / sizeof *metric->terms;
	double sum = 0, value;
	const char *text = metric->when ? text_at(o, metric->when) : NULL;
	bool any = false;

	if (metric->when && (!text || strcmp(text, metric->is)))
		return NAN;
	for (unsigned i = 0; i < max && metric->terms[i]; i++) {
		value = json_number_at(o, metric->terms[i] + 1);
		if (isnan(value) && *metric->terms[i] == '~')
			continue;
		sum += *metric->terms[i] == '-' ? -value : value;
		any = true;
	}
	return any ? sum : NAN;
}

unsigned metric_values(const struct bench *b, unsigned mode, const char *case_name, const struct metric *metric, double *out,
		       unsigned max)
{
	unsigned n = 0;
	double v;

	for (unsigned i = 0; i < b->nr_samples && n < max; i++) {
		const struct sample *s = &b->samples[i];

		if (s->mode != mode || !s->ok)
			continue;
		for (unsigned j = 0; j < s->nr_cases && n < max; j++) {
			if (strcmp(s->cases[j].name, case_name))
				continue;
			v = !metric ? s->cases[j].ns : metric->cpu ? (s->cases[j].cpu_ns ? s->cases[j].cpu_ns : NAN) :
				metric->per_run ? sum_terms(metric, s->report) :
				sum_terms(metric, s->counted[j]) / s->cases[j].units;
			if (!isnan(v))
				out[n++] = v;
		}
	}
	return n;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct spread spread_of(double *values, unsigned n)
{
	struct spread s = { NAN, NAN, NAN, n };

	if (!n)
		return s;
	qsort(values, n, sizeof *values, by_value);
	s.min = values[0];
	s.max = values[n - 1];
	s.median = n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
	return s;
}

struct spread metric_spread(const struct bench *b, unsigned mode, const char *case_name, const struct metric *metric)
{
	double values[ROUNDS_MAX];

	return spread_of(values, metric_values(b, mode, case_name, metric, values, ROUNDS_MAX));
}

unsigned rounds_begun(const struct bench *b)
{
	return b->nr_samples ? b->samples[b->nr_samples - 1].repetition + 1 : 0;
}

unsigned case_names(const struct bench *b, const char *names[static BENCH_CASES])
{
	unsigned n = 0, k;

	for (unsigned i = 0; i < b->nr_samples; i++)
		for (unsigned j = 0; b->samples[i].ok && j < b->samples[i].nr_cases; j++) {
			for (k = 0; k < n && strcmp(names[k], b->samples[i].cases[j].name); k++)
				;
			if (k == n && n < BENCH_CASES)
				names[n++] = b->samples[i].cases[j].name;
		}
	return n;
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

void count_text(char out[static NUMBER_TEXT], double v)
{
	if (isnan(v))
		strcpy(out, "-");
	else if (v == 0)
		strcpy(out, "0");
	else
		snprintf(out, NUMBER_TEXT, "%.*f", v < 10 ? 2 : v < 100 ? 1 : 0, v);
}

void time_text(char out[static NUMBER_TEXT], double ns)
{
	static const char *const units[] = { "ns", "us", "ms", "s" };
	unsigned i = 0;

	if (isnan(ns)) {
		strcpy(out, "-");
		return;
	}
	for (; i < 3 && ns >= 999.5; i++)
		ns /= 1e3;
	snprintf(out, NUMBER_TEXT, "%.*f %s", ns < 9.995 ? 2 : ns < 99.95 ? 1 : 0, ns, units[i]);
}

void ratio_text(char out[static NUMBER_TEXT], double v)
{
	if (!isfinite(v))
		strcpy(out, "-");
	else
		snprintf(out, NUMBER_TEXT, "%.*f", v < 9.995 ? 2 : v < 99.95 ? 1 : 0, v);
}
