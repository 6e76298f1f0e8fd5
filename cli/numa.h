/*
 * numa.h - what the files of `umbra numa` share.
 */
#ifndef UMBRA_CLI_NUMA_H
#define UMBRA_CLI_NUMA_H

#include "cli/live.h"

/* ---- numa_text.c: replies as tables, 100 columns wide ---------------------------------------------------------------- */

/* The replies to these requests; `describe` may be NULL. */
void numa_print_show(FILE *to, const json_t *info, const json_t *describe, const json_t *show);
/* The frames of `map` as rows if these are few, else as a drawing in which a character stands for many of them. */
void numa_print_map(FILE *to, const json_t *map);
void numa_print_move(FILE *to, const json_t *move);
void numa_print_explain(FILE *to, const json_t *explain);
void numa_print_policy(FILE *to, const json_t *policy);

#endif
