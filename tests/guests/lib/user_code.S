/*
 * user_code.S - what runs in user mode. Copied nowhere: its frames are mapped at USER_CODE, so everything is relative.
 */
	.section .user_text, "ax"
	.globl	user_text

/* Ends with: rax = what the function found. */
	.macro	entry name
	.balign	16
	.globl	\name
\name:
	.endm

user_text:
	entry	user_syscall			# rdi in rax; the callback sees rcx = next rip, r11 = rflags
	movq	%rdi, %rax
	syscall
	.globl	user_after_syscall
user_after_syscall:
	int	$0x80
	entry	user_read			# rdi: address
	movq	(%rdi), %rax
	int	$0x80
	entry	user_write			# rdi: address, rsi: value
	movq	%rsi, (%rdi)
	int	$0x80
	entry	user_jump			# rdi: address
	jmp	*%rdi
	entry	user_exit
	int	$0x80
	entry	user_int_kernel_gate
	int	$0x70
	entry	user_int3
	int3
	int	$0x80
	entry	user_masks
	int	$0x73
	entry	user_privileged			# rdi: which
	cmpl	$0, %edi
	je	1f
	cmpl	$1, %edi
	je	2f
	cmpl	$2, %edi
	je	3f
	cmpl	$3, %edi
	je	4f
	cmpl	$4, %edi
	je	5f
	cmpl	$5, %edi
	je	6f
	cmpl	$6, %edi
	je	7f
	cmpl	$7, %edi
	je	8f
	int	$0x80
1:	hlt
	int	$0x80
2:	cli
	int	$0x80
3:	movq	%cr3, %rax
	int	$0x80
4:	rdmsr
	int	$0x80
5:	inb	$0x80, %al
	int	$0x80
6:	movq	%rax, %dr7
	int	$0x80
7:	invlpg	(%rsi)
	int	$0x80
8:	lgdt	(%rsi)
	int	$0x80
	entry	user_ud2
	ud2
	entry	user_divide
	xorl	%edx, %edx
	movl	$1, %eax
	xorl	%ecx, %ecx
	divl	%ecx
	entry	user_step			# two instructions to step over
	nop
	xchgq	%rax, %rbx
	int	$0x80
	entry	user_gs				# rax = gs:0, rdx = fs:0
	movq	%gs:0, %rax
	movq	%fs:0, %rdx
	int	$0x80
	entry	user_load_fs			# rdi: selector; rax = the dword at fs:0
	movl	%edi, %fs
	movl	%fs:0, %eax
	int	$0x80
	entry	user_spin			# until an event takes the vCPU away
	incq	%rbx
	jmp	user_spin
	entry	user_bare_syscall		# no register but SYSCALL's own two
	syscall
	int	$0x80
	entry	user_syscalls			# for ever; rbx counts
	incq	%rbx
	syscall
	jmp	user_syscalls
	entry	user_faults			# rdi: where a read faults and is passed over, for ever; rbx counts
	incq	%rbx
	movb	(%rdi), %al
	jmp	user_faults
	entry	user_odd_syscalls		# rdi: flags, rsi: rsp, rdx: how often
	pushq	%rdi
	popfq
	movq	%rsi, %rsp
1:	syscall
	decq	%rdx
	jnz	1b
	int	$0x80
	entry	user_vectors			# rdi through an XMM register across SYSCALL to rax; rsi: a fault at it between
	movq	%rdi, %xmm15
	movq	%rdi, %xmm0
	syscall
	movq	(%rsi), %rdx
	movq	%xmm15, %rax
	movq	%xmm0, %rdx
	int	$0x80
	entry	user_write_gs			# rdi: new GS base; rax: the one after SYSCALL
	wrgsbase %rdi
	syscall
	rdgsbase %rax
	int	$0x80
	entry	user_registers			# every register to a pattern, then out
	movq	$1, %rax
	movq	$2, %rbx
	movq	$3, %rcx
	movq	$4, %rdx
	movq	$5, %rsi
	movq	$6, %rdi
	movq	$7, %rbp
	movq	$8, %r8
	movq	$9, %r9
	movq	$10, %r10
	movq	$11, %r11
	movq	$12, %r12
	movq	$13, %r13
	movq	$14, %r14
	movq	$15, %r15
	int	$0x80

	.code32
	entry	user32_int80			# eax comes in edi
	movl	%edi, %eax
	int	$0x80
	.globl	user32_int80_end
user32_int80_end:
	entry	user32_gp
	hlt
	entry	user32_data			# eax = ds:(rdi), the ds selector in esi
	pushl	%ds
	movl	%esi, %ds
	movl	(%edi), %eax
	popl	%ds
	int	$0x80
	entry	user32_int3
	int3
	entry	user32_syscall
	syscall
	int	$0x80
	.code64
	.section .note.GNU-stack, "", @progbits
