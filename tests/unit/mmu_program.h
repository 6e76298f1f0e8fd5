/*
 * mmu_program.h - seeded random programs for mmu/: a guest and a VMM that do what they may do in random order, every
 * answer compared with the model. A program owns a range of guest frames; several programs can run at once on one MMU,
 * each on a processor of its own.
 */
#ifndef UMBRA_TESTS_MMU_PROGRAM_H
#define UMBRA_TESTS_MMU_PROGRAM_H

#include "mmu_world.h"

/* Offsets in the program's range of frames: what the frames are at first. */
#define PROG_L4		16u
#define PROG_L3		20u
#define PROG_L2		26u
#define PROG_L1		36u
#define PROG_LINEAR	60u	/* two level-1 tables: all frames of the range, in order, tables read-only */
#define PROG_DATA	64u
#define PROG_RANGE	1024u	/* frames a program owns; a multiple of 512 */

struct program_options {
	uint64_t seed;
	uint64_t base;		/* first frame of the range; a multiple of 512 */
	bool alone;		/* no other thread: every verdict is checked exactly */
	bool global;		/* may use what is one per MMU: dirty logging */
	bool huge;		/* 1 GiB guest pages, frames outside the range */
	bool remap;
	bool moved;		/* another thread moves frames of the range */
	bool strangers;		/* another thread prebuilds here: A appears in entries, any frame may become a table */
	bool empty;		/* start from zeroed tables and no root loaded */
};

struct program;
/* `cpus`: the processors the program runs on, in turn. */
struct program *program_create(struct world *w, struct world_cpu **cpus, unsigned nr_cpus,
			       const struct program_options *opt);
void program_run(struct program *p, uint64_t steps);
/* Single steps for written tests, kicks done, checked alike. An access ends with the last verdict a fault of it got
 * (MMU_SPURIOUS: it took none); MMU_AGAIN: gave up because of a frame being moved. */
enum mmu_verdict program_access(struct program *p, enum mmu_mode mode, uint64_t va, uint32_t access);
void program_update(struct program *p, uint64_t gfn, unsigned index, uint64_t gpte);
void program_pin(struct program *p, uint64_t gfn, unsigned level);
void program_unpin(struct program *p, uint64_t gfn);
void program_watch(struct program *p, uint64_t gfn);
void program_load(struct program *p, enum mmu_mode mode, uint64_t l4);
void program_kick(struct program *p);
void program_check(struct program *p);	/* all leaves of the shadow, all TLBs, all tables */

/* Everything at rest: flush, kicks, all leaves, all of memory, the audit. */
void program_finish(struct program *p, bool audit);
void program_destroy(struct program *p);

/* Bitmap over all gfns of what the program's side knows was written since the start. */
const uint8_t *program_ever_dirty(const struct program *p);

#endif
