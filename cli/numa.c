/*
 * numa.c - `umbra numa`: where a running guest's memory and vCPUs are, and moving them.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/numa.h"

/* Moving works for half a second and then answers; but the kernel can take long over 512 pages. */
#define TIMEOUT_S	30

#define FRAME_MAX	(1ull << 40)

struct numa_options {
	const struct numa_verb *verb;	/* NULL: not named yet */
	const char *guest;		/* NULL: the only one */
	int64_t vcpu, node;		/* -1: not given */
	bool has_range;
	const char *policy;		/* NULL: not named */
	unsigned last;			/* decisions; 0: not given */
	uint64_t first, count;		/* has_range; count is not 0 */
	bool json;
};

struct numa_verb {
	const char *name;
	bool takes_policy;		/* a word, which comes before that for the guest */
	unsigned takes;			/* bit per OPT_: the options that mean something */
	int (*run)(const struct numa_options *o, struct live *l, char why[static LIVE_WHY]);
};

enum { OPT_VCPU = 256, OPT_NODE, OPT_RANGE, OPT_LAST, OPT_POLICY, OPT_JSON };

static const struct argp_option options[] = {
	{ "vcpu", OPT_VCPU, "V", 0, "move: this vCPU, to the processors of --node", 0 },
	{ "range", OPT_RANGE, "FIRST[-LAST|+COUNT]", 0, "map, move: these frames (4 KiB each) of the guest", 0 },
	{ "node", OPT_NODE, "N", 0, "move: to this node of the host", 0 },
	{ "last", OPT_LAST, "N", 0, "explain: so many decisions, the last ones (default 20)", 0 },
	{ "policy", OPT_POLICY, "NAME[,KEY=N...]", 0, "The same as 'policy NAME[,KEY=N...]'", 0 },
	{ "json", OPT_JSON, NULL, 0, "Print JSON", 0 },
	{ NULL },
};

#define WORD_LETTERS	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,=-_."

#define TAKES(key)	(1u << ((key) - OPT_VCPU))

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static int ask(struct live *l, json_t **reply, char why[static LIVE_WHY], const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static int ask(struct live *l, json_t **reply, char why[static LIVE_WHY], const char *fmt, ...)
{
	char request[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(request, sizeof request, fmt, ap);
	va_end(ap);
	return live_ask(l, request, reply, why);
}

/* Takes `reply` over. */
static int print(const struct numa_options *o, json_t *reply, void (*table)(FILE *to, const json_t *reply))
{
	if (!o->json) {
		table(stdout, reply);
	} else {
		json_object_set_new(reply, "schema", json_integer(1));
		json_dumpf(reply, stdout, JSON_INDENT(2));
		fputc('\n', stdout);
	}
	json_decref(reply);
	return 0;
}

static int run_show(const struct numa_options *o, struct live *l, char why[static LIVE_WHY])
{
	json_t *info = NULL, *describe = NULL, *show = NULL;
	int r = ask(l, &show, why, "numa show");

	if (!r && o->json)
		return print(o, show, NULL);
	if (!r)
		r = ask(l, &info, why, "info");
	if (!r)
		r = ask(l, &describe, why, "describe");
	if (!r)
		numa_print_show(stdout, info, describe, show);
	json_decref(show);
	json_decref(describe);
	json_decref(info);
	return r;
}

/* All frames of the guest, unless --range names some. */
static int range_of(const struct numa_options *o, struct live *l, uint64_t *first, uint64_t *count, char why[static LIVE_WHY])
{
	json_t *info;
	int r;

	*first = o->first;
	*count = o->count;
	if (o->has_range)
		return 0;
	r = ask(l, &info, why, "info");
	if (r)
		return r;
	*count = (uint64_t)live_number(info, "config.memory_bytes", 0) >> 21 << 9;	/* as the VMM rounds it */
	json_decref(info);
	return 0;
}

/* How many frames a reply covers, of those it was asked for; 0: it makes no sense to go on. */
static uint64_t covered(const json_t *reply, uint64_t asked)
{
	json_int_t n = json_integer_value(json_object_get(reply, "count"));

	return n > 0 && (uint64_t)n <= asked ? n : 0;
}

/* Puts `more` behind `map`: a run that goes on becomes one. */
static void join_runs(json_t *map, const json_t *more)
{
	json_t *runs = json_object_get(map, "runs"), *run, *last;
	size_t i;

	json_array_foreach(json_object_get(more, "runs"), i, run) {
		last = json_array_get(runs, json_array_size(runs) - 1);
		if (last && json_equal(json_array_get(last, 2), json_array_get(run, 2)))
			json_array_set_new(last, 1, json_integer(json_integer_value(json_array_get(last, 1)) +
								 json_integer_value(json_array_get(run, 1))));
		else
			json_array_append(runs, run);
	}
}

/* A reply covers as much as can be done in half a second, so that others are answered too: asks on. */
static int run_map(const struct numa_options *o, struct live *l, char why[static LIVE_WHY])
{
	json_t *map = json_pack("{s[]}", "runs"), *reply;
	uint64_t first, count, done = 0, some = 1;
	int r = range_of(o, l, &first, &count, why);

	while (!r && some && done < count) {
		r = ask(l, &reply, why, "numa map %" PRIu64 " %" PRIu64, first + done, count - done);
		if (r)
			break;
		some = covered(reply, count - done);
		done += some;
		join_runs(map, reply);
		json_decref(reply);
	}
	json_object_set_new(map, "first", json_integer(first));
	json_object_set_new(map, "count", json_integer(done));
	return r ? json_decref(map), r : print(o, map, numa_print_map);
}

static int move_range(const struct numa_options *o, struct live *l, char why[static LIVE_WHY])
{
	static const char *const sums[] = { "moved", "there_already", "not_allocated", "failed" };
	json_t *sum = json_object(), *reply, *error;
	uint64_t done = 0, some = 1;
	int r = 0;

	while (!r && some && done < o->count) {
		r = ask(l, &reply, why, "numa move range %" PRIu64 " %" PRIu64 " node %" PRIi64, o->first + done, o->count - done,
			o->node);
		if (r)
			break;
		some = covered(reply, o->count - done);
		done += some;
		for (unsigned i = 0; i < sizeof sums / sizeof *sums; i++)
			json_object_set_new(sum, sums[i], json_integer(live_number(sum, sums[i], 0) + live_number(reply, sums[i], 0)));
		error = json_object_get(reply, "error");
		if (error && !json_is_string(json_object_get(sum, "error")))
			json_object_set(sum, "error", error);
		json_decref(reply);
	}
	json_object_set_new(sum, "first", json_integer(o->first));
	json_object_set_new(sum, "count", json_integer(done));
	json_object_set_new(sum, "node", json_integer(o->node));
	return r ? json_decref(sum), r : print(o, sum, numa_print_move);
}

static int run_move(const struct numa_options *o, struct live *l, char why[static LIVE_WHY])
{
	json_t *reply;
	int r;

	if (o->has_range)
		return move_range(o, l, why);
	r = ask(l, &reply, why, "numa move vcpu %" PRIi64 " node %" PRIi64, o->vcpu, o->node);
	return r ? r : print(o, reply, numa_print_move);
}

static int run_explain(const struct numa_options *o, struct live *l, char why[static LIVE_WHY])
{
	json_t *reply;
	int r = o->last ? ask(l, &reply, why, "numa explain %u", o->last) : ask(l, &reply, why, "numa explain");

	return r ? r : print(o, reply, numa_print_explain);
}

static int run_policy(const struct numa_options *o, struct live *l, char why[static LIVE_WHY])
{
	json_t *reply;
	int r = ask(l, &reply, why, "numa policy %s", o->policy);

	return r ? r : print(o, reply, numa_print_policy);
}

/* ---- the command line ------------------------------------------------------------------------------------------------- */

enum { VERB_SHOW, VERB_MAP, VERB_EXPLAIN, VERB_MOVE, VERB_POLICY };

static const struct numa_verb verbs[] = {
	[VERB_SHOW] = { .name = "show", .run = run_show },
	[VERB_MAP] = { .name = "map", .run = run_map, .takes = TAKES(OPT_RANGE) },
	[VERB_EXPLAIN] = { .name = "explain", .run = run_explain, .takes = TAKES(OPT_LAST) },
	[VERB_MOVE] = { .name = "move", .run = run_move, .takes = TAKES(OPT_RANGE) | TAKES(OPT_VCPU) | TAKES(OPT_NODE) },
	[VERB_POLICY] = { .name = "policy", .run = run_policy, .takes_policy = true },
};

#define NR_VERBS	(sizeof verbs / sizeof *verbs)

/* Decimal, or 0x and hex as in 'explain'. */
static int parse_frame(const char *text, uint64_t min, uint64_t *out)
{
	unsigned long long n;
	int end = 0;

	if (text[0] != '0' || (text[1] != 'x' && text[1] != 'X'))
		return cli_parse_uint(text, min, FRAME_MAX, out);
	if (strlen(text) > 14 || !text[2] || text[2 + strspn(text + 2, "0123456789abcdefABCDEF")] ||
	    sscanf(text + 2, "%llx%n", &n, &end) != 1 || n < min || n > FRAME_MAX)
		return -EINVAL;
	*out = n;
	return 0;
}

static int parse_range(const char *text, uint64_t *first, uint64_t *count)
{
	char start[24];
	size_t n = strcspn(text, "-+");
	uint64_t end;
	int r;

	if (n >= sizeof start)
		return -EINVAL;
	memcpy(start, text, n);
	start[n] = '\0';
	r = parse_frame(start, 0, first);
	if (r || !text[n]) {
		*count = 1;
		return r;
	}
	r = parse_frame(text + n + 1, text[n] == '-' ? *first : 1, &end);
	*count = text[n] == '-' ? end - *first + 1 : end;
	return r;
}

static int bad_value(const char *option, const char *arg, const char *want)
{
	fprintf(stderr, "umbra numa: --%s=%s: %s\n", option, arg, want);
	return EINVAL;
}

static int take_word(struct numa_options *o, const char *arg)
{
	for (unsigned i = 0; !o->verb && i < NR_VERBS; i++)
		if (!strcmp(arg, verbs[i].name)) {
			o->verb = &verbs[i];
			return 0;
		}
	if (o->verb && o->verb->takes_policy && !o->policy) {
		o->policy = arg;
		return 0;
	}
	if (o->guest) {
		fprintf(stderr, "umbra numa: one guest at a time, not '%s' as well\n", arg);
		return EINVAL;
	}
	if (!o->verb && !strpbrk(arg, "/0123456789")) {
		fprintf(stderr, "umbra numa: '%s' is none of: show, map, explain, move, policy\n", arg);
		return EINVAL;
	}
	o->guest = arg;
	return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct numa_options *o = state->input;
	uint64_t n;

	switch (key) {
	case OPT_VCPU:
		if (cli_parse_uint(arg, 0, VMM_MAX_VCPUS - 1, &n))
			return bad_value("vcpu", arg, "want the number of a vCPU");
		o->vcpu = n;
		return 0;
	case OPT_NODE:
		if (cli_parse_uint(arg, 0, NUMA_MAX_NODES - 1, &n))
			return bad_value("node", arg, "want the number of a node");
		o->node = n;
		return 0;
	case OPT_RANGE:
		if (parse_range(arg, &o->first, &o->count))
			return bad_value("range", arg, "want FIRST, FIRST-LAST or FIRST+COUNT, in frames of 4 KiB");
		o->has_range = true;
		return 0;
	case OPT_LAST:
		if (cli_parse_uint(arg, 1, NUMA_LOG_KEPT, &n))
			return bad_value("last", arg, "want how many decisions, as many as are kept at most, 512");
		o->last = n;
		return 0;
	case OPT_POLICY:
		o->policy = arg;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	case ARGP_KEY_ARG:
		return take_word(o, arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static bool meaningless(const struct numa_options *o, bool given, int key, const char *name)
{
	if (!given || (o->verb->takes & TAKES(key)))
		return false;
	fprintf(stderr, "umbra numa %s: --%s means nothing here\n", o->verb->name, name);
	return true;
}

/* What belongs together. */
static bool complete(const struct numa_options *o)
{
	if (meaningless(o, o->vcpu >= 0, OPT_VCPU, "vcpu") || meaningless(o, o->has_range, OPT_RANGE, "range") ||
	    meaningless(o, o->node >= 0, OPT_NODE, "node") || meaningless(o, o->last, OPT_LAST, "last"))
		return false;
	if (o->policy && !o->verb->takes_policy) {
		fprintf(stderr, "umbra numa %s: --policy means nothing here\n", o->verb->name);
		return false;
	}
	if (o->verb->takes_policy && !o->policy) {
		fprintf(stderr, "umbra numa policy: want a policy, such as auto or migrate,interval=200; 'umbra run --numa=help' lists them\n");
		return false;
	}
	if (o->policy && (strlen(o->policy) >= NUMA_POLICY_TEXT || strspn(o->policy, WORD_LETTERS) < strlen(o->policy))) {
		fprintf(stderr, "umbra numa policy: that is no policy; 'umbra run --numa=help' lists them\n");
		return false;
	}
	if (o->verb != &verbs[VERB_MOVE] || ((o->vcpu >= 0) != o->has_range && o->node >= 0))
		return true;
	fprintf(stderr, "umbra numa move: want --node and one of --vcpu and --range\n");
	return false;
}

int cli_numa(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "[show|map|explain|move|policy NAME[,KEY=N...]] [PID|SOCKET]",
		.doc = "Which nodes of the host a running guest's memory and vCPUs are on, by the kernel's word: 'show' in numbers, "
		       "'map' frame by frame. 'explain' says what was moved and why. 'move' moves a vCPU or a range of frames while "
		       "the guest runs, 'policy' changes its policy. The guest is named by the pid of its 'umbra run' or by its control "
		       "socket; without either it is the only one that runs.\v"
		       "Exit codes: 0 done, 1 no such guest, no answer, or it cannot be done, 2 usage, or several guests to choose "
		       "from.",
	};
	struct numa_options o = { .vcpu = -1, .node = -1 };
	char why[LIVE_WHY];
	struct live l;
	int r;

	if (argp_parse(&argp, argc, argv, 0, NULL, &o))
		return VMM_EXIT_USAGE;
	if (!o.verb || (o.policy && o.verb == &verbs[VERB_MOVE]))
		o.verb = &verbs[o.policy ? VERB_POLICY : VERB_SHOW];
	if (!complete(&o))
		return VMM_EXIT_USAGE;
	r = live_open("umbra numa", o.guest, &l);
	if (r)
		return r;
	l.timeout_s = TIMEOUT_S;
	r = o.verb->run(&o, &l, why);
	if (r)
		fprintf(stderr, "umbra numa %s: %s\n", o.verb->name, why);
	if (!r && (fflush(stdout) || ferror(stdout))) {
		fprintf(stderr, "umbra numa: standard output: %s\n", strerror(errno));
		r = -EIO;
	}
	live_close(&l);
	return r ? VMM_EXIT_ERROR : VMM_EXIT_OK;
}
