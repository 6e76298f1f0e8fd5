/*
 * profile.h - `umbra run --profile`: where the guest spends its time, by a timer on each vCPU thread.
 *
 * A tick that finds the guest running ends KVM_RUN; the registers it left with are the sample. One that finds the VMM at work
 * is counted for the exit that the VMM handles. A vCPU with nothing to do is not sampled.
 */
#ifndef UMBRA_VMM_PROFILE_H
#define UMBRA_VMM_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct vm;
struct vcpu;
struct gate_exit;
struct symbols;

#define PROFILE_DEPTH	32u	/* frames of a stack, the innermost first */

/* What an address in a stack is. */
enum profile_place {
	PROFILE_KERNEL,			/* start of a function of the guest kernel's, or the address if that is not known */
	PROFILE_USER,			/* a page of user code */
	PROFILE_GATE,			/* our ring-0 code in the VM; no address */
	PROFILE_SHIM,			/* our ring-3 code in the VM; no address */
	PROFILE_VMM,			/* umbra itself; for an address, profile_vmm() */
};

struct profile_frame {
	uint64_t addr;
	uint64_t place;			/* enum profile_place */
};

struct profile_stack {
	uint32_t depth;
	bool user;			/* mode that the sample is of */
	struct profile_frame frame[PROFILE_DEPTH];
};

/* ---- profile_set.c: stacks and how often each was seen --------------------------------------------------------------- */

struct profile_set;

struct profile_set *profile_set_create(void);		/* NULL: no memory */
void profile_set_destroy(struct profile_set *set);	/* NULL is fine */
/* One more of it. What there is no room for is counted as lost. */
void profile_set_add(struct profile_set *set, const struct profile_stack *stack, uint64_t times);
void profile_set_merge(struct profile_set *to, const struct profile_set *from);
uint64_t profile_set_samples(const struct profile_set *set);	/* lost ones included */
uint64_t profile_set_lost(const struct profile_set *set);
/* Lines of "kernel;outermost;...;innermost COUNT", sorted; the form that flame graph tools read. To be freed; NULL: no
 * memory. `syms` may be NULL. */
char *profile_set_folded(const struct profile_set *set, const struct symbols *syms);

/* ---- profile_stack.c: the stack of a guest that stopped ---------------------------------------------------------------- */

/* Reads `n` bytes of the guest kernel's memory. 0 or -EFAULT. */
typedef int profile_read_fn(void *arg, uint64_t va, void *to, size_t n);

/* What is known of the kernel's code from earlier walks. Zeroed at first; one per thread. */
#define PROFILE_CACHE	1024u
struct profile_cache {
	struct profile_call {
		uint64_t ret, target;
		uint32_t kind;
	} calls[PROFILE_CACHE];			/* what stands before a return address */
	struct profile_jump {
		uint64_t from, to;
		uint32_t answer;
	} jumps[PROFILE_CACHE];			/* whether a function jumps to another */
};

/*
 * Adds to `stack` the callers of kernel code at `rip` whose stack pointer is `rsp`. The kernel has neither frame pointers nor
 * tables that we could trust, so the stack is searched for return addresses: words behind a call instruction that leads to
 * the function below, or to one that jumps to it, or else through a pointer. What lies on the stack from earlier calls passes
 * that test seldom. A function that was left by a jump is not on the stack, and so not shown. `rip` 0: the innermost frame is
 * not the kernel's.
 */
void profile_walk(struct profile_stack *stack, uint64_t rip, uint64_t rsp, const struct symbols *syms,
		  struct profile_cache *cache, profile_read_fn *read, void *arg);

/* ---- flame.c ------------------------------------------------------------------------------------------------------------- */

/* Draws folded stacks as a flame graph: one SVG file that needs no other. 0, -EINVAL: not folded stacks, or none; -ENOMEM. */
int flame_write(FILE *to, const char *folded, const char *title);

/* ---- profile.c: in a VM. Without --profile each of these does nothing ---------------------------------------------------- */

/* Before the vCPUs run. 0 or -errno. */
int profile_start(struct vm *vm);
/* On the vCPU's thread. */
void profile_thread_begin(struct vcpu *v);
void profile_thread_end(struct vcpu *v);
/* Around a wait: it is not the guest's time. */
void profile_pause(struct vcpu *v, bool pause);
/* After an exit, and after it was handled: takes the samples that are due. */
void profile_after_exit(struct vcpu *v, const struct gate_exit *e);
void profile_after_handling(struct vcpu *v);
/* Once the vCPUs have ended: writes FILE and FILE.svg. 0 or -errno, with a message. */
int profile_finish(struct vm *vm);
void profile_free(struct vm *vm);

#endif
