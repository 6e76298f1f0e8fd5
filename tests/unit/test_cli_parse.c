/*
 * test_cli_parse.c - sizes, times, numbers and words of the command line.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "cli/cli.h"

#define UNTOUCHED	0x5a5a5a5a5a5a5a5aull

static void sizes(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t bytes;
	} cases[] = {
		{ "0", 0, 0 }, { "5", 0, 5 }, { "16M", 0, 16ull << 20 }, { "16m", 0, 16ull << 20 }, { "1k", 0, 1024 },
		{ "3G", 0, 3ull << 30 }, { "2T", 0, 2ull << 40 }, { "007K", 0, 7 << 10 },
		{ "18446744073709551615", 0, UINT64_MAX }, { "16777215T", 0, 16777215ull << 40 },
		{ "18446744073709551616", -ERANGE, 0 }, { "16777216T", -ERANGE, 0 },
		{ "99999999999999999999999999G", -ERANGE, 0 },
		{ "", -EINVAL, 0 }, { "M", -EINVAL, 0 }, { "-1", -EINVAL, 0 }, { "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 }, { "1.5G", -EINVAL, 0 }, { "0x10", -EINVAL, 0 }, { "1MM", -EINVAL, 0 },
		{ "1P", -EINVAL, 0 }, { "1MB", -EINVAL, 0 }, { "1e3", -EINVAL, 0 }, { "nan", -EINVAL, 0 },
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint64_t out = UNTOUCHED;
		int r = cli_parse_size(cases[i].text, &out);

		if (r != cases[i].r || out != (r ? UNTOUCHED : cases[i].bytes))
			fail_msg("'%s': %d, %llu", cases[i].text, r, (unsigned long long)out);
	}
}

static void times(void **state)
{
	static const struct {
		const char *text;
		int r;
		double seconds;
	} cases[] = {
		{ "60", 0, 60 }, { "60s", 0, 60 }, { "2m", 0, 120 }, { "500ms", 0, 0.5 }, { "1h", 0, 3600 },
		{ "1.5s", 0, 1.5 }, { "0.25m", 0, 15 }, { "0", 0, 0 }, { "8760h", 0, 31536000 },
		{ "8761h", -ERANGE, 0 }, { "18446744073709551616", -ERANGE, 0 },
		{ "18446744073709551615ms", -ERANGE, 0 },
		{ "", -EINVAL, 0 }, { "s", -EINVAL, 0 }, { "-1s", -EINVAL, 0 }, { "1.s", -EINVAL, 0 },
		{ ".5s", -EINVAL, 0 },
		{ "1d", -EINVAL, 0 }, { "1 s", -EINVAL, 0 }, { "inf", -EINVAL, 0 }, { "nan", -EINVAL, 0 },
		{ "1e3", -EINVAL, 0 }, { "0x10", -EINVAL, 0 }, { "1,5s", -EINVAL, 0 }, { "1ss", -EINVAL, 0 },
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		double out = -1, want = cases[i].r ? -1 : cases[i].seconds;
		int r = cli_parse_time(cases[i].text, &out);

		if (r != cases[i].r || out < want - 1e-9 || out > want + 1e-9)
			fail_msg("'%s': %d, %g", cases[i].text, r, out);
	}
}

static void numbers(void **state)
{
	uint64_t out = UNTOUCHED;

	assert_int_equal(cli_parse_uint("3", 0, 3, &out), 0);
	assert_int_equal(out, 3);
	assert_int_equal(cli_parse_uint("4", 0, 3, &out), -ERANGE);
	assert_int_equal(cli_parse_uint("0", 1, 3, &out), -ERANGE);
	assert_int_equal(cli_parse_uint("18446744073709551616", 0, UINT64_MAX, &out), -ERANGE);
	assert_int_equal(cli_parse_uint("3x", 0, 3, &out), -EINVAL);
	assert_int_equal(cli_parse_uint("-0", 0, 3, &out), -EINVAL);
	assert_int_equal(cli_parse_uint("", 0, 3, &out), -EINVAL);
	assert_int_equal(out, 3);
}

static void words(void **state)
{
	static const struct cli_choice choices[] = { { "lazy", 4 }, { "eager", 7 }, { NULL } };
	int out = -1;

	assert_int_equal(cli_parse_choice("eager", choices, &out), 0);
	assert_int_equal(out, 7);
	assert_int_equal(cli_parse_choice("eage", choices, &out), -EINVAL);
	assert_int_equal(cli_parse_choice("eagerly", choices, &out), -EINVAL);
	assert_int_equal(cli_parse_choice("", choices, &out), -EINVAL);
	assert_int_equal(out, 7);
}

static void size_texts(void **state)
{
	char text[CLI_SIZE_TEXT];

	assert_string_equal(cli_size_text(0, text), "0");
	assert_string_equal(cli_size_text(1023, text), "1023");
	assert_string_equal(cli_size_text(1024, text), "1K");
	assert_string_equal(cli_size_text(512ull << 20, text), "512M");
	assert_string_equal(cli_size_text(3ull << 29, text), "1.5G");
	assert_string_equal(cli_size_text(UINT64_MAX, text), "16777216T");
}

static void lists(void **state)
{
	int out[4] = { -1, -1, -1, -1 };
	unsigned n = 9;

	assert_int_equal(cli_parse_list("3", 7, out, 4, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(out[0], 3);
	assert_int_equal(cli_parse_list("0,2-4", 7, out, 4, &n), 0);
	assert_int_equal(n, 4);
	assert_int_equal(out[3], 4);
	for (const char **p = (const char *[]){ "", ",", "1,", ",1", "-", "1-", "-1", "x", "1 2", "8", "5-8", "4-2", "0-4", "0-1,2-4",
						"0-99999999999999999999", "1-2-3", NULL }; *p; p++)
		assert_int_not_equal(cli_parse_list(*p, 7, out, 4, &n), 0);
	assert_int_equal(n, 4);
	assert_int_equal(out[3], 4);
}

static void pairs(void **state)
{
	static const char *const keys[] = { "queue", "delay", NULL };
	unsigned queue = 0, delay = 7;
	unsigned *const values[] = { &queue, &delay };

	assert_int_equal(cli_parse_pairs("queue=5", keys, values, 100), 0);
	assert_int_equal(queue, 5);
	assert_int_equal(delay, 7);
	assert_int_equal(cli_parse_pairs("delay=0,queue=100", keys, values, 100), 0);
	assert_int_equal(queue, 100);
	assert_int_equal(delay, 0);
	for (const char **p = (const char *[]){ "", ",", "queue", "queue=", "queue=101", "queue=1,", "nosuch=1", "queue=x", "=1", NULL };
	     *p; p++)
		assert_int_not_equal(cli_parse_pairs(*p, keys, values, 100), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes), cmocka_unit_test(times), cmocka_unit_test(numbers), cmocka_unit_test(words),
		cmocka_unit_test(size_texts), cmocka_unit_test(lists), cmocka_unit_test(pairs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
