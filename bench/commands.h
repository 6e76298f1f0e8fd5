/*
 * commands.h - what the `umbra` command takes from bench/: two of its subcommands. Main thread.
 */
#ifndef UMBRA_BENCH_COMMANDS_H
#define UMBRA_BENCH_COMMANDS_H

/* argv[0] is the name for messages. Return the exit code: 0, 1 a run failed, 2 usage, 77 the host runs none of the modes,
 * or 128 + the number of the signal that stopped them. */
int bench_main(int argc, char **argv);
int compare_main(int argc, char **argv);

#endif
