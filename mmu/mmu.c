/*
 * mmu.c - life of an MMU and of its cpus; spaces and pins. Start reading with docs/mmu.md.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/internal.h"

#define MAX_POOL_PAGES	((UINT32_MAX - 1) / MMU_ENTRIES)	/* an sPTE's id + 1 has 32 bits */
#define MAX_GFNS	(UINT32_MAX - 1ull)			/* a gfn + 1 too */

/* ---- set-up ---------------------------------------------------------------------------------------------------- */

/* Zeroed memory that costs nothing until it is touched. */
static void *map_array(struct mmu *mmu, uint64_t count, size_t size)
{
	uint64_t bytes = (count * size + MMU_PAGE_SIZE - 1) & ~(MMU_PAGE_SIZE - 1);
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	__atomic_add_fetch(&mmu->mapped_bytes, bytes, __ATOMIC_RELAXED);
	return p;
}

static void unmap_array(struct mmu *mmu, void *p, uint64_t count, size_t size)
{
	uint64_t bytes = (count * size + MMU_PAGE_SIZE - 1) & ~(MMU_PAGE_SIZE - 1);

	if (!p)
		return;
	munmap(p, bytes);
	__atomic_sub_fetch(&mmu->mapped_bytes, bytes, __ATOMIC_RELAXED);
}

static bool regions_valid(const struct mmu_config *c)
{
	unsigned i, j;

	for (i = 0; i < c->nr_regions; i++) {
		const struct mmu_region *r = &c->regions[i];

		if (!r->hva || ((uintptr_t)r->hva & (MMU_PAGE_SIZE - 1)) || !r->count ||
		    r->first.n + r->count < r->first.n || r->first.n + r->count > 1ull << 40)
			return false;
		for (j = 0; j < i; j++)
			if (r->first.n < c->regions[j].first.n + c->regions[j].count &&
			    c->regions[j].first.n < r->first.n + r->count)
				return false;
	}
	return true;
}

/* How many frames from `first` on one region has; 0: in none. */
static uint64_t region_run(const struct mmu_config *c, uint64_t first)
{
	unsigned i;

	for (i = 0; i < c->nr_regions; i++)
		if (first - c->regions[i].first.n < c->regions[i].count)
			return c->regions[i].first.n + c->regions[i].count - first;
	return 0;
}

static bool config_valid(const struct mmu_config *c)
{
	uint64_t at, run;

	if (!c->regions || !c->nr_regions || !regions_valid(c))
		return false;
	if (!c->nr_gfns || c->nr_gfns > MAX_GFNS)
		return false;
	for (at = 0; at < c->nr_gfns; at += run)
		if (!(run = region_run(c, at)))
			return false;
	if (c->nr_nodes > MMU_MAX_NODES || c->pool_pages / (c->nr_nodes ? c->nr_nodes : 1) < MMU_POOL_MIN ||
	    c->pool_pages > MAX_POOL_PAGES || c->pool.n < c->nr_gfns || region_run(c, c->pool.n) < c->pool_pages)
		return false;
	if (c->nr_views > MMU_MAX_VIEWS || c->view_slot >= HOLE_SLOTS || !c->nr_views != !c->view_entry)
		return false;
	if ((unsigned)c->fill > MMU_FILL_EAGER || (unsigned)c->prefetch > MMU_PREFETCH_AROUND)
		return false;
	return c->prefetch != MMU_PREFETCH_AROUND || (c->prefetch_n && c->prefetch_n < MMU_ENTRIES);
}

static void init_locks(struct mmu *mmu)
{
	for (unsigned i = 0; i < FRAME_LOCKS; i++)
		mmu->frame_locks[i].kind = LOCK_frame;
	for (unsigned i = 0; i < BUCKETS; i++)
		mmu->buckets[i].kind = LOCK_bucket;
	for (uint32_t page = 0; page < mmu->cfg.pool_pages; page++) {
		mmu->pages[page].lock.kind = LOCK_page;
		mmu->pages[page].parents_lock.kind = LOCK_parents;
	}
	mmu->flush_lock.kind = LOCK_flush;
	mmu->listed_lock.kind = LOCK_listed;
	mmu->cpus_lock.kind = LOCK_cpus;
	for (unsigned i = 0; i < mmu->cfg.nr_nodes; i++)
		mmu->parts[i].lock.kind = LOCK_pool;
}

static void init_frames(struct mmu *mmu)
{
	uint64_t gfn;

	for (gfn = 0; gfn < mmu->nr_gfns; gfn++) {
		mmu->pmap[gfn] = gfn;
		mmu->m2g[gfn] = gfn;
		if (!(gfn % REGION_FRAMES))
			mmu->regions2m[gfn >> 9].whole = gfn + REGION_FRAMES <= mmu->nr_gfns;
	}
}

static void free_all(struct mmu *mmu)
{
	uint64_t sptes = (uint64_t)mmu->cfg.pool_pages * MMU_ENTRIES;

	unmap_array(mmu, mmu->touched2m, (mmu->nr_gfns >> 9) + 1, 1);
	unmap_array(mmu, mmu->touched, mmu->nr_gfns, 1);
	unmap_array(mmu, mmu->dirty, (mmu->nr_gfns + 63) / 64, sizeof(*mmu->dirty));
	unmap_array(mmu, mmu->m2g, mmu->max_mfn, sizeof(*mmu->m2g));
	unmap_array(mmu, mmu->copies, mmu->nr_gfns * mmu->cfg.nr_nodes, sizeof(*mmu->copies));
	unmap_array(mmu, mmu->pmap, mmu->nr_gfns, sizeof(*mmu->pmap));
	unmap_array(mmu, mmu->regions2m, (mmu->nr_gfns >> 9) + 1, sizeof(*mmu->regions2m));
	unmap_array(mmu, mmu->frames, mmu->nr_gfns, sizeof(*mmu->frames));
	unmap_array(mmu, mmu->links, sptes, sizeof(*mmu->links));
	unmap_array(mmu, mmu->pages, mmu->cfg.pool_pages, sizeof(*mmu->pages));
	free(mmu->regions);
	free(mmu);
}

int mmu_create(const struct mmu_config *config, struct mmu **out)
{
	struct mmu *mmu;
	uint64_t sptes, end;
	unsigned i;

	if (!config_valid(config))
		return -EINVAL;
	mmu = calloc(1, sizeof(*mmu));
	if (!mmu)
		return -ENOMEM;
	mmu->cfg = *config;
	mmu->cfg.nr_nodes = config->nr_nodes ? config->nr_nodes : 1;
	mmu->nr_gfns = config->nr_gfns;
	mmu->nr_regions = config->nr_regions;
	for (i = 0; i < config->nr_regions; i++) {
		end = config->regions[i].first.n + config->regions[i].count;
		mmu->max_mfn = end > mmu->max_mfn ? end : mmu->max_mfn;
	}
	mmu->regions = calloc(config->nr_regions, sizeof(*mmu->regions));
	if (!mmu->regions)
		goto no_memory;
	memcpy(mmu->regions, config->regions, config->nr_regions * sizeof(*mmu->regions));
	mmu->cfg.regions = mmu->regions;
	for (i = 0; i < config->nr_views; i++)
		mmu->view_entry[i] = config->view_entry[i];
	mmu->cfg.view_entry = mmu->view_entry;

	sptes = (uint64_t)config->pool_pages * MMU_ENTRIES;
	mmu->pages = map_array(mmu, config->pool_pages, sizeof(*mmu->pages));
	mmu->links = map_array(mmu, sptes, sizeof(*mmu->links));
	mmu->frames = map_array(mmu, mmu->nr_gfns, sizeof(*mmu->frames));
	mmu->regions2m = map_array(mmu, (mmu->nr_gfns >> 9) + 1, sizeof(*mmu->regions2m));
	mmu->pmap = map_array(mmu, mmu->nr_gfns, sizeof(*mmu->pmap));
	if (mmu->cfg.nr_nodes > 1)
		mmu->copies = map_array(mmu, mmu->nr_gfns * mmu->cfg.nr_nodes, sizeof(*mmu->copies));
	mmu->m2g = map_array(mmu, mmu->max_mfn, sizeof(*mmu->m2g));
	mmu->dirty = map_array(mmu, (mmu->nr_gfns + 63) / 64, sizeof(*mmu->dirty));
	mmu->touched = map_array(mmu, mmu->nr_gfns, 1);
	mmu->touched2m = map_array(mmu, (mmu->nr_gfns >> 9) + 1, 1);
	if (!mmu->pages || !mmu->links || !mmu->frames || !mmu->regions2m || !mmu->pmap || !mmu->m2g || !mmu->dirty ||
	    !mmu->touched || !mmu->touched2m || (mmu->cfg.nr_nodes > 1 && !mmu->copies))
		goto no_memory;

	mmu->pool = mmu_mfn_hva(mmu, config->pool);
	mmu->clock = 1;
	init_locks(mmu);
	init_frames(mmu);
	pool_init(mmu);
	*out = mmu;
	return 0;

no_memory:
	free_all(mmu);
	return -ENOMEM;
}

void mmu_destroy(struct mmu *mmu)
{
	if (mmu)
		free_all(mmu);
}

/* ---- cpus ------------------------------------------------------------------------------------------------------ */

static void cpu_free(struct mmu_cpu *cpu)
{
	struct mmu *mmu = cpu->mmu;
	unsigned i;

	for (i = 0; i < KICK_LISTS; i++)
		unmap_array(mmu, cpu->kick_list[i], mmu->cfg.pool_pages, sizeof(*cpu->kick_list[i]));
	unmap_array(mmu, cpu->kick_bits, mmu->cfg.pool_pages, sizeof(*cpu->kick_bits));
	unmap_array(mmu, cpu->kick_given, mmu->cfg.pool_pages, sizeof(*cpu->kick_given));
	unmap_array(mmu, cpu->kick_flags, mmu->cfg.pool_pages, 1);
	unmap_array(mmu, cpu->orphans, mmu->cfg.pool_pages, sizeof(*cpu->orphans));
	free(cpu);
}

int mmu_cpu_create(struct mmu *mmu, struct mmu_cpu **out)
{
	struct mmu_cpu *cpu = calloc(1, sizeof(*cpu));
	unsigned i;
	bool ok;

	if (!cpu)
		return -ENOMEM;
	cpu->mmu = mmu;
	cpu->kick_lock.kind = LOCK_kick;
	cpu->root_l4[0] = cpu->root_l4[1] = MMU_NO_GFN.n;
	cpu->keep_gfn = MMU_NO_GFN.n;
	cpu->oldest = cpu->oldest_collect = cpu->oldest_drained = CLOCK_NEVER;
	cpu->kick_bits = map_array(mmu, mmu->cfg.pool_pages, sizeof(*cpu->kick_bits));
	cpu->kick_given = map_array(mmu, mmu->cfg.pool_pages, sizeof(*cpu->kick_given));
	cpu->kick_flags = map_array(mmu, mmu->cfg.pool_pages, 1);
	cpu->orphans = map_array(mmu, mmu->cfg.pool_pages, sizeof(*cpu->orphans));
	ok = cpu->kick_bits && cpu->kick_given && cpu->kick_flags && cpu->orphans;
	for (i = 0; i < KICK_LISTS; i++) {
		cpu->kick_list[i] = map_array(mmu, mmu->cfg.pool_pages, sizeof(*cpu->kick_list[i]));
		ok = ok && cpu->kick_list[i];
	}
	if (!ok) {
		cpu_free(cpu);
		return -ENOMEM;
	}
	spin_lock(&mmu->cpus_lock);
	cpu->number = __builtin_ctzll(~mmu->cpu_numbers);
	ok = cpu->number < MMU_MAX_CPUS;
	if (ok) {
		mmu->cpu_numbers |= 1ull << cpu->number;
		cpu->next = mmu->cpus;
		mmu->cpus = cpu;
	}
	spin_unlock(&mmu->cpus_lock);
	if (!ok) {
		cpu_free(cpu);
		return -EUSERS;
	}
	*out = cpu;
	return 0;
}

unsigned mmu_cpu_number(const struct mmu_cpu *cpu)
{
	return cpu->number;
}

int mmu_cpu_set_view(struct mmu_cpu *cpu, unsigned view)
{
	if (view && view >= cpu->mmu->cfg.nr_views)
		return -EINVAL;
	cpu->view = view;
	return 0;
}

int mmu_cpu_set_node(struct mmu_cpu *cpu, unsigned node)
{
	if (node >= cpu->mmu->cfg.nr_nodes)
		return -EINVAL;
	cpu->node = node;
	return 0;
}

/* A root that was loaded after another had been left since the last entry was never in CR3. */
static void release_root(struct mmu_cpu *cpu, enum mmu_mode mode)
{
	if (cpu->root[mode] && !cpu->left[mode])
		cpu->left[mode] = cpu->root[mode];
	else if (cpu->root[mode])
		shadow_unref(cpu, cpu->root[mode] - 1);
	cpu->root[mode] = 0;
	cpu->root_l4[mode] = MMU_NO_GFN.n;
}

void mmu_entered(struct mmu_cpu *cpu)
{
	for (unsigned mode = 0; mode < 2; mode++) {
		if (!cpu->left[mode])
			continue;
		reach_left(cpu, cpu->left[mode] - 1);
		shadow_unref(cpu, cpu->left[mode] - 1);
		cpu->left[mode] = 0;
	}
}

void mmu_cpu_destroy(struct mmu_cpu *cpu)
{
	struct mmu_stats stats;
	struct mmu *mmu;
	struct mmu_cpu **at;

	if (!cpu)
		return;
	mmu = cpu->mmu;
	release_root(cpu, MMU_KERNEL);
	release_root(cpu, MMU_USER);
	mmu_entered(cpu);
	kick_abandon(cpu);
	mmu_cpu_stats(cpu, &stats);
	spin_lock(&mmu->cpus_lock);
	for (at = &mmu->cpus; *at != cpu; at = &(*at)->next)
		;
	*at = cpu->next;
	mmu->cpu_numbers &= ~(1ull << cpu->number);
#define X(name, what) mmu->gone.name += stats.name;
	MMU_COUNTERS(X)
#undef X
	sample_cpu_gone(cpu);
	spin_unlock(&mmu->cpus_lock);
	cpu_free(cpu);
}

/* ---- spaces and pins ------------------------------------------------------------------------------------------- */

int mmu_load(struct mmu_cpu *cpu, enum mmu_mode mode, gfn_t l4, mfn_t *root)
{
	struct shadow_key key = { .gfn = l4.n, .level = MMU_LEVELS, .role = mode == MMU_USER ? ROLE_STRICT : 0,
				  .view = mode == MMU_USER ? 0 : cpu->view, .node = cpu->node };
	uint32_t page, gen;
	bool fresh;
	int err;

	if (l4.n == MMU_NO_GFN.n) {
		release_root(cpu, mode);
		return 0;
	}
	if (l4.n >= cpu->mmu->nr_gfns)
		return -EINVAL;
	err = shadow_get(cpu, &key, true, &page, &gen, &fresh);
	if (err)
		return err;
	release_root(cpu, mode);
	cpu->root[mode] = page + 1;
	cpu->root_l4[mode] = l4.n;
	reach_load(cpu, page);
	STAT(cpu, loads);
	sync_all(cpu);
	if (fresh && cpu->mmu->cfg.link_ahead)
		link_root(cpu, page);
	kick_adopt(cpu);
	*root = (mfn_t){ cpu->mmu->cfg.pool.n + page };
	return 0;
}

int mmu_pin(struct mmu_cpu *cpu, gfn_t table, unsigned level)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;

	if (table.n >= mmu->nr_gfns || level < 1 || level > MMU_LEVELS)
		return -EINVAL;
	lock = frame_lock_of(mmu, table.n);
	spin_lock(lock);
	/* A frame on the move may be pinned: nothing maps it, and it gets no shadow before it has arrived. */
	mmu->frames[table.n].pin = level;
	frame_refresh(cpu, table.n);
	spin_unlock(lock);
	kick_adopt(cpu);
	return 0;
}

int mmu_unpin(struct mmu_cpu *cpu, gfn_t table)
{
	struct mmu *mmu = cpu->mmu;
	struct spin *lock;
	int err = -EINVAL;

	if (table.n >= mmu->nr_gfns)
		return -EINVAL;
	lock = frame_lock_of(mmu, table.n);
	spin_lock(lock);
	if (mmu->frames[table.n].pin) {
		mmu->frames[table.n].pin = 0;
		for_each_shadow(mmu, table.n, page)
			if (!(page_key(&mmu->pages[page]).role & ROLE_DIRECT))
				shadow_zap(cpu, page, true);
		frame_refresh(cpu, table.n);
		err = 0;
	}
	spin_unlock(lock);
	shadow_zap_orphans(cpu);
	kick_adopt(cpu);
	return err;
}
