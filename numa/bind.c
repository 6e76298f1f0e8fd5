/* bind.c - policy: memory from the nodes that were named, and from no others; vCPUs on the processors of those named. */
#include <linux/mempolicy.h>

#include "numa/policy.h"

static int place(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked)
{
	uint64_t near = config->cpunodebind & t->with_memory;

	if (config->membind)
		return policy_mbind(at, bytes, MPOL_BIND, walked && (near & config->membind) ? near & config->membind : config->membind);
	if (config->preferred >= 0)
		return policy_mbind(at, bytes, MPOL_PREFERRED, 1ull << config->preferred);
	return policy_mbind(at, bytes, near ? MPOL_PREFERRED_MANY : MPOL_LOCAL, near);
}

const struct numa_policy policy_bind = {
	.name = "bind",
	.what = "pages come from the nodes of --membind or --preferred, vCPUs run on those of --cpunodebind",
	.needs_nodes = true,
	.place = place,
};
