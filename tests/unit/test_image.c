/*
 * test_image.c - kernel images as files: every compression, every way to be damaged, too big, or something else.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <xen/features.h>

#include "tests/unit/image_check.h"

static struct blob text_blob(const char *s)
{
	struct blob b = { 0 };

	blob_add(&b, s, strlen(s));
	return b;
}

static char *temp_file(const void *data, size_t n)
{
	char *path = strdup("/tmp/umbra-test-image-XXXXXX");
	int fd;

	must(path);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	close(fd);
	return path;
}

/* ---- what opens -------------------------------------------------------------------------------------------------- */

static void check_same(const struct blob *file, const struct blob *elf, const char *how)
{
	struct image *img = must_open(file);

	if (how)
		assert_string_equal(img->how, how);
	assert_int_equal(img->elf_size, elf->n);
	assert_memory_equal(img->elf, elf->p, elf->n);
	image_close(img);
}

/* bzImage, whole file, and a packed bzImage, with each compression. */
static void check_every_packing(struct blob elf)
{
	for (unsigned i = 0; i < MAKE_PACKS; i++) {
		const struct make_pack *p = &make_packs[i];
		struct blob bz = make_packed_bzimage(p, elf.p, elf.n), whole = p->pack(elf.p, elf.n);
		struct blob both = p->pack(bz.p, bz.n);
		char how[64];

		snprintf(how, sizeof(how), "bzImage, %s, ELF", p->name);
		check_same(&bz, &elf, how);
		snprintf(how, sizeof(how), "%s, ELF", p->name);
		check_same(&whole, &elf, how);
		snprintf(how, sizeof(how), "%s, bzImage, %s, ELF", p->name, p->name);
		check_same(&both, &elf, how);
		blob_free(&bz);
		blob_free(&whole);
		blob_free(&both);
	}
}

static void test_every_packing(void **state)
{
	struct blob elf = make_linux(700000);
	uint64_t noise = 1;

	check_every_packing(elf);
	/* Bytes that no compression makes smaller are stored as they are. */
	for (size_t i = 4096; i < 600000; i++) {
		noise = noise * 6364136223846793005 + 1442695040888963407;
		elf.p[i] = noise >> 56;
	}
	check_every_packing(elf);
	blob_free(&elf);
}

/* More than one of the blocks of lz4 (8 MiB), lzo (256 KiB) and bzip2 (900 KB); the last one partial, and whole. */
static void test_many_blocks(void **state)
{
	struct blob elf = make_linux(8 * MIB + 12345), bz;

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < MAKE_PACKS; i++) {
			bz = make_packed_bzimage(&make_packs[i], elf.p, elf.n);
			check_same(&bz, &elf, NULL);
			blob_free(&bz);
		}
		blob_add(&elf, NULL, 16 * MIB - elf.n);	/* bytes behind an ELF file are nobody's (Linux: relocations) */
	}
	blob_free(&elf);
}

static void test_bzimage_plain_payload(void **state)
{
	struct blob elf = make_linux(5000), bz = make_bzimage(elf.p, elf.n, false, 0);
	struct image *img = must_open(&bz);

	assert_string_equal(img->how, "bzImage, ELF");
	assert_string_equal(img->version, "6.1.0-test (builder@host) #1");
	assert_memory_equal(img->elf, elf.p, elf.n);
	image_close(img);
	blob_free(&bz);
	blob_free(&elf);
}

static void test_bzimage_version_is_harmless(void **state)
{
	struct blob elf = make_linux(5000), bz = make_bzimage(elf.p, elf.n, false, 0);
	struct image *img;
	uint16_t at;

	memcpy(bz.p + 0x300, "\033[2Jx\n", 7);
	img = must_open(&bz);
	assert_string_equal(img->version, "?[2Jx?");
	image_close(img);

	memset(bz.p + 0x300, 'v', 0x200);	/* not terminated within the field */
	img = must_open(&bz);
	assert_int_equal(strlen(img->version), sizeof(img->version) - 1);
	image_close(img);

	at = 0xffff;				/* outside the file */
	memcpy(bz.p + 0x20e, &at, 2);
	img = must_open(&bz);
	assert_string_equal(img->version, "");
	image_close(img);
	blob_free(&bz);
	blob_free(&elf);
}

static void test_debian_kernel(void **state)
{
	const char *path = getenv("UMBRA_KERNEL") ? getenv("UMBRA_KERNEL") : "cache/vmlinuz";
	struct image_error err = { "" };
	struct image *img;
	struct blob b;
	int ret;

	if (access(path, R_OK)) {
		print_message("skip test_debian_kernel: no %s (set UMBRA_KERNEL)\n", path);
		skip();
	}
	ret = image_open(path, IMAGE_SIZE_LIMIT, &img, &err);
	if (ret)
		fail_msg("%s", err.text);
	assert_int_equal(strncmp(img->how, "bzImage, ", 9), 0);
	assert_true(img->version[0] >= '4' && img->version[0] <= '9');
	assert_int_equal(img->xen.source, IMAGE_PV_NOTES);
	assert_string_equal(img->xen.guest_os, "linux");
	assert_int_equal(img->xen.virt_base, 0xffffffff80000000);
	assert_true(image_has(img, XEN_ELFNOTE_ENTRY));
	assert_true(img->xen.features_supported & 1u << XENFEAT_mmu_pt_update_preserve_ad ||
		    img->xen.features_supported & 1u << XENFEAT_writable_page_tables);
	assert_true(img->pa_end - img->pa_start > 16 * MIB);
	assert_int_equal(image_check_pv(img, 0, &err), 0);
	image_close(img);

	assert_int_equal(image_read_file(path, IMAGE_SIZE_LIMIT, &b.p, &b.n, &err), 0);
	b.n /= 2;
	must_fail(&b, EBADMSG, "truncated");
	blob_free(&b);
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

/* Cut anywhere, nothing opens. Before a header is whole, the file is something else; after that it is damaged. */
static void check_cuts(const struct blob *b, size_t known)
{
	size_t step = b->n > 4000 ? b->n / 2000 : 1;

	for (size_t n = 0; n < b->n; n += n > 64 && n + 64 < b->n ? step : 1) {
		struct image_error err = { "" };
		struct image *img;
		/* A copy of exactly n bytes, for ASan to see a read behind the end. */
		uint8_t *cut = malloc(n + !n);
		int ret;

		must(cut);
		memcpy(cut, b->p, n);
		ret = image_open_memory("k", cut, n, LIMIT, &img, &err);
		if (ret != -EBADMSG && !(ret == -ENOEXEC && n < known))
			fail_msg("cut to %zu of %zu bytes: %d %s", n, b->n, ret, err.text);
		if (n >= known && !strstr(err.text, "truncated"))
			fail_msg("cut to %zu of %zu bytes does not say so: %s", n, b->n, err.text);
		free(cut);
	}
}

static void test_truncated(void **state)
{
	struct blob elf = make_linux(3000);

	check_cuts(&elf, 64);
	for (unsigned i = 0; i < MAKE_PACKS; i++) {
		struct blob bz = make_packed_bzimage(&make_packs[i], elf.p, elf.n);
		struct blob whole = make_packs[i].pack(elf.p, elf.n);

		check_cuts(&bz, 0x210);
		check_cuts(&whole, 16);
		blob_free(&bz);
		blob_free(&whole);
	}
	blob_free(&elf);
}

/* Every byte of [from, to) in turn, changed in two ways. It opens or says why not; with a checksum it never opens as
 * another kernel. */
static void check_damage(const struct blob *b, size_t from, size_t to, const struct blob *elf, bool checked)
{
	static const uint8_t flips[] = { 0x01, 0xff };
	uint8_t *copy = malloc(b->n);
	unsigned refused = 0;

	must(copy);
	for (size_t i = from; i < to; i++) {
		for (unsigned f = 0; f < sizeof(flips); f++) {
			struct image_error err = { "" };
			struct image *img;
			int ret;

			memcpy(copy, b->p, b->n);
			copy[i] ^= flips[f];
			ret = image_open_memory("k", copy, b->n, LIMIT, &img, &err);
			if (ret) {
				refused++;
				if (ret != -EBADMSG && ret != -ENOEXEC && ret != -ENOTSUP && ret != -EFBIG)
					fail_msg("byte %zu ^ %#x: %d %s", i, flips[f], ret, err.text);
				assert_true(strlen(err.text) > 10);
				continue;
			}
			if (checked && (img->elf_size != elf->n || memcmp(img->elf, elf->p, elf->n)))
				fail_msg("byte %zu ^ %#x: opened as another kernel", i, flips[f]);
			image_check_pv(img, 0, &err);
			image_close(img);
		}
	}
	assert_true(refused > 0);
	free(copy);
}

static void test_damaged(void **state)
{
	struct blob elf = make_linux(500);

	check_damage(&elf, 0, elf.n, &elf, false);
	for (unsigned i = 0; i < MAKE_PACKS; i++) {
		struct blob bz = make_packed_bzimage(&make_packs[i], elf.p, elf.n);
		struct blob whole = make_packs[i].pack(elf.p, elf.n);

		check_damage(&bz, 0x1f0, MAKE_BZ_PAYLOAD + 8, &elf, make_packs[i].checked);
		check_damage(&bz, bz.n - 8, bz.n, &elf, make_packs[i].checked);
		check_damage(&whole, 0, whole.n, &elf, make_packs[i].checked);
		blob_free(&bz);
		blob_free(&whole);
	}
	blob_free(&elf);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void test_limit_is_exact(void **state)
{
	struct blob elf = make_linux(300000);

	for (unsigned i = 0; i < MAKE_PACKS; i++) {
		struct blob whole = make_packs[i].pack(elf.p, elf.n);
		struct image *img;

		assert_true(whole.n < elf.n);
		assert_int_equal(image_open_memory("k", whole.p, whole.n, elf.n, &img, NULL), 0);
		image_close(img);
		must_fail_limit(&whole, elf.n - 1, EFBIG, "unpacks to more than");
		must_fail_limit(&whole, whole.n - 1, EFBIG, "bigger than");
		blob_free(&whole);
	}
	blob_free(&elf);
}

static void test_bombs(void **state)
{
	struct blob zeroes = { 0 };

	blob_add(&zeroes, NULL, 8 * MIB);
	for (unsigned i = 0; i < MAKE_PACKS; i++) {
		struct blob bomb = make_packs[i].pack(zeroes.p, zeroes.n);
		struct blob bz = make_bzimage(bomb.p, bomb.n, true, 1000), bz2;

		must_fail_limit(&bomb, MIB, EFBIG, "unpacks to more than the 1 MiB");
		must_fail_limit(&bz, MIB, EFBIG, "unpacks to more than the 1 MiB");
		bz2 = make_bzimage(bomb.p, bomb.n, true, 0xffffffff);
		must_fail_limit(&bz2, MIB, EFBIG, "says it unpacks to 4095 MiB, 1 are allowed");
		blob_free(&bz);
		blob_free(&bz2);
		blob_free(&bomb);
	}
	blob_free(&zeroes);
}

static void test_promised_size(void **state)
{
	struct blob elf = make_linux(5000);

	for (unsigned i = 0; i < MAKE_PACKS; i++) {
		struct blob payload = make_packs[i].pack(elf.p, elf.n);

		for (int off = -1; off <= 1 && !make_packs[i].own_size; off++) {
			struct blob bz = make_bzimage(payload.p, payload.n, true, elf.n + off);

			if (off)
				must_fail(&bz, EBADMSG, "were promised");
			else
				check_same(&bz, &elf, NULL);
			blob_free(&bz);
		}
		blob_free(&payload);
	}
	blob_free(&elf);
}

/* A legacy lz4 block holds 8 MiB at most, however much room the promised size has made. */
static void test_lz4_oversized_block(void **state)
{
	struct blob zeroes = { 0 }, payload = { 0 }, bz;
	int size = 9 * MIB, packed;

	blob_add(&zeroes, NULL, size);
	blob_put(&payload, 0x184c2102, 4, false);
	blob_add(&payload, NULL, 4 + LZ4_compressBound(size));
	packed = LZ4_compress_default((char *)zeroes.p, (char *)payload.p + 8, size, LZ4_compressBound(size));
	must(packed > 0);
	memcpy(payload.p + 4, &packed, 4);
	payload.n = 8 + packed;
	blob_add(&payload, NULL, MIB);	/* padding, so that the promise is believed from the start */
	bz = make_bzimage(payload.p, payload.n, true, 3 * size);
	must_fail(&bz, EBADMSG, "lz4 payload is damaged");
	blob_free(&bz);
	blob_free(&payload);
	blob_free(&zeroes);
}

/* Headers that ask for windows of 512 MiB and 2 GiB; no such stream has to follow. */
static void test_huge_window(void **state)
{
	struct blob lzma = { 0 }, zstd = { 0 };

	blob_add(&lzma, "\x5d\0\0\0\x20\xff\xff\xff\xff\xff\xff\xff\xff\0", 14);
	blob_add(&lzma, NULL, 64);
	must_fail(&lzma, ENOTSUP, "window");
	blob_add(&zstd, "\x28\xb5\x2f\xfd\0\xa8", 6);
	blob_add(&zstd, NULL, 64);
	must_fail(&zstd, ENOTSUP, "window");
	blob_free(&lzma);
	blob_free(&zstd);
}

/* ---- not a kernel ------------------------------------------------------------------------------------------------ */

static void test_not_a_kernel(void **state)
{
	static const struct {
		const char *start;
		size_t n;
		const char *says;
	} files[] = {
		{ "", 0, "empty" },
		{ "x", 1, "text that starts with 'x'" },
		{ "hello, this is a text file\n", 27, "text that starts with 'hello, this is a" },
		{ "PK\003\004rest", 8, "zip" },
		{ "MZ rest", 7, "PE/EFI program" },
		{ "!<arch>\ndebian-binary", 21, "dpkg -x" },
		{ "070701000000", 12, "is it the initrd?" },
		{ "#!/bin/sh\n", 10, "a script" },
		{ "QFI\xfb", 4, "qcow2" },
		{ "\x7f" "EL", 3, "starts with bytes 7f 45 4c" },
		{ "\0\0\0\0", 4, "starts with bytes 00 00 00 00" },
	};

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		struct blob b = { 0 }, packed;

		blob_add(&b, files[i].start, files[i].n);
		must_fail(&b, ENOEXEC, files[i].says);
		packed = pack_gzip(b.p, b.n);
		must_fail(&packed, ENOEXEC, "what is packed in it (gzip) is ");
		must_fail(&packed, ENOEXEC, files[i].says);
		blob_free(&packed);
		blob_free(&b);
	}
}

static void test_elf_of_another_kind(void **state)
{
	static const struct {
		size_t at;
		uint16_t value;
		unsigned bytes;
		int error;
		const char *says;
	} changes[] = {
		{ 18, EM_386, 2, ENOTSUP, "compiled for i386 (32 bit)" },
		{ 18, EM_AARCH64, 2, ENOTSUP, "compiled for arm64" },
		{ 18, 0x7777, 2, ENOTSUP, "compiled for ELF machine 30583" },
		{ EI_CLASS, ELFCLASS32, 1, ENOTSUP, "32-bit ELF file" },
		{ EI_DATA, ELFDATA2MSB, 1, ENOTSUP, "umbra runs x86-64 kernels" },
		{ EI_DATA, 7, 1, EBADMSG, "byte order 7" },
		{ 16, ET_REL, 2, ENOEXEC, "object file or kernel module" },
		{ 16, ET_CORE, 2, ENOEXEC, "core file" },
		{ 16, 99, 2, ENOEXEC, "type 99" },
	};

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct blob elf = make_linux(100), bz;

		memcpy(elf.p + changes[i].at, &changes[i].value, changes[i].bytes);
		must_fail(&elf, changes[i].error, changes[i].says);
		bz = make_packed_bzimage(&make_packs[0], elf.p, elf.n);
		must_fail(&bz, changes[i].error, changes[i].says);
		blob_free(&bz);
		blob_free(&elf);
	}
}

static void test_user_program(void **state)
{
	struct image_error err = { "" };
	struct image *img;

	check_error(image_open("/proc/self/exe", LIMIT, &img, &err), &err, ENOEXEC, "a program for Linux");
}

static void test_bzimage_headers(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		unsigned bytes;
		int error;
		const char *says;
	} changes[] = {
		{ 0x206, 0x0206, 2, ENOTSUP, "boot protocol 2.06 is older" },
		{ 0x248, 0xffffffff, 4, EBADMSG, "truncated" },
		{ 0x24c, 0xffffffff, 4, EBADMSG, "truncated" },
		{ 0x24c, 0, 4, EBADMSG, "payload of 0 bytes" },
		{ 0x24c, 7, 4, EBADMSG, "payload of 7 bytes" },
		{ 0x1f1, 255, 1, EBADMSG, "truncated" },
		{ MAKE_BZ_PAYLOAD, 0x31313131, 4, ENOTSUP, "starts with bytes 31 31 31 31" },
	};
	struct blob elf = make_linux(3000), bz;

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		bz = make_packed_bzimage(&make_packs[0], elf.p, elf.n);
		memcpy(bz.p + changes[i].at, &changes[i].value, changes[i].bytes);
		must_fail(&bz, changes[i].error, changes[i].says);
		blob_free(&bz);
	}
	blob_free(&elf);
}

static void test_too_many_layers(void **state)
{
	struct blob b = make_linux(100), packed;

	for (int i = 0; i < 4; i++) {
		struct image *img = must_open(&b);

		image_close(img);
		packed = pack_gzip(b.p, b.n);
		blob_free(&b);
		b = packed;
	}
	must_fail(&b, ENOTSUP, "unpack it first");
	blob_free(&b);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void test_open_errors(void **state)
{
	struct image_error err = { "" };
	struct image *img;
	char name[301];

	check_error(image_open("/nonexistent/k", LIMIT, &img, &err), &err, ENOENT, "/nonexistent/k: no such file");
	check_error(image_open("/tmp", LIMIT, &img, &err), &err, EISDIR, "/tmp: a directory; name the kernel file");
	check_error(image_open("/dev/zero", MIB, &img, &err), &err, EFBIG, "1 MiB");
	check_error(image_open("/dev/null", MIB, &img, &err), &err, ENOEXEC, "empty");
	/* A long name leaves room for the reason, and keeps its end. */
	memset(name, 'n', 300);
	name[0] = '/';
	name[299] = 'Z';
	name[300] = 0;
	check_error(image_open(name, LIMIT, &img, &err), &err, ENAMETOOLONG, "nZ: File name too long");
	assert_int_equal(image_open("/nonexistent", LIMIT, &img, NULL), -ENOENT);
	image_close(NULL);
}

static void test_open_without_permission(void **state)
{
	struct blob elf = make_linux(100);
	char *path = temp_file(elf.p, elf.n);
	struct image_error err = { "" };
	uid_t uid = geteuid();
	struct image *img;
	int ret;

	assert_int_equal(chmod(path, 0), 0);
	if (!uid)
		assert_int_equal(seteuid(65534), 0);
	ret = image_open(path, LIMIT, &img, &err);
	if (!uid)
		assert_int_equal(seteuid(0), 0);
	check_error(ret, &err, EACCES, "may not be read by uid");
	unlink(path);
	free(path);
	blob_free(&elf);
}

static void test_open_file_and_pipe(void **state)
{
	struct blob elf = make_linux(20000), bz = make_packed_bzimage(&make_packs[0], elf.p, elf.n);
	char *path = temp_file(bz.p, bz.n), fd_path[32];
	struct image_error err = { "" };
	struct image *img;
	int fds[2];

	assert_int_equal(image_open(path, LIMIT, &img, &err), 0);
	assert_string_equal(img->name, path);
	assert_memory_equal(img->elf, elf.p, elf.n);
	image_close(img);
	check_error(image_open(path, bz.n - 1, &img, &err), &err, EFBIG, path);

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_true(bz.n < 65536);
	assert_int_equal(write(fds[1], bz.p, bz.n), bz.n);
	close(fds[1]);
	snprintf(fd_path, sizeof(fd_path), "/dev/fd/%d", fds[0]);
	assert_int_equal(image_open(fd_path, LIMIT, &img, &err), 0);
	assert_memory_equal(img->elf, elf.p, elf.n);
	image_close(img);
	close(fds[0]);
	unlink(path);
	free(path);
	blob_free(&bz);
	blob_free(&elf);
}

static void test_read_file(void **state)
{
	struct blob text = text_blob("an initrd");
	char *path = temp_file(text.p, text.n);
	struct image_error err = { "" };
	uint8_t *data;
	size_t size;

	assert_int_equal(image_read_file(path, text.n, &data, &size, &err), 0);
	assert_int_equal(size, text.n);
	assert_memory_equal(data, text.p, text.n);
	free(data);
	check_error(image_read_file(path, text.n - 1, &data, &size, &err), &err, EFBIG, "allowed");
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(image_read_file(path, 0, &data, &size, &err), 0);
	assert_int_equal(size, 0);
	assert_non_null(data);
	free(data);
	unlink(path);
	free(path);
	blob_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_packing),
		cmocka_unit_test(test_many_blocks),
		cmocka_unit_test(test_bzimage_plain_payload),
		cmocka_unit_test(test_bzimage_version_is_harmless),
		cmocka_unit_test(test_debian_kernel),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_limit_is_exact),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_promised_size),
		cmocka_unit_test(test_lz4_oversized_block),
		cmocka_unit_test(test_huge_window),
		cmocka_unit_test(test_not_a_kernel),
		cmocka_unit_test(test_elf_of_another_kind),
		cmocka_unit_test(test_user_program),
		cmocka_unit_test(test_bzimage_headers),
		cmocka_unit_test(test_too_many_layers),
		cmocka_unit_test(test_open_errors),
		cmocka_unit_test(test_open_without_permission),
		cmocka_unit_test(test_open_file_and_pipe),
		cmocka_unit_test(test_read_file),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
