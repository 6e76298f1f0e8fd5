/*
 * replay.h - what `umbra replay` and `umbra sweep` share. Not for other modules.
 */
#ifndef UMBRA_CLI_REPLAY_H
#define UMBRA_CLI_REPLAY_H

#include <argp.h>
#include <jansson.h>
#include <stdio.h>

#include "helper/replay.h"

#define REPLAY_SCHEMA	1

/* The options that say how a trace is replayed, heuristics aside: an argp child whose input is a struct replay_config. */
extern const struct argp replay_model_argp;

/* What a replay gave, with its configuration: for the same trace and configuration the same text. NULL: no memory. */
json_t *replay_json(const char *trace, const struct replay_config *config, const struct replay_result *result);
void replay_print(const char *trace, const struct replay_config *config, const struct replay_result *result, FILE *to);
/* A line about a trace from which a replay tells less than it seems to; nothing for others. */
void replay_warn(const char *command, const char *trace, const struct trace_log *log, FILE *to);

/* `root` as JSON text to a file, or with "-" to stdout. 0 or -errno. Takes the reference. */
int replay_write(const char *path, json_t *root);

#endif
