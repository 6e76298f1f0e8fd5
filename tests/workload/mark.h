/*
 * mark.h - tells the VMM that a measured interval begins or ends.
 *
 * Xen's forced-emulation prefix (ud2; "xen") makes cpuid trap to the hypervisor even from user mode. With eax =
 * MARK_LEAF and ecx = the marker's id, umbra snapshots its counters under that id (run --stats: "marks") and returns
 * eax = 1, ebx = MARK_MAGIC. Anything else that runs us raises SIGILL or answers differently: then mark() does nothing.
 *
 * One thread only: the probe borrows the SIGILL handler.
 */
#ifndef WORKLOAD_MARK_H
#define WORKLOAD_MARK_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define MARK_LEAF	0x4000ff00u
#define MARK_MAGIC	0x72626d75u	/* "umbr" */

/* A command has marks of its own, since what it runs may set marks. */
enum { MARK_BEGIN = 1, MARK_END = 2, MARK_BOOT = 3, MARK_COMMAND_BEGIN = 4, MARK_COMMAND_END = 5 };

static sigjmp_buf mark_nobody;

static void mark_sigill(int sig)
{
	siglongjmp(mark_nobody, 1);
}

static inline bool mark_cpuid(uint32_t id)
{
	uint32_t eax = MARK_LEAF, ebx, ecx = id, edx;

	asm volatile("ud2; .ascii \"xen\"; cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx) : : "memory");
	return eax == 1 && ebx == MARK_MAGIC;
}

/* Is umbra below us? Writes no marker that anybody asked for: id 0. */
static inline bool mark_probe(void)
{
	struct sigaction sa = { .sa_handler = mark_sigill }, old;
	bool found = false;

	sigaction(SIGILL, &sa, &old);
	if (!sigsetjmp(mark_nobody, 1))
		found = mark_cpuid(0);
	sigaction(SIGILL, &old, NULL);
	return found;
}

static inline void mark(uint32_t id)
{
	static int umbra = -1;

	if (umbra < 0)
		umbra = mark_probe();
	if (umbra)
		mark_cpuid(id);
}

#endif
