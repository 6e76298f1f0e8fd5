/*
 * print.c - one line at a time to console_io.
 */
#include <stdarg.h>

#include "lib/guest.h"
#include "lib/print.h"

struct line {
	char *at, *end;
};

static void put_char(struct line *l, char c)
{
	if (l->at < l->end)
		*l->at++ = c;
}

static void put_number(struct line *l, uint64_t n, unsigned base, bool negative, int width, char pad)
{
	char digits[24];
	int i = 0;

	do
		digits[i++] = "0123456789abcdef"[n % base];
	while (n /= base);
	if (negative)
		digits[i++] = '-';
	for (; width > i; width--)
		put_char(l, pad);
	while (i)
		put_char(l, digits[--i]);
}

size_t format_line(char *buf, size_t size, const char *fmt, va_list ap)
{
	struct line l = { buf, buf + size };

	for (; *fmt; fmt++) {
		int width = 0, longs = 0;
		char pad = ' ';
		int64_t n;

		if (*fmt != '%') {
			put_char(&l, *fmt);
			continue;
		}
		fmt++;
		if (*fmt == '0')
			pad = *fmt++;
		while (*fmt >= '0' && *fmt <= '9')
			width = width * 10 + *fmt++ - '0';
		while (*fmt == 'l' || *fmt == 'z')
			longs++, fmt++;
		switch (*fmt) {
		case 'd':
			n = longs ? va_arg(ap, int64_t) : va_arg(ap, int);
			put_number(&l, n < 0 ? -(uint64_t)n : (uint64_t)n, 10, n < 0, width, pad);
			break;
		case 'u':
			put_number(&l, longs ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), 10, false, width, pad);
			break;
		case 'x':
			put_number(&l, longs ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), 16, false, width, pad);
			break;
		case 'p':
			put_number(&l, va_arg(ap, uint64_t), 16, false, 16, '0');
			break;
		case 's':
			for (const char *s = va_arg(ap, const char *); *s; s++)
				put_char(&l, *s);
			break;
		case 'c':
			put_char(&l, (char)va_arg(ap, int));
			break;
		default:
			put_char(&l, *fmt);
		}
	}
	return (size_t)(l.at - buf);
}

void say(const char *fmt, ...)
{
	static char buf[512];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = format_line(buf, sizeof(buf) - 1, fmt, ap);
	va_end(ap);
	buf[n++] = '\n';
	hcall3(console_io, CONSOLEIO_write, n, PTR(buf));
}
