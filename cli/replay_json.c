/* replay_json.c - what a replay gave, as JSON. Names carry units; nothing in it depends on time or place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/replay.h"
#include "vmm/vmm.h"

static void set(json_t *o, const char *name, uint64_t value)
{
	json_object_set_new(o, name, json_integer(value));
}

static const char *source_name(const struct replay_config *c, unsigned source)
{
	if (source == MMU_SRC_PREFETCH)
		return c->prefetch != MMU_PREFETCH_OFF ? "prefetch" : NULL;
	if (source == MMU_SRC_EAGER)
		return c->fill == MMU_FILL_EAGER ? "eager" : NULL;
	if (source >= MMU_SRC_FIRST_HEURISTIC && source - MMU_SRC_FIRST_HEURISTIC < c->nr_heuristics)
		return c->heuristics[source - MMU_SRC_FIRST_HEURISTIC].name;
	return NULL;
}

/* `to` less `from`; from may be NULL. */
static json_t *counts_json(const struct replay_config *c, const struct replay_counts *to, const struct replay_counts *from)
{
	static const struct replay_counts zero;
	json_t *o = json_object(), *list = json_array();

	from = from ? from : &zero;
	set(o, "hidden_faults_recorded", to->recorded - from->recorded);
	set(o, "hidden_faults_left", to->left - from->left);
	set(o, "left_too_weak", to->weak - from->weak);
	set(o, "left_unexplained", to->unexplained - from->unexplained);
	set(o, "waste_entries", replay_waste(to) - replay_waste(from));
	for (unsigned i = 0; i < MMU_SOURCES; i++) {
		const struct replay_source *s = &to->sources[i], *f = &from->sources[i];
		const char *name = source_name(c, i);
		json_t *e;

		if (!name)
			continue;
		e = json_object();
		json_object_set_new(e, "source", json_string(name));
		set(e, "built", s->built - f->built);
		set(e, "useful", s->useful - f->useful);
		set(e, "wasted", s->wasted - f->wasted);
		set(e, "unused", s->unused - f->unused);
		json_array_append_new(list, e);
	}
	json_object_set_new(o, "sources", list);
	return o;
}

static json_t *config_json(const struct replay_config *c)
{
	static const char *const prefetch[] = {
		[MMU_PREFETCH_OFF] = "off", [MMU_PREFETCH_KVM8] = "kvm8", [MMU_PREFETCH_XEN32] = "xen32",
		[MMU_PREFETCH_AROUND] = "around",
	};
	json_t *o = json_object(), *list = json_array(), *lags;
	char text[HEURISTIC_TEXT];

	for (unsigned i = 0; i < c->nr_heuristics; i++)
		json_array_append_new(list, json_string(heuristic_text(&c->heuristics[i], text)));
	json_object_set_new(o, "heuristics", list);
	json_object_set_new(o, "auto", json_boolean(c->feedback.on));
	json_object_set_new(o, "prefetch", json_string(prefetch[c->prefetch]));
	set(o, "prefetch_entries", c->prefetch_n);
	json_object_set_new(o, "fill", json_string(c->fill == MMU_FILL_EAGER ? "eager" : "lazy"));
#define X(name, initial, what) set(o, #name, c->name);
	REPLAY_PARAMS(X)
#undef X
	lags = json_array();
	for (unsigned i = 0; i < HELPER_LAGS; i++)
		json_array_append_new(lags, json_integer(c->lags[i]));
	json_object_set_new(o, "lag_log2_ns", lags);
	return o;
}

static json_t *engine_json(const struct replay_config *c, const struct replay_result *r)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < c->nr_heuristics; i++) {
		const struct replay_source *s = &r->total.sources[MMU_SRC_FIRST_HEURISTIC + i];
		json_t *e = json_object();

		json_object_set_new(e, "name", json_string(c->heuristics[i].name));
#define X(counter, what) set(e, #counter, r->heuristics[i].counter);
		HEURISTIC_COUNTERS(X)
#undef X
		set(e, "useful", s->useful);
		set(e, "wasted", s->wasted);
		set(e, "unused", s->unused);
		json_array_append_new(list, e);
	}
	return list;
}

static json_t *trace_json(const char *name, const struct replay_config *c, const struct replay_result *r)
{
	json_t *o = json_object(), *events = json_object(), *recorded = json_loads(c->log->config, 0, NULL);

	json_object_set_new(o, "file", json_string(name));
	set(o, "bytes", c->log->bytes);
	set(o, "lost", c->log->lost);
	set(o, "sources", c->log->nr_sources);
	for (unsigned i = 0; i < HELPER_EVENT_KINDS; i++)
		set(events, helper_event_name(i), r->events[i]);
	json_object_set_new(o, "events", events);
	json_object_set_new(o, "recorded_with", recorded ? recorded : json_null());
	return o;
}

json_t *replay_json(const char *trace, const struct replay_config *c, const struct replay_result *r)
{
	json_t *o = json_object(), *list = json_array();

	if (!o || !list)
		return NULL;
	set(o, "schema", REPLAY_SCHEMA);
	json_object_set_new(o, "umbra", json_string(vmm_version()));
	json_object_set_new(o, "trace", trace_json(trace, c, r));
	json_object_set_new(o, "config", config_json(c));
	json_object_set_new(o, "total", counts_json(c, &r->total, NULL));
	json_object_set_new(o, "heuristics", engine_json(c, r));
	set(o, "helper_behind_max_ns", r->behind_ns);
	for (unsigned i = 0; i < r->nr_marks; i++) {
		json_t *e = json_object();

		set(e, "id", r->marks[i].id);
		set(e, "time_ns", r->marks[i].time_ns);
		json_object_set_new(e, "since_previous",
				    counts_json(c, &r->marks[i].counts, i ? &r->marks[i - 1].counts : NULL));
		json_array_append_new(list, e);
	}
	json_object_set_new(o, "marks", list);
	return o;
}

int replay_write(const char *path, json_t *root)
{
	bool out = !strcmp(path, "-");
	FILE *f = out ? stdout : fopen(path, "we");
	int r = f ? 0 : -errno;

	errno = 0;
	if (f && (json_dumpf(root, f, JSON_INDENT(2)) || fputc('\n', f) == EOF || fflush(f)))
		r = errno ? -errno : -EIO;
	if (f && !out && fclose(f) && !r)
		r = -errno;
	json_decref(root);
	return r;
}
