/*
 * faultmap.h - where and when faults came: counts over guest addresses, time and class, in bounded memory.
 *
 * Each vCPU that is asked for it (--fault-map) fills a map of its own; nobody else looks before the vCPU has ended. The
 * scales adapt: when the run outlasts the map its time buckets double; when faults spread over more regions than it has
 * rows for, neighbours that lost little by it become one. No count is ever lost.
 */
#ifndef UMBRA_VMM_FAULTMAP_H
#define UMBRA_VMM_FAULTMAP_H

#include <stdint.h>

#include <jansson.h>

#define FAULTMAP_BUCKETS	128u	/* of time */
#define FAULTMAP_ROWS		96u	/* of addresses */

/* X(name, "what"): faults that exit. True faults passed on inside the VM are not among them. */
#define FAULTMAP_CLASSES(X) \
	X(hidden,	"the shadow alone lacked it") \
	X(true,		"reflected into the guest") \
	X(pt_write,	"write to a page table") \
	X(other,	"spurious, or put off")

enum faultmap_class {
#define X(name, what) FAULTMAP_##name,
	FAULTMAP_CLASSES(X)
#undef X
	FAULTMAP_NR_CLASSES
};

struct faultmap;

/* NULL: no memory. free() ends it. */
struct faultmap *faultmap_new(void);
/* Counts a fault at `va`, `ns` after the start of the run. */
void faultmap_add(struct faultmap *m, uint64_t va, uint64_t ns, enum faultmap_class class);
/* Adds what `from` counted, on scales at least as coarse. */
void faultmap_merge(struct faultmap *to, const struct faultmap *from);
/* {"bucket_ns", "buckets", "classes": [name...], "regions": [{"first": "0x...", "bytes"}...] by address, "cells":
 * [[region, bucket, count of each class...]...]}. NULL: no memory. */
json_t *faultmap_json(const struct faultmap *m);

#endif
