/*
 * top.c - `umbra top`: a live view of a running guest. Its keys are kvm_stat's where both have one.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/top.h"

#define INTERVAL_MIN	0.1
#define INTERVAL_MAX	3600

struct top {
	const char *guest;		/* NULL: the only one */
	bool once;
	double interval;		/* s */
	struct live live;
	json_t *describe;
	pid_t pid;
	struct top_view view;
	char pattern[64];		/* of the filter */
	struct top_sample sample[3];	/* base, before, now: indices below */
	unsigned base, before, now;
	bool has_base;
	char note[96];			/* shown until the next key */
};

static const struct argp_option options[] = {
	{ "once", '1', NULL, 0, "Print what happens in one interval, then leave", 0 },
	{ "interval", 's', "SECONDS", 0, "Time between updates, 0.1 to 3600 (default 1)", 0 },
	{ "details", 'x', NULL, 0, "All groups of counters", 0 },
	{ "filter", 'f', "REGEX", 0, "Only counters whose group and name match", 0 },
	{ NULL },
};

static const char help_text[] =
	"  c    clear filter\n"
	"  f    filter by regular expression, held against 'GROUP NAME'\n"
	"  g p  pick a guest by pid\n"
	"  h ?  this list\n"
	"  o    order by total, or by rate\n"
	"  q    leave\n"
	"  r    totals count from now on\n"
	"  s    set the time between updates\n"
	"  x    all groups of counters, or faults, prebuilds and exits only\n"
	"  any other key updates at once\n";

static bool set_filter(struct top *t, const char *pattern)
{
	regex_t compiled;

	if (regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB))
		return false;
	if (t->view.filtered)
		regfree(&t->view.filter);
	t->view.filter = compiled;
	t->view.filtered = true;
	snprintf(t->pattern, sizeof t->pattern, "%s", pattern);
	return true;
}

static void clear_filter(struct top *t)
{
	if (t->view.filtered)
		regfree(&t->view.filter);
	t->view.filtered = false;
	*t->pattern = 0;
}

static bool set_interval(struct top *t, const char *text)
{
	double s;

	if (cli_parse_time(text, &s) || s < INTERVAL_MIN || s > INTERVAL_MAX)
		return false;
	t->interval = s;
	return true;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct top *t = state->input;

	switch (key) {
	case '1':
		t->once = true;
		return 0;
	case 's':
		if (set_interval(t, arg))
			return 0;
		fprintf(stderr, "umbra top: --interval=%s: a time from 0.1 s to 3600 s is needed\n", arg);
		return EINVAL;
	case 'x':
		t->view.details = true;
		return 0;
	case 'f':
		if (set_filter(t, arg))
			return 0;
		fprintf(stderr, "umbra top: --filter=%s: not a POSIX extended regular expression\n", arg);
		return EINVAL;
	case ARGP_KEY_ARG:
		if (t->guest) {
			fprintf(stderr, "umbra top: one guest at a time, not '%s' as well\n", arg);
			return EINVAL;
		}
		t->guest = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ---- samples -------------------------------------------------------------------------------------------------------- */

static void forget(struct top *t)
{
	for (unsigned i = 0; i < 3; i++) {
		json_decref(t->sample[i].stats);
		t->sample[i].stats = NULL;
	}
	t->has_base = false;
}

/* The next sample goes where neither the base nor the last one is. */
static int take_sample(struct top *t, char why[static LIVE_WHY])
{
	unsigned i = 0;
	struct top_sample *s;
	json_t *stats;
	int r;

	r = live_ask(&t->live, "stats", &stats, why);
	if (r)
		return r;
	while (i == t->now || (t->has_base && i == t->base))
		i++;
	s = &t->sample[i];
	json_decref(s->stats);
	s->stats = stats;
	s->ns = live_number(stats, "uptime_ns", 0);
	live_rows_take(&s->rows, stats, t->describe);
	t->before = t->now;
	t->now = i;
	return 0;
}

/* From a new connection to its first sample. */
static int begin(struct top *t, char why[static LIVE_WHY])
{
	json_t *info;
	int r = live_ask(&t->live, "info", &info, why);

	if (r)
		return r;
	t->pid = live_number(info, "pid", 0);
	json_decref(info);
	json_decref(t->describe);
	t->describe = NULL;
	r = live_ask(&t->live, "describe", &t->describe, why);
	if (r)
		return r;
	forget(t);
	r = take_sample(t, why);
	t->before = t->now;
	return r;
}

/* The last sample becomes the base, that of the next interval as well. */
static void reset(struct top *t)
{
	t->base = t->before = t->now;
	t->has_base = true;
}

/* ---- showing -------------------------------------------------------------------------------------------------------- */

static void show(struct top *t)
{
	const struct top_sample *now = &t->sample[t->now];
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return;
	live_print_title(f, now->stats, t->pid);
	fputc('\n', f);
	top_print(f, &t->view, t->has_base ? &t->sample[t->base] : NULL, &t->sample[t->before], now);
	if (t->view.filtered)
		fprintf(f, "filter: %s\n", t->pattern);
	if (*t->note)
		fprintf(f, "\n%s\n", t->note);
	if (!screen_can_draw() && !t->once)
		fputc('\n', f);
	if (!fclose(f))
		screen_show(text);
	free(text);
}

/* ---- keys ----------------------------------------------------------------------------------------------------------- */

static void change_filter(struct top *t)
{
	char text[sizeof t->pattern];

	if (screen_ask("filter (regular expression):", text, sizeof text) && *text && !set_filter(t, text))
		snprintf(t->note, sizeof t->note, "not a POSIX extended regular expression");
}

static void change_interval(struct top *t)
{
	char text[16];

	if (screen_ask("seconds between updates (0.1 to 3600):", text, sizeof text) && *text && !set_interval(t, text))
		snprintf(t->note, sizeof t->note, "from 0.1 to 3600 seconds");
}

static void change_guest(struct top *t)
{
	struct vmm_socket found[64];
	unsigned n = vmm_control_find(found, 64), i = 0;
	char text[16], why[LIVE_WHY], question[160] = "pid of the guest (";
	size_t len = strlen(question);
	struct live other;

	for (; i < n && len < sizeof question - 20; i++)
		len += snprintf(question + len, sizeof question - len, "%s%d", i ? " " : "", found[i].pid);
	snprintf(question + len, sizeof question - len, "%s):", i < n ? " ..." : "");
	if (!screen_ask(question, text, sizeof text) || !*text)
		return;
	for (i = 0; i < n && found[i].pid != atoi(text); i++)
		;
	other.fd = i < n ? vmm_control_connect(found[i].path) : -ENOENT;
	if (other.fd < 0) {
		snprintf(t->note, sizeof t->note, "%s: no such guest", text);
		return;
	}
	strcpy(other.path, found[i].path);
	live_close(&t->live);
	t->live = other;
	if (begin(t, why))
		snprintf(t->note, sizeof t->note, "%.90s", why);
}

static void show_help(void)
{
	screen_show(help_text);
	screen_key(60000);
}

enum next { LEAVE, REDRAW, UPDATE };

static enum next handle_key(struct top *t, int key)
{
	*t->note = 0;
	switch (key) {
	case 'c':
		clear_filter(t);
		break;
	case 'f':
		change_filter(t);
		break;
	case 'g':
	case 'p':
		change_guest(t);
		break;
	case 'h':
	case '?':
		show_help();
		break;
	case 'o':
		t->view.by_total = !t->view.by_total;
		break;
	case 'r':
		reset(t);
		break;
	case 's':
		change_interval(t);
		break;
	case 'x':
		t->view.details = !t->view.details;
		break;
	case 'q':
	case 3:		/* Ctrl-c, Ctrl-d where the terminal does not make a signal or an end of them */
	case 4:
		return LEAVE;
	default:
		return UPDATE;
	}
	return REDRAW;
}

/* Until the user leaves or the guest ends. 0, or -errno and `why`. */
static int watch(struct top *t, char why[static LIVE_WHY])
{
	enum next next = UPDATE;
	int key, r;

	if (screen_can_draw())
		show(t);
	for (;;) {
		key = screen_key(t->interval * 1000);
		if (key)
			next = key < 0 ? LEAVE : handle_key(t, key);
		else
			next = UPDATE;
		if (next == LEAVE)
			return 0;
		r = next == UPDATE ? take_sample(t, why) : 0;
		if (r)
			return r;
		show(t);
		if (t->once)
			return 0;
	}
}

int cli_top(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "[PID|SOCKET]",
		.doc = "Shows what a running guest does: faults, prebuilds and exits in total and per second. The key h lists "
		       "the keys. Where the terminal cannot draw, or stdout is none, one view is printed after another.\v"
		       "Exit codes: 0 left, or the guest has ended; 1 no such guest or no answer, 2 usage, or several guests to "
		       "choose from.",
	};
	static struct top t = { .interval = 1, .live.fd = -1 };
	char why[LIVE_WHY] = "";
	int r;

	if (argp_parse(&argp, argc, argv, 0, NULL, &t))
		return VMM_EXIT_USAGE;
	r = live_open("umbra top", t.guest, &t.live);
	if (r)
		return r;
	r = begin(&t, why);
	if (!r) {
		if (!t.once)
			screen_open();
		r = watch(&t, why);
		if (!t.once)
			screen_close();
	}
	if (r)
		fprintf(stderr, "umbra top: %s: %s\n", t.live.path, why);
	live_close(&t.live);
	forget(&t);
	json_decref(t.describe);
	clear_filter(&t);
	return r && (r != -EPIPE || t.once) ? VMM_EXIT_ERROR : VMM_EXIT_OK;
}
