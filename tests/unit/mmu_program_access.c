#include "mmu_program_internal.h"

#include <sched.h>

#define TRIES		64u	/* attempts an access may need before it counts as a livelock */
#define RACE_TRIES	200000u	/* the same while others move frames and take pages */

bool on_path(const struct model_walk *walk, uint64_t gfn)
{
	unsigned i;

	for (i = 0; i < walk->depth; i++)
		if (walk->path[i].gfn == gfn)
			return true;
	return walk->leaf && walk->gfn == gfn;
}

/* The bits a processor sets in step i of the walk. */
static uint64_t ad_bits(const struct model_walk *walk, unsigned i, uint32_t access, bool through)
{
	bool last = i == walk->depth - 1;

	if (last && !(walk->leaf && (walk->verdict == MODEL_OK || through)))
		return 0;
	return last && (access & MMU_PF_W) && walk->w ? MMU_PTE_A | MMU_PTE_D : MMU_PTE_A;
}

/* A and D: set where a processor sets them, and nowhere else. */
static void check_ad(struct program *p, const struct model_walk *walk, uint32_t access, enum mmu_verdict verdict,
		     const struct model_expect *expect)
{
	bool granted = verdict <= MMU_PTWRITE;
	bool through = expect->verdicts & MODEL_GRANTS;	/* also if it was put off, or a race was lost on the way */
	unsigned i, k;

	for (i = 0; i < walk->depth; i++) {
		const struct model_step *s = &walk->path[i];
		uint64_t is = world_read(p->w, s->gfn, s->index), was = model_load(p->m, s->gfn, s->index), may = 0;

		for (k = 0; k < walk->depth; k++)	/* a table may be met twice, at two levels */
			if (walk->path[k].gfn == s->gfn && walk->path[k].index == s->index)
				may |= ad_bits(walk, k, access, through);
		if (p->opt.strangers && (is & MMU_PTE_A))
			was |= MMU_PTE_A;
		world_check(p->cpu, !((is ^ was) & ~may), "step %llu: a fault changed gfn %#llx entry %u (level %u) from "
			    "%#llx to %#llx (verdict %d)", (unsigned long long)p->step, (unsigned long long)s->gfn,
			    s->index, s->level, (unsigned long long)was, (unsigned long long)is, verdict);
		world_check(p->cpu, !granted || (is & may) == may, "step %llu: gfn %#llx entry %u (level %u) is %#llx "
			    "after a granted access %#x", (unsigned long long)p->step, (unsigned long long)s->gfn,
			    s->index, s->level, (unsigned long long)is, access);
		if (is != model_load(p->m, s->gfn, s->index))
			model_set_bits(p->m, s->gfn, s->index, is);
	}
}

static void count_verdict(struct world_cpu *cpu, enum mmu_verdict verdict)
{
	switch (verdict) {
	case MMU_HIDDEN:   cpu->seen.hidden++; break;
	case MMU_SPURIOUS: cpu->seen.spurious++; break;
	case MMU_PTWRITE:  cpu->seen.pt_write++; break;
	case MMU_TRUE:     cpu->seen.true_faults++; break;
	case MMU_AGAIN:    cpu->seen.again++; break;
	case MMU_BAD:      cpu->seen.bad++; break;
	}
}

static bool root_in_use(const struct program *p, uint64_t gfn)
{
	unsigned i;

	for (i = 0; i < p->nr_cpus; i++)
		if (p->cpus[i]->l4[0] == gfn || p->cpus[i]->l4[1] == gfn)
			return true;
	return false;
}

/* Who used which frame, and whether it was watched. `grant`: the access is allowed. */
static void check_use(struct program *p, const struct model_walk *walk, uint32_t access, const struct mmu_result *r,
		      bool grant)
{
	bool reported = r->verdict == MMU_HIDDEN || r->verdict == MMU_SPURIOUS, sure;
	uint8_t *watched;

	world_check(p->cpu, r->write == !!(access & MMU_PF_W) && (reported ? r->gfn.n == walk->gfn : r->gfn.n == MMU_NO_GFN.n),
		    "step %llu: access %#x to gfn %#llx is reported as write %d of gfn %#llx", (unsigned long long)p->step,
		    access, (unsigned long long)walk->gfn, r->write, (unsigned long long)r->gfn.n);
	if (!walk->in_range)
		return;
	watched = &p->m->watched[walk->gfn];
	sure = p->opt.alone && reported && *watched >= WATCH_ON && !p->m->pin[walk->gfn] && !p->m->ever[walk->gfn];
	world_check(p->cpu, !r->watched || *watched || !p->opt.alone, "step %llu: gfn %#llx is not watched",
		    (unsigned long long)p->step, (unsigned long long)walk->gfn);
	world_check(p->cpu, !sure || r->watched, "step %llu: a fault on gfn %#llx, which is watched, and nobody says so",
		    (unsigned long long)p->step, (unsigned long long)walk->gfn);
	if (grant && (access & MMU_PF_W) && *watched)	/* one that was put off may have ended the watch all the same */
		*watched = r->verdict <= MMU_PTWRITE ? WATCH_OFF : WATCH_MAYBE;
}

/* Takes the fault and compares the answer. *starve: this access need not get through. */
struct mmu_result take_fault(struct program *p, enum mmu_mode mode, uint64_t va, uint32_t access, bool *starve)
{
	struct world_cpu *cpu = p->cpu;
	uint64_t l4 = cpu->l4[mode];
	struct model_expect expect;
	struct soft_walk before, after;
	struct model_walk walk;
	struct mmu_result r;
	unsigned i, slot = model_index(va, 4);

	model_walk(p->m, l4, mode, va, access, &walk);
	model_expect(p->m, &walk, mode, access, walk.leaf && root_in_use(p, walk.gfn), &expect);
	*starve = expect.may_starve;
	if (slot >= 256 && slot <= 271) {	/* ours, whatever the guest wrote there */
		r = mmu_fault(cpu->cpu, mode, (gva_t){ va }, access);
		count_verdict(cpu, r.verdict);
		world_check(cpu, r.verdict == MMU_TRUE, "fault in the hole: verdict %d", r.verdict);
		return r;
	}
	if (p->opt.alone)
		world_soft_walk(cpu, mode, va, &before);
	r = mmu_fault(cpu->cpu, mode, (gva_t){ va }, access);
	count_verdict(cpu, r.verdict);
	world_trace(cpu, "fault mode %d va %#llx access %#x: verdict %d ec %#x", mode, (unsigned long long)va, access,
		    r.verdict, r.error_code);
	for (i = 0; i < walk.depth; i++)
		p->m->ever[walk.path[i].gfn] |= 1u << walk.path[i].level;
	check_ad(p, &walk, access, r.verdict, &expect);
	if ((access & MMU_PF_W) && walk.in_range && (expect.verdicts & MODEL_GRANTS))
		p->m->may_dirty[walk.gfn] = 1;
	check_use(p, &walk, access, &r, expect.verdicts & MODEL_GRANTS);
	if (r.verdict == MMU_AGAIN) {
		world_check(cpu, !p->opt.alone || p->w->opt.pool_pages / p->w->opt.nodes < WORLD_LARGE_POOL ||
			    (p->moving != MODEL_NONE && on_path(&walk, p->moving)) ||
			    ((access & MMU_PF_W) && is_replicated(p, walk.gfn)),
			    "step %llu: MMU_AGAIN with a large pool and no frame of the walk moving",
			    (unsigned long long)p->step);
		return r;
	}
	world_check(cpu, expect.verdicts & MODEL_MAY(r.verdict), "step %llu: fault mode %d va %#llx access %#x, l4 %#llx: "
		    "verdict %d error code %#x, the model allows %#x error code %#x (leaf gfn %#llx)",
		    (unsigned long long)p->step, mode, (unsigned long long)va, access, (unsigned long long)l4, r.verdict,
		    r.error_code, expect.verdicts, expect.error_code, (unsigned long long)walk.gfn);
	if (r.verdict == MMU_TRUE || r.verdict == MMU_BAD) {
		world_check(cpu, r.error_code == expect.error_code, "step %llu: fault mode %d va %#llx access %#x: error "
			    "code %#x, should be %#x", (unsigned long long)p->step, mode, (unsigned long long)va, access,
			    r.error_code, expect.error_code);
		return r;
	}
	if ((access & MMU_PF_W) && !walk.w)
		model_let_through(p->m, walk.gfn);
	if (!p->opt.alone)
		return r;
	world_soft_walk(cpu, mode, va, &after);
	world_check(cpu, soft_allows(&after, access) || expect.may_starve, "step %llu: verdict %d for mode %d va %#llx "
		    "access %#x, and the shadow does not allow it", (unsigned long long)p->step, r.verdict, mode,
		    (unsigned long long)va, access);
	world_check(cpu, soft_allows(&before, access) == (r.verdict == MMU_SPURIOUS) || r.verdict == MMU_PTWRITE,
		    "step %llu: verdict %d for mode %d va %#llx access %#x, but the shadow %s it before",
		    (unsigned long long)p->step, r.verdict, mode, (unsigned long long)va, access,
		    soft_allows(&before, access) ? "allowed" : "did not allow");
	return r;
}

static void access_granted(struct program *p, enum mmu_mode mode, uint64_t va, uint32_t access, uint64_t mfn)
{
	uint64_t *word = &world_mfn_words(p->w, mfn)[va >> 3 & 511];
	unsigned index = va >> 3 & 511;
	int64_t gfn = frame_of(p, mfn);
	uint64_t value;

	check_translation(p, mode, p->cpu->l4[mode], va, access, mfn, "an access");
	if (percent(p, 25))
		p->hot[p->nr_hot++ % 16] = va;
	if (access & MMU_PF_W) {
		world_check(p->cpu, p->m->watched[gfn] != WATCH_SEEN || p->m->pin[gfn] || p->m->ever[gfn] || !p->opt.alone,
			    "step %llu: a write to gfn %#llx, which is watched, without a fault", (unsigned long long)p->step,
			    (unsigned long long)gfn);
		value = some_word(p, gfn);
		if (is_linear(p, gfn, index))
			return;
		__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
		model_store(p->m, gfn, index, value);
		p->ever_dirty[gfn] = 1;
		world_trace(p->cpu, "wrote gfn %#llx[%u] = %#llx by mode %d va %#llx", (unsigned long long)gfn, index,
			    (unsigned long long)value, mode, (unsigned long long)va);
		return;
	}
	value = __atomic_load_n(word, __ATOMIC_SEQ_CST);
	world_check(p->cpu, same_word(p, value, model_load(p->m, gfn, index)) || (uint64_t)gfn == p->moving,
		    "step %llu: read %#llx from gfn %#llx[%u], last written %#llx", (unsigned long long)p->step,
		    (unsigned long long)value, (unsigned long long)gfn, index,
		    (unsigned long long)model_load(p->m, gfn, index));
}

enum mmu_verdict program_access(struct program *p, enum mmu_mode mode, uint64_t va, uint32_t access)
{
	struct world_cpu *cpu = p->cpu;
	unsigned tries, max = p->opt.alone ? TRIES : RACE_TRIES, slot = model_index(va, 4);
	bool hit, ok, starve = false;
	struct mmu_result r = { .verdict = MMU_SPURIOUS };
	uint64_t mfn;

	if (cpu->cr3[mode] == MODEL_NONE)
		return MMU_TRUE;
	for (tries = 0; tries < max; tries++) {
		pthread_mutex_lock(&cpu->lock);
		ok = world_try(cpu, mode, va, access, &mfn, &hit);
		if (ok && (slot < 256 || slot > 271))
			access_granted(p, mode, va, access, mfn);
		pthread_mutex_unlock(&cpu->lock);
		if (ok) {
			if (slot >= 256 && slot <= 271)
				world_check(cpu, mode == MMU_KERNEL && mfn == p->w->holes + 3,
					    "the hole maps %#llx in mode %d", (unsigned long long)mfn, mode);
			return r.verdict;
		}
		r = take_fault(p, mode, va, access, &starve);
		world_forget(cpu, mode, va);
		if (r.verdict == MMU_TRUE || r.verdict == MMU_BAD)
			return r.verdict;
		if (r.verdict == MMU_AGAIN || !p->opt.alone || percent(p, 75))
			kick(p, cpu);
		if (starve && tries > 8)
			return MMU_AGAIN;
		if (r.verdict == MMU_AGAIN) {
			if (p->moving != MODEL_NONE)
				return MMU_AGAIN;	/* our own move: ends with the commit */
			if (p->opt.alone)
				kick_all(p);
			else
				sched_yield();
		}
	}
	world_fail(cpu, "step %llu: mode %d va %#llx access %#x gets nowhere", (unsigned long long)p->step, mode,
		   (unsigned long long)va, access);
}
