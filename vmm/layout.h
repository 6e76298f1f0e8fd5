/*
 * layout.h - the address map: what stands where in the VM's physical space and in the guest's address space.
 *
 * VM physical space (machine frames), two KVM slots, and one more per node if frames move between nodes (docs/moves.md):
 *
 *   0            guest RAM                                     slot 0, memfd
 *   ram          shared_info            <- the last gfn the guest may name
 *   ram + 1      gate page, IDT         \
 *   ram + 16     vCPU areas, 64 frames each                    slot 1: the monitor's memory, memfd
 *                monitor page tables
 *   (2 MiB)      M2P, 8 bytes per gfn   /
 *   (2 MiB)      shadow pool            /
 *
 * Guest address space: the hole that the Xen ABI leaves to the hypervisor, L4 slots 256-271. All of it is supervisor
 * (the guest runs at ring 3) but for what is marked user:
 *
 *   slot 256,257 empty; a PVM host cannot run with 256 mapped
 *   slot 258     M2P, user read-only                           kernel roots only
 *   slot 259     gate page, IDT, vCPU areas                    every root
 *   slot 260     the tables that the processor walks, for the kick loop: shadow pool, or guest RAM; every root
 *   slot 261     shim: code, data, ring, stack, pins; user      kernel roots only, of each vCPU's own
 *   slot 264-271 guest RAM by physical address, user, for the shim       kernel roots only
 *                read-only where the tables in it are walked
 */
#ifndef UMBRA_VMM_LAYOUT_H
#define UMBRA_VMM_LAYOUT_H

#define HOLE_START		0xffff800000000000
#define HOLE_END		0xffff880000000000	/* exclusive */
#define HOLE_SLOT_FIRST		256
#define HOLE_SLOT_M2P		258
#define HOLE_SLOT_GATE		259
#define HOLE_SLOT_POOL		260
#define HOLE_SLOT_SHIM		261
#define HOLE_SLOT_RAM		264

#define M2P_VA			0xffff810000000000
#define GATE_VA			0xffff818000000000
#define IDT_VA			(GATE_VA + 0x1000)
#define VCPU_AREA_VA(id)	(GATE_VA + 0x10000 + (id) * (VCPU_AREA_PAGES * 0x1000ull))
#define POOL_VA			0xffff820000000000
#define SHIM_VA			0xffff828000000000
#define SHIM_CODE_PAGES		4
#define SHIM_DATA_VA		(SHIM_VA + 0x10000)	/* one page */
#define SHIM_INFO_VA		(SHIM_VA + 0x11000)	/* shared_info */
#define SHIM_RING_VA		(SHIM_VA + 0x12000)	/* eight pages */
#define SHIM_RING_PAGES		8
#define SHIM_SHARED_VA		(SHIM_VA + 0x1a000)	/* struct shim_shared */
#define SHIM_STACK_VA		(SHIM_VA + 0x1c000)	/* two pages, for what the shim does between user and kernel */
#define SHIM_VCPU_INFO_VA	(SHIM_VA + 0x1e000)	/* --mmu=nested: the frame that the guest moved its vcpu_info to */
#define SHIM_EXIT_VA		(SHIM_VA + 0x1f000)	/* no memory behind it: a store ends KVM_RUN (shim.c) */
#define SHIM_EXIT_CALL		0	/* ... asking for a hypercall, registers as SYSCALL leaves them */
#define SHIM_EXIT_USER		8	/* ... handing over a user fault or system call */
#define SHIM_FRAME_VA		(SHIM_VA + 0x20000)	/* two pages, read-only: the ring-0 stack and struct gate_data */
#define SHIM_PINS_VA		(SHIM_VA + 0x40000000)	/* a byte per gfn: the level it is pinned at, 0 not; for all vCPUs */
#define RAM_MAP_VA		0xffff840000000000
#define RAM_MAP_MAX		(8ull << 39)

/* Frames of the monitor's slot, relative to its start. */
#define MON_SHARED_INFO		0
#define MON_GATE		1
#define MON_IDT			2
#define MON_GATE_USER		3	/* the gate page that user roots show */
#define MON_SHIM_CODE		4
#define MON_SHIM_SHARED		8
#define MON_VCPU_AREAS		16

/* Pages of one vCPU area. */
#define VCPU_AREA_PAGES		64
#define AREA_STACK		1	/* ring-0 stack: exception frames come in, resume frames go out. Page 0 is a guard */
#define AREA_GATE_DATA		2	/* struct gate_data; must follow the stack: the gate finds it from RSP */
#define AREA_TSS		3
#define AREA_KICKS		4	/* addresses for the kick loop */
#define AREA_KICK_PAGES		8
#define AREA_GDT		16	/* 16 pages: the guest's entries, copied; from page 14 on Xen's reserved ones */
#define AREA_LDT		32	/* 16 pages */
#define AREA_SHIM_DATA		48
#define AREA_SHIM_RING		49	/* SHIM_RING_PAGES */
#define AREA_SHIM_STACK		58	/* two pages */

/* Ring-0 selectors, in the reserved part of the GDT (Xen's own selectors in xen/arch-x86/xen-x86_64.h end at 0xe04f). */
#define GATE_CS			0xe100
#define GATE_SS			0xe108	/* must follow GATE_CS: SYSCALL loads CS and CS+8 (SDM vol. 3A, 5.8.8) */
#define GATE_TSS		0xe110	/* two entries */
#define GATE_LDT		0xe120	/* two entries */

/* `out` ports of the gate page. Width 1: an exception, the port is its vector. Width 4: one of these. */
#define GATE_PORT_SYSCALL	0	/* SYSCALL reached ring 0 */
#define GATE_PORT_SYSCALL32	1	/* ... from compatibility mode */
#define GATE_PORT_KICKED	2	/* the kick loop has come to its end */

/* Offsets of the gate page's code; gate.S is laid out by them. */
#define GATE_STUB_SIZE		8	/* vector v: v * 8 */
#define GATE_SYSCALL		0x800
#define GATE_SYSCALL32		0x808
#define GATE_IRET		0x810
#define GATE_IRET_CR3		0x820
#define GATE_KICK		0x840
#define GATE_KICK_EXIT		0x880
#define GATE_CODE_END		0x8c0	/* of the way in; behind it the transitions that stay inside the VM */
#define GATE_USER_FAULT		0x8c0	/* fetched from ring 3: the shim hands a user fault or system call to the VMM */
#define GATE_PF			0x900	/* IDT entry 14 */
#define GATE_BP			0x940	/* IDT entry 3 */
#define GATE_BP_RIP		(GATE_BP + 3)	/* 32 bits: low half of the RIP that the shim's int3 leaves */
#define GATE_SYSCALL_RING0	0x980
#define GATE_SIZE		0xa00

/* struct gate_data by offset: ring-0 memory at the top of the ring-0 stack (gate.S, entry.c). */
#define GD_KERNEL_CR3		0
#define GD_USER_CR3		8
#define GD_TO_SHIM		16	/* a frame for iretq: the shim takes over from user mode after #PF ... */
#define GD_SYSCALL_FRAME	56	/* the address of another, behind it: ... after SYSCALL at ring 0 ... */
#define GD_RSP			104	/* ... which leaves the user's RSP and RAX here */
#define GD_RAX			112
/* What #PF leaves below the top of the ring-0 stack, for the shim. */
#define GF_CR2			-64
#define GF_RAX			-56
#define GF_ERROR		-48
#define GF_RIP			-40
#define GF_CS			-32
#define GF_FLAGS		-24
#define GF_RSP			-16
#define GF_SS			-8
/* From the top of the ring-0 stack to struct shim_data. */
#define GD_SHIM_DATA		((AREA_SHIM_DATA - AREA_GATE_DATA) * 4096)

#endif
