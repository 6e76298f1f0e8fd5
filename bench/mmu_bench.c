/*
 * mmu-bench - what mmu/ costs by itself, on one thread, with nobody walking the shadow: no exits, no kicks sent.
 * Medians over the repetitions; each repetition starts from a new struct mmu over the same guest tables.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "mmu/mmu.h"

#define TABLES		64u			/* level-1 tables, each full */
#define PAGES		(TABLES * MMU_ENTRIES)	/* 128 MiB mapped */
#define LINK		(MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A)
#define LEAF		(LINK | MMU_PTE_D)

/* Frames: 1-3 root to level 2, FIRST_L1.. leaf tables, then 2 MiB-aligned data, and the tables of a second view of it
 * by 2 MiB entries (slot 1 of the root). */
enum { L4 = 1, L3, L2, L3_LARGE, L2_LARGE, L3_LINEAR, L2_LINEAR, L1_LINEAR, FIRST_L1 = 16, DATA = 512 };
#define NR_GFNS		(DATA + PAGES)
#define POOL		NR_GFNS
#define POOL_PAGES	1024u
#define REPS_MAX	101u

#define VA(page)	((uint64_t)(page) << 12)
#define VA_LARGE(page)	(1ull << 39 | VA(page))
#define VA_LINEAR(gfn)	(2ull << 39 | VA(gfn))	/* frames 0-511, read-only: how the guest kernel writes its tables */

struct bench {
	uint8_t *mem;
	struct mmu *mmu;
	struct mmu_cpu *cpu;
};

struct result {
	const char *name, *unit, *what;
	double value[REPS_MAX];
	unsigned n;
};

enum { FILL, FILL_LARGE, UPDATE_PLAIN, UPDATE_ABSENT, UPDATE_PRESENT, RESYNC_SAME, RESYNC_8, RESYNC_FULL, PREBUILD,
       PREBUILD_RATE, POOL_SMALL, POOL_LARGE, NR_RESULTS };

static struct result results[NR_RESULTS] = {
	[FILL]           = { "fill_4k", "ns", "hidden fault that fills a 4 KiB entry" },
	[FILL_LARGE]     = { "fill_2m", "ns", "hidden fault that fills a 2 MiB entry" },
	[UPDATE_PLAIN]   = { "update_unshadowed", "ns", "explicit update of a table without a shadow" },
	[UPDATE_ABSENT]  = { "update_absent", "ns", "... with a shadow, entry not filled" },
	[UPDATE_PRESENT] = { "update_filled", "ns", "... with a shadow, entry filled: removed, kick queued and drained" },
	[RESYNC_SAME]    = { "resync_0", "ns", "flush, per out-of-sync table, full, nothing changed" },
	[RESYNC_8]       = { "resync_8", "ns", "... 8 entries changed" },
	[RESYNC_FULL]    = { "resync_512", "ns", "... all 512 entries changed" },
	[PREBUILD]       = { "prebuild", "ns", "prebuild of one entry" },
	[PREBUILD_RATE]  = { "prebuild_rate", "M/s", "prebuilds per second and core" },
	[POOL_SMALL]     = { "pool_4k", "pages", "shadow pool per MiB mapped by 4 KiB entries (128 MiB, dense)" },
	[POOL_LARGE]     = { "pool_2m", "pages", "... by 2 MiB entries" },
};

static _Noreturn void die(const char *what, int err)
{
	fprintf(stderr, "mmu-bench: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void note(unsigned which, double value)
{
	results[which].value[results[which].n++] = value;
}

static uint64_t *table(struct bench *b, uint64_t gfn)
{
	return (uint64_t *)(b->mem + gfn * MMU_PAGE_SIZE);
}

static uint64_t leaf(unsigned page)
{
	return (uint64_t)(DATA + page) << 12 | LEAF;
}

static void build_guest(struct bench *b)
{
	unsigned i;

	memset(b->mem, 0, DATA * MMU_PAGE_SIZE);
	table(b, L4)[0] = L3 << 12 | LINK;
	table(b, L3)[0] = L2 << 12 | LINK;
	for (i = 0; i < TABLES; i++)
		table(b, L2)[i] = (uint64_t)(FIRST_L1 + i) << 12 | LINK;
	for (i = 0; i < PAGES; i++)
		table(b, FIRST_L1 + i / MMU_ENTRIES)[i % MMU_ENTRIES] = leaf(i);
	table(b, L4)[1] = L3_LARGE << 12 | LINK;
	table(b, L3_LARGE)[0] = L2_LARGE << 12 | LINK;
	for (i = 0; i < TABLES; i++)
		table(b, L2_LARGE)[i] = leaf(i * MMU_ENTRIES) | MMU_PTE_PS;
	table(b, L4)[2] = L3_LINEAR << 12 | LINK;
	table(b, L3_LINEAR)[0] = L2_LINEAR << 12 | LINK;
	table(b, L2_LINEAR)[0] = L1_LINEAR << 12 | LINK;
	for (i = 0; i < MMU_ENTRIES; i++)
		table(b, L1_LINEAR)[i] = (uint64_t)i << 12 | (LEAF & ~MMU_PTE_W);
}

static void open_mmu(struct bench *b)
{
	const struct mmu_region region = { { 0 }, POOL + POOL_PAGES, b->mem };
	const struct mmu_config config = { .regions = &region, .nr_regions = 1, .nr_gfns = NR_GFNS, .pool = { POOL },
					   .pool_pages = POOL_PAGES, .large = true, .nx = true, .preset_ad = true };
	mfn_t root;
	int err;

	build_guest(b);
	err = mmu_create(&config, &b->mmu);
	if (!err)
		err = mmu_cpu_create(b->mmu, &b->cpu);
	if (!err)
		err = mmu_load(b->cpu, MMU_KERNEL, (gfn_t){ L4 }, &root);
	if (err)
		die("setting up", err);
}

static void close_mmu(struct bench *b)
{
	mmu_cpu_destroy(b->cpu);
	mmu_destroy(b->mmu);
}

static void drain(struct bench *b)
{
	struct mmu_kick kicks[64];

	while (mmu_kick_next(b->cpu, kicks, 64))
		;
	mmu_kick_done(b->cpu);
}

/* A benchmark that measures something else than it says is worse than none. */
static void fault(struct bench *b, uint64_t va, uint32_t access, enum mmu_verdict expected)
{
	struct mmu_result r = mmu_fault(b->cpu, MMU_KERNEL, (gva_t){ va }, access);

	if (r.verdict != expected) {
		fprintf(stderr, "mmu-bench: fault at %#llx: verdict %d, expected %d\n", (unsigned long long)va, r.verdict,
			expected);
		exit(1);
	}
}

static void touch_tables(struct bench *b)
{
	unsigned i;

	for (i = 0; i < TABLES; i++)
		fault(b, VA(i * MMU_ENTRIES), 0, MMU_HIDDEN);
}

static uint32_t pool_used(struct bench *b)
{
	struct mmu_usage usage;

	mmu_usage(b->mmu, &usage);
	return usage.pool_used;
}

static void bench_fill(struct bench *b)
{
	uint32_t empty;
	double start;
	unsigned i;

	open_mmu(b);
	empty = pool_used(b);
	touch_tables(b);
	start = now_ns();
	for (i = 0; i < PAGES; i++)
		if (i % MMU_ENTRIES)
			fault(b, VA(i), 0, MMU_HIDDEN);
	note(FILL, (now_ns() - start) / (PAGES - TABLES));
	note(POOL_SMALL, (pool_used(b) - empty) / (PAGES / 256.0));
	close_mmu(b);

	open_mmu(b);
	empty = pool_used(b);
	start = now_ns();
	for (i = 0; i < TABLES; i++)
		fault(b, VA_LARGE(i * MMU_ENTRIES), 0, MMU_HIDDEN);
	note(FILL_LARGE, (now_ns() - start) / TABLES);
	note(POOL_LARGE, (pool_used(b) - empty) / (PAGES / 256.0));
	close_mmu(b);
}

static double update_all(struct bench *b, uint64_t flip)
{
	double start = now_ns();
	unsigned i;

	for (i = 0; i < PAGES; i++) {
		mmu_update(b->cpu, (gfn_t){ FIRST_L1 + i / MMU_ENTRIES }, i % MMU_ENTRIES, leaf(i ^ flip), false);
		if (i % 32 == 31)
			drain(b);
	}
	return (now_ns() - start) / PAGES;
}

static void bench_update(struct bench *b)
{
	unsigned i;

	open_mmu(b);
	note(UPDATE_PLAIN, update_all(b, 1));
	touch_tables(b);
	note(UPDATE_ABSENT, update_all(b, 2));
	for (i = 0; i < PAGES; i++)
		mmu_fault(b->cpu, MMU_KERNEL, (gva_t){ VA(i) }, 0);
	note(UPDATE_PRESENT, update_all(b, 3));
	close_mmu(b);
}

static void resync(struct bench *b, unsigned which, unsigned changed, uint64_t flip)
{
	double start;
	unsigned i, n;

	for (i = 0; i < PAGES; i++)
		mmu_fault(b->cpu, MMU_KERNEL, (gva_t){ VA(i) }, 0);
	for (i = 0; i < TABLES; i++) {
		fault(b, VA_LINEAR(FIRST_L1 + i), MMU_PF_W, MMU_PTWRITE);
		for (n = 0; n < changed; n++)	/* as the guest would */
			__atomic_store_n(&table(b, FIRST_L1 + i)[n * (MMU_ENTRIES / changed)],
					 leaf((i * MMU_ENTRIES + n * (MMU_ENTRIES / changed)) ^ flip), __ATOMIC_RELAXED);
	}
	drain(b);
	start = now_ns();
	mmu_flush(b->cpu);
	drain(b);
	note(which, (now_ns() - start) / TABLES);
}

static void bench_resync(struct bench *b)
{
	unsigned i;
	int err;

	open_mmu(b);
	for (i = 0; i < TABLES; i++) {
		err = mmu_pin(b->cpu, (gfn_t){ FIRST_L1 + i }, 1);
		if (err)
			die("pin", err);
	}
	mmu_flush(b->cpu);
	drain(b);
	resync(b, RESYNC_SAME, 0, 0);
	resync(b, RESYNC_8, 8, 1);
	resync(b, RESYNC_FULL, 512, 2);
	close_mmu(b);
}

static void bench_prebuild(struct bench *b)
{
	enum mmu_prebuilt r;
	double ns, start;
	unsigned i;

	open_mmu(b);
	touch_tables(b);
	start = now_ns();
	for (i = 0; i < PAGES; i++) {
		r = mmu_prebuild(b->cpu, (gfn_t){ FIRST_L1 + i / MMU_ENTRIES }, i % MMU_ENTRIES, MMU_SRC_FIRST_HEURISTIC, 0);
		if (r != (i % MMU_ENTRIES ? MMU_PB_BUILT : MMU_PB_PRESENT)) {
			fprintf(stderr, "mmu-bench: prebuild of page %u: %d\n", i, r);
			exit(1);
		}
	}
	ns = (now_ns() - start) / PAGES;
	note(PREBUILD, ns);
	note(PREBUILD_RATE, 1e3 / ns);
	close_mmu(b);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_table(unsigned reps)
{
	unsigned i;

	printf("mmu/ alone, one thread; medians (and extremes) of %u repetitions\n\n", reps);
	for (i = 0; i < NR_RESULTS; i++) {
		const struct result *r = &results[i];

		printf("  %10.2f %-5s  %s  (%.2f-%.2f)\n", r->value[r->n / 2], r->unit, r->what, r->value[0],
		       r->value[r->n - 1]);
	}
}

static void print_json(unsigned reps)
{
	unsigned i;

	printf("{ \"schema\": 1, \"bench\": \"mmu\", \"repetitions\": %u, \"pages\": %u, \"results\": {\n", reps, PAGES);
	for (i = 0; i < NR_RESULTS; i++) {
		const struct result *r = &results[i];

		printf("  \"%s\": { \"unit\": \"%s\", \"median\": %.3f, \"min\": %.3f, \"max\": %.3f }%s\n", r->name, r->unit,
		       r->value[r->n / 2], r->value[0], r->value[r->n - 1], i + 1 < NR_RESULTS ? "," : "");
	}
	printf("} }\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "repetitions", required_argument, NULL, 'r' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	static const char usage[] = "usage: mmu-bench [--json] [--repetitions 1..101, default 7]\n";
	unsigned long reps = 7, rep;
	struct bench b = { 0 };
	bool json = false;
	char *end;
	unsigned i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 'r':
			reps = strtoul(optarg, &end, 10);
			if (*end || reps < 1 || reps > REPS_MAX) {
				fputs(usage, stderr);
				return 2;
			}
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		return 2;
	}

	b.mem = mmap(NULL, (POOL + POOL_PAGES) * MMU_PAGE_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b.mem == MAP_FAILED)
		die("guest memory", errno);
	memset(b.mem + POOL * MMU_PAGE_SIZE, 0, POOL_PAGES * MMU_PAGE_SIZE);	/* host faults are not the subject */
	for (rep = 0; rep < reps; rep++) {
		bench_fill(&b);
		bench_update(&b);
		bench_resync(&b);
		bench_prebuild(&b);
	}
	for (i = 0; i < NR_RESULTS; i++)
		qsort(results[i].value, results[i].n, sizeof(double), by_value);
	if (json)
		print_json(reps);
	else
		print_table(reps);
	return 0;
}
