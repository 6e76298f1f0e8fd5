/*
 * dump.c - a walk of both sets of tables, for people.
 */
#include <stdio.h>

#include "mmu/internal.h"

static void print_flags(uint64_t pte, FILE *to)
{
	static const struct {
		uint64_t bit;
		const char *name;
	} flags[] = {
		{ MMU_PTE_P, "P" }, { MMU_PTE_W, "W" }, { MMU_PTE_U, "U" }, { MMU_PTE_A, "A" }, { MMU_PTE_D, "D" },
		{ MMU_PTE_PS, "PS" }, { MMU_PTE_NX, "NX" },
	};
	unsigned i;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (pte & flags[i].bit)
			fprintf(to, " %s", flags[i].name);
	fputc('\n', to);
}

static void dump_guest(const struct mmu *mmu, uint64_t l4, enum mmu_mode mode, uint64_t va, FILE *to)
{
	struct gwalk w;
	unsigned level, node;
	enum mmu_verdict verdict = walk_guest(mmu, l4, mode, va, 0, &w);

	for (level = MMU_LEVELS; level >= w.level; level--) {
		fprintf(to, "  guest  L%u gfn %#8llx [%3u] = %016llx", level, (unsigned long long)w.table[level],
			va_index(va, level), (unsigned long long)w.gpte[level]);
		print_flags(w.gpte[level], to);
	}
	if (verdict != MMU_HIDDEN) {
		fprintf(to, "  guest  a read faults, error code %#x\n", w.error_code);
		return;
	}
	fprintf(to, "  guest  gfn %#llx at mfn %#llx", (unsigned long long)w.gfn, (unsigned long long)pmap_get(mmu, w.gfn));
	for (node = 0; (frame_flags(mmu, w.gfn) & FRAME_REPLICA) && node < mmu->cfg.nr_nodes; node++)
		fprintf(to, ", node %u %#llx", node, (unsigned long long)copy_get(mmu, w.gfn, node));
	fprintf(to, ", frame flags %#x\n", frame_flags(mmu, w.gfn));
}

static void dump_shadow(const struct mmu *mmu, uint32_t page, uint64_t va, FILE *to)
{
	unsigned level;

	for (level = MMU_LEVELS; level; level--) {
		struct shadow_key key = page_key(&mmu->pages[page]);
		uint64_t spte = spte_load(mmu, spte_id(page, va_index(va, level)));

		fprintf(to, "  shadow L%u node %u mfn %#8llx [%3u] = %016llx of gfn %#llx%s%s%s", level, key.node,
			(unsigned long long)(mmu->cfg.pool.n + page), va_index(va, level), (unsigned long long)spte,
			(unsigned long long)key.gfn, key.role & ROLE_STRICT ? " strict" : "",
			key.role & ROLE_RO ? " ro" : "", key.role & ROLE_DIRECT ? " direct" : "");
		print_flags(spte, to);
		if (!(spte & MMU_PTE_P) || spte_is_leaf(level, spte) || is_hole(level, va_index(va, level)))
			return;
		page = pte_frame(spte) - mmu->cfg.pool.n;
		if (page >= mmu->cfg.pool_pages)
			return;
	}
}

void mmu_dump_walk(struct mmu_cpu *cpu, enum mmu_mode mode, gva_t va, FILE *to)
{
	uint32_t root = cpu->root[mode];

	fprintf(to, "walk of %#llx, %s mode:\n", (unsigned long long)va.a, mode == MMU_USER ? "user" : "kernel");
	if (!root) {
		fprintf(to, "  no root loaded\n");
		return;
	}
	dump_guest(cpu->mmu, cpu->root_l4[mode], mode, va.a, to);
	dump_shadow(cpu->mmu, root - 1, va.a, to);
}
