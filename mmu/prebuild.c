/*
 * prebuild.c - entries that nobody has faulted on yet: for the helper thread, and as the synchronous baselines.
 *
 * The helper must not hold up a processor nor owe kicks, so it only tries frame and page locks, fills what is absent and
 * leaves alone what would have to be taken away first. An entry is installed under its page's lock, which also is when
 * the gPTE is read (rule 6): nothing has to be undone. A link is made as a fault makes one: the child first, with no lock
 * held; then, under the page lock, the gPTE is read again. prebuild_tree.c does it for whole trees.
 */
#include "mmu/prebuild.h"
#include "mmu/probe.h"

static bool same_link(const struct want *a, const struct want *b)
{
	return a->kind == WANT_LINK && b->kind == WANT_LINK && key_pack(&a->child) == key_pack(&b->child) &&
	       a->link_w == b->link_w && a->nx == b->nx;
}

/* Page lock of `at`, page alive. */
static enum mmu_prebuilt install_link(struct mmu_cpu *cpu, const struct place *at, const struct want *want,
				      uint32_t child, uint32_t gen)
{
	struct mmu *mmu = cpu->mmu;
	struct shadow_key key = page_key(&mmu->pages[at->page]);
	struct want now;

	if (spte_load(mmu, spte_id(at->page, at->index)) & MMU_PTE_P)
		return MMU_PB_PRESENT;
	entry_want(mmu, &key, at->index, entry_gpte(mmu, &key, at->index), &now);
	if (!same_link(&now, want) || !shadow_in_line(mmu, &want->child, child) ||
	    entry_apply_link(cpu, at->page, at->index, want, child, gen))
		return MMU_PB_BUSY;
	STAT(cpu, prebuilt_links);
	return MMU_PB_BUILT;
}

enum mmu_prebuilt prebuild_link(struct mmu_cpu *cpu, const struct place *at, const struct want *want, unsigned flags,
				struct place *child)
{
	struct spage *p = &cpu->mmu->pages[at->page];
	enum mmu_prebuilt r = MMU_PB_BUSY;
	bool fresh;
	int err;

	err = shadow_get_quiet(cpu, &want->child, flags & MMU_PB_TABLES, &child->page, &child->gen, &fresh);
	if (err) {
		child->page = NOT_KNOWN;
		return err == -ENOENT ? MMU_PB_NO_SHADOW : err == -ENOSPC ? MMU_PB_NO_ROOM : MMU_PB_BUSY;
	}
	if (spin_trylock(&p->lock)) {
		if (page_alive(p, at->gen))
			r = install_link(cpu, at, want, child->page, child->gen);
		spin_unlock(&p->lock);
	}
	if (fresh && r != MMU_PB_BUILT) {
		shadow_discard(cpu, child->page, child->gen);
		child->page = NOT_KNOWN;
	}
	return r;
}

/* ---- one entry of a table -------------------------------------------------------------------------------------- */

enum mmu_prebuilt mmu_prebuild(struct mmu_cpu *cpu, gfn_t table, unsigned index, unsigned source, unsigned flags)
{
	/* Several shadows: the best of their answers. */
	static const uint8_t rank[] = { [MMU_PB_NO_SHADOW] = 0, [MMU_PB_NOTHING] = 1, [MMU_PB_BUSY] = 2,
					[MMU_PB_NO_ROOM] = 3, [MMU_PB_PRESENT] = 4, [MMU_PB_BUILT] = 5 };
	enum mmu_prebuilt best = MMU_PB_NO_SHADOW, r;
	struct place links[MAX_SHADOWS], child;
	struct want wants[MAX_SHADOWS];
	struct mmu *mmu = cpu->mmu;
	unsigned nr_links = 0, i;
	struct spin *lock;

	if (table.n >= mmu->nr_gfns || index >= MMU_ENTRIES || source >= MMU_SOURCES)
		return MMU_PB_NOTHING;
	lock = frame_lock_of(mmu, table.n);
	if (!spin_trylock(lock))
		return MMU_PB_BUSY;
	for_each_shadow(mmu, table.n, page) {
		struct spage *p = &mmu->pages[page];

		if ((page_key(p).role & ROLE_DIRECT) || nr_links == MAX_SHADOWS)
			continue;
		r = MMU_PB_BUSY;
		if (spin_trylock(&p->lock)) {
			r = entry_prebuild(cpu, page, index, source, flags, &wants[nr_links]);
			if (r == MMU_PB_NO_SHADOW)
				links[nr_links++] = (struct place){ page, p->gen, index };
			spin_unlock(&p->lock);
		}
		if (r == MMU_PB_BUILT)
			STAT(cpu, prebuilt);
		if (rank[r] > rank[best])
			best = r;
	}
	spin_unlock(lock);
	for (i = 0; i < nr_links; i++) {
		r = prebuild_link(cpu, &links[i], &wants[i], flags, &child);
		if (rank[r] > rank[best])
			best = r;
	}
	PROBE(prebuild__asked, table.n, index, source, best);
	return best;
}

/* ---- a root that is loaded ------------------------------------------------------------------------------------- */

void link_root(struct mmu_cpu *cpu, uint32_t page)
{
	struct mmu *mmu = cpu->mmu;
	struct spage *p = &mmu->pages[page];
	struct shadow_key key = page_key(p);	/* a root in use: it lives, and stays what it is */
	struct place at = { .page = page, .gen = p->gen }, child;
	enum mmu_prebuilt r;
	struct want want;

	for (at.index = 0; at.index < MMU_ENTRIES; at.index++) {
		if (is_hole(key.level, at.index) || (spte_load(mmu, spte_id(page, at.index)) & MMU_PTE_P) ||
		    !(gpte_load(mmu, key.gfn, at.index) & MMU_PTE_P))
			continue;
		spin_lock(&p->lock);
		r = entry_prebuild(cpu, page, at.index, MMU_SRC_DEMAND, 0, &want);
		spin_unlock(&p->lock);
		if (r == MMU_PB_NO_SHADOW && prebuild_link(cpu, &at, &want, 0, &child) == MMU_PB_BUILT)
			STAT(cpu, links_ahead);
	}
}

/* ---- the synchronous baselines --------------------------------------------------------------------------------- */

#define LINEAR_SPARSE	64u	/* a table with more entries present was filled before */

/* Kernels map all memory in order. A leaf table of that map is one whose entries around a fault name frames in a row and
 * are not the user's. */
static bool looks_linear(const struct mmu *mmu, uint64_t table, unsigned index)
{
	unsigned first = index & ~3u, i;
	uint64_t frame = pte_frame(gpte_load(mmu, table, first));

	for (i = 0; i < 4; i++) {
		uint64_t gpte = gpte_load(mmu, table, first + i);

		if (!(gpte & MMU_PTE_P) || (gpte & MMU_PTE_U) || pte_frame(gpte) != frame + i)
			return false;
	}
	return true;
}

void fill_linear(struct mmu_cpu *cpu, uint32_t page, uint32_t gen, unsigned index)
{
	struct spage *p = &cpu->mmu->pages[page];
	struct shadow_key key = page_key(p);
	unsigned i = 0, end;

	if ((key.role & (ROLE_STRICT | ROLE_DIRECT)) || __atomic_load_n(&p->present, __ATOMIC_RELAXED) > LINEAR_SPARSE ||
	    !looks_linear(cpu->mmu, key.gfn, index))
		return;
	while (i < MMU_ENTRIES) {
		spin_lock(&p->lock);
		for (end = i + RUN; i < end && page_alive(p, gen); i++)
			if (entry_prebuild(cpu, page, i, MMU_SRC_PREFETCH, 0, NULL) == MMU_PB_BUILT)
				STAT(cpu, prefetched);
		spin_unlock(&p->lock);
		i = end;
	}
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
		if (i != index && entry_prebuild(cpu, page, i, MMU_SRC_PREFETCH, 0, NULL) == MMU_PB_BUILT)
			STAT(cpu, prefetched);
	spin_unlock(&p->lock);
}
