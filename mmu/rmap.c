/*
 * rmap.c - from a guest frame to the leaf entries that map it, from a shadow page to the entries that link it.
 *
 * Every present sPTE lies on exactly one list: a 4 KiB leaf on its frame's, a 2 MiB leaf on its region's, a link on its
 * child's. The list is threaded through mmu->links by sPTE id, so that nothing is ever allocated for it.
 */
#include "mmu/internal.h"

void list_add(struct mmu *mmu, uint32_t *head, uint32_t id)
{
	mmu->links[id] = (struct links){ .next = *head };
	if (*head)
		mmu->links[*head - 1].prev = id + 1;
	__atomic_store_n(head, id + 1, __ATOMIC_RELAXED);
}

void list_del(struct mmu *mmu, uint32_t *head, uint32_t id)
{
	struct links *l = &mmu->links[id];

	if (l->prev)
		mmu->links[l->prev - 1].next = l->next;
	else
		__atomic_store_n(head, l->next, __ATOMIC_RELAXED);
	if (l->next)
		mmu->links[l->next - 1].prev = l->prev;
	*l = (struct links){ 0 };
}

static uint32_t *leaf_head(struct mmu *mmu, uint64_t gfn, bool large)
{
	return large ? &mmu->regions2m[gfn >> 9].rmap : &mmu->frames[gfn].rmap;
}

/* After kick_entry(): the clock read here is not older than the cpu's oldest pending change. */
static void stamp(struct mmu *mmu, uint64_t gfn, bool large)
{
	*(large ? &mmu->regions2m[gfn >> 9].w_clock : &mmu->frames[gfn].w_clock) = kick_clock(mmu);
}

void leaf_remove(struct mmu_cpu *cpu, uint32_t id, uint64_t gfn, bool large)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t spte;

	kick_entry(cpu, id);
	spte = __atomic_exchange_n(&mmu->pool[id], 0, __ATOMIC_SEQ_CST);
	list_del(mmu, leaf_head(mmu, gfn, large), id);
	__atomic_sub_fetch(&mmu->pages[id / MMU_ENTRIES].present, 1, __ATOMIC_RELAXED);
	if (large)
		__atomic_sub_fetch(&mmu->large_leaves, 1, __ATOMIC_RELAXED);
	if (spte & MMU_PTE_W)
		stamp(mmu, gfn, large);
	if (spte & SPTE_SOURCE_MASK) {
		STAT(cpu, prebuilt_removed);
		sample_removed(cpu, spte);
		if ((spte & SPTE_SAMPLE) && (spte & MMU_PTE_A))
			touched_by_use(mmu, cpu, id, spte);
	}
}

void leaf_set_rights(struct mmu_cpu *cpu, uint32_t id, uint64_t gfn, bool large, uint64_t set, uint64_t clear)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t spte = spte_load(mmu, id);
	bool weaker = (spte & clear & MMU_PTE_W) || (~spte & set & MMU_PTE_NX);

	if (weaker)
		kick_entry(cpu, id);
	/* The processor may set A and D at any time. */
	while (!__atomic_compare_exchange_n(&mmu->pool[id], &spte, (spte & ~clear) | set, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST))
		;
	if (spte & clear & MMU_PTE_W) {
		stamp(mmu, gfn, large);
		if (spte & SPTE_SOURCE_MASK)
			STAT(cpu, prebuilt_removed);
	}
}

void rmap_write_protect(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t id;

	for (id = mmu->frames[gfn].rmap; id; id = mmu->links[id - 1].next)
		if (spte_load(mmu, id - 1) & MMU_PTE_W)
			leaf_set_rights(cpu, id - 1, gfn, false, 0, MMU_PTE_W | SPTE_OVERRIDE);
}

void rmap_end_overrides(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	uint32_t id;

	for (id = mmu->frames[gfn].rmap; id; id = mmu->links[id - 1].next)
		if (spte_load(mmu, id - 1) & SPTE_OVERRIDE)
			leaf_set_rights(cpu, id - 1, gfn, false, 0, MMU_PTE_W | SPTE_OVERRIDE);
}

void rmap_drop(struct mmu_cpu *cpu, uint64_t gfn)
{
	uint32_t id;

	while ((id = cpu->mmu->frames[gfn].rmap))
		leaf_remove(cpu, id - 1, gfn, false);
}

void rmap_drop_large(struct mmu_cpu *cpu, uint64_t gfn)
{
	uint32_t id;

	while ((id = cpu->mmu->regions2m[gfn >> 9].rmap))
		leaf_remove(cpu, id - 1, gfn, true);
}

void link_remove(struct mmu_cpu *cpu, uint32_t id, uint32_t child)
{
	struct mmu *mmu = cpu->mmu;

	kick_entry(cpu, id);
	kick_hold(cpu, child);
	__atomic_store_n(&mmu->pool[id], 0, __ATOMIC_SEQ_CST);
	list_del(mmu, &mmu->pages[child].parents, id);
	__atomic_sub_fetch(&mmu->pages[id / MMU_ENTRIES].present, 1, __ATOMIC_RELAXED);
}
