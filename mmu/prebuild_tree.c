/*
 * prebuild_tree.c - prebuilding by spaces: a range of one, what it has present, and what a cpu takes along to another node. By
 * the rules of prebuild.c: locks are only tried, and held for a few entries at a time.
 */
#include "mmu/prebuild.h"

/* ---- a tree of tables ------------------------------------------------------------------------------------------ */

#define VA_MASK		((1ull << 48) - 1)

struct tree {
	struct mmu_cpu *cpu;
	uint64_t first, last;		/* without sign extension */
	const uint64_t *only;		/* of level-1 entries, these; NULL: all */
	unsigned source, flags;
	unsigned budget, tables;	/* left */
	unsigned built;
	bool stop;
};

static unsigned first_index(const struct tree *t, unsigned level, uint64_t base)
{
	return t->first > base ? (t->first - base) >> (MMU_PAGE_SHIFT + 9 * (level - 1)) : 0;
}

static unsigned last_index(const struct tree *t, unsigned level, uint64_t base)
{
	uint64_t i = (t->last - base) >> (MMU_PAGE_SHIFT + 9 * (level - 1));

	return i < MMU_ENTRIES ? i : MMU_ENTRIES - 1;
}

static bool is_wanted(const struct tree *t, unsigned level, unsigned index)
{
	return level > 1 || !t->only || (t->only[index / 64] >> (index % 64) & 1);
}

/* Takes frame and page lock of a page that is what it was. */
static bool try_locks(struct mmu *mmu, uint32_t page, uint32_t gen, const struct shadow_key *key)
{
	struct spage *p = &mmu->pages[page];
	struct spin *lock = frame_lock_of(mmu, key->gfn);

	if (!spin_trylock(lock))
		return false;
	if (spin_trylock(&p->lock)) {
		if (page_alive(p, gen))
			return true;
		spin_unlock(&p->lock);
	}
	spin_unlock(lock);
	return false;
}

static void drop_locks(struct mmu *mmu, uint32_t page, const struct shadow_key *key)
{
	spin_unlock(&mmu->pages[page].lock);
	spin_unlock(frame_lock_of(mmu, key->gfn));
}

static void count_leaf(struct tree *t)
{
	STAT(t->cpu, prebuilt);
	t->built++;
	t->stop = --t->budget == 0;
}

static void tree_leaves(struct tree *t, const struct place *at, const struct shadow_key *key, unsigned i, unsigned last)
{
	struct mmu *mmu = t->cpu->mmu;
	unsigned end;

	for (; i <= last && !t->stop; i = end) {
		end = i + RUN <= last + 1 ? i + RUN : last + 1;
		if (!try_locks(mmu, at->page, at->gen, key))
			continue;
		for (; i < end && !t->stop; i++)
			if (is_wanted(t, 1, i) &&
			    entry_prebuild(t->cpu, at->page, i, t->source, t->flags, NULL) == MMU_PB_BUILT)
				count_leaf(t);
		drop_locks(mmu, at->page, key);
	}
}

/* The page that a link leads to: the entry read again says that the generation is that of the page it links. */
static void linked_child(const struct mmu *mmu, uint32_t id, struct place *child)
{
	uint64_t spte = spte_load(mmu, id);

	child->page = pte_frame(spte) - mmu->cfg.pool.n;
	if (!(spte & MMU_PTE_P) || (spte & MMU_PTE_PS) || child->page >= mmu->cfg.pool_pages) {
		child->page = NOT_KNOWN;
		return;
	}
	child->gen = __atomic_load_n(&mmu->pages[child->page].gen, __ATOMIC_ACQUIRE);
	if (pte_frame(spte_load(mmu, id)) != pte_frame(spte))
		child->page = NOT_KNOWN;
}

/* Makes one entry above level 1, and finds the page below it. */
static void tree_entry(struct tree *t, const struct place *at, const struct shadow_key *key, struct place *child)
{
	struct mmu *mmu = t->cpu->mmu;
	enum mmu_prebuilt r;
	struct want want;

	child->page = NOT_KNOWN;
	if (!try_locks(mmu, at->page, at->gen, key))
		return;
	r = entry_prebuild(t->cpu, at->page, at->index, t->source, t->flags, &want);
	if (r == MMU_PB_PRESENT)
		linked_child(mmu, spte_id(at->page, at->index), child);
	drop_locks(mmu, at->page, key);
	if (r == MMU_PB_BUILT)
		count_leaf(t);
	if (r == MMU_PB_NO_SHADOW && prebuild_link(t->cpu, at, &want, t->flags, child) == MMU_PB_NO_ROOM)
		t->stop = true;
}

/* The tables of a hostile tree may be each other's: t->tables bounds the work, the level the depth. */
static void tree_table(struct tree *t, struct place at, unsigned level, uint64_t base)
{
	struct mmu *mmu = t->cpu->mmu;
	struct shadow_key key = page_key(&mmu->pages[at.page]);
	unsigned i = first_index(t, level, base), last = last_index(t, level, base);
	struct place child;

	if (!page_alive(&mmu->pages[at.page], at.gen) || key.level != level || (key.role & ROLE_DIRECT))
		return;
	if (!t->tables--) {
		t->tables = 0;
		t->stop = true;
		return;
	}
	if (level == 1) {
		tree_leaves(t, &at, &key, i, last);
		return;
	}
	for (; i <= last && !t->stop; i++) {
		if (is_hole(level, i) || !(gpte_load(mmu, key.gfn, i) & MMU_PTE_P))
			continue;
		at.index = i;
		tree_entry(t, &at, &key, &child);
		if (child.page != NOT_KNOWN)
			tree_table(t, child, level - 1, base + ((uint64_t)i << (MMU_PAGE_SHIFT + 9 * (level - 1))));
	}
}

/* Shadows of one root, those of a node in a row. */
struct roots {
	struct place at[MAX_SHADOWS];
	uint8_t node[MAX_SHADOWS];
	unsigned n, nr_nodes;		/* ... and how many nodes they are of */
};

static void add_root(struct roots *r, const struct mmu *mmu, uint32_t page, unsigned node)
{
	unsigned i = r->n++;

	for (; i && r->node[i - 1] > node; i--) {
		r->at[i] = r->at[i - 1];
		r->node[i] = r->node[i - 1];
	}
	r->nr_nodes += !i || r->node[i - 1] != node;
	r->at[i] = (struct place){ page, __atomic_load_n(&mmu->pages[page].gen, __ATOMIC_ACQUIRE), 0 };
	r->node[i] = node;
}

/* The shadows of a root in all views and on all nodes; `make`: one at least. */
static void find_roots(struct mmu_cpu *cpu, uint64_t root, enum mmu_mode mode, bool make, struct roots *out)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock = frame_lock_of(mmu, root);
	const struct shadow_key wanted = { .gfn = root, .level = MMU_LEVELS, .role = mode == MMU_USER ? ROLE_STRICT : 0,
					   .node = cpu->node };
	bool fresh;

	out->n = out->nr_nodes = 0;
	if (!spin_trylock(lock))
		return;
	for_each_shadow(mmu, root, page) {
		struct shadow_key key = page_key(&mmu->pages[page]);

		if (key.level == MMU_LEVELS && key.role == wanted.role && out->n < MAX_SHADOWS)
			add_root(out, mmu, page, key.node);
	}
	spin_unlock(lock);
	if (!out->n && make && !shadow_get_quiet(cpu, &wanted, true, &out->at[0].page, &out->at[0].gen, &fresh)) {
		out->n = out->nr_nodes = 1;
		out->node[0] = wanted.node;
	}
}

/* Each node gets an equal share of the budget, and of what the ones before it have left. */
static unsigned run_tree(struct tree *t, uint64_t root, enum mmu_mode mode)
{
	unsigned i, budget = t->budget, tables = t->tables;
	struct roots roots;

	if (root >= t->cpu->mmu->nr_gfns || t->source >= MMU_SOURCES || t->first > t->last || !t->budget)
		return 0;
	find_roots(t->cpu, root, mode, t->flags & MMU_PB_TABLES, &roots);
	t->budget = t->tables = 0;
	for (i = 0; i < roots.n; i++) {
		if (!i || roots.node[i] != roots.node[i - 1]) {
			t->budget += budget / roots.nr_nodes + (!i ? budget % roots.nr_nodes : 0);
			t->tables += tables / roots.nr_nodes;
			t->stop = !t->budget;
		}
		if (!t->stop)
			tree_table(t, roots.at[i], MMU_LEVELS, 0);
	}
	return t->built;
}

unsigned mmu_prebuild_tree(struct mmu_cpu *cpu, gfn_t root, enum mmu_mode mode, gva_t first_va, gva_t last_va,
			   unsigned source, unsigned flags, unsigned budget)
{
	struct tree t = { .cpu = cpu, .first = first_va.a & VA_MASK, .last = last_va.a & VA_MASK, .source = source,
			  .flags = flags, .budget = budget, .tables = 128 + budget / 4 };

	if (t.tables > cpu->mmu->cfg.pool_pages)
		t.tables = cpu->mmu->cfg.pool_pages;
	return run_tree(&t, root.n, mode);
}

unsigned mmu_prebuild_set(struct mmu_cpu *cpu, gfn_t root, enum mmu_mode mode, const struct mmu_present *set,
			  unsigned source, unsigned flags)
{
	uint64_t base = set->va.a & VA_MASK & ~((1ull << 21) - 1);
	struct tree t = { .cpu = cpu, .first = base, .last = base + (1ull << 21) - 1, .only = set->bits,
			  .source = source, .flags = flags, .budget = MMU_ENTRIES * cpu->mmu->cfg.nr_nodes,
			  .tables = MMU_LEVELS * MAX_SHADOWS };

	return run_tree(&t, root.n, mode);
}

/* ---- what a space has present ---------------------------------------------------------------------------------- */

struct present_walk {
	struct mmu *mmu;
	struct tree range;	/* first and last, and tables left */
	bool (*fn)(void *arg, const struct mmu_present *set);
	void *arg;
	unsigned calls;
	bool stop;
};

static void present_leaves(struct present_walk *w, const struct place *at, const struct shadow_key *key, uint64_t base)
{
	struct mmu_present set = { .va = { base >> 47 ? base | ~VA_MASK : base }, .table = { key->gfn } };
	unsigned i, last = last_index(&w->range, 1, base), n = 0;

	for (i = first_index(&w->range, 1, base); i <= last; i++) {
		if (!(spte_load(w->mmu, spte_id(at->page, i)) & MMU_PTE_P))
			continue;
		set.bits[i / 64] |= 1ull << (i % 64);
		n++;
	}
	if (!n || !page_alive(&w->mmu->pages[at->page], at->gen))
		return;
	w->calls++;
	w->stop = !w->fn(w->arg, &set);
}

static void present_table(struct present_walk *w, struct place at, unsigned level, uint64_t base)
{
	struct spage *p = &w->mmu->pages[at.page];
	struct shadow_key key = page_key(p);
	unsigned i, last = last_index(&w->range, level, base);
	struct place child;

	if (!page_alive(p, at.gen) || key.level != level || (key.role & ROLE_DIRECT) || !w->range.tables)
		return;
	w->range.tables--;
	if (level == 1) {
		present_leaves(w, &at, &key, base);
		return;
	}
	for (i = first_index(&w->range, level, base); i <= last && !w->stop; i++) {
		if (is_hole(level, i))
			continue;
		linked_child(w->mmu, spte_id(at.page, i), &child);
		if (child.page != NOT_KNOWN)
			present_table(w, child, level - 1, base + ((uint64_t)i << (MMU_PAGE_SHIFT + 9 * (level - 1))));
	}
}

unsigned mmu_present_set(struct mmu_cpu *cpu, gfn_t root, enum mmu_mode mode, gva_t first_va, gva_t last_va,
			 bool (*fn)(void *arg, const struct mmu_present *set), void *arg)
{
	struct mmu *mmu = cpu->mmu;
	struct present_walk w = { .mmu = mmu, .fn = fn, .arg = arg };
	struct roots roots;
	unsigned i;

	w.range = (struct tree){ .first = first_va.a & VA_MASK, .last = last_va.a & VA_MASK,
				 .tables = mmu->cfg.pool_pages };	/* a shadow that several link counts as often */
	if (root.n >= mmu->nr_gfns || w.range.first > w.range.last)
		return 0;
	find_roots(cpu, root.n, mode, false, &roots);
	for (i = 0; i < roots.n && !w.stop; i++)
		present_table(&w, roots.at[i], MMU_LEVELS, 0);
	return w.calls;
}

/* ---- a cpu that moved to another node ----------------------------------------------------------------------------- */

struct along {
	struct tree tree;
	struct place root;
};

static bool build_along(void *arg, const struct mmu_present *set)
{
	struct along *a = arg;
	struct tree *t = &a->tree;

	t->first = set->va.a & VA_MASK;
	t->last = t->first + (1ull << 21) - 1;
	t->only = set->bits;
	t->tables = MMU_LEVELS;
	tree_table(t, a->root, MMU_LEVELS, 0);
	return !t->stop;
}

unsigned mmu_prebuild_along(struct mmu_cpu *cpu, enum mmu_mode mode, unsigned from, unsigned source, unsigned budget)
{
	struct mmu *mmu = cpu->mmu;
	struct along a = { .tree = { .cpu = cpu, .source = source, .flags = MMU_PB_TABLES, .budget = budget } };
	struct present_walk w = { .mmu = mmu, .fn = build_along, .arg = &a };
	struct place old = { .page = NOT_KNOWN };
	struct shadow_key key;
	struct spin *lock;
	uint32_t page;

	if (!cpu->root[mode] || from >= mmu->cfg.nr_nodes || source >= MMU_SOURCES || !budget)
		return 0;
	a.root.page = cpu->root[mode] - 1;	/* a root in use: it lives, and stays what it is */
	a.root.gen = __atomic_load_n(&mmu->pages[a.root.page].gen, __ATOMIC_ACQUIRE);
	key = page_key(&mmu->pages[a.root.page]);
	if (key.node == from)
		return 0;
	key.node = from;
	lock = frame_lock_of(mmu, key.gfn);
	spin_lock(lock);
	page = shadow_find(mmu, &key);
	if (page)
		old = (struct place){ page - 1, __atomic_load_n(&mmu->pages[page - 1].gen, __ATOMIC_ACQUIRE), 0 };
	spin_unlock(lock);
	if (!page)
		return 0;
	w.range = (struct tree){ .last = VA_MASK, .tables = mmu->cfg.pool_pages };
	present_table(&w, old, MMU_LEVELS, 0);
	return a.tree.built;
}
