/*
 * test_console_parts.c - the console's ring against a hostile guest, the --expect matcher, the Ctrl-a keys.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/expect.h"
#include "vmm/tty.h"
#include "vmm/xen.h"
#include "vmm/xencons.h"

/* ---- the ring --------------------------------------------------------------------------------------------------- */

/* The page between two others, so that a sanitizer or the pattern tells of a stray access. */
static struct {
	uint8_t before[4096];
	union {
		struct xencons_interface ring;
		uint8_t bytes[4096];
	} page;
	uint8_t after[4096];
} memory __attribute__((aligned(4096)));

static void reset(struct xencons *r)
{
	memset(&memory, 0xa5, sizeof memory);
	memset(&memory.page, 0, sizeof memory.page);
	xencons_attach(r, &memory.page);
}

static void assert_surroundings(void)
{
	for (unsigned i = 0; i < 4096; i++)
		assert_true(memory.before[i] == 0xa5 && memory.after[i] == 0xa5);
	for (unsigned i = sizeof memory.page.ring; i < 4096; i++)
		assert_true(memory.page.bytes[i] == 0);
}

/* The guest's side: as many bytes as fit. */
static size_t guest_print(const char *text, size_t n)
{
	struct xencons_interface *p = &memory.page.ring;
	size_t done = 0;

	while (done < n && p->out_prod - p->out_cons < sizeof p->out)
		p->out[MASK_XENCONS_IDX(p->out_prod++, p->out)] = text[done++];
	return done;
}

static void output_in_order(void **state)
{
	static char sent[50000], got[50000];
	size_t in = 0, out = 0, fill;
	struct xencons r;

	reset(&r);
	srandom(1);
	for (unsigned i = 0; i < sizeof sent; i++)
		sent[i] = random();
	while (out < sizeof sent) {
		size_t want = random() % 3000, max = random() % 2500;
		ssize_t n;

		in += guest_print(sent + in, want < sizeof sent - in ? want : sizeof sent - in);
		n = xencons_take(&r, got + out, max < sizeof got - out ? max : sizeof got - out, &fill);
		assert_true(n >= 0 && fill == in - out);
		out += n;
	}
	assert_memory_equal(sent, got, sizeof sent);
	assert_surroundings();
}

static void input_in_order(void **state)
{
	struct xencons_interface *p = &memory.page.ring;
	char text[3000], got[3000];
	size_t in = 0, out = 0;
	struct xencons r;

	reset(&r);
	for (unsigned i = 0; i < sizeof text; i++)
		text[i] = i * 7;
	assert_int_equal(xencons_put(&r, text, sizeof text), sizeof p->in);
	assert_int_equal(xencons_put(&r, text, 1), 0);
	for (in = sizeof p->in; out < sizeof text; ) {
		for (unsigned i = 0; i < 100 && p->in_cons != p->in_prod; i++)
			got[out++] = p->in[MASK_XENCONS_IDX(p->in_cons++, p->in)];
		in += xencons_put(&r, text + in, sizeof text - in);
	}
	assert_memory_equal(text, got, sizeof text);
	assert_surroundings();
}

static void unread_input_comes_back(void **state)
{
	char back[8] = "";
	struct xencons r;

	reset(&r);
	assert_int_equal(xencons_put(&r, "abcdef", 6), 6);
	memory.page.ring.in_cons += 2;
	assert_int_equal(xencons_unput(&r, back, sizeof back), 4);
	assert_memory_equal(back, "cdef", 4);
	assert_int_equal(memory.page.ring.in_prod, memory.page.ring.in_cons);
	assert_int_equal(xencons_unput(&r, back, sizeof back), 0);
}

/* What the guest writes over our indices does not matter. */
static void our_indices_are_ours(void **state)
{
	char got[16];
	struct xencons r;

	reset(&r);
	assert_int_equal(guest_print("hello", 5), 5);
	memory.page.ring.out_cons = 0xdeadbeef;
	memory.page.ring.in_prod = 0x12345678;
	assert_int_equal(xencons_take(&r, got, sizeof got, NULL), 5);
	assert_memory_equal(got, "hello", 5);
	assert_int_equal(memory.page.ring.out_cons, 5);
	assert_int_equal(xencons_put(&r, "x", 1), 1);
	assert_int_equal(memory.page.ring.in_prod, 1);
}

static void mad_indices(void **state)
{
	struct xencons_interface *p = &memory.page.ring;
	char got[16];
	struct xencons r;

	reset(&r);
	p->out_prod = 2049;
	assert_int_equal(xencons_take(&r, got, sizeof got, NULL), -EPROTO);
	assert_int_equal(xencons_take(&r, got, sizeof got, NULL), 0);
	p->in_cons = 1;		/* has read what was never written */
	assert_int_equal(xencons_put(&r, "x", 1), -EPROTO);
	assert_int_equal(xencons_put(&r, "x", 1), 1);
	/* and a guest that mends its ways is served again */
	assert_int_equal(guest_print("ok", 2), 2);
	assert_int_equal(xencons_take(&r, got, sizeof got, NULL), 2);
	assert_memory_equal(got, "ok", 2);
}

static void random_indices(void **state)
{
	struct xencons_interface *p = &memory.page.ring;
	char got[4096];
	struct xencons r;
	size_t fill;

	reset(&r);
	srandom(2);
	for (unsigned i = 0; i < 200000; i++) {
		size_t max = random() % sizeof got;
		ssize_t n;

		switch (random() % 8) {
		case 0:
			p->out_prod = random() * 3;
			break;
		case 1:
			p->in_cons = random() * 3;
			break;
		case 2:
			p->out_cons = p->in_prod = random();
			break;
		case 3:
			p->out_prod = r.out_cons + random() % 2100;
			break;
		case 4:
			n = xencons_put(&r, got, max);
			assert_true(n == -EPROTO || (n >= 0 && n <= (ssize_t)max && n <= (ssize_t)sizeof p->in));
			break;
		case 5:
			assert_true(xencons_unput(&r, got, max) <= max);
			break;
		default:
			n = xencons_take(&r, got, max, &fill);
			assert_true(n == -EPROTO || (n >= 0 && n <= (ssize_t)max && fill <= sizeof p->out));
		}
	}
	assert_surroundings();
}

static void no_ring(void **state)
{
	struct xencons r;
	char c;

	xencons_attach(&r, NULL);
	assert_int_equal(xencons_take(&r, &c, 1, NULL), 0);
	assert_int_equal(xencons_put(&r, &c, 1), 0);
	assert_int_equal(xencons_unput(&r, &c, 1), 0);
}

/* ---- --expect --------------------------------------------------------------------------------------------------- */

static struct expect *expecting(const char *regex)
{
	struct expect *e;
	char why[100];

	assert_int_equal(expect_create(regex, &e, why, sizeof why), 0);
	return e;
}

/* Is `regex` met after `text`, fed in pieces of `step` bytes? */
static bool met(const char *regex, const char *text, size_t n, size_t step, bool settle)
{
	struct expect *e = expecting(regex);
	bool r;

	for (size_t at = 0; at < n; at += step)
		expect_feed(e, text + at, n - at < step ? n - at : step);
	if (settle)
		expect_settle(e);
	r = expect_met(e);
	expect_destroy(e);
	return r;
}

static void lines(void **state)
{
	static const struct {
		const char *regex, *text;
		bool met, settled;		/* before and after the unfinished line is looked at */
	} cases[] = {
		{ "ok", "all is ok here\n", true, true },
		{ "^ok$", "first\r\nok\r\nlast\r\n", true, true },
		{ "^ok$", "not ok\r\nok not\r\n", false, false },
		{ "login: $", "Debian\r\nlogin: ", false, true },
		{ "login: $", "login: root\r\n", false, false },
		{ "a.b", "a\nb\n", false, false },
		{ "(ok|good) [0-9]+", "good 42\n", true, true },
		{ "one.*two", "one\ntwo\n", false, false },
		{ "^$", "text", false, false },
		{ "^$", "\r\n", true, true },
		{ "x", "", false, false },
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
		for (size_t step = 1; step < 9; step++) {
			size_t n = strlen(cases[i].text);

			if (met(cases[i].regex, cases[i].text, n, step, false) != cases[i].met ||
			    met(cases[i].regex, cases[i].text, n, step, true) != cases[i].settled)
				fail_msg("'%s' in '%s', %zu bytes at a time", cases[i].regex, cases[i].text, step);
		}
}

static void binary_output(void **state)
{
	assert_true(met("b$", "a\0b\n", 4, 1, false));	/* a NUL does not end the line */
	assert_true(met("^a", "a\0b\n", 4, 1, false));
	assert_true(met("ok$", "\0\0\0ok\r\n", 7, 7, false));
	assert_true(met("ok", "\xff\xfe\x80 ok", 6, 2, true));
}

static void long_lines(void **state)
{
	size_t n = 5 * EXPECT_LINE_MAX + 17;
	char *text = malloc(n);

	assert_non_null(text);
	memset(text, 'x', n);
	assert_false(met("y", text, n, 4096, true));
	memcpy(text + n - 4, "done", 4);
	assert_true(met("done$", text, n, 1000, true));
	memcpy(text + EXPECT_LINE_MAX - 4, "done", 4);		/* the end of a piece */
	assert_true(met("done$", text, EXPECT_LINE_MAX, 1000, false));
	free(text);
}

static void unsettled(void **state)
{
	struct expect *e = expecting("^> $");

	assert_false(expect_unsettled(e));
	expect_feed(e, "line\n", 5);
	assert_false(expect_unsettled(e));
	expect_feed(e, ">", 1);
	assert_true(expect_unsettled(e));
	expect_settle(e);
	assert_false(expect_unsettled(e) || expect_met(e));
	expect_feed(e, " ", 1);
	expect_settle(e);
	assert_true(expect_met(e));
	expect_feed(e, "more", 4);
	assert_true(expect_met(e) && !expect_unsettled(e));
	expect_destroy(e);
}

static void bad_regex(void **state)
{
	struct expect *e;
	char why[100] = "";

	assert_int_equal(expect_create("a(b", &e, why, sizeof why), -EINVAL);
	assert_string_not_equal(why, "");
	expect_destroy(NULL);
}

/* ---- keys ------------------------------------------------------------------------------------------------------- */

static void keys(void **state)
{
	static const struct {
		unsigned char typed;
		int means;
	} cases[] = {
		{ 'x', 'x' }, { 3, 3 }, { 0xff, 0xff }, { 0, 0 },
		{ 1, TTY_NOTHING }, { 'x', TTY_LEAVE },
		{ 1, TTY_NOTHING }, { 1, 1 }, { 'x', 'x' },
		{ 1, TTY_NOTHING }, { 'a', 1 },
		{ 1, TTY_NOTHING }, { 'h', TTY_HELP },
		{ 1, TTY_NOTHING }, { 's', TTY_STATS },
		{ 1, TTY_NOTHING }, { 'z', TTY_NOTHING }, { 'z', 'z' },
	};
	bool escaped = false;

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_int_equal(tty_key(&escaped, cases[i].typed), cases[i].means);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_in_order), cmocka_unit_test(input_in_order),
		cmocka_unit_test(unread_input_comes_back), cmocka_unit_test(our_indices_are_ours),
		cmocka_unit_test(mad_indices), cmocka_unit_test(random_indices), cmocka_unit_test(no_ring),
		cmocka_unit_test(lines), cmocka_unit_test(binary_output), cmocka_unit_test(long_lines),
		cmocka_unit_test(unsettled), cmocka_unit_test(bad_regex), cmocka_unit_test(keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
