/*
 * test_shim.c - hooking a kernel's hypercall sites: which are found, what is written where, and that nothing else changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm/image.h"
#include "vmm/shim_abi.h"
#include "vmm/vm.h"

extern const char __start_shim_text[], shim_call[], shim_iret[];

/* push %rcx; push %r11; syscall; pop %r11; pop %rcx: all but the return */
#define CALL		0x51, 0x41, 0x53, 0x0f, 0x05, 0x41, 0x5b, 0x59
#define CALL_BYTES	8u
/* push %rcx; push %r11; push %rax; mov $23, %eax; syscall */
#define IRET		0x51, 0x41, 0x53, 0x50, 0xb8, 0x17, 0, 0, 0, 0x0f, 0x05
#define IRET_BYTES	11u
#define INT3_8		0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc
#define INT3_9		INT3_8, 0xcc
#define ALL		(~0u)

struct text {
	uint8_t *p;		/* patched, then undone; ends where the segment does, so that a sanitizer sees what lies behind */
	uint8_t *was, *now;	/* before and after */
	size_t n;
	unsigned sites;
};

static struct text patch(const uint8_t *bytes, size_t n, unsigned features)
{
	struct text t = { malloc(n), malloc(n), malloc(n), n, 0 };
	struct vmm_config config = { .shim = features };
	struct vm vm = { .config = &config, .ram = t.p };
	struct image img = { .nr_segments = 1, .segments = { { .pa = 0, .memsz = n, .filesz = n } } };

	assert_non_null(t.p);
	assert_non_null(t.was);
	assert_non_null(t.now);
	memcpy(t.p, bytes, n);
	memcpy(t.was, bytes, n);
	shim_patch_kernel(&vm, &img);
	t.sites = vm.shim_sites;
	memcpy(t.now, t.p, n);
	return t;
}
#define PATCH(features, ...) patch((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }), features)

static void done(struct text *t)
{
	free(t->p);
	free(t->was);
	free(t->now);
}

static uint64_t va_of(const char *symbol)
{
	return SHIM_VA + (uint64_t)(symbol - __start_shim_text);
}

/* The pointer that the jump at `at` goes through lies in what was padding, behind an int3 that stays. Undoes it all. */
static void check_jump(struct text *t, size_t at, uint8_t op, uint64_t target)
{
	int32_t rel;
	int64_t slot;
	uint64_t pointer;

	assert_int_equal(t->p[at], 0xff);
	assert_int_equal(t->p[at + 1], op);
	memcpy(&rel, t->p + at + 2, 4);
	slot = (int64_t)at + 6 + rel;
	assert_in_range(slot, 1, t->n - 8);
	memcpy(&pointer, t->p + slot, 8);
	assert_int_equal(pointer, target);
	assert_int_equal(t->now[slot - 1], 0xcc);	/* perhaps the last byte of an iret's site */
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(t->was[slot + i], 0xcc);
	memset(t->p + slot, 0xcc, 8);
	memcpy(t->p + at, t->was + at, 6);
}

static void check_call(struct text *t, size_t at)
{
	check_jump(t, at, 0x15, va_of(shim_call));
	assert_int_equal(t->p[at + 6], 0x66);		/* the two bytes left over are one instruction */
	assert_int_equal(t->p[at + 7], 0x90);
	memcpy(t->p + at + 6, t->was + at + 6, 2);
}

static void check_iret(struct text *t, size_t at)
{
	check_jump(t, at + 4, 0x25, va_of(shim_iret));	/* what it pushed stays pushed */
	assert_int_equal(t->p[at + 10], 0xcc);
	t->p[at + 10] = t->was[at + 10];
}

/* Whatever is not a hook or its pointer is as it was. */
static void check_rest(struct text *t)
{
	assert_memory_equal(t->p, t->was, t->n);
	done(t);
}

static void check_unchanged(struct text t)
{
	assert_int_equal(t.sites, 0);
	check_rest(&t);
}

/* What follows the site is the kernel's to rewrite: `ret`, `jmp __x86_return_thunk`, with or without int3 behind. */
static void test_returns(void **state)
{
	struct text t = PATCH(ALL, CALL, 0xc3, INT3_9);

	assert_int_equal(t.sites, 1);
	check_call(&t, 0);
	check_rest(&t);

	t = PATCH(ALL, CALL, 0xe9, 1, 2, 3, 4, 0xcc, INT3_9);
	assert_int_equal(t.sites, 1);
	check_call(&t, 0);
	check_rest(&t);

	t = PATCH(ALL, 0x90, CALL, 0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0x90, INT3_9);
	assert_int_equal(t.sites, 1);
	check_call(&t, 1);
	check_rest(&t);
}

static void test_iret(void **state)
{
	struct text t = PATCH(ALL, 0x0f, 0x0b, IRET, 0x0f, 0x0b, INT3_9);

	assert_int_equal(t.sites, 1);
	check_iret(&t, 2);
	check_rest(&t);

	check_unchanged(PATCH(ALL & ~SHIM_DOES(iret), IRET, 0x0f, 0x0b, INT3_9));
}

static void test_switched_off(void **state)
{
	check_unchanged(PATCH(0, CALL, 0xc3, INT3_9, IRET));
}

/* Not even one more site of a pattern is near enough: a user-space system call, another number, other registers. */
static void test_others_stay(void **state)
{
	check_unchanged(PATCH(ALL, 0x0f, 0x05, 0xc3, INT3_9, INT3_9));
	check_unchanged(PATCH(ALL, 0x51, 0x41, 0x53, 0x0f, 0x05, 0x41, 0x5b, 0xc3, INT3_9));
	check_unchanged(PATCH(ALL, 0x52, 0x41, 0x53, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3, INT3_9));
	check_unchanged(PATCH(ALL, 0x51, 0x41, 0x53, 0x50, 0xb8, 0x18, 0, 0, 0, 0x0f, 0x05, INT3_9));
	check_unchanged(PATCH(ALL, 0xb8, 0x17, 0, 0, 0, 0x0f, 0x05, INT3_9));
	check_unchanged(PATCH(ALL, 0x51, 0x41, 0x53, 0x0f, 0x34, 0x41, 0x5b, 0x59, INT3_9));
}

/* A pointer needs eight bytes of padding behind one that stays. */
static void test_padding(void **state)
{
	struct text t;

	check_unchanged(PATCH(ALL, CALL, 0xc3));
	check_unchanged(PATCH(ALL, CALL, 0xc3, INT3_8));
	check_unchanged(PATCH(ALL, CALL, 0xc3, INT3_8, 0x90, INT3_8, 0x90, 0xcc, 0xcc, 0xcc, 0xcc));
	check_unchanged(PATCH(ALL, IRET, INT3_8));

	t = PATCH(ALL, INT3_9, 0x90, CALL, 0xc3);	/* before the site */
	assert_int_equal(t.sites, 1);
	check_call(&t, 10);
	check_rest(&t);

	t = PATCH(ALL, CALL, 0xc3, INT3_8, 0x90, INT3_9);	/* the first run is too short */
	assert_int_equal(t.sites, 1);
	check_call(&t, 0);
	check_rest(&t);
}

/* Each site has a pointer of its own; where the padding ends, so does the hooking. */
static void test_many_sites(void **state)
{
	struct text t = PATCH(ALL, CALL, 0xc3, INT3_9, CALL, 0xc3, INT3_9, INT3_9, IRET, CALL, 0xc3, INT3_9);

	assert_int_equal(t.sites, 4);
	check_call(&t, 0);
	check_call(&t, 18);
	check_iret(&t, 45);
	check_call(&t, 56);
	check_rest(&t);

	t = PATCH(ALL, CALL, CALL, CALL, IRET, INT3_9, INT3_9);
	assert_int_equal(t.sites, 2);
	check_call(&t, 0);
	check_call(&t, 8);
	check_rest(&t);
}

/* A pattern may end with the segment, but not beyond it; nor may it begin before it. */
static void test_ends_of_a_segment(void **state)
{
	static const uint8_t call[] = { INT3_9, CALL }, iret[] = { INT3_9, IRET };
	struct text t = patch(call, sizeof call, ALL);

	assert_int_equal(t.sites, 1);
	check_call(&t, 9);
	check_rest(&t);
	t = patch(iret, sizeof iret, ALL);
	assert_int_equal(t.sites, 1);
	check_iret(&t, 9);
	check_rest(&t);

	for (size_t cut = 1; cut < CALL_BYTES; cut++)
		check_unchanged(patch(call, sizeof call - cut, ALL));
	for (size_t cut = 1; cut < IRET_BYTES; cut++)
		check_unchanged(patch(iret, sizeof iret - cut, ALL));
	check_unchanged(PATCH(ALL, 0x41, 0x53, 0x0f, 0x05, 0x41, 0x5b, 0x59, INT3_9));
	check_unchanged(PATCH(ALL, 0x53, 0x50, 0xb8, 0x17, 0, 0, 0, 0x0f, 0x05, INT3_9));
	check_unchanged(PATCH(ALL, 0x0f, 0x05, INT3_9));
	check_unchanged(PATCH(ALL, 0x0f));
	for (size_t cut = 1; cut <= 8; cut++) {	/* padding that the end cuts short */
		static const uint8_t text[] = { CALL, INT3_9 };

		check_unchanged(patch(text, sizeof text - cut, ALL));
	}
}

/* Several segments, at their places in RAM: sites and padding of one are no business of the other. */
static void test_segments(void **state)
{
	static const uint8_t part[] = { CALL, 0xc3, INT3_9 };
	const size_t n = sizeof part, size = 4096;
	struct vmm_config config = { .shim = ALL };
	struct text t = { malloc(size), malloc(size), malloc(size), size, 0 };
	struct vm vm = { .config = &config, .ram = t.p };
	struct image img = { .nr_segments = 3, .segments = {
		{ .pa = 100, .memsz = n, .filesz = n },
		{ .pa = 1000, .memsz = n, .filesz = 9 },	/* its padding is not in the file */
		{ .pa = 2001, .memsz = 500, .filesz = n },
	} };

	memset(t.p, 0x90, size);
	memcpy(t.p + 100, part, n);
	memcpy(t.p + 1000, part, n);
	memcpy(t.p + 2001, part, n);
	memcpy(t.p + 3000, part, n);				/* in no segment */
	memcpy(t.was, t.p, size);
	shim_patch_kernel(&vm, &img);
	memcpy(t.now, t.p, size);
	assert_int_equal(vm.shim_sites, 2);
	check_call(&t, 100);
	check_call(&t, 2001);
	check_rest(&t);
}

/* Random strings of pieces: every whole pattern is hooked while there is padding, nothing else is touched. */
static void test_random_text(void **state)
{
	static const uint8_t pieces[][12] = { { CALL }, { IRET }, { INT3_9 }, { 0xcc, 0xcc, 0xcc }, { 0xc3 }, { 0x0f, 0x05 },
					      { 0x51, 0x41, 0x53 }, { 0x41, 0x5b, 0x59 }, { 0xb8, 0x17, 0, 0, 0 }, { 0 } };
	static const uint8_t lengths[] = { CALL_BYTES, IRET_BYTES, 9, 3, 1, 2, 3, 3, 5, 1 };
	unsigned hooked = 0;

	srand(7);
	for (unsigned round = 0; round < 3000; round++) {
		size_t n = 0;
		uint8_t bytes[600];
		struct text t;
		unsigned found = 0;

		for (unsigned i = 0; i < 40; i++) {
			unsigned k = (unsigned)rand() % 10;

			memcpy(bytes + n, pieces[k], lengths[k]);
			n += lengths[k];
		}
		t = patch(bytes, n, ALL);
		for (size_t at = 0; at + CALL_BYTES <= n; at++) {
			bool call = !memcmp(bytes + at, (const uint8_t[]){ CALL }, CALL_BYTES);
			bool iret = n - at >= IRET_BYTES - 1 &&	/* the first push may be any */
				    !memcmp(bytes + at, (const uint8_t[]){ IRET } + 1, IRET_BYTES - 1);

			if ((call && t.p[at] == 0xff) || (iret && t.p[at + 3] == 0xff)) {
				call ? check_call(&t, at) : check_iret(&t, at - 1);
				found++;
			}
		}
		assert_int_equal(found, t.sites);
		hooked += found;
		check_rest(&t);
	}
	assert_in_range(hooked, 3000, 30000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_returns),
		cmocka_unit_test(test_iret),
		cmocka_unit_test(test_switched_off),
		cmocka_unit_test(test_others_stay),
		cmocka_unit_test(test_padding),
		cmocka_unit_test(test_many_sites),
		cmocka_unit_test(test_ends_of_a_segment),
		cmocka_unit_test(test_segments),
		cmocka_unit_test(test_random_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
