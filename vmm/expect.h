/*
 * expect.h - has the guest's console printed what --expect asks for?
 *
 * A POSIX extended regular expression is held against every line, without its line end, and against the unfinished last
 * one, so that a prompt matches too. One thread feeds; any thread asks.
 */
#ifndef UMBRA_VMM_EXPECT_H
#define UMBRA_VMM_EXPECT_H

#include <stdbool.h>
#include <stddef.h>

#define EXPECT_LINE_MAX	65536u	/* a longer line is looked at in pieces of this size */

struct expect;

/* -EINVAL: not a regular expression; `why` says what is wrong. -ENOMEM. */
int expect_create(const char *regex, struct expect **out, char *why, size_t why_size);
void expect_destroy(struct expect *expect);
/* Looks at every line that these bytes complete. */
void expect_feed(struct expect *expect, const char *bytes, size_t n);
/* Looks at the unfinished last line. Costs a match of that line: for when the output pauses. */
void expect_settle(struct expect *expect);
/* True while expect_settle() could say something new. */
bool expect_unsettled(const struct expect *expect);
bool expect_met(const struct expect *expect);

#endif
