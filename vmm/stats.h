/*
 * stats.h - what the table and the JSON report share. Not for other modules.
 */
#ifndef UMBRA_VMM_STATS_H
#define UMBRA_VMM_STATS_H

#include <jansson.h>

#include "vmm/vm.h"

/* The counters of a vCPU that may be running. */
void stats_copy(const struct vcpu *v, struct vcpu_counters *c);
/* Sums over the members of one group of counters. */
uint64_t stats_exits(const struct vcpu_counters *c);
uint64_t stats_emulated(const struct vcpu_counters *c);
uint64_t stats_hypercalls(const struct vcpu_counters *c);
uint64_t stats_invm_hypercalls(const struct vcpu_counters *c);

/* The guest's run so far, or the whole of it once it has ended, in ns. */
uint64_t stats_wall_ns(struct vm *vm);
/* TSC cycles in ns; -1: the frequency is not known. */
double stats_cycles_ns(const struct vm *vm, uint64_t cycles);

/* *c -= from and *m -= from, counter by counter. */
void stats_subtract(struct vcpu_counters *c, struct mmu_stats *m, const struct mark *from);

/* The name of hypercall `nr`; of one without a name, a made-up one in `spare`. */
#define STATS_NAME_SIZE	24
const char *stats_hypercall_name(unsigned nr, char spare[static STATS_NAME_SIZE]);

/* Words for the configuration, as the command line has them. */
const char *stats_kick_word(enum vmm_kick kick);
const char *stats_fill_word(enum mmu_fill fill);
const char *stats_prefetch_word(enum mmu_prefetch_kind kind);	/* MMU_PREFETCH_AROUND: "around" */

const char *stats_helper_word(enum vmm_helper helper);
/* stats_helper.c: NULL: no memory. The second while it runs or after it has ended. */
json_t *stats_helper_config(const struct vmm_config *config);
json_t *stats_helper_json(struct vm *vm);

/* placement_json.c: policy, nodes, where the memory is. NULL: no memory. Any thread. */
json_t *placement_json(const struct vm *vm);
/* mover_json.c: its counters. As placement_json(); null: nothing moves. */
json_t *mover_json(const struct vm *vm);

/* stats_locks.c: a list, outermost first. NULL: no memory. */
json_t *stats_locks_json(const struct vcpu_counters *c, const struct mmu_stats *m);

/* numa_report.c: the manager's counters, null if there is none; its last decisions, oldest first; what the counters count. NULL: no
 * memory. Any thread, not for long. */
json_t *numa_manager_json(const struct vm *vm);
json_t *numa_decisions_json(const struct vm *vm, unsigned max);
void numa_manager_describe(json_t *to);

/* stats_ept.c: from the counters of a run, or of a part of it. NULL: no memory. */
json_t *stats_kvm_json(const struct kvm_counts *k);
json_t *stats_ept_json(const struct vm *vm, const struct mmu_stats *m, const struct kvm_counts *k);
void stats_ept_describe(const struct vm *vm, json_t *ept);
json_t *stats_frames_json(const struct vm *vm);

/* For the control socket, which see: 0 or -ENOMEM. stats_live() adds the report's members to `to`, of a guest that runs:
 * without its end, its marks and what would take long to count. */
int stats_live(struct vm *vm, json_t *to);
int stats_info(struct vm *vm, json_t *to);
int stats_describe(json_t *to);

/* For a trace: the configuration and host; counters and marks. JSON text to be freed, NULL: no memory. */
char *stats_config_text(struct vm *vm);
char *stats_result_text(struct vm *vm);

/* What `umbra run` exits with: --expect counts only when nothing else went wrong. */
int stats_exit_code(struct vm *vm);

#endif
