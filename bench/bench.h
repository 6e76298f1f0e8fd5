/*
 * bench.h - what the files of `umbra bench` and `umbra compare` share: one job run under several modes in turn, the
 * counters and times of each run, a table.
 *
 * A *job* is what runs in the guest (forks, micro ...), made of one or more *cases*, each measured by itself. A *mode*
 * is a named set of umbra's flags, or a peer: the host itself, or QEMU's emulation. A *sample* is one run of the job in
 * one mode. Everything here runs on the main thread.
 */
#ifndef UMBRA_BENCH_H
#define UMBRA_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#define BENCH_CASES	16
#define ROUNDS_MAX	101u

/* One line of a workload that says how long something took. */
struct reading {
	char name[24];
	double units, ns;		/* how many operations, time of one */
	double cpu_ns;			/* processor time of one, of all that took part; 0: not known */
};

enum job_arg { JOB_NO_ARG, JOB_COUNT, JOB_DIR, JOB_WORD };

struct bench;

struct job {
	const char *name, *what, *unit;
	enum job_arg arg;		/* what the workload wants behind its name */
	const char *word;		/* JOB_WORD: that; NAME=WORD is this job, and NAME the first of that name */
	unsigned count;			/* default of --count */
	unsigned timeout_s;		/* for one run, boot included */
	bool from_boot;			/* measured from power on, not between marks; nothing to compare natively */
	bool whole;			/* measured from power on to power off; the guest need not know of it */
	const char *begins;		/* line that the workload prints when it begins to measure; NULL: none, no cpu_ns */
	bool pinned;			/* natively on one processor: it would use more than the guest has */
	const char *memory;		/* of the guest; NULL: 512M */
	const char *image;		/* initrd, a file of the build folder, unless setup() takes it from elsewhere */
	const char *modes;		/* default of --modes */
	/* Reads one console line, `ns` after the start of the run. True: it was a measurement, now in *out. */
	bool (*parse)(const char *line, double ns, struct reading *out);
	/* Optional: looks for what else the job needs and completes *b. Says on stderr what is missing; 0 or -errno. */
	int (*setup)(struct bench *b);
};

/* word: what stands behind "NAME=", or NULL. NULL: no such job. */
const struct job *job_find(const char *name, const char *word);
void job_help(void);
bool job_parse_command(const char *line, double ns, struct reading *out);

/* kbuild.c */
bool kbuild_parse(const char *line, double ns, struct reading *out);
int kbuild_setup(struct bench *b);

enum mode_kind { MODE_UMBRA, MODE_NATIVE, MODE_TCG, MODE_KVM };

#define MODE_FLAGS	24

struct mode {
	const char *name, *what;
	enum mode_kind kind;
	const char *flags;		/* words for `umbra run`, separated by blanks */
	bool users;			/* given by --mode: a mistake in its flags is an error */
	char *owned;			/* what name and flags point into, NULL: not ours */
	char left_out[200];		/* why this host or this umbra does not run it; "": it does */
};

struct mode_list {
	struct mode *at;
	unsigned n;
};

/* Adds the modes of a comma-separated list of names. -ENOENT: *bad (at least 32 bytes) is none; -ENOMEM. */
int modes_add_names(struct mode_list *list, const char *names, char *bad);
/* Adds a mode of the user's, "NAME=FLAGS"; the text is borrowed. -EINVAL: not that form or too many flags; -EEXIST;
 * -ENOMEM. */
int modes_define(struct mode_list *list, char *text);
/* In place of each mode of umbra's, one per number of vCPUs in `list` ("1,2,4"), NAME-cN; peers stay as they are. -EINVAL: not
 * such a list, up to VCPU_COUNTS numbers of 1 to VCPUS_MAX; -ENOMEM. */
#define VCPU_COUNTS	8u
#define VCPUS_MAX	32u
int modes_by_vcpus(struct mode_list *list, const char *counts);
void modes_release(struct mode_list *list);
void modes_help(void);

struct sample {
	unsigned mode, repetition;
	bool ok;
	char why[256];			/* when !ok */
	char *output;			/* when !ok: the end of what the run printed; owned, may be NULL */
	double wall_s;			/* of the whole run */
	char digest[20];		/* what the workload made of its results; "-": it checks none */
	unsigned nr_cases;
	struct reading cases[BENCH_CASES];
	json_t *counted[BENCH_CASES];	/* umbra only: "counters" and "mmu" of that interval; owned */
	json_t *report;			/* umbra only: what --stats wrote; owned */
};

struct bench {
	const char *program;		/* "umbra bench", for messages */
	const struct job *job;
	struct mode_list modes;
	unsigned repetitions, count, timeout_s;
	char umbra[512], workload[512], image[512], dir[512];	/* dir: of the job on the host */
	int image_fd;			/* what image names, if the job made it; -1: it did not */
	char kernel[512];
	const char *memory, *append;	/* of the guest; append: NULL, or more for its command line */
	bool compare;			/* for compare_json(); umbra makes fault maps */
	double load;			/* load average when it began; negative: unknown */
	struct sample *samples;
	unsigned nr_samples;
	volatile int *stop;		/* set by a signal: end early */
};

/* Runs the job once. Fills in *s; a run that fails is a sample that is not ok. -EOPNOTSUPP: this host or this umbra cannot
 * run that mode at all, the reason is in s->why. Other errors: -errno, nothing is known about the mode. */
int sample_take(const struct bench *b, unsigned mode, struct sample *s);
void sample_release(struct sample *s);
/* Case 0 of a sample of umbra's, from its report: the whole run. */
void sample_take_whole(struct sample *s);

/* ---- what is made of samples (metric.c) --------------------------------------------------------------------------- */

/*
 * A sum of counters of one sample. Terms are paths into a JSON object behind a sign: '+', '-', or '~' for one that may be
 * missing; a missing one makes the whole sum NaN.
 */
struct metric {
	const char *id;			/* in JSON */
	const char *head, *what;	/* of a column; what it counts */
	const char *group;		/* of rows */
	bool per_run;			/* of the whole run, boot included, from its report; else of a case, per unit */
	bool cpu;			/* no sum: a case's cpu_ns */
	const char *terms[6];
	const char *when, *is;		/* optional: the text at this path, else it is NaN */
};

/* Median, extremes of `n` values, which get sorted; NaN if n is 0. */
struct spread {
	double median, min, max;
	unsigned n;
};
struct spread spread_of(double *values, unsigned n);
/* The values of the good samples of a mode that have this case, at most `max`; returns how many. metric NULL: the time per
 * unit, in ns. */
unsigned metric_values(const struct bench *b, unsigned mode, const char *case_name, const struct metric *metric, double *out,
		       unsigned max);
struct spread metric_spread(const struct bench *b, unsigned mode, const char *case_name, const struct metric *metric);

/* Rounds that were begun: fewer than asked for when all was stopped. */
unsigned rounds_begun(const struct bench *b);

/* The names of all cases that good samples have, each once. Returns how many; at most BENCH_CASES. */
unsigned case_names(const struct bench *b, const char *names[static BENCH_CASES]);

/* A number below a JSON object: "a.b.c"; "a.*.c" is the sum over the array a. NaN: not there. */
double json_number_at(const json_t *o, const char *path);

/* Three digits, or "-" for NaN. A time has its unit. */
#define NUMBER_TEXT	16
void count_text(char out[static NUMBER_TEXT], double v);
void time_text(char out[static NUMBER_TEXT], double ns);
void ratio_text(char out[static NUMBER_TEXT], double v);

/* Runs all modes in turn and says how it goes on stderr. Returns how many runs failed, or -errno; -EOPNOTSUPP: there are
 * no samples, for this host runs none of the modes, or of umbra's none. */
int measure(struct bench *b);

/* ---- the command line -------------------------------------------------------------------------------------------- */

struct request {
	struct bench bench;
	const char *json;		/* file for the samples, or NULL */
	struct job own;			/* --run or --initrd: what bench.job then points at */
	const char *run, *dir;		/* --run's command, --dir's folder */
	char made_image[512];		/* an image made for them, to be removed; "": none */
};

/* What the two commands do not share. */
struct bench_command {
	const char *doc;		/* for argp */
	const char *modes;		/* default of --modes; NULL: the job's own */
};

/* Fills in *q. Returns -1, or the exit code if there is nothing to do or something is wrong, which was said. */
int options_parse(const struct bench_command *command, int argc, char **argv, struct request *q);
void request_release(struct request *q);

/* To stdout: what was run and where. */
void head_print(const struct bench *b);
/* To stdout: a case's times beside those of the peers, its faults beside EPT violations. */
void peers_print(const struct bench *b, const char *case_name);
/* To stdout: a table per case with a row per mode. */
void table_print(const struct bench *b);

/* ---- compare.c ---------------------------------------------------------------------------------------------------- */

/* To stdout: a row per metric, a column per mode, and which differences are real. */
void compare_print(const struct bench *b);
/* The same for results_write(): what is compared, with medians, ratios and p. NULL: no memory. */
json_t *compare_json(const struct bench *b);
/* Configuration, host, raw samples, medians. NULL: no memory. */
json_t *results_json(const struct bench *b);
/* The same into a file. 0 or -errno; "-" is stdout. */
int results_write(const struct bench *b, const char *path);

#endif
