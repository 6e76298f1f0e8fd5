#include "mmu_model.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *map_zeroed(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

struct mmu_model *model_create(uint64_t nr_gfns, bool nx)
{
	struct mmu_model *m = calloc(1, sizeof(*m));
	size_t words = nr_gfns * 512;

	if (!m)
		abort();
	m->nr_gfns = nr_gfns;
	m->nx = nx;
	m->now = 1;
	m->mem = map_zeroed(words * 8);
	m->since = map_zeroed(words * 8);
	m->updated = map_zeroed(words * 8);
	m->old_head = map_zeroed(words * 4);
	m->let_through = map_zeroed(nr_gfns * 8);
	m->pin = map_zeroed(nr_gfns * 7);
	m->pin_seen = m->pin + nr_gfns;
	m->ever = m->pin + nr_gfns * 2;
	m->dirty = m->pin + nr_gfns * 3;
	m->may_dirty = m->pin + nr_gfns * 4;
	m->watched = m->pin + nr_gfns * 5;
	m->fixed = m->pin + nr_gfns * 6;
	return m;
}

void model_destroy(struct mmu_model *m)
{
	size_t words;

	if (!m)
		return;
	words = m->nr_gfns * 512;
	munmap(m->mem, words * 8);
	munmap(m->since, words * 8);
	munmap(m->updated, words * 8);
	munmap(m->old_head, words * 4);
	munmap(m->let_through, m->nr_gfns * 8);
	munmap(m->pin, m->nr_gfns * 7);
	free(m->old);
	free(m->floors);
	free(m);
}

/* ---- history -------------------------------------------------------------------------------------------------- */

static bool same_target(uint64_t a, uint64_t b)
{
	const uint64_t mask = MMU_PTE_P | MMU_PTE_PS | MMU_PTE_ADDR;

	return (a & MMU_PTE_P) && (a & mask) == (b & mask);
}

void model_store(struct mmu_model *m, uint64_t gfn, unsigned index, uint64_t value)
{
	uint64_t word = gfn * 512 + index;
	struct model_old *old;

	m->dirty[gfn] = 1;
	m->may_dirty[gfn] = 1;
	if (m->mem[word] == value)
		return;
	m->now++;
	if (m->mem[word] & MMU_PTE_P) {		/* a TLB does not remember what was absent */
		if (m->nr_old == m->cap_old) {
			m->cap_old = m->cap_old ? m->cap_old * 2 : 256;
			m->old = realloc(m->old, m->cap_old * sizeof(*m->old));
			if (!m->old)
				abort();
		}
		old = &m->old[m->nr_old++];
		*old = (struct model_old){ .word = word, .gpte = m->mem[word], .from = m->since[word], .to = m->now,
					   .next = m->old_head[word] };
		m->old_head[word] = m->nr_old;
	}
	if (!same_target(m->mem[word], value))
		m->since[word] = m->now;
	m->mem[word] = value;
}

void model_set_bits(struct mmu_model *m, uint64_t gfn, unsigned index, uint64_t bits)
{
	m->mem[gfn * 512 + index] |= bits;
	m->dirty[gfn] = 1;
	m->may_dirty[gfn] = 1;
}

void model_let_through(struct mmu_model *m, uint64_t gfn)
{
	m->let_through[gfn] = ++m->now;
}

void model_flush_all(struct mmu_model *m, uint64_t at)
{
	uint32_t i, kept = 0;

	if (at > m->flushed)
		m->flushed = at;
	for (i = 0; i < m->nr_old; i++)
		m->old_head[m->old[i].word] = 0;
	for (i = 0; i < m->nr_old; i++) {
		struct model_old old = m->old[i];

		if (old.to <= m->flushed)
			continue;
		old.next = m->old_head[old.word];
		m->old[kept++] = old;
		m->old_head[old.word] = kept;
	}
	m->nr_old = kept;
	for (i = kept = 0; i < m->nr_floors; i++)
		if (m->floors[i].at > m->flushed)
			m->floors[kept++] = m->floors[i];
	m->nr_floors = kept;
}

void model_flush_entry(struct mmu_model *m, uint64_t gfn, unsigned index, uint64_t at)
{
	uint64_t *updated = &m->updated[gfn * 512 + index];

	if (at > *updated)
		*updated = at;
}

void model_flush_va(struct mmu_model *m, uint64_t l4, enum mmu_mode mode, uint64_t va, uint64_t at)
{
	uint64_t vpn = va >> 12;
	uint32_t i;

	for (i = 0; i < m->nr_floors; i++) {
		if (m->floors[i].l4 == l4 && m->floors[i].mode == mode && m->floors[i].vpn == vpn) {
			if (at > m->floors[i].at)
				m->floors[i].at = at;
			return;
		}
	}
	if (m->nr_floors == m->cap_floors) {
		m->cap_floors = m->cap_floors ? m->cap_floors * 2 : 16;
		m->floors = realloc(m->floors, m->cap_floors * sizeof(*m->floors));
		if (!m->floors)
			abort();
	}
	m->floors[m->nr_floors++] = (struct model_floor){ .l4 = l4, .vpn = vpn, .at = at, .mode = mode };
}

/* ---- the walk (SDM vol. 3A, 4.5 to 4.7) ------------------------------------------------------------------------ */

static bool is_leaf(uint64_t gpte, unsigned level)
{
	return level == 1 || ((level == 2 || level == 3) && (gpte & MMU_PTE_PS));
}

static bool is_reserved(const struct mmu_model *m, uint64_t gpte, unsigned level)
{
	if (!m->nx && (gpte & MMU_PTE_NX))
		return true;
	if (level == 4)
		return gpte & MMU_PTE_PS;
	if (level == 3 && (gpte & MMU_PTE_PS))
		return gpte & 0x3fffe000;	/* bits 29:13; bit 12 is PAT */
	if (level == 2 && (gpte & MMU_PTE_PS))
		return gpte & 0x1fe000;		/* bits 20:13 */
	return false;
}

/* The 4 KiB frame that a leaf entry of `level` gives for `va`. */
static uint64_t leaf_gfn(uint64_t gpte, unsigned level, uint64_t va)
{
	uint64_t span = 1ull << (9 * (level - 1));

	return (((gpte & MMU_PTE_ADDR) >> 12) & ~(span - 1)) | ((va >> 12) & (span - 1));
}

void model_walk(const struct mmu_model *m, uint64_t l4, enum mmu_mode mode, uint64_t va, uint32_t access,
		struct model_walk *out)
{
	uint32_t ec = mode == MMU_USER ? MMU_PF_U : 0;
	uint64_t table = l4;
	unsigned level;

	if (access & MMU_PF_W)
		ec |= MMU_PF_W;
	if ((access & MMU_PF_FETCH) && m->nx)
		ec |= MMU_PF_FETCH;
	memset(out, 0, sizeof(*out));
	out->w = out->u = true;
	for (level = 4; ; level--) {
		unsigned index = model_index(va, level);
		uint64_t gpte = model_load(m, table, index);

		out->path[out->depth++] = (struct model_step){ table, index, level, gpte };
		out->error_code = ec;
		out->verdict = MODEL_TRUE;
		if (!(gpte & MMU_PTE_P))
			return;
		out->error_code = ec | MMU_PF_P | MMU_PF_RSVD;
		out->verdict = MODEL_BAD;
		if (is_reserved(m, gpte, level))
			return;
		out->w &= !!(gpte & MMU_PTE_W);
		out->u &= !!(gpte & MMU_PTE_U);
		out->nx |= !!(gpte & MMU_PTE_NX);
		if (is_leaf(gpte, level)) {
			out->leaf = true;
			out->gfn = leaf_gfn(gpte, level, va);
			out->in_range = out->gfn < m->nr_gfns;
			if (!out->in_range)
				return;
			break;
		}
		table = (gpte & MMU_PTE_ADDR) >> 12;
		if (table >= m->nr_gfns)
			return;
	}
	out->error_code = ec | MMU_PF_P;
	out->verdict = MODEL_TRUE;
	if (mode == MMU_USER && !out->u)
		return;
	if ((access & MMU_PF_W) && !out->w)
		return;
	if ((access & MMU_PF_FETCH) && out->nx)
		return;
	out->error_code = 0;
	out->verdict = MODEL_OK;
}

/* ---- what may be cached ---------------------------------------------------------------------------------------- */

struct search {
	const struct mmu_model *m;
	enum mmu_mode mode;
	uint64_t va, gfn, floor;
	uint32_t access;
	bool let_through;
};

static bool search_table(const struct search *s, unsigned level, uint64_t table, uint64_t moment);

static bool search_entry(const struct search *s, unsigned level, uint64_t gpte, uint64_t from, uint64_t to,
			 uint64_t moment)
{
	if (from > moment)
		moment = from;
	if (moment >= to)
		return false;
	if (!(gpte & MMU_PTE_P) || (!(gpte & MMU_PTE_A) && !s->m->any_table) || is_reserved(s->m, gpte, level))
		return false;
	if (s->mode == MMU_USER && !(gpte & MMU_PTE_U))
		return false;
	if ((s->access & MMU_PF_W) && !(gpte & MMU_PTE_W) && !s->let_through)
		return false;
	if ((s->access & MMU_PF_FETCH) && (gpte & MMU_PTE_NX))
		return false;
	if (!is_leaf(gpte, level))
		return search_table(s, level - 1, (gpte & MMU_PTE_ADDR) >> 12, moment);
	if ((s->access & MMU_PF_W) && !(gpte & MMU_PTE_D) && !s->let_through)
		return false;
	return leaf_gfn(gpte, level, s->va) == s->gfn;
}

static bool search_table(const struct search *s, unsigned level, uint64_t table, uint64_t moment)
{
	uint64_t word = table * 512 + model_index(s->va, level);
	const struct mmu_model *m = s->m;
	uint32_t i;

	if (table >= m->nr_gfns)
		return false;
	if (search_entry(s, level, m->mem[word], m->since[word], ~0ull, moment))
		return true;
	for (i = m->old_head[word]; i; i = m->old[i - 1].next) {
		const struct model_old *old = &m->old[i - 1];

		if (old->to <= m->flushed || old->to <= m->updated[word] || old->to <= s->floor)
			continue;
		if (search_entry(s, level, old->gpte, old->from, old->to, moment))
			return true;
	}
	return false;
}

bool model_lawful(const struct mmu_model *m, uint64_t l4, enum mmu_mode mode, uint64_t va, uint32_t access,
		  uint64_t gfn)
{
	struct search s = { .m = m, .mode = mode, .va = va, .gfn = gfn, .access = access };
	uint32_t i;

	if (gfn >= m->nr_gfns)
		return false;
	for (i = 0; i < m->nr_floors; i++)
		if (m->floors[i].l4 == l4 && m->floors[i].mode == mode && m->floors[i].vpn == va >> 12)
			s.floor = m->floors[i].at;
	if ((access & MMU_PF_W) && m->pin_seen[gfn] && m->pin[gfn] >= 2)
		return false;
	s.let_through = mode == MMU_KERNEL && m->let_through[gfn] > m->flushed;
	return search_table(&s, 4, l4, m->flushed > s.floor ? m->flushed : s.floor);
}

/* ---- what a fault may say -------------------------------------------------------------------------------------- */

void model_expect(const struct mmu_model *m, const struct model_walk *walk, enum mmu_mode mode, uint32_t access,
		  bool root_in_use, struct model_expect *out)
{
	const unsigned upper = 1u << 2 | 1u << 3 | 1u << 4;
	unsigned depth = walk->depth;
	unsigned i, ever, pin;

	*out = (struct model_expect){ .error_code = walk->error_code };
	if (walk->verdict == MODEL_BAD) {
		out->verdicts = MODEL_MAY(MMU_BAD);
		return;
	}
	if (!(access & MMU_PF_W)) {
		out->verdicts = walk->verdict == MODEL_OK ? MODEL_GRANTS & ~MODEL_MAY(MMU_PTWRITE) : MODEL_MAY(MMU_TRUE);
		return;
	}
	if (!walk->leaf || (mode == MMU_USER && (!walk->u || !walk->w)) ||
	    ((access & MMU_PF_FETCH) && walk->nx)) {
		out->verdicts = MODEL_MAY(MMU_TRUE);
		return;
	}

	ever = m->any_table ? upper | 1u << 1 : m->ever[walk->gfn];
	pin = m->pin[walk->gfn];
	for (i = 0; i < depth; i++)
		if (walk->path[i].gfn == walk->gfn)
			ever |= 1u << walk->path[i].level;
	out->error_code = MMU_PF_P | MMU_PF_W | (mode == MMU_USER ? MMU_PF_U : 0) |
			  ((access & MMU_PF_FETCH) && m->nx ? MMU_PF_FETCH : 0);
	if (!walk->w) {
		/* Linux's way to write a page table it mapped read-only: level 1 only. */
		if (pin == 1)
			out->verdicts = MODEL_MAY(MMU_PTWRITE) | MODEL_MAY(MMU_SPURIOUS) | MODEL_MAY(MMU_HIDDEN);
		else
			out->verdicts = MODEL_MAY(MMU_TRUE);
		if (!pin && (ever & 1u << 1))
			out->verdicts |= MODEL_GRANTS;
		if (pin == 1 && (ever & upper))
			out->verdicts |= MODEL_MAY(MMU_TRUE);
		return;
	}
	if (pin >= 2) {
		out->verdicts = MODEL_MAY(MMU_TRUE);
		return;
	}
	out->verdicts = MODEL_MAY(MMU_HIDDEN) | MODEL_MAY(MMU_SPURIOUS);
	if (pin || ever)
		out->verdicts |= MODEL_MAY(MMU_PTWRITE);
	if ((ever & upper) && (pin == 1 || root_in_use))
		out->verdicts |= MODEL_MAY(MMU_TRUE);
	for (i = 0; i < depth; i++) {
		if (walk->path[i].gfn == walk->gfn && (ever & upper)) {
			out->verdicts |= MODEL_MAY(MMU_TRUE);
			out->may_starve = true;
		}
	}
}
