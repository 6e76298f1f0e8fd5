/*
 * numa.c - vCPUs that access the pages of a shared arena by a pattern, check every word they read, and give an account of
 * who accessed what. What placement is worth follows from the account and from where the host has the pages.
 *
 * cpus=N pattern=NAME pages=N (1024) seconds=N (5) or rounds=N (accesses per vCPU) periods=N (2) seed=N
 * touch=self|mirror|one   who touches a segment first; the default goes with the pattern
 * map=shared|own          one mapping of the arena, or one with tables of its own for each vCPU
 * roots=shared|own        all vCPUs on one root, or each on a root of its own
 * swap=MS                 pingpong: how long a hot set stays (100)
 * hold=MS                 vCPU 0 sleeps that long after each period, so that somebody can look; the others go on (0)
 *
 * The arena is cut into a segment per vCPU, a segment into eight groups, of which two are hot. Lines for programs:
 *   numa-arena {...}      what it is made of
 *   numa-period {...}     period 0: all is touched, nobody works yet; else a period has ended
 *   numa-account {...}    accesses of a vCPU to eight groups in the period
 */
#include "lib/smp.h"

#define ARENA_VA	(TEST_VA + 0x40000000)
#define PAGES_MAX	8192u
#define GROUPS		8u	/* per segment */
#define HOT_GROUPS	2u
#define GROUPS_MAX	(SMP_MAX * GROUPS)

/* Everybody has a line of its own on each page, so everybody may write every page. */
struct arena_page {
	uint64_t id, total, pad[6];
	uint64_t seq, data[7];		/* a sequence lock; only the segment's owner writes */
	struct {
		uint64_t writes, pad[7];
	} of[SMP_MAX];
	uint64_t constant[240];
};
_Static_assert(sizeof(struct arena_page) == PAGE, "a page");

/* What a vCPU knows it has done. Only it writes; `written` and `seq_done` follow the store they tell of. */
static struct worker {
	uint64_t counts[GROUPS_MAX], accesses, writes;
	volatile uint32_t written[PAGES_MAX];
} __attribute__((aligned(4096))) workers[SMP_MAX];
static volatile uint32_t seq_done[PAGES_MAX];

static uint32_t pages, segment_pages, group_pages;
static uint64_t rounds;
static bool own_maps;
static uint64_t *own_root[SMP_MAX];
static volatile unsigned stop, turn;	/* turn 1: hot sets have changed places */

static unsigned mirror(unsigned cpu)
{
	return nr_cpus - 1 - cpu;
}

static uint64_t word_of(uint64_t page, uint64_t generation, unsigned k)
{
	uint64_t z = (page << 40 ^ generation << 12 ^ k) + 0x9e3779b97f4a7c15ul;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ul;
	return z ^ z >> 31;
}

static struct arena_page *page_at(struct cpu *c, uint32_t p)
{
	return (struct arena_page *)(ARENA_VA + (own_maps ? c->id * PAGES_MAX * PAGE : 0) + p * PAGE);
}

/* ---- one access --------------------------------------------------------------------------------------------------- */

static void seq_check(struct cpu *c, uint32_t p)
{
	volatile struct arena_page *a = page_at(c, p);
	uint64_t least = seq_done[p], seq = a->seq, data[7];

	if (seq < least)
		return cpu_fail(c, "a stale generation", p, seq);
	if (seq & 1)
		return;
	for (unsigned k = 0; k < 7; k++)
		data[k] = a->data[k];
	if (a->seq != seq)
		return;
	for (unsigned k = 0; k < 7; k++)
		if (data[k] != word_of(p, seq, k))
			return cpu_fail(c, "words of two generations on one page", p, seq);
}

static void read_page(struct cpu *c, uint32_t p)
{
	volatile struct arena_page *a = page_at(c, p);
	uint64_t dice = random64(&c->seed);
	unsigned k = dice >> 8 & 0xffff, other = k % nr_cpus;
	uint64_t least;

	switch (dice % 4) {
	case 0:
		least = workers[other].written[p];
		if (a->of[other].writes < least)
			cpu_fail(c, "another's write is not there", p, least);
		break;
	case 1:
		seq_check(c, p);
		break;
	default:
		k %= ARRAY_SIZE(a->constant);
		if (a->id != word_of(p, 1, 512) || a->constant[k] != word_of(p, 1, 600 + k))
			cpu_fail(c, "a constant word is wrong", p, k);
	}
}

static void write_page(struct cpu *c, uint32_t p)
{
	volatile struct arena_page *a = page_at(c, p);
	struct worker *w = &workers[c->id];
	uint32_t n = w->written[p];

	if (a->of[c->id].writes != n)
		return cpu_fail(c, "a write was lost", p, n);
	a->of[c->id].writes = n + 1;
	__atomic_add_fetch(&a->total, 1, __ATOMIC_RELAXED);
	w->written[p] = n + 1;
	w->writes++;
}

/* The owner of the segment writes the whole line anew. */
static void write_generation(struct cpu *c, uint32_t p)
{
	volatile struct arena_page *a = page_at(c, p);
	uint64_t seq = seq_done[p];

	if (a->seq != seq)
		return cpu_fail(c, "a generation was lost", p, seq);
	a->seq = seq + 1;
	for (unsigned k = 0; k < 7; k++)
		a->data[k] = word_of(p, seq + 2, k);
	a->seq = seq + 2;
	seq_done[p] = (uint32_t)seq + 2;
}

static uint32_t in_segment(struct cpu *c, unsigned segment, uint32_t of)
{
	return segment * segment_pages + (uint32_t)(random64(&c->seed) % of);
}

static void visit(struct cpu *c, uint32_t p, bool write)
{
	struct worker *w = &workers[c->id];

	if (!write)
		read_page(c, p);
	else if (p / segment_pages == c->id && random64(&c->seed) % 16 == 0)
		write_generation(c, p);
	else
		write_page(c, p);
	w->counts[p / group_pages]++;
	w->accesses++;
}

/* ---- patterns ----------------------------------------------------------------------------------------------------- */

static void private(struct cpu *c)
{
	visit(c, in_segment(c, c->id, segment_pages), random64(&c->seed) % 2);
}

/* A hot set of its own, one access in 16 anywhere. */
static void hotcold(struct cpu *c)
{
	unsigned segment = turn ? mirror(c->id) : c->id;

	if (random64(&c->seed) % 16)
		visit(c, in_segment(c, segment, HOT_GROUPS * group_pages), random64(&c->seed) % 2);
	else
		visit(c, (uint32_t)(random64(&c->seed) % pages), false);
}

/* Disco's Raytrace: a scene that all read; its owner changes a word of it now and then. */
static void readshared(struct cpu *c)
{
	if (random64(&c->seed) % 65536)
		visit(c, (uint32_t)(random64(&c->seed) % pages), false);
	else
		visit(c, in_segment(c, c->id, segment_pages), true);
}

static void writeshared(struct cpu *c)
{
	visit(c, (uint32_t)(random64(&c->seed) % pages), random64(&c->seed) % 2);
}

static void uniform(struct cpu *c)
{
	visit(c, (uint32_t)(random64(&c->seed) % pages), random64(&c->seed) % 8 == 0);
}

enum touch { SELF, MIRROR, ONE };

static const struct pattern {
	const char *name;
	void (*access)(struct cpu *c);
	enum touch touch;
	enum { STAY, BY_PERIOD, BY_TIME } turns;	/* when hot sets change places */
} patterns[] = {
	{ "private", private, SELF, STAY },
	{ "hotcold", hotcold, MIRROR, STAY },
	{ "readshared", readshared, ONE, STAY },
	{ "writeshared", writeshared, ONE, STAY },
	{ "uniform", uniform, SELF, STAY },
	{ "phases", hotcold, SELF, BY_PERIOD },
	{ "pingpong", hotcold, SELF, BY_TIME },
};
static const struct pattern *pattern;

/* ---- setting up --------------------------------------------------------------------------------------------------- */

static void touch_segment(struct cpu *c)
{
	for (uint32_t p = (uint32_t)c->arg * segment_pages; p < (c->arg + 1) * segment_pages; p++) {
		struct arena_page *a = page_at(c, p);

		if (a->id || a->total || a->constant[239])
			return cpu_fail(c, "a fresh page is not empty", p, a->id);
		a->id = word_of(p, 1, 512);
		for (unsigned k = 0; k < 7; k++)
			a->data[k] = word_of(p, 0, k);
		for (unsigned k = 0; k < ARRAY_SIZE(a->constant); k++)
			a->constant[k] = word_of(p, 1, 600 + k);
	}
}

static void run_on(unsigned cpu, void (*fn)(struct cpu *c), uint64_t arg)
{
	if (cpu) {
		smp_give(cpu, fn, arg);
		return smp_wait(cpu);
	}
	cpus[0].arg = arg;
	fn(&cpus[0]);
}

static bool is(const char *key, const char *value)
{
	const char *s = option(key);

	return s && !strcmp(s, value);
}

static void choose(void)
{
	const char *name = option("pattern");

	pattern = &patterns[0];
	for (unsigned i = 0; name && i < ARRAY_SIZE(patterns); i++)
		if (!strcmp(name, patterns[i].name)) {
			pattern = &patterns[i];
			name = NULL;
		}
	if (name)
		return test_fail("there is no pattern=%s", name);
	pages = (uint32_t)option_number("pages", 1024);
	group_pages = pages / (nr_cpus * GROUPS);
	segment_pages = group_pages * GROUPS;
	pages = segment_pages * nr_cpus;
	if (!pages || pages > PAGES_MAX)
		return test_fail("pages= goes from %u to %u", nr_cpus * GROUPS, PAGES_MAX);
	own_maps = is("map", "own");
}

/* Frames beyond all that the builder has made, from a 2 MiB boundary on; nobody has touched them. */
static uint64_t map_arena(void)
{
	const uint64_t *list = (const uint64_t *)start_info->mfn_list;
	uint64_t end = (start_info->pt_base - PTR(virt_base)) / PAGE + start_info->nr_pt_frames;
	uint64_t first = (end + 2048 + 511) & ~511ul;

	if (first + pages > start_info->nr_pages) {
		test_fail("%lu pages of memory are too few for an arena of %u", start_info->nr_pages, pages);
		return 0;
	}
	for (unsigned i = 0; i < (own_maps ? nr_cpus : 1); i++)
		for (uint32_t p = 0; p < pages; p++) {
			if (list[first + p] != list[first] + p ||
			    map_page(root_va(), PTR(page_at(&cpus[i], p)), pte_make(list[first + p], PTE_DATA))) {
				test_fail("page %u of the arena cannot be mapped", p);
				return 0;
			}
		}
	return list[first];
}

static void set_up(void)
{
	enum touch touch;

	choose();
	if (test_failed())
		return;
	say("numa-arena {\"pattern\":\"%s\",\"vcpus\":%u,\"pages\":%u,\"groups\":%u,\"group_pages\":%u,\"first_gfn\":%lu}",
	    pattern->name, nr_cpus, pages, nr_cpus * GROUPS, group_pages, map_arena());
	touch = is("touch", "self") ? SELF : is("touch", "mirror") ? MIRROR : is("touch", "one") ? ONE : pattern->touch;
	for (unsigned i = 0; i < nr_cpus && !test_failed(); i++)
		run_on(touch == SELF ? i : touch == MIRROR ? mirror(i) : 0, touch_segment, i);
	for (unsigned i = 0; i < nr_cpus && is("roots", "own"); i++) {
		own_root[i] = root_clone();
		expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(own_root[i]), 0), 0);
	}
}

/* ---- the account -------------------------------------------------------------------------------------------------- */

static void wait_ms(uint64_t ms)
{
	uint64_t until = system_time() + ms * 1000000;

	while (system_time() < until) {
		struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = until };
		unsigned before = cpus[0].timer_events;

		hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&t));
		cpu_block(&cpus[0], &cpus[0].timer_events, before);
	}
}

static void account(unsigned period, uint64_t ns)
{
	static uint64_t before[SMP_MAX][GROUPS_MAX], accesses_before, writes_before;
	uint64_t accesses = 0, writes = 0;

	for (unsigned i = 0; i < nr_cpus; i++) {
		const volatile uint64_t *counts = workers[i].counts;

		accesses += *(volatile uint64_t *)&workers[i].accesses;
		writes += *(volatile uint64_t *)&workers[i].writes;
		for (unsigned g = 0; g < nr_cpus * GROUPS; g += GROUPS) {
			uint64_t n[GROUPS], any = 0;

			for (unsigned k = 0; k < GROUPS; k++) {
				uint64_t now = counts[g + k];

				any += n[k] = now - before[i][g + k];
				before[i][g + k] = now;
			}
			if (any)
				say("numa-account {\"period\":%u,\"vcpu\":%u,\"first_group\":%u,\"counts\":[%lu,%lu,%lu,%lu,%lu,%lu,%lu,%lu]}",
				    period, i, g, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]);
		}
	}
	say("numa-period {\"period\":%u,\"ns\":%lu,\"accesses\":%lu,\"writes\":%lu}", period, ns, accesses - accesses_before,
	    writes - writes_before);
	accesses_before = accesses;
	writes_before = writes;
	wait_ms(option_number("hold", 0));
}

/* Nobody works any more: what is on each page is the sum of what was done. */
static void final_check(struct cpu *c)
{
	for (uint32_t p = 0; p < pages && !c->why; p++) {
		volatile struct arena_page *a = page_at(c, p);
		uint64_t total = 0;

		for (unsigned i = 0; i < nr_cpus; i++) {
			if (a->of[i].writes != workers[i].written[p])
				cpu_fail(c, "writes are missing", p, i);
			total += workers[i].written[p];
		}
		if (a->total != total)
			cpu_fail(c, "atomic additions are missing", p, total - a->total);
		if (a->seq != seq_done[p] || a->seq & 1)
			cpu_fail(c, "the last generation is missing", p, a->seq);
		seq_check(c, p);
		for (unsigned k = 0; k < ARRAY_SIZE(a->constant); k++)
			if (a->constant[k] != word_of(p, 1, 600 + k))
				cpu_fail(c, "a constant word is wrong at the end", p, k);
	}
}

static void enter_root(struct cpu *c, uint64_t *root)
{
	if (root && mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(root), 0))
		cpu_fail(c, "a root is refused", c->id, 0);
}

static void work(struct cpu *c)
{
	enter_root(c, own_root[c->id]);
	while (!stop && !c->why && (!rounds || workers[c->id].accesses < rounds))
		pattern->access(c);
	enter_root(c, own_root[c->id] ? root_va() : NULL);
}

/* vCPU 0 works as well, and keeps the clock. */
static void work_and_time(unsigned periods, uint64_t ns)
{
	uint64_t began = system_time(), swap = option_number("swap", 100) * 1000000, now = began, since = began, took = ns / periods;

	enter_root(&cpus[0], own_root[0]);
	for (unsigned period = 1; period <= periods && !test_failed(); period++) {
		turn = pattern->turns == BY_PERIOD && period % 2 == 0;
		while (!cpus[0].why &&
		       (rounds ? workers[0].accesses < rounds * period / periods : now < since + took)) {
			for (unsigned i = 0; i < 64; i++)
				pattern->access(&cpus[0]);
			now = system_time();
			if (pattern->turns == BY_TIME)
				turn = (now - began) / swap % 2;
		}
		if (period == periods && rounds)
			for (unsigned i = 1; i < nr_cpus; i++)
				while (cpus[i].done != cpus[i].job && system_time() < now + 60000000000ul)
					relax();
		now = system_time();
		account(period, now - since);
		since = system_time();
		for (unsigned i = 0; i < nr_cpus; i++)
			if (cpus[i].why)
				test_fail("vCPU %u: %s (%lu, %lu)", i, cpus[i].why, (uint64_t)cpus[i].why_a, (uint64_t)cpus[i].why_b);
	}
	enter_root(&cpus[0], own_root[0] ? root_va() : NULL);
}

TEST(numa)
{
	uint64_t periods = option_number("periods", 2);

	smp_init();
	set_up();
	if (cpus[0].why)
		test_fail("%s (%lu, %lu)", cpus[0].why, (uint64_t)cpus[0].why_a, (uint64_t)cpus[0].why_b);
	if (test_failed())
		return;
	rounds = option_number("rounds", 0);
	account(0, 0);
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_give(i, work, 0);
	work_and_time((unsigned)periods, option_number("seconds", 5) * 1000000000ul);
	stop = 1;
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_wait(i);
	final_check(&cpus[0]);
	if (cpus[0].why)
		test_fail("%s (%lu, %lu)", cpus[0].why, (uint64_t)cpus[0].why_a, (uint64_t)cpus[0].why_b);
	for (unsigned i = 0; i < nr_cpus; i++)
		expect(workers[i].accesses > 100, "vCPU %u did next to nothing", i);
}
