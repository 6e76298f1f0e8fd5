/*
 * parse.c - values of options. Written out rather than strtoull() and strtod(), which accept signs, blanks, hex,
 * infinities and the locale's decimal point.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

#define YEAR_S	(365 * 24 * 3600.0)

/* Takes digits off *text. */
static int take_digits(const char **text, uint64_t *out)
{
	const char *p = *text;
	uint64_t n = 0;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *p - '0', &n))
			return -ERANGE;
	*text = p;
	*out = n;
	return 0;
}

int cli_parse_size(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	unsigned shift = 0;
	uint64_t n;
	int r = take_digits(&text, &n);

	if (r)
		return r;
	if (*text) {
		suffix = strchr(suffixes, toupper((unsigned char)*text));
		if (!suffix || text[1])
			return -EINVAL;
		shift = 10 * (suffix - suffixes + 1);
	}
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*out = n << shift;
	return 0;
}

int cli_parse_time(const char *text, double *out)
{
	static const struct {
		const char *name;
		double seconds;
	} units[] = { { "", 1 }, { "s", 1 }, { "ms", 1e-3 }, { "m", 60 }, { "h", 3600 } };
	double value, digit = 1;
	uint64_t whole;
	int r = take_digits(&text, &whole);

	if (r)
		return r;
	value = whole;
	if (*text == '.') {
		if (!isdigit((unsigned char)*++text))
			return -EINVAL;
		for (; isdigit((unsigned char)*text); text++) {
			digit /= 10;
			value += (*text - '0') * digit;
		}
	}
	for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcmp(text, units[i].name))
			continue;
		value *= units[i].seconds;
		if (value > YEAR_S)
			return -ERANGE;
		*out = value;
		return 0;
	}
	return -EINVAL;
}

int cli_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t n;
	int r = take_digits(&text, &n);

	if (r)
		return r;
	if (*text)
		return -EINVAL;
	if (n < min || n > max)
		return -ERANGE;
	*out = n;
	return 0;
}

int cli_parse_choice(const char *text, const struct cli_choice *choices, int *out)
{
	for (; choices->name; choices++)
		if (!strcmp(text, choices->name)) {
			*out = choices->value;
			return 0;
		}
	return -EINVAL;
}

const char *cli_size_text(uint64_t bytes, char to[static CLI_SIZE_TEXT])
{
	static const char suffixes[] = "KMGT";
	int i = 3;

	while (i >= 0 && bytes < 1ull << 10 * (i + 1))
		i--;
	if (i < 0) {
		snprintf(to, CLI_SIZE_TEXT, "%" PRIu64, bytes);
	} else {
		double n = bytes / (double)(1ull << 10 * (i + 1));

		snprintf(to, CLI_SIZE_TEXT, n == (uint64_t)n ? "%.0f%c" : "%.1f%c", n, suffixes[i]);
	}
	return to;
}

int cli_parse_list(const char *text, unsigned max, int *list, unsigned room, unsigned *n)
{
	unsigned count = 0;
	int out[256];

	if (room > sizeof out / sizeof *out)
		room = sizeof out / sizeof *out;
	for (const char *p = text; ; p++) {
		char word[24], *dash;
		size_t len = strcspn(p, ",");
		uint64_t first, last;
		int r;

		if (len >= sizeof word)
			return -EINVAL;
		memcpy(word, p, len);
		word[len] = '\0';
		dash = strchr(word, '-');
		if (dash)
			*dash = '\0';
		r = cli_parse_uint(word, 0, max, &first);
		if (!r)
			r = cli_parse_uint(dash ? dash + 1 : word, 0, max, &last);
		if (r)
			return r;
		if (last < first || last - first >= room - count)
			return -ERANGE;
		while (first <= last)
			out[count++] = first++;
		p += len;
		if (!*p)
			break;
	}
	memcpy(list, out, count * sizeof *list);
	*n = count;
	return 0;
}

int cli_parse_pairs(const char *text, const char *const *keys, unsigned *const *value, unsigned max)
{
	for (const char *p = text; ; p++) {
		char word[48], *eq;
		size_t len = strcspn(p, ",");
		unsigned i = 0;
		uint64_t v;
		int r;

		if (len >= sizeof word)
			return -EINVAL;
		memcpy(word, p, len);
		word[len] = '\0';
		eq = strchr(word, '=');
		if (!eq)
			return -EINVAL;
		*eq = '\0';
		while (keys[i] && strcmp(keys[i], word))
			i++;
		if (!keys[i])
			return -EINVAL;
		r = cli_parse_uint(eq + 1, 0, max, &v);
		if (r)
			return r;
		*value[i] = v;
		p += len;
		if (!*p)
			return 0;
	}
}
