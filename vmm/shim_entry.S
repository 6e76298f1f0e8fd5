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
 * Saved block, from RSP up: RAX RDI RSI RDX R10 R8 R9 R11 RCX RBX (shim_code.c: struct shim_regs), then what C code would
 * give back by itself: shim_abort() takes the vCPU out of the middle of it.
 */
/* Undoes the pushes of shim_call. */
	.macro	restore_regs
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
	popq	%rbp
	popq	%r12
	popq	%r13
	popq	%r14
	popq	%r15
	.endm

/* Pushes RFLAGS as a frame shows them: what user code may have, IF from the upcall mask. RCX: shim_data; takes RAX, R11. */
	.macro	push_flags from
	movq	\from, %rax
	andl	$(USER_FLAGS), %eax
	orq	SD_FRAME_FLAGS(%rcx), %rax
	movq	SD_INFO(%rcx), %r11
	cmpb	$0, 1(%r11)		# evtchn_upcall_mask
	jne	1f
	orl	$0x200, %eax
1:	pushq	%rax
	.endm

	.globl	shim_user_entry, shim_syscall_entry, shim_to_user, shim_to_user_iret
	.globl	shim_exit_call, shim_exit_user, shim_call_address, shim_user_address, shim_measure
	.globl	shim_call, shim_call_abort, shim_iret, shim_iret_exit, shim_call_return
	.type	shim_call, @function
shim_call:
	pushq	%r15
	pushq	%r14
	pushq	%r13
	pushq	%r12
	pushq	%rbp
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
	restore_regs
	ret

/* The VMM comes here too, with RSP from saved_rsp, when a guest pointer faulted. Leaving not by `syscall`, but by what is
 * one exit and no more on this host (shim_install()). Coming back, RCX and R11 are as SYSCALL leaves them. */
shim_call_abort:
	restore_regs
	pushq	%rcx
	pushq	%r11
	leaq	shim_call_return(%rip), %rcx
	pushfq
	popq	%r11
	jmp	*shim_call_address(%rip)
	syscall				# the VMM restarts a hypercall by going back two bytes
shim_call_return:			# here events may be delivered again
	popq	%r11
	popq	%rcx
	ret

/*
 * HYPERVISOR_iret; RSP: struct iret_context. Returns within the kernel are done here, unless an event waits.
 */
shim_iret:
	movabsq	$SHIM_DATA_VA, %rcx
	testb	$3, 5*8(%rsp)		# cs: to user mode
	jnz	shim_iret_user
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
/* To user mode: the gate does it (gate.S, #BP) from what is left in shim_data, if this is plain 64-bit code, no event
 * waits and the VMM has nothing to catch up with. RCX: shim_data. */
shim_iret_user:
	cmpb	$0, SD_TO_USER_OK(%rcx)
	je	shim_iret_exit
	cmpq	$0, 3*8(%rsp)		# flags
	jne	shim_iret_exit
	cmpw	$LINUX_USER_CS, 5*8(%rsp)	# the gate knows no others
	jne	shim_iret_exit
	cmpw	$LINUX_USER_SS, 8*8(%rsp)
	jne	shim_iret_exit
	movl	SD_HEAD(%rcx), %eax	# page-table updates the VMM has not seen: fine if the helper has
	subl	SD_TAIL(%rcx), %eax
	jz	1f
	cmpb	$0, SD_RING_WATCHED(%rcx)
	je	shim_iret_exit
	cmpl	$SHIM_RING_HIGH, %eax
	ja	shim_iret_exit
1:
	movq	4*8(%rsp), %rax		# rip and rsp in the lower half
	orq	7*8(%rsp), %rax
	shrq	$47, %rax
	jnz	shim_iret_exit
	movq	6*8(%rsp), %rax
	andl	$0x300, %eax		# IF set, TF clear
	cmpl	$0x200, %eax
	jne	shim_iret_exit
	movq	SD_INFO(%rcx), %rax
	movb	$0, 1(%rax)		# evtchn_upcall_mask
	cmpb	$0, 0(%rax)		# evtchn_upcall_pending
	je	1f
	movb	$1, 1(%rax)
	jmp	shim_iret_exit
1:	leaq	shim_to_user(%rip), %rax
	movq	%rax, SD_FRAME(%rcx)
	movq	5*8(%rsp), %rax
	movq	%rax, SD_FRAME+8(%rcx)
	movq	%rax, SD_UF_CS(%rcx)
	movq	6*8(%rsp), %rax
	andl	$0x240cd5, %eax		# no IOPL, NT, VM; IF stays set
	movq	%rax, SD_FRAME+16(%rcx)
	movq	%rax, SD_UF_FLAGS(%rcx)
	movq	7*8(%rsp), %rax
	movq	%rax, SD_FRAME+24(%rcx)
	movq	%rax, SD_UF_RSP(%rcx)
	movq	8*8(%rsp), %rax
	movq	%rax, SD_FRAME+32(%rcx)
	movq	%rax, SD_UF_SS(%rcx)
	movq	4*8(%rsp), %rax
	movq	%rax, SD_UF_RIP(%rcx)
	incq	SD_IRETS(%rcx)
	rdgsbase %rax
	movq	%rax, SD_GS_KERNEL(%rcx)
	movq	SD_GS_USER(%rcx), %rax
	popq	%r11			# rax, for now
	movq	%r11, SD_RAX(%rcx)
	popq	%r11
	popq	%rcx
	wrgsbase %rax			# from here on nothing may fault but the iretq
	movabsq	SHIM_DATA_VA+SD_UF_RIP, %rax
	movabsq	$SHIM_DATA_VA+SD_FRAME, %rsp
shim_to_user_iret:			# what ring 3 may not load is refused here, or by the gate's iretq
	iretq
shim_to_user:
	int3

/*
 * From user mode by the gate's #PF: the kernel's root is loaded, GS and every register but RAX and RSP are still the
 * user's. A page fault, or a SYSCALL that stayed at ring 3 (then the faulting RIP is LSTAR).
 */
	.macro	save_user
	movabsq	$SHIM_DATA_VA, %rax
	movq	%rcx, SD_RCX(%rax)
	movq	%r11, SD_R11(%rax)
	movq	%rax, %rcx
	rdgsbase %rax
	movq	%rax, SD_GS_USER(%rcx)
	movq	SD_GS_KERNEL(%rcx), %rax
	wrgsbase %rax
	movabsq	$SHIM_FRAME_VA+4096, %r11
	.endm

shim_user_entry:
	save_user
	movq	GF_RAX(%r11), %rax
	movq	%rax, SD_RAX(%rcx)
	movq	GF_ERROR(%r11), %rax
	movq	%rax, SD_UF_ERROR(%rcx)
	movq	GF_CR2(%r11), %rax
	movq	%rax, SD_UF_CR2(%rcx)
	movq	GF_RSP(%r11), %rax
	movq	%rax, SD_UF_RSP(%rcx)
	movq	GF_FLAGS(%r11), %rax
	movq	%rax, SD_UF_FLAGS(%rcx)
	movzwl	GF_SS(%r11), %eax
	movq	%rax, SD_UF_SS(%rcx)
	movzwl	GF_CS(%r11), %eax
	movq	%rax, SD_UF_CS(%rcx)
	cmpb	$USER_CS_BYTE, %al
	movq	GF_RIP(%r11), %rax
	movq	%rax, SD_UF_RIP(%rcx)
	jne	shim_user_handover	# compatibility mode
	cmpq	shim_lstar(%rip), %rax
	jne	shim_user_fault
	jmp	shim_user_syscall

/* From user mode by SYSCALL at ring 0. */
shim_syscall_entry:
	save_user
	movq	GD_RAX(%r11), %rax
	movq	%rax, SD_RAX(%rcx)
	movq	GD_RSP(%r11), %rax
	movq	%rax, SD_UF_RSP(%rcx)
	movq	shim_lstar(%rip), %rax
	movq	%rax, SD_UF_RIP(%rcx)
shim_user_syscall:
	cmpb	$0, SD_TO_USER_OK(%rcx)
	je	shim_user_handover
	incq	SD_SYSCALLS(%rcx)
	movq	SD_KERNEL_SP(%rcx), %rsp
	andq	$~15, %rsp
	movl	$XEN_USER_SS, %eax	# what Xen reports; nobody knows the real ones
	pushq	%rax
	pushq	SD_UF_RSP(%rcx)
	push_flags SD_R11(%rcx)		# SYSCALL left RIP and RFLAGS in RCX and R11
	movl	$XEN_USER_CS, %eax
	pushq	%rax
	movq	SD_INFO(%rcx), %rax
	movb	1(%rax), %r11b		# saved upcall mask
	movb	%r11b, 4(%rsp)
	movb	SD_SYSCALL_MASK(%rcx), %r11b
	orb	%r11b, 1(%rax)
	pushq	SD_RCX(%rcx)
	pushq	SD_R11(%rcx)
	pushq	SD_RCX(%rcx)
	pushq	SD_SYSCALL_TO(%rcx)
	jmp	shim_enter_kernel

shim_user_fault:
	cmpb	$0, SD_TO_USER_OK(%rcx)
	je	shim_user_handover
	testb	$1, SD_UF_FLAGS+1(%rcx)	# TF
	jnz	shim_user_handover
	movq	%rdx, SD_RDX(%rcx)
	movq	%rsi, SD_RSI(%rcx)
	movq	%rdi, SD_RDI(%rcx)
	movq	%r8, SD_R8(%rcx)
	movq	%r9, SD_R9(%rcx)
	movq	%r10, SD_R10(%rcx)
	movq	SD_UF_ERROR(%rcx), %rdi
	movq	SD_UF_CR2(%rcx), %rsi
	call	shim_user_allowed	# (error code, va): error code for the guest, or -1: for the VMM
	movabsq	$SHIM_DATA_VA, %rcx
	movq	SD_RDX(%rcx), %rdx
	movq	SD_RSI(%rcx), %rsi
	movq	SD_RDI(%rcx), %rdi
	movq	SD_R8(%rcx), %r8
	movq	SD_R9(%rcx), %r9
	movq	SD_R10(%rcx), %r10
	cmpq	$-1, %rax
	jne	1f
shim_user_handover:			# RCX: shim_data
	movq	SD_R11(%rcx), %r11
	movabsq	SHIM_DATA_VA+SD_RAX, %rax
	movq	SD_RCX(%rcx), %rcx
	jmp	*shim_user_address(%rip)
1:	movq	%rax, SD_UF_ERROR(%rcx)
	incq	SD_FAULTS(%rcx)
	movq	SD_KERNEL_SP(%rcx), %rsp
	andq	$~15, %rsp
	pushq	SD_UF_SS(%rcx)
	pushq	SD_UF_RSP(%rcx)
	push_flags SD_UF_FLAGS(%rcx)
	movq	SD_INFO(%rcx), %rax
	pushq	SD_UF_CS(%rcx)
	movb	1(%rax), %r11b
	movb	%r11b, 4(%rsp)
	movb	SD_FAULT_MASK(%rcx), %r11b
	orb	%r11b, 1(%rax)
	movq	SD_UF_CR2(%rcx), %r11
	movq	%r11, 16(%rax)		# arch.cr2
	pushq	SD_UF_RIP(%rcx)
	pushq	SD_UF_ERROR(%rcx)
	pushq	SD_R11(%rcx)
	pushq	SD_RCX(%rcx)
	pushq	SD_FAULT_TO(%rcx)
shim_enter_kernel:			# RSP: handler, Xen's bounce frame
	pushq	$0x202			# no AC, NT, DF ... of the user's
	popfq
	movq	SD_R11(%rcx), %r11
	movabsq	SHIM_DATA_VA+SD_RAX, %rax
	movq	SD_RCX(%rcx), %rcx
	ret

shim_iret_exit:
	leaq	4f(%rip), %rcx
	movl	$23, %eax
	pushfq
	popq	%r11
	jmp	*shim_call_address(%rip)
	syscall
4:	ud2

/* Two ways out to the VMM. Where ring 0 is native, a fetch from the gate page is cheapest; where it is emulated, a store
 * to memory that is not there. shim_install() sets the pointers. */
shim_exit_call:
	movabsl	%eax, SHIM_EXIT_VA+SHIM_EXIT_CALL
	ud2
shim_exit_user:
	movabsl	%eax, SHIM_EXIT_VA+SHIM_EXIT_USER
	ud2

/* For the VMM, before the guest runs (measure.c): RDX transitions by the gate, then a hypercall exit. */
shim_measure:
	leaq	1f(%rip), %rax
	jmp	shim_to_user
1:	decq	%rdx
	jnz	shim_measure
	xorl	%ecx, %ecx
	jmp	*shim_call_address(%rip)
	.balign	8, 0xcc
shim_lstar:
	.quad	GATE_VA + GATE_SYSCALL
shim_call_address:
	.quad	GATE_VA + GATE_SYSCALL
shim_user_address:
	.quad	GATE_VA + GATE_USER_FAULT
	.section .note.GNU-stack, "", @progbits
