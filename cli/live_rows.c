/*
 * live_rows.c - the counters of a `stats` reply as one list of rows, so that whatever shows them need not know them.
 */
#include <stdio.h>
#include <string.h>

#include "cli/live.h"

static const struct {
	const char *title;
	bool adds_up;
} groups[LIVE_GROUPS] = {
	[LIVE_FAULTS] = { "faults", true },
	[LIVE_PREBUILDS] = { "prebuilds", false },
	[LIVE_EXITS] = { "exits", true },
	[LIVE_HYPERCALLS] = { "hypercalls", true },
	[LIVE_INVM] = { "in-VM calls", true },
	[LIVE_EMULATED] = { "emulated", true },
	[LIVE_VCPU] = { "vCPU", false },
	[LIVE_MMU] = { "shadow MMU", false },
	[LIVE_NUMA] = { "NUMA manager", false },
	[LIVE_OTHER] = { "other", false },
};

/* Counters that are shown under another name and group than their place suggests. */
static const struct {
	const char *where, *name;
	enum live_group group;
} renamed[] = {
	{ "mmu.hidden", "hidden", LIVE_FAULTS },
	{ "mmu.true_faults", "true", LIVE_FAULTS },
	{ "total.invm_faults", "true, in VM", LIVE_FAULTS },
	{ "mmu.pt_write", "PT-write", LIVE_FAULTS },
	{ "mmu.spurious", "spurious", LIVE_FAULTS },
	{ "mmu.bad", "bad", LIVE_FAULTS },
	{ "mmu.again", "again", LIVE_FAULTS },
	{ "mmu.prefetched", "prefetched", LIVE_PREBUILDS },
	{ "mmu.eager", "eager", LIVE_PREBUILDS },
	{ "mmu.prebuilt", "by the helper", LIVE_PREBUILDS },
	{ "mmu.prebuilt_removed", "removed again", LIVE_PREBUILDS },
};

/* Where counters are. A later line is for what no earlier one covers. */
static const struct {
	const char *where;
	enum live_group group;
} places[] = {
	{ "total.exits", LIVE_EXITS },
	{ "total.hypercalls", LIVE_HYPERCALLS },
	{ "total.invm_hypercalls", LIVE_INVM },
	{ "total.emulated", LIVE_EMULATED },
	{ "total", LIVE_VCPU },
	{ "mmu", LIVE_MMU },
	{ "numa.manager", LIVE_NUMA },
};

const char *live_group_title(enum live_group group)
{
	return groups[group].title;
}

bool live_group_adds_up(enum live_group group)
{
	return groups[group].adds_up;
}

const json_t *live_at(const json_t *o, const char *where)
{
	char name[64];
	size_t n;

	for (; o && *where; where += n + (where[n] == '.')) {
		n = strcspn(where, ".");
		snprintf(name, sizeof name, "%.*s", (int)n, where);
		o = json_object_get(o, name);
	}
	return json_is_null(o) ? NULL : o;
}

double live_number(const json_t *o, const char *where, double otherwise)
{
	const json_t *v = live_at(o, where);

	return json_is_number(v) ? json_number_value(v) : otherwise;
}

const char *live_text(const json_t *o, const char *where, const char *otherwise)
{
	const json_t *v = live_at(o, where);

	return json_is_string(v) ? json_string_value(v) : otherwise;
}

/* NULL: no room. */
static struct live_row *add(struct live_rows *rows, enum live_group group, const char *name, const char *what, uint64_t value)
{
	struct live_row *r = &rows->row[rows->n];

	if (rows->n == LIVE_ROWS_MAX)
		return NULL;
	rows->n++;
	r->group = group;
	r->detail = false;
	r->what = what;
	r->value = value;
	snprintf(r->name, sizeof r->name, "%s", name);
	for (char *p = r->name; *p; p++)	/* the other end may be anything */
		if (*p < ' ' || *p > '~')
			*p = '?';
	return r;
}

/* Times and levels are no counters; a group's sum is made anew. */
static bool is_counter(const char *name)
{
	size_t n = strlen(name);

	return strcmp(name, "total") && strcmp(name, "id") && !(n > 3 && !strcmp(name + n - 3, "_ns")) &&
	       !(n > 7 && !strcmp(name + n - 7, "_cycles"));
}

static void add_counter(struct live_rows *rows, const char *place, enum live_group group, const char *name,
			const char *what, uint64_t value)
{
	char where[96];

	snprintf(where, sizeof where, "%s.%s", place, name);
	for (unsigned i = 0; i < sizeof renamed / sizeof *renamed; i++)
		if (!strcmp(renamed[i].where, where)) {
			add(rows, renamed[i].group, renamed[i].name, what, value);
			return;
		}
	add(rows, group, name, what, value);
}

static void take_place(struct live_rows *rows, const char *place, enum live_group group, const json_t *stats,
		       const json_t *describe)
{
	const json_t *o = live_at(stats, place), *texts = live_at(describe, place), *value;
	const char *name;

	json_object_foreach((json_t *)o, name, value)
		if (json_is_integer(value) && is_counter(name))
			add_counter(rows, place, group, name, live_text(texts, name, ""), json_integer_value(value));
}

/* What becomes of a heuristic's entries. Whether they are used is known of the sampled ones only. */
static const struct {
	const char *key, *name, *what;
} outcomes[] = {
	{ "built", "built", "entries installed" },
	{ "late", "late", "the fault came before the entry" },
	{ "sampled_used", "useful (sampled)", "of those it can be seen of: used" },
	{ "sampled_unused", "wasted (sampled)", "of those it can be seen of: removed unused" },
};

static void add_outcome(struct live_rows *rows, const char *heuristic, const char *key, uint64_t value)
{
	const char *name = key, *what = "";
	struct live_row *r;
	char text[LIVE_NAME];
	bool main = false;

	for (unsigned i = 0; !main && i < sizeof outcomes / sizeof *outcomes; i++) {
		main = !strcmp(outcomes[i].key, key);
		if (main) {
			name = outcomes[i].name;
			what = outcomes[i].what;
		}
	}
	snprintf(text, sizeof text, "%.20s %.24s", heuristic, name);
	r = add(rows, LIVE_PREBUILDS, text, what, value);
	if (r)
		r->detail = !main;
}

/* One heuristic; what its objects count, too, unless under a name that it has itself. */
static void take_heuristic(struct live_rows *rows, const json_t *h)
{
	const char *name = live_text(h, "name", "?"), *key, *inner_key;
	const json_t *value, *inner;

	json_object_foreach((json_t *)h, key, value) {
		if (json_is_integer(value) && is_counter(key))
			add_outcome(rows, name, key, json_integer_value(value));
		json_object_foreach((json_t *)value, inner_key, inner)
			if (json_is_integer(inner) && is_counter(inner_key) && !json_object_get(h, inner_key))
				add_outcome(rows, name, inner_key, json_integer_value(inner));
	}
}

static bool known_place(const char *where)
{
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
		if (!strcmp(places[i].where, where))
			return true;
	return !strcmp(where, "mmu.usage");
}

/* The counters of the object at `where`, "NAME COUNTER" each, NAME being the last part of `where`. */
static void take_object(struct live_rows *rows, const char *where, const json_t *stats)
{
	const char *dot = strrchr(where, '.'), *counter;
	const json_t *o = live_at(stats, where), *value;
	char name[LIVE_NAME];

	json_object_foreach((json_t *)o, counter, value) {
		if (!json_is_integer(value) || !is_counter(counter))
			continue;
		snprintf(name, sizeof name, "%.20s %.24s", dot ? dot + 1 : where, counter);
		add(rows, LIVE_OTHER, name, "", json_integer_value(value));
	}
}

/* Objects inside `place` that the table above does not know. */
static void take_others(struct live_rows *rows, const char *place, const json_t *stats)
{
	const json_t *o = live_at(stats, place), *inner;
	char where[96];
	const char *key;

	json_object_foreach((json_t *)o, key, inner) {
		snprintf(where, sizeof where, "%s.%s", place, key);
		if (!known_place(where))
			take_object(rows, where, stats);
	}
}

void live_rows_take(struct live_rows *rows, const json_t *stats, const json_t *describe)
{
	const json_t *heuristics = live_at(stats, "helper.heuristics");

	rows->n = 0;
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
		take_place(rows, places[i].where, places[i].group, stats, describe);
	for (size_t i = 0; i < json_array_size(heuristics); i++)
		take_heuristic(rows, json_array_get(heuristics, i));
	take_others(rows, "total", stats);
	take_others(rows, "mmu", stats);
	take_object(rows, "ept", stats);
	take_object(rows, "kvm", stats);
}

const struct live_row *live_rows_find(const struct live_rows *rows, enum live_group group, const char *name)
{
	for (unsigned i = 0; i < rows->n; i++)
		if (rows->row[i].group == group && !strcmp(rows->row[i].name, name))
			return &rows->row[i];
	return NULL;
}
