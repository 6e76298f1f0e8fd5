/*
 * policy.h - what a placement policy is: a const ops table, one per file. To write the next one, copy local.c (places once) or
 * migrate.c (moves while the guest runs), give it a name and list it in policies.c.
 */
#ifndef UMBRA_NUMA_POLICY_H
#define UMBRA_NUMA_POLICY_H

#include "numa/numa.h"

#define NUMA_SAMPLE	16u	/* one sample, in the units of numa_page.hits: ageing halves it four times before it is gone */

/* What is known of one frame at which an access showed just now. Nodes are places. */
struct numa_page {
	uint64_t gfn;
	unsigned nr_places;
	const uint8_t (*distance)[NUMA_MAX_PLACES];
	uint8_t at;			/* where it, or the master of its copies, stands */
	uint8_t copies;			/* mask of the nodes with one; 0: it is not replicated */
	uint8_t writers;		/* mask of the nodes seen writing of late */
	uint8_t backoff;		/* how often a write ended its copies */
	uint32_t hits[NUMA_MAX_PLACES];	/* [place] samples of late, older ones counting less; NUMA_SAMPLE each */
	double rate[NUMA_MAX_PLACES];	/* [place] uses per second, by them; what is more than some thousands looks like that */
	unsigned quiet;			/* rounds for which it was watched and nobody wrote */
	uint64_t cost_ns;		/* of one move, as moves went so far */
	uint64_t end_ns;		/* ... of a write that ends copies */
	double life;			/* rounds that copies around here stay, by the writes that ended some */
};

struct numa_wish {
	enum numa_move_kind kind;
	uint8_t node, mask;		/* as in struct numa_move */
	enum numa_reason reason;
	unsigned wait;			/* UNSURE: rounds until another look at it is of use */
	int64_t gain_ns;		/* expected, the cost taken off */
};

/* UNSURE: not seen often enough; LEAVE: it is where it should be, or nowhere is better. */
enum numa_verdict { NUMA_UNSURE, NUMA_LEAVE, NUMA_LEAVE_WRITE_SHARED, NUMA_WANT };

/* Parameters come in groups; a policy has those of all groups it names. */
#define NUMA_GROUP_MOVES	1u	/* every policy that moves anything */
#define NUMA_GROUP_SAMPLES	2u	/* ... by what it sees of accesses */
#define NUMA_GROUP_MIGRATE	4u
#define NUMA_GROUP_REPLICATE	8u
#define NUMA_GROUP_BALANCE	16u
#define NUMA_GROUP_UNDO		32u	/* undoes what did not pay, and rests when nothing does */
#define NUMA_GROUP_RANDOM	64u

struct numa_policy {
	const char *name;		/* mandatory */
	const char *what;		/* mandatory: one line */
	bool needs_nodes;		/* only with --membind, --preferred or --cpunodebind */
	/* As numa_place(). Mandatory. */
	int (*place)(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked);
	unsigned groups;		/* 0: it places, and moves nothing */
	/* Optional: what it wants for a frame. `value`: by enum numa_param_id. Pure. */
	enum numa_verdict (*page)(const uint64_t *value, const struct numa_page *p, struct numa_wish *w);
	/* Optional: once in a round, with the manager's lock held; numa/internal.h has what it may ask for. */
	void (*round)(struct numa_manager *m);
};

extern const struct numa_policy policy_local, policy_interleave, policy_bind, policy_migrate, policy_replicate, policy_balance,
	policy_auto, policy_random;

extern const struct numa_param numa_params[NUMA_NR_PARAMS];
void numa_params_help(FILE *to);

/* mbind(2) with one of linux/mempolicy.h's modes; `mask` 0: no nodes. 0 or -errno. */
int policy_mbind(void *at, size_t bytes, int mode, uint64_t mask);
/* Where pages go that will follow their users: to the node that touches them first, of those that may be used. */
int policy_place_first_touch(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked);

/* What accesses like the ones seen would save in ns over the next judge= rounds were the page on the nodes of `mask`, each read
 * from the nearest: the distance model, docs/numa.md. May be negative. */
int64_t policy_gain_ns(const uint64_t *value, const struct numa_page *p, uint8_t mask);
/* Mask of the nodes with at least one sample that counts. */
uint8_t policy_users(const struct numa_page *p);

#endif
