/*
 * shim.h - what umbra has inside this VM, for the kernels that test it: is it there, and what has it counted.
 */
#ifndef TESTS_GUESTS_SHIM_H
#define TESTS_GUESTS_SHIM_H

#include "lib/guest.h"
#include "vmm/layout.h"
#include "vmm/shim_abi.h"

#define SHIM_DATA	((volatile struct shim_data *)SHIM_DATA_VA)

/* Whether the shim is mapped, and whether it may take the vCPU to user mode; skips the test if not. */
bool shim_there(void);
bool gates_there(void);
bool need_shim(void);
bool need_gates(void);

#endif
