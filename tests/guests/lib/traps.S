/*
 * traps.S - entry stubs for exceptions, `int N` gates and callbacks; user mode in and out.
 *
 * Xen's bounce frame, from RSP up: rcx, r11, [ds, es, fs, gs for failsafe], [error code], rip, cs, rflags, rsp, ss. The
 * stubs turn it into struct regs of guest.h.
 */
#define __ASSEMBLY__
#include <xen/xen.h>

	.text
	.macro	stub_error vector
	.balign	32
	movq	(%rsp), %rcx
	movq	8(%rsp), %r11
	addq	$8, %rsp
	movq	$\vector, (%rsp)
	jmp	trap_common
	.endm

	.macro	stub vector
	.balign	32
	movq	(%rsp), %rcx
	movq	8(%rsp), %r11
	movq	$0, 8(%rsp)
	movq	$\vector, (%rsp)
	jmp	trap_common
	.endm

/* One per IDT vector, 32 bytes each. */
	.globl	trap_stubs
	.balign	32
trap_stubs:
	.set	v, 0
	.rept	256
	.if	(v == 8) || ((v >= 10) && (v <= 14)) || (v == 17)
	stub_error v
	.else
	stub	v
	.endif
	.set	v, v + 1
	.endr

	.globl	event_entry, failsafe_entry, syscall_entry, syscall32_entry
	.balign	32
event_entry:
	stub	256
syscall_entry:
	stub	258
syscall32_entry:
	stub	259
failsafe_entry:
	movq	(%rsp), %rcx
	movq	8(%rsp), %r11
	addq	$32, %rsp			# ds, es; fs and gs become vector and error
	movq	$0, 8(%rsp)
	movq	$257, (%rsp)
	/* fall through */

trap_common:
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%rax
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	cld
	movq	%rsp, %rdi
	call	trap_dispatch
/* void trap_return(struct regs *in rsp): back through HYPERVISOR_iret */
trap_return:
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rax
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	addq	$16, %rsp
	pushq	iret_flags(%rip)
#ifdef HYPERCALL_BY_PAGE
	jmp	hypercall_page + __HYPERVISOR_iret * 32
#else
	pushq	%rcx
	pushq	%r11
	pushq	%rax
	movl	$__HYPERVISOR_iret, %eax
	syscall
#endif
	ud2

/* void user_enter(const struct regs *): to user mode. Comes back when trap_dispatch() calls user_leave(). */
	.globl	user_enter, user_leave
user_enter:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, user_kernel_rsp(%rip)
	movq	%rdi, %rsi
	subq	$22 * 8, %rsp
	movq	%rsp, %rdi
	movl	$22, %ecx
	rep movsq
	jmp	trap_return
user_leave:
	movq	user_kernel_rsp(%rip), %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret

/* int probe_fetch_call(va): calls it; a fault at va itself resumes at probe_fetch_fault on the same stack. */
	.globl	probe_fetch_call, probe_fetch_fault
probe_fetch_call:
	pushq	%rbx
	movq	%rsp, probe_fetch_rsp(%rip)
	call	*%rdi
	popq	%rbx
	xorl	%eax, %eax
	ret
probe_fetch_fault:
	movq	probe_fetch_rsp(%rip), %rsp
	popq	%rbx
	movl	$1, %eax
	ret

	.bss
	.balign	8
user_kernel_rsp:
	.quad	0
	.globl	probe_fetch_rsp, iret_flags
iret_flags:
	.quad	0
probe_fetch_rsp:
	.quad	0
	.section .note.GNU-stack, "", @progbits
