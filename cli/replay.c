/* replay.c - `umbra replay`: a recorded trace against heuristics, without a guest. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/replay.h"
#include "vmm/vmm.h"

enum { OPT_HEURISTIC = 256, OPT_JSON, OPT_PREFETCH, OPT_FILL, OPT_MODEL, OPT_LAG };

/* ---- the model ---------------------------------------------------------------------------------------------------------- */

static const struct argp_option model_options[] = {
	{ "model", OPT_MODEL, "KEY=N[,...]", 0, "Times of the helper thread in ns: notice_ns (from an event until it is seen), event_ns, "
	  "ask_ns, build_ns (its work per event, vain request, entry built)", 2 },
	{ "lag", OPT_LAG, "FILE", 0, "In place of notice_ns: how late the helper thread was in a run, from its --stats=FILE", 2 },
	{ "prefetch", OPT_PREFETCH, "HOW", 0, "At a fault also build, as umbra run does: off (default), kvm8, xen32, N", 2 },
	{ "fill", OPT_FILL, "HOW", 0, "lazy (default) or eager, as umbra run does", 2 },
	{ NULL },
};

__attribute__((format(printf, 4, 5)))
static error_t bad_value(const struct argp_state *state, const char *option, const char *value, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: --%s=%s: ", state->name, option, value);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EINVAL;
}

static error_t parse_model(const struct argp_state *state, const char *arg, struct replay_config *c)
{
	static const struct { const char *name; size_t at; } params[] = {
#define X(name, initial, what) { #name, offsetof(struct replay_config, name) },
		REPLAY_PARAMS(X)
#undef X
	};
	char copy[256], *save, *word;

	if (strlen(arg) >= sizeof copy)
		return bad_value(state, "model", arg, "too long");
	strcpy(copy, arg);
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(word, '=');
		uint64_t n;
		unsigned i = 0;

		if (eq)
			*eq++ = '\0';
		while (i < sizeof params / sizeof *params && strcmp(word, params[i].name))
			i++;
		if (i == sizeof params / sizeof *params)
			return bad_value(state, "model", arg, "'%s' is none of notice_ns, event_ns, ask_ns, build_ns", word);
		if (!eq || cli_parse_uint(eq, 0, 1000000000, &n))
			return bad_value(state, "model", arg, "%s: a number of ns up to 1000000000 is needed", word);
		*(uint64_t *)((char *)c + params[i].at) = n;
	}
	return 0;
}

static error_t parse_lag(const struct argp_state *state, const char *arg, struct replay_config *c)
{
	json_error_t why;
	json_t *root = json_load_file(arg, 0, &why);
	const json_t *list = json_object_get(json_object_get(root, "helper"), "lag_log2_ns"), *n;
	uint64_t sum = 0;
	size_t i;

	memset(c->lags, 0, sizeof c->lags);
	json_array_foreach(list, i, n)
		if (i < HELPER_LAGS && json_integer_value(n) > 0 && json_integer_value(n) < 1ll << 40)
			sum += c->lags[i] = json_integer_value(n);
	json_decref(root);
	c->lag_file = arg;
	if (!root)
		return bad_value(state, "lag", arg, "%s", why.text);
	if (!sum)
		return bad_value(state, "lag", arg, "no helper thread ran: helper.lag_log2_ns of 'umbra run --helper=on --stats=FILE' is needed");
	return 0;
}

static error_t parse_model_option(int key, char *arg, struct argp_state *state)
{
	static const struct cli_choice prefetch[] = {
		{ "off", MMU_PREFETCH_OFF }, { "kvm8", MMU_PREFETCH_KVM8 }, { "xen32", MMU_PREFETCH_XEN32 }, { NULL },
	};
	static const struct cli_choice fill[] = { { "lazy", MMU_FILL_LAZY }, { "eager", MMU_FILL_EAGER }, { NULL } };
	struct replay_config *c = state->input;
	uint64_t n;
	int choice;

	switch (key) {
	case OPT_MODEL:
		return parse_model(state, arg, c);
	case OPT_LAG:
		return parse_lag(state, arg, c);
	case OPT_PREFETCH:
		if (!cli_parse_choice(arg, prefetch, &choice)) {
			c->prefetch = choice;
			return 0;
		}
		if (cli_parse_uint(arg, 1, MMU_ENTRIES - 1, &n))
			return bad_value(state, "prefetch", arg, "not one of: off, kvm8, xen32, a number from 1 to %u", MMU_ENTRIES - 1);
		c->prefetch = MMU_PREFETCH_AROUND;
		c->prefetch_n = n;
		return 0;
	case OPT_FILL:
		if (cli_parse_choice(arg, fill, &choice))
			return bad_value(state, "fill", arg, "not one of: lazy, eager");
		c->fill = choice;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp replay_model_argp = { .options = model_options, .parser = parse_model_option };

/* ---- words ------------------------------------------------------------------------------------------------------------------ */

void replay_warn(const char *command, const char *trace, const struct trace_log *log, FILE *to)
{
	json_t *root = json_loads(log->config, 0, NULL), *config = json_object_get(root, "config");
	const char *fill = json_string_value(json_object_get(config, "fill"));
	const char *prefetch = json_string_value(json_object_get(config, "prefetch"));
	const json_t *helper = json_object_get(config, "helper");
	bool helped = json_is_true(helper) || (json_is_string(helper) && strcmp(json_string_value(helper), "off"));

	if (helped || (fill && strcmp(fill, "lazy")) || (prefetch && strcmp(prefetch, "off")))
		fprintf(to, "%s: %s was recorded while something prebuilt entries, and the use of those is not in it: record with "
			"--helper=off --fill=lazy --prefetch=off\n", command, trace);
	if (log->lost)
		fprintf(to, "%s: %s has lost %" PRIu64 " records: counts are too low\n", command, trace, log->lost);
	json_decref(root);
}

static void print_counts(const char *what, const struct replay_counts *to, const struct replay_counts *from, FILE *f)
{
	uint64_t recorded = to->recorded - from->recorded, left = to->left - from->left;

	fprintf(f, "%-18s %10" PRIu64 " %10" PRIu64 " %7.1f%% %10" PRIu64 " %12" PRIu64 " %10" PRIu64 "\n", what, recorded, left,
		recorded ? 100.0 * left / recorded : 0, to->weak - from->weak, to->unexplained - from->unexplained,
		replay_waste(to) - replay_waste(from));
}

void replay_print(const char *trace, const struct replay_config *c, const struct replay_result *r, FILE *f)
{
	static const struct replay_counts zero;
	const struct replay_counts *before = &zero;
	char text[HEURISTIC_TEXT];

	fprintf(f, "%s\n\n%-18s %10s %10s %8s %10s %12s %10s\n", trace, "hidden faults", "recorded", "left", "", "too weak", "unexplained",
		"waste");
	for (unsigned i = 0; i < r->nr_marks; before = &r->marks[i++].counts) {
		snprintf(text, sizeof text, "until mark %u", r->marks[i].id);
		print_counts(text, &r->marks[i].counts, before, f);
	}
	print_counts("all", &r->total, &zero, f);
	if (!c->nr_heuristics)
		return;
	fprintf(f, "\n%-18s %8s %8s %8s %7s %7s %7s %8s %8s %8s %8s\n", "heuristic", "issued", "built", "useful", "late", "wasted",
		"unused", "present", "nowhere", "nothing", "dropped");
	for (unsigned i = 0; i < c->nr_heuristics; i++) {
		const struct heuristic_stats *s = &r->heuristics[i];
		const struct replay_source *n = &r->total.sources[MMU_SRC_FIRST_HEURISTIC + i];

		fprintf(f, "%-18s %8" PRIu64 " %8" PRIu64 " %8" PRIu64 " %7" PRIu64 " %7" PRIu64 " %7" PRIu64 " %8" PRIu64 " %8" PRIu64
			" %8" PRIu64 " %8" PRIu64 "\n", c->heuristics[i].name, s->issued, s->built, n->useful, s->late, n->wasted,
			n->unused, s->present, s->nowhere, s->nothing, s->dropped);
	}
}

/* ---- the command -------------------------------------------------------------------------------------------------------------- */

struct request {
	struct replay_config config;
	const char *trace, *json;
};

static const struct argp_option options[] = {
	{ "heuristic", OPT_HEURISTIC, "NAME[,KEY=N...]", 0, "What the helper thread prebuilds; repeatable; auto lets their results decide; "
	  "help lists them (default none)", 1 },
	{ "json", OPT_JSON, "FILE", 0, "Write the result as JSON, '-': to stdout in place of the table", 1 },
	{ NULL },
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct request *q = state->input;
	struct replay_config *c = &q->config;
	char why[128];

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = c;
		return 0;
	case OPT_HEURISTIC:
		if (!strcmp(arg, "help")) {
			heuristic_help(stdout);
			exit(0);
		}
		if (c->nr_heuristics == HELPER_MAX_HEURISTICS)
			return bad_value(state, "heuristic", arg, "more than %u", HELPER_MAX_HEURISTICS);
		if (heuristic_parse(arg, &c->heuristics[c->nr_heuristics], why, sizeof why))
			return bad_value(state, "heuristic", arg, "%s", why);
		c->nr_heuristics++;
		return 0;
	case OPT_JSON:
		q->json = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (q->trace) {
			fprintf(stderr, "umbra replay: one trace at a time: '%s' is too many ('umbra sweep' takes several)\n", arg);
			return EINVAL;
		}
		q->trace = arg;
		return 0;
	case ARGP_KEY_END:
		if (q->trace)
			return 0;
		fputs("umbra replay: a trace is needed: 'umbra run --trace=FILE ...' records one\n", stderr);
		return EINVAL;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int cli_replay(int argc, char **argv)
{
	static const struct argp_child children[] = { { &replay_model_argp, 0, "The model:", 2 }, { NULL } };
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "TRACE",
		.doc = "Runs heuristics on a recorded trace, with a simulated shadow in place of a guest: how many hidden faults would be "
		       "left, and what became of what each heuristic asked for. The same trace and options give the same result.",
		.children = children,
	};
	struct request q = { 0 };
	struct replay_result result;
	struct trace_log log = { 0 };
	char why[256];
	int r;

	replay_config_init(&q.config, &log);
	if (argp_parse(&argp, argc, argv, 0, NULL, &q))
		return VMM_EXIT_USAGE;
	if (q.config.nr_heuristics)
		q.config.nr_heuristics = heuristics_resolve(q.config.heuristics, q.config.nr_heuristics, &q.config.feedback);
	if (trace_load(q.trace, &log, why, sizeof why)) {
		fprintf(stderr, "umbra replay: %s: %s\n", q.trace, why);
		return VMM_EXIT_ERROR;
	}
	replay_warn("umbra replay", q.trace, &log, stderr);
	r = replay_run(&q.config, &result);
	if (r) {
		fprintf(stderr, "umbra replay: %s\n", strerror(-r));
		trace_free(&log);
		return VMM_EXIT_ERROR;
	}
	if (!q.json || strcmp(q.json, "-"))
		replay_print(q.trace, &q.config, &result, stdout);
	if (q.json) {
		r = replay_write(q.json, replay_json(q.trace, &q.config, &result));
		if (r)
			fprintf(stderr, "umbra replay: --json=%s: %s\n", q.json, strerror(-r));
	}
	replay_free(&result);
	trace_free(&log);
	return r ? VMM_EXIT_ERROR : VMM_EXIT_OK;
}
