/*
 * faultmap.c - a histogram of faults whose scales follow the run.
 *
 * A row is a range of granules of 2 MiB, from the first fault's to the last's; rows are disjoint. When there are too many,
 * two neighbours become one: those that hold few faults and lie close together, for they say the least apart. So the
 * stacks that address space randomization scatters end up in a row or two, and busy places keep rows of their own.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/faultmap.h"

#define FIRST_BUCKET_SHIFT	20u	/* 1 ms */
#define GRANULE_SHIFT		21u
#define GRANULES		(1u << (48 - GRANULE_SHIFT))
#define SLOT_SHIFT		(39 - GRANULE_SHIFT)	/* what one entry of a root table maps: 512 GiB */

typedef uint32_t cell[FAULTMAP_NR_CLASSES];

struct row {
	uint32_t first, last;			/* granules */
	uint64_t faults;
};

struct faultmap {
	unsigned shift;				/* a bucket is 1 << shift ns */
	unsigned buckets;			/* in use */
	unsigned rows;				/* in use, one more than FAULTMAP_ROWS for a moment */
	uint8_t order[FAULTMAP_ROWS + 1];	/* their numbers by address; behind them the free ones */
	struct row row[FAULTMAP_ROWS + 1];
	cell cells[FAULTMAP_ROWS + 1][FAULTMAP_BUCKETS];
};

struct faultmap *faultmap_new(void)
{
	struct faultmap *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	m->shift = FIRST_BUCKET_SHIFT;
	for (unsigned i = 0; i <= FAULTMAP_ROWS; i++)
		m->order[i] = i;
	return m;
}

static void add_cells(cell *to, const cell *from, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		for (unsigned c = 0; c < FAULTMAP_NR_CLASSES; c++)
			to[i][c] += from[i][c];
}

static void double_buckets(struct faultmap *m)
{
	for (unsigned i = 0; i < m->rows; i++) {
		cell *cells = m->cells[m->order[i]];

		for (unsigned t = 0; t < FAULTMAP_BUCKETS / 2; t++) {
			if (t)
				memcpy(&cells[t], &cells[2 * t], sizeof(cell));
			add_cells(&cells[t], &cells[2 * t + 1], 1);
		}
		memset(&cells[FAULTMAP_BUCKETS / 2], 0, FAULTMAP_BUCKETS / 2 * sizeof(cell));
	}
	m->shift++;
	m->buckets = (m->buckets + 1) / 2;
}

static struct row *row_at(struct faultmap *m, unsigned place)
{
	return &m->row[m->order[place]];
}

/* The place of the first row that does not end before `granule`. */
static unsigned find_place(struct faultmap *m, uint32_t granule)
{
	unsigned low = 0, high = m->rows;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (row_at(m, mid)->last < granule)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void insert(struct faultmap *m, unsigned place, uint32_t first, uint32_t last)
{
	uint8_t nr = m->order[m->rows];

	memmove(&m->order[place + 1], &m->order[place], m->rows - place);
	m->order[place] = nr;
	m->rows++;
	m->row[nr] = (struct row){ first, last, 0 };
}

/* The row at `place` takes over the one behind it, and what lies between. */
static void join(struct faultmap *m, unsigned place)
{
	uint8_t to = m->order[place], from = m->order[place + 1];

	m->row[to].last = m->row[from].last;
	m->row[to].faults += m->row[from].faults;
	add_cells(m->cells[to], m->cells[from], FAULTMAP_BUCKETS);
	memset(m->cells[from], 0, sizeof m->cells[from]);
	m->rows--;
	memmove(&m->order[place + 1], &m->order[place + 2], m->rows - place - 1);
	m->order[m->rows] = from;
}

/* What is lost if the rows at `place` and behind it become one; across slots of the root table only when all are. */
static double join_cost(struct faultmap *m, unsigned place)
{
	const struct row *a = row_at(m, place), *b = row_at(m, place + 1);
	unsigned bits = 32 - __builtin_clz(b->last - a->first);
	double cost = (a->faults + b->faults + 8.0) * (16 + bits);

	return a->first >> SLOT_SHIFT == b->last >> SLOT_SHIFT ? cost : cost * 1e30;
}

static void join_cheapest(struct faultmap *m)
{
	unsigned best = 0;
	double least = join_cost(m, 0), cost;

	for (unsigned i = 1; i + 1 < m->rows; i++) {
		cost = join_cost(m, i);
		if (cost < least) {
			least = cost;
			best = i;
		}
	}
	join(m, best);
}

/* The number of the row that holds all of first..last, made of those it touches if need be. */
static uint8_t row_for(struct faultmap *m, uint32_t first, uint32_t last)
{
	unsigned place = find_place(m, first);
	struct row *row;

	if (place == m->rows || row_at(m, place)->first > last) {
		insert(m, place, first, last);
	} else {
		while (place + 1 < m->rows && row_at(m, place + 1)->first <= last)
			join(m, place);
		row = row_at(m, place);
		row->first = first < row->first ? first : row->first;
		row->last = last > row->last ? last : row->last;
	}
	if (m->rows > FAULTMAP_ROWS)
		join_cheapest(m);
	return m->order[find_place(m, first)];
}

static void count(struct faultmap *m, uint8_t nr, uint64_t ns, enum faultmap_class class, uint32_t n)
{
	uint64_t t;

	while ((t = ns >> m->shift) >= FAULTMAP_BUCKETS)
		double_buckets(m);
	if (t >= m->buckets)
		m->buckets = t + 1;
	m->cells[nr][t][class] += n;
	m->row[nr].faults += n;
}

void faultmap_add(struct faultmap *m, uint64_t va, uint64_t ns, enum faultmap_class class)
{
	uint32_t granule = va >> GRANULE_SHIFT & (GRANULES - 1);

	count(m, row_for(m, granule, granule), ns, class, 1);
}

void faultmap_merge(struct faultmap *to, const struct faultmap *from)
{
	while (to->shift < from->shift)
		double_buckets(to);
	for (unsigned i = 0; i < from->rows; i++) {
		uint8_t f = from->order[i], nr = row_for(to, from->row[f].first, from->row[f].last);

		for (unsigned t = 0; t < from->buckets; t++)
			for (unsigned c = 0; c < FAULTMAP_NR_CLASSES; c++)
				if (from->cells[f][t][c])
					count(to, nr, (uint64_t)t << from->shift, c, from->cells[f][t][c]);
	}
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static int row_json(const struct faultmap *m, unsigned place, json_t *regions, json_t *cells)
{
	const struct row *row = &m->row[m->order[place]];
	uint64_t va = (uint64_t)row->first << GRANULE_SHIFT;
	char first[24];
	int r;

	snprintf(first, sizeof first, "0x%016" PRIx64, (uint64_t)((int64_t)(va << 16) >> 16));
	r = json_array_append_new(regions, json_pack("{ss sI}", "first", first, "bytes",
						     (json_int_t)(row->last - row->first + 1) << GRANULE_SHIFT));
	for (unsigned t = 0; t < m->buckets; t++) {
		const uint32_t *n = m->cells[m->order[place]][t];

		_Static_assert(FAULTMAP_NR_CLASSES == 4, "four follow");
		if (n[0] | n[1] | n[2] | n[3])
			r |= json_array_append_new(cells, json_pack("[i, i, I, I, I, I]", (int)place, (int)t, (json_int_t)n[0],
								    (json_int_t)n[1], (json_int_t)n[2], (json_int_t)n[3]));
	}
	return r;
}

json_t *faultmap_json(const struct faultmap *m)
{
	json_t *regions = json_array(), *cells = json_array(), *classes = json_array();
	int r = 0;

#define X(name, what) r |= json_array_append_new(classes, json_string(#name));
	FAULTMAP_CLASSES(X)
#undef X
	for (unsigned i = 0; i < m->rows; i++)
		r |= row_json(m, i, regions, cells);
	if (r) {
		json_decref(regions);
		json_decref(cells);
		json_decref(classes);
		return NULL;
	}
	return json_pack("{sI si so so so}", "bucket_ns", (json_int_t)1 << m->shift, "buckets", (int)m->buckets, "classes",
			 classes, "regions", regions, "cells", cells);
}
