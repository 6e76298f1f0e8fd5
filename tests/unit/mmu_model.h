/*
 * mmu_model.h - what shadow paging has to be equal to: a naive walker of the guest's tables, written from the SDM
 * alone, and the set of translations a TLB may lawfully hold.
 *
 * The model keeps its own copy of guest memory. Every change of a word goes through model_store(), which remembers the
 * value replaced; a flush of the guest's, once complete, forgets what was replaced before it. A translation is lawful
 * if a processor that caches entries of every level (SDM vol. 3A, 4.10) could have formed it since the last flush: the
 * entries were each in place at some moment, and the moments do not run backwards from root to leaf.
 *
 * Shares no code with mmu/ except the constants of mmu.h. One thread per model.
 */
#ifndef UMBRA_TESTS_MMU_MODEL_H
#define UMBRA_TESTS_MMU_MODEL_H

#include "mmu/mmu.h"

#define MODEL_NONE	(~0ull)

enum model_verdict { MODEL_OK, MODEL_TRUE, MODEL_BAD };

struct model_step {
	uint64_t gfn;		/* table */
	unsigned index, level;
	uint64_t gpte;
};

struct model_walk {
	enum model_verdict verdict;
	uint32_t error_code;	/* when not MODEL_OK */
	unsigned depth;		/* entries read: path[0] is level 4 */
	struct model_step path[MMU_LEVELS];
	bool leaf;		/* the walk got to a leaf entry: the next five are valid */
	uint64_t gfn;		/* 4 KiB frame named, in range or not */
	bool w, u, nx;		/* combined over the levels */
	bool in_range;
};

struct model_old {		/* a value that is no more */
	uint64_t word;		/* gfn * 512 + index */
	uint64_t gpte;
	uint64_t from, to;	/* `from`: since when the entry names the same target without a break */
	uint32_t next;
};

struct model_floor {		/* invlpg: from `at` on, this address of this space was cached anew */
	uint64_t l4, vpn, at;
	enum mmu_mode mode;
};

enum model_watch { WATCH_OFF, WATCH_MAYBE, WATCH_ON, WATCH_SEEN };	/* SEEN: its kicks are done */

struct mmu_model {
	uint64_t nr_gfns;
	bool nx;
	bool any_table;			/* others prebuild: any frame may be a table that no walk went through, and A be set
					 * in any entry behind our back */
	uint64_t now;			/* counts events */
	uint64_t flushed;		/* nothing read before this moment may still be cached */
	uint64_t *mem;			/* [gfn * 512 + index]; all arrays are mapped, untouched pages cost nothing */
	uint64_t *since;		/* when the present value's target was set */
	uint64_t *updated;		/* moment of the last completed explicit update */
	uint64_t *let_through;		/* [gfn]: when a write to it by a read-only gPTE was granted last */
	uint32_t *old_head;		/* index + 1 into old[] */
	struct model_old *old;
	uint32_t nr_old, cap_old;
	struct model_floor *floors;
	uint32_t nr_floors, cap_floors;

	/* per frame */
	uint8_t *pin;			/* level pinned at, 0: not */
	uint8_t *pin_seen;		/* the pin's kicks are done */
	uint8_t *ever;			/* bit l: a walk used the frame as a table of level l */
	uint8_t *dirty;			/* written since the last fetch */
	uint8_t *may_dirty;		/* a write to it was granted since the last fetch */
	uint8_t *watched;		/* enum model_watch */
	uint8_t *fixed;			/* mmu_fix() calls */
};

struct mmu_model *model_create(uint64_t nr_gfns, bool nx);
void model_destroy(struct mmu_model *m);

static inline unsigned model_index(uint64_t va, unsigned level)
{
	return va >> (12 + 9 * (level - 1)) & 511;
}

static inline uint64_t model_load(const struct mmu_model *m, uint64_t gfn, unsigned index)
{
	return m->mem[gfn * 512 + index];
}

/* The guest, or the VMM for it, stores `value`: history is kept, the frame is dirty. */
void model_store(struct mmu_model *m, uint64_t gfn, unsigned index, uint64_t value);
/* A processor sets A or D: no history, the frame is dirty. */
void model_set_bits(struct mmu_model *m, uint64_t gfn, unsigned index, uint64_t bits);

/* A write to the frame by a read-only gPTE was granted: lawful until the next flush. */
void model_let_through(struct mmu_model *m, uint64_t gfn);

/* Completed at the moment `at` (a value of m->now): a flush of everything, of one entry's shadows, of one address. */
void model_flush_all(struct mmu_model *m, uint64_t at);
void model_flush_entry(struct mmu_model *m, uint64_t gfn, unsigned index, uint64_t at);
void model_flush_va(struct mmu_model *m, uint64_t l4, enum mmu_mode mode, uint64_t va, uint64_t at);

/* The guest tables as they are now. `access`: MMU_PF_W, MMU_PF_FETCH. */
void model_walk(const struct mmu_model *m, uint64_t l4, enum mmu_mode mode, uint64_t va, uint32_t access,
		struct model_walk *out);

/* May a TLB hold `va` -> gfn with the right to do `access`? */
bool model_lawful(const struct mmu_model *m, uint64_t l4, enum mmu_mode mode, uint64_t va, uint32_t access,
		  uint64_t gfn);

/* What mmu_fault() may answer. `root_in_use`: the frame the walk ends at is a root loaded on some cpu. */
struct model_expect {
	unsigned verdicts;	/* bit per enum mmu_verdict; MMU_AGAIN is the caller's business */
	uint32_t error_code;	/* for MMU_TRUE and MMU_BAD */
	bool may_starve;	/* the write would tear down the path it uses: no progress is owed */
};
#define MODEL_MAY(v)	(1u << (v))
#define MODEL_GRANTS	(MODEL_MAY(MMU_HIDDEN) | MODEL_MAY(MMU_SPURIOUS) | MODEL_MAY(MMU_PTWRITE))
void model_expect(const struct mmu_model *m, const struct model_walk *walk, enum mmu_mode mode, uint32_t access,
		  bool root_in_use, struct model_expect *out);

#endif
