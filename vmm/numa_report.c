/*
 * numa_report.c - what the NUMA manager has done and why, for reports and the control socket.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/stats.h"

#define TEXT	320u

/* Host node number of a place; -1: none. */
static int node_of(const struct vm *vm, unsigned place)
{
	return place < vm->nr_places ? vm->place[place] : -1;
}

static json_t *known(int64_t n)
{
	return n < 0 ? json_null() : json_integer(n);
}

static json_t *parameters(const struct numa_config *c)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < NUMA_NR_PARAMS; i++) {
		const struct numa_param *p = numa_policy_param(c, i);

		if (p)
			json_object_set_new(o, p->name, json_integer(c->value[i]));
	}
	return o;
}

/* Not how often something happened, but how much of it there is: no rate of it makes sense. */
static bool is_level(const char *name)
{
	return !strcmp(name, "away") || !strcmp(name, "copies") || !strcmp(name, "pending");
}

json_t *numa_manager_json(const struct vm *vm)
{
	json_t *o, *now;
	struct numa_config c;
	struct numa_stats s;

	if (!vm->numa)
		return json_null();
	numa_manager_stats(vm->numa, &s);
	numa_manager_config(vm->numa, &c);
	o = json_object();
	now = json_object();
#define X(name, what) json_object_set_new(is_level(#name) ? now : o, #name, json_integer(s.name));
	NUMA_COUNTERS(X)
#undef X
	json_object_set_new(now, "recent_local_share", s.recent ? json_real((double)s.recent_local / s.recent) : json_null());
	json_object_set_new(now, "resting", json_boolean(s.resting));
	json_object_set_new(o, "now", now);
	json_object_set_new(o, "parameters", parameters(&c));
	return o;
}

void numa_manager_describe(json_t *to)
{
#define X(name, what) if (!is_level(#name)) json_object_set_new(to, #name, json_string(what));
	NUMA_COUNTERS(X)
#undef X
}

/* Samples, or uses per second, by the host's node numbers. */
static json_t *evidence_json(const struct vm *vm, const struct numa_decision *d, bool uses)
{
	json_t *o = json_object();
	char name[16];

	for (unsigned i = 0; i < vm->nr_places; i++) {
		snprintf(name, sizeof name, "%d", node_of(vm, i));
		json_object_set_new(o, name, uses ? json_real(d->uses[i]) : json_integer(d->samples[i]));
	}
	return o;
}

static json_t *nodes_json(const struct vm *vm, uint8_t mask)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < vm->nr_places; i++)
		if (mask >> i & 1)
			json_array_append_new(list, json_integer(vm->place[i]));
	return list;
}

static json_t *decision_json(const struct vm *vm, const struct numa_decision *d)
{
	char text[TEXT];
	json_t *o;

	numa_decision_text(d, vm->place, text, sizeof text);
	o = json_pack("{sI sI ss ss sI sI sI so so so so so so}", "id", (json_int_t)d->id, "at_ns", (json_int_t)d->time_ns, "act",
		      numa_act_names[d->act], "reason", numa_reason_names[d->reason], "first", (json_int_t)d->first, "last",
		      (json_int_t)d->last, "frames", (json_int_t)d->frames, "from", known(node_of(vm, d->from)), "to",
		      known(node_of(vm, d->to)), "copies_on", nodes_json(vm, d->mask), "written_from", nodes_json(vm, d->writers),
		      "samples", evidence_json(vm, d, false), "uses_per_s", evidence_json(vm, d, true));
	json_object_update_new(o, json_pack("{sI sI sI so ss s[II] s[II] ss}", "expected_gain_ns", (json_int_t)d->gain_ns, "cost_ns",
		      (json_int_t)d->cost_ns, "done", (json_int_t)d->done, "error",
		      d->error ? json_string(strerror(-d->error)) : json_null(), "outcome", numa_outcome_names[d->outcome],
		      "before_samples_distance", (json_int_t)d->before[0], (json_int_t)d->before[1], "after_samples_distance",
		      (json_int_t)d->after[0], (json_int_t)d->after[1], "text", text));
	return o;
}

json_t *numa_decisions_json(const struct vm *vm, unsigned max)
{
	struct numa_decision *list;
	unsigned n;
	json_t *o;

	if (!vm->numa)
		return json_array();
	list = calloc(max ? max : 1, sizeof *list);
	if (!list)
		return NULL;
	n = numa_manager_log(vm->numa, list, max);
	o = json_array();
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(o, decision_json(vm, &list[i]));
	free(list);
	return o;
}
