/*
 * audit.c - is the shadow what the guest's tables ask for, and the bookkeeping what the shadow asks for?
 *
 * Every check takes the locks that make its answer certain, so that an audit may run beside other threads. What is
 * lawful staleness is passed over: tables listed for the next flush. mmu_updated() is the exception: between the
 * foreign store and that call a table differs from its shadow, and an audit by another thread would say so.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mmu/internal.h"

__attribute__((format(printf, 2, 3)))
static void complain(struct mmu_cpu *cpu, const char *fmt, ...)
{
	const struct mmu_config *cfg = &cpu->mmu->cfg;
	char what[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	STAT(cpu, audit_errors);
	if (cfg->audit_failed) {
		cfg->audit_failed(cfg->audit_arg, what);
		return;
	}
	fprintf(stderr, "mmu audit: %s\n", what);
	abort();
}

#define ENTRY_FMT	"sPTE %#llx at gfn %#llx level %u role %u node %u [%u]: "
#define ENTRY_ARGS(spte, key, index) \
	(unsigned long long)(spte), (unsigned long long)(key)->gfn, (key)->level, (key)->role, (key)->node, index

/* The list's lock held: is `id` on the list from `head`, as far as its neighbours say? */
static bool is_listed(const struct mmu *mmu, uint32_t head, uint32_t id)
{
	const struct links *l = &mmu->links[id];

	if (l->prev ? mmu->links[l->prev - 1].next != id + 1 : head != id + 1)
		return false;
	return !l->next || mmu->links[l->next - 1].prev == id + 1;
}

/* ---- one entry, page lock held --------------------------------------------------------------------------------- */

static void check_leaf_rights(struct mmu_cpu *cpu, const struct shadow_key *key, unsigned index, uint64_t spte,
			      uint64_t gfn)
{
	const struct mmu *mmu = cpu->mmu;
	const struct region2m *r = &mmu->regions2m[gfn >> 9];
	uint32_t flags = frame_flags(mmu, gfn);

	if (pmap_on(mmu, gfn, key->node) != pte_frame(spte))
		complain(cpu, ENTRY_FMT "not where gfn %#llx stands", ENTRY_ARGS(spte, key, index),
			 (unsigned long long)gfn);
	if (flags & FRAME_MOVING)
		complain(cpu, ENTRY_FMT "maps a moving frame", ENTRY_ARGS(spte, key, index));
	if (key->level == 2 && (!mmu->cfg.large || !r->whole || r->special || is_logging(mmu)))
		complain(cpu, ENTRY_FMT "2 MiB over a region that must not be", ENTRY_ARGS(spte, key, index));
	if (!(spte & MMU_PTE_W))
		return;
	if (key->level == 1 && (flags & FRAME_READ_ONLY))
		complain(cpu, ENTRY_FMT "writable, flags of the frame %#x", ENTRY_ARGS(spte, key, index), flags);
	if (key->level == 1 && is_logging(mmu) && !dirty_test(mmu, gfn))
		complain(cpu, ENTRY_FMT "maps a clean frame writable", ENTRY_ARGS(spte, key, index));
	if ((spte & SPTE_OVERRIDE) && (!(flags & FRAME_UNSYNC) || (key->role & ROLE_STRICT)))
		complain(cpu, ENTRY_FMT "writable for no reason", ENTRY_ARGS(spte, key, index));
}

static void check_leaf(struct mmu_cpu *cpu, const struct shadow_key *key, uint32_t id, uint64_t spte,
		       const struct want *want)
{
	struct mmu *mmu = cpu->mmu;
	unsigned index = id % MMU_ENTRIES;
	bool large = key->level > 1;
	struct spin *bucket;
	uint64_t gfn;

	if (pte_frame(spte) >= mmu->max_mfn) {
		complain(cpu, ENTRY_FMT "no such frame", ENTRY_ARGS(spte, key, index));
		return;
	}
	gfn = __atomic_load_n(&mmu->m2g[pte_frame(spte)], __ATOMIC_ACQUIRE);
	bucket = bucket_of(mmu, gfn);
	spin_lock(bucket);
	spte = spte_load(mmu, id);
	if (spte & MMU_PTE_P) {
		check_leaf_rights(cpu, key, index, spte, gfn);
		if (!is_listed(mmu, large ? mmu->regions2m[gfn >> 9].rmap : mmu->frames[gfn].rmap, id))
			complain(cpu, ENTRY_FMT "not on the rmap of gfn %#llx", ENTRY_ARGS(spte, key, index),
				 (unsigned long long)gfn);
		if (want && (want->kind != (large ? WANT_BIG : WANT_LEAF) || want->gfn != gfn ||
			     want->nx != !!(spte & MMU_PTE_NX) ||
			     ((spte & MMU_PTE_W) && !(spte & SPTE_OVERRIDE) && !want->w)))
			complain(cpu, ENTRY_FMT "not what the guest's entry says", ENTRY_ARGS(spte, key, index));
	}
	spin_unlock(bucket);
}

static void check_link(struct mmu_cpu *cpu, const struct shadow_key *key, uint32_t id, uint64_t spte,
		       const struct want *want)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t child = pte_frame(spte) - mmu->cfg.pool.n;
	unsigned index = id % MMU_ENTRIES;
	struct spage *c;

	if (child >= mmu->cfg.pool_pages) {
		complain(cpu, ENTRY_FMT "links no table of the pool", ENTRY_ARGS(spte, key, index));
		return;
	}
	c = &mmu->pages[child];
	spin_lock(&c->parents_lock);
	if (spte_load(mmu, id) & MMU_PTE_P) {
		spte = spte_load(mmu, id);
		if (__atomic_load_n(&c->state, __ATOMIC_ACQUIRE) != PAGE_LIVE || page_key(c).level != key->level - 1)
			complain(cpu, ENTRY_FMT "links a page that is no table of the level below",
				 ENTRY_ARGS(spte, key, index));
		if (page_key(c).node != key->node)
			complain(cpu, ENTRY_FMT "links a table of node %u", ENTRY_ARGS(spte, key, index), page_key(c).node);
		if (!is_listed(mmu, c->parents, id))
			complain(cpu, ENTRY_FMT "not among its child's parents", ENTRY_ARGS(spte, key, index));
		if (want && ((want->kind != WANT_LINK && want->kind != WANT_BIG) || !page_has_key(c, &want->child) ||
			     want->nx != !!(spte & MMU_PTE_NX) || ((spte & MMU_PTE_W) && !want->link_w)))
			complain(cpu, ENTRY_FMT "not the link that its gPTE asks for", ENTRY_ARGS(spte, key, index));
	}
	spin_unlock(&c->parents_lock);
}

/* `exact`: nobody can be between a store to the guest's entry and the fix of this one. */
static bool check_entry(struct mmu_cpu *cpu, uint32_t page, unsigned index, bool exact)
{
	struct mmu *mmu = cpu->mmu;
	struct shadow_key key = page_key(&mmu->pages[page]);
	uint32_t id = spte_id(page, index);
	uint64_t spte = spte_load(mmu, id);
	struct want want;

	if (is_hole(key.level, index)) {
		if (spte != hole_entry(mmu, &key, index - HOLE_FIRST))
			complain(cpu, ENTRY_FMT "not the entry of the hole", ENTRY_ARGS(spte, &key, index));
		return false;
	}
	if (!(spte & MMU_PTE_P)) {
		if (spte)
			complain(cpu, ENTRY_FMT "absent, and not zero", ENTRY_ARGS(spte, &key, index));
		return false;
	}
	if (!(spte & MMU_PTE_U) || (spte & 0xfull << 59) || (spte & (MMU_PTE_PWT | MMU_PTE_PCD | MMU_PTE_G)) ||
	    ((spte & MMU_PTE_PS) && key.level != 2) || ((spte & MMU_PTE_NX) && !mmu->cfg.nx))
		complain(cpu, ENTRY_FMT "bits that must not be", ENTRY_ARGS(spte, &key, index));
	if (exact)
		entry_want(mmu, &key, index, entry_gpte(mmu, &key, index), &want);
	if (spte_is_leaf(key.level, spte))
		check_leaf(cpu, &key, id, spte, exact ? &want : NULL);
	else
		check_link(cpu, &key, id, spte, exact ? &want : NULL);
	return true;
}

/* No other mmu_cpu: nobody changes entries without their page's lock. */
static bool is_alone(struct mmu *mmu)
{
	bool alone;

	spin_lock(&mmu->cpus_lock);
	alone = !mmu->cpus->next;
	spin_unlock(&mmu->cpus_lock);
	return alone;
}

void audit_entry(struct mmu_cpu *cpu, uint32_t page, unsigned index)
{
	check_entry(cpu, page, index, is_alone(cpu->mmu));
	STAT(cpu, audits);
}

/* ---- a frame and its shadows, frame lock held ------------------------------------------------------------------ */

static void check_page(struct mmu_cpu *cpu, uint32_t page, bool exact)
{
	struct spage *p = &cpu->mmu->pages[page];
	unsigned i, present = 0;

	spin_lock(&p->lock);
	for (i = 0; i < MMU_ENTRIES; i++)
		present += check_entry(cpu, page, i, exact);
	if (is_alone(cpu->mmu) && present != __atomic_load_n(&p->present, __ATOMIC_RELAXED))
		complain(cpu, "pool page %u has %u entries, %u are counted", page, present, p->present);
	spin_unlock(&p->lock);
}

/* Frame and bucket lock: nobody of ours writes any, and the guest cannot. After a collapse they stay equal until it is settled. */
static void check_copies(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	const uint64_t *master = mmu_gfn_hva(mmu, (gfn_t){ gfn }), *copy;
	unsigned node, i;

	for (node = 0; node < mmu->cfg.nr_nodes; node++) {
		copy = mmu_mfn_hva(mmu, (mfn_t){ copy_get(mmu, gfn, node) });
		for (i = 0; i < MMU_ENTRIES; i++)
			if (__atomic_load_n(&copy[i], __ATOMIC_RELAXED) != __atomic_load_n(&master[i], __ATOMIC_RELAXED))
				break;
		if (i < MMU_ENTRIES)
			complain(cpu, "gfn %#llx: node %u's copy differs at word %u", (unsigned long long)gfn, node, i);
	}
}

static void check_frame_state(struct mmu_cpu *cpu, uint64_t gfn, unsigned nr_leaf, unsigned nr_upper)
{
	struct mmu *mmu = cpu->mmu;
	const struct gframe *f = &mmu->frames[gfn];
	struct spin *bucket = bucket_of(mmu, gfn);
	bool table = frame_is_table(f);
	uint32_t flags, id;

	spin_lock(bucket);
	flags = frame_flags(mmu, gfn);
	if (nr_leaf != f->nr_leaf || nr_upper != f->nr_upper)
		complain(cpu, "gfn %#llx has %u+%u shadows, %u+%u are counted", (unsigned long long)gfn, nr_leaf,
			 nr_upper, f->nr_leaf, f->nr_upper);
	if (!!(flags & FRAME_WPROT) != (table && !(flags & FRAME_UNSYNC)))
		complain(cpu, "gfn %#llx: flags %#x of a frame that is %s table", (unsigned long long)gfn, flags,
			 table ? "a" : "no");
	if (!!(flags & FRAME_SPECIAL) != (table || (flags & FRAME_APART)))
		complain(cpu, "gfn %#llx: flags %#x: special?", (unsigned long long)gfn, flags);
	if ((flags & FRAME_UNSYNC) && (!(flags & FRAME_LISTED) || f->nr_upper || f->pin > 1))
		complain(cpu, "gfn %#llx: flags %#x: out of sync and must not be", (unsigned long long)gfn, flags);
	if ((flags & (FRAME_WATCH | FRAME_REPLICA)) && table)
		complain(cpu, "gfn %#llx: flags %#x of a table", (unsigned long long)gfn, flags);
	/* Settled, and nobody has noticed: the others were given back, perhaps. */
	if ((flags & FRAME_REPLICA) || ((flags & FRAME_SETTLING) && !kick_settled(mmu, f->w_clock)))
		check_copies(cpu, gfn);
	if ((flags & FRAME_MOVING) && f->rmap)
		complain(cpu, "gfn %#llx is moving and mapped", (unsigned long long)gfn);
	for (id = f->rmap; id; id = mmu->links[id - 1].next) {
		uint64_t spte = spte_load(mmu, id - 1);

		/* Of a page with a present entry, the key is stable. */
		if (!(spte & MMU_PTE_P) ||
		    pte_frame(spte) != pmap_on(mmu, gfn, page_key(&mmu->pages[(id - 1) / MMU_ENTRIES]).node))
			complain(cpu, "gfn %#llx: sPTE %#llx on its rmap", (unsigned long long)gfn,
				 (unsigned long long)spte);
	}
	spin_unlock(bucket);
}

static void check_frame(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	bool exact = !(frame_flags(mmu, gfn) & FRAME_LISTED);
	unsigned nr_leaf = 0, nr_upper = 0;

	for_each_shadow(mmu, gfn, page) {
		struct shadow_key key = page_key(&mmu->pages[page]);

		if (key.node >= mmu->cfg.nr_nodes)
			complain(cpu, "pool page %u is of node %u, there are %u", page, key.node, mmu->cfg.nr_nodes);
		if (key.gfn != gfn)
			complain(cpu, "pool page %u, shadow of gfn %#llx, is on the list of gfn %#llx", page,
				 (unsigned long long)key.gfn, (unsigned long long)gfn);
		if (!(key.role & ROLE_DIRECT)) {
			nr_leaf += key.level == 1;
			nr_upper += key.level > 1;
		}
		check_page(cpu, page, exact || (key.role & ROLE_DIRECT));
	}
	check_frame_state(cpu, gfn, nr_leaf, nr_upper);
}

void audit_table(struct mmu_cpu *cpu, uint64_t gfn)
{
	STAT(cpu, audits);
	check_frame(cpu, gfn);
}

/* ---- everything ------------------------------------------------------------------------------------------------ */

static void check_region(struct mmu_cpu *cpu, uint64_t gfn)
{
	struct mmu *mmu = cpu->mmu;
	const struct region2m *r = &mmu->regions2m[gfn >> 9];
	struct spin *bucket = bucket_of(mmu, gfn);
	uint32_t special = 0, id;
	uint64_t i;

	spin_lock(bucket);
	for (i = 0; i < REGION_FRAMES && gfn + i < mmu->nr_gfns; i++)
		special += !!(frame_flags(mmu, gfn + i) & FRAME_SPECIAL);
	if (special != r->special)
		complain(cpu, "gfn %#llx: %u special frames in 2 MiB, %u are counted", (unsigned long long)gfn, special,
			 r->special);
	for (id = r->rmap; id; id = mmu->links[id - 1].next)
		if (!(spte_load(mmu, id - 1) & MMU_PTE_PS) || pte_frame(spte_load(mmu, id - 1)) != pmap_get(mmu, gfn))
			complain(cpu, "gfn %#llx: sPTE %#llx on the rmap of its 2 MiB", (unsigned long long)gfn,
				 (unsigned long long)spte_load(mmu, id - 1));
	spin_unlock(bucket);
}

/* A free page is zero: rule 5. The part's lock keeps it free. */
static void check_free_pages(struct mmu_cpu *cpu, unsigned part_nr)
{
	struct mmu *mmu = cpu->mmu;
	struct pool_part *part = &mmu->parts[part_nr];
	uint32_t page, n = 0;
	unsigned i;

	spin_lock(&part->lock);
	for (page = part->free_list; page; page = mmu->pages[page - 1].next, n++) {
		const struct spage *p = &mmu->pages[page - 1];

		if (page - 1 - part->first >= part->count)
			complain(cpu, "pool page %u is free in part %u", page - 1, part_nr);
		if (__atomic_load_n(&p->state, __ATOMIC_ACQUIRE) != PAGE_FREE || p->parents)
			complain(cpu, "pool page %u is free and in use", page - 1);
		for (i = 0; i < MMU_ENTRIES && __atomic_load_n(&p->gen, __ATOMIC_RELAXED); i++)
			if (spte_load(mmu, spte_id(page - 1, i)))
				complain(cpu, "free pool page %u is not zero at %u", page - 1, i);
	}
	if (n != part->nr_free)
		complain(cpu, "%u pages of part %u of the pool are free, %u are counted", n, part_nr, part->nr_free);
	spin_unlock(&part->lock);
}

unsigned audit_all(struct mmu_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;
	uint64_t errors = cpu->stats.audit_errors, gfn;

	STAT(cpu, audits);
	for (gfn = 0; gfn < mmu->nr_gfns; gfn++) {
		struct spin *lock;

		if (!(gfn % REGION_FRAMES))
			check_region(cpu, gfn);
		/* A frame without any of this has nothing to check. Atomic: read without its locks. */
		if (!frame_flags(mmu, gfn) && !__atomic_load_n(&mmu->frames[gfn].rmap, __ATOMIC_RELAXED) &&
		    !__atomic_load_n(&mmu->frames[gfn].shadows, __ATOMIC_RELAXED))
			continue;
		lock = frame_lock_of(mmu, gfn);
		spin_lock(lock);
		check_frame(cpu, gfn);
		spin_unlock(lock);
	}
	for (unsigned part = 0; part < mmu->cfg.nr_nodes; part++)
		check_free_pages(cpu, part);
	return cpu->stats.audit_errors - errors;
}

unsigned mmu_audit(struct mmu_cpu *cpu)
{
	return audit_all(cpu);
}
