/*
 * test_profile.c - stacks: walked in a made-up kernel, counted, folded, drawn.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/profile.h"
#include "vmm/profile_vmm.h"
#include "vmm/symbols.h"

/* ---- a kernel of eight functions of 256 bytes, and its stack -------------------------------------------------------- */

#define TEXT	0xffffffff81000000ull
#define STACK	0xffffc90000004000ull
#define WORDS	2048u

enum { MAIN, READ, VFS, DRIVER, COPY, COLD, THUNK, OTHER, FUNCTIONS };

static const char *const names[FUNCTIONS] = { "main", "read", "vfs", "driver", "copy", "copy.cold", "__x86_indirect_thunk_rax",
					      "other" };
static uint8_t text[8192];
static uint64_t stack_words[WORDS];
static unsigned stack_readable = WORDS, reads;
static struct symbols *syms;
static struct profile_cache cache;

static uint64_t at(unsigned function, unsigned offset)
{
	return TEXT + function * 256 + offset;
}

static int read_memory(void *arg, uint64_t va, void *to, size_t n)
{
	reads++;
	if (va >= TEXT && va + n <= TEXT + sizeof text) {
		memcpy(to, text + (va - TEXT), n);
		return 0;
	}
	if (va >= STACK && va + n <= STACK + stack_readable * 8) {
		memcpy(to, (char *)stack_words + (va - STACK), n);
		return 0;
	}
	return -EFAULT;
}

/* An E8 or E9 with a target; returns the address behind it. */
static uint64_t put_rel(uint8_t opcode, unsigned function, unsigned offset, uint64_t target)
{
	int32_t rel = target - at(function, offset + 5);

	text[function * 256 + offset] = opcode;
	memcpy(text + function * 256 + offset + 1, &rel, 4);
	return at(function, offset + 5);
}

static uint64_t main_to_read, read_to_vfs, vfs_by_pointer, driver_to_copy, other_to_copy, other_by_thunk;

static int set_up(void **state)
{
	char map[] = "/tmp/umbra-test-profile-XXXXXX";
	int fd = mkstemp(map);
	FILE *f = fdopen(fd, "w");
	struct image_error err;

	for (unsigned i = 0; i < FUNCTIONS; i++)
		fprintf(f, "%llx T %s\n", (unsigned long long)at(i, 0), names[i]);
	fclose(f);
	if (symbols_load(map, 1 << 20, &syms, &err))
		return -1;
	unlink(map);
	memset(text, 0x90, sizeof text);
	memset(stack_words, 0, sizeof stack_words);
	memset(&cache, 0, sizeof cache);
	stack_readable = WORDS;
	reads = 0;
	main_to_read = put_rel(0xe8, MAIN, 16, at(READ, 0));
	read_to_vfs = put_rel(0xe8, READ, 32, at(VFS, 0));
	memcpy(text + VFS * 256 + 64, "\xff\x50\x18", 3);	/* call *0x18(%rax) */
	vfs_by_pointer = at(VFS, 67);
	driver_to_copy = put_rel(0xe8, DRIVER, 8, at(COPY, 0));
	other_to_copy = put_rel(0xe8, OTHER, 8, at(COPY, 0));
	other_by_thunk = put_rel(0xe8, OTHER, 80, at(THUNK, 0));
	put_rel(0xe9, COPY, 100, at(COLD, 0));
	return 0;
}

static int tear_down(void **state)
{
	symbols_free(syms);
	return 0;
}

/* "copy<driver<vfs", the callers found of `rip`. */
static const char *walk(uint64_t rip)
{
	static char line[2048];
	struct profile_stack s = { 0 };
	char name[64];
	size_t n = 0;

	profile_walk(&s, rip, STACK, syms, &cache, read_memory, NULL);
	*line = 0;
	for (unsigned i = 0; i < s.depth; i++) {
		assert_int_equal(s.frame[i].place, PROFILE_KERNEL);
		n += snprintf(line + n, sizeof line - n, "%s%s", i ? "<" : "",
			      symbols_name(syms, s.frame[i].addr, name, sizeof name));
	}
	return line;
}

static void proven_callers(void **state)
{
	stack_words[3] = driver_to_copy;
	stack_words[9] = vfs_by_pointer;
	stack_words[12] = read_to_vfs;
	stack_words[80] = main_to_read;
	assert_string_equal(walk(at(COPY, 50)), "driver<vfs<read<main");
	assert_string_equal(walk(at(COPY, 50)), "driver<vfs<read<main");	/* from the cache */
	assert_string_equal(walk(at(VFS, 1)), "read<main");
	assert_string_equal(walk(0), "vfs<read<main");				/* below: code of ours */
}

/* What lies there from earlier calls does not fit, or comes too early. */
static void stale_words(void **state)
{
	stack_words[1] = main_to_read;		/* leads to read, not to copy */
	stack_words[2] = at(OTHER, 40);		/* no call stands before it */
	stack_words[3] = vfs_by_pointer;	/* could be, but there is certainty further on */
	stack_words[6] = driver_to_copy;
	stack_words[20] = read_to_vfs;		/* not what called driver */
	stack_words[21] = vfs_by_pointer;
	stack_words[30] = read_to_vfs;
	assert_string_equal(walk(at(COPY, 50)), "driver<vfs<read");
}

static void split_functions(void **state)
{
	stack_words[5] = other_to_copy;		/* copy jumps to copy.cold */
	stack_words[8] = other_by_thunk;
	assert_string_equal(walk(at(COLD, 9)), "other<other");
	text[COPY * 256 + 100] = 0x90;		/* but known code is not read again */
	assert_string_equal(walk(at(COLD, 9)), "other<other");
	memset(&cache, 0, sizeof cache);
	assert_string_equal(walk(at(COLD, 9)), "other");
}

static void bounds(void **state)
{
	for (unsigned i = 0; i < WORDS; i++)	/* without end */
		stack_words[i] = vfs_by_pointer;
	struct profile_stack s = { .depth = 2 };
	profile_walk(&s, at(COPY, 50), STACK, syms, &cache, read_memory, NULL);
	assert_int_equal(s.depth, PROFILE_DEPTH);
	stack_readable = 64;			/* the stack ends */
	assert_string_equal(walk(at(COPY, 50)), "vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<"
			    "vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs<vfs");
	stack_readable = 0;
	assert_string_equal(walk(at(COPY, 50)), "");
	stack_readable = WORDS;
	s.depth = 0;
	profile_walk(&s, at(COPY, 50), STACK + 4, syms, &cache, read_memory, NULL);	/* what no stack pointer is */
	profile_walk(&s, 0x400000, STACK, syms, &cache, read_memory, NULL);
	profile_walk(&s, at(COPY, 50), STACK, NULL, &cache, read_memory, NULL);
	assert_int_equal(s.depth, 0);
}

/* Stacks and code at random: it ends, with no more reads than its bounds allow. */
static void noise(void **state)
{
	srand(3);
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned i = 0; i < WORDS; i++)
			stack_words[i] = rand() % 2 ? TEXT + rand() % (2 * sizeof text) : (uint64_t)rand() << 32 | rand();
		for (unsigned i = 0; i < sizeof text; i++)
			text[i] = rand() % 4 ? rand() : (const uint8_t[]){ 0xe8, 0xe9, 0xff, 0x0f }[rand() % 4];
		memset(&cache, 0, sizeof cache);
		reads = 0;
		walk(TEXT + rand() % sizeof text);
		assert_in_range(reads, 1, 100000);
	}
}

/* ---- counting and folding ------------------------------------------------------------------------------------------- */

static void folded(void **state)
{
	struct profile_set *a = profile_set_create(), *b = profile_set_create();
	struct profile_stack s = { .depth = 2, .frame = { { at(COPY, 0), PROFILE_KERNEL }, { at(VFS, 0), PROFILE_KERNEL } } };
	char *text_out;

	profile_set_add(a, &s, 2);
	profile_set_add(a, &s, 1);
	profile_set_add(b, &s, 4);
	s = (struct profile_stack){ .depth = 1, .user = true, .frame = { { 0x401000, PROFILE_USER } } };
	profile_set_add(b, &s, 5);
	s = (struct profile_stack){ .depth = 2, .user = true, .frame = { { profile_vmm(0, 14), PROFILE_VMM }, { 0x401000, PROFILE_USER } } };
	profile_set_add(b, &s, 6);
	s = (struct profile_stack){ .depth = 1, .frame = { { 0, PROFILE_GATE } } };
	profile_set_add(b, &s, 7);
	s = (struct profile_stack){ .depth = 1, .frame = { { 0xffffffffa0001000, PROFILE_KERNEL } } };	/* a module's */
	profile_set_add(b, &s, 8);
	profile_set_merge(a, b);
	assert_int_equal(profile_set_samples(a), 33);
	text_out = profile_set_folded(a, syms);
	assert_string_equal(text_out, "kernel;0xffffffffa0001000 8\n"
				      "kernel;[gate] 7\n"
				      "kernel;vfs;copy 7\n"
				      "user;0x401000 5\n"
				      "user;0x401000;[umbra:page_fault] 6\n");
	free(text_out);
	text_out = profile_set_folded(b, NULL);
	assert_non_null(strstr(text_out, "kernel;0xffffffff81000200;0xffffffff81000400 4\n"));
	free(text_out);
	profile_set_destroy(a);
	profile_set_destroy(b);
}

/* More different stacks than there is room for. */
static void flood(void **state)
{
	struct profile_set *set = profile_set_create();
	struct profile_stack s = { .depth = 1, .user = true };
	char *text_out;

	for (unsigned i = 0; i < 70000; i++) {
		s.frame[0] = (struct profile_frame){ (uint64_t)i << 12, PROFILE_USER };
		profile_set_add(set, &s, 1);
	}
	assert_int_equal(profile_set_samples(set), 70000);
	assert_int_equal(profile_set_lost(set), 70000 - 65536);
	text_out = profile_set_folded(set, NULL);
	assert_non_null(strstr(text_out, "\nlost 4464\n"));
	free(text_out);
	profile_set_destroy(set);
}

/* ---- the flame graph ------------------------------------------------------------------------------------------------ */

static int draw(const char *lines, char **out)
{
	size_t size;
	FILE *f = open_memstream(out, &size);
	int r = flame_write(f, lines, "a <title> & \"more\"");

	fclose(f);
	return r;
}

/* Every element is closed, in order; text has no loose < or &. Enough of XML for what we write. */
static void assert_well_formed(const char *p)
{
	char open[16][16];
	unsigned depth = 0;

	assert_int_equal(strncmp(p, "<?xml", 5), 0);
	for (p = strchr(p, '>') + 1; *p; p++) {
		const char *end = strchr(p, '>');
		size_t n;

		if (*p == '&')
			assert_true(!strncmp(p, "&lt;", 4) || !strncmp(p, "&gt;", 4) || !strncmp(p, "&amp;", 5) || !strncmp(p, "&quot;", 6));
		if (*p != '<')
			continue;
		if (!strncmp(p, "<![CDATA[", 9)) {
			p = strstr(p, "]]>") + 2;
			continue;
		}
		assert_non_null(end);
		n = strcspn(p + 1, " />\n");
		if (p[1] == '/') {
			n = strcspn(p + 2, ">");
			assert_true(depth > 0 && strlen(open[depth - 1]) == n && !strncmp(open[depth - 1], p + 2, n));
			depth--;
		} else if (end[-1] != '/') {
			assert_true(depth < 16 && n < 16);
			snprintf(open[depth++], 16, "%.*s", (int)n, p + 1);
		}
		p = end;
	}
	assert_int_equal(depth, 0);
}

static void flame(void **state)
{
	char *svg;

	assert_int_equal(draw("kernel;a;b 50\nkernel;a;c<d>&e 25\nuser;0x401000 25\n", &svg), 0);
	assert_well_formed(svg);
	assert_non_null(strstr(svg, "<title>all (100 samples, 100.00 %)</title>"));
	assert_non_null(strstr(svg, "<title>kernel (75 samples, 75.00 %)</title>"));
	assert_non_null(strstr(svg, "<title>a (75 samples, 75.00 %)</title>"));
	assert_non_null(strstr(svg, "<title>c&lt;d&gt;&amp;e (25 samples, 25.00 %)</title>"));
	assert_non_null(strstr(svg, "<title>0x401000 (25 samples, 25.00 %)</title><rect x=\"895.00\""));	/* 10 + 3/4 of 1180 */
	assert_non_null(strstr(svg, "a &lt;title&gt; &amp; &quot;more&quot;"));
	assert_null(strstr(svg, "href"));		/* nothing is fetched */
	free(svg);
}

static void no_flame(void **state)
{
	static const char *const bad[] = { "", "kernel", "kernel;a x\n", "kernel;a \n", " 5\n", "a -5\n", "a 0\n",
					   "a 99999999999999999999999\n" };
	char *svg;

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(draw(bad[i], &svg), -EINVAL);
		free(svg);
	}
	assert_int_equal(draw("a 5", &svg), 0);		/* no newline at the end */
	assert_well_formed(svg);
	free(svg);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(proven_callers), TEST(stale_words), TEST(split_functions), TEST(bounds), TEST(noise), TEST(folded), TEST(flood),
		TEST(flame), TEST(no_flame),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
