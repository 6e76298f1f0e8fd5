/* feedback.c - the rules by which a heuristic gains and loses its say. */
#include "helper/feedback.h"

#define IDLE	512u	/* of so many requests one has to build something: a request costs a hundredth of a fault or less */

bool feedback_admits(struct feedback *f)
{
	if (!(f->turn++ & ((1u << f->step) - 1)))
		return true;
	f->held++;
	return false;
}

bool feedback_round(struct feedback *f, const struct heuristic_feedback *config, uint64_t now_ns,
		    const struct heuristic_stats *stats, const struct heuristic_use *use, struct heuristic_decision *why)
{
	uint64_t asked = stats->issued + f->held, used = use->sampled_used, unused = use->sampled_unused;
	uint64_t percent, seen;
	int move = 0;

	if (now_ns < f->next_ns)
		return false;
	f->next_ns = now_ns + FEEDBACK_ROUND_NS;
	*why = (struct heuristic_decision){
		.time_ns = now_ns, .from = f->step, .asked = asked - f->last.asked, .built = stats->built - f->last.built,
		.used = used - f->last.used, .unused = unused - f->last.unused,
	};
	seen = why->used + why->unused;
	percent = seen ? why->used * 100 / seen : 0;
	if (seen >= FEEDBACK_SAMPLED) {
		f->last.used = used;
		f->last.unused = unused;
		if (percent < config->lower) {
			move = 1;
			why->reason = HEURISTIC_WASTES;
		} else if (percent >= config->raise) {
			move = -1;
			why->reason = HEURISTIC_PAYS;
		}
	} else if (why->asked >= FEEDBACK_ASKED && why->built * IDLE < why->asked >> f->step) {
		move = 1;
		why->reason = HEURISTIC_IDLE;
	}
	if (why->asked >= FEEDBACK_ASKED) {
		f->last.asked = asked;
		f->last.built = stats->built;
	}
	if (!move && ++f->quiet_rounds >= FEEDBACK_PROBE) {
		move = -1;
		why->reason = HEURISTIC_PROBED;
	}
	if (!move || (move < 0 && !f->step) || (move > 0 && f->step == FEEDBACK_STEPS - 1))
		return false;
	f->quiet_rounds = 0;
	f->step += move;
	why->to = f->step;
	return true;
}
