/* ept.c - violations of the second level: which number a run can give, and by what right. */
#include <stdlib.h>
#include <sys/mman.h>

#include "vmm/ept.h"

void ept_count(const struct vm *vm, const struct mmu_stats *m, const struct kvm_counts *k, struct ept *out)
{
	*out = (struct ept){ .kind = EPT_NONE, .violations = -1 };
	if (!vm->paging->guest_tables) {
		*out = (struct ept){ .kind = EPT_MODELLED, .violations = m->touched, .tables = m->touched_tables,
				     .violations_2m = m->touched_2m, .at_most = m->reachable };
	} else if (vm->host.second_level == 1 && k->pf_taken >= 0) {
		out->kind = EPT_MEASURED;
		out->violations = k->pf_taken;
	}
}

const char *ept_kind_name(enum ept_kind kind)
{
	static const char *const names[] = { [EPT_NONE] = "none", [EPT_MEASURED] = "measured", [EPT_MODELLED] = "modelled" };

	return names[kind];
}

uint64_t ept_populated(const struct vm *vm)
{
	uint64_t n = 0, bytes = vm->ram_frames * 4096, step = 64ull << 20;
	unsigned char *there = malloc(step / 4096);

	for (uint64_t at = 0; there && at < bytes; at += step) {
		uint64_t some = bytes - at < step ? bytes - at : step;

		if (mincore((char *)vm->ram + at, some, there))
			break;
		for (uint64_t i = 0; i < some / 4096; i++)
			n += there[i] & 1;
	}
	free(there);
	return n;
}
