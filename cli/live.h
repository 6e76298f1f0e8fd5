/*
 * live.h - asking a running guest over its control socket, for `umbra stat` and `umbra top` (docs/control.md).
 */
#ifndef UMBRA_CLI_LIVE_H
#define UMBRA_CLI_LIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "vmm/vmm.h"

/* ---- live.c: the connection -------------------------------------------------------------------------------------- */

struct live {
	int fd;
	unsigned timeout_s;		/* for a request and its answer; live_open() sets LIVE_TIMEOUT_S */
	char path[VMM_SOCKET_PATH];
};

#define LIVE_TIMEOUT_S	5

#define LIVE_WHY	256

/* Connects to the guest that `who` names: a pid, a socket's path, or NULL: the only one there is. VMM_EXIT_OK, or an exit
 * code after a message on stderr that begins with `command`. */
int live_open(const char *command, const char *who, struct live *out);
void live_close(struct live *l);
/* One request. 0, with the reply to json_decref(), or -errno with one line in `why`; -EPIPE: the guest has ended. */
int live_ask(struct live *l, const char *request, json_t **reply, char why[static LIVE_WHY]);
/* Prints a line per running guest. Returns how many. */
unsigned live_list(FILE *to);

/* ---- live_rows.c: the reply to `stats` as rows --------------------------------------------------------------------- */

#define LIVE_ROWS_MAX	1024u
#define LIVE_NAME	48u

/* Groups, in the order in which they are shown. */
enum live_group {
	LIVE_FAULTS, LIVE_PREBUILDS, LIVE_EXITS, LIVE_HYPERCALLS, LIVE_INVM, LIVE_EMULATED, LIVE_VCPU, LIVE_MMU, LIVE_NUMA,
	LIVE_OTHER,
	LIVE_GROUPS,
};

struct live_row {
	enum live_group group;
	char name[LIVE_NAME];
	bool detail;			/* left out where there is little room */
	const char *what;		/* lives as long as `describe`; "" */
	uint64_t value;
};

struct live_rows {
	unsigned n;
	struct live_row row[LIVE_ROWS_MAX];
};

const char *live_group_title(enum live_group group);
/* Whether the rows of a group are parts of a whole, so that shares mean something. */
bool live_group_adds_up(enum live_group group);

/* Takes every counter of `stats` (the reply), with its text from `describe` (the reply, or NULL). Counters it never heard of
 * are under LIVE_OTHER; more than there is room for are left out. */
void live_rows_take(struct live_rows *rows, const json_t *stats, const json_t *describe);
/* The row of that group and name, or NULL. */
const struct live_row *live_rows_find(const struct live_rows *rows, enum live_group group, const char *name);

/* "a.b.c" of `o`; NULL: there is none. */
const json_t *live_at(const json_t *o, const char *where);
/* The number there, or `otherwise`. */
double live_number(const json_t *o, const char *where, double otherwise);
/* The text there, or `otherwise`. */
const char *live_text(const json_t *o, const char *where, const char *otherwise);

/* ---- live_text.c, live_prometheus.c: one reply as text ---------------------------------------------------------------- */

/* For people, and in the text format of Prometheus, where `pid` is a label. */
void live_print_table(FILE *to, const json_t *stats, const json_t *describe, pid_t pid);
void live_print_prometheus(FILE *to, const json_t *stats, const json_t *describe, pid_t pid);
/* The line that says which guest this is, without a newline. */
void live_print_title(FILE *to, const json_t *stats, pid_t pid);
/* `text` as a terminal may see it, cut to `size`. Returns `to`. */
const char *live_clean(const char *text, char *to, size_t size);

#endif
