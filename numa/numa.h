/*
 * numa.h - the host's NUMA nodes, and which of them a guest's memory and vCPUs are put on, at its start and while it runs.
 *
 * Placement at the start is the host kernel's (mbind(2), sched_setaffinity(2)); this module decides, asks for it, and looks up
 * what came of it. What moves later does so through struct numa_machine_ops. It knows neither KVM nor Xen. Node masks have a
 * bit per node number; functions may be called by any thread.
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
	bool fake;		/* by numa_topology_fake(): nothing may be asked of the kernel about these nodes */
	struct numa_node node[NUMA_MAX_NODES];
};

/* Reads what the host kernel says. A kernel without NUMA is one node, 0. -EIO: it cannot be read. */
int numa_topology_read(struct numa_topology *out);
/* Makes of the host in `t` one with `n` nodes, 2..NUMA_MAX_PLACES, of which each has an equal share of memory and, as far as
 * they go, of processors; with fewer processors than nodes every node has all of them. For tests. -EINVAL. */
int numa_topology_fake(struct numa_topology *t, unsigned n);

struct numa_policy;

#define NUMA_MAX_PLACES	8u	/* nodes that one VM uses */

/* What the policies that move things can be tuned by; numa/params.c says what each is. */
enum numa_param_id {
	NUMA_INTERVAL, NUMA_SCAN, NUMA_BATCH, NUMA_RATE, NUMA_HARM, NUMA_HOT, NUMA_SHARE, NUMA_HALF, NUMA_MAX_MOVES, NUMA_FREEZE,
	NUMA_JUDGE, NUMA_LOCAL_NS, NUMA_WEIGHT, NUMA_QUIET, NUMA_LOAD, NUMA_RESERVE, NUMA_UNDO, NUMA_SEED, NUMA_VCPUS,
	NUMA_NR_PARAMS
};

struct numa_param {
	const char *name, *what;
	uint64_t initial, min, max;
	unsigned groups;	/* of which policies; numa/policy.h */
};

/* What a user asks for, in numactl's words. */
struct numa_config {
	const struct numa_policy *policy;	/* NULL: off */
	uint64_t membind;		/* nodes that memory may come from; 0: any */
	int preferred;			/* node that memory comes from while it has some; -1: none */
	uint64_t cpunodebind;		/* nodes whose processors the vCPUs run on; 0: any */
	uint64_t value[NUMA_NR_PARAMS];	/* of a policy that moves things, by enum numa_param_id */
};

const struct numa_policy *numa_policy_find(const char *name);
const char *numa_policy_name(const struct numa_policy *policy);	/* "off" for NULL */
/* Whether it moves pages of a running guest: it needs a manager, and a machine that can. NULL does not. */
bool numa_policy_moves(const struct numa_policy *policy);
/* NAME[,key=value...], "off" included, into config->policy and ->value; the rest of *config stays. -EINVAL with one line in
 * `why`. */
int numa_policy_parse(const char *text, struct numa_config *config, char *why, size_t size);
/* The same back, every parameter said. Returns `text`. */
#define NUMA_POLICY_TEXT 512
const char *numa_policy_text(const struct numa_config *config, char text[static NUMA_POLICY_TEXT]);
/* The parameter if the policy of `config` has it, else NULL. */
const struct numa_param *numa_policy_param(const struct numa_config *config, enum numa_param_id id);
void numa_policy_help(FILE *to);
/* Node numbers and ranges, "0,2-3", or "all". -EINVAL. */
int numa_parse_nodes(const char *text, uint64_t *mask);

/* Whether `config` can be had on `t`. 0, or -EINVAL with one line in `why` that says what to do. */
int numa_check(const struct numa_config *config, const struct numa_topology *t, char *why, size_t size);

/* Where the memory at `at` is to come from, page by page as it is first touched. `walked`: tables and stacks that processors
 * walk, better near the vCPUs than anywhere else. 0 or -errno. */
int numa_place(const struct numa_config *config, const struct numa_topology *t, void *at, size_t bytes, bool walked);
/* Pages to come are placed again as the process is, by what it was started under. 0 or -errno. */
int numa_unplace(void *at, size_t bytes);
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

/* ---- the manager: what moves while the guest runs ------------------------------------------------------------------
 *
 * Nodes are called by their *place* here: 0..nr_places-1, dense. place[i] is the node's number on the host.
 */

/* The nodes a VM under `config` uses: those with memory, allowed by --membind; the first NUMA_MAX_PLACES of them. Returns how
 * many. */
unsigned numa_places(const struct numa_config *config, const struct numa_topology *t, uint8_t place[static NUMA_MAX_PLACES]);

enum numa_move_kind {
	NUMA_MIGRATE,		/* the frame stands on `node` from now on, and has no copies */
	NUMA_REPLICATE,		/* one copy on each node of `mask`, read-only until a write collapses them */
	NUMA_COLLAPSE,		/* one of the copies stays */
	NUMA_HOME,		/* back to where it was when the guest started */
};

struct numa_move {
	uint64_t gfn;
	enum numa_move_kind kind;
	uint8_t node, mask;
	int result;		/* 0; -EBUSY: not now; -ENOMEM: the node has no room; other -errno: not this frame */
};

#define NUMA_MAX_VCPUS	64u
#define NUMA_MAX_BATCH	64u	/* moves or watched frames in one call */
#define NUMA_NOWHERE	0xffu

struct numa_manager;

/*
 * What a manager needs of its machine. All mandatory unless said otherwise; all but vcpu_busy_ns, frame_nodes, node_free and now_ns
 * are called by one thread at a time, never a vCPU's, with no lock of the MMU held, and may sleep.
 */
struct numa_machine_ops {
	/* From now on the next access of each node to each of these frames is noted (numa_note()), and so is the first write, as
	 * far as the guest has a use for the frame that can be watched. 0 or -errno if it holds for none. */
	int (*watch)(void *arg, const uint64_t *gfns, unsigned n);
	void (*move)(void *arg, struct numa_move *moves, unsigned n);		/* sets every result */
	int (*move_vcpu)(void *arg, unsigned vcpu, unsigned node);		/* 0 or -errno */
	unsigned (*vcpu_node)(void *arg, unsigned vcpu);
	uint64_t (*vcpu_busy_ns)(void *arg, unsigned vcpu);			/* time it has run, not slept; 0: it is down */
	/* Where each stands now, the master of a replicated one, by the host kernel's word; NUMA_NOWHERE: not allocated. */
	void (*frame_nodes)(void *arg, const uint64_t *gfns, unsigned n, uint8_t *nodes);
	uint64_t (*node_free)(void *arg, unsigned node);			/* bytes */
	uint64_t (*now_ns)(void *arg);						/* monotonic */
	/* Optional: ns that vCPUs have spent in watch() and move() so far. Without, the time these take counts, waits included. */
	uint64_t (*work_ns)(void *arg);
	/* Optional: what one hidden fault costs the vCPU, ns. */
	uint64_t (*fault_ns)(void *arg);
	/* Optional: ns that the host has spent so far on entries of its own that kicks for watch(), move() and writes to copies
	 * took away. */
	uint64_t (*refill_ns)(void *arg);
	/* Optional: further signals, such as hardware samples: calls numa_note() with what came in since its last call. */
	void (*sample)(void *arg, struct numa_manager *m);
};

struct numa_machine {
	const struct numa_machine_ops *ops;
	void *arg;
	uint64_t nr_gfns;
	unsigned nr_places, nr_vcpus;		/* 1..NUMA_MAX_PLACES, 1..NUMA_MAX_VCPUS */
	uint8_t distance[NUMA_MAX_PLACES][NUMA_MAX_PLACES];	/* 10 is local */
	unsigned cpus[NUMA_MAX_PLACES];		/* processors that vCPUs may use there */
	uint64_t bytes[NUMA_MAX_PLACES];	/* memory there */
};

/* Fills in distance, cpus and bytes for the first nr_places of `place`. */
void numa_machine_describe(struct numa_machine *machine, const struct numa_topology *t, const uint8_t place[static NUMA_MAX_PLACES]);

/* `config`: its policy may be off or static, and be changed later. -EINVAL: the machine makes no sense; -ENOMEM. */
int numa_manager_create(const struct numa_config *config, const struct numa_machine *machine, struct numa_manager **out);
void numa_manager_destroy(struct numa_manager *m);
/* Its thread: a round every interval=. 0 or -errno. */
int numa_manager_start(struct numa_manager *m);
/* Returns when the thread has ended, at the latest when the call of ops in progress returns. Moves nothing back. */
void numa_manager_stop(struct numa_manager *m);
/* One round, by a caller that has not started the thread. */
void numa_manager_tick(struct numa_manager *m);

/* Another policy from the next round on. One that does not move: everything that was moved is brought home, in the rounds that
 * follow; numa_stats.away says what is left. -ENOMEM: the old one stays. */
int numa_manager_set_policy(struct numa_manager *m, const struct numa_config *config);
void numa_manager_config(struct numa_manager *m, struct numa_config *out);
/* Moves that a user wants, any number, at once and whatever the policy thinks; booked and logged. The policy leaves these frames
 * alone for freeze=. Not by a vCPU's thread. */
void numa_manager_move(struct numa_manager *m, struct numa_move *moves, unsigned n);
/* The same for a vCPU, whose home is there from now on. 0 or -errno. */
int numa_manager_move_vcpu(struct numa_manager *m, unsigned vcpu, unsigned node);
/* Forgets what it knows of frames, when all of them are at home by other means: a guest that starts again. */
void numa_manager_forget(struct numa_manager *m);

/*
 * A vCPU on `node` had a fault that was not the guest's, or a sample of hardware, at a frame. `watched`: it would not have come
 * without ops->watch; that others would not either is found out. Wait-free; a look at the clock and a few ns. `vcpu` notes on one thread
 * at a time; a frame or node out of range is ignored.
 */
void numa_note(struct numa_manager *m, unsigned vcpu, uint64_t gfn, unsigned node, bool write, bool watched);
/* A write made one frame of the copies again. Wait-free. */
void numa_note_collapsed(struct numa_manager *m, uint64_t gfn);

/* One list makes the struct and the JSON: X(name, "what it counts"). */
#define NUMA_COUNTERS(X) \
	X(rounds,		"rounds of the manager") \
	X(watched,		"frames watched") \
	X(samples,		"accesses that showed: faults at watched frames, other hidden faults") \
	X(samples_local,	"... at a frame, or a copy of it, on the node of the vCPU") \
	X(samples_remote,	"... on another node") \
	X(samples_distance,	"sum of the distances of both; 10 is local") \
	X(samples_write,	"... that were writes") \
	X(caused,		"faults because frames were watched or moved, at most") \
	X(migrated,		"frames moved to another node") \
	X(replicated,		"frames given copies") \
	X(collapsed,		"frames whose copies a write, or the policy, ended") \
	X(homed,		"frames brought home") \
	X(vcpus_moved,		"vCPUs moved to another node") \
	X(busy,			"moves put off because the frame, or a vCPU, was busy") \
	X(no_room,		"moves that a full node refused") \
	X(failed,		"moves refused for good") \
	X(put_off,		"moves left to later rounds by rate=, or by harm=") \
	X(frozen,		"moves not made because the page moved too often") \
	X(write_shared,		"pages left alone because several nodes write them") \
	X(paid,			"decisions after which accesses were nearer") \
	X(unpaid,		"... were not") \
	X(unused,		"... were too few to tell") \
	X(undone,		"decisions undone") \
	X(rests,		"times that moving stopped because it did not pay") \
	X(guest_ns,		"time that vCPUs ran") \
	X(cost_ns,		"what watching and moving took of it, as far as it can be told") \
	X(move_ns,		"... of that the moves; wall time") \
	X(away,			"frames not at home now") \
	X(copies,		"frames with copies now") \
	X(pending,		"moves wanted and not made yet, now")

struct numa_stats {
#define X(name, what) uint64_t name;
	NUMA_COUNTERS(X)
#undef X
	/* Samples of late, older ones counting less: local ones and all. */
	uint64_t recent_local, recent;
	bool resting;
};

void numa_manager_stats(struct numa_manager *m, struct numa_stats *out);
/* Samples of one vCPU at frames on its node, or elsewhere. */
void numa_manager_vcpu(struct numa_manager *m, unsigned vcpu, uint64_t *local, uint64_t *remote);

/* ---- what it did, and why ------------------------------------------------------------------------------------------ */

enum numa_act {
	NUMA_DID_MIGRATE, NUMA_DID_REPLICATE, NUMA_DID_COLLAPSE, NUMA_DID_HOME, NUMA_DID_MOVE_VCPU, NUMA_DID_REST, NUMA_NR_ACTS
};
enum numa_reason {
	NUMA_WHY_USER, NUMA_WHY_HOT, NUMA_WHY_READ_SHARED, NUMA_WHY_WRITTEN, NUMA_WHY_OFF, NUMA_WHY_UNDO, NUMA_WHY_RANDOM,
	NUMA_WHY_CPU_LOAD, NUMA_WHY_MEMORY, NUMA_WHY_HARM, NUMA_NR_REASONS
};
enum numa_outcome {
	NUMA_NOT_JUDGED,	/* nothing to be gained, or too much to be judged at once */
	NUMA_PENDING, NUMA_PAID, NUMA_UNPAID, NUMA_UNUSED, NUMA_UNDONE, NUMA_NR_OUTCOMES
};

struct numa_decision {
	uint64_t id;		/* 1, 2, ... */
	uint64_t time_ns;	/* in the log: since the manager was made */
	enum numa_act act;
	enum numa_reason reason;
	uint64_t first, last;	/* among these frames ... */
	unsigned frames;	/* ... so many; or: first is a vCPU */
	uint8_t from, to;	/* places; NUMA_NOWHERE: does not apply */
	uint8_t mask;		/* of a replication */
	uint8_t writers;	/* mask of nodes seen writing */
	uint32_t samples[NUMA_MAX_PLACES];	/* that it was decided by, ... */
	double uses[NUMA_MAX_PLACES];	/* ... and the uses per second that follow from how soon they came; 0: not known */
	int64_t gain_ns;	/* expected: remote accesses saved by the distance model, less the cost */
	uint64_t cost_ns;	/* of making the moves; wall time */
	unsigned done;		/* frames for which it worked */
	int error;		/* of the last for which it did not */
	enum numa_outcome outcome;
	/* Samples and the sum of their distances, nodes counting by their rates: until then, and after it. */
	uint32_t before[2], after[2];
};

extern const char *const numa_act_names[NUMA_NR_ACTS], *const numa_reason_names[NUMA_NR_REASONS],
	*const numa_outcome_names[NUMA_NR_OUTCOMES];

/* The last `max` decisions of those kept, oldest first. Returns how many. */
unsigned numa_manager_log(struct numa_manager *m, struct numa_decision *out, unsigned max);
#define NUMA_LOG_KEPT	512u
/* In words, with the host's node numbers. One line of at most `size`. */
void numa_decision_text(const struct numa_decision *d, const uint8_t place[static NUMA_MAX_PLACES], char *out, size_t size);

#endif
