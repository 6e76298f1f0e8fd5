/*
 * image.c - from a path to an ELF kernel in memory: reads the file, tells what kind it is, unpacks it layer by layer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/image_priv.h"

/* vmlinuz.gz, of a bzImage, of a packed ELF: nobody needs more. */
#define MAX_LAYERS	3

/* ---- messages ---------------------------------------------------------------------------------------------------- */

int image_fail(struct image_error *err, const char *name, int error, const char *fmt, ...)
{
	size_t keep = 160, len = strlen(name);
	va_list ap;
	int n;

	if (!err)
		return -error;
	n = snprintf(err->text, sizeof(err->text), "%s%s: ", len > keep ? "..." : "",
		     len > keep ? name + len - keep : name);
	va_start(ap, fmt);
	vsnprintf(err->text + n, sizeof(err->text) - n, fmt, ap);
	va_end(ap);
	return -error;
}

void image_copy_string(char *dst, size_t size, const void *src, size_t n)
{
	const unsigned char *s = src;
	size_t i;

	for (i = 0; i < n && i < size - 1 && s[i]; i++)
		dst[i] = s[i] < ' ' || s[i] > '~' ? '?' : (char)s[i];
	dst[i] = 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

int image_buf_reserve(struct image_buf *buf, size_t want)
{
	uint64_t max = buf->limit < SIZE_MAX / 2 ? buf->limit + 1 : SIZE_MAX / 2;
	uint64_t need = buf->size + (uint64_t)want, room;
	uint8_t *data;

	if (buf->size >= max)
		return -EFBIG;
	if (need > max)
		need = max;
	if (need <= buf->room)
		return 0;
	room = 2 * (uint64_t)buf->room > need ? 2 * (uint64_t)buf->room : need;
	if (room > max)
		room = max;
	data = realloc(buf->data, room);
	if (!data)
		return -ENOMEM;
	buf->data = data;
	buf->room = room;
	return 0;
}

static int fail_too_big(struct image_error *err, const char *name, uint64_t limit)
{
	return image_fail(err, name, EFBIG,
			  "bigger than the %llu MiB that are allowed", (unsigned long long)limit >> 20);
}

static int fail_open(struct image_error *err, const char *path, int error)
{
	switch (error) {
	case ENOENT:
		return image_fail(err, path, error, "no such file");
	case EACCES:
	case EPERM:
		return image_fail(err, path, error, "may not be read by uid %u: copy it, or change its permissions",
				  (unsigned)geteuid());
	default:
		return image_fail(err, path, error, "%s", strerror(error));
	}
}

int image_read_file(const char *path, uint64_t limit, uint8_t **data, size_t *size, struct image_error *err)
{
	struct image_buf buf = { .limit = limit };
	struct stat st;
	int fd, ret;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return fail_open(err, path, errno);
	if (fstat(fd, &st) < 0) {
		ret = fail_open(err, path, errno);
		goto out;
	}
	if (S_ISDIR(st.st_mode)) {
		ret = image_fail(err, path, EISDIR, "a directory; name a file in it");
		goto out;
	}
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > limit) {
		ret = fail_too_big(err, path, limit);
		goto out;
	}
	/* The size is a hint only: the file may grow or shrink under us, and a pipe has none. */
	ret = image_buf_reserve(&buf, S_ISREG(st.st_mode) && st.st_size ? (size_t)st.st_size + 1 : 65536);
	while (!ret) {
		ssize_t n = read(fd, buf.data + buf.size, buf.room - buf.size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			ret = fail_open(err, path, errno);
			goto out;
		}
		if (!n)
			break;
		buf.size += n;
		ret = image_buf_reserve(&buf, 1);
	}
	if (ret == -EFBIG)
		fail_too_big(err, path, limit);
	else if (ret)
		image_fail(err, path, -ret, "not enough memory to read it");
out:
	close(fd);
	if (ret) {
		free(buf.data);
		return ret;
	}
	*data = buf.data;
	*size = buf.size;
	return 0;
}

/* ---- what kind of file ------------------------------------------------------------------------------------------- */

static const struct kind {
	uint32_t offset;
	const char *magic;
	uint32_t magic_size;
	const char *what;	/* reads on from "not a kernel but " */
} kinds[] = {
	{ 0, "MZ", 2, "a PE/EFI program; if it is a unified kernel image, take the kernel out with "
		      "'objcopy -O binary --dump-section .linux=vmlinuz FILE /dev/null'" },
	{ 0, "!<arch>\ndebian", 14, "a Debian package; unpack it with 'dpkg -x FILE DIR' and use DIR/boot/vmlinuz-*" },
	{ 0, "!<arch>", 7, "an ar archive" },
	{ 0, "\xed\xab\xee\xdb", 4, "an RPM package; unpack it and use its vmlinuz" },
	{ 0, "070701", 6, "a cpio archive: is it the initrd?" },
	{ 0, "070702", 6, "a cpio archive: is it the initrd?" },
	{ 257, "ustar", 5, "a tar archive; unpack it and use the kernel in it" },
	{ 0, "PK\003\004", 4, "a zip archive; unpack it and use the kernel in it" },
	{ 0, "\x27\x05\x19\x56", 4, "a U-Boot image; use the kernel it was made from" },
	{ 0, "QFI\xfb", 4, "a qcow2 disk image; use the vmlinuz from its /boot" },
	{ 0, "hsqs", 4, "a squashfs file system; use the vmlinuz from its /boot" },
	{ 0x438, "\x53\xef", 2, "an ext2/3/4 file system; use the vmlinuz from its /boot" },
	{ 510, "\x55\xaa", 2, "a disk or boot sector; use the vmlinuz from its /boot" },
	{ 0, "#!", 2, "a script" },
};

/* Says what `data` is instead of a kernel. `how`: the layers unpacked to get there, "" if none. */
static int fail_not_kernel(struct image_error *err, const char *name, const char *how, const uint8_t *data, size_t size)
{
	char inside[96] = "", start[17], hex[16 * 3 + 1] = "";
	size_t n = size < 16 ? size : 16, i;

	if (*how)
		snprintf(inside, sizeof(inside), "what is packed in it (%s) is ", how);
	if (!size)
		return image_fail(err, name, ENOEXEC, "%s%s", inside,
				  *how ? "empty" : "the file is empty: fetch or copy it again");
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct kind *k = &kinds[i];

		if (image_inside(k->offset, k->magic_size, size) && !memcmp(data + k->offset, k->magic, k->magic_size))
			return image_fail(err, name, ENOEXEC, "%snot a kernel but %s", inside, k->what);
	}
	for (i = 0; i < n && (data[i] == '\n' || data[i] == '\t' || (data[i] >= ' ' && data[i] <= '~')); i++)
		;
	image_copy_string(start, sizeof(start), data, n);
	if (i == n)
		return image_fail(err, name, ENOEXEC, "%snot a kernel: text that starts with '%s'", inside, start);
	for (i = 0; i < n; i++)
		snprintf(hex + 3 * i, 4, "%02x ", data[i]);
	hex[3 * n - 1] = 0;
	return image_fail(err, name, ENOEXEC, "%snot a kernel: neither ELF, bzImage nor a compression umbra knows; "
			  "starts with bytes %s", inside, hex);
}

static void how_append(struct image *img, const char *layer)
{
	size_t len = strlen(img->how);

	snprintf(img->how + len, sizeof(img->how) - len, "%s%s", len ? ", " : "", layer);
}

/* Unpacks img->elf, which holds the file as read, until it is an ELF file. */
static int image_unwrap(struct image *img, uint64_t limit, struct image_error *err)
{
	for (unsigned layer = 0; ; layer++) {
		const uint8_t *in = img->elf;
		size_t in_size = img->elf_size, size;
		const struct image_codec *codec;
		uint8_t *data;
		int ret;

		if (image_is_elf(in, in_size)) {
			how_append(img, "ELF");
			return 0;
		}
		codec = image_codec_find(in, in_size);
		if (!codec && !image_is_bzimage(in, in_size))
			return fail_not_kernel(err, img->name, img->how, in, in_size);
		if (layer == MAX_LAYERS)
			return image_fail(err, img->name, ENOTSUP, "packed more than %d times (%s): unpack it first",
					  MAX_LAYERS, img->how);
		if (codec) {
			ret = image_unpack(codec, img->name, "file", in, in_size, 0, limit, &data, &size, err);
			how_append(img, codec->name);
		} else {
			ret = image_bzimage_unpack(img, in, in_size, limit, &data, &size, err);
		}
		if (ret)
			return ret;
		free(img->elf);
		img->elf = data;
		img->elf_size = size;
	}
}

/* Takes over `data`, also on errors. */
static int image_load(const char *name, uint8_t *data, size_t size, uint64_t limit, struct image **out,
		      struct image_error *err)
{
	struct image *img = calloc(1, sizeof(*img));
	int ret;

	if (!img) {
		free(data);
		return image_fail(err, name, ENOMEM, "not enough memory");
	}
	img->elf = data;
	img->elf_size = size;
	img->name = strdup(name);
	if (!img->name) {
		ret = image_fail(err, name, ENOMEM, "not enough memory");
		goto fail;
	}
	ret = image_unwrap(img, limit, err);
	if (ret)
		goto fail;
	ret = image_elf_parse(img, err);
	if (ret)
		goto fail;
	*out = img;
	return 0;
fail:
	image_close(img);
	return ret;
}

int image_open(const char *path, uint64_t limit, struct image **out, struct image_error *err)
{
	uint8_t *data;
	size_t size;
	int ret;

	ret = image_read_file(path, limit, &data, &size, err);
	if (ret == -EISDIR)
		image_fail(err, path, EISDIR, "a directory; name the kernel file itself, such as /boot/vmlinuz-*");
	if (ret)
		return ret;
	return image_load(path, data, size, limit, out, err);
}

int image_open_memory(const char *name, const void *data, size_t size, uint64_t limit, struct image **out,
		      struct image_error *err)
{
	uint8_t *copy;

	if (size > limit)
		return fail_too_big(err, name, limit);
	copy = malloc(size ? size : 1);
	if (!copy)
		return image_fail(err, name, ENOMEM, "not enough memory");
	memcpy(copy, data, size);
	return image_load(name, copy, size, limit, out, err);
}

void image_close(struct image *img)
{
	if (!img)
		return;
	free(img->name);
	free(img->elf);
	free(img);
}
