/*
 * expect.c - a regular expression held against the console's lines.
 */
#include <errno.h>
#include <regex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/expect.h"

struct expect {
	regex_t regex;
	atomic_bool met;
	bool unsettled;			/* the unfinished line has grown since it was looked at */
	size_t len;
	char line[EXPECT_LINE_MAX + 1];
};

int expect_create(const char *regex, struct expect **out, char *why, size_t why_size)
{
	struct expect *e = malloc(sizeof *e);
	int r;

	if (!e)
		return -ENOMEM;
	r = regcomp(&e->regex, regex, REG_EXTENDED);
	if (r) {
		regerror(r, &e->regex, why, why_size);
		free(e);
		return r == REG_ESPACE ? -ENOMEM : -EINVAL;
	}
	atomic_init(&e->met, false);
	e->unsettled = false;
	e->len = 0;
	*out = e;
	return 0;
}

void expect_destroy(struct expect *e)
{
	if (!e)
		return;
	regfree(&e->regex);
	free(e);
}

static void match_line(struct expect *e)
{
	/* The guest may print NULs, so the length is given: REG_STARTEND, a BSD extension that glibc has.
	 * AddressSanitizer does not know it and looks for a NUL. */
	regmatch_t range = { .rm_so = 0, .rm_eo = e->len };

	while (range.rm_eo && e->line[range.rm_eo - 1] == '\r')
		range.rm_eo--;
	e->line[e->len] = 0;
	e->unsettled = false;
	if (!regexec(&e->regex, e->line, 1, &range, REG_STARTEND))
		atomic_store_explicit(&e->met, true, memory_order_release);
}

void expect_feed(struct expect *e, const char *bytes, size_t n)
{
	while (n && !expect_met(e)) {
		const char *end = memchr(bytes, '\n', n);
		size_t room = EXPECT_LINE_MAX - e->len;
		size_t take = end ? (size_t)(end - bytes) : n;
		bool whole = end && take <= room;

		if (take > room)
			take = room;
		memcpy(e->line + e->len, bytes, take);
		e->len += take;
		e->unsettled = true;
		bytes += take + whole;
		n -= take + whole;
		if (whole || e->len == EXPECT_LINE_MAX) {
			match_line(e);
			e->len = 0;
		}
	}
}

void expect_settle(struct expect *e)
{
	if (expect_unsettled(e))
		match_line(e);
}

bool expect_unsettled(const struct expect *e)
{
	return e->unsettled && e->len && !expect_met(e);
}

bool expect_met(const struct expect *e)
{
	return atomic_load_explicit(&e->met, memory_order_acquire);
}
