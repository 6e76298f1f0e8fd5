/* See record.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/numa/record.h"

#define PAGE		4096ull
#define BATCH		512u
#define PLACES_MAX	16u

/* As tests/guests/numa.c. */
static uint64_t id_of(uint64_t page)
{
	uint64_t z = (page << 40 ^ 1ull << 12 ^ 512) + 0x9e3779b97f4a7c15ul;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	return z ^ z >> 31;
}

struct where {
	pid_t pid;
	uint32_t pages, mask;		/* the hash table's */
	uint32_t *hash;			/* page + 1, by id */
	uint64_t *nodes;		/* by page */
	uint32_t *at;			/* by page: bits of places */
	uint64_t base[PLACES_MAX];	/* by place: the address of page 0 */
	unsigned nr_places;
	uint32_t whose[BATCH];		/* the pages of a batch */
};

static int hash_build(struct where *w)
{
	uint32_t size = 1;

	while (size < w->pages * 4)
		size *= 2;
	w->mask = size - 1;
	w->hash = calloc(size, sizeof *w->hash);
	w->nodes = calloc(w->pages, sizeof *w->nodes);
	w->at = calloc(w->pages, sizeof *w->at);
	if (!w->hash || !w->nodes || !w->at)
		return -ENOMEM;
	for (uint32_t p = 0; p < w->pages; p++) {
		uint32_t i = id_of(p) & w->mask;

		while (w->hash[i])
			i = (i + 1) & w->mask;
		w->hash[i] = p + 1;
	}
	return 0;
}

/* -1: nobody's. */
static int64_t page_of(const struct where *w, uint64_t word)
{
	for (uint32_t i = word & w->mask; w->hash[i]; i = (i + 1) & w->mask)
		if (id_of(w->hash[i] - 1) == word)
			return w->hash[i] - 1;
	return -1;
}

static int place_of(struct where *w, uint64_t base)
{
	for (unsigned i = 0; i < w->nr_places; i++)
		if (w->base[i] == base)
			return (int)i;
	if (w->nr_places == PLACES_MAX)
		return -E2BIG;
	w->base[w->nr_places] = base;
	return (int)w->nr_places++;
}

/* Pages at at[0..n-1]: which are the arena's, and on which node. A page may go away meanwhile: it is then not counted. */
static int look(struct where *w, const uint64_t *at, unsigned n)
{
	struct iovec local[BATCH], remote[BATCH];
	uint64_t word[BATCH];
	void *address[BATCH];
	int status[BATCH];
	unsigned found = 0;
	ssize_t got;

	for (unsigned i = 0; i < n; i++) {
		local[i] = (struct iovec){ &word[i], 8 };
		remote[i] = (struct iovec){ (void *)at[i], 8 };
	}
	got = process_vm_readv(w->pid, local, n, remote, n, 0);
	if (got < 0)
		return errno == EFAULT ? 0 : -errno;
	for (unsigned i = 0; i < got / 8; i++) {
		int64_t p = page_of(w, word[i]);

		if (p < 0)
			continue;
		address[found] = (void *)at[i];
		w->whose[found++] = (uint32_t)p;
	}
	if (!found)
		return 0;
	if (syscall(SYS_move_pages, w->pid, (unsigned long)found, address, NULL, status, 0))
		return -errno;
	for (unsigned i = 0; i < found; i++) {
		int place;

		if (status[i] < 0)
			continue;
		place = place_of(w, (uint64_t)address[i] - w->whose[i] * PAGE);
		if (place < 0)
			return place;
		w->nodes[w->whose[i]] |= 1ull << status[i];
		w->at[w->whose[i]] |= 1u << place;
	}
	return 0;
}

static int scan(struct where *w, int pagemap, uint64_t first, uint64_t end)
{
	uint64_t entry[BATCH], at[BATCH];
	int r = 0;

	for (uint64_t va = first; va < end && !r; va += BATCH * PAGE) {
		size_t want = (end - va) / PAGE < BATCH ? (end - va) / PAGE : BATCH;
		ssize_t got = pread(pagemap, entry, want * 8, (off_t)(va / PAGE * 8));
		unsigned n = 0;

		if (got < 0)
			return -errno;
		for (unsigned i = 0; i < got / 8; i++)
			if (entry[i] >> 63)
				at[n++] = va + i * PAGE;
		if (n)
			r = look(w, at, n);
	}
	return r;
}

/* Only memory in which the whole arena has room. */
static int scan_all(struct where *w)
{
	char path[64], line[512], kind[8];
	uint64_t first, end;
	int pagemap, r = 0;
	FILE *maps;

	snprintf(path, sizeof path, "/proc/%d/pagemap", (int)w->pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return -errno;
	snprintf(path, sizeof path, "/proc/%d/maps", (int)w->pid);
	maps = fopen(path, "re");
	if (!maps)
		r = -errno;
	while (!r && fgets(line, sizeof line, maps))
		if (sscanf(line, "%lx-%lx %7s", &first, &end, kind) == 3 && !strncmp(kind, "rw", 2) &&
		    end - first >= w->pages * PAGE)
			r = scan(w, pagemap, first, end);
	if (maps)
		fclose(maps);
	close(pagemap);
	return r;
}

/* Places in the order of their addresses. */
static void sort_places(struct where *w)
{
	unsigned rank[PLACES_MAX] = { 0 };

	for (unsigned i = 0; i < w->nr_places; i++)
		for (unsigned k = 0; k < w->nr_places; k++)
			rank[i] += w->base[k] < w->base[i];
	for (uint32_t p = 0; p < w->pages; p++) {
		uint32_t at = 0;

		for (unsigned i = 0; i < w->nr_places; i++)
			if (w->at[p] >> i & 1)
				at |= 1u << rank[i];
		w->at[p] = at;
	}
}

static void print(FILE *to, const struct where *w)
{
	uint32_t first = 0, missing = 0, copies = 0;
	const char *between = "";

	fprintf(to, "{\"pages\":%u,\"places\":%u,\"runs\":[", w->pages, w->nr_places);
	for (uint32_t p = 0; p < w->pages; p++) {
		missing += !w->at[p];
		copies += !!(w->at[p] & (w->at[p] - 1));
		if (p + 1 < w->pages && w->at[p + 1] == w->at[p] && w->nodes[p + 1] == w->nodes[p])
			continue;
		fprintf(to, "%s[%u,%u,%lu,%u]", between, first, p + 1 - first, w->nodes[p], w->at[p]);
		between = ",";
		first = p + 1;
	}
	fprintf(to, "],\"missing\":%u,\"copies\":%u}\n", missing, copies);
}

int where_print(FILE *to, pid_t pid, uint32_t pages)
{
	struct where w = { .pid = pid, .pages = pages };
	int r = hash_build(&w);

	if (!r)
		r = scan_all(&w);
	if (!r) {
		sort_places(&w);
		print(to, &w);
	}
	free(w.at);
	free(w.nodes);
	free(w.hash);
	return r;
}
