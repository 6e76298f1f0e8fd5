/*
 * model.h - what a report is made of: the numbers of one comparison, taken from JSON and checked.
 *
 * Every value in here is finite or NaN (unknown), every index within its array, every text bounded. Texts are the file's
 * and have to be escaped when they are put anywhere.
 */
#ifndef UMBRA_REPORT_MODEL_H
#define UMBRA_REPORT_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#define MODEL_MODES		24u
#define MODEL_ROWS		64u
#define MODEL_BLOCKS		16u
#define MODEL_SAMPLES		128u	/* of a mode */
#define MODEL_HEURISTICS	64u
#define MODEL_REGIONS		512u
#define MODEL_BUCKETS		1024u
#define MODEL_CLASSES		4u	/* of a fault map: hidden, true, pt_write, other */

struct model_mode {
	char name[40], flags[256], left_out[200];
};

/* A metric in one mode. */
struct model_cell {
	unsigned samples;		/* 0: there are none */
	double median, min, max, ratio, p;
};

struct model_row {
	char id[32], name[40], group[32], what[100];
	bool time;			/* ns; else a count */
	struct model_cell of[MODEL_MODES];
};

/* Metrics per unit of one case, or those of the whole run. */
struct model_block {
	char name[40];
	struct model_row rows[MODEL_ROWS];
	unsigned nr_rows;
	double times[MODEL_MODES][MODEL_SAMPLES];	/* of each sample, ns */
	unsigned nr_times[MODEL_MODES];
};

/* Mean over a mode's samples of what one heuristic did. */
struct model_heuristic {
	unsigned mode, samples;
	char name[40];
	double issued, built, late, dropped, present, nowhere, nothing, no_room;
	double used, unused;		/* of those built, estimated from a sample; NaN: not known */
};

struct model_map {
	double bucket_ns;
	unsigned buckets, regions;	/* 0: there is no map */
	uint64_t first[MODEL_REGIONS], bytes[MODEL_REGIONS];
	uint32_t (*counts)[MODEL_BUCKETS][MODEL_CLASSES];	/* [region] */
};

struct model {
	char title[100], what[200], unit[40], umbra[60], date[40], first_mode[40];
	char cpu[100], kernel[100], kvm[40], memory[20];
	double host_cpus, host_bytes, numa_nodes, load, repetitions, real_below;
	struct model_mode modes[MODEL_MODES];
	unsigned nr_modes;
	struct model_block blocks[MODEL_BLOCKS];
	unsigned nr_blocks;
	struct model_block whole;
	struct model_heuristic heuristics[MODEL_HEURISTICS];
	unsigned nr_heuristics;
	struct model_map maps[MODEL_MODES];
	unsigned failed_runs;
};

/* Takes what `umbra compare` wrote. -EINVAL: it is not that, `why` says what is wrong; -ENOMEM. */
int model_make(struct model *m, const json_t *root, char *why, size_t size);
void model_release(struct model *m);

/* NULL: there is none of that id. */
const struct model_row *model_row(const struct model_block *b, const char *id);

#endif
