/* heuristics.c - the list of heuristics, and their words on the command line. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "helper/heuristic.h"

static const struct heuristic *const all[] = { &heuristic_update, &heuristic_window };

#define NR_ALL (sizeof all / sizeof *all)

static const struct heuristic *find(const char *name)
{
	for (unsigned i = 0; i < NR_ALL; i++)
		if (!strcmp(all[i]->name, name))
			return all[i];
	return NULL;
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
	char copy[128], *save, *word;

	if (strlen(text) >= sizeof copy) {
		snprintf(why, size, "too long");
		return -EINVAL;
	}
	strcpy(copy, text);
	word = strtok_r(copy, ",", &save);
	*out = (struct heuristic_config){ .ops = word ? find(word) : NULL };
	if (!out->ops) {
		snprintf(why, size, "no heuristic is called '%s'; --heuristic=help lists them", word ? word : "");
		return -EINVAL;
	}
	out->name = out->ops->name;
	for (unsigned i = 0; i < HELPER_MAX_PARAMS && out->ops->params[i].name; i++)
		out->value[i] = out->ops->params[i].initial;
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

void heuristic_help(FILE *to)
{
	for (unsigned i = 0; i < NR_ALL; i++) {
		const struct heuristic_param *p = all[i]->params;

		fprintf(to, "%-10s %s\n", all[i]->name, all[i]->what);
		for (unsigned k = 0; k < HELPER_MAX_PARAMS && p[k].name; k++)
			fprintf(to, "           %s=%" PRIu64 "  %s (%" PRIu64 " to %" PRIu64 ")\n", p[k].name, p[k].initial, p[k].what,
				p[k].min, p[k].max);
	}
}
