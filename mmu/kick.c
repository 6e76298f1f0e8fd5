/*
 * kick.c - what a cpu owes the processors: which sPTEs it changed since its last kick, and which pool pages may not be
 * reused before (docs/coherence.md, rules 3-5).
 *
 * A page lies on up to three lists of a cpu: COLLECT since the first change after a drain, DRAIN when mmu_kick_next()
 * gave its kicks out, RELEASE when the whole of COLLECT was given out. On each it has a hold; mmu_kick_done() ends
 * those of RELEASE. The way by RELEASE matters to a caller who drains in part: a page may be given out before the
 * entry that linked it.
 *
 * Who promises that a change is in force once its kicks are done (a flush, a pin, a move, ...) may find the change made
 * already by another cpu, whose kick is still owed. It then takes that kick over: kick_adopt(). So a cpu's lists are
 * written by their owner under kick_lock, which is innermost, and read by others under it.
 */
#include "mmu/internal.h"

static void set_oldest(struct mmu_cpu *cpu, uint64_t clock)
{
	bool owed = cpu->oldest != CLOCK_NEVER, owes = clock != CLOCK_NEVER;

	if (!owed && owes)
		__atomic_add_fetch(&cpu->mmu->nr_owing, 1, __ATOMIC_SEQ_CST);
	chaos();
	__atomic_store_n(&cpu->oldest, clock, __ATOMIC_SEQ_CST);
	chaos();
	if (owed && !owes)
		__atomic_sub_fetch(&cpu->mmu->nr_owing, 1, __ATOMIC_SEQ_CST);
}

static void hold_put(struct mmu_cpu *cpu, uint32_t page)
{
	struct spage *p = &cpu->mmu->pages[page];

	/* A dead page gets no new holds: who clears an entry of it, or one that links it, does so while the zapper, who
	 * has a hold, still waits for the lock to clear it himself. So one thread sees the last hold go. */
	if (__atomic_sub_fetch(&p->holds, 1, __ATOMIC_ACQ_REL) == 0 &&
	    __atomic_load_n(&p->state, __ATOMIC_ACQUIRE) == PAGE_DEAD)
		pool_give(cpu->mmu, page);
}

/* False: it was there already. */
static bool list_push(struct mmu_cpu *cpu, unsigned list, uint32_t page)
{
	if (cpu->kick_flags[page] & 1u << list)
		return false;
	cpu->kick_flags[page] |= 1u << list;
	cpu->kick_list[list][cpu->nr_kick[list]++] = page;
	return true;
}

/* Moves one page on, with its hold. */
static void list_move(struct mmu_cpu *cpu, unsigned from, unsigned to)
{
	uint32_t page = cpu->kick_list[from][--cpu->nr_kick[from]];

	cpu->kick_flags[page] &= ~(1u << from);
	if (!list_push(cpu, to, page))
		hold_put(cpu, page);
}

/* Kick lock. */
static void hold(struct mmu_cpu *cpu, uint32_t page)
{
	if (cpu->oldest_collect == CLOCK_NEVER) {
		cpu->oldest_collect = kick_clock(cpu->mmu);
		if (cpu->oldest_drained == CLOCK_NEVER)
			set_oldest(cpu, cpu->oldest_collect);
	}
	if (list_push(cpu, KICK_COLLECT, page))
		__atomic_add_fetch(&cpu->mmu->pages[page].holds, 1, __ATOMIC_ACQ_REL);
}

void kick_hold(struct mmu_cpu *cpu, uint32_t page)
{
	if (cpu->kick_flags[page] & 1u << KICK_COLLECT)
		return;
	spin_lock(&cpu->kick_lock);
	hold(cpu, page);
	spin_unlock(&cpu->kick_lock);
}

void kick_entry(struct mmu_cpu *cpu, uint32_t id)
{
	uint32_t page = id / MMU_ENTRIES;
	uint64_t *word = &cpu->kick_bits[page][id % MMU_ENTRIES / 64], bit = 1ull << id % 64;

	if (*word & bit)
		return;
	spin_lock(&cpu->kick_lock);
	hold(cpu, page);
	*word |= bit;
	spin_unlock(&cpu->kick_lock);
	STAT(cpu, kick_entries);
}

/* ---- taking over ------------------------------------------------------------------------------------------------ */

static bool others_owe(const struct mmu_cpu *cpu)
{
	return __atomic_load_n(&cpu->mmu->nr_owing, __ATOMIC_SEQ_CST) > (cpu->oldest != CLOCK_NEVER);
}

static void adopt_page(struct mmu_cpu *cpu, const struct mmu_cpu *from, uint32_t page)
{
	unsigned i, added = 0;

	for (i = 0; i < 8; i++) {
		uint64_t bits = (from->kick_bits[page][i] | from->kick_given[page][i]) & ~cpu->kick_bits[page][i];

		if (!bits)
			continue;
		hold(cpu, page);
		cpu->kick_bits[page][i] |= bits;
		added += __builtin_popcountll(bits);
	}
	STAT_ADD(cpu, kick_entries, added);
}

static void adopt_from(struct mmu_cpu *cpu, struct mmu_cpu *from)
{
	struct mmu_cpu *first = cpu < from ? cpu : from, *second = cpu < from ? from : cpu;
	unsigned list, i;

	spin_lock(&first->kick_lock);
	spin_lock(&second->kick_lock);
	for (list = 0; list < KICK_LISTS; list++)
		for (i = 0; i < from->nr_kick[list]; i++)
			adopt_page(cpu, from, from->kick_list[list][i]);
	spin_unlock(&second->kick_lock);
	spin_unlock(&first->kick_lock);
}

void kick_adopt(struct mmu_cpu *cpu)
{
	struct mmu_cpu *from;

	if (!others_owe(cpu))
		return;
	spin_lock(&cpu->mmu->cpus_lock);
	for (from = cpu->mmu->cpus; from; from = from->next)
		if (from != cpu && __atomic_load_n(&from->oldest, __ATOMIC_SEQ_CST) != CLOCK_NEVER)
			adopt_from(cpu, from);
	spin_unlock(&cpu->mmu->cpus_lock);
}

void kick_adopt_entry(struct mmu_cpu *cpu, uint32_t id)
{
	uint32_t page = id / MMU_ENTRIES, word = id % MMU_ENTRIES / 64;
	uint64_t bits = 0, bit = 1ull << id % 64;
	struct mmu_cpu *from;

	if (!others_owe(cpu))
		return;
	spin_lock(&cpu->mmu->cpus_lock);
	for (from = cpu->mmu->cpus; from; from = from->next) {
		if (from == cpu)
			continue;
		spin_lock(&from->kick_lock);
		bits |= from->kick_bits[page][word] | from->kick_given[page][word];
		spin_unlock(&from->kick_lock);
	}
	spin_unlock(&cpu->mmu->cpus_lock);
	if (bits & bit)
		kick_entry(cpu, id);
}

bool kick_settled(struct mmu *mmu, uint64_t clock)
{
	struct mmu_cpu *cpu;
	bool settled = true;

	spin_lock(&mmu->cpus_lock);
	for (cpu = mmu->cpus; cpu && settled; cpu = cpu->next)
		settled = __atomic_load_n(&cpu->oldest, __ATOMIC_SEQ_CST) > clock;
	spin_unlock(&mmu->cpus_lock);
	return settled;
}

bool mmu_kick_pending(struct mmu_cpu *cpu)
{
	return cpu->nr_kick[KICK_COLLECT];
}

/* Gives out kicks of one page. True: that was all of it. */
static bool give_page(struct mmu_cpu *cpu, uint32_t page, struct mmu_kick *out, unsigned max, unsigned *n)
{
	const mfn_t table = { cpu->mmu->cfg.pool.n + page };
	unsigned count = 0, i, min = cpu->mmu->cfg.table_kick_min;
	uint64_t *bits = cpu->kick_bits[page], *given = cpu->kick_given[page];
	const uint64_t cpus = reach_of(cpu->mmu, page);

	for (i = 0; i < 8; i++)
		count += __builtin_popcountll(bits[i]);
	if (min && count >= min) {
		for (i = 0; i < 8; i++) {
			given[i] |= bits[i];
			bits[i] = 0;
		}
		out[(*n)++] = (struct mmu_kick){ .table = table, .whole = true, .cpus = cpus };
		STAT(cpu, kick_tables);
		return true;
	}
	for (i = 0; i < 8; i++) {
		while (bits[i]) {
			if (*n == max)
				return false;
			out[(*n)++] = (struct mmu_kick){ .table = table, .index = i * 64 + __builtin_ctzll(bits[i]),
						       .cpus = cpus };
			given[i] |= bits[i] & -bits[i];
			bits[i] &= bits[i] - 1;
		}
	}
	return true;
}

/* Kick lock. All was given out: what it holds may go with the next mmu_kick_done(). */
static void drained(struct mmu_cpu *cpu)
{
	while (cpu->nr_kick[KICK_DRAIN])
		list_move(cpu, KICK_DRAIN, KICK_RELEASE);
	if (cpu->oldest_drained == CLOCK_NEVER)
		cpu->oldest_drained = cpu->oldest_collect;
	cpu->oldest_collect = CLOCK_NEVER;
	for (unsigned part = 0; part < cpu->mmu->cfg.nr_nodes; part++) {
		cpu->owed_drained[part] += cpu->owed_pages[part];
		cpu->owed_pages[part] = 0;
	}
}

unsigned mmu_kick_next(struct mmu_cpu *cpu, struct mmu_kick *out, unsigned max)
{
	uint32_t *nr = &cpu->nr_kick[KICK_COLLECT];
	unsigned n = 0;

	if (!*nr)
		return 0;
	spin_lock(&cpu->kick_lock);
	while (*nr && n < max && give_page(cpu, cpu->kick_list[KICK_COLLECT][*nr - 1], out, max, &n))
		list_move(cpu, KICK_COLLECT, KICK_DRAIN);
	if (!*nr)
		drained(cpu);
	spin_unlock(&cpu->kick_lock);
	return n;
}

void mmu_kick_done(struct mmu_cpu *cpu)
{
	unsigned i;

	if (!cpu->nr_kick[KICK_RELEASE])
		return;
	spin_lock(&cpu->kick_lock);
	while (cpu->nr_kick[KICK_RELEASE]) {
		uint32_t page = cpu->kick_list[KICK_RELEASE][--cpu->nr_kick[KICK_RELEASE]];

		cpu->kick_flags[page] &= ~(1u << KICK_RELEASE);
		if (!(cpu->kick_flags[page] & 1u << KICK_DRAIN))
			for (i = 0; i < 8; i++)
				cpu->kick_given[page][i] = 0;
		hold_put(cpu, page);
	}
	for (i = 0; i < cpu->mmu->cfg.nr_nodes; i++)
		cpu->owed_drained[i] = 0;
	cpu->oldest_drained = CLOCK_NEVER;
	__atomic_add_fetch(&cpu->mmu->clock, 1, __ATOMIC_SEQ_CST);
	set_oldest(cpu, cpu->oldest_collect);
	spin_unlock(&cpu->kick_lock);
}

/* The cpu goes away. By contract no processor that runs on still caches what it owes. */
void kick_abandon(struct mmu_cpu *cpu)
{
	struct mmu_kick drop[64];

	do {
		while (mmu_kick_next(cpu, drop, 64))
			;
		mmu_kick_done(cpu);
	} while (mmu_kick_pending(cpu));
}
