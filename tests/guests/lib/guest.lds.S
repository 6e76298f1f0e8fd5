/*
 * guest.lds.S - where a tiny kernel is linked: pa 1 MiB, seen at VIRT_BASE + pa.
 */
OUTPUT_FORMAT(elf64-x86-64)
ENTRY(_start)

PHDRS
{
	text PT_LOAD FLAGS(5);
	data PT_LOAD FLAGS(6);
	note PT_NOTE FLAGS(4);
}

SECTIONS
{
	virt_base = VIRT_BASE;
	. = VIRT_BASE + 0x100000;
	image_start = .;
	.text : AT(ADDR(.text) - VIRT_BASE) {
		*(.hypercall_page)
		*(.text.start)
		*(.text .text.*)
		. = ALIGN(4096);
		user_text_start = .;
		*(.user_text)
		user_text_end = .;
		. = ALIGN(4096);
	} :text
	.rodata : AT(ADDR(.rodata) - VIRT_BASE) {
		*(.rodata .rodata.*)
		. = ALIGN(16);
		extable_start = .;
		KEEP(*(.extable))
		extable_end = .;
		. = ALIGN(16);
		tests_start = .;
		KEEP(*(.tests))
		tests_end = .;
	} :text
	.notes : AT(ADDR(.notes) - VIRT_BASE) { KEEP(*(.note.Xen)) } :text :note
	__xen_guest : AT(ADDR(__xen_guest) - VIRT_BASE) { KEEP(*(__xen_guest)) } :text
	. = ALIGN(4096);
	.data : AT(ADDR(.data) - VIRT_BASE) { *(.data .data.*) } :data
	.bss : AT(ADDR(.bss) - VIRT_BASE) { *(.bss .bss.* COMMON) . = ALIGN(4096); } :data
	image_end = .;
	/DISCARD/ : { *(.note.gnu.*) *(.comment) *(.eh_frame) }
}
