/* replay_shadow.c - see replay_shadow.h. Follows mmu/entry.c and mmu/fault.c in what an entry shows and when it goes. */
#include <stdlib.h>
#include <string.h>

#include "helper/replay_shadow.h"

#define HOLE_FIRST	256u	/* L4 slots of the hole (mmu/internal.h) */
#define HOLE_LAST	271u
#define NONE		(~0u)

enum { SIM_P = 1, SIM_W = 2, SIM_USED = 4 };

/* An entry of a shadow; its number is table * MMU_ENTRIES + index. */
struct entry {
	uint32_t next, prev;	/* of those that name the same frame; NONE: the end */
	uint32_t frame;
	uint8_t flags, source;
};

struct table {
	uint32_t gfn;
	uint8_t level;		/* 0: not known */
	bool pinned, shadow;
	uint32_t links;		/* entries that link it */
	uint64_t gpte[MMU_ENTRIES];
	uint64_t known[MMU_ENTRIES / 64];
	struct entry entries[MMU_ENTRIES];
};

/* From a frame number to its table and to the entries that name it. */
struct frame {
	uint32_t gfn;		/* + 1; 0: a free place */
	uint32_t table;		/* NONE: no table */
	uint32_t named;		/* the first entry that names it */
};

struct sim_shadow {
	struct replay_source *counts;
	struct table **tables;
	uint32_t nr_tables;
	struct frame *frames;	/* open addressing */
	uint32_t nr_frames, mask;
};

/* ---- frames and tables ------------------------------------------------------------------------------------------------- */

static struct frame *place(struct frame *frames, uint32_t mask, uint32_t gfn)
{
	uint32_t i = gfn * 0x9e3779b1u;

	while (frames[i & mask].gfn && frames[i & mask].gfn != gfn + 1)
		i++;
	return &frames[i & mask];
}

static bool grow_frames(struct sim_shadow *s)
{
	uint32_t mask = s->mask * 2 + 1;
	struct frame *frames = calloc((size_t)mask + 1, sizeof *frames);

	if (!frames)
		return false;
	for (uint32_t i = 0; i <= s->mask; i++)
		if (s->frames[i].gfn)
			*place(frames, mask, s->frames[i].gfn - 1) = s->frames[i];
	free(s->frames);
	s->frames = frames;
	s->mask = mask;
	return true;
}

/* NULL: there is none, and (with `make`) no room for one. Valid until the next call with `make`. */
static struct frame *frame_of(struct sim_shadow *s, uint64_t gfn, bool make)
{
	struct frame *f;

	if (gfn >= NONE - 1)
		return NULL;
	f = place(s->frames, s->mask, gfn);
	if (f->gfn)
		return f;
	if (!make || (s->nr_frames >= s->mask / 4 * 3 && !grow_frames(s)))
		return NULL;
	f = place(s->frames, s->mask, gfn);
	*f = (struct frame){ .gfn = gfn + 1, .table = NONE, .named = NONE };
	s->nr_frames++;
	return f;
}

static struct table *find(struct sim_shadow *s, gfn_t gfn)
{
	struct frame *f = frame_of(s, gfn.n, false);

	return f && f->table != NONE ? s->tables[f->table] : NULL;
}

static struct table *get(struct sim_shadow *s, gfn_t gfn)
{
	struct frame *f = frame_of(s, gfn.n, true);
	struct table *t;

	if (!f)
		return NULL;
	if (f->table != NONE)
		return s->tables[f->table];
	t = s->nr_tables < SIM_TABLES ? calloc(1, sizeof *t) : NULL;
	if (!t)
		return NULL;
	t->gfn = gfn.n;
	f->table = s->nr_tables;
	s->tables[s->nr_tables++] = t;
	return t;
}

static struct entry *entry_at(struct sim_shadow *s, uint32_t id)
{
	return &s->tables[id / MMU_ENTRIES]->entries[id % MMU_ENTRIES];
}

static bool knows(const struct table *t, unsigned index)
{
	return t->known[index / 64] >> index % 64 & 1;
}

static void learn(struct table *t, unsigned index, uint64_t gpte)
{
	t->gpte[index] = gpte;
	t->known[index / 64] |= 1ull << index % 64;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------- */

struct want {
	bool link, w;
	uint32_t frame;
};

static bool is_pinned(struct sim_shadow *s, uint32_t frame)
{
	struct table *t = find(s, (gfn_t){ frame });

	return t && t->pinned;
}

/* False: the guest's entry asks for nothing. */
static bool wants(struct sim_shadow *s, const struct table *t, unsigned index, struct want *out)
{
	uint64_t gpte = t->gpte[index], frame = (gpte & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT;

	if (!knows(t, index) || !(gpte & MMU_PTE_P) || !(gpte & MMU_PTE_A) || frame >= NONE - 1)
		return false;
	if (t->level == MMU_LEVELS && index >= HOLE_FIRST && index <= HOLE_LAST)
		return false;
	out->frame = frame;
	out->link = t->level > 1 && !(gpte & MMU_PTE_PS);
	out->w = out->link || ((gpte & MMU_PTE_W) && (gpte & MMU_PTE_D) && !is_pinned(s, frame));
	return true;
}

static void install(struct sim_shadow *s, struct table *t, unsigned index, const struct want *want, unsigned source)
{
	struct frame *f = frame_of(s, want->frame, true), *own = frame_of(s, t->gfn, false);
	struct entry *e = &t->entries[index];
	uint32_t id;

	if (!f || !own)
		return;
	id = own->table * MMU_ENTRIES + index;
	*e = (struct entry){ .next = f->named, .prev = NONE, .frame = want->frame, .source = source,
			     .flags = SIM_P | (want->w ? SIM_W : 0) };
	if (f->named != NONE)
		entry_at(s, f->named)->prev = id;
	f->named = id;
	if (want->link && f->table != NONE)
		s->tables[f->table]->links++;
	if (source != MMU_SRC_DEMAND)
		s->counts[source].built++;
}

static void use(struct sim_shadow *s, struct entry *e)
{
	if (!(e->flags & SIM_P))
		return;
	if (!(e->flags & SIM_USED) && e->source != MMU_SRC_DEMAND)
		s->counts[e->source].useful++;
	e->flags |= SIM_USED;
}

/* The table that a present entry links, or NULL. */
static struct table *child_of(struct sim_shadow *s, const struct table *t, unsigned index)
{
	struct table *c;

	if (t->level < 2 || !(t->entries[index].flags & SIM_P))
		return NULL;
	c = find(s, (gfn_t){ t->entries[index].frame });
	return c && c->level == t->level - 1 ? c : NULL;
}

static void take_out(struct sim_shadow *s, struct table *t, unsigned index)
{
	struct entry *e = &t->entries[index];
	struct table *child = child_of(s, t, index);

	if (!(e->flags & SIM_P))
		return;
	if (e->prev != NONE)
		entry_at(s, e->prev)->next = e->next;
	else
		frame_of(s, e->frame, false)->named = e->next;
	if (e->next != NONE)
		entry_at(s, e->next)->prev = e->prev;
	if (!(e->flags & SIM_USED) && e->source != MMU_SRC_DEMAND)
		s->counts[e->source].wasted++;
	e->flags = 0;
	if (child && child->links)
		child->links--;
}

/* In line with the guest's entry, as entry_sync(). */
static void sync_entry(struct sim_shadow *s, struct table *t, unsigned index)
{
	struct entry *e = &t->entries[index];
	struct want want;

	if (!(e->flags & SIM_P))
		return;
	if (!wants(s, t, index, &want) || want.frame != e->frame)
		take_out(s, t, index);
	else
		e->flags = (e->flags & ~SIM_W) | (want.w ? SIM_W : 0);
}

/* As mmu_unpin(): the shadow goes, and those below that nobody links any more. Levels end the recursion. */
static void drop_table(struct sim_shadow *s, struct table *t)
{
	struct frame *f = frame_of(s, t->gfn, false);

	if (!t->shadow)
		return;
	t->shadow = false;
	for (uint32_t id = f->named, next; id != NONE; id = next) {
		struct table *parent = s->tables[id / MMU_ENTRIES];

		next = entry_at(s, id)->next;
		if (child_of(s, parent, id % MMU_ENTRIES) == t)
			take_out(s, parent, id % MMU_ENTRIES);
	}
	for (unsigned i = 0; i < MMU_ENTRIES; i++) {
		struct table *child = child_of(s, t, i);

		take_out(s, t, i);
		if (child && !child->links)
			drop_table(s, child);
	}
}

/* A shadow belongs to one level of its table. */
static void set_level(struct sim_shadow *s, struct table *t, unsigned level)
{
	if (t->level != level)
		drop_table(s, t);
	t->level = level;
}

/* ---- what the guest does ----------------------------------------------------------------------------------------------------- */

void sim_update(struct sim_shadow *s, gfn_t table, unsigned index, bool known, uint64_t gpte)
{
	struct table *t = get(s, table);

	if (!t)
		return;
	if (known)
		learn(t, index, gpte);
	else
		t->known[index / 64] &= ~(1ull << index % 64);
	sync_entry(s, t, index);
}

void sim_pin(struct sim_shadow *s, gfn_t table, unsigned level)
{
	struct table *t = get(s, table);
	struct frame *f = frame_of(s, table.n, false);

	if (!t)
		return;
	set_level(s, t, level);
	t->pinned = true;
	/* Write-protected wherever it is mapped. */
	for (uint32_t id = f->named; id != NONE; id = entry_at(s, id)->next)
		if (child_of(s, s->tables[id / MMU_ENTRIES], id % MMU_ENTRIES) != t)
			entry_at(s, id)->flags &= ~SIM_W;
}

void sim_unpin(struct sim_shadow *s, gfn_t table)
{
	struct table *t = find(s, table);

	if (!t)
		return;
	t->pinned = false;
	drop_table(s, t);
	t->level = 0;
	memset(t->known, 0, sizeof t->known);
}

void sim_content(struct sim_shadow *s, gfn_t table, unsigned level, const struct trace_entry *entries, unsigned count)
{
	struct table *t = get(s, table);

	if (!t)
		return;
	set_level(s, t, level);
	memset(t->gpte, 0, sizeof t->gpte);
	memset(t->known, 0xff, sizeof t->known);
	for (unsigned i = 0; i < count; i++)
		t->gpte[entries[i].index] = entries[i].gpte;
	for (unsigned i = 0; i < MMU_ENTRIES; i++)
		sync_entry(s, t, i);
}

void sim_load(struct sim_shadow *s, gfn_t root)
{
	struct table *t = get(s, root);

	if (!t)
		return;
	set_level(s, t, MMU_LEVELS);
	t->shadow = true;
}

/* ---- faults ---------------------------------------------------------------------------------------------------------------------- */

struct step {
	struct table *t;
	unsigned index;
};

static unsigned slot(gva_t va, unsigned level)
{
	return va.a >> (MMU_PAGE_SHIFT + 9 * (level - 1)) & (MMU_ENTRIES - 1);
}

/* The way from the root to the entry that the event names, by what is known of the tables. *whole: no table is missing. */
static unsigned way(struct sim_shadow *s, const struct helper_event *e, struct step steps[MMU_LEVELS], bool *whole)
{
	gfn_t gfn = e->root;
	unsigned n = 0, level;

	for (level = MMU_LEVELS; level > e->level; level--) {
		struct table *t = get(s, gfn);
		unsigned index = slot(e->va, level);

		if (!t || !knows(t, index) || !(t->gpte[index] & MMU_PTE_P))
			break;
		set_level(s, t, level);
		steps[n++] = (struct step){ t, index };
		gfn.n = (t->gpte[index] & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT;
	}
	*whole = level == e->level && gfn.n == e->table.n;
	steps[n].t = get(s, e->table);
	steps[n].index = e->index;
	if (!steps[n].t)
		return n;
	set_level(s, steps[n].t, e->level);
	return n + 1;
}

/* The access comes through: A, perhaps D, and what was missing is there. */
static void fill(struct sim_shadow *s, const struct step *at, bool write)
{
	struct entry *e = &at->t->entries[at->index];
	bool is_leaf = at->t->level == 1 || (at->t->gpte[at->index] & MMU_PTE_PS);
	struct want want;

	at->t->shadow = true;
	if (knows(at->t, at->index) && (at->t->gpte[at->index] & MMU_PTE_P))
		at->t->gpte[at->index] |= MMU_PTE_A | (write && is_leaf && (at->t->gpte[at->index] & MMU_PTE_W) ? MMU_PTE_D : 0);
	sync_entry(s, at->t, at->index);
	if (!(e->flags & SIM_P) && wants(s, at->t, at->index, &want)) {
		if (want.link) {
			struct table *child = get(s, (gfn_t){ want.frame });

			if (child)
				set_level(s, child, at->t->level - 1);
		}
		install(s, at->t, at->index, &want, MMU_SRC_DEMAND);
	}
	use(s, e);
}

enum sim_fault sim_fault(struct sim_shadow *s, const struct helper_event *e)
{
	bool write = e->flags & HELPER_IS_WRITE, whole, fresh = false, there;
	struct step steps[MMU_LEVELS + 1];
	enum sim_fault what;
	unsigned n;

	if (!e->level)
		return SIM_ABSENT;
	if (e->flags & HELPER_HAS_NEW)
		sim_update(s, e->table, e->index, true, e->new);
	n = way(s, e, steps, &whole);
	there = whole;
	for (unsigned i = 0; i < n; i++) {
		const struct entry *at = &steps[i].t->entries[steps[i].index];

		there &= steps[i].t->shadow && (at->flags & SIM_P);
		fresh |= (at->flags & SIM_P) && at->source != MMU_SRC_DEMAND && !(at->flags & SIM_USED);
	}
	if (!n || !there)
		what = SIM_ABSENT;
	else if (write && !(steps[n - 1].t->entries[steps[n - 1].index].flags & SIM_W))
		what = SIM_WEAK;
	else
		what = fresh ? SIM_AVOIDED : SIM_UNEXPLAINED;
	for (unsigned i = 0; i < n; i++)
		fill(s, &steps[i], write && i == n - 1);
	return what;
}

/* ---- prebuilding --------------------------------------------------------------------------------------------------------------------- */

enum mmu_prebuilt sim_build(struct sim_shadow *s, gfn_t table, unsigned index, unsigned source, unsigned flags)
{
	struct table *t = find(s, table), *child;
	struct want want;

	if (!t || !t->shadow)
		return MMU_PB_NO_SHADOW;
	if (t->entries[index].flags & SIM_P)
		return MMU_PB_PRESENT;
	if (!knows(t, index) || !(t->gpte[index] & MMU_PTE_P))
		return MMU_PB_NOTHING;
	if (flags & MMU_PB_YOUNG)
		t->gpte[index] |= MMU_PTE_A;
	if (!wants(s, t, index, &want))
		return MMU_PB_NOTHING;
	if (want.link) {
		child = get(s, (gfn_t){ want.frame });
		if (!child || ((child->level != t->level - 1 || !child->shadow) && !(flags & MMU_PB_TABLES)))
			return MMU_PB_NO_SHADOW;
		set_level(s, child, t->level - 1);
		child->shadow = true;
	}
	install(s, t, index, &want, source);
	return MMU_PB_BUILT;
}

bool sim_shows(struct sim_shadow *s, gfn_t table, unsigned index)
{
	const struct table *t = find(s, table);

	return t && t->shadow && (t->entries[index].flags & SIM_P);
}

bool sim_read(struct sim_shadow *s, gfn_t table, unsigned index, uint64_t *gpte)
{
	const struct table *t = find(s, table);

	if (!t || !knows(t, index))
		return false;
	*gpte = t->gpte[index];
	return true;
}

/* ---- begin and end ------------------------------------------------------------------------------------------------------------------- */

struct sim_shadow *sim_create(struct replay_source counts[static MMU_SOURCES])
{
	struct sim_shadow *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->counts = counts;
	s->mask = 65535;
	s->tables = calloc(SIM_TABLES, sizeof *s->tables);
	s->frames = calloc((size_t)s->mask + 1, sizeof *s->frames);
	if (s->tables && s->frames)
		return s;
	sim_destroy(s);
	return NULL;
}

void sim_finish(struct sim_shadow *s)
{
	for (uint32_t t = 0; t < s->nr_tables; t++)
		for (unsigned i = 0; i < MMU_ENTRIES; i++) {
			const struct entry *e = &s->tables[t]->entries[i];

			if ((e->flags & (SIM_P | SIM_USED)) == SIM_P && e->source != MMU_SRC_DEMAND)
				s->counts[e->source].unused++;
		}
}

void sim_destroy(struct sim_shadow *s)
{
	for (uint32_t i = 0; s && i < s->nr_tables; i++)
		free(s->tables[i]);
	if (s) {
		free(s->tables);
		free(s->frames);
	}
	free(s);
}
