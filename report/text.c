/* Text that grows, and numbers as text. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/text.h"

#define REPLACEMENT	"\xef\xbf\xbd"		/* U+FFFD */

void text_free(struct text *t)
{
	free(t->at);
	memset(t, 0, sizeof *t);
}

/* Room for n more bytes and a NUL. */
static bool make_room(struct text *t, size_t n)
{
	size_t size = t->size ? t->size : 4096;
	char *grown;

	if (t->failed)
		return false;
	while (size < t->len + n + 1)
		size *= 2;
	if (size == t->size)
		return true;
	grown = realloc(t->at, size);
	if (!grown) {
		t->failed = true;
		return false;
	}
	t->at = grown;
	t->size = size;
	return true;
}

static void put_bytes(struct text *t, const char *s, size_t n)
{
	if (!make_room(t, n))
		return;
	memcpy(t->at + t->len, s, n);
	t->len += n;
	t->at[t->len] = 0;
}

void text_put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !make_room(t, n))
		return;
	va_start(ap, fmt);
	vsnprintf(t->at + t->len, n + 1, fmt, ap);
	va_end(ap);
	t->len += n;
}

/* Bytes of the UTF-8 character at s, 0 if there is none: overlong forms, surrogates and what lies beyond U+10FFFF too. */
static size_t utf8_length(const unsigned char *s)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
	unsigned c = n > 1 ? s[0] & (0xff >> (n + 1)) : s[0];

	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return n > 1 && (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) ? 0 : n;
}

void text_escaped(struct text *t, const char *s)
{
	size_t n;

	for (; s && *s; s += n) {
		n = utf8_length((const unsigned char *)s);
		switch (n == 1 ? *s : 0) {
		case '&':
			put_bytes(t, "&amp;", 5);
			break;
		case '<':
			put_bytes(t, "&lt;", 4);
			break;
		case '>':
			put_bytes(t, "&gt;", 4);
			break;
		case '"':
			put_bytes(t, "&quot;", 6);
			break;
		case '\'':
			put_bytes(t, "&#39;", 5);
			break;
		case '\n':
		case '\t':
			put_bytes(t, " ", 1);
			break;
		default:
			if (!n || (n == 1 && ((unsigned char)*s < 0x20 || *s == 0x7f)))
				put_bytes(t, REPLACEMENT, 3);
			else
				put_bytes(t, s, n);
		}
		n = n ? n : 1;
	}
}

/* Digits in groups of three, with narrow no-break spaces. */
static void group(char to[static NUMBER_SIZE], double v)
{
	char digits[24];
	int len = snprintf(digits, sizeof digits, "%.0f", v);
	char *p = to;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0 && len > 4)
			p = stpcpy(p, "\xe2\x80\xaf");
		*p++ = digits[i];
	}
	*p = 0;
}

const char *number(char to[static NUMBER_SIZE], double v)
{
	double size = fabs(v);

	if (!isfinite(v))
		strcpy(to, "-");
	else if (v == 0)
		strcpy(to, "0");
	else if (size >= 1e15 || size < 1e-3)
		snprintf(to, NUMBER_SIZE, "%.2e", v);
	else if (v > 0 && (size >= 99.95 || size == floor(size)))
		group(to, v);
	else
		snprintf(to, NUMBER_SIZE, "%.*f", size < 0.0995 ? 3 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0, v);
	return to;
}

const char *duration(char to[static NUMBER_SIZE], double ns)
{
	static const char *const units[] = { "ns", "\xc2\xb5s", "ms", "s" };
	char n[NUMBER_SIZE];
	unsigned i = 0;

	if (!isfinite(ns))
		return strcpy(to, "-");
	if (ns == 0)
		return strcpy(to, "0");
	for (; i < 3 && ns >= 999.5; i++)
		ns /= 1e3;
	snprintf(to, NUMBER_SIZE, "%.30s %s", number(n, ns), units[i]);
	return to;
}
