/*
 * start.S - entry, stacks, the hypercall, Xen notes.
 *
 * Flavours: -DHYPERCALL_BY_PAGE calls through the page that Xen fills in, otherwise `syscall` stands inline, as Linux has it
 * since XSA-466 and with int3 as padding near it; -DBARE_SYSCALL: in a form that nobody looks for. -DOLD_GUEST_SECTION describes the kernel by a __xen_guest section instead of ELF notes.
 */
#define __ASSEMBLY__
#include <xen/elfnote.h>

	.section .text.start, "ax"
	.globl	_start
_start:
	movq	%rsp, start_rsp(%rip)
	leaq	boot_stack_top(%rip), %rsp
	pushfq
	popq	start_rflags(%rip)
	cld
	movq	%rsi, start_info(%rip)
	xorl	%ebp, %ebp
	call	guest_main
	ud2

	.text
/* long hypercall(nr, a1, a2, a3, a4, a5): Xen takes rdi, rsi, rdx, r10, r8 */
	.globl	hypercall
hypercall:
	movl	%edi, %eax
	movq	%rsi, %rdi
	movq	%rdx, %rsi
	movq	%rcx, %rdx
	movq	%r8, %r10
	movq	%r9, %r8
#ifdef HYPERCALL_BY_PAGE
	cmpl	$128, %eax
	jae	1f
	movl	%eax, %ecx
	shll	$5, %ecx
	leaq	hypercall_page(%rip), %r11
	addq	%rcx, %r11
	jmp	*%r11
1:
#endif
#if defined(HYPERCALL_BY_PAGE) || defined(BARE_SYSCALL)
	syscall
#else
	pushq	%rcx
	pushq	%r11
	syscall
	popq	%r11
	popq	%rcx
#endif
	ret
#ifndef BARE_SYSCALL
	.fill	32, 1, 0xcc
#endif

	.bss
	.balign	4096
	.skip	16384
boot_stack_top:
	.globl	trap_stack_top
	.skip	16384
trap_stack_top:
	.globl	start_rsp, start_rflags, start_info
	.data
start_rsp:
	.quad	0
start_rflags:
	.quad	0
start_info:
	.quad	0

#ifdef HYPERCALL_BY_PAGE
	.section .hypercall_page, "ax"
	.globl	hypercall_page
	.balign	4096
hypercall_page:
	.fill	4096, 1, 0xcc
#endif

#define NOTE(type, desc...) \
	.balign	4		; \
	.long	4, 2f - 1f, type; \
	.asciz	"Xen"		; \
1:	desc			; \
2:	.balign	4

#ifdef OLD_GUEST_SECTION
	.section __xen_guest, "a"
	.ascii	"GUEST_OS=umbra-test,XEN_VER=xen-3.0,VIRT_BASE=0x0,ELF_PADDR_OFFSET=0x0,"
#ifdef HYPERCALL_BY_PAGE
	.ascii	"HYPERCALL_PAGE=0x100,"		/* a page number: guest.lds.S puts the page first, at 1 MiB */
#endif
	.asciz	"PAE=yes,LOADER=generic"
#else
	.section .note.Xen, "a", @note
	NOTE(XEN_ELFNOTE_GUEST_OS,	.asciz "umbra-test")
	NOTE(XEN_ELFNOTE_GUEST_VERSION,	.asciz "1")
	NOTE(XEN_ELFNOTE_XEN_VERSION,	.asciz "xen-3.0")
	NOTE(XEN_ELFNOTE_LOADER,	.asciz "generic")
	NOTE(XEN_ELFNOTE_PAE_MODE,	.asciz "yes")
	NOTE(XEN_ELFNOTE_VIRT_BASE,	.quad virt_base)
	NOTE(XEN_ELFNOTE_PADDR_OFFSET,	.quad 0)
	NOTE(XEN_ELFNOTE_ENTRY,		.quad _start)
#ifdef HYPERCALL_BY_PAGE
	NOTE(XEN_ELFNOTE_HYPERCALL_PAGE, .quad hypercall_page)
#endif
#endif
	.section .note.GNU-stack, "", @progbits
