/* Jobs: what can be measured, and how each tells its times. The other half is tests/workload/. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

static bool parse_forks(const char *line, double ns, struct reading *out)
{
	double us;

	if (sscanf(line, "forks %lf: %lf us per fork+exec", &out->units, &us) != 2)
		return false;
	strcpy(out->name, "fork+exec");
	out->ns = us * 1e3;
	return out->units > 0;
}

static bool parse_micro(const char *line, double ns, struct reading *out)
{
	return sscanf(line, "micro %23s %lf x %lf ns", out->name, &out->units, &out->ns) == 3 && out->units > 0;
}

static bool parse_spin(const char *line, double ns, struct reading *out)
{
	if (sscanf(line, "spin %lf: %lf ns, sum", &out->units, &out->ns) != 2 || out->units <= 0)
		return false;
	strcpy(out->name, "loop");
	out->ns /= out->units;
	return true;
}

static bool parse_compile(const char *line, double ns, struct reading *out)
{
	double files, ms;

	if (sscanf(line, "compile %lf files: %lf ms", &files, &ms) != 2)
		return false;
	strcpy(out->name, "compile");
	out->units = 1;
	out->ns = ms * 1e6;
	return true;
}

static bool parse_shared(const char *line, double ns, struct reading *out)
{
	double us;

	if (sscanf(line, "shared %lf passes, %*d processes: %lf us per pass", &out->units, &us) != 2)
		return false;
	strcpy(out->name, "shared");
	out->ns = us * 1e3;
	return out->units > 0;
}

static bool parse_boot(const char *line, double ns, struct reading *out)
{
	if (strcmp(line, "UMBRA-FIRST-PROCESS"))
		return false;
	strcpy(out->name, "boot");
	out->units = 1;
	out->ns = ns;
	return true;
}

bool job_parse_command(const char *line, double ns, struct reading *out)
{
	if (sscanf(line, "UMBRA-COMMAND %lf ns", &out->ns) != 1)
		return false;
	strcpy(out->name, "command");
	out->units = 1;
	return true;
}

#define KBUILD	.pinned = true, .begins = "kbuild begins", .parse = kbuild_parse, .setup = kbuild_setup, \
		.modes = "native,off-lazy,lazy,gates-eager-8,helper,nested,tcg,kvm"

static const struct job jobs[] = {
	{
		.name = "forks", .what = "fork, exec of a static busybox, wait", .unit = "fork+exec",
		.arg = JOB_COUNT, .count = 50, .timeout_s = 300, .image = "initrd.cpio.gz", .parse = parse_forks,
		.modes = "off-lazy,off-eager,shim,shim-eager,shim-eager-8,gates,gates-eager-8,native,tcg",
	}, {
		.name = "micro", .what = "system call, page faults, pipe round trip ...", .unit = "operation",
		.arg = JOB_NO_ARG, .timeout_s = 300, .image = "initrd.cpio.gz", .parse = parse_micro,
		.modes = "off-lazy,shim,shim-eager-8,gates,gates-eager-8,native,tcg",
	}, {
		.name = "compile", .what = "5 C files through cc1 -O2 and as, one per processor at a time", .unit = "5 files",
		.pinned = true,
		.arg = JOB_DIR, .timeout_s = 1200, .image = "compile.cpio.gz", .parse = parse_compile,
		.modes = "off-lazy,shim,shim-eager-8,gates,gates-eager-8,native,tcg",
	}, {
		.name = "boot", .what = "from the start of the program to the first user process", .unit = "boot",
		.arg = JOB_NO_ARG, .timeout_s = 120, .from_boot = true, .image = "initrd.cpio.gz", .parse = parse_boot,
		.modes = "off-lazy,off-eager,shim,shim-eager,shim-eager-8,gates-eager-8,tcg",
	}, {
		.name = "spin", .what = "an integer loop: user code alone", .unit = "million steps",
		.arg = JOB_COUNT, .count = 200, .timeout_s = 300, .image = "initrd.cpio.gz", .parse = parse_spin,
		.modes = "shim,native,tcg",
	}, {
		.name = "shared", .what = "a process per processor: one mapped file read by all, own memory added to", .unit = "pass",
		.arg = JOB_COUNT, .count = 100, .timeout_s = 300, .image = "initrd.cpio.gz", .parse = parse_shared,
		.modes = "shim,gates-eager-8,native,tcg",
	}, {
		.name = "kbuild", .what = "a part of a Linux kernel (tinyconfig) from source", .unit = "build",
		.arg = JOB_WORD, .word = "small", .timeout_s = 3600, KBUILD, .memory = "2G", .image = "small.cpio.zst",
	}, {
		.name = "kbuild", .what = "a Linux kernel, tinyconfig's vmlinux, from source", .unit = "build",
		.arg = JOB_WORD, .word = "tiny", .timeout_s = 14400, KBUILD, .memory = "2G", .image = "small.cpio.zst",
	}, {
		.name = "kbuild", .what = "a Linux kernel, defconfig's vmlinux, from source", .unit = "build",
		.arg = JOB_WORD, .word = "defconfig", .timeout_s = 100000, KBUILD, .memory = "6G", .image = "full.cpio.zst",
	},
};

#define NR_JOBS	(sizeof jobs / sizeof *jobs)

const struct job *job_find(const char *name, const char *word)
{
	for (unsigned i = 0; i < NR_JOBS; i++)
		if (!strcmp(jobs[i].name, name) && (!word || !jobs[i].word || !strcmp(jobs[i].word, word)))
			return &jobs[i];
	return NULL;
}

void job_help(void)
{
	printf("jobs\n");
	for (unsigned i = 0; i < NR_JOBS; i++) {
		const struct job *job = &jobs[i];

		printf("  %s%s%s\n            %s\n", job->name, job->arg == JOB_COUNT ? "=N" : job->word ? "=" : "",
		       job->word ? job->word : "", job->what);
		if (i + 1 == NR_JOBS || strcmp(job->modes, jobs[i + 1].modes))
			printf("            modes %s\n", job->modes);
	}
}
