/*
 * shim_abi.h - what the shim and the VMM share. The shim is ring-3 code of ours inside the guest kernel's address space;
 * all of its memory is writable by the guest kernel, so the VMM takes every value here as hostile: a guest that scribbles
 * over it harms only itself.
 */
#ifndef UMBRA_VMM_SHIM_ABI_H
#define UMBRA_VMM_SHIM_ABI_H

#define SHIM_RING	4096			/* entries, a power of two */
#define SHIM_RING_HIGH	3072			/* with more in it than this the guest lets the VMM read it */

/* Byte offsets into struct shim_data for assembly; shim.c asserts them. */
#define SD_SAVED_RSP	0
#define SD_INFO		8
#define SD_CS		16
#define SD_SS		24
#define SD_CALLS	512
/* the way between user and kernel */
#define SD_RAX		128
#define SD_RCX		136
#define SD_RDX		144
#define SD_RSI		152
#define SD_RDI		160
#define SD_R8		168
#define SD_R9		176
#define SD_R10		184
#define SD_R11		192
#define SD_UF_RIP	200
#define SD_UF_RSP	208
#define SD_UF_FLAGS	216
#define SD_UF_ERROR	224
#define SD_UF_CR2	232
#define SD_GS_USER	240
#define SD_GS_KERNEL	248
#define SD_KERNEL_SP	256
#define SD_SYSCALL_TO	264
#define SD_FAULT_TO	272
#define SD_SYSCALL_MASK	280
#define SD_FAULT_MASK	281
#define SD_TO_USER_OK	282
#define SD_HEAD		284
#define SD_TAIL		288
#define SD_IRETS	296
#define SD_SYSCALLS	304
#define SD_FAULTS	312
#define SD_USER_L4	320
#define SD_UF_CS	328
#define SD_UF_SS	336
#define SD_RING_WATCHED	344
#define SD_FRAME_FLAGS	352
#define SD_FRAME	360

/* User code that a transition inside the VM serves has a selector whose low byte is this: Linux's 0x33, in its GDT and
 * (PVM) in the host's, or Xen's 0xe033. The VMM sees to it that 0x33 is 64-bit code where it exists. */
#define USER_CS_BYTE	0x33
/* Linux's selectors of 64-bit user code and its stack (arch/x86/include/asm/segment.h): the only ones that a return inside
 * the VM loads. */
#define LINUX_USER_CS	0x33
#define LINUX_USER_SS	0x2b
/* RFLAGS that user code may bring into a frame; IF is shown by the upcall mask, IOPL by frame_flags. */
#define USER_FLAGS	0x254dd5 & ~0x200
/* FLAT_RING3_CS64 and _SS64, which a SYSCALL frame shows (xen/arch-x86/xen-x86_64.h) */
#define XEN_USER_CS	0xe033
#define XEN_USER_SS	0xe02b

#ifndef __ASSEMBLER__
#include <stdint.h>

/*
 * A byte of `pins`: the level that the frame is pinned at, and whether it is AWAY: being moved, moved or replicated, so that what
 * RAM_MAP_VA shows is not, or not all of, the frame. Then it is the VMM's.
 *
 * The shim says that it is `inside`, with a full fence, before it looks at the byte, and that it is out again when it no longer
 * uses the frame. Who moves sets AWAY, with a full fence, before it looks whether anybody is inside. So one of the two sees the
 * other (docs/moves.md).
 */
#define SHIM_PIN_LEVEL	7u
#define SHIM_AWAY	0x80u

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
	uint64_t kernel_ss;			/* the shim's: last stack_switch, with kernel_sp */
	uint64_t armed;				/* the VMM's: system time in ns its timer is set to, 0: not set */
	uint64_t deadline;			/* the shim's: the guest's single-shot timer, 0: none */
	uint32_t nr_vcpus;			/* the VMM's */
	uint32_t enabled;			/* the VMM's: bit per SHIM_DOES_* */
	uint32_t vcpu;				/* the VMM's: which this is */
	uint32_t must_flush;			/* the VMM's: a flush has work to do, whatever struct shim_shared says */
	uint32_t multicall_done;		/* the shim's: entries of the multicall it gave up that are done */
	uint32_t moves;				/* the VMM's: frames may be AWAY, look at `pins` before using one by its number */
	uint32_t inside;			/* the shim's: it uses frames by their numbers right now */

	/* between user and kernel mode */
	uint64_t rax __attribute__((aligned(128)));	/* the shim's: user registers while it works */
	uint64_t rcx, rdx, rsi, rdi, r8, r9, r10, r11;
	uint64_t uf_rip, uf_rsp, uf_flags;	/* the shim's: user context to return to, or that it hands to the VMM */
	uint64_t uf_error, uf_cr2;		/* the shim's: the fault it hands to the VMM */
	uint64_t gs_user, gs_kernel;		/* both: GS base of the mode that does not run */
	uint64_t kernel_sp;			/* the shim's: last stack_switch */
	uint64_t syscall_to, fault_to;		/* the VMM's: the guest's handlers, 0: none */
	uint8_t syscall_mask, fault_mask;	/* the VMM's: the handler starts with events masked */
	uint8_t to_user_ok;			/* the VMM's: system calls, faults of and returns to user mode may stay inside the VM */
	uint8_t pad0;
	uint32_t head, tail;			/* ring: the shim writes at head, the VMM has taken all before tail */
	uint32_t pad1;
	uint64_t irets, syscalls, faults;	/* the shim's: transitions done here */
	uint64_t user_l4;			/* the VMM's: gfn */
	uint64_t uf_cs, uf_ss;			/* the shim's, with uf_rip */
	uint8_t ring_watched;			/* the helper thread's: it looks at the ring; the way to user mode need not exit */
	uint64_t frame_flags __attribute__((aligned(8)));	/* the VMM's: RFLAGS bits that frames show, IOPL if the guest wants it */
	uint64_t frame[5];			/* the shim's: for the iretq that loads the user's segments, flags and RSP */

	uint64_t calls[64] __attribute__((aligned(128)));	/* hypercalls done here, by number */
	uint64_t debugreg[8];			/* the VMM's: the guest's, for get_debugreg */
	uint64_t ts;				/* the VMM's: CR0.TS, for fpu_taskswitch */
};

/*
 * One for all vCPUs: whether a flush has anything to do. It has not if every removal has been taken up, nobody works for
 * others or owes them a kick, and no table is out of sync; to be looked at in this order, with nobody beginning to owe
 * meanwhile. docs/smp.md says why.
 */
struct shim_shared {
	uint32_t removals[32];			/* [vcpu] the shim's: entries made weaker; counted after the line in the ring */
	uint32_t seen[32];			/* [vcpu] the VMM's: ... taken up */
	uint8_t owes[32];			/* [vcpu] the VMM's: its thread is out of the guest, or the kicks it went in with are
						 * not known to be over */
	uint32_t epoch;				/* the VMM's: counts each time that somebody began to owe */
	uint32_t unsync;			/* the VMM's: bit 0, a table is out of sync; above, a version */
};

/* Ring-0 memory: the guest cannot write it. */
struct gate_data {
	uint64_t kernel_cr3, user_cr3;		/* always a loaded root: the guest kernel can ask for either at any time */
	uint64_t to_shim[5];			/* frames for iretq */
	uint64_t syscall_frame;
	uint64_t syscall_to_shim[5];
	uint64_t rsp, rax;
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
