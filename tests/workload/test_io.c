/* Subtests: data through files, maps of files and pipes arrives as it was sent. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define RW	(PROT_READ | PROT_WRITE)

static const char *test_file_map(struct digest *d)
{
	enum { PAGES = 600 };
	const size_t len = PAGES * PAGE;
	int fd = scratch_file(len);
	uint8_t *shared, *private, page[PAGE], c;
	struct probe r;
	pid_t pid;

	CHECK(fd >= 0, "scratch file: %s", strerror(errno));
	shared = mmap(NULL, len, RW, MAP_SHARED, fd, 0);
	private = mmap(NULL, len, RW, MAP_PRIVATE, fd, 0);
	CHECK(shared != MAP_FAILED && private != MAP_FAILED, "mmap: %s", strerror(errno));

	/* map -> file, file -> map */
	for (unsigned i = 0; i < PAGES; i++)
		memset(shared + i * PAGE, i, PAGE);
	for (unsigned i = 0; i < PAGES; i++) {
		memset(page, i, PAGE);
		CHECK(private[i * PAGE + 17] == (uint8_t)i, "private map does not show page %u", i);
		CHECK(pread(fd, &c, 1, i * PAGE + 99) == 1 && c == (uint8_t)i, "file does not show page %u", i);
	}
	for (unsigned i = 0; i < PAGES; i += 3) {
		c = ~i;
		CHECK(pwrite(fd, &c, 1, i * PAGE + 1) == 1, "pwrite: %s", strerror(errno));
		CHECK(shared[i * PAGE + 1] == c && private[i * PAGE + 1] == c,
		      "maps do not show the write to page %u", i);
	}
	/* a private write stays private, and then no longer follows the file */
	for (unsigned i = 0; i < PAGES; i += 2)
		private[i * PAGE] = 0xaa;
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(shared[i * PAGE] == (uint8_t)i, "private write reached the file in page %u", i);
	/* another process, another map of the same pages */
	pid = fork();
	if (!pid) {
		uint8_t *mine = mmap(NULL, len, RW, MAP_SHARED, fd, 0);

		for (unsigned i = 0; mine != MAP_FAILED && i < PAGES; i++)
			mine[i * PAGE + 2] = shared[i * PAGE] ^ 0x33;
		private[0] = 0xbb;
		_exit(mine == MAP_FAILED);
	}
	TRY(child_expect(pid, 0));
	CHECK(private[0] == 0xaa, "the child's private write shows in the parent");
	for (unsigned i = 0; i < PAGES; i++)
		CHECK(shared[i * PAGE + 2] == ((uint8_t)i ^ 0x33), "the child's write to page %u is missing", i);
	digest_bytes(d, shared, len);
	digest_bytes(d, private, len);
	/* truncation takes pages away under both maps */
	CHECK(!ftruncate(fd, 10 * PAGE), "ftruncate: %s", strerror(errno));
	r = probe_read(shared + 10 * PAGE);
	CHECK(r.signo == SIGBUS && r.code == BUS_ADRERR, "beyond the end: signal %d code %d, not SIGBUS", r.signo,
	      r.code);
	CHECK(probe_read(private + 11 * PAGE).signo == SIGBUS, "beyond the end, private map: no SIGBUS");
	CHECK(!probe_read(shared + 9 * PAGE).signo, "the kept part faults");
	CHECK(!ftruncate(fd, len) && shared[10 * PAGE] == 0, "the file grew again with old data");
	return NULL;
}

/* `total` bytes from a child in pieces of changing size; both sides digest them. */
static const char *stream(int rd, int wr, size_t total, struct digest *d)
{
	static uint8_t buf[70000];
	struct digest got = DIGEST_INIT, want = DIGEST_INIT;
	struct rng size = { 5 }, data = { 6 };
	size_t left;
	ssize_t n;
	pid_t pid = fork();

	if (!pid) {
		close(rd);
		for (left = total; left;) {
			size_t len = 1 + rng_next(&size) % sizeof(buf);

			len = len < left ? len : left;
			rng_fill(&data, buf, len);
			for (size_t off = 0; off < len; off += n) {
				n = write(wr, buf + off, len - off);
				if (n <= 0)
					_exit(1);
			}
			left -= len;
		}
		_exit(0);
	}
	CHECK(pid > 0, "fork: %s", strerror(errno));
	close(wr);
	for (left = 0; (n = read(rd, buf, 1 + left % 9973)) > 0; left += n)
		digest_bytes(&got, buf, n);
	close(rd);
	TRY(child_expect(pid, 0));
	CHECK(left == total, "%zu of %zu bytes arrived", left, total);
	for (left = total; left;) {
		size_t len = 1 + rng_next(&size) % sizeof(buf);

		len = len < left ? len : left;
		rng_fill(&data, buf, len);
		digest_bytes(&want, buf, len);
		left -= len;
	}
	CHECK(got.h == want.h, "other bytes arrived than were sent");
	digest_u64(d, got.h);
	return NULL;
}

static const char *test_pipe(struct digest *d)
{
	int fd[2];

	CHECK(!pipe(fd), "pipe: %s", strerror(errno));
	return stream(fd[0], fd[1], 4 << 20, d);
}

static const char *test_socket(struct digest *d)
{
	int fd[2];

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd), "socketpair: %s", strerror(errno));
	return stream(fd[0], fd[1], 4 << 20, d);
}

/* A file larger than any cache of tables, written in one order and read in another. */
static const char *test_big_file(struct digest *d)
{
	enum { BLOCK = 16384, BLOCKS = 1024 };	/* 16 MiB */
	static uint8_t buf[BLOCK], want[BLOCK];
	char name[] = "/tmp/workload.XXXXXX";
	int fd = mkstemp(name);

	CHECK(fd >= 0, "mkstemp in /tmp: %s", strerror(errno));
	unlink(name);
	for (unsigned i = 0; i < BLOCKS; i++) {
		rng_fill(&(struct rng){ i }, buf, BLOCK);
		CHECK(pwrite(fd, buf, BLOCK, (off_t)i * BLOCK) == BLOCK, "pwrite: %s", strerror(errno));
	}
	for (unsigned k = 0; k < BLOCKS; k++) {
		unsigned i = k * 389 % BLOCKS;	/* 389 is odd: every block once */

		CHECK(pread(fd, buf, BLOCK, (off_t)i * BLOCK) == BLOCK, "pread: %s", strerror(errno));
		rng_fill(&(struct rng){ i }, want, BLOCK);
		CHECK(!memcmp(buf, want, BLOCK), "block %u differs", i);
		digest_bytes(d, buf, 64);
	}
	close(fd);
	return NULL;
}

const struct subtest io_tests[] = {
	{ "file_map", test_file_map },
	{ "pipe", test_pipe },
	{ "socket", test_socket },
	{ "big_file", test_big_file },
	{ 0 },
};
