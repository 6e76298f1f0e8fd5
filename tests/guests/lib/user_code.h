/* user_code.h - the entry points of user_code.S, as addresses of the kernel's own mapping; see user_address(). */
#ifndef TESTS_GUESTS_USER_CODE_H
#define TESTS_GUESTS_USER_CODE_H

#include <stdint.h>

extern char user_syscall[], user_after_syscall[], user_read[], user_write[], user_jump[], user_exit[], user_int3[], user_ud2[],
	user_divide[], user_int_kernel_gate[], user_masks[], user_privileged[], user_step[], user_gs[], user_load_fs[],
	user_spin[], user_registers[], user_bare_syscall[], user_syscalls[], user_faults[], user_odd_syscalls[], user_vectors[],
	user_write_gs[];
extern char user32_int80[], user32_int80_end[], user32_gp[], user32_data[], user32_int3[],
	user32_syscall[];
extern char user_text_start[], user_text_end[];

enum { USER_HLT, USER_CLI, USER_CR3, USER_RDMSR, USER_IN, USER_DR7, USER_INVLPG, USER_LGDT, USER_PRIVILEGED };

static inline uint64_t user_text_size(void)
{
	return (uint64_t)(user_text_end - user_text_start);
}

#endif
