/*
 * gate.S - the gate page: the only ring-0 code in the VM. Mapped supervisor at GATE_VA in every root.
 *
 * There are three of it, alike but for a few bytes. The root decides which one the processor finds, so neither the gate
 * nor the VMM needs a flag for the mode the guest is in: an exception that arrives on the user root comes from user mode.
 *
 *   gate_plain	every exception and SYSCALL goes to the VMM (--gates=vmm)
 *   gate_kernel	kernel roots: but for the shim's own int3
 *   gate_user	user roots: #PF and SYSCALL go on in the shim
 *
 * On VT-x/SVM it runs natively. On a PVM host ring 0 is emulated, up to a microsecond per instruction, so every path is
 * a handful. Nothing here changes a segment register or the guest's GS.
 */
#include "vmm/layout.h"
#include "vmm/shim_abi.h"

	.macro	gate page, in_kernel, in_user
	.balign	4096, 0xf4
	.globl	\page
\page:
/* IDT entries: tell the VMM the vector; the exception frame lies at RSP. The VMM always leaves through a stub below. */
	.set	vector, 0
	.rept	256
	outb	%al, $vector
	hlt					# not reached
	.balign	GATE_STUB_SIZE, 0xf4
	.set	vector, vector + 1
	.endr

/* LSTAR, CSTAR: RSP is still the guest's, RCX and R11 hold RIP and RFLAGS. */
	.org	\page + GATE_SYSCALL, 0xf4
	.if	\in_user
	jmp	\page + GATE_SYSCALL_RING0
	.else
	outl	%eax, $GATE_PORT_SYSCALL
	hlt
	.endif
	.org	\page + GATE_SYSCALL32, 0xf4
	outl	%eax, $GATE_PORT_SYSCALL32
	hlt

/* To the guest, same root. RSP: struct gate_frame. */
	.org	\page + GATE_IRET, 0xf4
	iretq

/* To the guest on another root, or with the TLB flushed. RSP: CR3, RAX, struct gate_frame. */
	.org	\page + GATE_IRET_CR3, 0xf4
	popq	%rax
	movq	%rax, %cr3
	popq	%rax
	iretq

/*
 * The kick loop (coherence rule 4): where KVM itself shadows our tables it sees only writes from inside the VM. An atomic
 * OR of nothing is such a write, and cannot lose an entry that another thread installs meanwhile.
 * RSI: addresses (kick.c), RCX: how many, at least 1. RSP: RCX, RSI, then as GATE_IRET_CR3.
 */
	.org	\page + GATE_KICK, 0xf4
1:	lodsq
	lock orq $0, (%rax)
	loop	1b
	popq	%rcx
	popq	%rsi
	popq	%rax
	movq	%rax, %cr3
	popq	%rax
	iretq

/* The same, but back to the VMM: for lists that do not fit, and for kicks that must be over before the VMM goes on. */
	.org	\page + GATE_KICK_EXIT, 0xf4
1:	lodsq
	lock orq $0, (%rax)
	loop	1b
	movq	%cr3, %rax
	movq	%rax, %cr3
	outl	%eax, $GATE_PORT_KICKED
	hlt

/* Nothing runs here: ring 3 cannot fetch it, and the fault tells the VMM what the shim wants. */
	.org	\page + GATE_USER_FAULT, 0xf4

/*
 * #PF. From user mode it goes on in the shim, on the kernel root, still at ring 3: SYSCALL on a PVM host (which faults on
 * the fetch of LSTAR) and the page faults that the guest kernel is to see never leave the VM. RAX and CR2 go below the
 * exception's frame, where the shim reads them through SHIM_FRAME_VA. RSP: error code, RIP, CS, RFLAGS, RSP, SS; GD_*
 * stand above. From the load of CR3 on this is the kernel root's page: the bytes must be the same there.
 */
	.org	\page + GATE_PF, 0xf4
	.if	\in_user
	pushq	%rax
	movq	%cr2, %rax
	.else
	outb	%al, $14
	hlt
	nop
	.endif
	pushq	%rax
	movq	64+GD_KERNEL_CR3(%rsp), %rax
	movq	%rax, %cr3
	leaq	64+GD_TO_SHIM(%rsp), %rsp
	iretq

/*
 * #BP. The shim's own asks for user mode, with all registers the user's but RAX, which holds RIP; the VMM puts the low
 * half of that int3's RIP into the comparison. Whatever the guest kernel makes of it is ring 3's all the same, and what
 * iretq refuses is the guest's #GP. RSP: RIP, CS, RFLAGS, RSP, SS.
 */
	.org	\page + GATE_BP, 0xf4
	.if	\in_kernel
	cmpl	$0x7fffffff, (%rsp)
	.else
	outb	%al, $3
	.fill	5, 1, 0xf4
	.endif
	jne	1f
	movq	%rax, (%rsp)
	movq	$LINUX_USER_CS, 8(%rsp)		# a PVM host pushes what it last emulated
	movq	$LINUX_USER_SS, 32(%rsp)
	movq	40+GD_USER_CR3(%rsp), %rax
	movq	%rax, %cr3
	movq	40+GD_SHIM_DATA+SD_RAX(%rsp), %rax
	iretq
1:	outb	%al, $3
	hlt

/*
 * SYSCALL where it reaches ring 0 (VT-x, SVM): from user mode on to the shim, as #PF does. KERNEL_GS_BASE is ours, at
 * struct gate_data; the guest's GS is only swapped away and back.
 */
	.org	\page + GATE_SYSCALL_RING0, 0xf4
	swapgs
	movq	%rsp, %gs:GD_RSP
	movq	%rax, %gs:GD_RAX
	movq	%gs:GD_SYSCALL_FRAME, %rsp
	movq	%gs:GD_KERNEL_CR3, %rax
	movq	%rax, %cr3
	swapgs
	iretq
	.org	\page + GATE_SIZE, 0xf4
	.endm

	.section .rodata.gate, "a"
	gate	gate_plain, 0, 0
	gate	gate_kernel, 1, 0
	gate	gate_user, 0, 1
	.section .note.GNU-stack, "", @progbits
