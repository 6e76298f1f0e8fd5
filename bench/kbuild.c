/*
 * kbuild: a Linux kernel build, in a guest whose image is the usual initrd with scripts/guest-image's laid over it, and
 * natively in the tree that image was made from. tests/workload/kbuild.c builds.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/bench.h"

#define ARCHIVE_ALIGN	4		/* Linux looks for the next archive there (init/initramfs.c) */

bool kbuild_parse(const char *line, double ns, struct reading *out)
{
	double ms, cpu_ms;

	if (sscanf(line, "kbuild %*s %lf ms, %lf ms of processor time", &ms, &cpu_ms) != 2)
		return false;
	strcpy(out->name, "build");
	out->units = 1;
	out->ns = ms * 1e6;
	out->cpu_ns = cpu_ms * 1e6;
	return true;
}

/* Appends the file at a multiple of ARCHIVE_ALIGN. 0 or -errno. */
static int append_file(int to, const char *path)
{
	int from = open(path, O_RDONLY | O_CLOEXEC), r = 0;
	off_t at = lseek(to, 0, SEEK_END);
	ssize_t n;

	if (from < 0)
		return -errno;
	at = (at + ARCHIVE_ALIGN - 1) / ARCHIVE_ALIGN * ARCHIVE_ALIGN;
	if (ftruncate(to, at) || lseek(to, at, SEEK_SET) != at)
		r = -errno;
	while (!r && (n = sendfile(to, from, NULL, 1 << 30)))
		r = n < 0 ? -errno : 0;
	close(from);
	return r;
}

int kbuild_setup(struct bench *b)
{
	const char *cache = getenv("UMBRA_CACHE"), *failed = b->image;
	char image[sizeof b->image];
	struct stat st;
	int r;

	if (!cache || !*cache)
		cache = "cache";
	if (snprintf(b->dir, sizeof b->dir, "%s/guest-image/current/kbuild", cache) >= (int)sizeof b->dir ||
	    snprintf(image, sizeof image, "%s/guest-image/current/%s", cache, b->job->image) >= (int)sizeof image) {
		fprintf(stderr, "%s: $UMBRA_CACHE is too long a path\n", b->program);
		return -ENAMETOOLONG;
	}
	if (stat(image, &st) || stat(b->dir, &st)) {
		r = -errno;
		fprintf(stderr, "%s: %s: %s; 'scripts/guest-image%s' builds it\n", b->program, image, strerror(-r),
			strstr(b->job->image, "full") ? " --full" : "");
		return r;
	}
	/* Without a name, so that nothing is left behind however this program ends. Umbra and QEMU open it by our fd. */
	b->image_fd = memfd_create("kbuild-initrd", MFD_CLOEXEC);
	r = b->image_fd < 0 ? -errno : append_file(b->image_fd, b->image);
	if (!r) {
		failed = image;
		r = append_file(b->image_fd, image);
	}
	if (r) {
		fprintf(stderr, "%s: %s: %s\n", b->program, failed, strerror(-r));
		return r;
	}
	snprintf(b->image, sizeof b->image, "/proc/%d/fd/%d", getpid(), b->image_fd);
	return 0;
}
