/*
 * helper.h - the shadow-paging helper thread: builds shadow entries on another core, ahead of the guest's faults.
 *
 * It watches what the guest does to its page tables and lets heuristics guess which entries are wanted next. It only
 * ever prebuilds (mmu_prebuild()): not-present to present, from free frames of the pool; it never recycles or kicks, so
 * at worst it does nothing useful. It holds no lock while it waits.
 */
#ifndef UMBRA_HELPER_H
#define UMBRA_HELPER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mmu/mmu.h"

#define HELPER_MAX_HEURISTICS	16
#define HELPER_MAX_PARAMS	4

/* ---- events: all that a heuristic ever sees --------------------------------------------------------------------- */

enum helper_event_kind {
	HELPER_UPDATE,		/* the guest stored to entry `index` of `table` */
	HELPER_PIN,		/* `table` is a page table of `level` from now on */
	HELPER_UNPIN,		/* ... and no longer */
	HELPER_FAULT,		/* an access to `va` of the space `root`, `mode` faulted; see `fault` */
	HELPER_SWITCH,		/* a vCPU loads `root` for `mode` */
	HELPER_SYNC,		/* the VMM has taken up all updates and pins told so far: the shadow is in line with them */
	HELPER_USED,		/* a prebuilt entry `index` of `table` was seen used */
	HELPER_EVENT_KINDS,
};

enum helper_fault { HELPER_FAULT_HIDDEN, HELPER_FAULT_TRUE, HELPER_FAULT_PTWRITE };

#define HELPER_HAS_OLD	1u	/* `old` is known */
#define HELPER_HAS_NEW	2u	/* `new` is */
#define HELPER_IS_WRITE	4u	/* FAULT: the access was a write */

struct helper_event {
	uint64_t time_ns;	/* since the VM started; never goes back within one source */
	uint8_t kind;		/* enum helper_event_kind */
	uint8_t level;		/* 1..4: of `table` */
	uint8_t fault;		/* enum helper_fault */
	uint8_t mode;		/* enum mmu_mode, of FAULT and SWITCH */
	uint8_t vcpu;
	uint8_t flags;		/* HELPER_HAS_*, HELPER_IS_WRITE */
	uint16_t index;		/* of UPDATE, FAULT, USED: in `table` */
	gfn_t table;		/* FAULT: the guest's table where the walk ended, with `level` and `index` */
	gfn_t root;		/* FAULT, SWITCH */
	gva_t va;		/* FAULT */
	uint64_t old, new;	/* UPDATE: the entry. FAULT: `new` is what the walk ended at */
};

/* "update", "pin" ... Static storage. */
const char *helper_event_name(enum helper_event_kind kind);

/* Where events come from: one per vCPU. All members mandatory; called on the helper's thread. */
struct helper_source {
	/* Copies up to `max` events into `out`, in order, and says how many; adds what was overwritten unread to *lost. */
	unsigned (*read)(void *arg, struct helper_event *out, unsigned max, uint64_t *lost);
	/* The thread begins or ends to watch: while it does not, the vCPU must see to its updates itself. After `false` one
	 * more read follows, so that nothing falls between. */
	void (*watching)(void *arg, bool yes);
	/* Optional: the node whose shadow tables the vCPU runs on. Of a space that no node has tables of yet, it gets them. */
	unsigned (*node)(void *arg);
	void *arg;
};

/* ---- configuration ------------------------------------------------------------------------------------------------ */

/* One heuristic and its parameters, as configured. */
struct heuristic_config {
	const struct heuristic *ops;
	const char *name;			/* ops->name */
	uint64_t value[HELPER_MAX_PARAMS];	/* in the order of ops->params */
};

/* --heuristic=auto. Percent of the sampled entries that were used. */
struct heuristic_feedback {
	bool on;
	unsigned raise;		/* from so many on a heuristic gets more say ... */
	unsigned lower;		/* ... below so many less */
};

struct helper_config {
	struct mmu *mmu;
	const struct helper_source *sources;	/* copied */
	unsigned nr_sources;
	struct heuristic_config heuristics[HELPER_MAX_HEURISTICS];
	unsigned nr_heuristics;
	const int *cpus;			/* host CPUs to run on, a thread each; copied */
	unsigned nr_cpus;			/* 0: one thread, on any */
	struct heuristic_feedback feedback;
	bool stand_down;			/* give the core up for a while when others want it, and say so */
	void (*say)(void *arg, const char *line);	/* optional; any of the threads calls it */
	void *say_arg;
	unsigned queue;				/* trees that may wait; 0: the default */
	unsigned delay_us;			/* a test: wait up to so long before every look */
	/* Optional: what source `source` told, before the heuristics see it. On the thread that serves the source. */
	void (*tap)(void *arg, unsigned source, const struct helper_event *events, unsigned n);
	void *tap_arg;
	unsigned spin_us;			/* keep looking so long after the last event, then yield ... */
	unsigned yield_us;			/* ... so long between looks, then sleep until helper_wake() */
};

/* ---- counters ------------------------------------------------------------------------------------------------------- */

/* What one heuristic did. issued = built + present + nowhere + nothing + no_room + busy + waiting. X(name, "what") */
#define HEURISTIC_COUNTERS(X) \
	X(issued,	"entries it asked for") \
	X(built,	"installed") \
	X(present,	"somebody was faster") \
	X(nowhere,	"the table has no shadow") \
	X(nothing,	"the gPTE is absent, not accessed or none that can be shown") \
	X(no_room,	"the pool had no free frame for a table") \
	X(busy,		"a lock was taken or a kick needed first, also when tried again") \
	X(waiting,	"to be asked for again when the VMM has caught up") \
	X(retried,	"asked for again then") \
	X(late,		"hidden faults on an entry it had asked for or queued and that was not there yet") \
	X(dropped,	"not asked for: its budget or the queue was full") \
	X(held,		"not asked for: --heuristic=auto gives it less say")

struct heuristic_stats {
#define X(name, what) uint64_t name;
	HEURISTIC_COUNTERS(X)
#undef X
};

/* Use of what a heuristic built, seen by the A bits of a sample (mmu.h). */
struct heuristic_use {
	uint64_t built, sampled, sampled_used, sampled_unused, sampled_late, removed;
};

/* Why --heuristic=auto gave a heuristic more or less say. */
enum heuristic_reason {
	HEURISTIC_PAYS,		/* enough of its sampled entries were used */
	HEURISTIC_WASTES,	/* too few were */
	HEURISTIC_IDLE,		/* it asks for what is there already or cannot be had */
	HEURISTIC_PROBED,	/* no news for long: tried a step higher */
};

struct heuristic_decision {
	uint64_t time_ns;
	unsigned place;			/* of the heuristic */
	unsigned from, to;		/* of 2^step requests one is carried out */
	enum heuristic_reason reason;
	uint64_t asked, built, used, unused;	/* since the decision before; used and unused of the sample */
};

#define HELPER_LAGS	32u	/* of how late events are seen: powers of two, in ns */
#define HELPER_DECISIONS	64u

struct helper_stats {
	uint64_t events[HELPER_EVENT_KINDS];	/* by enum helper_event_kind */
	uint64_t lost;		/* events overwritten or dropped unread */
	uint64_t sleeps, wakes;
	uint64_t cpu_ns;	/* CPU time of the threads */
	uint64_t stood_down, stood_down_ns;	/* how often and how long no core was free */
	struct heuristic_stats heuristics[HELPER_MAX_HEURISTICS];
	struct heuristic_use use[HELPER_MAX_HEURISTICS];
	/* The last ones; helper_stop() only. */
	struct heuristic_decision decisions[HELPER_DECISIONS];
	unsigned nr_decisions;
};

struct helper;

/* Starts the threads; each source is served by one of them. -EINVAL, -ENOMEM, -EAGAIN (no thread). The sources live until
 * helper_stop(). */
int helper_start(const struct helper_config *config, struct helper **out);
/* Ends and joins the threads and says what it did in all. NULL is fine: then nothing. */
void helper_stop(struct helper *h, struct helper_stats *final);
/* Updates wait and the thread may sleep. Any thread; cheap when it does not. */
void helper_wake(struct helper *h);
/* Between two rounds a helper thread holds no pointer to guest memory. Notes where each of them is (HELPER_MAX_THREADS at most);
 * true once each has begun another since, or sleeps. Any thread. */
#define HELPER_MAX_THREADS 32u
void helper_note_rounds(struct helper *h, uint64_t *rounds);
bool helper_rounds_passed(struct helper *h, const uint64_t *rounds);
/* Any thread; while it runs the numbers may be a little old. */
void helper_stats(struct helper *h, struct helper_stats *out);

/* Parses "NAME[,key=value...]". 0; or -EINVAL with one line in `why`. */
int heuristic_parse(const char *text, struct heuristic_config *out, char *why, size_t size);
/*
 * Makes what was asked for complete: takes "auto" out of the list and into *feedback, fills an empty list with the default
 * or, with auto, with all there are. Returns the new length.
 */
unsigned heuristics_resolve(struct heuristic_config list[static HELPER_MAX_HEURISTICS], unsigned n,
			    struct heuristic_feedback *feedback);
/* The name of its parameter `i`, NULL: it has no more. */
const char *heuristic_param_name(const struct heuristic_config *h, unsigned i);
/* A line of text for people. */
void heuristic_decision_text(const struct heuristic_decision *d, const char *name, char *out, size_t size);
/* "NAME,key=value..." with every parameter; heuristic_parse() takes it back. Returns `text`. */
#define HEURISTIC_TEXT	128
const char *heuristic_text(const struct heuristic_config *h, char text[static HEURISTIC_TEXT]);
/* Lists names, parameters and defaults. */
void heuristic_help(FILE *to);

#endif
