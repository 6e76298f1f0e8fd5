/*
 * top.h - what the files of `umbra top` share.
 */
#ifndef UMBRA_CLI_TOP_H
#define UMBRA_CLI_TOP_H

#include <regex.h>
#include <signal.h>

#include "cli/live.h"

/* ---- top_view.c: two samples as lines ------------------------------------------------------------------------------ */

struct top_view {
	bool by_total;			/* order: by what there was in all, not by rate */
	bool details;			/* all groups, not the first three alone */
	bool filtered;			/* show only rows for which `filter` matches "GROUP NAME" */
	regex_t filter;
};

struct top_sample {
	json_t *stats;			/* the reply */
	struct live_rows rows;
	double ns;			/* the guest's uptime */
};

/* Adds lines about what happened between `before` and `now` to `to`; totals are since `base`, or all if that is NULL. */
void top_print(FILE *to, const struct top_view *view, const struct top_sample *base, const struct top_sample *before,
	       const struct top_sample *now);

/* ---- screen.c: the terminal ------------------------------------------------------------------------------------------ */

/*
 * Puts the terminal on stdin into a mode without echo and line editing, and the one on stdout on its alternate screen, as
 * far as they are terminals and can. screen_close() undoes both, as do the signals that end or stop the process.
 * One at a time, main thread.
 */
void screen_open(void);
void screen_close(void);
/* Whether lines can be drawn over each other: else they are just printed one after another. */
bool screen_can_draw(void);
/* Whether keys can be read. */
bool screen_has_keys(void);
/* Shows `text`, lines ended by \n, in place of what was there; what does not fit is cut. */
void screen_show(const char *text);
/* Waits for a key until `ms` have passed. The key; 0: none came; -1: the user wants to leave (a signal, the end of input). */
int screen_key(int ms);
/* Asks for a line, shown while it is typed. False: given up with Esc or Ctrl-c. */
bool screen_ask(const char *question, char *answer, size_t size);

#endif
