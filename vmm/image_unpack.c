/*
 * image_unpack.c - the compressions kernels come in, one `struct image_codec` each.
 *
 * A codec sees hostile input and a growing buffer with a limit; how streams start is Documentation/x86/boot.rst,
 * "payload_offset", and include/linux/decompress/ in Linux.
 */
#include <bzlib.h>
#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "vmm/image_priv.h"

/* Linux packs xz and zstd with windows of up to 128 MiB. zstd's streaming decoder stops there by itself; liblzma is
 * given that and some for its tables. */
#define WINDOW_MIB	128ull
#define DECODER_MEMORY	((WINDOW_MIB + 32) << 20)

/* zlib and bzip2 count in unsigned int. */
static unsigned clamp_uint(size_t n)
{
	return n > UINT_MAX / 2 ? UINT_MAX / 2 : n;
}

/* ---- gzip -------------------------------------------------------------------------------------------------------- */

static int unpack_gzip(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	z_stream s = { 0 };
	int ret, z;

	if (inflateInit2(&s, 16 + MAX_WBITS) != Z_OK)	/* 16: gzip header and trailer, nothing else */
		return -ENOMEM;
	do {
		unsigned in_now = clamp_uint(in_size - *used), out_now;

		ret = image_buf_reserve(out, 1);
		if (ret)
			break;
		out_now = clamp_uint(out->room - out->size);
		s.next_in = (Bytef *)in + *used;
		s.avail_in = in_now;
		s.next_out = out->data + out->size;
		s.avail_out = out_now;
		z = inflate(&s, Z_NO_FLUSH);
		*used += in_now - s.avail_in;
		out->size += out_now - s.avail_out;
		if (z == Z_MEM_ERROR)
			ret = -ENOMEM;
		else if (z == Z_BUF_ERROR)	/* no progress: room there was, so input is what lacks */
			ret = -ENODATA;
		else if (z != Z_OK && z != Z_STREAM_END)
			ret = -EBADMSG;
	} while (!ret && z != Z_STREAM_END);
	inflateEnd(&s);
	return ret;
}

/* ---- bzip2 ------------------------------------------------------------------------------------------------------- */

static int unpack_bzip2(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	bz_stream s = { 0 };
	int ret, z;

	if (BZ2_bzDecompressInit(&s, 0, 0) != BZ_OK)
		return -ENOMEM;
	do {
		unsigned in_now = clamp_uint(in_size - *used), out_now;

		ret = image_buf_reserve(out, 1);
		if (ret)
			break;
		out_now = clamp_uint(out->room - out->size);
		s.next_in = (char *)in + *used;
		s.avail_in = in_now;
		s.next_out = (char *)out->data + out->size;
		s.avail_out = out_now;
		z = BZ2_bzDecompress(&s);
		*used += in_now - s.avail_in;
		out->size += out_now - s.avail_out;
		if (z == BZ_MEM_ERROR)
			ret = -ENOMEM;
		else if (z == BZ_OK && *used == in_size && s.avail_out)
			ret = -ENODATA;
		else if (z != BZ_OK && z != BZ_STREAM_END)
			ret = -EBADMSG;
	} while (!ret && z != BZ_STREAM_END);
	BZ2_bzDecompressEnd(&s);
	return ret;
}

/* ---- xz, lzma ---------------------------------------------------------------------------------------------------- */

static int lzma_errno(lzma_ret z)
{
	switch (z) {
	case LZMA_OK:
	case LZMA_STREAM_END:
		return 0;
	case LZMA_BUF_ERROR:
		return -ENODATA;
	case LZMA_MEM_ERROR:
		return -ENOMEM;
	case LZMA_MEMLIMIT_ERROR:
		return -ENOTSUP;
	default:
		return -EBADMSG;
	}
}

static int unpack_liblzma(lzma_stream *s, const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	lzma_ret z;
	int ret;

	s->next_in = in;
	s->avail_in = in_size;
	do {
		ret = image_buf_reserve(out, 1);
		if (ret)
			break;
		s->next_out = out->data + out->size;
		s->avail_out = out->room - out->size;
		z = lzma_code(s, LZMA_FINISH);
		out->size = out->room - s->avail_out;
		ret = lzma_errno(z);	/* the second call without progress is LZMA_BUF_ERROR */
	} while (!ret && z != LZMA_STREAM_END);
	*used = in_size - s->avail_in;
	lzma_end(s);
	return ret;
}

static int unpack_xz(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	lzma_stream s = LZMA_STREAM_INIT;

	if (lzma_stream_decoder(&s, DECODER_MEMORY, 0) != LZMA_OK)
		return -ENOMEM;
	return unpack_liblzma(&s, in, in_size, out, used);
}

static int unpack_lzma(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	lzma_stream s = LZMA_STREAM_INIT;

	if (lzma_alone_decoder(&s, DECODER_MEMORY) != LZMA_OK)
		return -ENOMEM;
	return unpack_liblzma(&s, in, in_size, out, used);
}

/* ---- zstd -------------------------------------------------------------------------------------------------------- */

static int unpack_zstd(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	ZSTD_DCtx *d = ZSTD_createDCtx();
	size_t left;
	int ret;

	if (!d)
		return -ENOMEM;
	do {
		ZSTD_inBuffer src = { in, in_size, *used };
		ZSTD_outBuffer dst;

		ret = image_buf_reserve(out, 1);
		if (ret)
			break;
		dst = (ZSTD_outBuffer){ out->data, out->room, out->size };
		left = ZSTD_decompressStream(d, &dst, &src);	/* 0: the frame is complete */
		*used = src.pos;
		out->size = dst.pos;
		if (ZSTD_isError(left)) {
			ZSTD_ErrorCode e = ZSTD_getErrorCode(left);

			ret = e == ZSTD_error_frameParameter_windowTooLarge ? -ENOTSUP :
			      e == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
		} else if (left && src.pos == in_size && dst.pos < dst.size) {
			ret = -ENODATA;
		}
	} while (!ret && left);
	ZSTD_freeDCtx(d);
	return ret;
}

/* ---- lz4 --------------------------------------------------------------------------------------------------------- */

#define LZ4_LEGACY_MAGIC	0x184c2102u
#define LZ4_LEGACY_BLOCK	(8u << 20)	/* unpacked size of every block but the last */

/* The format of `lz4 -l`, which Linux uses: magic, then blocks of a 32-bit length and data; no end mark, no checksum.
 * Files may be strung together (lib/decompress_unlz4.c). */
static int unpack_lz4_legacy(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	*used = 4;
	while (*used < in_size) {
		uint32_t packed;
		size_t room;
		int n, ret;

		if (in_size - *used < 4)
			return -ENODATA;
		packed = image_le32(in + *used);
		if (!packed)	/* padding */
			return 0;
		*used += 4;
		if (packed == LZ4_LEGACY_MAGIC)
			continue;
		if (packed > (uint32_t)LZ4_compressBound(LZ4_LEGACY_BLOCK))
			return -EBADMSG;
		if (packed > in_size - *used)
			return -ENODATA;
		ret = image_buf_reserve(out, LZ4_LEGACY_BLOCK);
		if (ret)
			return ret;
		room = out->room - out->size;
		if (room > LZ4_LEGACY_BLOCK)
			room = LZ4_LEGACY_BLOCK;
		n = LZ4_decompress_safe((const char *)in + *used, (char *)out->data + out->size, packed, room);
		if (n < 0)	/* "no room" and "damaged" look the same */
			return room < LZ4_LEGACY_BLOCK ? -EFBIG : -EBADMSG;
		*used += packed;
		out->size += n;
	}
	return 0;
}

static int unpack_lz4_frame(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	LZ4F_dctx *d;
	size_t left;
	int ret;

	if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION)))
		return -ENOMEM;
	do {
		size_t in_now = in_size - *used, out_now;

		ret = image_buf_reserve(out, 1);
		if (ret)
			break;
		out_now = out->room - out->size;
		left = LZ4F_decompress(d, out->data + out->size, &out_now, in + *used, &in_now, NULL);
		if (LZ4F_isError(left)) {
			ret = -EBADMSG;
			break;
		}
		*used += in_now;
		out->size += out_now;
		if (left && *used == in_size && out->size < out->room)
			ret = -ENODATA;
	} while (!ret && left);
	LZ4F_freeDecompressionContext(d);
	return ret;
}

/* ---- lzop -------------------------------------------------------------------------------------------------------- */

#define LZOP_MAGIC		"\x89LZO\0\r\n\x1a\n"
#define LZOP_ADLER32_UNPACKED	0x0001u		/* flags: checksums that each block carries ... */
#define LZOP_ADLER32_PACKED	0x0002u
#define LZOP_CRC32_UNPACKED	0x0100u
#define LZOP_CRC32_PACKED	0x0200u
#define LZOP_FILTER		0x0800u		/* ... and a field more in the header */
#define LZOP_BLOCK		(64u << 20)	/* what lzop itself accepts; it writes 256 KiB */

struct lzop_reader {
	const uint8_t *p;
	size_t left;
	bool short_read;
};

static uint32_t lzop_read(struct lzop_reader *r, unsigned bytes)
{
	uint32_t v = 0;

	if (r->left < bytes) {
		r->short_read = true;
		r->left = 0;
		return 0;
	}
	r->left -= bytes;
	while (bytes--)
		v = v << 8 | *r->p++;	/* big endian */
	return v;
}

static void lzop_skip(struct lzop_reader *r, unsigned bytes)
{
	while (bytes--)
		lzop_read(r, 1);
}

/* The header: magic (9), version (2), library version (2), [version needed (2)], method (1), [level (1)], flags (4),
 * [filter (4)], mode (4), mtime (4), [mtime high (4)], name (1 + n), checksum (4); [] from version 0x940 on but for
 * the filter (lzop's and lib/decompress_unlzo.c's reading of it). */
static uint32_t lzop_header(struct lzop_reader *r)
{
	uint32_t version, flags;

	lzop_skip(r, 9);
	version = lzop_read(r, 2);
	lzop_skip(r, version >= 0x940 ? 2 + 2 + 1 + 1 : 2 + 1);
	flags = lzop_read(r, 4);
	lzop_skip(r, (flags & LZOP_FILTER ? 4 : 0) + 4 + 4 + (version >= 0x940 ? 4 : 0));
	lzop_skip(r, lzop_read(r, 1));
	lzop_skip(r, 4);
	return flags;
}

static int unpack_lzop(const uint8_t *in, size_t in_size, struct image_buf *out, size_t *used)
{
	struct lzop_reader r = { in, in_size, false };
	uint32_t flags = lzop_header(&r), unpacked, packed, adler = 0;
	lzo_uint n;
	int ret;

	for (;;) {
		*used = in_size - r.left;
		unpacked = lzop_read(&r, 4);
		if (r.short_read)
			return -ENODATA;
		if (!unpacked)	/* the end mark */
			break;
		packed = lzop_read(&r, 4);
		if (!r.short_read && (unpacked > LZOP_BLOCK || packed > unpacked || !packed))
			return -EBADMSG;
		if (flags & LZOP_ADLER32_UNPACKED)
			adler = lzop_read(&r, 4);
		lzop_skip(&r, flags & LZOP_CRC32_UNPACKED ? 4 : 0);
		if (packed < unpacked)
			lzop_skip(&r, (flags & LZOP_ADLER32_PACKED ? 4 : 0) + (flags & LZOP_CRC32_PACKED ? 4 : 0));
		if (r.short_read || packed > r.left)
			return -ENODATA;
		ret = image_buf_reserve(out, unpacked);
		if (ret)
			return ret;
		if (out->room - out->size < unpacked)
			return -EFBIG;
		n = unpacked;
		if (packed == unpacked)		/* stored */
			memcpy(out->data + out->size, r.p, unpacked);
		else if (lzo1x_decompress_safe(r.p, packed, out->data + out->size, &n, NULL) != LZO_E_OK ||
			 n != unpacked)
			return -EBADMSG;
		if (flags & LZOP_ADLER32_UNPACKED && adler32(1, out->data + out->size, unpacked) != adler)
			return -EBADMSG;
		r.p += packed;
		r.left -= packed;
		out->size += unpacked;
	}
	*used = in_size - r.left;
	return 0;
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

#define MAGIC(s)	.magic = s, .magic_size = sizeof(s) - 1

static const struct image_codec codecs[] = {
	{ .name = "gzip",  MAGIC("\x1f\x8b\x08"),		.unpack = unpack_gzip, .own_size = true },
	{ .name = "bzip2", MAGIC("BZh"),			.unpack = unpack_bzip2 },
	{ .name = "lzma",  MAGIC("\x5d\0\0"),			.unpack = unpack_lzma },
	{ .name = "xz",    MAGIC("\xfd" "7zXZ\0"),		.unpack = unpack_xz },
	{ .name = "zstd",  MAGIC("\x28\xb5\x2f\xfd"),		.unpack = unpack_zstd },
	{ .name = "lz4",   MAGIC("\x02\x21\x4c\x18"),		.unpack = unpack_lz4_legacy },
	{ .name = "lz4",   MAGIC("\x04\x22\x4d\x18"),		.unpack = unpack_lz4_frame },
	{ .name = "lzo",   MAGIC(LZOP_MAGIC),			.unpack = unpack_lzop },
};

const struct image_codec *image_codec_find(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++)
		if (size >= codecs[i].magic_size && !memcmp(data, codecs[i].magic, codecs[i].magic_size))
			return &codecs[i];
	return NULL;
}

int image_unpack(const struct image_codec *codec, const char *name, const char *what, const uint8_t *in, size_t in_size,
		 uint64_t expect, uint64_t limit, uint8_t **data, size_t *size, struct image_error *err)
{
	struct image_buf out = { .limit = limit };
	uint64_t first = expect ? expect + 1 : 4 * (uint64_t)in_size;
	size_t used = 0;
	int ret;

	/* `expect` is the file's word: do not let a small file ask for a big buffer before it has shown the data. */
	if (first > 64 * (uint64_t)in_size + 65536)
		first = 64 * (uint64_t)in_size + 65536;
	ret = image_buf_reserve(&out, first);
	if (!ret)
		ret = codec->unpack(in, in_size, &out, &used);
	if (!ret && out.size > limit)
		ret = -EFBIG;
	switch (ret) {
	case 0:
		/* Give back what growing by doubling took too much; should that fail, keep it. */
		*data = realloc(out.data, out.size ? out.size : 1);
		if (!*data)
			*data = out.data;
		*size = out.size;
		return 0;
	case -ENODATA:
		ret = image_fail(err, name, EBADMSG,
				 "%s %s ends at byte %zu, before its stream does: the file is truncated; "
				 "fetch it again", codec->name, what, in_size);
		break;
	case -EBADMSG:
		image_fail(err, name, EBADMSG,
			   "%s %s is damaged near byte %zu of %zu: fetch it again", codec->name, what,
			   used, in_size);
		break;
	case -EFBIG:
		image_fail(err, name, EFBIG, "%s %s unpacks to more than the %llu MiB that are allowed", codec->name,
			   what, (unsigned long long)limit >> 20);
		break;
	case -ENOTSUP:
		image_fail(err, name, ENOTSUP, "%s %s needs a window of more than %llu MiB to unpack: pack it with a "
			   "smaller one", codec->name, what, WINDOW_MIB);
		break;
	default:
		image_fail(err, name, -ret, "not enough memory to unpack its %s %s", codec->name, what);
	}
	free(out.data);
	return ret;
}
