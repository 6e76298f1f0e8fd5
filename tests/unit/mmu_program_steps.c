#include "mmu_program_internal.h"

#include <errno.h>
#include <string.h>

static void step_access(struct program *p)
{
	enum mmu_mode mode = percent(p, 55) ? MMU_KERNEL : MMU_USER;
	uint64_t va = some_va(p);

	program_access(p, mode, va, some_access(p));
	if (percent(p, 30))
		program_access(p, mode, va ^ (uint64_t)below(p, 4) << 12, some_access(p));
}

/* A fault that no processor reported: another vCPU was faster, or the VMM asks for itself. */
static void step_needless_fault(struct program *p)
{
	enum mmu_mode mode = below(p, 2);
	bool starve;

	if (p->cpu->cr3[mode] != MODEL_NONE)
		take_fault(p, mode, some_va(p), some_access(p), &starve);
}

static void step_update(struct program *p)
{
	struct world_cpu *cpu = p->cpu;
	unsigned level = percent(p, 70) ? 1 : 1 + below(p, 4);
	uint64_t gfn = percent(p, 97) ? some_table(p, level) : some_data(p);
	unsigned index = some_index(p, level);
	uint64_t gpte = some_gpte(p, level), value = gpte;
	bool keep = percent(p, 25);
	int err;

	if (percent(p, 30))	/* what Linux does most: change rights or A/D of what is there */
		gpte = value = model_load(p->m, gfn, index) ^ (1ull << (1 + below(p, 6)));
	if (is_linear(p, gfn, index))
		return;
	if (percent(p, 1)) {
		err = mmu_update(cpu->cpu, (gfn_t){ percent(p, 50) ? p->w->opt.nr_gfns : rng_next(&p->rng) | 1ull << 62 },
				 index, gpte, keep);
		world_check(cpu, err == -EINVAL, "update of a frame out of range: %d", err);
		err = mmu_update(cpu->cpu, (gfn_t){ gfn }, 512 + below(p, 2) * 0x7ffffffe, gpte, keep);
		world_check(cpu, err == -EINVAL, "update of an index out of range: %d", err);
		return;
	}
	if (keep)
		value |= model_load(p->m, gfn, index) & (MMU_PTE_A | MMU_PTE_D);
	/* Only to tables: what moves or has copies is data, and written by mmu/ alone. */
	if (gfn != p->moving && !is_replicated(p, gfn) && (level_of(p, gfn) || !p->opt.moved) && percent(p, 20)) {
		value = gpte;
		world_write(p->w, gfn, index, gpte);
		model_store(p->m, gfn, index, value);
		mmu_mark_dirty(p->w->mmu, (gfn_t){ gfn });
		err = mmu_updated(cpu->cpu, (gfn_t){ gfn }, index);
	} else {
		err = mmu_update(cpu->cpu, (gfn_t){ gfn }, index, gpte, keep);
	}
	world_trace(cpu, "update gfn %#llx[%u] = %#llx keep %d: %d", (unsigned long long)gfn, index,
		    (unsigned long long)gpte, keep, err);
	if (err && (gfn == p->moving || !p->opt.alone))
		return;
	world_check(cpu, !err, "step %llu: update of gfn %#llx[%u]: %d", (unsigned long long)p->step,
		    (unsigned long long)gfn, index, err);
	model_store(p->m, gfn, index, value);
	p->ever_dirty[gfn] = 1;
	when_done(p, (struct when){ .kind = WHEN_ENTRY, .gfn = gfn, .index = index });
}

void load_root(struct program *p, enum mmu_mode mode, uint64_t l4)
{
	if (l4 == p->moving)
		return;
	if (p->opt.alone)
		kick_all(p);	/* world_load() may need pages that wait for any cpu's kicks */
	world_load(p->cpu, mode, l4);
	world_trace(p->cpu, "load mode %d l4 %#llx: cr3 %#llx", mode, (unsigned long long)l4,
		    (unsigned long long)p->cpu->cr3[mode]);
	if (l4 == MODEL_NONE)
		return;
	p->m->ever[l4] |= 1u << 4;
	when_done(p, (struct when){ .kind = WHEN_FLUSH });
}

void program_update(struct program *p, uint64_t gfn, unsigned index, uint64_t gpte)
{
	int err = mmu_update(p->cpu->cpu, (gfn_t){ gfn }, index, gpte, false);

	world_trace(p->cpu, "update gfn %#llx[%u] = %#llx: %d", (unsigned long long)gfn, index, (unsigned long long)gpte,
		    err);
	world_check(p->cpu, !err, "update of gfn %#llx[%u]: %d", (unsigned long long)gfn, index, err);
	model_store(p->m, gfn, index, gpte);
	when_done(p, (struct when){ .kind = WHEN_ENTRY, .gfn = gfn, .index = index });
	kick_all(p);
}

void program_pin(struct program *p, uint64_t gfn, unsigned level)
{
	int err = mmu_pin(p->cpu->cpu, (gfn_t){ gfn }, level);

	world_check(p->cpu, !err, "pin of gfn %#llx at level %u: %d", (unsigned long long)gfn, level, err);
	p->m->pin[gfn] = p->m->pin_seen[gfn] = level;
	kick_all(p);
}

void program_unpin(struct program *p, uint64_t gfn)
{
	int err = mmu_unpin(p->cpu->cpu, (gfn_t){ gfn });

	world_check(p->cpu, !err, "unpin of gfn %#llx: %d", (unsigned long long)gfn, err);
	p->m->pin[gfn] = p->m->pin_seen[gfn] = 0;
	kick_all(p);
}

void program_load(struct program *p, enum mmu_mode mode, uint64_t l4)
{
	load_root(p, mode, l4);
	kick_all(p);
}

void program_kick(struct program *p)
{
	kick_all(p);
}

void program_check(struct program *p)
{
	check_all(p);
}

static void step_flush(struct program *p)
{
	mmu_flush(p->cpu->cpu);
	world_trace(p->cpu, "flush");
	when_done(p, (struct when){ .kind = WHEN_FLUSH });
}

static void invlpg(struct program *p, uint64_t va)
{
	mmu_invlpg(p->cpu->cpu, (gva_t){ va });
	world_trace(p->cpu, "invlpg %#llx", (unsigned long long)va);
	when_done(p, (struct when){ .kind = WHEN_VA, .va = va, .l4 = { p->cpu->l4[0], p->cpu->l4[1] } });
}

static void step_invlpg(struct program *p)
{
	invlpg(p, some_va(p));
}

/* How Linux changes a mapping in use: its leaf entry is written through the read-only linear map, then flushed. */
static void step_direct_write(struct program *p)
{
	enum mmu_mode mode = below(p, 2);
	uint64_t va = some_va(p);
	const struct model_step *last;
	struct model_walk walk;

	if (p->cpu->cr3[mode] == MODEL_NONE)
		return;
	program_access(p, mode, va, some_access(p));
	model_walk(p->m, p->cpu->l4[mode], mode, va, 0, &walk);
	last = &walk.path[walk.depth - 1];
	if (last->gfn - p->opt.base >= PROG_RANGE)
		return;
	program_access(p, MMU_KERNEL, linear_va(p, last->gfn, last->index), MMU_PF_W);
	if (percent(p, 40)) {
		invlpg(p, va);
		if (percent(p, 70))
			kick_all(p);
	} else if (percent(p, 40)) {
		step_flush(p);
	}
	program_access(p, mode, va, some_access(p));
}

/* A leaf table that was written a moment ago gets linked at a second place: nothing stale may show there. */
static void step_relink(struct program *p)
{
	enum mmu_mode mode = below(p, 2);
	uint64_t va = some_va(p), there = some_va(p), l4 = p->cpu->l4[mode];
	const struct model_step *last, *upper;
	struct model_walk walk, to;

	if (p->cpu->cr3[mode] == MODEL_NONE)
		return;
	program_access(p, mode, va, 0);
	model_walk(p->m, l4, mode, va, 0, &walk);
	model_walk(p->m, l4, mode, there, 0, &to);
	last = &walk.path[walk.depth - 1];
	upper = &to.path[2];
	if (walk.depth < 4 || to.depth < 3 || last->gfn - p->opt.base >= PROG_RANGE || upper->gfn == p->moving ||
	    is_linear(p, upper->gfn, upper->index) || upper->gfn - p->opt.base >= PROG_RANGE ||
	    !level_of(p, upper->gfn))	/* data, which another thread may be moving */
		return;
	program_access(p, MMU_KERNEL, linear_va(p, last->gfn, last->index), MMU_PF_W);
	program_update(p, upper->gfn, upper->index, last->gfn << 12 | MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A);
	there &= ~(511ull << 12);
	program_access(p, mode, there | (uint64_t)some_index(p, 1) << 12, 0);
	program_access(p, mode, there | (va & 511ull << 12), 0);
}

static void note_tables(struct program *p, uint64_t gfn, unsigned first, unsigned last, unsigned level);

/* The processor takes along what it had on some node. */
static void build_along(struct program *p, enum mmu_mode mode)
{
	unsigned from = below(p, p->w->opt.nodes + 1), budget = below(p, 200), built;
	bool owed = mmu_kick_pending(p->cpu->cpu);

	built = mmu_prebuild_along(p->cpu->cpu, mode, from, MMU_SRC_FIRST_HEURISTIC + below(p, 4), budget);
	world_trace(p->cpu, "along from node %u mode %d: %u of %u", from, mode, built, budget);
	world_check(p->cpu, built <= budget, "along from node %u: %u leaves, budget %u", from, built, budget);
	world_check(p->cpu, owed || !mmu_kick_pending(p->cpu->cpu), "prebuilding owes a kick");
	if (!p->opt.strangers && p->cpu->l4[mode] != MODEL_NONE)
		note_tables(p, p->cpu->l4[mode], 0, 511, 4);
}

static void step_load(struct program *p)
{
	enum mmu_mode mode = below(p, 2);
	mfn_t root;
	int err;

	if (percent(p, 3)) {
		err = mmu_load(p->cpu->cpu, mode, (gfn_t){ p->w->opt.nr_gfns + below(p, 2) * 0x123456 }, &root);
		world_check(p->cpu, err == -EINVAL, "load of a root out of range: %d", err);
		return;
	}
	if (p->w->opt.nodes > 1 && percent(p, 30)) {
		world_set_node(p->cpu, below(p, p->w->opt.nodes));
		world_trace(p->cpu, "moved to node %u", p->cpu->node);
	}
	if (percent(p, 8))
		load_root(p, mode, MODEL_NONE);
	else if (percent(p, 3))
		load_root(p, mode, some_table(p, 1 + below(p, 3)));
	else
		load_root(p, mode, some_table(p, 4));
	if (p->w->opt.nodes > 1 && percent(p, 50))
		build_along(p, mode);
}

static void step_check(struct program *p)
{
	if (percent(p, 50)) {
		step_flush(p);
		kick_all(p);
	}
	check_all(p);
}

/* What a page in use maps: frames that are writable somewhere right now. */
static uint64_t hot_frame(struct program *p, uint64_t otherwise)
{
	uint64_t va = some_va(p);
	struct model_walk walk;

	if (p->cpu->l4[MMU_KERNEL] == MODEL_NONE)
		return otherwise;
	model_walk(p->m, p->cpu->l4[MMU_KERNEL], MMU_KERNEL, va, MMU_PF_W, &walk);
	return walk.verdict == MODEL_OK && walk.gfn - p->opt.base < PROG_RANGE ? walk.gfn : otherwise;
}

static void forget_promises(struct program *p, enum when_kind kind, uint64_t gfn)
{
	unsigned i, kept;

	for (i = kept = 0; i < p->nr_when; i++)
		if (p->when[i].kind != kind || p->when[i].gfn != gfn)
			p->when[kept++] = p->when[i];
	p->nr_when = kept;
}

static void step_pin(struct program *p)
{
	struct world_cpu *cpu = p->cpu;
	unsigned level = 1 + below(p, 4);
	uint64_t gfn = level == 1 && percent(p, 20) ? p->opt.base + PROG_LINEAR : some_table(p, level);
	int err;

	if (percent(p, 20))
		gfn = hot_frame(p, gfn);
	if (percent(p, 3)) {
		err = mmu_pin(cpu->cpu, (gfn_t){ p->w->opt.nr_gfns }, 1);
		world_check(cpu, err == -EINVAL, "pin out of range: %d", err);
		err = mmu_pin(cpu->cpu, (gfn_t){ gfn }, percent(p, 50) ? 0 : 5);
		world_check(cpu, err == -EINVAL, "pin at a level out of range: %d", err);
		return;
	}
	if (p->m->pin[gfn]) {
		err = mmu_unpin(cpu->cpu, (gfn_t){ gfn });
		world_trace(cpu, "unpin gfn %#llx: %d", (unsigned long long)gfn, err);
		world_check(cpu, !err, "unpin of gfn %#llx: %d", (unsigned long long)gfn, err);
		p->m->pin[gfn] = p->m->pin_seen[gfn] = 0;
		forget_promises(p, WHEN_PIN, gfn);
		return;
	}
	if (percent(p, 3))
		level = 1 + below(p, 4);
	err = mmu_pin(cpu->cpu, (gfn_t){ gfn }, level);
	world_trace(cpu, "pin gfn %#llx level %u: %d", (unsigned long long)gfn, level, err);
	if (err && gfn == p->moving)
		return;
	world_check(cpu, !err, "pin of gfn %#llx at level %u: %d", (unsigned long long)gfn, level, err);
	p->m->pin[gfn] = level;
	p->m->watched[gfn] = WATCH_OFF;
	when_done(p, (struct when){ .kind = WHEN_PIN, .gfn = gfn });
	if (percent(p, 40)) {
		kick_all(p);
		check_all(p);
	}
}

/* Prebuilding may have set A in present entries, and changed nothing else of the guest's. */
static void learn_young(struct program *p, uint64_t gfn, unsigned index)
{
	uint64_t is = world_read(p->w, gfn, index), was = model_load(p->m, gfn, index);

	if (is == was)
		return;
	world_check(p->cpu, is == (was | MMU_PTE_A) && (was & MMU_PTE_P), "step %llu: prebuilding changed gfn %#llx[%u] from "
		    "%#llx to %#llx", (unsigned long long)p->step, (unsigned long long)gfn, index,
		    (unsigned long long)was, (unsigned long long)is);
	model_set_bits(p->m, gfn, index, is);
}

/* Everything below an entry of a table may have become a table. */
static void note_tables(struct program *p, uint64_t gfn, unsigned first, unsigned last, unsigned level)
{
	for (; level > 1 && first <= last; first++) {
		uint64_t gpte = model_load(p->m, gfn, first), child = (gpte & MMU_PTE_ADDR) >> 12;

		if (!(gpte & MMU_PTE_P) || ((gpte & MMU_PTE_PS) && level < 4) || child >= p->w->opt.nr_gfns)
			continue;
		p->m->ever[child] |= 1u << (level - 1);
		note_tables(p, child, 0, 511, level - 1);
	}
}

static void step_prebuild(struct program *p)
{
	unsigned level = percent(p, 70) ? 1 : 1 + below(p, 4), n, index, run = 1 + below(p, 8);
	uint64_t gfn = percent(p, 98) ? some_table(p, level) : some_data(p);
	unsigned source = MMU_SRC_FIRST_HEURISTIC + below(p, MMU_SOURCES - MMU_SRC_FIRST_HEURISTIC);
	unsigned flags = below(p, 8);
	enum mmu_prebuilt r;
	uint64_t gpte;

	index = some_index(p, level);
	for (n = 0; n < run; n++, index = (index + 1) % 512) {
		gpte = model_load(p->m, gfn, index);
		r = mmu_prebuild(p->cpu->cpu, (gfn_t){ gfn }, index, source, flags);
		world_check(p->cpu, r <= MMU_PB_BUSY && (r != MMU_PB_NO_ROOM || (flags & MMU_PB_TABLES)),
			    "prebuild with flags %u said %d", flags, r);
		world_check(p->cpu, r != MMU_PB_BUILT ||
			    ((gpte & MMU_PTE_P) &&
			     ((gpte & MMU_PTE_A) || (flags & MMU_PB_YOUNG) || p->opt.strangers)),
			    "step %llu: prebuilt gfn %#llx[%u] from gPTE %#llx", (unsigned long long)p->step,
			    (unsigned long long)gfn, index, (unsigned long long)gpte);
		world_check(p->cpu, p->m->ever[gfn] || p->opt.strangers || r == MMU_PB_NO_SHADOW || r == MMU_PB_NOTHING || r == MMU_PB_BUSY,
			    "prebuild into gfn %#llx, never a table: %d", (unsigned long long)gfn, r);
		if (p->opt.strangers)
			continue;
		learn_young(p, gfn, index);
		for (level = 2; (flags & MMU_PB_TABLES) && level <= MMU_LEVELS; level++)
			if (p->m->ever[gfn] >> level & 1)
				note_tables(p, gfn, index, index, level);
	}
	mmu_prebuild(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns + 5 }, 3, source, flags);
	mmu_prebuild(p->cpu->cpu, (gfn_t){ gfn }, 512, source, flags);
}

struct clone {
	struct program *p;
	uint64_t root;
	enum mmu_mode mode;
	unsigned source, flags, built;
};

static bool clone_set(void *arg, const struct mmu_present *set)
{
	struct clone *c = arg;
	unsigned n = 0, i, built;

	for (i = 0; i < 8; i++)
		n += __builtin_popcountll(set->bits[i]);
	world_check(c->p->cpu, n && !(set->va.a & 0x1fffff) && set->table.n < c->p->w->opt.nr_gfns,
		    "present set of %u pages at va %#llx", n, (unsigned long long)set->va.a);
	built = mmu_prebuild_set(c->p->cpu->cpu, (gfn_t){ c->root }, c->mode, set, c->source, c->flags);
	world_check(c->p->cpu, built <= (n + 1) * c->p->w->opt.nodes, "prebuild_set built %u of %u", built, n); /* or a large leaf */
	c->built += built;
	return percent(c->p, 90);
}

/* A tree of any shape, hostile ones included: terminates, and changes nothing but A. */
static void step_prebuild_tree(struct program *p)
{
	struct clone c = { .p = p, .root = some_table(p, percent(p, 95) ? 4 : 1 + below(p, 3)), .mode = below(p, 2),
			   .source = MMU_SRC_FIRST_HEURISTIC + below(p, 4), .flags = below(p, 8) };
	uint64_t first = some_va(p), last = percent(p, 50) ? ~0ull : some_va(p), gfn;
	unsigned budget = 1 + below(p, 200), index;

	if (percent(p, 30)) {
		mmu_present_set(p->cpu->cpu, (gfn_t){ some_table(p, 4) }, below(p, 2), (gva_t){ first }, (gva_t){ last },
				clone_set, &c);
	} else {
		c.built = mmu_prebuild_tree(p->cpu->cpu, (gfn_t){ c.root }, c.mode, (gva_t){ first }, (gva_t){ last },
					    c.source, c.flags, budget);
		world_check(p->cpu, c.built <= budget, "a tree of %u leaves, budget %u", c.built, budget);
	}
	world_trace(p->cpu, "prebuild tree of gfn %#llx mode %d flags %u: %u", (unsigned long long)c.root, c.mode, c.flags,
		    c.built);
	mmu_prebuild_tree(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns }, c.mode, (gva_t){ 0 }, (gva_t){ ~0ull }, 3, c.flags, 9);
	if (p->opt.strangers)
		return;
	for (gfn = p->opt.base; gfn < p->opt.base + PROG_RANGE && gfn < p->w->opt.nr_gfns; gfn++)
		if (memcmp(world_mfn_words(p->w, p->w->gfn_mfn[gfn]), &p->m->mem[gfn * 512], MMU_PAGE_SIZE) &&
		    gfn != p->moving)
			for (index = 0; index < 512; index++)
				learn_young(p, gfn, index);
	if (c.flags & MMU_PB_TABLES) {
		p->m->ever[c.root] |= 1u << 4;
		note_tables(p, c.root, 0, 511, 4);
	}
	if (percent(p, 20))
		check_all(p);
}

void remap_finish(struct program *p)
{
	struct world *w = p->w;
	uint64_t gfn = p->moving, from = w->gfn_mfn[gfn], to = p->moving_to;
	int err;

	p->moving = MODEL_NONE;
	if (percent(p, 20)) {
		__atomic_store_n(&w->mfn_gfn[from], (int64_t)gfn, __ATOMIC_RELEASE);
		mmu_remap_abort(p->cpu->cpu, (gfn_t){ gfn });
		p->spare[p->nr_spare++] = to;
		world_trace(p->cpu, "remap abort gfn %#llx", (unsigned long long)gfn);
		return;
	}
	__atomic_store_n(&w->mfn_gfn[to], (int64_t)gfn, __ATOMIC_RELEASE);
	err = mmu_remap_commit(p->cpu->cpu, (gfn_t){ gfn }, (mfn_t){ to });
	__atomic_store_n(&w->gfn_mfn[gfn], to, __ATOMIC_RELEASE);
	world_trace(p->cpu, "remap commit gfn %#llx to %#llx: %d", (unsigned long long)gfn, (unsigned long long)to, err);
	world_check(p->cpu, !err, "remap commit: %d", err);
	world_check(p->cpu, mmu_pmap(w->mmu, (gfn_t){ gfn }).n == to, "pmap after a commit");
	world_check(p->cpu, mmu_gfn_hva(w->mmu, (gfn_t){ gfn }) == world_mfn_words(w, to), "gfn_hva after a commit");
	p->spare[p->nr_spare++] = from;
}

/* ---- replicas ---------------------------------------------------------------------------------------------------- */

bool is_replicated(const struct program *p, uint64_t gfn)
{
	unsigned i;

	for (i = 0; i < p->nr_replicas; i++)
		if (p->replicas[i].gfn == gfn)
			return true;
	return false;
}

static void replica_at(struct replica *r, uint64_t mfn)
{
	unsigned i;

	for (i = 0; i < r->nr_at; i++)
		if (r->at[i] == mfn)
			return;
	r->at[r->nr_at++] = mfn;
}

/* In place of a commit: some nodes may keep the old place, or share a copy. False: no room. */
static bool replicate(struct program *p, uint64_t gfn)
{
	struct world *w = p->w;
	struct replica *r = &p->replicas[p->nr_replicas];
	unsigned nodes = w->opt.nodes, i;
	mfn_t at[MMU_MAX_NODES];
	int err;

	if (nodes < 2 || p->nr_replicas == REPLICAS || p->nr_spare < nodes + 4)
		return false;
	*r = (struct replica){ .gfn = gfn };
	for (i = 0; i < nodes; i++) {
		at[i].n = percent(p, 30) ? w->gfn_mfn[gfn] : i && percent(p, 10) ? at[i - 1].n : p->spare[--p->nr_spare];
		replica_at(r, at[i].n);
	}
	replica_at(r, w->gfn_mfn[gfn]);
	for (i = 0; i < r->nr_at; i++)
		__atomic_store_n(&w->mfn_gfn[r->at[i]], (int64_t)gfn, __ATOMIC_RELEASE);
	__atomic_store_n(&w->collapsed[gfn], 0, __ATOMIC_RELEASE);
	err = mmu_replicate(p->cpu->cpu, (gfn_t){ w->opt.nr_gfns }, at);
	world_check(p->cpu, err == -EINVAL, "replicate out of range: %d", err);
	err = mmu_replicate(p->cpu->cpu, (gfn_t){ gfn }, at);
	world_trace(p->cpu, "replicate gfn %#llx: %d", (unsigned long long)gfn, err);
	world_check(p->cpu, !err, "replicate: %d", err);
	for (i = 0; i < nodes; i++)
		world_check(p->cpu, mmu_pmap_on(w->mmu, (gfn_t){ gfn }, i).n == at[i].n, "pmap_on after replicate");
	world_check(p->cpu, mmu_replicate(p->cpu->cpu, (gfn_t){ gfn }, at) == -EINVAL, "replicate of a frame not moving");
	p->nr_replicas++;
	return true;
}

/* One copy is left: nobody may use another from now on. */
static void release(struct program *p, unsigned slot)
{
	struct replica *r = &p->replicas[slot];
	struct world *w = p->w;
	unsigned i;
	int err = mmu_collapse(p->cpu->cpu, (gfn_t){ r->gfn });

	if (err == -EAGAIN) {
		kick_all(p);
		err = mmu_collapse(p->cpu->cpu, (gfn_t){ r->gfn });
	}
	world_trace(p->cpu, "release gfn %#llx: %d", (unsigned long long)r->gfn, err);
	world_check(p->cpu, !err, "step %llu: collapse of gfn %#llx: %d", (unsigned long long)p->step,
		    (unsigned long long)r->gfn, err);
	for (i = 0; i < r->nr_at; i++) {
		if (r->at[i] == w->gfn_mfn[r->gfn])
			continue;
		__atomic_store_n(&w->mfn_gfn[r->at[i]], -1, __ATOMIC_RELEASE);
		memset(world_mfn_words(w, r->at[i]), 0x5a, MMU_PAGE_SIZE);
		p->spare[p->nr_spare++] = r->at[i];
	}
	world_check(p->cpu, mmu_pmap(w->mmu, (gfn_t){ r->gfn }).n == w->gfn_mfn[r->gfn], "pmap after a collapse");
	*r = p->replicas[--p->nr_replicas];
}

void release_replicas(struct program *p)
{
	while (p->nr_replicas)
		release(p, 0);
}

/* Those that a write has made one, and at times others. */
static void step_release(struct program *p)
{
	unsigned i = below(p, REPLICAS);

	if (i < p->nr_replicas && (p->w->collapsed[p->replicas[i].gfn] || percent(p, 20)))
		release(p, i);
}

static void step_remap(struct program *p)
{
	struct world *w = p->w;
	uint64_t gfn;
	unsigned slot;
	int err;

	if (p->moving != MODEL_NONE) {
		err = mmu_remap_begin(p->cpu->cpu, (gfn_t){ p->moving });
		world_check(p->cpu, err == -EBUSY, "second remap_begin: %d", err);
		remap_finish(p);
		return;
	}
	err = mmu_remap_begin(p->cpu->cpu, (gfn_t){ w->opt.nr_gfns });
	world_check(p->cpu, err == -EINVAL, "remap_begin out of range: %d", err);
	gfn = percent(p, 80) ? some_data(p) : some_table(p, 1 + below(p, 4));
	err = mmu_remap_begin(p->cpu->cpu, (gfn_t){ gfn });
	world_trace(p->cpu, "remap begin gfn %#llx: %d", (unsigned long long)gfn, err);
	if (err) {
		world_check(p->cpu, err == -EBUSY, "remap_begin: %d", err);
		world_check(p->cpu, p->m->pin[gfn] || p->m->ever[gfn] || p->m->fixed[gfn], "step %llu: remap_begin of gfn %#llx, no table: %d",
			    (unsigned long long)p->step, (unsigned long long)gfn, err);
		kick(p, p->cpu);
		return;
	}
	world_check(p->cpu, !p->m->fixed[gfn], "step %llu: gfn %#llx is fixed, and moves", (unsigned long long)p->step,
		    (unsigned long long)gfn);
	p->m->watched[gfn] = WATCH_OFF;
	kick_all(p);
	for (slot = 0; slot < p->nr_replicas; slot++)
		if (p->replicas[slot].gfn == gfn)
			release(p, slot);
	if (percent(p, 30) && replicate(p, gfn))
		return;
	slot = below(p, p->nr_spare);
	p->moving = gfn;
	p->moving_to = p->spare[slot];
	p->spare[slot] = p->spare[--p->nr_spare];
	__atomic_store_n(&w->mfn_gfn[w->gfn_mfn[gfn]], -1, __ATOMIC_RELEASE);
	check_all(p);
	if (percent(p, 50))
		remap_finish(p);
}

static void note_watch(struct program *p, uint64_t gfn)
{
	p->m->watched[gfn] = WATCH_ON;
	forget_promises(p, WHEN_WATCH, gfn);
	when_done(p, (struct when){ .kind = WHEN_WATCH, .gfn = gfn });
}

void program_watch(struct program *p, uint64_t gfn)
{
	int err = mmu_watch(p->cpu->cpu, (gfn_t){ gfn });

	world_check(p->cpu, !err, "watch of gfn %#llx: %d", (unsigned long long)gfn, err);
	note_watch(p, gfn);
	kick_all(p);
}

/* From now on the first access by each table faults. */
static void step_watch(struct program *p)
{
	uint64_t gfn = percent(p, 85) ? some_data(p) : some_table(p, 1 + below(p, 4));
	int err;

	if (percent(p, 50))
		gfn = hot_frame(p, gfn);
	if (percent(p, 10)) {
		mmu_unwatch(p->cpu->cpu, (gfn_t){ gfn });
		mmu_unwatch(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns });
		p->m->watched[gfn] = WATCH_OFF;
		return;
	}
	err = mmu_watch(p->cpu->cpu, (gfn_t){ gfn });
	world_trace(p->cpu, "watch gfn %#llx: %d", (unsigned long long)gfn, err);
	world_check(p->cpu, err ? err == -EBUSY && (p->m->pin[gfn] || p->m->ever[gfn] || p->m->fixed[gfn] || gfn == p->moving ||
						    !p->opt.alone) : !p->m->fixed[gfn], "step %llu: watch of gfn %#llx: %d", (unsigned long long)p->step, (unsigned long long)gfn, err);
	err = err ? err : mmu_watch(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns });
	world_check(p->cpu, err == -EINVAL || err == -EBUSY, "watch of a frame out of range: %d", err);
	if (err == -EBUSY)
		return;
	note_watch(p, gfn);
	if (percent(p, 50))
		kick_all(p);
}

static void fetch_dirty(struct program *p, uint64_t first, uint64_t count)
{
	uint64_t bitmap[64] = { 0 }, i;
	int err;

	err = mmu_dirty_fetch(p->cpu->cpu, (gfn_t){ first }, count, bitmap);
	world_check(p->cpu, !err, "dirty_fetch(%llu, %llu): %d", (unsigned long long)first, (unsigned long long)count, err);
	kick_all(p);
	for (i = 0; i < count; i++) {
		uint64_t gfn = first + i;
		bool set = bitmap[i / 64] >> (i % 64) & 1;

		if (gfn < p->opt.base || gfn >= p->opt.base + PROG_RANGE)
			continue;
		world_check(p->cpu, set || !p->m->dirty[gfn], "step %llu: gfn %#llx was written, and is not in the bitmap",
			    (unsigned long long)p->step, (unsigned long long)gfn);
		world_check(p->cpu, !set || p->m->may_dirty[gfn], "step %llu: gfn %#llx is in the bitmap, and nothing wrote it",
			    (unsigned long long)p->step, (unsigned long long)gfn);
		p->m->dirty[gfn] = p->m->may_dirty[gfn] = 0;
	}
}

static void step_dirty(struct program *p)
{
	uint64_t first, word;
	unsigned n;
	int err;

	kick_all(p);
	if (!p->logging) {
		err = mmu_dirty_fetch(p->cpu->cpu, (gfn_t){ 0 }, 64, &word);
		world_check(p->cpu, err == -EINVAL, "dirty_fetch before start: %d", err);
		err = mmu_dirty_start(p->cpu->cpu);
		world_check(p->cpu, !err, "dirty_start: %d", err);
		kick_all(p);
		memset(p->m->dirty, 0, p->m->nr_gfns);
		memset(p->m->may_dirty, 0, p->m->nr_gfns);
		p->logging = true;
		world_trace(p->cpu, "dirty start");
		return;
	}
	world_check(p->cpu, mmu_dirty_start(p->cpu->cpu) == -EALREADY, "second dirty_start");
	if (percent(p, 85)) {
		first = p->opt.base + below(p, 80);
		fetch_dirty(p, first, 1 + below(p, 1000));
		world_trace(p->cpu, "dirty fetch");
		for (n = 0; n < 8 && n < p->nr_hot; n++)
			program_access(p, MMU_KERNEL, p->hot[n], MMU_PF_W);
		return;
	}
	fetch_dirty(p, p->opt.base, PROG_RANGE);
	err = mmu_dirty_stop(p->cpu->cpu);
	world_check(p->cpu, !err, "dirty_stop: %d", err);
	p->logging = false;
	world_trace(p->cpu, "dirty stop");
}

static void step_mark_dirty(struct program *p)
{
	uint64_t gfn = some_data(p);
	unsigned index = below(p, 512);

	if (gfn == p->moving || p->opt.moved || is_replicated(p, gfn))
		return;
	world_write(p->w, gfn, index, some_word(p, gfn) & ~MMU_PTE_P);
	model_store(p->m, gfn, index, world_read(p->w, gfn, index));
	mmu_mark_dirty(p->w->mmu, (gfn_t){ gfn });
	mmu_mark_dirty(p->w->mmu, (gfn_t){ p->w->opt.nr_gfns + 1 });
	p->ever_dirty[gfn] = 1;
	/* A data frame may be in use as a table: then this store is an update nobody announced. */
	if (p->m->ever[gfn] || p->m->pin[gfn] || p->opt.strangers)
		mmu_updated(p->cpu->cpu, (gfn_t){ gfn }, index);
}

/* The VMM's stores: of any size, unless another thread may take what is half done for an entry. */
static void step_write(struct program *p)
{
	uint64_t gfn = some_data(p), page[512], value;
	unsigned offset = below(p, 512) * 8, bytes = 8, i;
	int err;

	err = mmu_write(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns }, 0, page, 8);
	world_check(p->cpu, err == -EINVAL, "a write out of range: %d", err);
	err = mmu_write(p->cpu->cpu, (gfn_t){ gfn }, below(p, 2) ? 4097 : 4090, page, below(p, 2) ? 7 : 4097);
	world_check(p->cpu, err == -EINVAL, "a write across the end of the frame: %d", err);
	if (p->opt.alone && percent(p, 50)) {
		offset = below(p, 4096);
		bytes = 1 + below(p, percent(p, 80) && offset < 4080 ? 16 : 4096 - offset);
	}
	memcpy(page, &p->m->mem[gfn * 512], sizeof(page));
	value = some_word(p, gfn) & ~MMU_PTE_P;
	for (i = 0; i < bytes; i++)
		((char *)page)[offset + i] = (char)(value >> (offset + i) % 8 * 8);
	err = mmu_write(p->cpu->cpu, (gfn_t){ gfn }, offset, (char *)page + offset, bytes);
	world_trace(p->cpu, "write gfn %#llx+%u, %u bytes: %d", (unsigned long long)gfn, offset, bytes, err);
	world_check(p->cpu, !err, "step %llu: write of gfn %#llx+%u, %u bytes: %d", (unsigned long long)p->step,
		    (unsigned long long)gfn, offset, bytes, err);
	for (i = offset / 8; i <= (offset + bytes - 1) / 8; i++)
		model_store(p->m, gfn, i, page[i]);
	p->ever_dirty[gfn] = 1;
}

static void step_fix(struct program *p)
{
	uint64_t gfn = some_data(p);
	int err;

	if (p->m->fixed[gfn] && percent(p, 70)) {
		for (; p->m->fixed[gfn]; p->m->fixed[gfn]--)
			mmu_unfix(p->cpu->cpu, (gfn_t){ gfn });
		return;
	}
	if (percent(p, 50))
		return;
	err = mmu_fix(p->cpu->cpu, (gfn_t){ gfn });
	world_trace(p->cpu, "fix gfn %#llx: %d", (unsigned long long)gfn, err);
	world_check(p->cpu, err ? err == -EAGAIN && (gfn == p->moving || is_replicated(p, gfn) || !p->opt.alone) :
		    gfn != p->moving,
		    "step %llu: fix of gfn %#llx: %d", (unsigned long long)p->step, (unsigned long long)gfn, err);
	p->m->fixed[gfn] += !err;
	world_check(p->cpu, mmu_fix(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns }) == -EINVAL, "fix of a frame out of range");
	mmu_unfix(p->cpu->cpu, (gfn_t){ p->w->opt.nr_gfns });
}

static void step_translate(struct program *p)
{
	enum mmu_mode mode = below(p, 2);
	uint64_t va = some_va(p), l4 = some_table(p, 4);
	uint32_t access = some_access(p);
	struct model_walk walk;
	struct mmu_walk got;
	unsigned slot = model_index(va, 4);
	const struct model_step *last;
	int err;

	if (slot >= 256 && slot <= 271)
		return;
	model_walk(p->m, l4, mode, va, access, &walk);
	last = &walk.path[walk.depth - 1];
	err = mmu_translate(p->w->mmu, (gfn_t){ l4 }, mode, (gva_t){ va }, access, &got);
	if (p->moving != MODEL_NONE && on_path(&walk, p->moving))
		return;
	world_check(p->cpu, err == (walk.verdict == MODEL_OK ? 0 : -EFAULT), "step %llu: translate mode %d va %#llx "
		    "access %#x from %#llx: %d, the model says %d", (unsigned long long)p->step, mode,
		    (unsigned long long)va, access, (unsigned long long)l4, err, walk.verdict);
	world_check(p->cpu, !err || got.error_code == walk.error_code, "step %llu: translate mode %d va %#llx access %#x: "
		    "error code %#x, should be %#x", (unsigned long long)p->step, mode, (unsigned long long)va, access,
		    got.error_code, walk.error_code);
	world_check(p->cpu, err || got.gfn.n == walk.gfn, "step %llu: translate mode %d va %#llx: gfn %#llx, should be "
		    "%#llx", (unsigned long long)p->step, mode, (unsigned long long)va, (unsigned long long)got.gfn.n,
		    (unsigned long long)walk.gfn);
	world_check(p->cpu, got.table.n == last->gfn && got.index == last->index && got.level == last->level &&
		    same_word(p, got.gpte, last->gpte), "step %llu: translate mode %d va %#llx: stopped at %#llx[%u] level %u, should "
		    "be %#llx[%u] level %u", (unsigned long long)p->step, mode, (unsigned long long)va,
		    (unsigned long long)got.table.n, got.index, got.level, (unsigned long long)last->gfn, last->index,
		    last->level);
	err = mmu_translate(p->w->mmu, (gfn_t){ p->w->opt.nr_gfns }, mode, (gva_t){ va }, access, &got);
	world_check(p->cpu, err == -EINVAL, "translate from a root out of range: %d", err);
}

static const struct {
	unsigned weight;
	void (*step)(struct program *p);
	bool global, remap;
} steps[] = {
	{ .weight = 400, .step = step_access },
	{ .weight = 160, .step = step_update },
	{ .weight =  80, .step = step_direct_write },
	{ .weight =  30, .step = step_relink },
	{ .weight =  40, .step = step_flush },
	{ .weight =  40, .step = step_invlpg },
	{ .weight =  35, .step = step_load },
	{ .weight =  40, .step = step_pin },
	{ .weight =  90, .step = step_prebuild },
	{ .weight =  10, .step = step_prebuild_tree },
	{ .weight =  35, .step = step_remap, .remap = true },
	{ .weight =  20, .step = step_release, .remap = true },
	{ .weight =  25, .step = step_watch },
	{ .weight =  20, .step = step_dirty, .global = true },
	{ .weight =  15, .step = step_mark_dirty },
	{ .weight =  25, .step = step_write },
	{ .weight =   5, .step = step_fix },
	{ .weight =  40, .step = step_translate },
	{ .weight =  15, .step = step_needless_fault },
	{ .weight =   8, .step = step_check },
};

void one_step(struct program *p)
{
	unsigned i, total = 0, pick;

	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		total += steps[i].weight;
	pick = below(p, total);
	for (i = 0; pick >= steps[i].weight; i++)
		pick -= steps[i].weight;
	if ((steps[i].global && !p->opt.global) || (steps[i].remap && !p->opt.remap))
		return;
	p->cpu = p->cpus[below(p, p->nr_cpus)];
	steps[i].step(p);
	if (!p->opt.alone || percent(p, 70) || p->nr_when > 32)
		kick(p, p->cpu);
	if (p->nr_when > 32)
		kick_all(p);
}
