/* interleave.c - policy: pages in turn from every node, so that no node's memory is the bottleneck. */
#include <linux/mempolicy.h>

#include "numa/policy.h"

static int place(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked)
{
	return policy_mbind(at, bytes, MPOL_INTERLEAVE, config->membind ? config->membind : t->with_memory);
}

const struct numa_policy policy_interleave = {
	.name = "interleave",
	.what = "pages come from all nodes in turn, or from those of --membind",
	.place = place,
};
