/*
 * shim_entry.S - where the guest kernel enters the shim: in place of its hypercall instruction. Runs at ring 3, native on
 * every host. Everything the Xen ABI preserves is preserved; the stack is the guest kernel's own.
 *
 * Lives in section shim_text with shim_code.c, which the VMM copies to SHIM_VA: no absolute address, no data.
 */
#include "vmm/layout.h"
#include "vmm/shim_abi.h"

	.section shim_text, "ax", @progbits

/*
 * Called like the guest's hypercall function: number in EAX, arguments in RDI RSI RDX R10 R8 R9; result in RAX.
 * Saved block, from RSP up: RAX RDI RSI RDX R10 R8 R9 R11 RCX RBX (shim_code.c: struct shim_regs).
 */
	.globl	shim_call, shim_call_abort, shim_iret, shim_iret_exit, shim_call_return
	.type	shim_call, @function
shim_call:
	pushq	%rbx
	pushq	%rcx
	pushq	%r11
	pushq	%r9
	pushq	%r8
	pushq	%r10
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rax
	movabsq	$SHIM_DATA_VA, %rbx
	movq	%rsp, SD_SAVED_RSP(%rbx)
	movq	%rsp, %rdi
	cld
	call	shim_dispatch		# RAX: 1 done, result in the saved RAX; 0: the VMM has to do it
	movq	$0, SD_SAVED_RSP(%rbx)
	testq	%rax, %rax
	jz	shim_call_abort
	popq	%rax
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%r10
	popq	%r8
	popq	%r9
	popq	%r11
	popq	%rcx
	popq	%rbx
	ret

/* The VMM comes here too, with RSP from saved_rsp, when a guest pointer faulted. Leaving by the gate page, not by
 * `syscall`: its fetch fault is one exit on every host. Coming back, RCX and R11 are as SYSCALL leaves them. */
shim_call_abort:
	popq	%rax
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%r10
	popq	%r8
	popq	%r9
	popq	%r11
	popq	%rcx
	popq	%rbx
	pushq	%rcx
	pushq	%r11
	leaq	shim_call_return(%rip), %rcx
	pushfq
	popq	%r11
	jmp	*2f(%rip)
	syscall				# the VMM restarts a hypercall by going back two bytes
shim_call_return:			# here events may be delivered again
	popq	%r11
	popq	%rcx
	ret
	.balign	8, 0xcc
2:	.quad	GATE_VA + GATE_SYSCALL

/*
 * HYPERVISOR_iret; RSP: struct iret_context. Returns within the kernel are done here, unless an event waits.
 */
shim_iret:
	movabsq	$SHIM_DATA_VA, %rcx
	testb	$3, 5*8(%rsp)		# cs: to user mode
	jnz	shim_iret_exit
	cmpq	$0, 3*8(%rsp)		# flags
	jne	shim_iret_exit
	movq	SD_INFO(%rcx), %rax
	testl	$0x200, 6*8(%rsp)	# rflags.IF is the upcall mask, inverted
	jz	1f
	movb	$0, 1(%rax)		# evtchn_upcall_mask
	cmpb	$0, 0(%rax)		# evtchn_upcall_pending
	je	2f
	movb	$1, 1(%rax)
	jmp	shim_iret_exit
1:	movb	$1, 1(%rax)
2:	incq	SD_CALLS+23*8(%rcx)
	movq	SD_CS(%rcx), %rax
	movq	%rax, 5*8(%rsp)
	movq	SD_SS(%rcx), %rax
	movq	%rax, 8*8(%rsp)
	andl	$~0x7000, 6*8(%rsp)	# IOPL, NT: iretq at ring 3 leaves IF and IOPL alone
	popq	%rax
	popq	%r11
	popq	%rcx
	leaq	8(%rsp), %rsp
	iretq
shim_iret_exit:
	leaq	4f(%rip), %rcx
	movl	$23, %eax
	pushfq
	popq	%r11
	jmp	*shim_gate_address(%rip)
	syscall
4:	ud2
	.balign	8, 0xcc
shim_gate_address:
	.quad	GATE_VA + GATE_SYSCALL
	.section .note.GNU-stack, "", @progbits
