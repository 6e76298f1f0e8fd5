/*
 * shim_abi.h - what the shim and the VMM share. The shim is ring-3 code of ours inside the guest kernel's address space;
 * all of its memory is writable by the guest kernel, so the VMM takes every value here as hostile: a guest that scribbles
 * over it harms only itself.
 */
#ifndef UMBRA_VMM_SHIM_ABI_H
#define UMBRA_VMM_SHIM_ABI_H

#define SHIM_RING	4096			/* entries, a power of two */

/* Byte offsets into struct shim_data for assembly; shim.c asserts them. */
#define SD_SAVED_RSP	0
#define SD_INFO		8
#define SD_CS		16
#define SD_SS		24
#define SD_CALLS	128

#ifndef __ASSEMBLER__
#include <stdint.h>

/* A ring entry: gfn << 12 | index << 3 | what. */
enum shim_log {
	SHIM_UPDATE,				/* entry `index` of table `gfn` was stored to */
	SHIM_PIN1, SHIM_PIN2, SHIM_PIN3, SHIM_PIN4,
	SHIM_UNPIN,
};

struct shim_data {
	uint64_t saved_rsp;			/* the shim's: where its saved registers lie, 0 outside a call */
	uint64_t info;				/* the VMM's: address of this vCPU's vcpu_info, in the shim's maps */
	uint64_t cs, ss;			/* the VMM's: selectors that a native iretq can load for kernel mode */
	uint64_t kernel_l4;			/* the VMM's: gfn */
	uint64_t ram_frames, nr_gfns;		/* the VMM's */
	uint64_t kernel_ss, kernel_sp;		/* the shim's: last stack_switch */
	uint64_t gs_user;			/* both: what GS will be in user mode */
	uint64_t armed;				/* the VMM's: system time in ns its timer is set to, 0: not set */
	uint64_t deadline;			/* the shim's: the guest's single-shot timer, 0: none */
	uint32_t nr_vcpus;			/* the VMM's */
	uint32_t enabled;			/* the VMM's: bit per SHIM_DOES_* */
	uint32_t head, tail;			/* ring: the shim writes at head, the VMM has taken all before tail */
	uint32_t removed;			/* the shim's: an entry that was present changed since the VMM last looked */
	uint32_t must_flush;			/* the VMM's: a flush has work to do (tables out of sync) */
	uint32_t multicall_done;		/* the shim's: entries of the multicall it gave up that are done */
	uint64_t calls[64] __attribute__((aligned(128)));	/* hypercalls done here, by number */
	uint64_t debugreg[8];			/* the VMM's: the guest's, for get_debugreg */
};

/* What --shim= can switch. X(name, hypercalls) */
#define SHIM_FEATURES(X) \
	X(mmu, "mmu_update, update_va_mapping") \
	X(mmuext, "pin, unpin, flushes that have nothing to do") \
	X(multicall, "multicalls of the others") \
	X(stack, "stack_switch") \
	X(segment, "set_segment_base") \
	X(timer, "single-shot timers not due before the VMM looks again") \
	X(misc, "fpu_taskswitch, is_up, event checks with no event, get_debugreg") \
	X(iret, "iret within the kernel")

enum {
#define X(name, what) SHIM_BIT_##name,
	SHIM_FEATURES(X)
#undef X
	SHIM_BITS,
};
#define SHIM_DOES(name)	(1u << SHIM_BIT_##name)
#endif

#endif
