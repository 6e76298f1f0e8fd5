/*
 * stats.c - counters, and what the shadow costs.
 */
#include <string.h>
#include <sys/mman.h>

#include "mmu/internal.h"

void mmu_cpu_stats(const struct mmu_cpu *cpu, struct mmu_stats *out)
{
#define X(name, what) out->name = __atomic_load_n(&cpu->stats.name, __ATOMIC_RELAXED);
	MMU_COUNTERS(X)
#undef X
}

void mmu_stats(struct mmu *mmu, struct mmu_stats *out)
{
	struct mmu_stats one;
	struct mmu_cpu *cpu;

	spin_lock(&mmu->cpus_lock);
	*out = mmu->gone;
	for (cpu = mmu->cpus; cpu; cpu = cpu->next) {
		mmu_cpu_stats(cpu, &one);
#define X(name, what) out->name += one.name;
		MMU_COUNTERS(X)
#undef X
	}
	spin_unlock(&mmu->cpus_lock);
}

/* How much of an array was touched so far. */
static uint64_t resident_bytes(void *p, uint64_t bytes)
{
	unsigned char vec[4096];
	uint64_t at, chunk, n = 0, i;

	for (at = 0; at < bytes; at += chunk) {
		chunk = bytes - at < sizeof(vec) * MMU_PAGE_SIZE ? bytes - at : sizeof(vec) * MMU_PAGE_SIZE;
		if (mincore((char *)p + at, chunk, vec))
			return bytes;
		for (i = 0; i < (chunk + MMU_PAGE_SIZE - 1) / MMU_PAGE_SIZE; i++)
			n += vec[i] & 1;
	}
	return n * MMU_PAGE_SIZE;
}

static uint64_t cpu_bytes(const struct mmu_cpu *cpu)
{
	uint64_t pages = cpu->mmu->cfg.pool_pages, n;
	unsigned i;

	n = sizeof(*cpu) + resident_bytes(cpu->kick_bits, pages * sizeof(*cpu->kick_bits)) +
	    resident_bytes(cpu->kick_given, pages * sizeof(*cpu->kick_given)) +
	    resident_bytes(cpu->kick_flags, pages) + resident_bytes(cpu->orphans, pages * sizeof(*cpu->orphans));
	for (i = 0; i < KICK_LISTS; i++)
		n += resident_bytes(cpu->kick_list[i], pages * sizeof(*cpu->kick_list[i]));
	return n;
}

static uint64_t bookkeeping(struct mmu *mmu)
{
	uint64_t pages = mmu->cfg.pool_pages, gfns = mmu->nr_gfns, n;
	struct mmu_cpu *cpu;

	n = sizeof(*mmu) + mmu->nr_regions * sizeof(*mmu->regions) +
	    resident_bytes(mmu->pages, pages * sizeof(*mmu->pages)) +
	    resident_bytes(mmu->links, pages * MMU_ENTRIES * sizeof(*mmu->links)) +
	    resident_bytes(mmu->frames, gfns * sizeof(*mmu->frames)) +
	    resident_bytes(mmu->regions2m, ((gfns >> 9) + 1) * sizeof(*mmu->regions2m)) +
	    resident_bytes(mmu->pmap, gfns * sizeof(*mmu->pmap)) +
	    (mmu->copies ? resident_bytes(mmu->copies, gfns * mmu->cfg.nr_nodes * sizeof(*mmu->copies)) : 0) +
	    resident_bytes(mmu->m2g, mmu->max_mfn * sizeof(*mmu->m2g)) +
	    resident_bytes(mmu->dirty, (gfns + 63) / 64 * sizeof(*mmu->dirty)) + resident_bytes(mmu->touched, gfns) +
	    resident_bytes(mmu->touched2m, (gfns >> 9) + 1);
	spin_lock(&mmu->cpus_lock);
	for (cpu = mmu->cpus; cpu; cpu = cpu->next)
		n += cpu_bytes(cpu);
	spin_unlock(&mmu->cpus_lock);
	return n;
}

void mmu_pool_usage(struct mmu *mmu, struct mmu_usage *out)
{
	uint64_t large = __atomic_load_n(&mmu->large_leaves, __ATOMIC_RELAXED);
	uint32_t page;

	memset(out, 0, sizeof(*out));
	out->pool_pages = mmu->cfg.pool_pages;
	out->nr_nodes = mmu->cfg.nr_nodes;
	for (page = 0; page < mmu->cfg.pool_pages; page++) {
		const struct spage *p = &mmu->pages[page];
		struct shadow_key key = page_key(p);

		if (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) != PAGE_LIVE)
			continue;
		out->by_level[key.level]++;
		out->node[key.node].tables++;
		out->node[key.node].tables_outside += pool_part_of(mmu, page) != key.node;
		if (key.level == 1)
			out->leaves += __atomic_load_n(&p->present, __ATOMIC_RELAXED);
	}
	out->leaves += large;
	out->large_leaves = large;
	for (unsigned i = 0; i < mmu->cfg.nr_nodes; i++) {
		out->node[i].pool_pages = mmu->parts[i].count;
		out->node[i].pool_used = mmu->parts[i].count - __atomic_load_n(&mmu->parts[i].nr_free, __ATOMIC_RELAXED);
	}
	out->pool_used = __atomic_load_n(&mmu->pool_used, __ATOMIC_RELAXED);
	out->pool_peak = __atomic_load_n(&mmu->pool_peak, __ATOMIC_RELAXED);
	if (out->pool_peak < out->pool_used)		/* who took a page has counted it, and is about to look at the peak */
		out->pool_peak = out->pool_used;
}

void mmu_usage(struct mmu *mmu, struct mmu_usage *out)
{
	mmu_pool_usage(mmu, out);
	out->bookkeeping_bytes = bookkeeping(mmu);
}
