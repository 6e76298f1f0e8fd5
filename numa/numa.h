/*
 * numa.h - the host's NUMA nodes, and which of them a guest's memory and vCPUs are put on.
 *
 * Placement is the host kernel's (mbind(2), sched_setaffinity(2)); this module decides, asks for it, and looks up what came
 * of it. It knows neither KVM nor Xen. Node masks have a bit per node number; functions may be called by any thread.
 */
#ifndef UMBRA_NUMA_H
#define UMBRA_NUMA_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NUMA_MAX_NODES	64u

struct numa_node {
	bool exists;
	uint64_t bytes, free_bytes;	/* 0: a node without memory */
	cpu_set_t cpus;			/* those that this process may use */
	unsigned nr_cpus;
	uint8_t distance[NUMA_MAX_NODES];	/* as ACPI's SLIT: 10 is local; 0: not known */
};

struct numa_topology {
	unsigned nr_nodes;		/* nodes that exist ... */
	unsigned highest;		/* ... and the highest number among them */
	uint64_t with_memory, with_cpus;	/* masks */
	struct numa_node node[NUMA_MAX_NODES];
};

/* Reads what the host kernel says. A kernel without NUMA is one node, 0. -EIO: it cannot be read. */
int numa_topology_read(struct numa_topology *out);

struct numa_policy;

/* What a user asks for, in numactl's words. */
struct numa_config {
	const struct numa_policy *policy;	/* NULL: off */
	uint64_t membind;		/* nodes that memory may come from; 0: any */
	int preferred;			/* node that memory comes from while it has some; -1: none */
	uint64_t cpunodebind;		/* nodes whose processors the vCPUs run on; 0: any */
};

const struct numa_policy *numa_policy_find(const char *name);
const char *numa_policy_name(const struct numa_policy *policy);	/* "off" for NULL */
void numa_policy_help(FILE *to);
/* Node numbers and ranges, "0,2-3", or "all". -EINVAL. */
int numa_parse_nodes(const char *text, uint64_t *mask);

/* Whether `config` can be had on `t`. 0, or -EINVAL with one line in `why` that says what to do. */
int numa_check(const struct numa_config *config, const struct numa_topology *t, char *why, size_t size);

/* Where the memory at `at` is to come from, page by page as it is first touched. `walked`: tables and stacks that processors
 * walk, better near the vCPUs than anywhere else. 0 or -errno. */
int numa_place(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked);
/* The processors that vCPU threads may run on. False: any. */
bool numa_cpus(const struct numa_config *config, const struct numa_topology *t, cpu_set_t *cpus);

/* Pages of 4 KiB by the node they are on, as the kernel says (move_pages(2)): pages[n], and *absent: not allocated. 0 or
 * -errno. Takes about 0.1 us per page. */
int numa_census(const void *at, size_t bytes, uint64_t pages[static NUMA_MAX_NODES], uint64_t *absent);
/* The node of each of `n` pages of 4 KiB, as the kernel says, or -errno: -ENOENT, none is allocated there. 0 or -errno. */
int numa_where(void *const pages[], unsigned n, int node[]);

/* What came of moving pages of 4 KiB: each is under one of these. */
struct numa_moved {
	uint64_t moved, there;		/* ... by this call, ... before it */
	uint64_t absent;		/* not allocated: nothing to move */
	uint64_t failed;
	int error;			/* of the first that failed: -ENOMEM, the node is full; -EBUSY, the kernel holds the page */
};

/* Moves what is allocated of `bytes` at `at` to `node`, while others use it (move_pages(2)); where the host has huge pages,
 * whole ones. Adds to *out, as the kernel says afterwards. 0, or -errno if the kernel will not even try. About 2 us per page. */
int numa_move_range(void *at, size_t bytes, unsigned node, struct numa_moved *out);

#endif
