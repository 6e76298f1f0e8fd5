/*
 * prebuild.h - what prebuild.c and prebuild_tree.c share. Not for other files.
 */
#ifndef UMBRA_MMU_PREBUILD_H
#define UMBRA_MMU_PREBUILD_H

#include "mmu/internal.h"

#define MAX_SHADOWS	64u	/* of one table: 4 levels by 3 roles by nodes, and views of roots; more are passed over */
#define RUN		32u	/* leaves built while one lock is held */
#define NOT_KNOWN	(~0u)

/* An entry of a page of the shadow, as far as we know. */
struct place {
	uint32_t page, gen;
	unsigned index;
};

/* An absent link, and if MMU_PB_TABLES allows the table below. No locks held. `child`: the page that shows it, linked here or
 * not; NOT_KNOWN. */
enum mmu_prebuilt prebuild_link(struct mmu_cpu *cpu, const struct place *at, const struct want *want, unsigned flags,
				struct place *child);

#endif
