/*
 * scan.c - which frames are watched. Every watched frame that is used costs a fault, so the frames are chosen: three quarters of
 * a round go to those at which a remote access showed, to be sure of them, the rest to a survey of the guest by regions of
 * 2 MiB. A region in which nothing shows that is worth a move is visited less and less often; one where there was
 * is looked at more closely (the idea is DAMON's: Park et al., Middleware 2019).
 */
#include "numa/internal.h"

#define SKIP_MAX	64u
#define FOCUS_MIN	16u
#define BARREN_MAX	8u

void scan_focus(struct numa_manager *m, uint64_t gfn, bool must)
{
	struct frame *f = &m->frames[gfn];

	if (f->focus || m->focus_n >= (must ? FOCUS : m->focus_max))
		return;
	m->focus[(m->focus_first + m->focus_n++) % FOCUS] = gfn;
	f->focus = true;
}

void scan_saw(struct numa_manager *m, uint64_t gfn, bool remote, bool wanted)
{
	struct region *r = &m->regions[gfn / REGION_FRAMES];

	r->seen = true;
	r->remote |= remote;
	r->wanted |= wanted;
	if (wanted)
		r->wait = 0;
}

void scan_watch(struct numa_manager *m, const uint64_t *gfns, unsigned n)
{
	uint64_t then = budget_clock(m);
	int r;

	for (unsigned i = 0; i < n; i++)
		heat_disturb(m, gfns[i]);
	if (!n)
		return;
	r = m->machine.ops->watch(m->machine.arg, gfns, n);
	heat_asked(m);
	if (r)
		return;
	for (unsigned i = 0; i < n; i++) {
		m->frames[gfns[i]].looked = m->round;
		if (!m->frames[gfns[i]].watched)
			m->frames[gfns[i]].watched = m->round;
	}
	manager_count(&m->stats.watched, n);
	budget_spent_watching(m, n, budget_clock(m) - then);
}

/* What the last visit brought decides when the next one is. */
static void settle(struct region *r)
{
	unsigned max = r->remote ? SKIP_MAX / 8 : r->seen ? SKIP_MAX / 2 : SKIP_MAX;

	r->barren = r->wanted || !r->remote ? 0 : r->barren + (r->barren < BARREN_MAX);
	if (r->wanted || (r->remote && r->barren < BARREN_MAX)) {
		r->skip = 0;
		r->grow += r->grow < SURVEY_GROW;
	} else {
		r->skip = r->skip ? r->skip * 2 : 1;
		if (r->skip > max)
			r->skip = max;
		r->grow -= r->grow > 0;
	}
	r->wait = r->skip;
	r->seen = r->remote = r->wanted = false;
}

struct batch {
	uint64_t gfns[NUMA_MAX_BATCH];
	unsigned n;
};

static void add(struct numa_manager *m, struct batch *b, uint64_t gfn)
{
	b->gfns[b->n++] = gfn;
	if (b->n < NUMA_MAX_BATCH)
		return;
	scan_watch(m, b->gfns, b->n);
	b->n = 0;
}

static unsigned survey_region(struct numa_manager *m, struct batch *b, uint64_t region, unsigned left)
{
	struct region *r = &m->regions[region];
	unsigned asked = 0;

	for (unsigned i = 0; i < SURVEY_MIN << r->grow && asked < left; i++) {
		/* An odd step comes by all of them, far from one another. */
		uint64_t gfn = region * REGION_FRAMES + (r->next++ * 197u & (REGION_FRAMES - 1));

		if (gfn >= m->machine.nr_gfns || m->round < m->frames[gfn].frozen)
			continue;
		add(m, b, gfn);
		asked++;
	}
	return asked;
}

void scan_round(struct numa_manager *m)
{
	unsigned left = budget_frames_to_watch(m), focus = left - left / 4;
	struct batch b = { .n = 0 };

	/* Each often enough for its samples to come before the first of them counts for nothing: better a few now, others later. */
	m->focus_max = focus * m->value[NUMA_HALF] / (2 * m->value[NUMA_HOT]);
	if (m->focus_max < FOCUS_MIN)
		m->focus_max = FOCUS_MIN;
	if (m->focus_max > FOCUS / 2)
		m->focus_max = FOCUS / 2;
	for (unsigned n = m->focus_n; n && focus; n--) {
		uint64_t gfn = m->focus[m->focus_first];

		m->focus_first = (m->focus_first + 1) % FOCUS;
		m->focus_n--;
		m->frames[gfn].focus = false;
		if (m->round < m->frames[gfn].frozen && !m->frames[gfn].judgement) {
			scan_focus(m, gfn, true);	/* its time has not come */
			continue;
		}
		add(m, &b, gfn);
		left--;
		focus--;
	}
	for (uint64_t visits = 0; left && visits < m->nr_regions; visits++) {
		struct region *r = &m->regions[m->region_at];

		if (r->wait) {
			r->wait--;
		} else {
			settle(r);
			left -= survey_region(m, &b, m->region_at, left);
		}
		m->region_at = (m->region_at + 1) % m->nr_regions;
	}
	scan_watch(m, b.gfns, b.n);
}
