/* stats_helper.c - the helper thread's configuration and counters as JSON. */
#include <jansson.h>
#include <math.h>

#include "vmm/stats.h"

/* All that can fail here is memory; then NULL. */
static json_t *take(json_t *o, const char *key, json_t *value)
{
	if (!json_object_set_new(o, key, value))
		return o;
	json_decref(o);
	return NULL;
}

static json_t *take_u64(json_t *o, const char *key, uint64_t n)
{
	return take(o, key, json_integer(n));
}

static json_t *append(json_t *list, json_t *value)
{
	if (!json_array_append_new(list, value))
		return list;
	json_decref(list);
	return NULL;
}

const char *stats_helper_word(enum vmm_helper helper)
{
	static const char *const words[] = { [VMM_HELPER_OFF] = "off", [VMM_HELPER_ON] = "on", [VMM_HELPER_AUTO] = "auto" };

	return words[helper];
}

json_t *stats_helper_config(const struct vmm_config *c)
{
	json_t *list = json_array(), *cpus = json_array(), *o = json_object();

	for (unsigned i = 0; i < c->nr_heuristics; i++) {
		json_t *e = take(json_object(), "name", json_string(c->heuristics[i].name));

		for (unsigned k = 0; heuristic_param_name(&c->heuristics[i], k); k++)
			e = take_u64(e, heuristic_param_name(&c->heuristics[i], k), c->heuristics[i].value[k]);
		list = append(list, e);
	}
	for (unsigned i = 0; i < c->nr_helper_cpus; i++)
		cpus = append(cpus, json_integer(c->helper_cpus[i]));
	o = take(o, "heuristics", list);
	o = take(o, "cpus", cpus);
	o = take(o, "auto", json_boolean(c->feedback.on));
	o = take_u64(o, "auto_raise_percent", c->feedback.raise);
	o = take_u64(o, "auto_lower_percent", c->feedback.lower);
	o = take_u64(o, "test_queue", c->helper_queue);
	return take_u64(o, "test_delay_us", c->helper_delay_us);
}

/* The share of the sample that was used, and the half width of its 95 % interval (normal approximation). null: no sample. */
static json_t *use_json(const struct heuristic_use *u)
{
	uint64_t n = u->sampled_used + u->sampled_unused;
	double p = n ? (double)u->sampled_used / n : 0;
	json_t *o = json_object();

	o = take_u64(o, "built", u->built);
	o = take_u64(o, "sampled", u->sampled);
	o = take_u64(o, "sampled_used", u->sampled_used);
	o = take_u64(o, "sampled_unused", u->sampled_unused);
	o = take_u64(o, "sampled_late", u->sampled_late);
	o = take_u64(o, "removed", u->removed);
	o = take(o, "useful_share", n ? json_real(p) : json_null());
	return take(o, "useful_share_error", n ? json_real(1.96 * sqrt(p * (1 - p) / n)) : json_null());
}

static json_t *heuristic_json(const char *name, const struct heuristic_stats *s, const struct heuristic_use *u)
{
	json_t *o = take(json_object(), "name", json_string(name));

#define X(counter, what) o = take_u64(o, #counter, s->counter);
	HEURISTIC_COUNTERS(X)
#undef X
	return take(o, "use", use_json(u));
}

static json_t *decisions_json(const struct vmm_config *c, const struct helper_stats *h)
{
	json_t *list = json_array();
	char line[256];

	for (unsigned i = 0; i < h->nr_decisions; i++) {
		heuristic_decision_text(&h->decisions[i], c->heuristics[h->decisions[i].place].name, line, sizeof line);
		list = append(list, json_string(line));
	}
	return list;
}

json_t *stats_helper_json(struct vm *vm)
{
	const struct helper_stats *h = &vm->helper_stats;
	const struct vmm_config *c = vm->config;
	json_t *o = json_object(), *events = json_object(), *list = json_array(), *lags = json_array();
	struct helper_stats live;

	if (vm->helper) {
		helper_stats(vm->helper, &live);
		h = &live;
	}
	for (unsigned i = 0; i < HELPER_EVENT_KINDS; i++)
		events = take_u64(events, helper_event_name(i), h->events[i]);
	for (unsigned i = 0; i < c->nr_heuristics; i++)
		list = append(list, heuristic_json(c->heuristics[i].name, &h->heuristics[i], &h->use[i]));
	o = take(o, "events", events);
	o = take_u64(o, "lost", h->lost);
	for (unsigned i = 0; i < HELPER_LAGS; i++)
		lags = append(lags, json_integer(__atomic_load_n(&vm->helper_lag[i], __ATOMIC_RELAXED)));
	o = take(o, "lag_log2_ns", lags);
	o = take_u64(o, "sleeps", h->sleeps);
	o = take_u64(o, "cpu_ns", h->cpu_ns);
	o = take_u64(o, "stood_down", h->stood_down);
	o = take_u64(o, "stood_down_ns", h->stood_down_ns);
	o = take(o, "heuristics", list);
	return take(o, "decisions", decisions_json(c, h));
}
