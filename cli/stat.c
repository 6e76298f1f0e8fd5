/*
 * stat.c - `umbra stat`: the counters of a running guest.
 */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/live.h"

enum stat_format { STAT_TABLE, STAT_JSON, STAT_PROMETHEUS };

struct stat_options {
	const char *guest;		/* NULL: the only one */
	int format;
	bool list;
};

static const struct argp_option options[] = {
	{ "format", 'f', "FORMAT", 0, "table (default), json, or prometheus (its text format)", 0 },
	{ "list", 'l', NULL, 0, "List the running guests", 0 },
	{ NULL },
};

static const struct cli_choice formats[] = {
	{ "table", STAT_TABLE }, { "json", STAT_JSON }, { "prometheus", STAT_PROMETHEUS }, { NULL },
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct stat_options *o = state->input;

	switch (key) {
	case 'f':
		if (!cli_parse_choice(arg, formats, &o->format))
			return 0;
		fprintf(stderr, "umbra stat: --format=%s: not one of: table, json, prometheus\n", arg);
		return EINVAL;
	case 'l':
		o->list = true;
		return 0;
	case ARGP_KEY_ARG:
		if (o->guest) {
			fprintf(stderr, "umbra stat: one guest at a time, not '%s' as well\n", arg);
			return EINVAL;
		}
		o->guest = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* As a file like that of --stats has it. */
static void print_json(FILE *to, json_t *stats)
{
	json_dumpf(stats, to, JSON_INDENT(2));
	fputc('\n', to);
}

static int print_stats(const struct stat_options *o, struct live *l)
{
	json_t *info = NULL, *describe = NULL, *stats = NULL;
	char why[LIVE_WHY];
	pid_t pid;
	int r;

	r = live_ask(l, "info", &info, why);
	if (!r)
		r = live_ask(l, "describe", &describe, why);
	if (!r)
		r = live_ask(l, "stats", &stats, why);
	if (r) {
		fprintf(stderr, "umbra stat: %s: %s\n", l->path, why);
		goto out;
	}
	pid = live_number(info, "pid", 0);
	if (o->format == STAT_JSON)
		print_json(stdout, stats);
	else if (o->format == STAT_PROMETHEUS)
		live_print_prometheus(stdout, stats, describe, pid);
	else
		live_print_table(stdout, stats, describe, pid);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "umbra stat: standard output: %s\n", strerror(errno));
		r = -EIO;
	}
out:
	json_decref(info);
	json_decref(describe);
	json_decref(stats);
	return r ? VMM_EXIT_ERROR : VMM_EXIT_OK;
}

int cli_stat(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "[PID|SOCKET]",
		.doc = "Prints the counters of a running guest, found by the pid of its 'umbra run' or by its control socket. "
		       "Without either: of the only one that runs.\v"
		       "Exit codes: 0 printed, 1 no such guest or no answer, 2 usage, or several guests to choose from.",
	};
	struct stat_options o = { 0 };
	struct live l;
	int r;

	if (argp_parse(&argp, argc, argv, 0, NULL, &o))
		return VMM_EXIT_USAGE;
	if (o.list) {
		if (live_list(stdout))
			return VMM_EXIT_OK;
		fprintf(stderr, "umbra stat: no guest of this user runs, or none with a control socket in the usual place\n");
		return VMM_EXIT_ERROR;
	}
	r = live_open("umbra stat", o.guest, &l);
	if (r)
		return r;
	r = print_stats(&o, &l);
	live_close(&l);
	return r;
}
