/*
 * engine.c - events in, requests out: budgets, the queue of trees, and who was late.
 *
 * Late is told by a small memory of the last requests and faults by entry. It forgets under pressure: then a late entry
 * goes uncounted, never the other way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "helper/engine.h"
#include "helper/feedback.h"

#define RECENT		4096u	/* a power of two */

/* What is known of an entry of late. */
struct recent {
	uint64_t table;
	uint16_t index;
	uint16_t asked;		/* bit per heuristic: asked for it and it was not there afterwards, or somebody was faster */
	uint64_t asked_ns, fault_ns;	/* 0: not */
};

struct tree {
	uint8_t place, mode;
	uint8_t flags;
	gfn_t root, parent;	/* parent: MMU_NO_GFN, or whom to clone */
	gva_t first, last;
	unsigned left;
};

/*
 * To be asked for again once the VMM has taken up what the guest did: a busy entry; one that was there but may be what
 * the entry said before the update, and is removed then; one of a table without a shadow, if the link to it was busy.
 */
struct retry {
	gfn_t table;
	uint16_t index;
	uint8_t place, flags, tries;
	bool updated;
};

#define TRIES	3u

struct runner {
	const struct heuristic *ops;
	uint64_t value[HELPER_MAX_PARAMS];
	struct heuristic_ctx ctx;
	struct heuristic_stats stats;
	struct feedback feedback;
	uint64_t ms;		/* the millisecond that ms_left is for */
	unsigned ms_left;
};

struct engine {
	struct engine_config config;
	struct runner runners[HELPER_MAX_HEURISTICS];
	struct recent recent[RECENT];
	uint64_t now_ns;
	const struct helper_event *event;	/* at work */
	struct tree *queue;	/* a ring */
	unsigned queue_first, queue_len;
	struct retry retries[ENGINE_RETRIES];	/* a ring */
	unsigned retry_first, nr_retries, retries_due;	/* due: an event came since */
	struct heuristic_decision decisions[HELPER_DECISIONS];
	unsigned nr_decisions;	/* ever made */
};

/* Counters have one writer; others read them as they are. */
static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* ---- who was late ------------------------------------------------------------------------------------------------ */

static struct recent *recent_of(struct engine *e, gfn_t table, unsigned index)
{
	uint64_t h = (table.n << 9 | index) * 0x9e3779b97f4a7c15ull;

	return &e->recent[h >> 52 & (RECENT - 1)];
}

static bool recent_is(const struct recent *r, gfn_t table, unsigned index)
{
	return r->table == table.n && r->index == index;
}

static bool within(const struct engine *e, uint64_t then)
{
	return then && e->now_ns - then <= ENGINE_LATE_NS;
}

static void note_request(struct engine *e, struct runner *r, gfn_t table, unsigned index, bool there, bool built)
{
	struct recent *at = recent_of(e, table, index);

	if (!recent_is(at, table, index))
		*at = (struct recent){ .table = table.n, .index = index };
	if (there && within(e, at->fault_ns)) {		/* the fault had it built */
		count(&r->stats.late, 1);
		return;
	}
	if (built) {
		at->asked = 0;
		return;
	}
	at->asked |= 1u << r->ctx.place;
	at->asked_ns = e->now_ns;
}

static void note_fault(struct engine *e, const struct helper_event *ev)
{
	struct recent *at = recent_of(e, ev->table, ev->index);

	if (recent_is(at, ev->table, ev->index) && within(e, at->asked_ns)) {
		for (unsigned i = 0; i < e->config.nr_heuristics; i++)
			if (at->asked >> i & 1)
				count(&e->runners[i].stats.late, 1);
	} else {
		*at = (struct recent){ .table = ev->table.n, .index = ev->index };
	}
	at->asked = 0;
	at->fault_ns = e->now_ns;
	for (unsigned i = 0; i < e->queue_len; i++) {
		const struct tree *t = &e->queue[(e->queue_first + i) % e->config.queue];

		if (t->root.n == ev->root.n && t->first.a <= ev->va.a && ev->va.a <= t->last.a)
			count(&e->runners[t->place].stats.late, 1);
	}
}

/* The entry begins a new life. */
static void note_update(struct engine *e, const struct helper_event *ev)
{
	struct recent *at = recent_of(e, ev->table, ev->index);

	if (recent_is(at, ev->table, ev->index))
		*at = (struct recent){ 0 };
}

/* ---- what heuristics ask for -------------------------------------------------------------------------------------- */

static unsigned take_budget(struct engine *e, struct runner *r, unsigned n)
{
	uint64_t ms = e->now_ns / 1000000;

	if (r->ms != ms) {
		r->ms = ms;
		r->ms_left = e->config.ms_budget;
	}
	if (n > r->ctx.left)
		n = r->ctx.left;
	if (n > r->ms_left)
		n = r->ms_left;
	r->ctx.left -= n;
	r->ms_left -= n;
	return n;
}

/* --heuristic=auto may hold it back. */
static bool admits(struct engine *e, struct runner *r)
{
	if (!e->config.feedback.on || feedback_admits(&r->feedback))
		return true;
	count(&r->stats.held, 1);
	return false;
}

static bool try_later(struct engine *e, const struct retry *q)
{
	struct retry *again = &e->retries[(e->retry_first + e->nr_retries) % ENGINE_RETRIES];

	if (e->nr_retries == ENGINE_RETRIES)
		return false;
	*again = *q;
	again->tries++;
	e->nr_retries++;
	count(&e->runners[q->place].stats.waiting, 1);
	return true;
}

/* One request, perhaps not for the first time. */
static void ask(struct engine *e, struct runner *r, const struct retry *q)
{
	enum mmu_prebuilt what = e->config.env.build(e->config.env.arg, q->table, q->index,
						     MMU_SRC_FIRST_HEURISTIC + q->place, q->flags);

	if ((what == MMU_PB_BUSY && q->tries < TRIES) ||
	    ((what == MMU_PB_PRESENT || what == MMU_PB_NO_SHADOW) && q->updated && !q->tries))
		if (try_later(e, q)) {
			note_request(e, r, q->table, q->index, false, false);
			return;
		}
	switch (what) {
	case MMU_PB_BUILT:
		count(&r->stats.built, 1);
		break;
	case MMU_PB_PRESENT:
		count(&r->stats.present, 1);
		break;
	case MMU_PB_NO_SHADOW:
		count(&r->stats.nowhere, 1);
		break;
	case MMU_PB_NOTHING:
		count(&r->stats.nothing, 1);
		break;
	case MMU_PB_NO_ROOM:
		count(&r->stats.no_room, 1);
		break;
	case MMU_PB_BUSY:
		count(&r->stats.busy, 1);
		break;
	}
	note_request(e, r, q->table, q->index, what == MMU_PB_PRESENT, what == MMU_PB_BUILT);
}

/* Those that were busy before the last event. */
static bool ask_again(struct engine *e)
{
	struct retry q;

	if (!e->retries_due)
		return false;
	e->retries_due--;
	q = e->retries[e->retry_first];
	e->retry_first = (e->retry_first + 1) % ENGINE_RETRIES;
	e->nr_retries--;
	count(&e->runners[q.place].stats.retried, 1);
	count(&e->runners[q.place].stats.waiting, -1);
	ask(e, &e->runners[q.place], &q);
	return true;
}

bool heuristic_build(struct heuristic_ctx *c, gfn_t table, unsigned index, unsigned flags)
{
	struct engine *e = c->engine;
	struct runner *r = &e->runners[c->place];

	if (index >= MMU_ENTRIES || !admits(e, r))
		return true;
	if (!take_budget(e, r, 1)) {
		count(&r->stats.dropped, 1);
		return false;
	}
	count(&r->stats.issued, 1);
	ask(e, r, &(struct retry){ table, index, c->place, flags, 0,
				       e->event->kind == HELPER_UPDATE && e->event->table.n == table.n &&
				       e->event->index == index });
	return true;
}

bool heuristic_read(struct heuristic_ctx *c, gfn_t table, unsigned index, uint64_t *gpte)
{
	const struct engine_env *env = &c->engine->config.env;

	return index < MMU_ENTRIES && env->read_entry(env->arg, table, index, gpte);
}

/* ---- trees --------------------------------------------------------------------------------------------------------- */

static bool enqueue(struct engine *e, const struct tree *new)
{
	struct runner *r = &e->runners[new->place];

	if (!new->left || new->last.a < new->first.a || !admits(e, r))
		return true;
	for (unsigned i = 0; i < e->queue_len; i++) {
		struct tree *t = &e->queue[(e->queue_first + i) % e->config.queue];

		if (t->place == new->place && t->mode == new->mode && t->root.n == new->root.n &&
		    t->parent.n == new->parent.n && t->first.a == new->first.a && t->last.a == new->last.a) {
			t->left = new->left;
			return false;
		}
	}
	if (e->queue_len == e->config.queue) {
		count(&r->stats.dropped, 1);
		return false;
	}
	e->queue[(e->queue_first + e->queue_len++) % e->config.queue] = *new;
	return true;
}

bool heuristic_tree(struct heuristic_ctx *c, gfn_t root, enum mmu_mode mode, gva_t first, gva_t last, unsigned flags,
		    unsigned entries)
{
	return enqueue(c->engine, &(struct tree){ c->place, mode, flags, root, MMU_NO_GFN, first, last, entries });
}

bool heuristic_clone(struct heuristic_ctx *c, gfn_t root, gfn_t parent, gva_t first, gva_t last, unsigned flags,
		     unsigned entries)
{
	return enqueue(c->engine, &(struct tree){ c->place, MMU_KERNEL, flags, root, parent, first, last, entries });
}

static unsigned build_slice(struct engine *e, const struct tree *t, unsigned slice)
{
	const struct engine_env *env = &e->config.env;
	unsigned source = MMU_SRC_FIRST_HEURISTIC + t->place;

	if (t->parent.n != MMU_NO_GFN.n)
		return env->clone(env->arg, t->root, t->parent, t->first, t->last, source, t->flags, slice);
	return env->build_tree(env->arg, t->root, t->mode, t->first, t->last, source, t->flags, slice);
}

bool engine_work(struct engine *e)
{
	struct tree *t = &e->queue[e->queue_first];
	struct runner *r;
	unsigned slice, n;

	if (ask_again(e))
		return true;
	if (!e->queue_len)
		return false;
	r = &e->runners[t->place];
	r->ctx.left = t->left < ENGINE_SLICE ? t->left : ENGINE_SLICE;
	slice = take_budget(e, r, r->ctx.left);
	n = slice ? build_slice(e, t, slice) : 0;
	count(&r->stats.issued, n);
	count(&r->stats.built, n);
	t->left -= n < t->left ? n : t->left;
	if (!slice)
		count(&r->stats.dropped, t->left);
	if (n < slice || !slice || !t->left) {
		e->queue_first = (e->queue_first + 1) % e->config.queue;
		e->queue_len--;
	}
	return true;
}

/* The table means something else now: what waits for it is void. */
static void forget_trees(struct engine *e, gfn_t root)
{
	for (unsigned i = 0; i < e->queue_len; i++) {
		struct tree *t = &e->queue[(e->queue_first + i) % e->config.queue];

		if (t->root.n == root.n || t->parent.n == root.n)
			t->left = 0;
	}
	while (e->queue_len && !e->queue[e->queue_first].left) {
		e->queue_first = (e->queue_first + 1) % e->config.queue;
		e->queue_len--;
	}
}

const char *helper_event_name(enum helper_event_kind kind)
{
	static const char *const names[] = {
		[HELPER_UPDATE] = "update", [HELPER_PIN] = "pin", [HELPER_UNPIN] = "unpin", [HELPER_FAULT] = "fault",
		[HELPER_SWITCH] = "switch", [HELPER_SYNC] = "sync", [HELPER_USED] = "used",
	};

	return names[kind];
}

/* ---- events --------------------------------------------------------------------------------------------------------- */

static void dispatch(struct runner *r, const struct helper_event *ev)
{
	void (*on)(struct heuristic_ctx *, const struct helper_event *) = NULL;

	switch (ev->kind) {
	case HELPER_UPDATE:
		on = r->ops->on_update;
		break;
	case HELPER_PIN:
	case HELPER_UNPIN:
		on = r->ops->on_pin;
		break;
	case HELPER_FAULT:
		on = r->ops->on_fault;
		break;
	case HELPER_SWITCH:
		on = r->ops->on_switch;
		break;
	case HELPER_USED:
		on = r->ops->on_used;
		break;
	}
	if (on)
		on(&r->ctx, ev);
}

static void give_feedback(struct engine *e, struct runner *r)
{
	const struct engine_env *env = &e->config.env;
	struct heuristic_use use = { 0 };
	struct heuristic_decision why;

	if (e->now_ns < r->feedback.next_ns)
		return;
	if (env->use)
		env->use(env->arg, MMU_SRC_FIRST_HEURISTIC + r->ctx.place, &use);
	if (!feedback_round(&r->feedback, &e->config.feedback, e->now_ns, &r->stats, &use, &why))
		return;
	why.place = r->ctx.place;
	e->decisions[e->nr_decisions++ % HELPER_DECISIONS] = why;
}

unsigned engine_decisions(const struct engine *e, struct heuristic_decision *out, unsigned max)
{
	unsigned n = e->nr_decisions < HELPER_DECISIONS ? e->nr_decisions : HELPER_DECISIONS;

	if (n > max)
		n = max;
	for (unsigned i = 0; i < n; i++)
		out[i] = e->decisions[(e->nr_decisions - n + i) % HELPER_DECISIONS];
	return n;
}

void engine_event(struct engine *e, const struct helper_event *ev)
{
	if (ev->time_ns > e->now_ns)
		e->now_ns = ev->time_ns;
	e->event = ev;
	if (ev->index >= MMU_ENTRIES)
		return;
	if (ev->kind == HELPER_UPDATE)
		note_update(e, ev);
	else if (ev->kind == HELPER_FAULT && ev->fault == HELPER_FAULT_HIDDEN)
		note_fault(e, ev);
	else if (ev->kind == HELPER_UNPIN)
		forget_trees(e, ev->table);
	if (ev->kind == HELPER_SYNC)
		e->retries_due = e->nr_retries;
	for (unsigned i = 0; i < e->config.nr_heuristics; i++) {
		e->runners[i].ctx.left = e->config.event_budget;
		dispatch(&e->runners[i], ev);
		if (e->config.feedback.on)
			give_feedback(e, &e->runners[i]);
	}
}

/* ---- begin and end ---------------------------------------------------------------------------------------------------- */

static int start_runner(struct engine *e, unsigned i)
{
	const struct heuristic_config *hc = &e->config.heuristics[i];
	struct runner *r = &e->runners[i];

	memcpy(r->value, hc->value, sizeof r->value);
	r->ctx = (struct heuristic_ctx){ .engine = e, .value = r->value, .place = i };
	r->ms = ~0ull;
	if (hc->ops->state_size) {
		r->ctx.state = calloc(1, hc->ops->state_size);
		if (!r->ctx.state)
			return -ENOMEM;
	}
	if (hc->ops->init) {
		int err = hc->ops->init(&r->ctx);

		if (err) {
			free(r->ctx.state);
			return err;
		}
	}
	r->ops = hc->ops;
	return 0;
}

int engine_create(const struct engine_config *config, struct engine **out)
{
	struct engine *e;
	int r = -ENOMEM;

	if (!config->nr_heuristics || config->nr_heuristics > HELPER_MAX_HEURISTICS)
		return -EINVAL;
	e = calloc(1, sizeof *e);
	if (!e)
		return -ENOMEM;
	e->config = *config;
	if (!e->config.event_budget)
		e->config.event_budget = ENGINE_EVENT_BUDGET;
	if (!e->config.ms_budget)
		e->config.ms_budget = ENGINE_MS_BUDGET;
	if (!e->config.queue)
		e->config.queue = ENGINE_QUEUE;
	e->queue = calloc(e->config.queue, sizeof *e->queue);
	if (!e->queue)
		goto fail;
	for (unsigned i = 0; i < config->nr_heuristics; i++) {
		r = start_runner(e, i);
		if (r)
			goto fail;
	}
	*out = e;
	return 0;
fail:
	engine_destroy(e);
	return r;
}

void engine_destroy(struct engine *e)
{
	for (unsigned i = 0; e && i < HELPER_MAX_HEURISTICS; i++) {
		struct runner *r = &e->runners[i];

		if (!r->ops)
			continue;
		if (r->ops->fini)
			r->ops->fini(&r->ctx);
		free(r->ctx.state);
	}
	if (e)
		free(e->queue);
	free(e);
}

void engine_stats(const struct engine *e, unsigned place, struct heuristic_stats *out)
{
	const uint64_t *from = (const uint64_t *)&e->runners[place].stats;

	for (size_t i = 0; i < sizeof *out / 8; i++)
		((uint64_t *)out)[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
}
