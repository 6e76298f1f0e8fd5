#include "mmu_program_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what holds once kicks are done ------------------------------------------------------------------------------ */

static unsigned cpu_bit(const struct program *p, const struct world_cpu *cpu)
{
	unsigned i;

	for (i = 0; p->cpus[i] != cpu; i++)
		;
	return 1u << i;
}

void when_done(struct program *p, struct when w)
{
	unsigned i;

	/* A flush is not over while another cpu still owes the kick of an entry that this one found removed. */
	w.cpus = cpu_bit(p, p->cpu);
	for (i = 0; i < p->nr_cpus; i++)
		if (mmu_kick_pending(p->cpus[i]->cpu))
			w.cpus |= 1u << i;
	w.at = p->m->now;
	world_check(p->cpu, p->nr_when < 64, "too many promises");
	p->when[p->nr_when++] = w;
}

static void keep_promises(struct program *p, unsigned cpus)
{
	unsigned i, kept = 0;
	int mode;

	for (i = 0; i < p->nr_when; i++) {
		struct when *w = &p->when[i];

		w->cpus &= ~cpus;
		if (w->cpus) {
			p->when[kept++] = *w;
			continue;
		}
		switch (w->kind) {
		case WHEN_FLUSH:
			model_flush_all(p->m, w->at);
			break;
		case WHEN_ENTRY:
			model_flush_entry(p->m, w->gfn, w->index, w->at);
			break;
		case WHEN_VA:
			for (mode = 0; mode < 2; mode++)
				if (w->l4[mode] != MODEL_NONE)
					model_flush_va(p->m, w->l4[mode], mode, w->va, w->at);
			break;
		case WHEN_PIN:
			if (p->m->pin[w->gfn])
				p->m->pin_seen[w->gfn] = 1;
			break;
		case WHEN_WATCH:
			if (p->m->watched[w->gfn] == WATCH_ON)
				p->m->watched[w->gfn] = WATCH_SEEN;
			break;
		}
	}
	p->nr_when = kept;
}

void kick(struct program *p, struct world_cpu *cpu)
{
	world_kick(cpu);
	keep_promises(p, cpu_bit(p, cpu));
}

void kick_all(struct program *p)
{
	unsigned i;

	for (i = 0; i < p->nr_cpus; i++)
		kick(p, p->cpus[i]);
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

int64_t frame_of(struct program *p, uint64_t mfn)
{
	if (mfn >= p->w->holes)
		return -1;
	return __atomic_load_n(&p->w->mfn_gfn[mfn], __ATOMIC_ACQUIRE);
}

static void fail_translation(struct program *p, enum mmu_mode mode, uint64_t l4, uint64_t va, uint32_t access,
			     uint64_t mfn, const char *who)
{
	mmu_dump_walk(p->cpu->cpu, mode, (gva_t){ va }, stderr);
	world_fail(p->cpu, "step %llu: %s maps va %#llx (mode %d, l4 %#llx, access %#x) to frame %#llx (gfn %lld): "
		   "nothing the guest's tables held since the last flush", (unsigned long long)p->step, who,
		   (unsigned long long)va, mode, (unsigned long long)l4, access, (unsigned long long)mfn,
		   (long long)frame_of(p, mfn));
}

void check_translation(struct program *p, enum mmu_mode mode, uint64_t l4, uint64_t va, uint32_t access,
			      uint64_t mfn, const char *who)
{
	int64_t gfn = frame_of(p, mfn);

	if (gfn < 0 || !model_lawful(p->m, l4, mode, va, access, gfn))
		fail_translation(p, mode, l4, va, access, mfn, who);
}

static void check_leaf(struct world_cpu *cpu, enum mmu_mode mode, uint64_t va, const struct soft_walk *leaf, void *arg)
{
	static const unsigned large_probes[] = { 0, 1, 63, 511 };
	struct program *p = arg;
	uint64_t l4 = cpu->l4[mode];
	unsigned i;

	for (i = 0; i < (leaf->large ? 4u : 1u); i++) {
		uint64_t off = leaf->large ? large_probes[i] : 0;

		check_translation(p, mode, l4, va + (off << 12), 0, leaf->mfn + off, "the shadow");
		if (leaf->w)
			check_translation(p, mode, l4, va + (off << 12), MMU_PF_W, leaf->mfn + off, "the shadow");
		if (leaf->x && p->w->opt.nx)
			check_translation(p, mode, l4, va + (off << 12), MMU_PF_FETCH, leaf->mfn + off, "the shadow");
	}
}

static void check_tlb(struct program *p, struct world_cpu *cpu)
{
	unsigned i;

	for (i = 0; i < WORLD_TLB; i++) {
		const struct tlb_entry *e = &cpu->tlb[i];

		if (!e->valid || e->mfn >= p->w->holes)
			continue;
		check_translation(p, e->mode, e->l4, e->vpn << 12, 0, e->mfn, "the TLB");
		if (e->w)
			check_translation(p, e->mode, e->l4, e->vpn << 12, MMU_PF_W, e->mfn, "the TLB");
	}
}

bool same_word(const struct program *p, uint64_t is, uint64_t was)
{
	return is == was || (p->opt.strangers && is == (was | MMU_PTE_A));
}

static void check_tables(struct program *p)
{
	uint64_t gfn;
	unsigned i;

	for (gfn = p->opt.base + PROG_L4; gfn < p->opt.base + PROG_DATA; gfn++) {
		for (i = 0; i < 512; i++) {
			uint64_t is = world_read(p->w, gfn, i), want = model_load(p->m, gfn, i);

			world_check(p->cpu, same_word(p, is, want), "step %llu: gfn %#llx entry %u is %#llx, should be %#llx",
				    (unsigned long long)p->step, (unsigned long long)gfn, i, (unsigned long long)is,
				    (unsigned long long)want);
		}
	}
}

void check_all(struct program *p)
{
	unsigned i;

	for (i = 0; i < p->nr_cpus; i++) {
		struct world_cpu *cpu = p->cpus[i];

		pthread_mutex_lock(&cpu->lock);
		world_for_each_leaf(cpu, MMU_KERNEL, 4000, check_leaf, p);
		world_for_each_leaf(cpu, MMU_USER, 4000, check_leaf, p);
		check_tlb(p, cpu);
		pthread_mutex_unlock(&cpu->lock);
	}
	if (p->moving == MODEL_NONE)
		check_tables(p);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

struct program *program_create(struct world *w, struct world_cpu **cpus, unsigned nr_cpus,
			       const struct program_options *opt)
{
	struct program *p = calloc(1, sizeof(*p));
	unsigned i;

	if (!p)
		abort();
	p->w = w;
	memcpy(p->cpus, cpus, nr_cpus * sizeof(*cpus));
	p->nr_cpus = nr_cpus;
	p->cpu = cpus[0];
	p->opt = *opt;
	p->rng = opt->seed;
	p->m = model_create(w->opt.nr_gfns, w->opt.nx);
	p->m->any_table = opt->strangers;
	p->ever_dirty = calloc(w->opt.nr_gfns, 1);
	p->moving = MODEL_NONE;
	for (i = 0; i < WORLD_SPARE; i++)
		p->spare[i] = w->spare + i;
	p->nr_spare = WORLD_SPARE;
	if (opt->empty)
		return p;
	set_up_tables(p);
	memset(p->m->dirty, 0, w->opt.nr_gfns);
	for (i = 0; i < nr_cpus; i++) {
		p->cpu = cpus[i];
		load_root(p, MMU_KERNEL, some_table(p, 4));
		load_root(p, MMU_USER, some_table(p, 4));
		kick(p, p->cpu);
	}
	return p;
}

void program_run(struct program *p, uint64_t n)
{
	while (n--) {
		p->step++;
		one_step(p);
	}
}

void program_finish(struct program *p, bool audit)
{
	struct mmu_usage usage;
	struct mmu_stats stats;
	uint64_t gfn, i;
	unsigned c;

	if (p->moving != MODEL_NONE)
		remap_finish(p);
	release_replicas(p);
	mmu_flush(p->cpu->cpu);
	when_done(p, (struct when){ .kind = WHEN_FLUSH });
	kick_all(p);
	check_all(p);
	for (i = p->opt.base * 512; i < (p->opt.base + PROG_RANGE) * 512; i++)
		world_check(p->cpu, same_word(p, world_read(p->w, i / 512, i % 512), p->m->mem[i]),
			    "gfn %#llx does not hold what was written to it", (unsigned long long)i / 512);
	for (c = 0; c < p->nr_cpus; c++) {
		const struct mmu_stats *seen = &p->cpus[c]->seen;

		mmu_cpu_stats(p->cpus[c]->cpu, &stats);
#define SAME(name) world_check(p->cpus[c], stats.name == seen->name, "counter " #name " is %llu, %llu were seen", \
			       (unsigned long long)stats.name, (unsigned long long)seen->name)
		SAME(hidden);
		SAME(spurious);
		SAME(true_faults);
		SAME(pt_write);
		SAME(again);
		SAME(bad);
#undef SAME
	}
	mmu_usage(p->w->mmu, &usage);
	world_check(p->cpu, usage.pool_pages == p->w->opt.pool_pages && usage.pool_used <= usage.pool_pages &&
		    usage.pool_used <= usage.pool_peak && usage.pool_peak <= usage.pool_pages,
		    "usage: %u of %u, peak %u", usage.pool_used, usage.pool_pages, usage.pool_peak);
	for (i = 1, gfn = 0; i <= MMU_LEVELS; i++)
		gfn += usage.by_level[i];
	world_check(p->cpu, gfn <= usage.pool_used, "usage: %llu tables in %u pages", (unsigned long long)gfn,
		    usage.pool_used);
	if (audit)
		world_check(p->cpu, mmu_audit(p->cpu->cpu) == 0, "the audit complains");
	world_check(p->cpu, !p->w->nr_audit_failed, "%d audit complaints", p->w->nr_audit_failed);
}

void program_destroy(struct program *p)
{
	model_destroy(p->m);
	free(p->ever_dirty);
	free(p);
}

const uint8_t *program_ever_dirty(const struct program *p)
{
	return p->ever_dirty;
}
