/*
 * hot.h - addresses that are wanted again and again, remembered by how often they faulted. For heuristics whose address
 * spaces come and go but look alike: each new one of a kind wants the pages that the ones before it did.
 */
#ifndef UMBRA_HELPER_HOT_H
#define UMBRA_HELPER_HOT_H

#include "helper/space.h"

#define HOT_PAGES	256u	/* a power of two */
#define HOT_YOUNG	4u	/* address spaces in their early life */

struct hot {
	struct {
		uint64_t page;	/* + 1, 0: free */
		uint32_t score;	/* faults there; halved when the place is wanted for another */
	} pages[HOT_PAGES];
	struct {
		gfn_t root;
		unsigned faults_left;
	} young[HOT_YOUNG];
	unsigned next;
};

/* A new address space; its first `early` hidden faults are told to the rest. */
void hot_begin(struct hot *h, gfn_t root, unsigned early);
/* The root is one no longer. */
void hot_end(struct hot *h, gfn_t root);
bool hot_is_young(const struct hot *h, gfn_t root);
/* A hidden fault of the lower half: true if it was one of the early ones of a new address space. */
bool hot_learn(struct hot *h, const struct helper_event *e);
/* Asks for all that is remembered and mapped below `root`. */
void hot_build(struct heuristic_ctx *c, const struct hot *h, gfn_t root);

#endif
