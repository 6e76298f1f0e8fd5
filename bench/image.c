/* Writes the second archive of an initrd: cpio's "newc" form (Linux: Documentation/driver-api/early-userspace). */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/image.h"

#define FILE_MAX	(1ull << 31)	/* sizes are 32 bits there, and all of it has to fit into the guest's memory */

struct archive {
	FILE *f;
	unsigned long long at;		/* bytes so far: entries are aligned to 4 */
	unsigned ino;
};

/* Errors of the stream are looked at once, when it is closed. */
static void put(struct archive *a, const void *bytes, size_t n)
{
	a->at += fwrite(bytes, 1, n, a->f);
}

static void align(struct archive *a)
{
	put(a, "\0\0\0", -a->at & 3);
}

static void put_head(struct archive *a, const char *name, mode_t mode, size_t size)
{
	const unsigned fields[] = { ++a->ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, strlen(name) + 1, 0 };
	char text[9];

	put(a, "070701", 6);
	for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++) {
		snprintf(text, sizeof text, "%08X", fields[i]);
		put(a, text, 8);
	}
	put(a, name, strlen(name) + 1);
	align(a);
}

static void put_bytes(struct archive *a, const char *name, mode_t mode, const void *bytes, size_t size)
{
	put_head(a, name, mode, size);
	put(a, bytes, size);
	align(a);
}

/* As many bytes as the head says, whatever became of the file meanwhile. */
static int put_file(struct archive *a, const char *path, const char *name, const struct stat *st)
{
	char buf[65536];
	off_t left = st->st_size;
	FILE *in = fopen(path, "re");
	int r = 0;

	if (!in)
		return -errno;
	put_head(a, name, S_IFREG | (st->st_mode & 0777), st->st_size);
	while (left && !r) {
		size_t n = fread(buf, 1, left < (off_t)sizeof buf ? (size_t)left : sizeof buf, in);

		put(a, buf, n);
		left -= n;
		if (!n)
			r = -EIO;
	}
	align(a);
	fclose(in);
	return r;
}

static int put_entry(struct archive *a, const FTSENT *e, const char *name)
{
	char target[PATH_MAX];
	ssize_t n;

	switch (e->fts_info) {
	case FTS_D:
		put_head(a, name, S_IFDIR | (e->fts_statp->st_mode & 0777), 0);
		return 0;
	case FTS_F:
		if ((unsigned long long)e->fts_statp->st_size >= FILE_MAX)
			return -EFBIG;
		return put_file(a, e->fts_accpath, name, e->fts_statp);
	case FTS_SL:
	case FTS_SLNONE:
		n = readlink(e->fts_accpath, target, sizeof target);
		if (n < 0)
			return -errno;
		put_bytes(a, name, S_IFLNK | 0777, target, n);
		return 0;
	case FTS_DNR:
	case FTS_ERR:
	case FTS_NS:
		return -e->fts_errno;
	default:
		return 0;	/* a folder left again; devices, sockets, pipes: not copied */
	}
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int put_dir(struct archive *a, const char *dir)
{
	char *roots[] = { (char *)dir, NULL }, name[PATH_MAX];
	FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	size_t skip = strlen(dir);
	FTSENT *e;
	int r = 0;

	if (!fts)
		return -errno;
	while (!r && (errno = 0, e = fts_read(fts))) {
		if ((size_t)snprintf(name, sizeof name, "work%s%s", e->fts_path[skip] == '/' || !e->fts_path[skip] ? "" : "/",
				     e->fts_path + skip) >= sizeof name)
			r = -ENAMETOOLONG;
		else
			r = put_entry(a, e, name);
		if (r)
			fprintf(stderr, "umbra: %s: %s\n", e->fts_path, strerror(-r));
	}
	fts_close(fts);
	return r;
}

static int put_base(struct archive *a, const char *base)
{
	char buf[65536];
	FILE *in = fopen(base, "re");
	size_t n;
	int r;

	if (!in)
		return -errno;
	while ((n = fread(buf, 1, sizeof buf, in)))
		put(a, buf, n);
	r = ferror(in) ? -EIO : 0;
	fclose(in);
	align(a);
	return r;
}

static int write_all(struct archive *a, const char *base, const char *command, const char *dir)
{
	int r = put_base(a, base);

	if (r) {
		fprintf(stderr, "umbra: %s: %s\n", base, strerror(-r));
		return r;
	}
	put_bytes(a, "command", S_IFREG | 0755, command, strlen(command));
	if (dir)
		r = put_dir(a, dir);
	else
		put_head(a, "work", S_IFDIR | 0755, 0);
	put_bytes(a, "TRAILER!!!", 0, "", 0);
	return r;
}

int image_with_command(const char *base, const char *command, const char *dir, char made[512])
{
	const char *tmp = getenv("TMPDIR");
	struct archive a = { .at = 0 };
	struct stat st;
	int fd, r;

	*made = 0;
	r = dir && stat(dir, &st) ? -errno : dir && !S_ISDIR(st.st_mode) ? -ENOTDIR : 0;
	if (r) {
		fprintf(stderr, "umbra: --dir=%s: %s\n", dir, strerror(-r));
		return r;
	}
	if (snprintf(made, 512, "%s/umbra-image.XXXXXX", tmp && *tmp ? tmp : "/tmp") >= 512) {
		*made = 0;
		return -ENAMETOOLONG;
	}
	fd = mkostemp(made, O_CLOEXEC);
	a.f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!a.f) {
		r = -errno;
		fprintf(stderr, "umbra: %s: %s\n", made, strerror(-r));
		if (fd >= 0)
			close(fd);
		*made = 0;
		return r;
	}
	r = write_all(&a, base, command, dir);
	if (ferror(a.f) && !r)
		r = -EIO;
	if (fclose(a.f) && !r)
		r = -errno;
	if (!r)
		return 0;
	fprintf(stderr, "umbra: no image for the guest: %s\n", strerror(-r));
	unlink(made);
	*made = 0;
	return r;
}
