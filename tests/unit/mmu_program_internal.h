/*
 * mmu_program_internal.h - shared by the files of mmu_program.
 */
#ifndef UMBRA_TESTS_MMU_PROGRAM_INTERNAL_H
#define UMBRA_TESTS_MMU_PROGRAM_INTERNAL_H

#include "mmu_program.h"

enum when_kind { WHEN_FLUSH, WHEN_ENTRY, WHEN_VA, WHEN_PIN, WHEN_WATCH };

/* What holds from the moment the kicks of `cpus` are done. */
struct when {
	enum when_kind kind;
	unsigned cpus;		/* bits */
	uint64_t at, gfn, va, l4[2];
	unsigned index;
};

#define REPLICAS	8u

/* A replicated frame, from then on until no copy but one is in use. */
struct replica {
	uint64_t gfn;
	uint64_t at[MMU_MAX_NODES + 1];	/* with where it stood before, each once */
	unsigned nr_at;
};

struct program {
	struct world *w;
	struct world_cpu *cpus[WORLD_CPUS];
	unsigned nr_cpus;
	struct world_cpu *cpu;		/* of this step */
	struct program_options opt;
	struct mmu_model *m;
	uint64_t rng, step;
	struct when when[64];
	unsigned nr_when;
	uint64_t moving, moving_to;	/* MODEL_NONE: no frame is being moved */
	uint64_t hot[16];		/* addresses that were just used: where stale entries are */
	unsigned nr_hot;
	uint64_t spare[WORLD_SPARE];
	unsigned nr_spare;
	struct replica replicas[REPLICAS];
	unsigned nr_replicas;
	bool logging;
	uint8_t *ever_dirty;
};

static inline unsigned below(struct program *p, unsigned n)
{
	return rng_below(&p->rng, n);
}

static inline bool percent(struct program *p, unsigned n)
{
	return rng_percent(&p->rng, n);
}

/* mmu_program_guest.c: what the guest is made of, and what it may write. */
unsigned level_of(const struct program *p, uint64_t gfn);	/* the use a frame has at first; 0: data */
uint64_t some_table(struct program *p, unsigned level);
uint64_t some_data(struct program *p);
unsigned some_index(struct program *p, unsigned level);
uint64_t some_va(struct program *p);
uint64_t linear_va(const struct program *p, uint64_t gfn, unsigned index);	/* where the guest kernel sees it */
uint64_t some_gpte(struct program *p, unsigned level);
uint64_t some_word(struct program *p, uint64_t gfn);
uint32_t some_access(struct program *p);
bool is_linear(const struct program *p, uint64_t gfn, unsigned index);
void set_up_tables(struct program *p);

/* mmu_program.c: promises and checks. */
bool same_word(const struct program *p, uint64_t is, uint64_t was);	/* A that a stranger set aside, which an update may have kept */
void when_done(struct program *p, struct when w);	/* `w` holds once the kicks owed now are done */
void kick(struct program *p, struct world_cpu *cpu);
void kick_all(struct program *p);
int64_t frame_of(struct program *p, uint64_t mfn);
void check_translation(struct program *p, enum mmu_mode mode, uint64_t l4, uint64_t va, uint32_t access, uint64_t mfn,
		       const char *who);
void check_all(struct program *p);

/* mmu_program_access.c */
struct mmu_result take_fault(struct program *p, enum mmu_mode mode, uint64_t va, uint32_t access, bool *starve);
bool on_path(const struct model_walk *walk, uint64_t gfn);

/* mmu_program_steps.c */
void load_root(struct program *p, enum mmu_mode mode, uint64_t l4);
void remap_finish(struct program *p);
bool is_replicated(const struct program *p, uint64_t gfn);
void release_replicas(struct program *p);	/* all of them; does the kicks */
void one_step(struct program *p);

#endif
