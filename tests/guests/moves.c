/*
 * moves.c - frames that are data, page tables and data again, while somebody moves them (--numa=random). Each vCPU owns FRAMES
 * frames and knows every word of them. cpus=N, seconds=N (default 5), seed=N, only=hostile_words for a guest that lies about
 * what is away.
 *
 * A frame that is pinned, updated, read, unpinned and written again passes between the shim and the VMM as it goes away and
 * comes home; a store that went to the place a frame has left is a wrong word.
 */
#include "lib/shim.h"
#include "lib/smp.h"

#define FRAMES	24u
#define WORDS	(PAGE / 8)
#define PINS	((volatile uint8_t *)SHIM_PINS_VA)

static struct frame {
	uint64_t *page;
	uint64_t words[WORDS];		/* what it holds; bit 0 clear, so that as a table it maps nothing */
} frames[SMP_MAX][FRAMES];
static volatile unsigned stop;
static uint64_t steps[SMP_MAX];

static uint64_t any_word(struct cpu *c)
{
	return random64(&c->seed) & ~1ul;
}

static void look(struct cpu *c, struct frame *f)
{
	for (unsigned i = 0; i < WORDS; i++)
		if (((volatile uint64_t *)f->page)[i] != f->words[i])
			return cpu_fail(c, "a wrong word", i, f->page[i] ^ f->words[i]);
}

static void write_some(struct cpu *c, struct frame *f)
{
	for (unsigned i = random64(&c->seed) % WORDS; i < WORDS; i += 1 + random64(&c->seed) % 64)
		((volatile uint64_t *)f->page)[i] = f->words[i] = any_word(c);
}

static void update(struct cpu *c, struct frame *f)
{
	unsigned i = random64(&c->seed) % WORDS;

	f->words[i] = any_word(c);
	if (mmu_update_one(mach(&f->page[i]), f->words[i]))
		cpu_fail(c, "an update is refused", i, 0);
}

/* Data to page table to data. */
static void pin(struct cpu *c, struct frame *f)
{
	uint64_t mfn = va_to_mfn(f->page);
	unsigned level = random64(&c->seed) % 4;

	page_protect(f->page, PTE_RO_DATA);
	if (mmuext(MMUEXT_PIN_L1_TABLE + level, mfn, 0))
		return cpu_fail(c, "a pin is refused", level, mfn);
	for (unsigned n = random64(&c->seed) % 8; n; n--)
		update(c, f);
	look(c, f);
	if (mmuext(MMUEXT_UNPIN_TABLE, mfn, 0))
		return cpu_fail(c, "an unpin is refused", level, mfn);
	page_protect(f->page, PTE_DATA);
}

/* The VMM stores into it. */
static void fill(struct cpu *c, struct frame *f, struct frame *from)
{
	long r = from ? mmuext(MMUEXT_COPY_PAGE, va_to_mfn(f->page), va_to_mfn(from->page)) :
			mmuext(MMUEXT_CLEAR_PAGE, va_to_mfn(f->page), 0);

	if (r)
		return cpu_fail(c, "a page cannot be cleared or copied", !!from, -r);
	for (unsigned i = 0; i < WORDS; i++)
		f->words[i] = from ? from->words[i] : 0;
}

static void hammer(struct cpu *c)
{
	for (; !stop && !c->why; steps[c->id]++) {
		struct frame *f = &frames[c->id][random64(&c->seed) % FRAMES], *g = &frames[c->id][random64(&c->seed) % FRAMES];

		switch (random64(&c->seed) % 8) {
		case 0 ... 2:
			look(c, f);
			break;
		case 3:
		case 4:
			write_some(c, f);
			break;
		case 5:
			update(c, f);
			break;
		case 6:
			pin(c, f);
			break;
		default:
			fill(c, f, f == g || c->seed & 1 ? NULL : g);
		}
	}
}

static bool prepare(void)
{
	smp_init();
	for (unsigned cpu = 0; cpu < nr_cpus; cpu++)
		for (unsigned i = 0; i < FRAMES; i++)
			if (!(frames[cpu][i].page = page_alloc()))
				return false;
	return true;
}

TEST(moves)
{
	uint64_t since, ns = option_number("seconds", 5) * 1000000000ul, total = 0;

	if (!prepare())
		return test_fail("too many vCPUs for the pool of pages");
	since = system_time();
	for (unsigned i = 1; i < nr_cpus; i++)
		smp_give(i, hammer, 0);
	while (!smp_late(since, ns) && !test_failed()) {
		struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = system_time() + 20000000 };
		unsigned before = cpus[0].timer_events;

		/* vCPU 0 sleeps most of the time: moves are then its thread's. */
		hcall3(vcpu_op, VCPUOP_set_singleshot_timer, 0, PTR(&t));
		cpu_block(&cpus[0], &cpus[0].timer_events, before);
		for (unsigned i = 0; i < FRAMES; i++) {
			look(&cpus[0], &frames[0][i]);
			pin(&cpus[0], &frames[0][i]);
			write_some(&cpus[0], &frames[0][i]);
		}
		steps[0] += FRAMES;
		for (unsigned i = 0; i < nr_cpus; i++)
			if (cpus[i].why)
				test_fail("vCPU %u: %s (%lu, %lx)", i, cpus[i].why, (uint64_t)cpus[i].why_a, (uint64_t)cpus[i].why_b);
	}
	stop = 1;
	for (unsigned i = 0; i < nr_cpus; i++) {
		if (i)
			smp_wait(i);
		for (unsigned k = 0; k < FRAMES; k++)
			look(&cpus[i], &frames[i][k]);
		if (cpus[i].why)
			test_fail("vCPU %u: %s (%lu, %lx)", i, cpus[i].why, (uint64_t)cpus[i].why_a, (uint64_t)cpus[i].why_b);
		total += steps[i];
	}
	say("moves: %lu steps on %u vCPUs", total, nr_cpus);
	expect(total > 20, "next to nothing was done");
}

/*
 * Says of frames that they are away or pinned when they are not, and the other way round, and that it is in the middle of an
 * update for ever. It may lose its own words by that, and whatever then comes of it: the VMM has to live.
 */
TEST(hostile_words)
{
	uint64_t seed = option_number("seed", 1) | 1, since;
	static uint8_t saved[PAGE_POOL];

	if (!option("only"))
		return test_skip("asked for by name only");
	if (!need_shim() || !prepare())
		return;
	since = system_time();
	while (!smp_late(since, option_number("seconds", 5) * 1000000000ul)) {
		struct frame *f = &frames[0][random64(&seed) % FRAMES];
		uint64_t mfn = va_to_mfn(f->page), first = va_to_mfn(frames[0][0].page) & ~511ul;

		SHIM_DATA->inside = random64(&seed) % 4 ? 0 : (uint32_t)random64(&seed);
		SHIM_DATA->moves = random64(&seed) % 4 ? 1 : 0;
		if (random64(&seed) % 8 == 0)
			for (unsigned i = 0; i < ARRAY_SIZE(saved); i++)
				PINS[first + i] ^= random64(&seed) % 4 ? 0 : SHIM_AWAY;
		PINS[mfn] = random64(&seed) % 2 ? SHIM_AWAY : (uint8_t)random64(&seed);
		if (mmuext(MMUEXT_PIN_L1_TABLE + random64(&seed) % 4, mfn, 0) == 0)
			mmuext(MMUEXT_UNPIN_TABLE, mfn, 0);
		mmu_update_one(mach(&f->page[random64(&seed) % WORDS]), random64(&seed) & ~1ul);
		mmuext(MMUEXT_CLEAR_PAGE, mfn, 0);
		relax();
	}
	SHIM_DATA->inside = 0;
}
