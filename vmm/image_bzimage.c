/*
 * image_bzimage.c - Linux's bzImage: real-mode setup code, then protected-mode code that carries the packed kernel.
 * Fields and their offsets: Documentation/x86/boot.rst, "The Real-Mode Kernel Header".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/image_priv.h"

#define SECTOR			512u
#define HDR_SETUP_SECTS		0x1f1	/* u8: setup code is this many sectors more than one; 0 means 4 */
#define HDR_BOOT_FLAG		0x1fe	/* u16: 0xaa55 */
#define HDR_MAGIC		0x202	/* "HdrS" */
#define HDR_VERSION		0x206	/* u16: boot protocol */
#define HDR_KERNEL_VERSION	0x20e	/* u16: a string, counted from 0x200; 0: none */
#define HDR_PAYLOAD_OFFSET	0x248	/* u32: counted from the start of the protected-mode code */
#define HDR_PAYLOAD_LENGTH	0x24c	/* u32 */
#define HDR_END			0x250

#define VERSION_PAYLOAD		0x0208	/* the protocol that brought payload_offset and payload_length */

bool image_is_bzimage(const uint8_t *data, size_t size)
{
	return size >= HDR_VERSION && image_le16(data + HDR_BOOT_FLAG) == 0xaa55 &&
	       !memcmp(data + HDR_MAGIC, "HdrS", 4);
}

/* The version string stands in the setup code, so a truncated file may have lost it. */
static void bzimage_version(struct image *img, const uint8_t *file, size_t size)
{
	uint64_t at = image_le16(file + HDR_KERNEL_VERSION);

	if (at && at + 0x200 < size)
		image_copy_string(img->version, sizeof(img->version), file + 0x200 + at, size - (0x200 + at));
}

int image_bzimage_unpack(struct image *img, const uint8_t *file, size_t size, uint64_t limit, uint8_t **data,
			 size_t *data_size, struct image_error *err)
{
	uint64_t setup, start, length, promised;
	const struct image_codec *codec;
	const uint8_t *payload;
	unsigned version;
	size_t packed;
	int ret;

	if (size < HDR_END)
		return image_fail(err, img->name, EBADMSG,
				  "bzImage ends in its header, at byte %zu: the file is truncated; fetch it again",
				  size);
	version = image_le16(file + HDR_VERSION);
	if (version < VERSION_PAYLOAD)
		return image_fail(err, img->name, ENOTSUP, "boot protocol %u.%02u is older than 2.08 (Linux 2.6.26): "
				  "use the vmlinux it was made from", version >> 8, version & 0xff);
	bzimage_version(img, file, size);

	setup = file[HDR_SETUP_SECTS] ? file[HDR_SETUP_SECTS] : 4;
	start = (setup + 1) * SECTOR + image_le32(file + HDR_PAYLOAD_OFFSET);
	length = image_le32(file + HDR_PAYLOAD_LENGTH);
	if (!image_inside(start, length, size))
		return image_fail(err, img->name, EBADMSG,
				  "bzImage payload ends at byte %llu but the file at byte %zu: "
				  "the file is truncated; fetch it again", (unsigned long long)(start + length), size);
	if (length < 8)
		return image_fail(err, img->name, EBADMSG, "bzImage payload of %llu bytes: the header is damaged",
				  (unsigned long long)length);
	payload = file + start;

	if (image_is_elf(payload, length)) {
		snprintf(img->how + strlen(img->how), sizeof(img->how) - strlen(img->how), "%sbzImage",
			 *img->how ? ", " : "");
		*data = malloc(length);
		if (!*data)
			return image_fail(err, img->name, ENOMEM, "not enough memory");
		memcpy(*data, payload, length);
		*data_size = length;
		return 0;
	}
	codec = image_codec_find(payload, length);
	if (!codec)
		return image_fail(err, img->name, ENOTSUP,
				  "bzImage payload is packed in a way umbra does not know (starts "
				  "with bytes %02x %02x %02x %02x): use the vmlinux it was made from",
				  payload[0], payload[1], payload[2], payload[3]);
	snprintf(img->how + strlen(img->how), sizeof(img->how) - strlen(img->how), "%sbzImage, %s",
		 *img->how ? ", " : "", codec->name);

	/* The kernel's build appends the unpacked size, little endian (scripts/Makefile.lib: size_append), except to
	 * formats that end with it anyway. It is all that lz4 and lzma have in the way of a check. */
	promised = image_le32(payload + length - 4);
	packed = codec->own_size ? length : length - 4;
	if (promised > limit)
		return image_fail(err, img->name, EFBIG,
				  "bzImage payload says it unpacks to %llu MiB, %llu are allowed",
				  (unsigned long long)promised >> 20, (unsigned long long)limit >> 20);
	ret = image_unpack(codec, img->name, "payload", payload, packed, promised, limit, data, data_size, err);
	if (ret)
		return ret;
	if (*data_size != promised) {
		ret = image_fail(err, img->name, EBADMSG,
				 "bzImage payload unpacks to %zu bytes where %llu were promised: "
				 "the file is damaged; fetch it again", *data_size, (unsigned long long)promised);
		free(*data);
		*data = NULL;
	}
	return ret;
}
