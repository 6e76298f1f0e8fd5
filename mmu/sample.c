/*
 * sample.c - was what we prebuilt used? A leaf preset with A never tells, so a sample of them is installed with A clear.
 *
 * A sample is settled once: whoever takes SPTE_SAMPLE off the entry counts it. That bit and A may change in a present leaf
 * at any time and without a lock, as A does by the processor; everybody else exchanges entries by compare-and-swap.
 */
#include "mmu/internal.h"

bool sample_due(struct mmu_cpu *cpu)
{
	unsigned every = cpu->mmu->cfg.sample_every;

	if (!every)
		return false;
	/* At random: what is prebuilt comes in runs, whose members are not alike. */
	cpu->sample_rng = cpu->sample_rng * 6364136223846793005ull + 1442695040888963407ull;
	return (cpu->sample_rng >> 33) % every == 0;
}

static unsigned source_of(uint64_t spte)
{
	return (spte & SPTE_SOURCE_MASK) >> SPTE_SOURCE_SHIFT;
}

void sample_removed(struct mmu_cpu *cpu, uint64_t spte)
{
	unsigned source = source_of(spte);

	STAT_SOURCE(cpu, source, removed);
	if (!(spte & SPTE_SAMPLE))
		return;
	if (spte & MMU_PTE_A)
		STAT_SOURCE(cpu, source, sampled_used);
	else
		STAT_SOURCE(cpu, source, sampled_unused);
}

/* Takes the bit off a sample for which `old` is still right. */
static bool settle(struct mmu *mmu, uint32_t id, uint64_t old, uint64_t set)
{
	return __atomic_compare_exchange_n(&mmu->pool[id], &old, (old & ~SPTE_SAMPLE) | set, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

void sample_fault(struct mmu_cpu *cpu, uint32_t id)
{
	uint64_t spte = spte_load(cpu->mmu, id);

	/* With A set it was used before this fault: it stays a sample, and counts as used in the end. */
	if ((spte & MMU_PTE_P) && (spte & SPTE_SAMPLE) && !(spte & MMU_PTE_A) && settle(cpu->mmu, id, spte, MMU_PTE_A))
		STAT_SOURCE(cpu, source_of(spte), sampled_late);
}

static void sweep_entry(struct mmu *mmu, uint32_t id, bool final)
{
	uint64_t spte = spte_load(mmu, id);
	struct mmu_source_stats *gone = &mmu->gone_sources[source_of(spte)];
	bool used = spte & MMU_PTE_A;

	if (!(spte & MMU_PTE_P) || !(spte & SPTE_SAMPLE) || (!used && !final) || !settle(mmu, id, spte, 0))
		return;
	__atomic_add_fetch(used ? &gone->sampled_used : &gone->sampled_unused, 1, __ATOMIC_RELAXED);
	if (used)
		touched_by_use(mmu, NULL, id, spte);
}

void mmu_sample_sweep(struct mmu *mmu, bool final)
{
	uint32_t page;
	unsigned i;

	for (page = 0; page < mmu->cfg.pool_pages; page++) {
		const struct spage *p = &mmu->pages[page];
		unsigned level = page_key(p).level;

		/* Without locks: only leaves have the bit, and a page that changes hands is settled by who empties it. */
		if (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) != PAGE_LIVE || level > 2)
			continue;
		for (i = 0; i < MMU_ENTRIES && __atomic_load_n(&p->present, __ATOMIC_RELAXED); i++)
			sweep_entry(mmu, spte_id(page, i), final);
	}
}

/* `out` may be counted in by a sweep meanwhile. */
static void add_stats(struct mmu_source_stats *out, const struct mmu_source_stats *from)
{
#define ADD(name) __atomic_add_fetch(&out->name, __atomic_load_n(&from->name, __ATOMIC_RELAXED), __ATOMIC_RELAXED)
	ADD(built);
	ADD(removed);
	ADD(sampled);
	ADD(sampled_used);
	ADD(sampled_unused);
	ADD(sampled_late);
#undef ADD
}

void sample_cpu_gone(struct mmu_cpu *cpu)
{
	unsigned i;

	for (i = 0; i < MMU_SOURCES; i++)
		add_stats(&cpu->mmu->gone_sources[i], &cpu->sources[i]);
}

int mmu_source_stats(struct mmu *mmu, unsigned source, struct mmu_source_stats *out)
{
	struct mmu_cpu *cpu;

	if (source >= MMU_SOURCES)
		return -EINVAL;
	*out = (struct mmu_source_stats){ 0 };
	spin_lock(&mmu->cpus_lock);
	add_stats(out, &mmu->gone_sources[source]);
	for (cpu = mmu->cpus; cpu; cpu = cpu->next)
		add_stats(out, &cpu->sources[source]);
	spin_unlock(&mmu->cpus_lock);
	return 0;
}
