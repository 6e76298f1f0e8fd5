/* params.c - what the policies that move things can be tuned by, and their words on the command line. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "numa/policy.h"

const struct numa_param numa_params[NUMA_NR_PARAMS] = {
	[NUMA_INTERVAL] = { "interval", "ms between two rounds", 100, 1, 60000, NUMA_GROUP_MOVES },
	[NUMA_SCAN] = { "scan", "frames watched per round, at most", 256, 0, 65536, NUMA_GROUP_SAMPLES | NUMA_GROUP_RANDOM },
	[NUMA_BATCH] = { "batch", "frames moved at once", 32, 1, NUMA_MAX_BATCH, NUMA_GROUP_MOVES },
	[NUMA_RATE] = { "rate", "frames moved per second, at most", 4096, 1, 1000000, NUMA_GROUP_MOVES },
	[NUMA_HARM] = { "harm", "percent of the guest's time that all this may cost", 4, 1, 100, NUMA_GROUP_SAMPLES },
	[NUMA_HOT] = { "hot", "samples before a page is moved or copied", 3, 1, 200, NUMA_GROUP_MIGRATE | NUMA_GROUP_REPLICATE },
	[NUMA_SHARE] = { "share", "percent of its uses from the node it is moved to", 75, 51, 100, NUMA_GROUP_MIGRATE },
	[NUMA_HALF] = { "half", "rounds after which a sample counts half", 16, 1, 10000, NUMA_GROUP_SAMPLES },
	[NUMA_MAX_MOVES] = { "max-moves", "moves of one page within freeze=; then it stays for freeze=", 4, 1, 200, NUMA_GROUP_SAMPLES },
	[NUMA_FREEZE] = { "freeze", "rounds", 300, 1, 1000000, NUMA_GROUP_SAMPLES },
	[NUMA_JUDGE] = { "judge", "rounds after which a move is judged", 20, 4, 10000, NUMA_GROUP_SAMPLES },
	[NUMA_LOCAL_NS] = { "local-ns", "model: ns of an access at distance 10, which grow with the distance", 90, 1, 10000, NUMA_GROUP_SAMPLES },
	[NUMA_WEIGHT] = { "weight", "model: accesses to memory that one use stands for", 16, 1, 10000000, NUMA_GROUP_SAMPLES },
	[NUMA_QUIET] = { "quiet", "rounds without a write before a page is copied; doubles with each write that ended copies", 8, 1, 10000,
			 NUMA_GROUP_REPLICATE },
	[NUMA_LOAD] = { "load", "percent of its processors' time that a node's vCPUs have to use before one of them is moved", 90, 1, 100,
			NUMA_GROUP_BALANCE },
	[NUMA_RESERVE] = { "reserve", "percent of a node's memory kept free", 4, 0, 90, NUMA_GROUP_BALANCE },
	[NUMA_UNDO] = { "undo", "1: what did not pay is undone, and moving rests when it does not pay on the whole", 1, 0, 1, NUMA_GROUP_UNDO },
	[NUMA_SEED] = { "seed", "of the random numbers", 1, 0, ~0ull >> 2, NUMA_GROUP_RANDOM },
	[NUMA_VCPUS] = { "vcpus", "1: vCPUs are moved, too", 0, 0, 1, NUMA_GROUP_RANDOM },
};

const struct numa_param *numa_policy_param(const struct numa_config *config, enum numa_param_id id)
{
	return config->policy && config->policy->groups & numa_params[id].groups ? &numa_params[id] : NULL;
}

static int set_param(struct numa_config *c, const char *key, const char *value, char *why, size_t size)
{
	for (unsigned i = 0; i < NUMA_NR_PARAMS; i++) {
		const struct numa_param *p = numa_policy_param(c, i);
		unsigned long long v;
		char *end;

		if (!p || strcmp(p->name, key))
			continue;
		errno = 0;
		v = strtoull(value, &end, 10);
		if (errno || *value < '0' || *value > '9' || *end || v < p->min || v > p->max) {
			snprintf(why, size, "%s: %s=%s: a number from %" PRIu64 " to %" PRIu64 " is needed", c->policy->name, key, value,
				 p->min, p->max);
			return -EINVAL;
		}
		c->value[i] = v;
		return 0;
	}
	snprintf(why, size, "%s has no parameter '%s'; --numa=help lists them", c->policy->name, key);
	return -EINVAL;
}

int numa_policy_parse(const char *text, struct numa_config *config, char *why, size_t size)
{
	struct numa_config c = *config;
	char copy[NUMA_POLICY_TEXT], *save, *word;

	if (strlen(text) >= sizeof copy) {
		snprintf(why, size, "too long");
		return -EINVAL;
	}
	strcpy(copy, text);
	word = strtok_r(copy, ",", &save);
	c.policy = word ? numa_policy_find(word) : NULL;
	if (!c.policy && (!word || strcmp(word, "off"))) {
		snprintf(why, size, "no policy is called '%s'; --numa=help lists them", word ? word : "");
		return -EINVAL;
	}
	for (unsigned i = 0; i < NUMA_NR_PARAMS; i++)
		c.value[i] = numa_params[i].initial;
	while ((word = strtok_r(NULL, ",", &save))) {
		char *eq = strchr(word, '=');
		int r;

		if (!eq || !c.policy) {
			snprintf(why, size, eq ? "off has no parameters" : "'%s' is not of the form key=value", word);
			return -EINVAL;
		}
		*eq = '\0';
		r = set_param(&c, word, eq + 1, why, size);
		if (r)
			return r;
	}
	*config = c;
	return 0;
}

const char *numa_policy_text(const struct numa_config *config, char text[static NUMA_POLICY_TEXT])
{
	int n = snprintf(text, NUMA_POLICY_TEXT, "%s", numa_policy_name(config->policy));

	for (unsigned i = 0; i < NUMA_NR_PARAMS && n < NUMA_POLICY_TEXT; i++) {
		const struct numa_param *p = numa_policy_param(config, i);

		if (p)
			n += snprintf(text + n, NUMA_POLICY_TEXT - n, ",%s=%" PRIu64, p->name, config->value[i]);
	}
	return text;
}

static void help_group(FILE *to, const char *who, unsigned group)
{
	fprintf(to, "%s:\n", who);
	for (unsigned i = 0; i < NUMA_NR_PARAMS; i++)
		if (numa_params[i].groups & group)
			fprintf(to, "            %s=%" PRIu64 "  %s (%" PRIu64 " to %" PRIu64 ")\n", numa_params[i].name, numa_params[i].initial,
				numa_params[i].what, numa_params[i].min, numa_params[i].max);
}

void numa_params_help(FILE *to)
{
	help_group(to, "all that move", NUMA_GROUP_MOVES);
	help_group(to, "all that move by what accesses show (migrate, replicate, balance, auto)", NUMA_GROUP_SAMPLES);
	help_group(to, "migrate, auto", NUMA_GROUP_MIGRATE);
	help_group(to, "replicate, auto", NUMA_GROUP_REPLICATE);
	help_group(to, "balance, auto", NUMA_GROUP_BALANCE);
	help_group(to, "auto", NUMA_GROUP_UNDO);
	help_group(to, "random", NUMA_GROUP_RANDOM);
}
