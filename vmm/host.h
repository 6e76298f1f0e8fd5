/*
 * host.h - looking at the host: what vmm_host_probe() and vmm_doctor() share. Not for other modules.
 */
#ifndef UMBRA_VMM_HOST_H
#define UMBRA_VMM_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first line of a small file, without its end. False: it cannot be read; `to` is empty then. */
bool host_read_line(const char *path, char *to, size_t size);
/* Is `word` in the flags of /proc/cpuinfo? */
bool host_cpu_flag(const char *word);
/* Kibibytes that /proc/meminfo gives for `key` ("MemAvailable"), 0 if none. */
uint64_t host_meminfo_kib(const char *key);

/* What KVM does when it is asked for a VM like ours. Each 0, or -errno of the step; after a failed step -ECANCELED. */
struct host_trial {
	int vm, slot, vcpu;
	uint64_t tsc_khz;		/* of the vCPU; 0: not told */
};
void host_try_vm(int kvm_fd, struct host_trial *out);

#endif
