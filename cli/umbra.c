/*
 * umbra.c - the command: finds the subcommand and runs it.
 */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "bench/commands.h"
#include "cli/cli.h"
#include "vmm/vmm.h"

static const struct cli_command commands[] = {
	{ "run",	"boot a guest",					cli_run },
	{ "compare",	"a workload under several modes, compared fault by fault",	compare_main },
	{ "report",	"a page of drawings from the results of compare and run",	cli_report },
	{ "bench",	"a workload under several modes: counts and times",	bench_main },
	{ "top",	"a live view of a running guest",		cli_top },
	{ "stat",	"the counters of a running guest",		cli_stat },
	{ "numa",	"a running guest's NUMA nodes: where it is, and moving it",	cli_numa },
	{ "replay",	"a recorded trace against heuristics, without a guest",	cli_replay },
	{ "sweep",	"many configurations of heuristics over traces",	cli_sweep },
	{ "doctor",	"what this host can do, and how to fix what it cannot",	cli_doctor },
};

#define NR_COMMANDS	(sizeof commands / sizeof *commands)

static void print_usage(FILE *to)
{
	fputs("Usage: umbra COMMAND [OPTION...]\n"
	      "Runs a stock Linux kernel on /dev/kvm with user-level shadow page tables.\n\n", to);
	for (unsigned i = 0; i < NR_COMMANDS; i++)
		fprintf(to, "  umbra %-8s  %s\n", commands[i].name, commands[i].summary);
	fputs("\n'umbra COMMAND --help' lists the options of a command, 'umbra --version' prints the version.\n", to);
}

static const struct cli_command *find_command(const char *name)
{
	for (unsigned i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static int run_command(const struct cli_command *command, int argc, char **argv)
{
	char name[32];

	snprintf(name, sizeof name, "umbra %s", command->name);
	argv[0] = name;
	return command->main(argc, argv);
}

int main(int argc, char **argv)
{
	const struct cli_command *command;

	argp_err_exit_status = VMM_EXIT_USAGE;
	if (argc < 2) {
		print_usage(stderr);
		return VMM_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V") || !strcmp(argv[1], "version")) {
		printf("umbra %s\n", vmm_version());
		return VMM_EXIT_OK;
	}
	if (!strcmp(argv[1], "help") && argc > 2 && (command = find_command(argv[2]))) {
		char *help[] = { argv[0], (char[]){ "--help" }, NULL };

		return run_command(command, 2, help);
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return VMM_EXIT_OK;
	}
	command = find_command(argv[1]);
	if (!command) {
		fprintf(stderr, "umbra: '%s' is not a command; 'umbra help' lists them\n", argv[1]);
		return VMM_EXIT_USAGE;
	}
	return run_command(command, argc - 1, argv + 1);
}
