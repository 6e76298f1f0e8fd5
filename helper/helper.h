/*
 * helper.h - the shadow-paging helper thread: builds shadow entries on another core, ahead of the guest's faults.
 *
 * It watches what the guest writes to its page tables and lets heuristics guess which entries are wanted next. It only
 * ever prebuilds (mmu_prebuild()): not-present to present, in tables that have a shadow; it never allocates, recycles or
 * kicks, so at worst it does nothing useful. It holds no lock while it waits.
 */
#ifndef UMBRA_HELPER_H
#define UMBRA_HELPER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mmu/mmu.h"

#define HELPER_MAX_HEURISTICS	8
#define HELPER_MAX_PARAMS	4

/* An entry of a guest table that the guest has just stored to. */
struct helper_update {
	gfn_t table;
	unsigned index;
};

/* Where updates come from: one per vCPU. All members mandatory; called on the helper's thread. */
struct helper_source {
	/* Copies up to `max` updates after *cursor, advances it, adds what was overwritten unread to *lost. */
	unsigned (*read)(void *arg, uint32_t *cursor, struct helper_update *out, unsigned max, uint64_t *lost);
	/* The thread begins or ends to watch: while it does not, the vCPU must see to its updates itself. After `false` one
	 * more read follows, so that nothing falls between. */
	void (*watching)(void *arg, bool yes);
	void *arg;
};

/* One heuristic and its parameters, as configured. */
struct heuristic_config {
	const struct heuristic *ops;
	const char *name;			/* ops->name */
	uint64_t value[HELPER_MAX_PARAMS];	/* in the order of ops->params */
};

struct helper_config {
	struct mmu *mmu;
	const struct helper_source *sources;	/* copied */
	unsigned nr_sources;
	struct heuristic_config heuristics[HELPER_MAX_HEURISTICS];
	unsigned nr_heuristics;
	int cpu;				/* host CPU to run on, -1: any */
	unsigned spin_us;			/* keep looking so long after the last update, then yield ... */
	unsigned yield_us;			/* ... so long between looks, then sleep until helper_wake() */
};

/* What one heuristic did. issued = built + present + nowhere + nothing. */
struct heuristic_stats {
	uint64_t issued;	/* entries it asked for */
	uint64_t built;		/* installed */
	uint64_t present;	/* somebody was faster */
	uint64_t nowhere;	/* the table has no shadow */
	uint64_t nothing;	/* the gPTE is absent or not accessed, or a lock was taken */
};

struct helper_stats {
	uint64_t updates, lost, sleeps, wakes;
	uint64_t cpu_ns;	/* CPU time of the thread */
	struct heuristic_stats heuristics[HELPER_MAX_HEURISTICS];
};

struct helper;

/* Starts the thread. -EINVAL, -ENOMEM, -EAGAIN (no thread). The sources live until helper_stop(). */
int helper_start(const struct helper_config *config, struct helper **out);
/* Ends and joins the thread and says what it did in all. NULL is fine: then nothing. */
void helper_stop(struct helper *h, struct helper_stats *final);
/* Updates wait and the thread may sleep. Any thread; cheap when it does not. */
void helper_wake(struct helper *h);
/* Any thread; while it runs the numbers may be a little old. */
void helper_stats(struct helper *h, struct helper_stats *out);

/* Parses "NAME[,key=value...]". 0; or -EINVAL with one line in `why`. */
int heuristic_parse(const char *text, struct heuristic_config *out, char *why, size_t size);
/* Lists names, parameters and defaults. */
void heuristic_help(FILE *to);

#endif
