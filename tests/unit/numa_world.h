/*
 * numa_world.h - a machine with nodes, for the manager to manage: frames that stand somewhere and are mapped per node, vCPUs that
 * access them by a pattern, and a clock. An access takes its time by the distance model, a fault and a move take theirs, so what
 * a policy is worth shows as work done.
 */
#ifndef UMBRA_TESTS_NUMA_WORLD_H
#define UMBRA_TESTS_NUMA_WORLD_H

#include "numa/numa.h"

#define WORLD_FRAMES	8192u
#define WORLD_VCPUS	8u
#define WORLD_ACCESSES	1000u		/* that one step of a vCPU stands for */

struct world;

/* The next access of a vCPU: a frame, and whether it writes. */
typedef uint64_t world_pattern(struct world *w, unsigned vcpu, bool *write);

struct world_frame {
	uint8_t node, home, copies;
	uint8_t mapped, writable;	/* masks of nodes */
	uint8_t writers;		/* ever */
	bool watched, pinned;
	unsigned moves;
};

struct world {
	struct numa_machine machine;
	struct numa_manager *m;
	world_pattern *pattern;
	struct world_frame frames[WORLD_FRAMES];
	uint8_t vcpu_at[WORLD_VCPUS];
	bool vcpu_idle[WORLD_VCPUS];
	uint64_t busy_ns[WORLD_VCPUS], ran_ns[WORLD_VCPUS], owed_ns[WORLD_VCPUS];
	uint64_t now_ns, fault_ns, move_ns, watch_ns;
	uint64_t kick_ns, refill_ns;	/* of one kick, for each vCPU; of all so far */
	bool uniform;			/* far memory is as fast as near one: nothing can be gained */
	uint64_t random;
	unsigned round;
	uint64_t room[NUMA_MAX_PLACES];	/* frames that a node can still take; ~0: any number */
	uint64_t free_bytes[NUMA_MAX_PLACES];
	int refuse;			/* -errno for every move; 0: none */
	uint64_t steps, local, distance;	/* of accesses, since world_clear() */
	uint64_t faults, moved, watched, vcpu_moves, refused;
};

/* `places` nodes with a processor each per vCPU, those dealt out in blocks; frames at home in blocks, too. */
void world_start(struct world *w, unsigned places, unsigned vcpus, const char *policy, world_pattern *pattern);
void world_end(struct world *w);
void world_set_policy(struct world *w, const char *policy);
void world_run(struct world *w, unsigned rounds);
void world_clear(struct world *w);
uint64_t world_random(struct world *w);
unsigned world_block(const struct world *w, unsigned place);	/* first frame at home there */
/* Percent of accesses since world_clear() that were local; mean distance of them. */
double world_local(const struct world *w);
double world_distance(const struct world *w);

/* Patterns. A vCPU's set is 256 frames, at home on the next node's block. */
world_pattern world_hot_cold;		/* 90 % its own set, 10 % its own block; a third are writes */
world_pattern world_private;		/* its own node's block */
world_pattern world_read_shared;	/* 512 frames for all, no writes */
world_pattern world_write_shared;	/* the same, half are writes */
world_pattern world_uniform;		/* everything, a third are writes */
world_pattern world_phases;		/* from round 200 on, the sets of the node after */
world_pattern world_ping_pong;		/* 256 frames, used by one node after the other for 25 rounds */
world_pattern world_written_sometimes;	/* as read_shared; one write in about 50 rounds to each */

#endif
