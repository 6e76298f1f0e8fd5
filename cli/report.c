/*
 * report.c - `umbra report`: results to a page.
 */
#include <argp.h>
#include <errno.h>
#include <string.h>

#include "cli/cli.h"
#include "report/report.h"
#include "vmm/vmm.h"

#define FILES_MAX	64u

struct report_words {
	const char *in[FILES_MAX], *out;
	unsigned n;
};

static error_t parse_report(int key, char *arg, struct argp_state *state)
{
	struct report_words *w = state->input;

	switch (key) {
	case 'o':
		w->out = arg;
		return 0;
	case ARGP_KEY_ARG:
		if (w->n == FILES_MAX)
			argp_error(state, "more than %u files", FILES_MAX);
		w->in[w->n++] = arg;
		return 0;
	case ARGP_KEY_END:
		if (!w->n)
			argp_error(state, "a file is needed, of umbra compare --json or umbra run --stats");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

int cli_report(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{ "output", 'o', "FILE", 0, "The page (default report.html); - for stdout", 0 },
		{ NULL },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_report,
		.args_doc = "FILE...",
		.doc = "Makes a page of drawings from what 'umbra compare --json' and 'umbra run --stats' wrote: one HTML file that "
		       "needs nothing else.\v"
		       "Exit codes: 0, 1 a file cannot be read, is no result of umbra, or cannot be written, 2 usage.",
	};
	struct report_words w = { .out = "report.html" };

	if (argp_parse(&argp, argc, argv, 0, NULL, &w))
		return VMM_EXIT_USAGE;
	return report_write(argv[0], w.in, w.n, w.out) ? VMM_EXIT_ERROR : VMM_EXIT_OK;
}
