/*
 * window.c - heuristic: the entries around one that faulted, or that the guest just wrote: KVM's and Xen's prefetch, done
 * beside the guest instead of inside its fault.
 */
#include "helper/heuristic.h"

enum { ALIGNED, BACK, AHEAD, ON };
enum { ON_FAULT = 1, ON_UPDATE = 2 };

static void around(struct heuristic_ctx *c, const struct helper_event *e)
{
	unsigned group = c->value[ALIGNED], index = e->index, first = index, last = index;

	if (group > 1) {
		first = index / group * group;
		last = first + group - 1;
	}
	first = first > c->value[BACK] ? first - c->value[BACK] : 0;
	last += c->value[AHEAD];
	for (unsigned i = first; i <= last && i < MMU_ENTRIES; i++)
		if (i != index && !heuristic_build(c, e->table, i, 0))
			return;
}

static void on_update(struct heuristic_ctx *c, const struct helper_event *e)
{
	if (c->value[ON] & ON_UPDATE)
		around(c, e);
}

static void on_fault(struct heuristic_ctx *c, const struct helper_event *e)
{
	if ((c->value[ON] & ON_FAULT) && e->fault == HELPER_FAULT_HIDDEN && e->level == 1)
		around(c, e);
}

const struct heuristic heuristic_window = {
	.name = "window",
	.what = "entries around a hidden fault (aligned=8: as KVM; aligned=1,ahead=32: as Xen)",
	.params = {
		[ALIGNED] = { "aligned", "the group of so many that it lies in", 8, 1, 512 },
		[BACK] = { "back", "and so many before", 0, 0, 511 },
		[AHEAD] = { "ahead", "and so many behind", 0, 0, 511 },
		[ON] = { "on", "1: around faults, 2: around what the guest writes, 3: both", 1, 1, 3 },
	},
	.on_update = on_update,
	.on_fault = on_fault,
};
