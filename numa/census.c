/*
 * census.c - where pages really are: the kernel's word, not our own books.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "numa/numa.h"

#define BATCH	1024u

int numa_where(void *const pages[], unsigned n, int node[])
{
	for (unsigned done = 0, some; done < n; done += some) {
		some = n - done < BATCH ? n - done : BATCH;
		/* Without nodes it moves nothing and only reports. */
		if (syscall(SYS_move_pages, 0, (unsigned long)some, pages + done, NULL, node + done, 0))
			return -errno;
	}
	return 0;
}

int numa_census(const void *at, size_t bytes, uint64_t pages[static NUMA_MAX_NODES], uint64_t *absent)
{
	void *where[BATCH];
	int node[BATCH], r;

	memset(pages, 0, NUMA_MAX_NODES * sizeof *pages);
	*absent = 0;
	for (size_t done = 0; done < bytes; done += BATCH * 4096ull) {
		unsigned n = (bytes - done + 4095) / 4096 < BATCH ? (bytes - done + 4095) / 4096 : BATCH;

		for (unsigned i = 0; i < n; i++)
			where[i] = (char *)at + done + i * 4096ull;
		r = numa_where(where, n, node);
		if (r)
			return r;
		for (unsigned i = 0; i < n; i++) {
			if (node[i] >= 0 && node[i] < (int)NUMA_MAX_NODES)
				pages[node[i]]++;
			else
				++*absent;
		}
	}
	return 0;
}
