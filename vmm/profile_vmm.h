/*
 * profile_vmm.h - what the VMM was doing when a tick found it at work, as a number and in words.
 */
#ifndef UMBRA_VMM_PROFILE_VMM_H
#define UMBRA_VMM_PROFILE_VMM_H

#include <stddef.h>
#include <stdint.h>

/* `event`: enum gate_event; `detail`: the vector of an exception, the number of a hypercall, ~0: not a hypercall. */
static inline uint64_t profile_vmm(unsigned event, uint32_t detail)
{
	return (uint64_t)event << 32 | detail;
}

/* "page_fault", "mmuext_op" ... Returns `to`. */
const char *profile_vmm_name(uint64_t vmm, char *to, size_t size);

#endif
