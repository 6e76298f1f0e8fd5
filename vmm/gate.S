/*
 * gate.S - the gate page: the only ring-0 code in the VM. Copied to GATE_VA, mapped supervisor in every root.
 *
 * On VT-x/SVM it runs natively. On a PVM host ring 0 is emulated at 0.27 us per instruction, so every path is a handful.
 * Nothing here changes a segment register or the guest's GS.
 */
#include "vmm/layout.h"
#include "vmm/shim_abi.h"

	.section .rodata.gate, "a"
	.balign	16
	.globl	gate_code, gate_code_end
gate_code:

/* IDT entries: tell the VMM the vector; the exception frame lies at RSP. The VMM always leaves through a stub below. */
	.set	vector, 0
	.rept	256
	.if	vector == 14
	jmp	gate_code + GATE_PF
	.elseif	vector == 3
	jmp	gate_code + GATE_BP
	.else
	outb	%al, $vector
	hlt					# not reached
	.endif
	.balign	GATE_STUB_SIZE, 0xf4
	.set	vector, vector + 1
	.endr

/* LSTAR, CSTAR: RSP is still the guest's, RCX and R11 hold RIP and RFLAGS. */
	.org	gate_code + GATE_SYSCALL, 0xf4
	jmp	gate_code + GATE_SYSCALL_RING0
	.org	gate_code + GATE_SYSCALL32, 0xf4
	outl	%eax, $GATE_PORT_SYSCALL32
	hlt

/* To the guest, same root. RSP: struct gate_frame. */
	.org	gate_code + GATE_IRET, 0xf4
	iretq

/* To the guest on another root, or with the TLB flushed. RSP: CR3, RAX, struct gate_frame. */
	.org	gate_code + GATE_IRET_CR3, 0xf4
	popq	%rax
	movq	%rax, %cr3
	popq	%rax
	iretq

/*
 * The kick loop (coherence rule 4): where KVM itself shadows our tables it sees only writes from inside the VM. An atomic
 * OR of nothing is such a write, and cannot lose an entry that another thread installs meanwhile.
 * RSI: addresses (kick.c), RCX: how many, at least 1. RSP: RCX, RSI, then as GATE_IRET_CR3.
 */
	.org	gate_code + GATE_KICK, 0xf4
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
	.org	gate_code + GATE_KICK_EXIT, 0xf4
1:	lodsq
	lock orq $0, (%rax)
	loop	1b
	movq	%cr3, %rax
	movq	%rax, %cr3
	outl	%eax, $GATE_PORT_KICKED
	hlt

/* Nothing runs here: ring 3 cannot fetch it, and the fault tells the VMM what the shim wants. */
	.org	gate_code + GATE_USER_FAULT, 0xf4

/*
 * #PF. From user mode it goes on in the shim, on the kernel root, still at ring 3: SYSCALL on a PVM host (which faults on
 * the fetch of LSTAR) and the page faults that the guest kernel is to see never leave the VM. What is not plain 64-bit
 * user code goes to the VMM. RSP: error code, RIP, CS, RFLAGS, RSP, SS; GD_* stand above.
 */
	.org	gate_code + GATE_PF, 0xf4
	cmpb	$0, 48+GD_IN_USER(%rsp)
	je	1f
	cmpb	$USER_CS_BYTE, 16(%rsp)
	jne	1f
	testb	$1, 25(%rsp)		# TF
	jnz	1f
	movb	$0, 48+GD_IN_USER(%rsp)
	pushq	%rax
	movq	%cr2, %rax
	movq	%rax, 56+GD_CR2(%rsp)
	movq	16(%rsp), %rax
	movq	%rax, 56+GD_RIP(%rsp)
	movq	56+GD_SHIM_ENTRY(%rsp), %rax
	movq	%rax, 16(%rsp)
	movq	56+GD_KERNEL_CR3(%rsp), %rax
	movq	%rax, %cr3
	popq	%rax
	leaq	8(%rsp), %rsp
	iretq
1:	outb	%al, $14
	hlt

/*
 * #BP. The shim's own, at GD_TO_USER: load the user root and return to what struct shim_data names. The guest kernel can
 * write that struct: CS and SS are made ring 3's, RFLAGS filtered; what iretq refuses is the guest's #GP. RSP: RIP, CS,
 * RFLAGS, RSP, SS.
 */
	.org	gate_code + GATE_BP, 0xf4
	pushq	%rax
	movq	8(%rsp), %rax
	cmpq	48+GD_TO_USER(%rsp), %rax
	jne	1f
	movb	$1, 48+GD_IN_USER(%rsp)
	movq	48+GD_USER_CR3(%rsp), %rax
	movq	%rax, %cr3
	movq	48+GD_SHIM_DATA+SD_UF_RIP(%rsp), %rax
	movq	%rax, 8(%rsp)
	movq	48+GD_SHIM_DATA+SD_UF_CS(%rsp), %rax
	orl	$3, %eax
	movq	%rax, 16(%rsp)
	movq	48+GD_SHIM_DATA+SD_UF_FLAGS(%rsp), %rax
	andl	$0x240cd5, %eax		# no TF, IOPL, NT, VM
	orl	$0x202, %eax
	movq	%rax, 24(%rsp)
	movq	48+GD_SHIM_DATA+SD_UF_RSP(%rsp), %rax
	movq	%rax, 32(%rsp)
	movq	48+GD_SHIM_DATA+SD_UF_SS(%rsp), %rax
	orl	$3, %eax
	movq	%rax, 40(%rsp)
	popq	%rax
	iretq
1:	popq	%rax
	outb	%al, $3
	hlt

/*
 * SYSCALL where it reaches ring 0 (VT-x, SVM): from user mode on to the shim, as #PF does. KERNEL_GS_BASE is ours, at
 * struct gate_data; the guest's GS is only swapped away and back. The shim finds the user's RSP in RSP.
 */
	.org	gate_code + GATE_SYSCALL_RING0, 0xf4
	swapgs
	cmpb	$0, %gs:GD_IN_USER
	je	1f
	movb	$0, %gs:GD_IN_USER
	movq	%rsp, %gs:GD_RSP
	movq	%gs:GD_TOP, %rsp
	pushq	$XEN_USER_SS
	pushq	%gs:GD_RSP
	pushq	$2
	pushq	$XEN_USER_CS
	pushq	%gs:GD_SHIM_ENTRY
	pushq	%rax
	leaq	gate_code+GATE_SYSCALL(%rip), %rax
	movq	%rax, %gs:GD_RIP
	movq	%gs:GD_KERNEL_CR3, %rax
	movq	%rax, %cr3
	popq	%rax
	swapgs
	iretq
1:	swapgs
	outl	%eax, $GATE_PORT_SYSCALL
	hlt
gate_code_end:
	.section .note.GNU-stack, "", @progbits
