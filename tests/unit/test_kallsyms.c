/*
 * test_kallsyms.c - Linux' own symbol tables, in both layouts, damaged, and imitated.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/symbols.h"

#define SYMS	1000u
#define BASE	0xffffffff81000000ull
#define LONG	200u		/* a name of so many characters, whose length takes two bytes */

/* An image with tables as scripts/kallsyms.c writes them; no compression but "fn_" for token 1. */
static uint8_t image[1 << 20];
static size_t used;
static size_t at_markers, at_names, at_tokens;

static void align(void)
{
	used = (used + 7) & ~7ull;
}

static void put(const void *p, size_t n)
{
	memcpy(image + used, p, n);
	used += n;
}

static void put32(uint32_t n)
{
	put(&n, 4);
}

static void put_offsets(bool percpu)
{
	uint64_t base = BASE;

	align();
	for (unsigned i = 0; i < SYMS; i++)
		put32(!percpu ? i * 16 : i < 10 ? i * 8 : (uint32_t)(-1 - (int)((i - 10) * 16)));
	align();
	put(&base, 8);
}

static void put_names(void)
{
	uint32_t markers[SYMS / 256 + 1];
	uint64_t n = SYMS;
	char name[LONG + 1];

	align();
	put(&n, 8);
	at_names = used;
	for (unsigned i = 0; i < SYMS; i++) {
		size_t len;

		if (i % 256 == 0)
			markers[i / 256] = used - at_names;
		memset(name, 'x', sizeof name);
		len = i == 500 ? LONG : (size_t)snprintf(name, sizeof name, "%c\1%u", i % 2 ? 'T' : 't', i);
		if (i == 500)
			name[0] = 'T';
		if (len > 127)
			put((uint8_t[]){ 0x80 | (len & 0x7f), len >> 7 }, 2);
		else
			put((uint8_t[]){ len }, 1);
		put(name, len);
	}
	align();
	at_markers = used;
	put(markers, sizeof markers);
}

static void put_tokens(void)
{
	uint16_t index[256];
	char text[2] = "";

	align();
	at_tokens = used;
	for (unsigned i = 0; i < 256; i++) {
		index[i] = used - at_tokens;
		text[0] = i >= ' ' && i < 127 ? i : 0;
		if (i == 1)
			put("fn_", 4);
		else
			put(text, strlen(text) + 1);
	}
	align();
	put(index, sizeof index);
}

enum layout { OLD, OLD_WITH_SEQS, NEW };

static void make(enum layout layout, bool percpu)
{
	memset(image, 0xcc, sizeof image);
	used = 4096;
	memset(image + used, 0, sizeof image / 2);
	put("0\0" "1\0" "2\0" "3\0" "4\0" "5\0" "6\0" "7\0" "8\0" "9", 20);	/* looks like tokens at first */
	if (layout != NEW)
		put_offsets(percpu);
	put_names();
	if (layout == OLD_WITH_SEQS) {
		align();
		used += 3 * SYMS;
	}
	put_tokens();
	if (layout == NEW)
		put_offsets(percpu);
	align();
}

static void assert_name(const struct symbols *s, uint64_t addr, const char *name)
{
	char buf[300];

	assert_string_equal(symbols_name(s, addr, buf, sizeof buf), name);
}

static void layouts(void **state)
{
	for (unsigned i = 0; i < 6; i++) {
		bool percpu = i % 2;
		struct symbols *s;
		uint64_t start;

		make(i / 2, percpu);
		assert_int_equal(symbols_from_kallsyms(image, used, &s), 0);
		assert_int_equal(symbols_count(s), percpu ? SYMS - 10 : SYMS);	/* per-CPU offsets are no addresses */
		assert_name(s, BASE, percpu ? "fn_10" : "fn_0");
		assert_name(s, BASE + 16 * 300 + 5, percpu ? "fn_310+0x5" : "fn_300+0x5");
		assert_true(symbols_start(s, BASE + 16 * 300 + 5, &start));
		assert_int_equal(start, BASE + 16 * 300);
		assert_false(symbols_start(s, 0x1000, &start));
		symbols_free(s);
	}
	make(OLD, false);
	struct symbols *s;
	char name[LONG];
	assert_int_equal(symbols_from_kallsyms(image, used, &s), 0);
	memset(name, 'x', sizeof name);
	name[LONG - 1] = 0;
	assert_name(s, BASE + 16 * 500, name);
	symbols_free(s);
}

static void none(void **state)
{
	struct symbols *s;

	memset(image, 0, sizeof image);
	assert_int_equal(symbols_from_kallsyms(image, sizeof image, &s), -ENOENT);
	assert_int_equal(symbols_from_kallsyms(image, 0, &s), -ENOENT);
	make(OLD, true);
	image[at_markers + 4]++;
	assert_int_equal(symbols_from_kallsyms(image, used, &s), -ENOENT);
	make(OLD, true);
	image[at_names]++;
	assert_int_equal(symbols_from_kallsyms(image, used, &s), -ENOENT);
	make(OLD, true);
	for (size_t n = 0; n < used; n += 61) {		/* cut short anywhere */
		int r = symbols_from_kallsyms(image, n, &s);

		assert_int_equal(r, -ENOENT);
	}
}

/* Bytes changed at random: names may differ, but nothing is read that is not there (in a sanitizer build), and it ends. */
static void damaged(void **state)
{
	uint8_t *copy;
	struct symbols *s;
	char buf[64];

	srand(7);
	for (unsigned round = 0; round < 400; round++) {
		make(round % 3, round & 1);
		copy = malloc(used);		/* of exactly that size */
		memcpy(copy, image, used);
		for (unsigned i = 0; i <= round % 20; i++)
			copy[4096 + rand() % (used - 4096)] = rand();
		if (!symbols_from_kallsyms(copy, used, &s)) {
			symbols_name(s, BASE + rand() % (16 * SYMS), buf, sizeof buf);
			symbols_free(s);
		}
		free(copy);
	}
}

/* A great many numbers that could be num_syms, each followed by names that never seem to end. */
static void imitated(void **state)
{
	size_t size = 24u << 20, tail;
	uint8_t *big = malloc(size);
	struct symbols *s;

	make(NEW, true);
	tail = used - at_tokens;
	for (size_t i = 0; i < size - tail; i += 8)
		memcpy(big + i, &(uint64_t){ 0x1000ff }, 8);
	memcpy(big + ((size - tail) & ~7ull), image + at_tokens, tail);
	assert_int_equal(symbols_from_kallsyms(big, size, &s), -ENOENT);
	memset(big, 1, size - tail);
	for (size_t i = 0; i < size - tail - 4096; i += 1024)
		memcpy(big + i, &(uint64_t){ 0x3fffff }, 8);
	assert_int_equal(symbols_from_kallsyms(big, size, &s), -ENOENT);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts), cmocka_unit_test(none), cmocka_unit_test(damaged), cmocka_unit_test(imitated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
