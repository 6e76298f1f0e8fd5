/*
 * policy.h - what a placement policy is: a const ops table, one per file. To write the next one, copy local.c, give it a
 * name and list it in policies.c.
 */
#ifndef UMBRA_NUMA_POLICY_H
#define UMBRA_NUMA_POLICY_H

#include "numa/numa.h"

struct numa_policy {
	const char *name;		/* mandatory */
	const char *what;		/* mandatory: one line */
	bool needs_nodes;		/* only with --membind, --preferred or --cpunodebind */
	/* As numa_place(). Mandatory. */
	int (*place)(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked);
};

extern const struct numa_policy policy_local, policy_interleave, policy_bind;

/* mbind(2) with one of linux/mempolicy.h's modes; `mask` 0: no nodes. 0 or -errno. */
int policy_mbind(void *at, size_t bytes, int mode, uint64_t mask);

#endif
