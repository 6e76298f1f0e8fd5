/*
 * kicks-guest.S - everything that runs inside the probe's VM. Copied there page by page, so position independent.
 */
#include "kicks.h"

	.section .rodata
	.balign	4096

/* ---- ring 0: exception gate ---------------------------------------------------------------------------------- */
	.globl	gate_start, gate_end, gate_iret
gate_start:
	/* 32 entries of 16 bytes; each leaves the vector and an error code (0 if the CPU pushes none). */
	.set	vector, 0
	.rept	32
	.balign	16
	.if	!((0x60227d00 >> vector) & 1)	/* #DF #TS #NP #SS #GP #PF #AC #CP, VC, SX push one */
	push	$0
	.endif
	push	$vector
	jmp	gate_trap
	.set	vector, vector + 1
	.endr
	.balign	16
gate_trap:
	out	%al, $PORT_TRAP
	hlt				/* the VMM always sets RIP to where the guest is to go on */
gate_iret:				/* rsp -> struct gate_frame */
	add	$16, %rsp
	iretq

/* ---- ring 0: kicks ------------------------------------------------------------------------------------------- *
 * A kick is a list of passes { routine, list of addresses, count } at rbx; each routine handles its list and goes to
 * the next pass, the last one is kick_done.
 */
	.globl	kick_next, kick_done, kick_or8, kick_mov8, kick_or4, kick_or2, kick_or1, kick_split8
	.globl	kick_copy, kick_invlpg, kick_cr3, kick_load
kick_next:
	mov	(%rbx), %rax
	mov	8(%rbx), %rdi
	mov	16(%rbx), %rcx
	add	$24, %rbx
	jmp	*%rax

kick_done:
	out	%al, $PORT_DONE
	hlt

	.macro	EACH name
\name:	mov	(%rdi), %rax
	.endm
	.macro	LOOP name
	add	$8, %rdi
	dec	%rcx
	jnz	\name
	jmp	kick_next
	.endm

	EACH	kick_or8
	lock orq $0, (%rax)
	LOOP	kick_or8

	EACH	kick_mov8		/* not atomic against the VMM: for comparison only */
	mov	(%rax), %rdx
	mov	%rdx, (%rax)
	LOOP	kick_mov8

	EACH	kick_or4
	lock orl $0, (%rax)
	LOOP	kick_or4

	EACH	kick_or2
	lock orw $0, (%rax)
	LOOP	kick_or2

	EACH	kick_or1
	lock orb $0, (%rax)
	LOOP	kick_or1

	EACH	kick_split8		/* 8 bytes across two entries; caller gives unused ones */
	mov	4(%rax), %rdx
	mov	%rdx, 4(%rax)
	LOOP	kick_split8

	EACH	kick_invlpg
	invlpg	(%rax)
	LOOP	kick_invlpg

kick_copy:				/* a page onto itself */
	mov	(%rdi), %rsi
	mov	%rdi, %rdx
	mov	%rcx, %rbp
	mov	%rsi, %rdi
	mov	$512, %ecx
	rep movsq
	mov	%rdx, %rdi
	mov	%rbp, %rcx
	LOOP	kick_copy

kick_cr3:
	mov	%cr3, %rax
	mov	%rax, %cr3
	jmp	kick_next

kick_load:				/* loads each listed value into CR3 */
	mov	(%rdi), %rax
	mov	%rax, %cr3
	LOOP	kick_load
gate_end:

/* ---- ring 3: touch every page of a list ---------------------------------------------------------------------- *
 * rsi: list of addresses, rdi: results, ecx: count. A fault at user_load or user_store makes the VMM put its mark into
 * rax and go on at the following instruction. ud2 ends the run.
 */
	.balign	4096
	.globl	user_start, user_end, user_read, user_load, user_write, user_store
user_start:
user_read:
	mov	(%rsi), %rdx
user_load:
	mov	(%rdx), %rax		/* 3 bytes, as USER_INSN_BYTES says */
	mov	%rax, (%rdi)
	add	$8, %rsi
	add	$8, %rdi
	dec	%ecx
	jnz	user_read
	ud2

user_write:
	mov	(%rsi), %rdx
	xor	%eax, %eax
user_store:
	incb	8(%rdx)			/* 3 bytes */
	mov	%rax, (%rdi)
	add	$8, %rsi
	add	$8, %rdi
	dec	%ecx
	jnz	user_write
	ud2
user_end:
	.section .note.GNU-stack, "", @progbits
