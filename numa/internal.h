/*
 * internal.h - the manager's parts among themselves. Everything is for the thread that holds manager->lock, but what says
 * otherwise.
 */
#ifndef UMBRA_NUMA_INTERNAL_H
#define UMBRA_NUMA_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "numa/policy.h"

#define REGION_FRAMES	512u	/* a survey's unit: 2 MiB, as far as it goes */
#define CALLS		1024u
#define SURVEY_MIN	4u
#define SURVEY_GROW	4u	/* SURVEY_MIN << this at most */
#define FOCUS		4096u	/* a power of two */
#define WISHES		4096u
#define JUDGED		64u
#define JUDGE_WATCHES	8u	/* frames of one decision that are watched to judge it */

/*
 * What vCPU threads tell, wait-free. That a watched page is used says little, for most pages are in a tenth of a second; how
 * soon says how often. So a sample is the delay from the watch to the first access from a node, and a node gives one per watch.
 * Delays are times that vCPUs ran: one that waits for a processor uses nothing.
 */
struct heat {
	_Atomic uint8_t *answered;	/* [gfn] mask of nodes that used it since it was watched or moved */
	_Atomic uint32_t *answer;	/* [gfn * nr_places + node] when: us that the vCPU had run by then ... */
	_Atomic uint8_t *who;		/* ... and which vCPU that was */
	_Atomic uint8_t *used;		/* [gfn] mask of nodes with a sample to be collected ... */
	_Atomic uint8_t *wrote;		/* ... and of those that wrote */
	_Atomic uint8_t *disturbed;	/* [gfn] faults still to come because it was watched or moved, at most */
	_Atomic uint8_t *stands;	/* [gfn] mask of nodes it stood on when last looked up; 0: never */
	_Atomic uint64_t *touched;	/* bit per frame with anything fresh ... */
	_Atomic uint64_t *summary;	/* ... and per word of `touched` with any */
	_Atomic uint64_t *collapsed;	/* bit per frame */
};

struct heat_vcpu {
	_Alignas(64) _Atomic uint64_t local, remote, caused;
};

/* What the manager knows of a frame. All zero: nothing. */
struct frame {
	uint32_t stamp;			/* round of its last ageing */
	uint32_t watched;		/* since this round, and nobody wrote; 0: not */
	uint32_t asked;			/* the call that watched or moved it last, 1..; 0: none */
	uint32_t looked, used;		/* rounds of the last watch and of the last use that showed */
	uint32_t copied;		/* round in which it got its copies */
	uint32_t frozen;		/* left alone until this round */
	uint32_t window;		/* round that `moves` counts from */
	uint8_t moves, busy, settled, backoff;
	uint8_t copies;			/* mask; 0: none */
	uint8_t writers, writers_before;
	uint8_t judgement;		/* index + 1 */
	bool away, focus;		/* not at home; in the list of those to be watched next */
};

/* Samples of one node at one frame, NUMA_SAMPLE each, and the time that it was watched for them: us, times NUMA_SAMPLE. */
struct hits {
	uint32_t n;
	float time;
};

struct region {
	uint8_t wait, skip;		/* visits of the survey left out; and to be left out next time */
	uint8_t barren;			/* visits in a row with remote accesses, but nothing to move */
	uint8_t grow;			/* looks at SURVEY_MIN << grow of its frames */
	bool seen, remote, wanted;	/* since the last visit: used; from elsewhere; to be moved */
	uint16_t next;
	uint16_t copies;		/* frames with copies */
	float copied, ended;		/* rounds that they had them, and writes that ended some; older ones count less */
};

struct wish {
	uint64_t gfn;
	struct numa_wish w;
	uint8_t at, writers;
	struct hits hits[NUMA_MAX_PLACES];
};

/* A decision that waits for its judgement. */
struct judgement {
	uint64_t decision;		/* id; 0: free */
	enum numa_move_kind kind;
	uint8_t from;
	uint32_t start;			/* round */
	unsigned n;
	uint64_t gfns[NUMA_MAX_BATCH];
	uint32_t before[2];
	uint64_t cost_ns;
};

struct budget {
	int64_t tokens_ns;		/* of the guest's time, may be owed */
	double moves;			/* frames that rate= allows now */
	uint64_t busy_ns[NUMA_MAX_VCPUS], then_ns;
	unsigned load[NUMA_MAX_VCPUS];	/* of each vCPU, of late: thousandths of a processor */
	uint64_t caused;		/* faults by watching and moving that were paid for */
	uint64_t disturbed;		/* frames watched or moved since the last round */
	double faults;			/* each of these causes, on average of late */
	uint64_t fault_ns, move_ns, watch_ns;	/* of one, on average of late */
	uint64_t reserved_ns;		/* for faults that this round's watching may cause */
	uint64_t refill_ns, kicks;	/* what the host has spent so far on entries that kicks took, and how many kicks had */
	uint64_t kick_ns;		/* of that one kick, on average of late */
};

struct manager_log {
	pthread_mutex_t lock;		/* innermost */
	struct numa_decision kept[NUMA_LOG_KEPT];
	uint64_t made;			/* ever; the last has this id */
};

struct numa_manager {
	struct numa_machine machine;
	pthread_mutex_t lock;		/* outermost; held while ops are called */
	pthread_mutex_t wake_lock;	/* `stop` and `woken` */
	pthread_cond_t wake;
	pthread_t thread;
	bool started, stop, woken;

	struct numa_config config;
	const uint64_t *value;		/* config.value */
	_Atomic(struct heat *) heat;	/* NULL until a policy that moves was set, then for good */
	struct heat_vcpu *vcpus;
	struct frame *frames;
	struct hits *hits;		/* [gfn * nr_places + node], aged to the frame's stamp */
	uint64_t start_ns;
	uint32_t calls;			/* of ops->watch and ops->move so far */
	uint32_t (*ran_us)[NUMA_MAX_VCPUS];	/* [call % CALLS] that each vCPU had run when it was over */
	double node_load[NUMA_MAX_PLACES];	/* of the busiest vCPU there, of late: 1 is a whole processor */
	struct region *regions;
	uint64_t nr_regions, region_at, room_at;	/* the survey, and the search for cold ones, go on here */
	uint32_t round;			/* 1, 2, ... */
	bool homing;			/* frames are to be brought home, vCPUs back to home_node */
	uint64_t home_at;
	uint8_t home_node[NUMA_MAX_VCPUS];

	uint64_t focus[FOCUS];
	unsigned focus_first, focus_n, focus_max;
	double far_rate;		/* uses per second from elsewhere that frames had which were to be looked at again, on average */
	struct wish wishes[WISHES];
	unsigned nr_wishes;
	uint32_t full_until[NUMA_MAX_PLACES];	/* nothing goes there until this round; then one frame at a time ... */
	uint8_t full[NUMA_MAX_PLACES];		/* ... and nothing for twice as long if there is no room yet: doublings; 0: not full */
	struct judgement judged[JUDGED];
	unsigned nr_judged;
	struct budget budget;
	int64_t worth_ns;		/* what judged decisions gained less what they cost, of late */
	unsigned worth_n, rests;
	uint32_t rest_until, balance_next;
	uint64_t random;
	struct manager_log log;
	struct numa_stats stats;	/* one writer; others read as it is */
};

static inline void manager_count(uint64_t *counter, int64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline bool manager_has(const struct numa_manager *m, unsigned group)
{
	return m->config.policy && m->config.policy->groups & group;
}

/* heat.c */
int heat_create(struct numa_manager *m);
void heat_destroy(struct numa_manager *m);
void heat_forget(struct numa_manager *m);
/* Takes in what was noted since the last time; asks the policy for each such frame. */
void heat_collect(struct numa_manager *m);
/* The frame stands on the nodes of `mask` now. */
void heat_stands(struct numa_manager *m, uint64_t gfn, uint8_t mask);
/* Its translations are about to be dropped: the next faults there are the manager's doing, and samples. */
void heat_disturb(struct numa_manager *m, uint64_t gfn);
/* The call that dropped them is over. */
void heat_asked(struct numa_manager *m);
/* Its samples by node and writers, aged to now. */
struct hits *heat_hits(struct numa_manager *m, uint64_t gfn);
/* Uses per second that the vCPU ran. */
static inline double heat_rate(const struct hits *h)
{
	return h->time > 0 ? h->n * 1e6 / h->time : 0;
}
/* Forgets its samples: it stands elsewhere now. */
void heat_clear(struct numa_manager *m, uint64_t gfn);

/* scan.c */
void scan_round(struct numa_manager *m);
/* To be watched in the next rounds, if there is time to do so often enough, or it `must`. */
void scan_focus(struct numa_manager *m, uint64_t gfn, bool must);
/* Watches `n` now. */
void scan_watch(struct numa_manager *m, const uint64_t *gfns, unsigned n);
void scan_saw(struct numa_manager *m, uint64_t gfn, bool remote, bool wanted);

/* act.c */
/* A move to be made in this round. False: no room for more. */
bool act_want(struct numa_manager *m, const struct wish *wish);
/* Makes those that may be made. */
void act_round(struct numa_manager *m);
/* Makes these now and books them, as one decision per kind and direction. `why` has what they have in common. */
void act_now(struct numa_manager *m, struct numa_move *moves, unsigned n, const struct numa_decision *why);
int act_move_vcpu(struct numa_manager *m, unsigned vcpu, unsigned node, const struct numa_decision *why);
/* Brings home what is away, as much as one round may. */
void act_home(struct numa_manager *m);
/* A write ended its copies. */
void act_collapsed(struct numa_manager *m, uint64_t gfn);
/* Rounds that copies near this frame may be expected to stay. */
double act_copy_life(const struct numa_manager *m, uint64_t gfn);
/* Until the page has been left alone for freeze=. */
void act_freeze(struct numa_manager *m, uint64_t gfn);

/* budget.c */
void budget_start(struct numa_manager *m);
void budget_round(struct numa_manager *m);
unsigned budget_frames_to_watch(struct numa_manager *m);
unsigned budget_frames_to_move(struct numa_manager *m);
void budget_spent_watching(struct numa_manager *m, unsigned frames, uint64_t ns);
void budget_spent_moving(struct numa_manager *m, unsigned frames, uint64_t ns);
/* A clock of what vCPUs spend on watching and moving. */
uint64_t budget_clock(struct numa_manager *m);
/* Of one move with what follows from it; of a write that ends copies. */
uint64_t budget_move_ns(const struct numa_manager *m);
uint64_t budget_end_ns(const struct numa_manager *m);

/* judge.c */
void judge_later(struct numa_manager *m, const struct numa_decision *d, enum numa_move_kind kind, const uint64_t *gfns, unsigned n);
/* Adds the samples of a frame that stands on `mask` to {samples, sum of their distances}, which count by the nodes' rates. */
void judge_add(const struct numa_manager *m, const struct hits *hits, uint8_t mask, uint32_t sum[static 2]);
void judge_round(struct numa_manager *m);
void judge_forget(struct numa_manager *m);
bool judge_resting(const struct numa_manager *m);

/* log.c: returns the id. */
uint64_t log_add(struct numa_manager *m, const struct numa_decision *d);
void log_outcome(struct numa_manager *m, uint64_t id, enum numa_outcome outcome, const uint32_t after[static 2]);

/* migrate.c, replicate.c */
enum numa_verdict policy_migrate_page(const uint64_t *value, const struct numa_page *p, struct numa_wish *w);
enum numa_verdict policy_replicate_page(const uint64_t *value, const struct numa_page *p, struct numa_wish *w);
/* balance.c */
void policy_balance_round(struct numa_manager *m);

static inline unsigned manager_distance(const struct numa_manager *m, unsigned from, uint8_t mask)
{
	unsigned best = ~0u;

	for (unsigned i = 0; i < m->machine.nr_places; i++)
		if (mask >> i & 1 && m->machine.distance[from][i] < best)
			best = m->machine.distance[from][i];
	return best;
}

#endif
