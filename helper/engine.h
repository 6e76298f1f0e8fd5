/*
 * engine.h - runs heuristics on events. One thread per engine; deterministic: what it asks of its env depends on the
 * configuration and on the sequence of calls here alone. The helper thread has one with the MMU behind it, `umbra
 * replay` one with a simulated MMU.
 */
#ifndef UMBRA_HELPER_ENGINE_H
#define UMBRA_HELPER_ENGINE_H

#include "helper/heuristic.h"

/* Whom the requests go to. All members mandatory but `use`. */
struct engine_env {
	/* As mmu_prebuild(); `source` is MMU_SRC_FIRST_HEURISTIC + the heuristic's place. */
	enum mmu_prebuilt (*build)(void *arg, gfn_t table, unsigned index, unsigned source, unsigned flags);
	/* As mmu_prebuild_tree(): at most `budget` leaves; how many were built. */
	unsigned (*build_tree)(void *arg, gfn_t root, enum mmu_mode mode, gva_t first, gva_t last, unsigned source,
			       unsigned flags, unsigned budget);
	/* As mmu_prebuild_set() for all of mmu_present_set() of `parent`. */
	unsigned (*clone)(void *arg, gfn_t root, gfn_t parent, gva_t first, gva_t last, unsigned source, unsigned flags,
			  unsigned budget);
	bool (*read_entry)(void *arg, gfn_t table, unsigned index, uint64_t *gpte);
	/* Optional: what is known of the use of what `source` built. */
	void (*use)(void *arg, unsigned source, struct heuristic_use *out);
	void *arg;
};

struct engine_config {
	struct engine_env env;
	struct heuristic_config heuristics[HELPER_MAX_HEURISTICS];
	unsigned nr_heuristics;
	struct heuristic_feedback feedback;
	unsigned event_budget;	/* entries one heuristic may ask for on one event; 0: the default */
	unsigned ms_budget;	/* ... and within a millisecond of event time; 0: the default */
	unsigned queue;		/* trees that may wait; 0: the default */
};

#define ENGINE_EVENT_BUDGET	512u
#define ENGINE_MS_BUDGET	8192u
#define ENGINE_QUEUE		32u
#define ENGINE_SLICE		64u	/* leaves of a tree built at a time */
#define ENGINE_RETRIES		256u	/* entries that may wait to be asked for again */
#define ENGINE_LATE_NS		5000000ull	/* a fault so long after the request that it was meant for is late */

/* -EINVAL: none or too many heuristics; -ENOMEM. */
int engine_create(const struct engine_config *config, struct engine **out);
void engine_destroy(struct engine *e);
void engine_event(struct engine *e, const struct helper_event *event);
/* One slice of the queued work; false: there is none. For when no event waits. */
bool engine_work(struct engine *e);
/* Counters of the heuristic at that place. Any thread; while it runs they may be a little old. */
void engine_stats(const struct engine *e, unsigned place, struct heuristic_stats *out);

/* What --heuristic=auto did: up to `max` of the last decisions, the oldest first. The engine's thread. */
unsigned engine_decisions(const struct engine *e, struct heuristic_decision *out, unsigned max);

#endif
