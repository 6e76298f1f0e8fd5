/*
 * nested_kick.c - entries of guest tables that a store of the VMM's has changed. On hosts where KVM shadows the guest's tables
 * it sees only writes from inside the VM (docs/coherence.md, rule 4), so the gate has to repeat these.
 */
#include <stdlib.h>

#include "vmm/nested.h"

static struct nested_cpu *cpu_of(struct vcpu *v)
{
	return &v->vm->nested->cpu[v->id];
}

static int compare_kicks(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* One kick per table, of all of it: how many there can be is bounded by the guest's memory. */
static void merge(struct nested_cpu *n)
{
	size_t kept = 0;

	qsort(n->kicks, n->nr_kicks, sizeof *n->kicks, compare_kicks);
	for (size_t i = 0; i < n->nr_kicks; i++) {
		uint64_t whole = n->kicks[i] >> 16 << 16 | MMU_ENTRIES;

		if (!kept || n->kicks[kept - 1] != whole)
			n->kicks[kept++] = whole;
	}
	n->nr_kicks = kept;
}

void nested_kick_entry(struct vcpu *v, gfn_t table, unsigned index)
{
	struct nested_cpu *n = cpu_of(v);

	if (!v->vm->kick->rewrites)
		return;
	if (n->nr_kicks == n->room) {
		if (n->room >= NESTED_ENTRY_KICKS)
			merge(n);
		if (n->nr_kicks * 2 >= n->room) {
			size_t room = n->room ? n->room * 2 : NESTED_ENTRY_KICKS / 4;
			uint64_t *grown = realloc(n->kicks, room * sizeof *grown);

			if (!grown) {
				vm_stop(v->vm, VMM_EXIT_ERROR, "no memory for a list of %zu changed page-table entries", room);
				return;
			}
			n->kicks = grown;
			n->room = room;
		}
	}
	n->kicks[n->nr_kicks++] = table.n << 16 | index;
}

bool nested_kick_pending(struct vcpu *v)
{
	return cpu_of(v)->nr_kicks > cpu_of(v)->handed;
}

unsigned nested_kick_next(struct vcpu *v, struct mmu_kick *out, unsigned max)
{
	struct nested_cpu *n = cpu_of(v);
	unsigned got = 0;

	for (; got < max && n->handed < n->nr_kicks; n->handed++) {
		uint64_t k = n->kicks[n->handed];

		out[got++] = (struct mmu_kick){ .table = { k >> 16 }, .index = k % MMU_ENTRIES,
						.whole = (k & 0xffff) == MMU_ENTRIES, .cpus = MMU_CPUS_ALL };
	}
	if (n->handed == n->nr_kicks)
		n->handed = n->nr_kicks = 0;
	return got;
}
