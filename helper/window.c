/* window.c - heuristic: the entries around the one the guest just wrote, which it wrote before but nobody has used. */
#include "helper/heuristic.h"

enum { ALIGNED, BACK, AHEAD };

static void on_update(struct heuristic_ctx *c, const struct helper_event *e)
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

const struct heuristic heuristic_window = {
	.name = "window",
	.what = "entries around the one the guest just wrote (aligned=8: as KVM; aligned=1,ahead=32: as Xen)",
	.params = {
		[ALIGNED] = { "aligned", "the group of so many that it lies in", 8, 1, 512 },
		[BACK] = { "back", "and so many before", 0, 0, 511 },
		[AHEAD] = { "ahead", "and so many behind", 0, 0, 511 },
	},
	.on_update = on_update,
};
