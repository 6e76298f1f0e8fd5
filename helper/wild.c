/*
 * wild.c - no heuristic but a test of everything else: asks for entries at random, so that whatever may go wrong by a
 * prebuild at a bad moment does. The numbers come from its own seed, so a replay asks for the same.
 */
#include "helper/space.h"

#define TABLES	32u

enum { PER, SEED, YOUNG };

struct state {
	uint64_t random;
	gfn_t tables[TABLES];
};

static uint64_t next(struct state *s)
{
	s->random ^= s->random << 13;		/* xorshift64, Marsaglia 2003 */
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return s->random;
}

static int init(struct heuristic_ctx *c)
{
	struct state *s = c->state;

	s->random = c->value[SEED] * 2 + 1;
	return 0;
}

static void on_any(struct heuristic_ctx *c, const struct helper_event *e)
{
	struct state *s = c->state;
	uint64_t flags = MMU_PB_TABLES | MMU_PB_SAMPLE | (c->value[YOUNG] ? MMU_PB_YOUNG : 0);

	s->tables[next(s) % TABLES] = e->table;
	for (unsigned i = 0; i < c->value[PER]; i++) {
		uint64_t r = next(s);
		gfn_t table = s->tables[r % TABLES];

		if (r >> 8 & 1)
			table.n = r >> 9 & 0x1ffff;
		heuristic_build(c, table, r >> 32 & 511, r >> 41 & flags);
		if (!(r >> 44 & 63))
			heuristic_tree(c, table, r >> 50 & 1, (gva_t){ next(s) & SPACE_USER_END }, (gva_t){ ~0ull }, r >> 51 & flags,
				       r >> 54 & 63);
	}
}

const struct heuristic heuristic_wild = {
	.name = "wild",
	.what = "entries at random: a test of the rest, not a heuristic",
	.params = {
		[PER] = { "per", "so many per event", 2, 1, 64 },
		[SEED] = { "seed", "of the random numbers", 1, 0, ~0ull >> 2 },
		[YOUNG] = { "young", "entries that were never accessed, too: sets their A bits", 0, 0, 1 },
	},
	.state_size = sizeof(struct state),
	.init = init,
	.on_update = on_any,
	.on_pin = on_any,
	.on_fault = on_any,
	.on_switch = on_any,
};
