/* heuristics.c - the list of heuristics, and their words on the command line. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "helper/heuristic.h"

static const struct heuristic *const all[] = {
	&heuristic_update, &heuristic_window, &heuristic_fork, &heuristic_exec, &heuristic_switch, &heuristic_stride,
	&heuristic_distance, &heuristic_recency, &heuristic_direct_map, &heuristic_wild,
};

/* What --heuristic gives none of stands for. */
static const char *const initial[] = { "update", "fork", "exec", "switch", "direct-map" };

/* Stands for what feedback.c does; never run. */
static const struct heuristic heuristic_auto = {
	.name = "auto",
	.what = "those named besides, or all but 'wild', each with as much say as its guesses are worth",
	.params = {
		{ "raise", "more say from so many percent of its entries used", 10, 0, 100 },
		{ "lower", "less say below so many percent", 3, 0, 100 },
	},
};

#define NR_ALL (sizeof all / sizeof *all)

static const struct heuristic *find(const char *name)
{
	for (unsigned i = 0; i < NR_ALL; i++)
		if (!strcmp(all[i]->name, name))
			return all[i];
	return strcmp(heuristic_auto.name, name) ? NULL : &heuristic_auto;
}

static void set_defaults(struct heuristic_config *h, const struct heuristic *ops)
{
	*h = (struct heuristic_config){ .ops = ops, .name = ops->name };
	for (unsigned i = 0; i < HELPER_MAX_PARAMS && ops->params[i].name; i++)
		h->value[i] = ops->params[i].initial;
}

static int set_param(struct heuristic_config *h, const char *key, const char *value, char *why, size_t size)
{
	const struct heuristic_param *p = h->ops->params;
	unsigned long long v;
	char *end;

	for (unsigned i = 0; i < HELPER_MAX_PARAMS && p[i].name; i++) {
		if (strcmp(p[i].name, key))
			continue;
		errno = 0;
		v = strtoull(value, &end, 0);
		if (errno || end == value || *end || v < p[i].min || v > p[i].max) {
			snprintf(why, size, "%s: %s=%s: a number from %" PRIu64 " to %" PRIu64 " is needed", h->ops->name, key,
				 value, p[i].min, p[i].max);
			return -EINVAL;
		}
		h->value[i] = v;
		return 0;
	}
	snprintf(why, size, "%s has no parameter '%s'; --heuristic=help lists them", h->ops->name, key);
	return -EINVAL;
}

int heuristic_parse(const char *text, struct heuristic_config *out, char *why, size_t size)
{
	const struct heuristic *ops;
	char copy[128], *save, *word;

	if (strlen(text) >= sizeof copy) {
		snprintf(why, size, "too long");
		return -EINVAL;
	}
	strcpy(copy, text);
	word = strtok_r(copy, ",", &save);
	ops = word ? find(word) : NULL;
	if (!ops) {
		snprintf(why, size, "no heuristic is called '%s'; --heuristic=help lists them", word ? word : "");
		return -EINVAL;
	}
	set_defaults(out, ops);
	while ((word = strtok_r(NULL, ",", &save))) {
		char *eq = strchr(word, '=');
		int r;

		if (!eq) {
			snprintf(why, size, "'%s' is not of the form key=value", word);
			return -EINVAL;
		}
		*eq = '\0';
		r = set_param(out, word, eq + 1, why, size);
		if (r)
			return r;
	}
	return 0;
}

unsigned heuristics_resolve(struct heuristic_config list[static HELPER_MAX_HEURISTICS], unsigned n,
			    struct heuristic_feedback *feedback)
{
	unsigned kept = 0;

	*feedback = (struct heuristic_feedback){ .on = false };
	for (unsigned i = 0; i < n; i++) {
		if (list[i].ops == &heuristic_auto)
			*feedback = (struct heuristic_feedback){ true, list[i].value[0], list[i].value[1] };
		else
			list[kept++] = list[i];
	}
	if (kept)
		return kept;
	if (!feedback->on)
		for (unsigned i = 0; i < sizeof initial / sizeof *initial; i++)
			set_defaults(&list[kept++], find(initial[i]));
	else
		for (unsigned i = 0; i < NR_ALL; i++)
			if (all[i] != &heuristic_wild)
				set_defaults(&list[kept++], all[i]);
	return kept;
}

const char *heuristic_param_name(const struct heuristic_config *h, unsigned i)
{
	return i < HELPER_MAX_PARAMS ? h->ops->params[i].name : NULL;
}

void heuristic_decision_text(const struct heuristic_decision *d, const char *name, char *out, size_t size)
{
	static const char *const reasons[] = {
		[HEURISTIC_PAYS] = "enough was used",
		[HEURISTIC_WASTES] = "too little was used",
		[HEURISTIC_IDLE] = "asks for what is there or cannot be had",
		[HEURISTIC_PROBED] = "tried again after a quiet time",
	};

	snprintf(out, size, "%.3f s: %s 1/%u -> 1/%u, %s (asked %" PRIu64 ", built %" PRIu64 "; sampled: %" PRIu64 " used, %" PRIu64
		 " not)", d->time_ns * 1e-9, name, 1u << d->from, 1u << d->to, reasons[d->reason], d->asked, d->built, d->used,
		 d->unused);
}

static void help(FILE *to, const struct heuristic *h)
{
	const struct heuristic_param *p = h->params;

	fprintf(to, "%-11s %s\n", h->name, h->what);
	for (unsigned k = 0; k < HELPER_MAX_PARAMS && p[k].name; k++)
		fprintf(to, "            %s=%" PRIu64 "  %s (%" PRIu64 " to %" PRIu64 ")\n", p[k].name, p[k].initial, p[k].what,
			p[k].min, p[k].max);
}

void heuristic_help(FILE *to)
{
	for (unsigned i = 0; i < NR_ALL; i++)
		help(to, all[i]);
	help(to, &heuristic_auto);
	fputs("default: ", to);
	for (unsigned i = 0; i < sizeof initial / sizeof *initial; i++)
		fprintf(to, "%s%s", i ? ", " : "", initial[i]);
	fputc('\n', to);
}
