/*
 * text.h - a growing text, and the only ways into it: fixed words, formatted numbers, and escaped text of others.
 */
#ifndef UMBRA_REPORT_TEXT_H
#define UMBRA_REPORT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
	char *at;		/* NUL-terminated once something was put */
	size_t len, size;
	bool failed;		/* no memory: nothing is added any more. Looked at once, at the end */
};

void text_free(struct text *t);
/* As printf(). For our own words and numbers: nothing that a file said may be an argument of %s. */
void text_put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What a file said, for element content and attributes in double quotes. NULL puts nothing. Control characters and what is
 * not UTF-8 become U+FFFD. */
void text_escaped(struct text *t, const char *s);

/* "1 234 567", "12.3", "0.045": at most four digits that mean something, or whole. "-" if not finite. */
#define NUMBER_SIZE	40
const char *number(char to[static NUMBER_SIZE], double v);
/* "12.3 ms" */
const char *duration(char to[static NUMBER_SIZE], double ns);

#endif
