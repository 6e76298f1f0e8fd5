/*
 * runs.h - counters of single runs, put beside each other as umbra compare does it.
 */
#ifndef UMBRA_BENCH_RUNS_H
#define UMBRA_BENCH_RUNS_H

#include <jansson.h>

#define RUNS_MAX	24u

/* What `umbra run --stats` wrote, at most RUNS_MAX of them, as one result of `umbra compare`: each report a mode, with one
 * sample of the whole run. Names that are equal get a number. Values are taken as they are: a reader has to check them.
 * NULL: no memory. */
json_t *runs_compared(const json_t *const *reports, const char *const *names, unsigned n);

#endif
