/* style.css as a C string. */
	.section .rodata
	.globl report_style
report_style:
	.incbin "report/style.css"
	.byte 0
	.section .note.GNU-stack, "", @progbits
