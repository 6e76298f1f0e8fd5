/* print.h - the formatter behind say() and test_fail(). Returns the bytes written, at most `size`; no NUL. */
#ifndef TESTS_GUESTS_PRINT_H
#define TESTS_GUESTS_PRINT_H

#include <stdarg.h>
#include <stddef.h>

size_t format_line(char *buf, size_t size, const char *fmt, va_list ap);

#endif
