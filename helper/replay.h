/*
 * replay.h - heuristics on a recorded trace, without a guest: how many hidden faults would be left, and what became of what
 * each of them asked for. The heuristics and their engine are those of the helper thread; the MMU behind them is simulated.
 * The same trace and configuration give the same result, to the byte. docs/replay.md says what the model is good for.
 */
#ifndef UMBRA_HELPER_REPLAY_H
#define UMBRA_HELPER_REPLAY_H

#include "helper/engine.h"
#include "helper/trace.h"

/* What of the model can be set. Times in ns of the trace's clock. */
#define REPLAY_PARAMS(X) \
	X(notice_ns,	1000,	"from an event until the helper thread sees it") \
	X(event_ns,	200,	"its work per event") \
	X(ask_ns,	100,	"... per request that comes to nothing") \
	X(build_ns,	700,	"... per entry built")

struct replay_config {
	const struct trace_log *log;
	struct heuristic_config heuristics[HELPER_MAX_HEURISTICS];
	unsigned nr_heuristics;		/* 0: no helper thread */
	struct heuristic_feedback feedback;
#define X(name, initial, what) uint64_t name;
	REPLAY_PARAMS(X)
#undef X
	uint64_t lags[HELPER_LAGS];	/* not all zero: notice_ns is drawn from this, as `umbra run` counts it ... */
	const char *lag_file;		/* ... in this file; the caller's */
	enum mmu_prefetch_kind prefetch;	/* at faults, beside the helper, as in `umbra run` */
	unsigned prefetch_n;
	enum mmu_fill fill;
};

/* What became of the entries one source of prebuilding built; built = useful + wasted + unused. */
struct replay_source {
	uint64_t built;
	uint64_t useful;	/* used */
	uint64_t wasted;	/* removed before any use */
	uint64_t unused;	/* there at the end, not used so far */
};

struct replay_counts {
	uint64_t recorded;	/* hidden faults in the trace */
	uint64_t left;		/* of these: would be taken all the same ... */
	uint64_t weak;		/* ... because an entry was built read-only and is written */
	uint64_t unexplained;	/* ... because what had been there was removed by something the trace does not tell */
	struct replay_source sources[MMU_SOURCES];	/* by enum of mmu.h; heuristic i is MMU_SRC_FIRST_HEURISTIC + i */
};

struct replay_mark {
	uint32_t id;
	uint64_t time_ns;
	struct replay_counts counts;	/* until it; `unused` is 0 */
};

struct replay_result {
	struct replay_counts total;
	struct heuristic_stats heuristics[HELPER_MAX_HEURISTICS];
	uint64_t events[HELPER_EVENT_KINDS];
	uint64_t lost;		/* records the trace says were lost */
	uint64_t behind_ns;	/* the most that the helper was behind the guest */
	struct replay_mark *marks;
	unsigned nr_marks;
};

/* The defaults; heuristics none. */
void replay_config_init(struct replay_config *config, const struct trace_log *log);
/* 0; -EINVAL: as engine_create(); -ENOMEM. Any thread. */
int replay_run(const struct replay_config *config, struct replay_result *out);
void replay_free(struct replay_result *result);
/* What a heuristic and the whole of them built in vain: wasted + unused of every source. */
uint64_t replay_waste(const struct replay_counts *counts);

#endif
