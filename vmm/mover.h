/*
 * mover.h - moving frames of a running guest between nodes, as the files mover*.c share it. What others may call is in vm.h.
 *
 * Frame g has a place on each node i: machine frame vm->node_base[i] + g, in a slot of its own that the host backs page by
 * page; and its home, machine frame g. A batch of moves is prepared by the caller's thread (target pages exist before anything
 * is taken away), executed by the thread of a vCPU, which alone can do kicks, and cleaned up by the caller again.
 */
#ifndef UMBRA_VMM_MOVER_H
#define UMBRA_VMM_MOVER_H

#include "vmm/vm.h"

/* A frame's word. Who has set MOVER_CLAIMED owns the others, and may move the frame or give a place of it back. */
#define MOVER_CLAIMED	(1u << 0)
#define MOVER_NO_HOME	(1u << 1)	/* nothing is kept at home */
#define MOVER_ON(i)	(4u << (i))	/* a page is there on node i */

enum batch_state { BATCH_NONE, BATCH_WAITING, BATCH_TAKEN, BATCH_DONE };

struct batch_item {
	gfn_t gfn;
	enum numa_move_kind kind;
	mfn_t from, to;			/* from: before the move */
	mfn_t at[NUMA_MAX_PLACES];	/* NUMA_REPLICATE */
	int result;
	bool set_away;			/* by this batch */
};

struct left {				/* frames whose old places can be given back after a grace period */
	uint64_t *gfns;
	size_t n, size;
};

struct mover {
	struct vm *vm;
	uint16_t *frames;		/* [gfn] atomic */
	pthread_mutex_t lock;		/* one caller at a time: all below but what says otherwise */
	bool watch;			/* the batch is to be watched, not moved */
	struct batch_item items[NUMA_MAX_BATCH];
	unsigned nr_items;
	unsigned next_vcpu;		/* to be asked */
	_Atomic int state;		/* enum batch_state */
	pthread_mutex_t done_lock;
	pthread_cond_t done;
	bool stopped_inside;		/* the executor's: a shim was in the way */

	pthread_mutex_t left_lock;	/* `fresh` */
	struct left fresh, waiting;
	uint32_t phase[VMM_MAX_VCPUS];	/* ... when `waiting` began to */
	uint64_t rounds[HELPER_MAX_THREADS];
	uint64_t *collapsed;		/* bit per gfn, atomic: its copies are one again */
	atomic_bool any_collapsed;
	struct mmu_cpu *cpu;		/* to ask the MMU whether that is known to all; it owes no kicks */

	struct mover_counters counters;	/* atomic */
	struct {
		int64_t mended;
		uint64_t kicks, ours;
	} seen;				/* mover_refill_ns()'s: KVM's faults and kicks until its last call */
};

#define MOVER_COUNT(m, name, by) __atomic_fetch_add(&(m)->counters.name, by, __ATOMIC_RELAXED)

/* mover.c */
bool mover_claim(struct mover *m, gfn_t gfn);
void mover_release(struct mover *m, gfn_t gfn);
mfn_t mover_place(const struct mover *m, unsigned node, gfn_t gfn);
bool mover_is_home(const struct vm *vm, gfn_t gfn);	/* of a frame with copies: the master */
bool mover_has_copies(const struct vm *vm, gfn_t gfn);

/* mover_pages.c: the host's pages behind the places. Callers have claimed the frames */
/* Sees to it that there are pages for `to` or `at` of each item on its node; results[] of others: -ENOMEM. Slow. */
void mover_populate(struct mover *m);
/* Lets the host back regions of 2 MiB that the batch has completed with a huge page. */
void mover_join_pages(struct mover *m);
/* From now on the places of `gfn` that it does not stand at wait to be given back. Any thread. */
void mover_leave(struct mover *m, gfn_t gfn);
/* Gives back what has waited long enough; what has not goes on waiting. `patience`: waits for that itself, some milliseconds. */
void mover_reap(struct mover *m, bool patience);
void mover_free_left(struct mover *m);

/* mover_run.c: a batch on the thread of a vCPU; one frame that it has claimed, home */
void mover_run(struct vcpu *v);
int mover_run_home(struct vcpu *v, gfn_t gfn);

#endif
