/*
 * test_symbols.c - names for addresses, from ELF files and System.map.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/image_check.h"
#include "vmm/symbols.h"

static int load_text(const char *text, size_t n, struct symbols **out, struct image_error *err)
{
	char path[] = "/tmp/umbra-test-symbols-XXXXXX";
	int fd = mkstemp(path), ret;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
	ret = symbols_load(path, MIB, out, err);
	unlink(path);
	return ret;
}

static struct symbols *must_load(const char *text)
{
	struct image_error err = { "" };
	struct symbols *s = NULL;
	int ret = load_text(text, strlen(text), &s, &err);

	if (ret)
		fail_msg("%d %s", ret, err.text);
	return s;
}

static void check_name(const struct symbols *s, uint64_t addr, const char *want)
{
	char buf[64];

	assert_ptr_equal(symbols_name(s, addr, buf, sizeof(buf)), buf);
	assert_string_equal(buf, want);
}

static void test_system_map(void **state)
{
	struct symbols *s = must_load("ffffffff81000100 T start_kernel\n"	/* not sorted */
				      "ffffffff81000000 t aaa_local\n"
				      "ffffffff81000000 D aaa_data\n"
				      "ffffffff81000000 T _text\n"
				      "\n"
				      "0000000000000010 A percpu_offset\n"
				      "ffffffff81000200 t mod_init\t[module]\r\n"
				      "ffffffff81000300 T last");	/* no newline */

	assert_int_equal(symbols_count(s), 4);
	check_name(s, 0xffffffff81000000, "_text");
	check_name(s, 0xffffffff810000ff, "_text+0xff");
	check_name(s, 0xffffffff81000100, "start_kernel");
	check_name(s, 0xffffffff81000112, "start_kernel+0x12");
	check_name(s, 0xffffffff81000204, "mod_init+0x4");
	check_name(s, 0xffffffff81000300, "last");
	check_name(s, 0xffffffff81000300 + 0xfffff, "last+0xfffff");
	check_name(s, 0xffffffff81000300 + 0x100000, "0xffffffff81100300");	/* too far to mean it */
	check_name(s, 0xffffffff80ffffff, "0xffffffff80ffffff");
	check_name(s, 0x18, "0x18");	/* a null pointer has no name */
	check_name(s, UINT64_MAX, "0xffffffffffffffff");
	symbols_free(s);
}

static void test_lower_half(void **state)
{
	struct symbols *s = must_load("100000 T main\n100400 T other\n");

	check_name(s, 0x100008, "main+0x8");
	check_name(s, 0x100400, "other");
	symbols_free(s);
}

static void test_no_table(void **state)
{
	check_name(NULL, 0x1234, "0x1234");
	symbols_free(NULL);
}

static void test_small_buffers(void **state)
{
	struct symbols *s = must_load("ffffffff81000000 T a_rather_long_name\n");
	char full[64];

	symbols_name(s, 0xffffffff81000012, full, sizeof(full));
	assert_string_equal(full, "a_rather_long_name+0x12");
	for (size_t size = 1; size < sizeof(full); size++) {
		char *buf = malloc(size);
		size_t len = size - 1 < strlen(full) ? size - 1 : strlen(full);

		must(buf);
		symbols_name(s, 0xffffffff81000012, buf, size);
		assert_int_equal(strlen(buf), len);
		assert_memory_equal(buf, full, len);
		free(buf);
	}
	symbols_free(s);
}

#define TEXT(s)	s, sizeof(s) - 1

static void test_bad_maps(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *says;
	} maps[] = {
		{ TEXT(""), "no addresses" },
		{ TEXT("\n\n"), "no addresses" },
		{ TEXT("0000000000000000 T _text\n"), "no addresses" },
		{ TEXT("ffffffffffffffff B The real System.map is in the linux-image-6.1.0-dbg package\n"), "a stub" },
		{ TEXT("hello world\n"), "not a System.map" },
		{ TEXT("ffffffff81000000 T\n"), "not a System.map" },
		{ TEXT("ffffffff81000000 T \n"), "not a System.map" },
		{ TEXT("ffffffff81000000T x\n"), "not a System.map" },
		{ TEXT("11ffffffff81000000 T x\n"), "not a System.map" },
		{ TEXT(" ffffffff81000000 T x\n"), "not a System.map" },
		{ TEXT("-1 T x\n"), "not a System.map" },
		{ TEXT("ffffffff81000000 T a\0b\n"), "binary" },
	};

	struct image_error err = { "" };
	struct symbols *s;

	for (unsigned i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		check_error(load_text(maps[i].text, maps[i].n, &s, &err), &err, ENOEXEC, maps[i].says);
	check_error(symbols_load("/nonexistent", MIB, &s, &err), &err, ENOENT, "/nonexistent: no such file");
	check_error(symbols_load("/dev/zero", MIB, &s, &err), &err, EFBIG, "1 MiB");
}

static const struct make_segment segment[] = { { 0x100000, 0x100000, 16, 16 }, { 0 } };

static void test_elf_symbols(void **state)
{
	static const struct make_symbol list[] = {
		{ "file.c", 0xffffffff81000000, ELF64_ST_INFO(STB_LOCAL, STT_FILE) },
		{ "data", 0xffffffff81000000, ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT) },
		{ "local", 0xffffffff81000000, ELF64_ST_INFO(STB_LOCAL, STT_FUNC) },
		{ "global", 0xffffffff81000000, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC) },
		{ "", 0xffffffff81000010, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC) },
		{ "evil\033[2J", 0xffffffff81000020, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC) },
		{ "percpu", 0x20, ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT) },
		{ 0 }
	};
	struct blob b = make_elf(&(struct make_elf){ .segments = segment, .symbols = list });
	struct image *img = must_open(&b);
	struct symbols *s;

	assert_int_equal(symbols_from_image(img, &s), 0);
	image_close(img);	/* the table stands alone */
	blob_free(&b);
	assert_int_equal(symbols_count(s), 2);
	check_name(s, 0xffffffff81000018, "global+0x18");
	check_name(s, 0xffffffff81000021, "evil?[2J+0x1");
	check_name(s, 0x28, "0x28");
	symbols_free(s);
}

static void test_elf_without_symbols(void **state)
{
	struct blob b = make_elf(&(struct make_elf){ .segments = segment });
	struct image *img = must_open(&b);
	struct symbols *s;

	assert_int_equal(symbols_from_image(img, &s), -ENOENT);
	image_close(img);
	blob_free(&b);
}

/* Section 1 is .strtab, section 2 .symtab; see make_elf(). */
static void test_elf_hostile_symbols(void **state)
{
	static const struct make_symbol list[] = {
		{ "one", 0xffffffff81000000, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC) }, { 0 }
	};
#define SH(i, field)	(i), offsetof(Elf64_Shdr, field), sizeof(((Elf64_Shdr *)0)->field)
	static const struct {
		unsigned section;
		size_t at, bytes;
		uint64_t value;
		int ret;
		size_t count;
	} changes[] = {
		{ SH(2, sh_link), 99, -EBADMSG, 0 },
		{ SH(2, sh_offset), UINT64_MAX, -EBADMSG, 0 },
		{ SH(2, sh_size), UINT64_MAX, -EBADMSG, 0 },
		{ SH(1, sh_size), 1ull << 33, -EBADMSG, 0 },
		{ SH(1, sh_offset), 1ull << 62, -EBADMSG, 0 },
		{ SH(1, sh_size), 2, 0, 1 },	/* the name is cut, not read on */
		{ SH(1, sh_size), 1, 0, 0 },	/* the name lies outside */
		{ SH(1, sh_size), 0, 0, 0 },
		{ SH(2, sh_size), 47, 0, 0 },	/* half a symbol is none */
		{ SH(2, sh_size), 0, 0, 0 },
	};

	for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct blob b = make_elf(&(struct make_elf){ .segments = segment, .symbols = list });
		struct image *img;
		struct symbols *s;
		Elf64_Ehdr eh;

		memcpy(&eh, b.p, sizeof(eh));
		memcpy(b.p + eh.e_shoff + changes[i].section * sizeof(Elf64_Shdr) + changes[i].at, &changes[i].value,
		       changes[i].bytes);
		img = must_open(&b);
		assert_int_equal(symbols_from_image(img, &s), changes[i].ret);
		if (!changes[i].ret) {
			assert_int_equal(symbols_count(s), changes[i].count);
			if (changes[i].count)
				check_name(s, 0xffffffff81000001, "o+0x1");
			symbols_free(s);
		}
		image_close(img);
		blob_free(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_system_map),
		cmocka_unit_test(test_lower_half),
		cmocka_unit_test(test_no_table),
		cmocka_unit_test(test_small_buffers),
		cmocka_unit_test(test_bad_maps),
		cmocka_unit_test(test_elf_symbols),
		cmocka_unit_test(test_elf_without_symbols),
		cmocka_unit_test(test_elf_hostile_symbols),
	};

	return cmocka_run_group_tests_name("symbols", tests, NULL, NULL);
}
