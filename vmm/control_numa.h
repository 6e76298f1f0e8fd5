/*
 * control_numa.h - what the files of the control socket's `numa` share. All on the control thread.
 */
#ifndef UMBRA_VMM_CONTROL_NUMA_H
#define UMBRA_VMM_CONTROL_NUMA_H

#include "vmm/control.h"
#include "vmm/vm.h"

/* One request keeps the thread for about so long; the reply says how far it got, and the client asks for the rest. */
#define NUMA_WORK_NS	500000000ull
#define NUMA_FRAMES_MAX	512u		/* at once */

/* Fills in call->why; returns r. */
int numa_refuse(struct control_call *call, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* 0, or -ENODEV after numa_refuse(). */
int numa_several_nodes(const struct vm *vm, struct control_call *call);
/* Decimal digits only. */
bool numa_number(const char *text, uint64_t *out);
/* Two words: the first frame, and how many. 0 or -errno after numa_refuse(). */
int numa_take_frames(const struct vm *vm, struct control_call *call, char *words[2], uint64_t *first, uint64_t *count);
uint64_t numa_now_ns(void);
/* The host's number of the node of each of n <= NUMA_FRAMES_MAX frames from `gfn` on, negative: not allocated. 0 or -errno. */
int numa_frame_nodes(const struct vm *vm, uint64_t gfn, unsigned n, int *nodes);

control_fn control_numa_move;	/* control_numa_move.c */

#endif
