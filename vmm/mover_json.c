/* mover_json.c - what the mover has done, in numbers. */
#include <string.h>

#include "vmm/mover.h"
#include "vmm/stats.h"

void mover_stats(const struct vm *vm, struct mover_counters *out)
{
	memset(out, 0, sizeof *out);
	if (!vm->mover)
		return;
#define X(name, what) out->name = __atomic_load_n(&vm->mover->counters.name, __ATOMIC_RELAXED);
	MOVER_COUNTERS(X)
#undef X
}

json_t *mover_json(const struct vm *vm)
{
	struct mover_counters c;
	json_t *o = vm->mover ? json_object() : json_null();

	mover_stats(vm, &c);
#define X(name, what) if (vm->mover) json_object_set_new(o, #name, json_integer(c.name));
	MOVER_COUNTERS(X)
#undef X
	return o;
}
