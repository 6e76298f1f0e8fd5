/*
 * prebuild.c - entries that nobody has faulted on yet: for the helper thread, and as the synchronous baselines.
 */
#include "mmu/internal.h"
#include "mmu/probe.h"

enum mmu_prebuilt mmu_prebuild(struct mmu_cpu *cpu, gfn_t table, unsigned index, unsigned source)
{
	/* Several shadows: the best of their answers. */
	static const uint8_t rank[] = { [MMU_PB_NO_SHADOW] = 0, [MMU_PB_NOTHING] = 1, [MMU_PB_PRESENT] = 2,
					[MMU_PB_BUILT] = 3 };
	enum mmu_prebuilt best = MMU_PB_NO_SHADOW, r;
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;

	if (table.n >= mmu->nr_gfns || index >= MMU_ENTRIES || source >= MMU_SOURCES)
		return MMU_PB_NOTHING;
	lock = frame_lock_of(mmu, table.n);
	if (!spin_trylock(lock))
		return MMU_PB_NOTHING;
	for_each_shadow(mmu, table.n, page) {
		struct spage *p = &mmu->pages[page];

		if (page_key(p).role & ROLE_DIRECT)
			continue;
		r = MMU_PB_NOTHING;
		if (spin_trylock(&p->lock)) {
			r = entry_prebuild(cpu, page, index, source);
			spin_unlock(&p->lock);
		}
		if (r == MMU_PB_BUILT)
			STAT(cpu, prebuilt);
		if (rank[r] > rank[best])
			best = r;
	}
	spin_unlock(lock);
	PROBE(prebuild__asked, table.n, index, source, best);
	return best;
}

void prefetch_around(struct mmu_cpu *cpu, uint32_t page, uint32_t gen, unsigned index)
{
	const struct mmu_config *cfg = &cpu->mmu->cfg;
	struct spage *p = &cpu->mmu->pages[page];
	unsigned first = index, last = index, i;

	switch (cfg->prefetch) {
	case MMU_PREFETCH_OFF:
		return;
	case MMU_PREFETCH_KVM8:
		first = index & ~7u;
		last = first + 7;
		break;
	case MMU_PREFETCH_XEN32:
		last = index + 31;
		break;
	case MMU_PREFETCH_AROUND:
		first = index > cfg->prefetch_n ? index - cfg->prefetch_n : 0;
		last = index + cfg->prefetch_n;
		break;
	}
	if (last >= MMU_ENTRIES)
		last = MMU_ENTRIES - 1;
	spin_lock(&p->lock);
	for (i = first; i <= last && page_alive(p, gen); i++)
		if (i != index && entry_prebuild(cpu, page, i, MMU_SRC_PREFETCH) == MMU_PB_BUILT)
			STAT(cpu, prefetched);
	spin_unlock(&p->lock);
}
