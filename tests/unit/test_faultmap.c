/*
 * test_faultmap.c - the histogram of faults: nothing is lost or moved to a wrong place when its scales change.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/faultmap.h"

struct fault {
	uint64_t va, ns;
	enum faultmap_class class;
};

static uint64_t region_first(const json_t *region)
{
	return strtoull(json_string_value(json_object_get(region, "first")), NULL, 16);
}

static uint64_t number(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	assert_true(json_is_integer(v));
	return json_integer_value(v);
}

/* What the JSON counts for the place and time of `f`, all classes but `f`'s left out. */
static uint64_t count_at(const json_t *map, const struct fault *f)
{
	json_t *cell, *cells = json_object_get(map, "cells"), *regions = json_object_get(map, "regions");
	uint64_t bucket = f->ns / number(map, "bucket_ns"), sum = 0;
	size_t i;

	json_array_foreach(cells, i, cell) {
		const json_t *region = json_array_get(regions, json_integer_value(json_array_get(cell, 0)));
		uint64_t first = region_first(region), bytes = number(region, "bytes");

		if (f->va - first < bytes && (uint64_t)json_integer_value(json_array_get(cell, 1)) == bucket)
			sum += json_integer_value(json_array_get(cell, 2 + f->class));
	}
	return sum;
}

static uint64_t count_all(const json_t *map)
{
	json_t *cell;
	uint64_t sum = 0;
	size_t i;

	json_array_foreach(json_object_get(map, "cells"), i, cell)
		for (unsigned c = 0; c < FAULTMAP_NR_CLASSES; c++)
			sum += json_integer_value(json_array_get(cell, 2 + c));
	return sum;
}

/* Every fault counts as often as there are others in the same cell: so each is where it belongs. */
static void check_all(const json_t *map, const struct fault *faults, unsigned n)
{
	json_t *regions = json_object_get(map, "regions"), *region;
	uint64_t before = 0, bucket_ns = number(map, "bucket_ns");
	size_t i;

	assert_int_equal(count_all(map), n);
	assert_true(number(map, "buckets") <= FAULTMAP_BUCKETS);
	assert_true(json_array_size(regions) <= FAULTMAP_ROWS);
	json_array_foreach(regions, i, region) {
		assert_true(!i || region_first(region) > before);
		before = region_first(region);
		if (i)
			assert_true(before - region_first(json_array_get(regions, i - 1)) >=
				    number(json_array_get(regions, i - 1), "bytes"));
	}
	for (unsigned f = 0; f < n; f++) {
		uint64_t expected = 0, bytes = 0, first = 0;

		json_array_foreach(regions, i, region)
			if (faults[f].va - region_first(region) < number(region, "bytes")) {
				first = region_first(region);
				bytes = number(region, "bytes");
			}
		assert_true(bytes);
		for (unsigned g = 0; g < n; g++)
			expected += faults[g].class == faults[f].class && faults[g].va - first < bytes &&
				    faults[g].ns / bucket_ns == faults[f].ns / bucket_ns;
		assert_int_equal(count_at(map, &faults[f]), expected);
	}
}

static uint64_t next(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	return *s ^= *s << 17;
}

/* Addresses and times over ever larger ranges, so that both scales have to change again and again. */
static void make_faults(struct fault *f, unsigned n, uint64_t seed, unsigned va_bits, unsigned ns_bits)
{
	for (unsigned i = 0; i < n; i++) {
		f[i].va = next(&seed) & ((1ull << (12 + i * (va_bits - 12) / n)) - 1);
		if (next(&seed) & 1)
			f[i].va = ~f[i].va;
		f[i].ns = next(&seed) & ((1ull << (10 + i * (ns_bits - 10) / n)) - 1);
		f[i].class = next(&seed) % FAULTMAP_NR_CLASSES;
	}
}

static void fill(struct faultmap *m, const struct fault *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		faultmap_add(m, f[i].va, f[i].ns, f[i].class);
}

static void test_scales(void **state)
{
	enum { N = 400 };
	struct fault f[N];
	static const unsigned bits[][2] = { { 13, 12 }, { 30, 30 }, { 47, 27 }, { 22, 40 }, { 47, 62 } };

	for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++) {
		struct faultmap *m = faultmap_new();
		json_t *map;

		make_faults(f, N, 77 + i, bits[i][0], bits[i][1]);
		fill(m, f, N);
		map = faultmap_json(m);
		assert_non_null(map);
		check_all(map, f, N);
		json_decref(map);
		free(m);
	}
}

static void test_merge(void **state)
{
	enum { N = 200 };
	struct fault f[3 * N];

	for (unsigned round = 0; round < 3; round++) {
		struct faultmap *sum = faultmap_new();
		json_t *map;

		make_faults(f, N, 5, 47, 20);
		make_faults(f + N, N, 6, 24, 45);
		make_faults(f + 2 * N, N, 7, 47, 45);
		for (unsigned i = 0; i < 3; i++) {
			struct faultmap *m = faultmap_new();

			fill(m, f + (i + round) % 3 * N, N);
			faultmap_merge(sum, m);
			free(m);
		}
		map = faultmap_json(sum);
		check_all(map, f, 3 * N);
		json_decref(map);
		free(sum);
	}
}

/* Scattered places with few faults each go into few rows; the busy ones keep theirs, with no strangers in them. */
static void test_busy_rows(void **state)
{
	const uint64_t busy[] = { 0x400000, 0x600000, 0xffffffff81000000, 0xffffffff81200000, 0xffff888000000000 };
	struct faultmap *m = faultmap_new();
	uint64_t seed = 99;
	json_t *map;

	for (unsigned i = 0; i < 20000; i++)
		faultmap_add(m, i % 4 ? busy[i % 5] : 0x7f0000000000 + (next(&seed) & 0xffffff0000), i, FAULTMAP_hidden);
	map = faultmap_json(m);
	for (unsigned i = 0; i < 5; i++) {
		json_t *region;
		bool found = false;
		size_t j;

		json_array_foreach(json_object_get(map, "regions"), j, region)
			found |= region_first(region) == busy[i] && number(region, "bytes") == 2 << 20;
		assert_true(found);
	}
	json_decref(map);
	free(m);
}

static void test_empty(void **state)
{
	struct faultmap *m = faultmap_new();
	json_t *map = faultmap_json(m);

	assert_int_equal(json_array_size(json_object_get(map, "regions")), 0);
	assert_int_equal(json_array_size(json_object_get(map, "classes")), FAULTMAP_NR_CLASSES);
	assert_int_equal(number(map, "buckets"), 0);
	json_decref(map);
	free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scales),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_busy_rows),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
