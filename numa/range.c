/*
 * range.c - moving memory where it lies: the host kernel does it underneath whoever uses it.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numa/numa.h"

#define BATCH	512u		/* pages of a huge page, which moves as a whole: none is cut in two */

static int move(void *const pages[], unsigned n, int to, int status[])
{
	int node[BATCH];

	for (unsigned i = 0; i < n; i++)
		node[i] = to;
	/* A positive return says how many stay where they are: `status` knows which. */
	return syscall(SYS_move_pages, 0, (unsigned long)n, pages, node, status, MPOL_MF_MOVE) < 0 ? -errno : 0;
}

static int move_batch(char *at, unsigned n, int to, struct numa_moved *out)
{
	int before[BATCH], after[BATCH], status[BATCH], r;
	unsigned nr = 0;
	void *pages[BATCH];

	for (unsigned i = 0; i < n; i++)
		pages[i] = at + i * 4096ul;
	r = numa_where(pages, n, before);
	if (r)
		return r;
	for (unsigned i = 0; i < n; i++) {
		out->there += before[i] == to;
		out->absent += before[i] < 0;
		if (before[i] >= 0 && before[i] != to)
			pages[nr++] = pages[i];
	}
	if (!nr)
		return 0;
	r = move(pages, nr, to, status);
	if (!r)
		r = numa_where(pages, nr, after);
	if (r)
		return r;
	for (unsigned i = 0; i < nr; i++) {
		if (after[i] == to) {	/* whatever `status` says: parts of a huge page that moved are 'busy' there */
			out->moved++;
			continue;
		}
		out->failed++;
		if (!out->error)
			out->error = status[i] < 0 ? status[i] : -EBUSY;
	}
	return 0;
}

int numa_move_range(void *at, size_t bytes, unsigned node, struct numa_moved *out)
{
	size_t pages = (bytes + 4095) / 4096, n;
	char *p = at;
	int r = 0;

	for (; !r && pages; pages -= n, p += n * 4096) {
		n = BATCH - (uintptr_t)p / 4096 % BATCH;
		n = n < pages ? n : pages;
		r = move_batch(p, n, node, out);
	}
	return r;
}
