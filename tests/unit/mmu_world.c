#include "mmu_world.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HOLE_FIRST	256u
#define HOLE_LAST	271u
#define HOLE_TABLES	8u

uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

/* Whose trace a line goes to: one for all, if the steps have one order. */
static struct world_cpu *tracer(struct world_cpu *cpu)
{
	return cpu->world->opt.serial ? &cpu->world->cpus[0] : cpu;
}

void world_trace(struct world_cpu *cpu, const char *fmt, ...)
{
	struct world_cpu *to = tracer(cpu);
	char *line = to->trace[to->nr_trace++ % WORLD_TRACE];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(to->trace[0]), "cpu %td: ", cpu - cpu->world->cpus);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(to->trace[0]) - n, fmt, ap);
	va_end(ap);
}

void world_fail(struct world_cpu *cpu, const char *fmt, ...)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	const struct world_options *o = &cpu->world->opt;
	const struct world_cpu *from = tracer(cpu);
	unsigned i;
	va_list ap;

	pthread_mutex_lock(&once);
	fprintf(stderr, "\nFAILED: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  UMBRA_SEED=%llu (cpu %td, cpus %u, nodes %u, pool %u, fill %d, prefetch %d/%u, large %d, nx %d, "
		"preset_ad %d, reach %d, table_kick_min %u, audit %u)\n  what happened last:\n",
		(unsigned long long)o->seed, cpu - cpu->world->cpus, o->cpus, o->nodes, o->pool_pages, o->fill, o->prefetch,
		o->prefetch_n, o->large, o->nx, o->preset_ad, o->reach, o->table_kick_min, o->audit);
	for (i = from->nr_trace > WORLD_TRACE ? from->nr_trace - WORLD_TRACE : 0; i < from->nr_trace; i++)
		fprintf(stderr, "  %6u %s\n", i, from->trace[i % WORLD_TRACE]);
	fflush(stderr);
	abort();
}

static void audit_failed(void *arg, const char *what)
{
	struct world *w = arg;

	fprintf(stderr, "audit: %s (UMBRA_SEED=%llu)\n", what, (unsigned long long)w->opt.seed);
	__atomic_fetch_add(&w->nr_audit_failed, 1, __ATOMIC_RELAXED);
}

static void collapsed(void *arg, gfn_t gfn, mfn_t kept)
{
	struct world *w = arg;

	__atomic_store_n(&w->gfn_mfn[gfn.n], kept.n, __ATOMIC_RELEASE);
	__atomic_store_n(&w->collapsed[gfn.n], 1, __ATOMIC_RELEASE);
}

/* Hole slot 3 of kernel roots maps one page, by tables that are none of mmu/'s. */
static void build_hole(struct world *w)
{
	uint64_t mfn = w->holes, flags = MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D;

	w->config.hole[MMU_KERNEL][3] = mfn << 12 | flags;
	world_mfn_words(w, mfn)[0] = (mfn + 1) << 12 | flags;
	world_mfn_words(w, mfn + 1)[0] = (mfn + 2) << 12 | flags;
	world_mfn_words(w, mfn + 2)[0] = (mfn + 3) << 12 | flags;
	w->config.hole[MMU_USER][15] = (mfn + 4) << 12 | MMU_PTE_P;
	w->config.hole[MMU_KERNEL][15] = (mfn + 4) << 12 | MMU_PTE_P;
	for (unsigned c = 0; c < w->opt.cpus; c++)
		w->view_entry[c] = (mfn + 4) << 12 | (uint64_t)c << 9 | MMU_PTE_P;
	w->config.view_entry = w->view_entry;
	w->config.view_slot = WORLD_VIEW_SLOT;
	w->config.nr_views = w->opt.cpus;
}

struct world *world_create(const struct world_options *opt)
{
	struct world *w = calloc(1, sizeof(*w));
	struct mmu_region regions[3];
	uint64_t i, half;
	unsigned c;
	int err;

	if (!w)
		abort();
	w->opt = *opt;
	w->opt.nodes = opt->nodes ? opt->nodes : 1;
	w->spare = opt->nr_gfns;
	w->holes = w->spare + WORLD_SPARE;
	w->pool = w->holes + HOLE_TABLES;
	w->nr_mfns = w->pool + opt->pool_pages;
	w->mem = mmap(NULL, w->nr_mfns * MMU_PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	w->mfn_gfn = malloc(w->nr_mfns * sizeof(*w->mfn_gfn));
	w->gfn_mfn = malloc(opt->nr_gfns * sizeof(*w->gfn_mfn));
	w->collapsed = calloc(opt->nr_gfns, 1);
	if (w->mem == MAP_FAILED || !w->mfn_gfn || !w->gfn_mfn || !w->collapsed)
		abort();
	for (i = 0; i < w->nr_mfns; i++)
		w->mfn_gfn[i] = i < opt->nr_gfns ? (int64_t)i : -1;
	for (i = 0; i < opt->nr_gfns; i++)
		w->gfn_mfn[i] = i;

	half = opt->nr_gfns / 2;
	regions[0] = (struct mmu_region){ { 0 }, half, w->mem };
	regions[1] = (struct mmu_region){ { half }, w->pool - half, w->mem + half * MMU_PAGE_SIZE };
	regions[2] = (struct mmu_region){ { w->pool }, opt->pool_pages, w->mem + w->pool * MMU_PAGE_SIZE };
	w->config = (struct mmu_config){
		.regions = regions, .nr_regions = 3, .nr_gfns = opt->nr_gfns,
		.pool = { w->pool }, .pool_pages = opt->pool_pages, .nr_nodes = opt->nodes,
		.fill = opt->fill, .prefetch = opt->prefetch, .prefetch_n = opt->prefetch_n,
		.large = opt->large, .nx = opt->nx, .preset_ad = opt->preset_ad, .link_ahead = opt->link_ahead,
		.fill_linear = opt->fill_linear, .track_reach = opt->reach,
		.table_kick_min = opt->table_kick_min, .audit = opt->audit,
		.sample_every = opt->sample_every, .audit_failed = audit_failed, .audit_arg = w,
		.collapsed = collapsed, .collapsed_arg = w,
	};
	build_hole(w);
	for (c = 0; c < opt->cpus; c++)		/* world_fail() works from here on */
		w->cpus[c].world = w;
	err = mmu_create(&w->config, &w->mmu);
	world_check(&w->cpus[0], !err, "mmu_create: %d", err);
	w->config.regions = NULL;
	for (c = 0; c < opt->cpus; c++) {
		struct world_cpu *cpu = &w->cpus[c];

		pthread_mutex_init(&cpu->lock, NULL);
		cpu->cr3[0] = cpu->cr3[1] = cpu->l4[0] = cpu->l4[1] = MODEL_NONE;
		cpu->kick_bits = calloc(opt->pool_pages, sizeof(*cpu->kick_bits));
		cpu->kick_whole = calloc(opt->pool_pages, 1);
		if (!cpu->kick_bits || !cpu->kick_whole)
			abort();
		err = mmu_cpu_create(w->mmu, &cpu->cpu);
		world_check(cpu, !err, "mmu_cpu_create: %d", err);
		err = mmu_cpu_set_view(cpu->cpu, c);
		world_check(cpu, !err, "mmu_cpu_set_view: %d", err);
		world_set_node(cpu, c % w->opt.nodes);
	}
	return w;
}

void world_destroy(struct world *w)
{
	unsigned c;

	for (c = 0; c < w->opt.cpus; c++) {
		mmu_cpu_destroy(w->cpus[c].cpu);
		free(w->cpus[c].kick_bits);
		free(w->cpus[c].kick_whole);
		pthread_mutex_destroy(&w->cpus[c].lock);
	}
	mmu_destroy(w->mmu);
	munmap(w->mem, w->nr_mfns * MMU_PAGE_SIZE);
	free(w->mfn_gfn);
	free(w->gfn_mfn);
	free(w->collapsed);
	free(w);
}

uint64_t world_read(struct world *w, uint64_t gfn, unsigned index)
{
	uint64_t mfn = __atomic_load_n(&w->gfn_mfn[gfn], __ATOMIC_ACQUIRE);

	return __atomic_load_n(&world_mfn_words(w, mfn)[index], __ATOMIC_SEQ_CST);
}

void world_write(struct world *w, uint64_t gfn, unsigned index, uint64_t value)
{
	uint64_t mfn = __atomic_load_n(&w->gfn_mfn[gfn], __ATOMIC_ACQUIRE);

	__atomic_store_n(&world_mfn_words(w, mfn)[index], value, __ATOMIC_SEQ_CST);
}

/* ---- kicks ---------------------------------------------------------------------------------------------------- */

static void kick_entries(const struct world_cpu *by, struct tlb_entry *e, unsigned n)
{
	const struct world *w = by->world;
	unsigned s;

	for (; n--; e++) {
		for (s = 0; e->valid && s < e->nr_src; s++) {
			uint64_t page = (e->src[s] >> 9) - w->pool;

			if (page >= w->opt.pool_pages)	/* a table of the hole */
				continue;
			if (by->kick_whole[page] || (by->kick_bits[page][(e->src[s] & 511) / 64] >> (e->src[s] & 63) & 1))
				e->valid = false;
		}
	}
}

static void mark(struct world_cpu *cpu, const struct mmu_kick *k)
{
	uint64_t page = k->table.n - cpu->world->pool;

	if (k->whole)
		cpu->kick_whole[page] = 1;
	else
		cpu->kick_bits[page][k->index / 64] |= 1ull << (k->index & 63);
}

static void unmark(struct world_cpu *cpu, const struct mmu_kick *k, unsigned n)
{
	for (; n--; k++) {
		uint64_t page = k->table.n - cpu->world->pool;

		memset(cpu->kick_bits[page], 0, sizeof(cpu->kick_bits[page]));
		cpu->kick_whole[page] = 0;
	}
}

void world_kick(struct world_cpu *cpu)
{
	struct world *w = cpu->world;
	struct mmu_kick batch[64], *all = NULL;
	unsigned n, i, c, nr = 0;

	while ((n = mmu_kick_next(cpu->cpu, batch, 64))) {
		world_check(cpu, n <= 64, "mmu_kick_next gave %u of 64", n);
		all = realloc(all, (nr + n) * sizeof(*all));
		if (!all)
			abort();
		memcpy(all + nr, batch, n * sizeof(*all));
		nr += n;
	}
	world_check(cpu, !mmu_kick_pending(cpu->cpu), "kicks pending after a full drain");
	if (nr && !w->opt.serial)
		sched_yield();		/* others run on before the flush reaches them */
	for (i = 0; i < nr; i++) {
		uint64_t page = all[i].table.n - w->pool;
		uint64_t bit = 1ull << (all[i].index & 63);

		world_check(cpu, w->opt.reach || all[i].cpus == MMU_CPUS_ALL, "a kick for some cpus only, unasked");
		world_check(cpu, page < w->opt.pool_pages, "kick of frame %#llx, not of the pool",
			    (unsigned long long)all[i].table.n);
		world_check(cpu, all[i].whole || all[i].index < 512, "kick of index %u", all[i].index);
		world_check(cpu, !cpu->kick_whole[page] && (all[i].whole || !(cpu->kick_bits[page][all[i].index / 64] & bit)),
			    "duplicate kick of pool page %llu index %u", (unsigned long long)page, all[i].index);
		mark(cpu, &all[i]);
	}
	unmark(cpu, all, nr);
	for (c = 0; nr && c < w->opt.cpus; c++) {
		struct world_cpu *to = &w->cpus[c];

		/* No processor hears of more than mmu/ says it has to. */
		for (i = 0; i < nr; i++)
			if (to == cpu || all[i].cpus >> mmu_cpu_number(to->cpu) & 1)
				mark(cpu, &all[i]);
			else
				__atomic_fetch_add(&w->kicks_spared, 1, __ATOMIC_RELAXED);
		pthread_mutex_lock(&to->lock);
		kick_entries(cpu, to->tlb, WORLD_TLB);
		kick_entries(cpu, to->path, WORLD_PATHS);
		pthread_mutex_unlock(&to->lock);
		unmark(cpu, all, nr);
	}
	free(all);
	mmu_kick_done(cpu->cpu);
}

void world_set_node(struct world_cpu *cpu, unsigned node)
{
	int err = mmu_cpu_set_node(cpu->cpu, cpu->world->opt.nodes);

	world_check(cpu, err == -EINVAL, "mmu_cpu_set_node out of range: %d", err);
	err = mmu_cpu_set_node(cpu->cpu, node);
	world_check(cpu, !err, "mmu_cpu_set_node: %d", err);
	cpu->node = node;
}

static void leave_roots(const struct world_cpu *cpu, struct tlb_entry *e, unsigned n)
{
	for (; n--; e++)
		if (e->cr3 != cpu->cr3[MMU_KERNEL] && e->cr3 != cpu->cr3[MMU_USER])
			e->valid = false;
}

void world_load(struct world_cpu *cpu, enum mmu_mode mode, uint64_t l4)
{
	unsigned tries;
	mfn_t root = { 0 };
	int err;

	for (tries = 0; ; tries++) {
		err = mmu_load(cpu->cpu, mode, (gfn_t){ l4 }, &root);
		if (err != -EAGAIN)
			break;
		world_check(cpu, tries < 20000, "mmu_load(%d, %#llx): -EAGAIN for ever", mode, (unsigned long long)l4);
		world_kick(cpu);
		sched_yield();		/* pages may wait for another thread's kicks */
	}
	world_check(cpu, !err, "mmu_load(%d, %#llx): %d", mode, (unsigned long long)l4, err);
	pthread_mutex_lock(&cpu->lock);
	cpu->l4[mode] = l4;
	cpu->root_node[mode] = cpu->node;
	cpu->cr3[mode] = l4 == MODEL_NONE ? MODEL_NONE : root.n;
	if (cpu->world->opt.reach) {	/* CR3 was loaded; of what the present roots show nothing need be lost by that */
		leave_roots(cpu, cpu->tlb, WORLD_TLB);
		leave_roots(cpu, cpu->path, WORLD_PATHS);
	}
	pthread_mutex_unlock(&cpu->lock);
	mmu_entered(cpu->cpu);
	world_check(cpu, l4 == MODEL_NONE || root.n - cpu->world->pool < cpu->world->opt.pool_pages,
		    "root %#llx is not of the pool", (unsigned long long)root.n);
}

/* ---- the processor --------------------------------------------------------------------------------------------- */

/* A table that the processor walks is of its node: it stands in the node's part of the pool, unless that may have run dry. */
static void check_part(struct world_cpu *cpu, enum mmu_mode mode, uint64_t table)
{
	struct world *w = cpu->world;
	uint32_t count;
	mfn_t first;

	mmu_pool_part(w->mmu, cpu->root_node[mode], &first, &count);
	world_check(cpu, table - first.n < count || count < WORLD_LARGE_POOL, "table %#llx is not of node %u",
		    (unsigned long long)table, cpu->root_node[mode]);
}

static uint64_t read_spte(struct world_cpu *cpu, uint64_t table, unsigned index, unsigned level, bool hole)
{
	struct world *w = cpu->world;
	uint64_t spte, low, high;

	spte = __atomic_load_n(&world_mfn_words(w, table)[index], __ATOMIC_ACQUIRE);
	if (!(spte & MMU_PTE_P) || hole)
		return spte;
	world_check(cpu, spte & MMU_PTE_U, "sPTE %#llx at level %u is present without U", (unsigned long long)spte, level);
	world_check(cpu, !(spte & (0xfull << 59)), "sPTE %#llx: bits 59-62", (unsigned long long)spte);
	world_check(cpu, w->opt.nx || !(spte & MMU_PTE_NX), "sPTE %#llx: NX is reserved here", (unsigned long long)spte);
	world_check(cpu, !(spte & (MMU_PTE_PWT | MMU_PTE_PCD)), "sPTE %#llx: cache bits", (unsigned long long)spte);
	world_check(cpu, level == 1 || !(spte & MMU_PTE_PS) || (level == 2 && w->opt.large && !(spte & 0x1ff000)),
		    "sPTE %#llx at level %u: PS", (unsigned long long)spte, level);
	world_check(cpu, level != 1 || !(spte & (MMU_PTE_PS | MMU_PTE_G)), "sPTE %#llx: PAT or G",
		    (unsigned long long)spte);
	low = (spte & MMU_PTE_ADDR) >> 12;
	high = level == 2 && (spte & MMU_PTE_PS) ? low + 511 : low;
	if (level == 1 || (spte & MMU_PTE_PS))
		world_check(cpu, high < w->holes, "leaf sPTE %#llx names frame %#llx, not guest memory",
			    (unsigned long long)spte, (unsigned long long)low);
	else
		world_check(cpu, low - w->pool < w->opt.pool_pages, "sPTE %#llx links a table outside the pool",
			    (unsigned long long)spte);
	return spte;
}

void world_soft_walk(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va, struct soft_walk *out)
{
	uint64_t table = cpu->cr3[mode];
	unsigned l4 = model_index(va, 4);
	bool hole = l4 >= HOLE_FIRST && l4 <= HOLE_LAST, user = true;
	unsigned level;

	*out = (struct soft_walk){ .w = true, .x = true };
	for (level = 4; ; level--) {
		unsigned index = model_index(va, level);
		uint64_t spte = read_spte(cpu, table, index, level, hole);

		if (!hole)
			check_part(cpu, mode, table);
		if (!(spte & MMU_PTE_P))
			return;
		out->src[out->nr_src++] = table << 9 | index;
		user &= !!(spte & MMU_PTE_U);
		out->path_w = out->w;
		out->path_x = out->x;
		out->w &= !!(spte & MMU_PTE_W);
		out->x &= !(spte & MMU_PTE_NX);
		table = (spte & MMU_PTE_ADDR) >> 12;
		if (level == 1)
			break;
		if (level == 2 && (spte & MMU_PTE_PS)) {
			out->large = true;
			table += model_index(va, 1);
			break;
		}
	}
	out->mfn = table;
	out->present = user;	/* everything runs at ring 3 */
}

bool soft_allows(const struct soft_walk *walk, uint32_t access)
{
	return walk->present && (walk->w || !(access & MMU_PF_W)) && (walk->x || !(access & MMU_PF_FETCH));
}

static unsigned hash_of(uint64_t cr3, uint64_t vpn)
{
	return (cr3 * 0x9e3779b97f4a7c15ull ^ vpn * 0xd6e8feb86659fd93ull) >> 40;
}

static bool entry_matches(struct world_cpu *cpu, const struct tlb_entry *e, enum mmu_mode mode, uint64_t key)
{
	if (!e->valid || e->cr3 != cpu->cr3[mode] || e->vpn != key)
		return false;
	world_check(cpu, e->mode == mode && e->l4 == cpu->l4[mode],
		    "root frame %#llx was recycled, and what processors cached of it never kicked",
		    (unsigned long long)e->cr3);
	return true;
}

/* A path cached above the leaf table: the walk goes on from there, as the processor's own caches do. */
static bool walk_from_path(struct world_cpu *cpu, const struct tlb_entry *path, uint64_t va, struct soft_walk *out)
{
	unsigned index = model_index(va, 1);
	uint64_t spte = read_spte(cpu, path->mfn, index, 1, false);

	if (!(spte & MMU_PTE_P))
		return false;
	*out = (struct soft_walk){ .present = true, .w = path->w && (spte & MMU_PTE_W),
				   .x = path->x && !(spte & MMU_PTE_NX), .mfn = (spte & MMU_PTE_ADDR) >> 12,
				   .nr_src = path->nr_src };
	memcpy(out->src, path->src, sizeof(out->src));
	out->src[out->nr_src++] = path->mfn << 9 | index;
	return true;
}

bool world_try(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va, uint32_t access, uint64_t *mfn, bool *hit)
{
	uint64_t cr3 = cpu->cr3[mode], l4 = cpu->l4[mode];
	struct tlb_entry *e = &cpu->tlb[hash_of(cr3, va >> 12) % WORLD_TLB];
	struct tlb_entry *path = &cpu->path[hash_of(cr3, va >> 21) % WORLD_PATHS];
	unsigned slot = model_index(va, 4);
	bool hole = slot >= HOLE_FIRST && slot <= HOLE_LAST;
	struct soft_walk walk;

	*hit = entry_matches(cpu, e, mode, va >> 12);
	if (*hit) {
		*mfn = e->mfn;
		return (e->w || !(access & MMU_PF_W)) && (e->x || !(access & MMU_PF_FETCH));
	}
	if (!entry_matches(cpu, path, mode, va >> 21) || !walk_from_path(cpu, path, va, &walk)) {
		world_soft_walk(cpu, mode, va, &walk);
		if (!walk.present)
			return false;
		if (!walk.large && !hole) {
			*path = (struct tlb_entry){ .valid = true, .cr3 = cr3, .vpn = va >> 21,
						    .mfn = walk.src[3] >> 9, .w = walk.path_w, .x = walk.path_x,
						    .mode = mode, .l4 = l4, .nr_src = 3 };
			memcpy(path->src, walk.src, sizeof(path->src));
		}
	}
	*e = (struct tlb_entry){ .valid = true, .cr3 = cr3, .vpn = va >> 12, .mfn = walk.mfn, .w = walk.w, .x = walk.x,
				 .mode = mode, .l4 = l4, .nr_src = walk.nr_src };
	memcpy(e->src, walk.src, sizeof(e->src));
	*mfn = walk.mfn;
	return soft_allows(&walk, access);
}

void world_forget(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va)
{
	uint64_t cr3 = cpu->cr3[mode];
	struct tlb_entry *e = &cpu->tlb[hash_of(cr3, va >> 12) % WORLD_TLB];
	struct tlb_entry *path = &cpu->path[hash_of(cr3, va >> 21) % WORLD_PATHS];

	pthread_mutex_lock(&cpu->lock);
	if (e->cr3 == cr3 && e->vpn == va >> 12)
		e->valid = false;
	if (path->cr3 == cr3 && path->vpn == va >> 21)
		path->valid = false;
	pthread_mutex_unlock(&cpu->lock);
}

/* ---- all leaves ------------------------------------------------------------------------------------------------ */

struct leaf_visit {
	struct world_cpu *cpu;
	enum mmu_mode mode;
	unsigned left;
	world_leaf_fn fn;
	void *arg;
};

static uint64_t hole_entry(const struct world_cpu *cpu, enum mmu_mode mode, unsigned slot)
{
	const struct world *w = cpu->world;

	return mode == MMU_KERNEL && slot == WORLD_VIEW_SLOT ? w->view_entry[cpu - w->cpus] : w->config.hole[mode][slot];
}

static void visit_table(struct leaf_visit *v, uint64_t table, unsigned level, uint64_t va,
			const struct soft_walk *above)
{
	unsigned i;

	check_part(v->cpu, v->mode, table);
	for (i = 0; i < 512 && v->left; i++) {
		uint64_t spte, at = va | (uint64_t)i << (12 + 9 * (level - 1));
		struct soft_walk here = *above;

		if (level == 4 && i >= HOLE_FIRST && i <= HOLE_LAST) {
			spte = __atomic_load_n(&world_mfn_words(v->cpu->world, table)[i], __ATOMIC_RELAXED);
			world_check(v->cpu, spte == hole_entry(v->cpu, v->mode, i - HOLE_FIRST),
				    "hole slot %u holds %#llx", i, (unsigned long long)spte);
			continue;
		}
		spte = read_spte(v->cpu, table, i, level, false);
		if (!(spte & MMU_PTE_P))
			continue;
		if (level == 4 && i >= 256)
			at |= 0xffffull << 48;
		here.src[here.nr_src++] = table << 9 | i;
		here.w &= !!(spte & MMU_PTE_W);
		here.x &= !(spte & MMU_PTE_NX);
		if (level > 1 && !(spte & MMU_PTE_PS)) {
			visit_table(v, (spte & MMU_PTE_ADDR) >> 12, level - 1, at, &here);
			continue;
		}
		here.present = true;
		here.large = level > 1;
		here.mfn = (spte & MMU_PTE_ADDR) >> 12;
		v->left--;
		v->fn(v->cpu, v->mode, at, &here, v->arg);
	}
}

void world_for_each_leaf(struct world_cpu *cpu, enum mmu_mode mode, unsigned max, world_leaf_fn fn, void *arg)
{
	struct leaf_visit visit = { cpu, mode, max, fn, arg };
	struct soft_walk above = { .w = true, .x = true };

	if (cpu->cr3[mode] != MODEL_NONE)
		visit_table(&visit, cpu->cr3[mode], 4, 0, &above);
}
