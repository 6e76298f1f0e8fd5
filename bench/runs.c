/* Single runs as the samples of a comparison. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "bench/runs.h"

struct run_names {
	char name[40], flags[160];
};

/* The flags that matter, from the configuration that the report has. */
static void make_flags(const json_t *report, char *to, size_t size)
{
	static const char *const words[] = { "mmu", "fill", "prefetch" };
	const json_t *config = json_object_get(report, "config");
	size_t n = 0;

	*to = 0;
	for (unsigned i = 0; i < sizeof words / sizeof *words && n < size; i++) {
		const char *value = json_string_value(json_object_get(config, words[i]));

		if (value)
			n += snprintf(to + n, size - n, "%s--%s=%.20s", n ? " " : "", words[i], value);
	}
	if (n < size && json_is_true(json_object_get(config, "helper")))
		snprintf(to + n, size - n, " --helper=on");
}

static void make_name(struct run_names *all, unsigned i, const char *name)
{
	snprintf(all[i].name, sizeof all[i].name, "%.30s", name);
	for (unsigned k = 0, number = 2; k < i; k++)
		if (!strcmp(all[k].name, all[i].name)) {
			snprintf(all[i].name, sizeof all[i].name, "%.30s (%u)", name, number++);
			k = -1;
		}
}

json_t *runs_compared(const json_t *const *reports, const char *const *names, unsigned n)
{
	static const struct job job = { .name = "runs", .what = "single runs, from power on to their end", .unit = "run", .whole = true };
	struct run_names *texts = calloc(n, sizeof *texts);
	struct mode *modes = calloc(n, sizeof *modes);
	struct sample *samples = calloc(n, sizeof *samples);
	struct bench b = { .job = &job, .modes = { modes, n }, .repetitions = 1, .memory = "", .load = NAN, .compare = true,
			   .samples = samples, .nr_samples = n };
	json_t *root = NULL;

	if (!texts || !modes || !samples)
		goto out;
	for (unsigned i = 0; i < n; i++) {
		make_name(texts, i, names[i]);
		make_flags(reports[i], texts[i].flags, sizeof texts[i].flags);
		modes[i] = (struct mode){ .name = texts[i].name, .what = "", .kind = MODE_UMBRA, .flags = texts[i].flags };
		samples[i] = (struct sample){ .mode = i, .ok = true, .nr_cases = 1, .report = json_incref((json_t *)reports[i]) };
		sample_take_whole(&samples[i]);
	}
	root = results_json(&b);
out:
	for (unsigned i = 0; samples && i < n; i++)
		sample_release(&samples[i]);
	free(texts);
	free(modes);
	free(samples);
	return root;
}
