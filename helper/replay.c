/*
 * replay.c - two readers of one trace: the guest, at the times of the trace, and the helper thread, which sees an event
 * `notice_ns` later at the earliest and takes time for its work. Before the helper does anything, the guest has come to
 * where it was by then. So an entry that the helper builds too late meets the fault that built it first.
 *
 * A fault that would not have happened is not told to the heuristics. The guest's clock is that of the trace: it does not
 * run faster for the faults that are saved.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "helper/replay_shadow.h"

struct replay {
	const struct replay_config *config;
	struct replay_result *out;
	struct sim_shadow *shadow;
	struct engine *engine;
	size_t guest, helper;		/* items done by either */
	uint64_t now_ns;		/* the helper's */
	uint64_t random, lags;		/* for draws; the sum of config->lags */
	uint8_t *avoided;		/* bit per item: this fault did not happen */
	int error;
};

void replay_config_init(struct replay_config *config, const struct trace_log *log)
{
	*config = (struct replay_config){
		.log = log,
#define X(name, initial, what) .name = initial,
		REPLAY_PARAMS(X)
#undef X
	};
}

uint64_t replay_waste(const struct replay_counts *counts)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < MMU_SOURCES; i++)
		n += counts->sources[i].wasted + counts->sources[i].unused;
	return n;
}

/* ---- the guest ---------------------------------------------------------------------------------------------------------- */

/* mmu/prebuild.c: prefetch_around() */
static void prefetch(struct replay *r, const struct helper_event *e)
{
	unsigned first = e->index, last = e->index, n = r->config->prefetch_n;

	switch (r->config->prefetch) {
	case MMU_PREFETCH_OFF:
		return;
	case MMU_PREFETCH_KVM8:
		first = e->index & ~7u;
		last = first + 7;
		break;
	case MMU_PREFETCH_XEN32:
		last = e->index + 31;
		break;
	case MMU_PREFETCH_AROUND:
		first = e->index > n ? e->index - n : 0;
		last = e->index + n;
		break;
	}
	for (unsigned i = first; e->level == 1 && i <= last && i < MMU_ENTRIES; i++)
		if (i != e->index)
			sim_build(r->shadow, e->table, i, MMU_SRC_PREFETCH, 0);
}

static void guest_fault(struct replay *r, const struct helper_event *e, size_t item)
{
	struct replay_counts *c = &r->out->total;

	c->recorded++;
	switch (sim_fault(r->shadow, e)) {
	case SIM_AVOIDED:
		r->avoided[item / 8] |= 1u << item % 8;
		return;
	case SIM_WEAK:
		c->weak++;
		break;
	case SIM_UNEXPLAINED:
		c->unexplained++;
		break;
	case SIM_ABSENT:
		break;
	}
	c->left++;
	prefetch(r, e);
}

static void guest_event(struct replay *r, const struct helper_event *e, size_t item)
{
	r->out->events[e->kind]++;
	switch (e->kind) {
	case HELPER_UPDATE:
		sim_update(r->shadow, e->table, e->index, e->flags & HELPER_HAS_NEW, e->new);
		if (r->config->fill == MMU_FILL_EAGER)
			sim_build(r->shadow, e->table, e->index, MMU_SRC_EAGER, 0);
		break;
	case HELPER_PIN:
		sim_pin(r->shadow, e->table, e->level);
		break;
	case HELPER_UNPIN:
		sim_unpin(r->shadow, e->table);
		break;
	case HELPER_SWITCH:
		sim_load(r->shadow, e->root);
		break;
	case HELPER_FAULT:
		if (e->fault == HELPER_FAULT_HIDDEN)
			guest_fault(r, e, item);
		break;
	}
}

static void guest_mark(struct replay *r, const struct trace_item *item)
{
	struct replay_result *out = r->out;
	struct replay_mark *grown = reallocarray(out->marks, out->nr_marks + 1, sizeof *grown);

	if (!grown) {
		r->error = -ENOMEM;
		return;
	}
	out->marks = grown;
	out->marks[out->nr_marks++] = (struct replay_mark){ item->id, item->event.time_ns, out->total };
}

/* The guest's time goes on to `until`. */
static void guest_run(struct replay *r, uint64_t until_ns)
{
	const struct trace_log *log = r->config->log;

	for (; r->guest < log->nr_items && log->items[r->guest].event.time_ns <= until_ns; r->guest++) {
		const struct trace_item *item = &log->items[r->guest];

		switch (item->kind) {
		case TRACE_EVENT:
			guest_event(r, &item->event, r->guest);
			break;
		case TRACE_TABLE:
			sim_content(r->shadow, item->event.table, item->event.level, &log->entries[item->first], item->count);
			break;
		case TRACE_MARK:
			guest_mark(r, item);
			break;
		case TRACE_LOST:
			r->out->lost += item->count;
			break;
		}
	}
}

/* ---- the helper: struct engine_env ------------------------------------------------------------------------------------------ */

static void spend(struct replay *r, uint64_t ns)
{
	r->now_ns += ns;
	guest_run(r, r->now_ns);
}

/* The entry is there when its time is over, and by then a fault may have come. */
static enum mmu_prebuilt env_build(void *arg, gfn_t table, unsigned index, unsigned source, unsigned flags)
{
	struct replay *r = arg;
	enum mmu_prebuilt what;

	spend(r, r->config->ask_ns);
	what = sim_build(r->shadow, table, index, source, flags);
	if (what == MMU_PB_BUILT)
		spend(r, r->config->build_ns);
	return what;
}

struct walk {
	struct replay *r;
	uint64_t first, last;
	unsigned source, flags, left, built;
	unsigned tables;	/* that may still be looked at */
	bool clones;		/* only what the twin, a table of another space, shows */
};

#define WALK_TABLES	4096u

static void walk_table(struct walk *w, gfn_t table, gfn_t twin, unsigned level, uint64_t base)
{
	uint64_t span = 1ull << (MMU_PAGE_SHIFT + 9 * (level - 1)), gpte, twins = 0;

	if (!w->tables--) {
		w->tables = 0;
		return;
	}
	for (unsigned i = 0; i < MMU_ENTRIES && w->left; i++) {
		uint64_t va = base + i * span;
		enum mmu_prebuilt what;

		if (level == MMU_LEVELS && i >= MMU_ENTRIES / 2)
			va |= 0xffff000000000000ull;
		if (va + (span - 1) < w->first || va > w->last || !sim_read(w->r->shadow, table, i, &gpte) || !(gpte & MMU_PTE_P))
			continue;
		if (w->clones && (!sim_shows(w->r->shadow, twin, i) || !sim_read(w->r->shadow, twin, i, &twins)))
			continue;
		what = env_build(w->r, table, i, w->source, w->flags);
		if (level == 1 || (gpte & MMU_PTE_PS)) {
			w->built += what == MMU_PB_BUILT;
			w->left -= what == MMU_PB_BUILT;
		} else if (what == MMU_PB_BUILT || what == MMU_PB_PRESENT) {
			walk_table(w, (gfn_t){ (gpte & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT },
				   (gfn_t){ (twins & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT }, level - 1, va);
		}
	}
}

static unsigned env_build_tree(void *arg, gfn_t root, enum mmu_mode mode, gva_t first, gva_t last, unsigned source,
			       unsigned flags, unsigned budget)
{
	struct walk w = { .r = arg, .first = first.a, .last = last.a, .source = source, .flags = flags | MMU_PB_TABLES,
			  .left = budget, .tables = WALK_TABLES };

	sim_load(w.r->shadow, root);
	walk_table(&w, root, MMU_NO_GFN, MMU_LEVELS, 0);
	return w.built;
}

static unsigned env_clone(void *arg, gfn_t root, gfn_t parent, gva_t first, gva_t last, unsigned source, unsigned flags,
			  unsigned budget)
{
	struct walk w = { .r = arg, .first = first.a, .last = last.a, .source = source, .flags = flags | MMU_PB_TABLES,
			  .left = budget, .tables = WALK_TABLES, .clones = true };

	sim_load(w.r->shadow, root);
	walk_table(&w, root, parent, MMU_LEVELS, 0);
	return w.built;
}

static bool env_read_entry(void *arg, gfn_t table, unsigned index, uint64_t *gpte)
{
	struct replay *r = arg;

	return sim_read(r->shadow, table, index, gpte);
}

/* Of every entry, not of a sample. */
static void env_use(void *arg, unsigned source, struct heuristic_use *out)
{
	struct replay *r = arg;
	const struct replay_source *s = &r->out->total.sources[source];

	*out = (struct heuristic_use){ .built = s->built, .sampled = s->built, .sampled_used = s->useful,
				       .sampled_unused = s->wasted, .removed = s->wasted };
}

/* The next item that the helper would see. NULL: it has seen all. */
static const struct trace_item *next_seen(struct replay *r)
{
	const struct trace_log *log = r->config->log;

	for (; r->helper < log->nr_items; r->helper++) {
		const struct trace_item *item = &log->items[r->helper];

		if (item->kind == TRACE_EVENT)
			return item;
	}
	return NULL;
}

/*
 * How long until the helper, which has nothing to do, sees what comes. Drawn from what was counted, always in the same
 * order (xorshift64), so that the same replay stays the same.
 */
static uint64_t notice(struct replay *r)
{
	uint64_t pick;
	unsigned i = 0;

	if (!r->lags)
		return r->config->notice_ns;
	r->random ^= r->random << 13;
	r->random ^= r->random >> 7;
	r->random ^= r->random << 17;
	for (pick = r->random % r->lags; pick >= r->config->lags[i]; i++)
		pick -= r->config->lags[i];
	return (1ull << i) + (r->random >> 32) % (1ull << i);
}

static void helper_run(struct replay *r)
{
	const struct trace_item *item;

	while ((item = next_seen(r))) {
		uint64_t came = item->event.time_ns;

		/* Nothing waits: time for queued work, a slice at a time. */
		if (came > r->now_ns && engine_work(r->engine)) {
			spend(r, r->config->ask_ns);
			continue;
		}
		/* What comes while it is not looking, it sees together. */
		if (came >= r->now_ns)
			r->now_ns = came + notice(r);
		else if (r->now_ns - came > r->out->behind_ns)
			r->out->behind_ns = r->now_ns - came;
		spend(r, r->config->event_ns);
		if (!(r->avoided[r->helper / 8] >> r->helper % 8 & 1))
			engine_event(r->engine, &item->event);
		r->helper++;
	}
}

/* ---- all of it -------------------------------------------------------------------------------------------------------------------- */

int replay_run(const struct replay_config *config, struct replay_result *out)
{
	struct replay r = { .config = config, .out = out };
	struct engine_config ec = {
		.env = { .build = env_build, .build_tree = env_build_tree, .clone = env_clone,
			 .read_entry = env_read_entry, .use = env_use, .arg = &r },
		.nr_heuristics = config->nr_heuristics, .feedback = config->feedback,
	};
	int err = -ENOMEM;

	r.random = 0x9e3779b97f4a7c15ull;
	for (unsigned i = 0; i < HELPER_LAGS; i++)
		r.lags += config->lags[i];
	memset(out, 0, sizeof *out);
	memcpy(ec.heuristics, config->heuristics, sizeof ec.heuristics);
	r.shadow = sim_create(out->total.sources);
	r.avoided = calloc(1, config->log->nr_items / 8 + 1);
	if (!r.shadow || !r.avoided)
		goto out;
	if (config->nr_heuristics) {
		err = engine_create(&ec, &r.engine);
		if (err)
			goto out;
		helper_run(&r);
	}
	guest_run(&r, UINT64_MAX);
	sim_finish(r.shadow);
	for (unsigned i = 0; i < config->nr_heuristics; i++)
		engine_stats(r.engine, i, &out->heuristics[i]);
	err = r.error;
out:
	engine_destroy(r.engine);
	sim_destroy(r.shadow);
	free(r.avoided);
	if (err)
		replay_free(out);
	return err;
}

void replay_free(struct replay_result *result)
{
	free(result->marks);
	result->marks = NULL;
	result->nr_marks = 0;
}
