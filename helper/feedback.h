/*
 * feedback.h - --heuristic=auto: each heuristic is given as much say as its guesses are worth. Pure, as heuristics are: time
 * is that of events.
 *
 * A heuristic at step s has one of 2^s of its requests carried out; it sees every event all the same, so that it goes on
 * learning. Every round looks at what became of what it built since the last one, and moves it by one step at most.
 */
#ifndef UMBRA_HELPER_FEEDBACK_H
#define UMBRA_HELPER_FEEDBACK_H

#include "helper/helper.h"

#define FEEDBACK_STEPS		7u		/* 1/1 .. 1/64 */
#define FEEDBACK_ROUND_NS	20000000ull
#define FEEDBACK_ASKED		64u		/* fewer requests in a round say nothing */
#define FEEDBACK_SAMPLED	8u		/* fewer seen used or unused neither */
#define FEEDBACK_PROBE		16u		/* rounds without news after which a low one is tried a step higher */

struct feedback {
	unsigned step, quiet_rounds;
	uint64_t turn, held, next_ns;
	struct {
		uint64_t asked, built, used, unused;
	} last;
};

/* Whether the request is carried out. */
bool feedback_admits(struct feedback *f);
/* After an event at `now_ns`: true if the heuristic's step changed, *why tells all but `place`. */
bool feedback_round(struct feedback *f, const struct heuristic_feedback *config, uint64_t now_ns,
		    const struct heuristic_stats *stats, const struct heuristic_use *use, struct heuristic_decision *why);

#endif
