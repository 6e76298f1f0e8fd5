/*
 * doctor.c - `umbra doctor`: what this host can do.
 */
#include <argp.h>

#include "cli/cli.h"
#include "vmm/vmm.h"

static error_t parse_doctor(int key, char *arg, struct argp_state *state)
{
	if (key == ARGP_KEY_ARG)
		argp_error(state, "'%s' is too much: doctor takes no arguments", arg);
	return ARGP_ERR_UNKNOWN;
}

int cli_doctor(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse_doctor,
		.doc = "Prints a line per capability of this host: ok, warn or fail, with the fix.\v"
		       "Exit code: 0 a guest can run here, 77 the host lacks what is needed.",
	};

	if (argp_parse(&argp, argc, argv, 0, NULL, NULL))
		return VMM_EXIT_USAGE;
	return vmm_doctor(stdout);
}
