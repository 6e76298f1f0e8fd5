/*
 * policies.c - the list of policies, what may be asked of them, and asking the kernel.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numa/policy.h"

static const struct numa_policy *const policies[] = {
	&policy_local, &policy_interleave, &policy_bind,
	&policy_migrate, &policy_replicate, &policy_balance, &policy_auto, &policy_random,
};

#define NR_POLICIES	(sizeof policies / sizeof *policies)

const struct numa_policy *numa_policy_find(const char *name)
{
	for (unsigned i = 0; i < NR_POLICIES; i++)
		if (!strcmp(policies[i]->name, name))
			return policies[i];
	return NULL;
}

const char *numa_policy_name(const struct numa_policy *policy)
{
	return policy ? policy->name : "off";
}

bool numa_policy_moves(const struct numa_policy *policy)
{
	return policy && policy->groups;
}

void numa_policy_help(FILE *to)
{
	fprintf(to, "%-12sas the host kernel does by itself\n", "off");
	for (unsigned i = 0; i < NR_POLICIES; i++)
		fprintf(to, "%-12s%s\n", policies[i]->name, policies[i]->what);
	numa_params_help(to);
}

int numa_parse_nodes(const char *text, uint64_t *mask)
{
	uint64_t found = 0;

	if (!strcmp(text, "all")) {
		*mask = ~0ull;
		return 0;
	}
	for (;;) {
		unsigned first, last;
		int n = 0;

		if (*text < '0' || *text > '9' || sscanf(text, "%2u%n", &first, &n) != 1)
			return -EINVAL;
		text += n;
		last = first;
		if (*text == '-') {
			if (text[1] < '0' || text[1] > '9' || sscanf(text + 1, "%2u%n", &last, &n) != 1)
				return -EINVAL;
			text += n + 1;
		}
		if (last < first || last >= NUMA_MAX_NODES)
			return -EINVAL;
		for (unsigned i = first; i <= last; i++)
			found |= 1ull << i;
		if (!*text)
			break;
		if (*text++ != ',')
			return -EINVAL;
	}
	*mask = found;
	return 0;
}

static int lowest(uint64_t mask)
{
	return __builtin_ctzll(mask);
}

int numa_check(const struct numa_config *config, const struct numa_topology *t, char *why, size_t size)
{
	uint64_t memory = config->membind == ~0ull ? 0 : config->membind & ~t->with_memory;
	uint64_t cpus = config->cpunodebind == ~0ull ? 0 : config->cpunodebind & ~t->with_cpus;

	if (config->policy && config->policy->needs_nodes && !config->membind && config->preferred < 0 && !config->cpunodebind)
		snprintf(why, size, "%s needs --membind, --preferred or --cpunodebind", config->policy->name);
	else if (config->membind && config->preferred >= 0)
		snprintf(why, size, "--membind and --preferred exclude each other");
	else if (memory)
		snprintf(why, size, "--membind: node %d has no memory here; nodes 0 to %u exist", lowest(memory), t->highest);
	else if (cpus)
		snprintf(why, size, "--cpunodebind: node %d has no processor that this process may use; nodes 0 to %u exist",
			 lowest(cpus), t->highest);
	else if (config->preferred >= 0 && !(t->with_memory >> config->preferred & 1))
		snprintf(why, size, "--preferred: node %d has no memory here; nodes 0 to %u exist", config->preferred, t->highest);
	else
		return 0;
	return -EINVAL;
}

int policy_mbind(void *at, size_t bytes, int mode, uint64_t mask)
{
	unsigned long nodes = mask;

	return syscall(SYS_mbind, at, bytes, mode, mask ? &nodes : NULL, mask ? NUMA_MAX_NODES + 1 : 0, 0) ? -errno : 0;
}

int policy_place_first_touch(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked)
{
	return policy_mbind(at, bytes, config->membind ? MPOL_BIND : MPOL_LOCAL, config->membind);
}

int numa_place(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked)
{
	struct numa_config c = *config;

	if (!c.policy || t->nr_nodes < 2 || t->fake)
		return 0;
	c.membind &= t->with_memory;		/* "all" */
	return c.policy->place(&c, t, at, bytes, walked);
}

int numa_unplace(void *at, size_t bytes)
{
	return policy_mbind(at, bytes, MPOL_DEFAULT, 0);
}

bool numa_cpus(const struct numa_config *config, const struct numa_topology *t, cpu_set_t *cpus)
{
	if (!config->cpunodebind || config->cpunodebind == ~0ull)
		return false;
	CPU_ZERO(cpus);
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++)
		if (config->cpunodebind >> i & 1)
			CPU_OR(cpus, cpus, &t->node[i].cpus);
	return CPU_COUNT(cpus) > 0;
}
