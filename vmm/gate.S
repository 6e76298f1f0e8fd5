/*
 * gate.S - the gate page: the only ring-0 code in the VM. Copied to GATE_VA, mapped supervisor in every root.
 *
 * On VT-x/SVM it runs natively. On a PVM host ring 0 is emulated at 0.27 us per instruction, so every path is a handful.
 * Nothing here touches a segment register or the guest's GS.
 */
#include "vmm/layout.h"

	.section .rodata.gate, "a"
	.balign	16
	.globl	gate_code, gate_code_end
gate_code:

/* IDT entries: tell the VMM the vector; the exception frame lies at RSP. The VMM always leaves through a stub below. */
	.set	vector, 0
	.rept	256
	outb	%al, $vector
	hlt					# not reached
	.balign	GATE_STUB_SIZE, 0xf4
	.set	vector, vector + 1
	.endr

/* LSTAR, CSTAR: RSP is still the guest's, RCX and R11 hold RIP and RFLAGS. */
	.org	gate_code + GATE_SYSCALL, 0xf4
	outl	%eax, $GATE_PORT_SYSCALL
	hlt
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

	.org	gate_code + GATE_CODE_END, 0xf4
gate_code_end:
	.section .note.GNU-stack, "", @progbits
