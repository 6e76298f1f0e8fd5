/*
 * replay_shadow.h - a simulated shadow: which entries of which guest table a shadow would hold, as far as a trace tells. No
 * threads, no kicks, a pool without end. Not for other modules: replay.h is.
 *
 * A guest table has at most one shadow here, whatever its roles: user and kernel roots of Linux are tables of their own, and
 * the user half below them is shared.
 */
#ifndef UMBRA_HELPER_REPLAY_SHADOW_H
#define UMBRA_HELPER_REPLAY_SHADOW_H

#include "helper/replay.h"

#define SIM_TABLES	32768u	/* that a trace may have at once; more are unknown to it */

struct sim_shadow;

/* NULL: no memory. `counts` has an element per source of mmu.h. */
struct sim_shadow *sim_create(struct replay_source counts[static MMU_SOURCES]);
void sim_destroy(struct sim_shadow *s);

/* What the guest does. */
void sim_update(struct sim_shadow *s, gfn_t table, unsigned index, bool known, uint64_t gpte);
void sim_pin(struct sim_shadow *s, gfn_t table, unsigned level);
void sim_unpin(struct sim_shadow *s, gfn_t table);
void sim_load(struct sim_shadow *s, gfn_t root);
/* The table holds these entries and zeroes. */
void sim_content(struct sim_shadow *s, gfn_t table, unsigned level, const struct trace_entry *entries, unsigned count);

enum sim_fault {
	SIM_AVOIDED,		/* the shadow allows it by something that was prebuilt */
	SIM_ABSENT,		/* it does not: a hidden fault that has filled the shadow */
	SIM_WEAK,		/* ... what is there does not allow writing */
	SIM_UNEXPLAINED,	/* it was there already when the guest faulted: removed by what the trace does not tell */
};

/* A hidden fault of the run that was recorded. */
enum sim_fault sim_fault(struct sim_shadow *s, const struct helper_event *e);

/* What a prebuilder does; as in engine_env. */
enum mmu_prebuilt sim_build(struct sim_shadow *s, gfn_t table, unsigned index, unsigned source, unsigned flags);
bool sim_read(struct sim_shadow *s, gfn_t table, unsigned index, uint64_t *gpte);

/* Whether there is an entry now. */
bool sim_shows(struct sim_shadow *s, gfn_t table, unsigned index);

/* The run is over: counts what is there and was never used. */
void sim_finish(struct sim_shadow *s);

#endif
