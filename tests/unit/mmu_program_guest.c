#include "mmu_program_internal.h"

unsigned level_of(const struct program *p, uint64_t gfn)
{
	uint64_t i = gfn - p->opt.base;

	if (i >= PROG_L4 && i < PROG_L3)
		return 4;
	if (i >= PROG_L3 && i < PROG_L2)
		return 3;
	if (i >= PROG_L2 && i < PROG_L1)
		return 2;
	if (i >= PROG_L1 && i < PROG_DATA)
		return 1;
	return 0;
}

uint64_t some_table(struct program *p, unsigned level)
{
	switch (level) {
	case 4: return p->opt.base + PROG_L4 + below(p, PROG_L3 - PROG_L4);
	case 3: return p->opt.base + PROG_L3 + below(p, PROG_L2 - PROG_L3);
	case 2: return p->opt.base + PROG_L2 + below(p, PROG_L1 - PROG_L2);
	default: return p->opt.base + PROG_L1 + below(p, PROG_LINEAR - PROG_L1);
	}
}

uint64_t some_data(struct program *p)
{
	if (percent(p, 85))
		return p->opt.base + PROG_DATA + below(p, 48);
	return p->opt.base + PROG_DATA + below(p, PROG_RANGE - PROG_DATA);
}

unsigned some_index(struct program *p, unsigned level)
{
	static const unsigned at[MMU_LEVELS + 1][10] = {
		[1] = { 0, 1, 2, 3, 7, 8, 9, 32, 510, 511 },
		[2] = { 0, 1, 1, 2, 0, 1, 2, 0, 1, 511 },
		[3] = { 0, 0, 1, 0, 0, 1, 0, 0, 0, 511 },
		[4] = { 0, 0, 1, 0, 255, 272, 0, 1, 272, 511 },
	};

	if (level < 1 || level > 4 || percent(p, 1))
		return below(p, 512);
	return at[level][below(p, 10)];
}

static uint64_t make_va(unsigned l4, unsigned l3, unsigned l2, unsigned l1)
{
	uint64_t va = (uint64_t)l4 << 39 | (uint64_t)l3 << 30 | (uint64_t)l2 << 21 | (uint64_t)l1 << 12;

	return l4 & 256 ? va | 0xffffull << 48 : va;
}

uint64_t linear_va(const struct program *p, uint64_t gfn, unsigned index)
{
	return make_va(272, 0, 0, 0) + ((gfn - p->opt.base) << 12) + index * 8;
}

uint64_t some_va(struct program *p)
{
	unsigned linear = percent(p, 50) ? 16 + below(p, 48) : below(p, 128);

	if (p->nr_hot && percent(p, 40))
		return p->hot[below(p, p->nr_hot < 16 ? p->nr_hot : 16)];
	if (percent(p, 25))	/* the linear map, page tables first */
		return make_va(272, 0, 0, linear) | below(p, 512) << 3;
	if (percent(p, 2))
		return make_va(256 + below(p, 16), 0, 0, below(p, 2));
	return make_va(some_index(p, 4), some_index(p, 3), some_index(p, 2), some_index(p, 1)) | below(p, 512) << 3;
}

uint64_t some_gpte(struct program *p, unsigned level)
{
	const uint64_t base = p->opt.base;
	uint64_t gpte = 0, gfn;

	if (percent(p, 12))
		return percent(p, 90) ? 0 : rng_next(&p->rng) & ~MMU_PTE_P;
	gpte = MMU_PTE_P;
	gpte |= percent(p, 78) ? MMU_PTE_W : 0;
	gpte |= percent(p, 72) ? MMU_PTE_U : 0;
	gpte |= percent(p, 60) ? MMU_PTE_A : 0;
	gpte |= percent(p, 50) ? MMU_PTE_D : 0;
	gpte |= percent(p, 8) ? MMU_PTE_PWT | MMU_PTE_PCD : 0;
	if (percent(p, p->w->opt.nx ? 12 : 1))
		gpte |= MMU_PTE_NX;
	gpte |= percent(p, 20) ? (rng_next(&p->rng) & 0x7f) << 52 | (uint64_t)below(p, 8) << 9 : 0;
	if (level == 1)
		gpte |= percent(p, 5) ? MMU_PTE_PS | MMU_PTE_G : 0;
	if (percent(p, 1))
		return gpte | (p->w->opt.nr_gfns + below(p, 4096)) << 12;
	if (percent(p, 1))
		return gpte | 0x000fffffff000000ull;
	if (level == 4 && percent(p, 1))
		return gpte | MMU_PTE_PS | some_table(p, 3) << 12;
	if (level == 2 && percent(p, 15)) {
		gfn = base + (percent(p, 70) ? 512 : p->opt.huge && percent(p, 30) ? PROG_RANGE : 0);
		return gpte | MMU_PTE_PS | gfn << 12 | (percent(p, 5) ? 1ull << (13 + below(p, 8)) : 0) |
		       (percent(p, 5) ? 1ull << 12 : 0);
	}
	if (level == 3 && p->opt.huge && percent(p, 6))
		return gpte | MMU_PTE_PS | (percent(p, 5) ? 1ull << (13 + below(p, 17)) : 0);
	if (percent(p, 3))	/* any table as any level, itself included */
		return gpte | some_table(p, 1 + below(p, 4)) << 12;
	if (level > 1)
		return gpte | some_table(p, level - 1) << 12;
	if (percent(p, 15)) {
		gfn = some_table(p, percent(p, 70) ? 1 : 1 + below(p, 4));
		return (percent(p, 75) ? gpte & ~MMU_PTE_W : gpte) | gfn << 12;
	}
	return gpte | some_data(p) << 12;
}

/* What the guest stores: entries into tables, mostly; words that name their frame into data. */
uint64_t some_word(struct program *p, uint64_t gfn)
{
	unsigned level = level_of(p, gfn);

	if (level)
		return some_gpte(p, level);
	if (percent(p, 3))
		return some_gpte(p, 1);
	return 0xda7a000000000000ull | gfn << 8 | (p->step & 0x7f) << 1;
}

uint32_t some_access(struct program *p)
{
	static const uint32_t kinds[] = { 0, 0, MMU_PF_W, MMU_PF_W, MMU_PF_FETCH };

	return kinds[below(p, 5)];
}

/* An entry of the linear map, which random updates spare: through it the guest reaches its own tables. */
bool is_linear(const struct program *p, uint64_t gfn, unsigned index)
{
	uint64_t i = gfn - p->opt.base;

	if (i == PROG_LINEAR || i == PROG_LINEAR + 1)
		return true;
	return (i >= PROG_L4 && i < PROG_L3 && index == 272) || (i == PROG_L3 && index == 0) ||
	       (i == PROG_L2 && index <= 1);
}

void set_up_tables(struct program *p)
{
	const uint64_t base = p->opt.base, link = MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A;
	uint64_t gfn, i;
	unsigned index, n;

	for (gfn = base; gfn < base + PROG_RANGE; gfn++) {
		unsigned level = level_of(p, gfn);

		p->m->mem[gfn * 512 + 7] = 0xda7a000000000000ull | gfn << 8;
		for (n = 0; level && n < 40; n++) {
			index = some_index(p, level);
			if (!is_linear(p, gfn, index))
				p->m->mem[gfn * 512 + index] = some_gpte(p, level);
		}
	}
	for (gfn = base + PROG_L4; gfn < base + PROG_L3; gfn++)
		p->m->mem[gfn * 512 + 272] = (base + PROG_L3) << 12 | link;
	p->m->mem[(base + PROG_L3) * 512] = (base + PROG_L2) << 12 | (link & ~MMU_PTE_U);
	for (i = 0; i < PROG_RANGE; i++) {
		uint64_t table = base + PROG_LINEAR + i / 512;

		p->m->mem[(base + PROG_L2) * 512 + i / 512] = table << 12 | link;
		p->m->mem[table * 512 + i % 512] = (base + i) << 12 | MMU_PTE_P | MMU_PTE_A | MMU_PTE_D |
						   (level_of(p, base + i) ? 0 : MMU_PTE_W);
	}
	for (gfn = base; gfn < base + PROG_RANGE; gfn++)
		for (index = 0; index < 512; index++)
			if (p->m->mem[gfn * 512 + index])
				world_write(p->w, gfn, index, p->m->mem[gfn * 512 + index]);
}
