/*
 * image_priv.h - what the image*.c files share; nobody else includes it.
 *
 * Reading order: image.c (files, what kind of file), image_bzimage.c (the boot protocol's header), image_unpack.c (one
 * entry per compression), image_elf.c (segments), image_xen.c (notes, and whether Xen would start it).
 */
#ifndef UMBRA_IMAGE_PRIV_H
#define UMBRA_IMAGE_PRIV_H

#include <elf.h>
#include <string.h>

#include "vmm/image.h"

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* Writes "<name>: <text>" to *err, which may be NULL; returns -error. */
int image_fail(struct image_error *err, const char *name, int error, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Copies at most n bytes up to a NUL; bytes that could upset a terminal become '?'. Cuts to size - 1, terminates. */
void image_copy_string(char *dst, size_t size, const void *src, size_t n);

/* ---- reading hostile bytes --------------------------------------------------------------------------------------- */

/* Whether [offset, offset + length) lies in `size` bytes; no sum that could wrap. */
static inline bool image_inside(uint64_t offset, uint64_t length, uint64_t size)
{
	return offset <= size && length <= size - offset;
}

static inline uint16_t image_le16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t image_le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t image_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* ---- growing buffers --------------------------------------------------------------------------------------------- */

/* Holds up to limit + 1 bytes: a writer that reaches the last one knows that it is over the limit. */
struct image_buf {
	uint8_t *data;
	size_t size;		/* bytes written */
	size_t room;		/* bytes allocated */
	uint64_t limit;
};

/* Makes room for at least one and, as far as the limit lets it, `want` more bytes. -EFBIG: over the limit; -ENOMEM. */
int image_buf_reserve(struct image_buf *buf, size_t want);

/* ---- compression ------------------------------------------------------------------------------------------------- */

struct image_codec {
	const char *name;
	const char *magic;	/* how a file of this kind starts */
	size_t magic_size;
	bool own_size;		/* the stream ends with its unpacked size, so a bzImage appends none */
	/*
	 * Unpacks one stream to the end of `out`; *used says how far into `in` it came, also on errors. What follows
	 * the stream is not looked at. -ENODATA: `in` ends before the stream does; -EBADMSG: damaged; -ENOTSUP: would
	 * need more memory than image_unpack.c allows; -EFBIG; -ENOMEM. Mandatory.
	 */
	int (*unpack)(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used);
};

/* By the first bytes of a file; NULL if none. */
const struct image_codec *image_codec_find(const uint8_t *data, size_t size);

/* Unpacks `in` to a new buffer of at most `limit` bytes, for the caller to free. `what` names the thing in messages;
 * `expect` is the size to begin with, 0 if unknown. Errors as image_open(). */
int image_unpack(const struct image_codec *codec, const char *name, const char *what, const uint8_t *in, size_t in_size,
		 uint64_t expect, uint64_t limit, uint8_t **data, size_t *size, struct image_error *err);

/* ---- formats ----------------------------------------------------------------------------------------------------- */

bool image_is_bzimage(const uint8_t *data, size_t size);
/* Unpacks the payload of a bzImage to a new buffer; fills img->version and appends to img->how. Errors as
 * image_open(). */
int image_bzimage_unpack(struct image *img, const uint8_t *file, size_t size, uint64_t limit, uint8_t **data,
			 size_t *data_size, struct image_error *err);

bool image_is_elf(const uint8_t *data, size_t size);
/* Fills everything from nr_segments on from img->elf. Errors as image_open(). */
int image_elf_parse(struct image *img, struct image_error *err);

/* Fills img->xen from the notes, or from the __xen_guest section. Headers have been checked by image_elf_parse(). */
int image_xen_parse(struct image *img, struct image_error *err);

/* The header tables of an image that image_elf_parse() has checked, copied out of img->elf. */
void image_elf_ehdr(const struct image *img, Elf64_Ehdr *out);
void image_elf_phdr(const struct image *img, unsigned i, Elf64_Phdr *out);	/* i < e_phnum */
void image_elf_shdr(const struct image *img, unsigned i, Elf64_Shdr *out);	/* i < e_shnum */

#endif
