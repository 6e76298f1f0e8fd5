/*
 * vmm.h - the virtual machine monitor's public header: configure a VM, run it, read its counters.
 */
#ifndef UMBRA_VMM_H
#define UMBRA_VMM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "helper/helper.h"
#include "mmu/mmu.h"
#include "numa/numa.h"

#define VMM_MAX_VCPUS	32

/* Exit codes of `umbra run` (docs/umbra.1). */
enum vmm_exit {
	VMM_EXIT_OK = 0,
	VMM_EXIT_ERROR = 1,
	VMM_EXIT_USAGE = 2,
	VMM_EXIT_CRASHED = 3,
	VMM_EXIT_NOT_EXPECTED = 4,
	VMM_EXIT_NO_HOST = 77,
	VMM_EXIT_TIMEOUT = 124,
};

/* Whose tables the processor walks (docs/nested.md). */
enum vmm_mmu { VMM_MMU_SHADOW, VMM_MMU_NESTED };
enum vmm_gates { VMM_GATES_AUTO, VMM_GATES_VMM, VMM_GATES_INVM };	/* AUTO: what measures as the cheaper */
enum vmm_kick { VMM_KICK_AUTO, VMM_KICK_FLUSH, VMM_KICK_REWRITE, VMM_KICK_TABLE };

/* AUTO: only if there is a processor more than vCPUs, and not while others want it. */
enum vmm_helper { VMM_HELPER_OFF, VMM_HELPER_ON, VMM_HELPER_AUTO };

#define VMM_VNUMA_HOST	(~0u)		/* as many as the host has with memory */

/* What a user can ask of a VM. vmm_config_init() fills in the defaults. Strings are borrowed until vmm_run() returns. */
struct vmm_config {
	const char *kernel;		/* path: bzImage or ELF64 */
	const char *initrd;		/* path or NULL */
	const char *cmdline;		/* or NULL */
	const char *symbols;		/* System.map for crash dumps, or NULL */
	uint64_t memory;		/* bytes */
	unsigned vcpus;
	uint64_t shadow_pages;		/* frames of the shadow pool; 0: chosen from memory */
	bool fast_cmdline;		/* add what makes a stock kernel fast (vmm_cmdline_additions()) */
	bool initdomain;		/* SIF_INITDOMAIN in start_info */
	bool on_reboot_exit;		/* reboot ends the run (else the domain is built again) */
	enum vmm_mmu mmu;
	enum vmm_kick kick;
	enum mmu_fill fill;
	enum mmu_prefetch_kind prefetch;
	unsigned prefetch_n;
	unsigned sample_every;		/* of about so many prebuilt entries the use of one is observed; 0: none */
	bool large;
	bool fill_linear, link_ahead;
	bool node_tables;		/* shadow tables for each node, if vCPUs can change theirs */
	struct numa_config numa;	/* where memory and vCPUs are put */
	unsigned vnuma;			/* NUMA nodes that the guest is told of, or VMM_VNUMA_HOST; 0: nothing is said */
	unsigned numa_fake;		/* a test: the host passes for one with so many nodes; 0: no */
	bool huge;			/* let the host back the VM's memory with huge pages */
	bool populate;			/* allocate the guest's memory before it runs */
	unsigned shim;			/* SHIM_DOES_* bits (vmm/shim_abi.h); 0: every hypercall exits */
	enum vmm_helper helper;
	struct heuristic_config heuristics[HELPER_MAX_HEURISTICS];
	unsigned nr_heuristics;
	struct heuristic_feedback feedback;
	int helper_cpus[VMM_MAX_VCPUS];	/* a helper thread on each */
	unsigned nr_helper_cpus;	/* 0: one thread, on any */
	int vcpu_cpus[VMM_MAX_VCPUS];	/* host CPUs of the vCPUs, in turn */
	unsigned nr_vcpu_cpus;		/* 0: consecutive ones, if there are more of them than vCPUs, and several vCPUs */
	bool vcpus_float;		/* on any */
	unsigned helper_queue;		/* a test: room for so many events and trees; 0: the defaults */
	unsigned helper_delay_us;	/* a test: the helper waits up to so long before each look */
	enum vmm_gates gates;		/* user/kernel transitions inside the VM, where the host and shim allow it */
	unsigned audit;
	const char *expect;		/* POSIX extended regex that the console must print, or NULL */
	double timeout;			/* seconds; 0: none */
	const char *control;		/* path of the control socket; "": none; NULL: the default place */
	const char *profile;		/* file for a profile of the guest as folded stacks, or NULL */
	unsigned profile_hz;		/* samples per second and vCPU */
	const char *stats;		/* file to write counters to as JSON, or NULL */
	const char *trace;		/* file to record what heuristics see to, or NULL */
	bool fault_map;			/* where and when faults came, into stats */
	bool table;			/* print the readable table to stderr at the end */
	unsigned trace_exits;		/* exits kept in the ring for a crash dump */
	bool verbose;
	bool quiet;			/* errors only on stderr */
};

/* What `git describe` said of the source. Static storage. Any thread. */
const char *vmm_version(void);

void vmm_config_init(struct vmm_config *config);
/* What fast_cmdline adds for this many vCPUs. Static storage. */
const char *vmm_cmdline_additions(unsigned vcpus);

/* Runs a VM to its end: builds the machine, loads the kernel, runs, prints, cleans up. Messages go to stderr, the guest's
 * console to stdout. Returns an enum vmm_exit. One VM per process at a time; call from the main thread. */
int vmm_run(const struct vmm_config *config);

/* ---- tables for people ------------------------------------------------------------------------------------------- */

#define VMM_NUMBER_TEXT	28
/* "1 234 567". Returns `to`. */
const char *vmm_number_text(uint64_t n, char to[static VMM_NUMBER_TEXT]);
/* How much of `text` to print on `room` columns: all of it, or up to where a phrase ends, or at least a word. */
int vmm_phrase_length(const char *text, unsigned room);

/* ---- control sockets (docs/control.md) ------------------------------------------------------------------------- */

#define VMM_SOCKET_PATH	108		/* bytes of a socket's path, its NUL included: sun_path */

struct vmm_socket {
	pid_t pid;
	char path[VMM_SOCKET_PATH];
};

/* The running guests whose sockets this user can reach, by pid; returns how many of them are in `found`. Removes sockets
 * that a killed umbra has left. */
unsigned vmm_control_find(struct vmm_socket *found, unsigned max);
/* A connection, non-blocking, or -errno. */
int vmm_control_connect(const char *path);
/* Folder `i` in which sockets are looked for. 0, -ENOENT: there are no more, or another -errno: this one is none here. */
int vmm_control_dir(unsigned i, char dir[static VMM_SOCKET_PATH]);
/* The path of this process's own, in a folder that exists and is private. 0 or -errno. */
int vmm_control_default(char path[static VMM_SOCKET_PATH]);

/* ---- what the host is ------------------------------------------------------------------------------------------ */

enum vmm_host_kind { VMM_HOST_UNKNOWN, VMM_HOST_VTX, VMM_HOST_SVM, VMM_HOST_PVM };

struct vmm_host {
	int kvm_error;			/* 0, or -errno of open("/dev/kvm"); -ENODEV: it is not KVM */
	int api_version;
	enum vmm_host_kind kind;
	int second_level;		/* 1: EPT/NPT on, 0: off, -1: KVM has none (PVM) or it cannot be told */
	bool sync_regs, immediate_exit, stats_fd;
	bool fsgsbase;			/* ring 3 may write FS and GS base */
	bool breakpoints;		/* a guest's debug registers work: known of VT-x and SVM on bare metal only */
	int max_vcpus;
	char kernel[96], cpu[64];
	unsigned cpus, nodes;
	uint64_t memory;		/* bytes of host memory */
	uint64_t tsc_khz;		/* 0: unknown */
	bool tsc_constant;
};

/* Looks at the host. Never fails: what cannot be told stays unknown. Any thread. */
void vmm_host_probe(struct vmm_host *host);
const char *vmm_host_kind_name(enum vmm_host_kind kind);
/* What stands behind the tables that the processor walks: EPT, NPT, or what this KVM does instead. */
const char *vmm_second_level_name(const struct vmm_host *host);
/* Prints a line per capability, ok/warn/fail with the fix. Returns VMM_EXIT_OK or VMM_EXIT_NO_HOST. */
int vmm_doctor(FILE *to);

#endif
