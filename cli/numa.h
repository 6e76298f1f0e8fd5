/*
 * numa.h - what the files of `umbra numa` share.
 */
#ifndef UMBRA_CLI_NUMA_H
#define UMBRA_CLI_NUMA_H

#include "cli/live.h"

/* ---- numa_text.c: replies as tables, 100 columns wide ---------------------------------------------------------------- */

/* `info` and `show`: the replies to these requests. */
void numa_print_show(FILE *to, const json_t *info, const json_t *show);
/* The frames of `map` as rows if these are few, else as a drawing in which a character stands for many of them. */
void numa_print_map(FILE *to, const json_t *map);
void numa_print_move(FILE *to, const json_t *move);

#endif
