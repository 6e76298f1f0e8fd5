/*
 * image_check.h - assertions on images, for test_image*.c. Include cmocka.h first.
 */
#ifndef UMBRA_IMAGE_CHECK_H
#define UMBRA_IMAGE_CHECK_H

#include "tests/unit/image_make.h"
#include "vmm/image.h"

#define MIB		(1ull << 20)
#define LIMIT		(64 * MIB)

static inline struct image *must_open(const struct blob *b)
{
	struct image_error err = { "" };
	struct image *img = NULL;
	int ret = image_open_memory("k", b->p, b->n, LIMIT, &img, &err);

	if (ret)
		fail_msg("did not open (%d): %s", ret, err.text);
	return img;
}

/* Checks errno, and that the one-line message names the file and holds `text`. */
static inline void check_error(int ret, const struct image_error *err, int error, const char *text)
{
	if (ret != -error || !strstr(err->text, text) || strchr(err->text, '\n'))
		fail_msg("wanted %d with '%s', got %d: %s", -error, text, ret, err->text);
	assert_non_null(strchr(err->text, ':'));
}

static inline void must_fail_limit(const struct blob *b, uint64_t limit, int error, const char *text)
{
	struct image_error err = { "" };
	struct image *img = NULL;
	int ret = image_open_memory("k", b->p, b->n, limit, &img, &err);

	if (!ret)
		image_close(img);
	check_error(ret, &err, error, text);
}

static inline void must_fail(const struct blob *b, int error, const char *text)
{
	must_fail_limit(b, LIMIT, error, text);
}

#endif
