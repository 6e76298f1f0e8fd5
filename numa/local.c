/* local.c - policy: every page on the node of the vCPU that touches it first. */
#include <linux/mempolicy.h>

#include "numa/policy.h"

static int place(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked)
{
	return policy_mbind(at, bytes, MPOL_LOCAL, 0);
}

const struct numa_policy policy_local = {
	.name = "local",
	.what = "pages come from the node of the vCPU that touches them first, whatever umbra was started under",
	.place = place,
};
