/*
 * cli.h - the `umbra` command: its subcommands and what they share. Everything here is for the main thread.
 */
#ifndef UMBRA_CLI_CLI_H
#define UMBRA_CLI_CLI_H

#include <stdint.h>

/* A subcommand gets its own argv (argv[0]: "umbra NAME", for messages) and returns the exit code. */
struct cli_command {
	const char *name;
	const char *summary;		/* for `umbra help` */
	int (*main)(int argc, char **argv);
};

int cli_run(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_replay(int argc, char **argv);
int cli_report(int argc, char **argv);
int cli_sweep(int argc, char **argv);
int cli_stat(int argc, char **argv);
int cli_top(int argc, char **argv);
int cli_numa(int argc, char **argv);

/* ---- parse.c: values of options -------------------------------------------------------------------------------- */

/*
 * All return 0, -EINVAL (not of the form) or -ERANGE (outside 64 bits, or outside min..max), and leave *out alone on an
 * error. None accepts a sign, blanks or trailing text.
 */

/* Decimal digits and at most one of K, M, G, T in either case, powers of 1024; *out: bytes. */
int cli_parse_size(const char *text, uint64_t *out);
/* Decimal digits, possibly with a fraction, and one of ms, s, m, h or nothing (s); *out: seconds. At most a year. */
int cli_parse_time(const char *text, double *out);
int cli_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* What a word stands for. A table ends with name NULL. */
struct cli_choice {
	const char *name;
	int value;
};
/* *out: the value of the word that is exactly `text`. -EINVAL: none is. */
int cli_parse_choice(const char *text, const struct cli_choice *choices, int *out);

/* Numbers and ranges separated by commas, "0,2-3", each from 0 to `max`; at most `room` of them. */
int cli_parse_list(const char *text, unsigned max, int *list, unsigned room, unsigned *n);
/* KEY=N[,KEY=N...]: *value[i] gets what `keys[i]` is set to, up to `max`; keys end with NULL. */
int cli_parse_pairs(const char *text, const char *const *keys, unsigned *const *value, unsigned max);

/* "512M", "1.5G", "100": a size as a reader wants it. Returns `to`. */
#define CLI_SIZE_TEXT	24
const char *cli_size_text(uint64_t bytes, char to[static CLI_SIZE_TEXT]);

#endif
