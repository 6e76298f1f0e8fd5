/* compat32.c, built, as bytes for selftest to write to a file and run. COMPAT32 is its path. */
	.section .rodata
	.globl	compat32_elf, compat32_elf_end
compat32_elf:
	.incbin	COMPAT32
compat32_elf_end:
	.section .note.GNU-stack, "", @progbits
