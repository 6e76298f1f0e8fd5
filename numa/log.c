/* log.c - the last decisions, each with what was seen, what was expected of it and what came of it; in words. */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "numa/internal.h"

const char *const numa_act_names[NUMA_NR_ACTS] = {
	[NUMA_DID_MIGRATE] = "migrate", [NUMA_DID_REPLICATE] = "replicate", [NUMA_DID_COLLAPSE] = "collapse", [NUMA_DID_HOME] = "home",
	[NUMA_DID_MOVE_VCPU] = "move-vcpu", [NUMA_DID_REST] = "rest",
};

const char *const numa_reason_names[NUMA_NR_REASONS] = {
	[NUMA_WHY_USER] = "asked for",
	[NUMA_WHY_HOT] = "used mostly from there",
	[NUMA_WHY_READ_SHARED] = "read from several nodes, written by none",
	[NUMA_WHY_WRITTEN] = "written",
	[NUMA_WHY_OFF] = "the policy was switched off",
	[NUMA_WHY_UNDO] = "a move before did not pay",
	[NUMA_WHY_RANDOM] = "at random",
	[NUMA_WHY_CPU_LOAD] = "processors there are less busy",
	[NUMA_WHY_MEMORY] = "the node's memory is nearly full",
	[NUMA_WHY_HARM] = "moves cost more than they gained",
};

const char *const numa_outcome_names[NUMA_NR_OUTCOMES] = {
	[NUMA_NOT_JUDGED] = "not judged", [NUMA_PENDING] = "pending", [NUMA_PAID] = "paid", [NUMA_UNPAID] = "did not pay",
	[NUMA_UNUSED] = "unused since", [NUMA_UNDONE] = "undone",
};

uint64_t log_add(struct numa_manager *m, const struct numa_decision *d)
{
	struct manager_log *log = &m->log;
	struct numa_decision *at;
	uint64_t id;

	pthread_mutex_lock(&log->lock);
	id = ++log->made;
	at = &log->kept[id % NUMA_LOG_KEPT];
	*at = *d;
	at->id = id;
	at->time_ns -= m->start_ns;
	pthread_mutex_unlock(&log->lock);
	return id;
}

void log_outcome(struct numa_manager *m, uint64_t id, enum numa_outcome outcome, const uint32_t after[static 2])
{
	struct manager_log *log = &m->log;
	struct numa_decision *at = &log->kept[id % NUMA_LOG_KEPT];

	pthread_mutex_lock(&log->lock);
	if (at->id == id) {
		at->outcome = outcome;
		memcpy(at->after, after, sizeof at->after);
	}
	pthread_mutex_unlock(&log->lock);
}

unsigned numa_manager_log(struct numa_manager *m, struct numa_decision *out, unsigned max)
{
	struct manager_log *log = &m->log;
	unsigned n;

	pthread_mutex_lock(&log->lock);
	n = log->made < NUMA_LOG_KEPT ? log->made : NUMA_LOG_KEPT;
	if (n > max)
		n = max;
	for (unsigned i = 0; i < n; i++)
		out[i] = log->kept[(log->made - n + 1 + i) % NUMA_LOG_KEPT];
	pthread_mutex_unlock(&log->lock);
	return n;
}

struct text {
	char *at;
	size_t left;
};

static __attribute__((format(printf, 2, 3))) void say(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->at, t->left, format, args);
	va_end(args);
	if (n < 0 || (size_t)n >= t->left)
		n = t->left ? t->left - 1 : 0;
	t->at += n;
	t->left -= n;
}

static void say_nodes(struct text *t, const uint8_t *place, uint8_t mask)
{
	const char *comma = "";

	for (unsigned i = 0; i < NUMA_MAX_PLACES; i++) {
		if (!(mask >> i & 1))
			continue;
		say(t, "%s%u", comma, place[i]);
		comma = ",";
	}
}

static void say_what(struct text *t, const struct numa_decision *d, const uint8_t *place)
{
	if (d->act == NUMA_DID_REST) {
		say(t, "rest");
		return;
	}
	if (d->act == NUMA_DID_MOVE_VCPU)
		say(t, "vcpu %" PRIu64, d->first);
	else if (d->frames == 1)
		say(t, "%s frame %#" PRIx64, numa_act_names[d->act], d->first);
	else
		say(t, "%s %u frames of %#" PRIx64 "..%#" PRIx64, numa_act_names[d->act], d->frames, d->first, d->last);
	if (d->from != NUMA_NOWHERE)
		say(t, " from node %u", place[d->from]);
	if (d->act == NUMA_DID_REPLICATE) {
		say(t, " to nodes ");
		say_nodes(t, place, d->mask);
	} else if (d->to != NUMA_NOWHERE) {
		say(t, " to node %u", place[d->to]);
	}
}

static void say_samples(struct text *t, const struct numa_decision *d, const uint8_t *place)
{
	const char *comma = "; samples ";

	for (unsigned i = 0; i < NUMA_MAX_PLACES; i++) {
		if (!d->samples[i])
			continue;
		say(t, "%s%" PRIu32 " from node %u", comma, d->samples[i], place[i]);
		if (d->uses[i] > 0)
			say(t, " (%.0f uses/s)", d->uses[i]);
		comma = ", ";
	}
	if (d->writers) {
		say(t, "; written from ");
		say_nodes(t, place, d->writers);
	}
	if (d->gain_ns)
		say(t, "; expected %+.3f ms", d->gain_ns * 1e-6);
}

/* The mean distance of samples in {number, sum}. */
static double mean(const uint32_t d[static 2])
{
	return d[0] ? (double)d[1] / d[0] : 0;
}

void numa_decision_text(const struct numa_decision *d, const uint8_t place[static NUMA_MAX_PLACES], char *out, size_t size)
{
	struct text t = { out, size };

	say(&t, "%.3f s: ", d->time_ns * 1e-9);
	say_what(&t, d, place);
	say(&t, ": %s", numa_reason_names[d->reason]);
	say_samples(&t, d, place);
	if (d->act == NUMA_DID_REST)
		return;
	say(&t, "; cost %.3f ms", d->cost_ns * 1e-6);
	if (d->done < d->frames)
		say(&t, "; %u of %u done: %s", d->done, d->frames, strerror(-d->error));
	if (d->outcome == NUMA_NOT_JUDGED)
		return;
	say(&t, "; %s", numa_outcome_names[d->outcome]);
	if (d->outcome == NUMA_PAID || d->outcome == NUMA_UNPAID || d->outcome == NUMA_UNDONE)
		say(&t, ": distance %.1f before, %.1f after", mean(d->before), mean(d->after));
}
