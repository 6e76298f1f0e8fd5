/*
 * vm.h - the VM and its vCPUs as the files of vmm/ share them. Not for other modules.
 *
 * Threads: one per vCPU, the console's I/O thread, and the main thread that starts and ends them. A vCPU's fields belong
 * to its thread unless marked. There is no global lock; what is shared names its lock.
 */
#ifndef UMBRA_VMM_VM_H
#define UMBRA_VMM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include <linux/kvm.h>

#include "vmm/counters.h"
#include "vmm/kvm_stats.h"
#include "vmm/layout.h"
#include "vmm/paging.h"
#include "vmm/vmm.h"
#include "vmm/vnuma.h"
#include "vmm/xen.h"

struct vm;
struct vcpu;
struct console;
struct control;
struct profile_cpu;
struct symbols;
struct feed;
struct faultmap;
struct nested;
struct mover;

/* What a ring-0 exception pushes and iretq pops (SDM vol. 3A, 6.14.2). */
struct gate_frame {
	uint64_t rip, cs, rflags, rsp, ss;
};

/* The guest's registers while the VMM has the vCPU. cs and ss are selectors as the guest should see them. */
struct guest_regs {
	struct kvm_regs r;		/* rip, rsp and rflags included */
	uint16_t cs, ss;
};

/* How the vCPU came out of KVM_RUN decides how it goes back in. */
enum vcpu_state {
	VCPU_IN_GATE,			/* at ring 0: leave through a gate stub and a frame */
	VCPU_AT_GUEST,			/* at ring 3 (a signal): registers are the guest's own */
	VCPU_MID_GATE,			/* at ring 0, between two gates: run again as it is */
};

/* A guest instruction run under TF because a breakpoint may fire on it (debugreg.c). */
struct debug_step {
	bool on;			/* TF in regs is ours ... */
	bool done;			/* ... and has trapped */
	bool pushes_flags, loads_flags;	/* what the instruction is */
	uint64_t rip, flags;		/* before it; flags as the guest has them */
	uint64_t hits;			/* DR6 bits of the breakpoints on what it touches */
};

struct exit_record {			/* one line of the exit trace ring */
	uint64_t tsc;
	uint64_t rip, info;		/* info: CR2, hypercall number, port ... by kind */
	uint32_t error_code;
	uint8_t kind;			/* enum vmm_exit_kind */
	uint8_t vector;
	uint8_t mode;
};

/* A guest that took a marker (cpuid leaf 0x4000ff00): counters at that moment. */
struct mark {
	uint32_t id;
	uint64_t ns;			/* since the VM started */
	struct vcpu_counters counters;	/* summed over vCPUs */
	struct mmu_stats mmu;
	struct kvm_counts kvm;
};

#define PIN_LOCKS	64u

struct vcpu {
	struct vm *vm;
	unsigned id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	_Atomic pid_t tid;
	struct mmu_cpu *mmu;
	_Atomic unsigned place;		/* the node it runs on, an index into vm->place[] */
	clockid_t cpu_clock;		/* of its thread ... */
	atomic_bool has_clock;		/* ... once that is known */
	unsigned tables_place;		/* whose shadow tables the roots are of */

	/* remote.c: how other vCPUs get this one out of the guest */
	_Atomic uint32_t phase;		/* odd: in the guest, or about to enter it. A futex */
	atomic_bool phase_waited;	/* somebody sleeps until it changes */
	atomic_bool flush_wanted;	/* another vCPU's: flush the TLB before the guest goes on */

	/* xen_smp.c. Lock: what other vCPUs may change or look at, namely initialised, gdt_frames .. ldt_frames, runstate,
	 * runstate_va. Of two vCPUs, nobody holds both */
	pthread_mutex_t lock;
	bool initialised;		/* has a context to run */
	atomic_bool up;
	struct vcpu_guest_context *_Atomic start;	/* ... that its own thread has still to take over */

	/* guest state */
	struct guest_regs regs;
	enum mmu_mode mode;
	enum vcpu_state state;
	gfn_t l4[2];			/* [enum mmu_mode]; user: MMU_NO_GFN until the guest names one */
	mfn_t root[2];
	uint64_t cr3;			/* what the processor has */
	uint64_t gs_base[2], fs_base;	/* [enum mmu_mode]; read back at every exit for the mode that ran */
	bool need_bases;		/* fs_base or gs_base[mode] differ from the processor's */
	unsigned gs_user_selector;	/* from SEGBASE_GS_USER_SEL; its base is looked up at the return to user mode, 0: none */
	int gs_selector;		/* to be loaded into %gs at the next resume, -1: none */
	uint64_t cr0, cr4;		/* as the guest sees them */
	uint64_t xcr0;
	uint64_t debugreg[8];
	struct debug_step step;
	unsigned iopl;			/* 0-3 */
	gva_t iobmp;			/* I/O permission bitmap, in the kernel space ... */
	unsigned iobmp_ports;		/* ... covers so many ports; 0: none */
	struct trap_info traps[256];
	uint64_t callback[CALLBACK_MAX];
	bool callback_mask[CALLBACK_MAX];	/* CALLBACKF_mask_events */
	uint64_t kernel_sp;
	uint16_t kernel_ss;
	uint64_t gdt_frames[16], gdt_ents;
	uint64_t ldt_base, ldt_ents;
	uint64_t ldt_frames[16];
	bool restart;			/* execute the hypercall instruction once more ... */
	unsigned retries;		/* ... but not for ever */

	/* Xen per-vCPU memory. The pointers go into guest RAM and are set once, by checked hypercalls */
	struct vcpu_info *_Atomic info;
	gva_t runstate_va;
	struct vcpu_runstate_info runstate;
	gva_t time_va;

	/* being woken: any thread may set `wake`, then signals the thread or the eventfd (vcpu_wake()) */
	atomic_bool wake;
	volatile bool signalled;	/* this thread, by a timer or another thread, since it looked at events last */
	atomic_bool blocked;
	int wake_fd;
	timer_t timer;			/* posix timer that signals this thread */
	bool timer_made;
	uint64_t deadline;		/* system time in ns of the single-shot timer, 0: none */
	uint64_t poll_deadline;
	uint64_t period, next_period;	/* ns */
	uint64_t armed;			/* system time before which `timer` cannot fire, 0: not set */
	struct vcpu_time_info time;	/* as last published ... */
	uint32_t time_anchor;		/* ... by this vm->clock.seq */

	/* the monitor's side */
	char *area;			/* hva of the vCPU area */
	unsigned nr_kicks;		/* addresses in the area that the gate has still to rewrite */
	uint64_t kick_cpus;		/* by mmu_cpu_number(): who may cache what the drained kicks are about */
	bool kicks_out;			/* a drained kick list is not known to have taken effect yet */
	bool flush;			/* load CR3 on the way into the guest */
	uint32_t shim_tail;		/* ring entries taken; ring_lock: any vCPU may take them */
	pthread_mutex_t ring_lock;
	struct feed *feed;		/* to the helper thread; NULL: there is none */
	uint64_t recheck;		/* look at events again at this system time, 0: no ... */
	uint32_t recheck_ns;		/* ... and how much later the next time */
	uint64_t storm_rip, storm_va;	/* a fault that comes back although the shadow allows it ... */
	unsigned storm;			/* ... and how often it did in a row */
	struct vcpu_counters counters;
	struct faultmap *faultmap;	/* NULL: nobody asked */
	struct exit_record *trace;
	unsigned trace_at, trace_size;
	uint64_t exit_tsc;
	struct profile_cpu *profile;	/* NULL: none */
	volatile int in_kvm;		/* for this thread's signal handlers: KVM_RUN has begun and not ended */
};

/* What measure.c found on this host, 0: not measured or not possible. Other threads may look while it is at work. */
struct transition_costs {
	_Atomic uint64_t fetch_ns, store_ns;	/* an exit by a fetch from the gate page, by a store where no memory is; and back */
	_Atomic uint64_t gate_ns;		/* an exception, the gate, and back to ring 3 */
	atomic_bool by_store;			/* how the shim leaves */
};

struct vm {
	const struct vmm_config *config;
	struct vmm_host host;
	int kvm_fd, fd;
	void *ram, *mon;		/* hva */
	uint64_t ram_frames, mon_frames;
	uint64_t populated;		/* of ram_frames, those backed by host memory before the guest ran */
	uint64_t nr_gfns;		/* ram_frames + shared_info */
	mfn_t mon_first, m2p, pool, mon_tables;
	mfn_t exit_frame;		/* no memory: the shim stores there to leave the VM */
	uint64_t *shim_l1[VMM_MAX_VCPUS];	/* the leaf tables of the shim's slot */
	mfn_t pins;			/* where the shims and the VMM write down what is pinned (shim.c) */
	mfn_t idle_root;		/* gate and pool only, for a vCPU that has no space */
	unsigned nr_mon_tables;
	uint32_t pool_pages;
	bool node_tables;		/* each place has shadow tables of its own (node_tables.c) */
	const struct paging_ops *paging;
	struct mmu *mmu;		/* mode nested: the pmap and the walker only */
	uint64_t hole[2][16];		/* [enum mmu_mode]: L4 entries of the hole */
	uint64_t shim_entry[VMM_MAX_VCPUS];	/* [vcpu]: what its kernel roots have for the shim instead */
	pthread_mutex_t pin_locks[PIN_LOCKS];	/* by gfn: applying what `pins` says */
	struct nested *nested;		/* --mmu=nested (nested.h); else NULL */
	const struct kick_ops *kick;
	bool remote_flush;		/* a kick on one vCPU does not reach the others by itself */
	struct shared_info *shared;
	uint64_t start_ns;		/* CLOCK_MONOTONIC when the guest's system time was 0 */
	uint64_t tsc_khz, tsc_start;
	struct {			/* system time by the TSC where that is not constant; who gets clock_lock writes */
		_Atomic uint32_t seq;	/* odd: being written */
		uint64_t tsc, ns;	/* the anchor ... */
		uint64_t host_ns;	/* ... and what CLOCK_MONOTONIC said, since start_ns */
		uint32_t mul;
		int8_t shift;
	} clock;
	atomic_flag clock_lock;
	_Atomic uint64_t vm_assist;	/* bit per VMASST_TYPE_* */
	struct kvm_cpuid2 *cpuid;	/* what the guest sees */
	struct evtchn *evtchn;
	struct console *console;
	struct control *control;	/* NULL: none */
	struct symbols *symbols;
	unsigned console_port;

	unsigned nr_vcpus;
	struct vcpu *vcpus;
	struct helper *helper;		/* NULL: none */
	struct trace *trace;		/* --trace; NULL: none */
	struct helper_stats helper_stats;	/* once it has ended */
	uint64_t helper_lag[HELPER_LAGS];	/* atomic: records that waited 2^i to 2^(i+1) ns for an idle helper */
	bool gates;			/* transitions between user and kernel inside the VM */
	struct transition_costs costs;
	struct numa_topology topology;	/* nr_nodes 0: not known */
	struct vnuma vnuma;		/* nr_vnodes 0: the guest is told nothing */
	struct numa_config placed;	/* what pages to come are placed by now; without a manager. The control thread may change it */
	unsigned nr_places;		/* nodes that frames and vCPUs are moved between; 1: nothing moves (places.c) */
	uint8_t place[NUMA_MAX_PLACES];	/* their numbers on the host */
	mfn_t node_base[NUMA_MAX_PLACES];	/* of each, the machine frame where guest frame 0 would stand there ... */
	void *place_hva[NUMA_MAX_PLACES];	/* ... and its hva */
	struct mover *mover;		/* NULL: nothing moves */
	struct numa_manager *numa;	/* ... or what decides what does */
	unsigned shim_sites;		/* places of the guest kernel hooked to the shim */
	uint64_t unhooked[8];		/* hypercall sites seen that are not, each named once */

	/* how it ends: first writer wins, `stop` under end_lock */
	pthread_mutex_t end_lock;
	atomic_bool stop;
	int exit_code;
	uint64_t end_ns;		/* vm_now() at the first vm_stop(), 0 before */
	bool reboot;
	char end_reason[256];
	char *dump;			/* state dump of a crash, printed at the end */

	struct kvm_stats *kvm_stats;
	pthread_mutex_t mark_lock;
	struct mark *marks;
	unsigned nr_marks;
};

/* Takes a lock; counts in *waits if somebody had it. */
static inline void vm_lock(pthread_mutex_t *lock, uint64_t *waits)
{
	if (!pthread_mutex_trylock(lock))
		return;
	++*waits;
	pthread_mutex_lock(lock);
}

/* ---- vcpu.c: the run loop ---------------------------------------------------------------------------------------- */
int vcpu_init(struct vm *vm, struct vcpu *v, unsigned id);
void vcpu_fini(struct vcpu *v);
void *vcpu_thread(void *vcpu);
/* Makes the vCPU look at its events and at vm->stop soon. Any thread. */
void vcpu_wake(struct vcpu *v);
/* What has woken or signalled the vCPU so far is seen by who looks at deadlines, events and vm->stop from now on; what does
 * after this ends the next run of the guest, also the one about to begin. On its own thread. */
static inline void vcpu_begin_look(struct vcpu *v)
{
	v->signalled = false;
	v->run->immediate_exit = 0;
	atomic_store(&v->wake, false);	/* the compiler keeps the order */
}
/* Switches the guest between its kernel and its user address space; the next resume does the rest. */
void vcpu_set_mode(struct vcpu *v, enum mmu_mode mode);
/* Sleeps until the vCPU is up; false: the VM ends. On its own thread. */
bool vcpu_park(struct vcpu *v);

/* ---- remote.c: one vCPU and the others ------------------------------------------------------------------------------ */
/* Around KVM_RUN where the guest may run. After the first, whoever wants something of this vCPU gets it out of there. */
void remote_enter(struct vcpu *v);
void remote_leave(struct vcpu *v);
/* Makes every other vCPU whose mmu_cpu_number() is in `cpus` flush its TLB before it runs another instruction of the guest.
 * Waits only for those that are in the guest, and only until they have left it. `v` is not in the guest. */
void remote_flush(struct vcpu *v, uint64_t cpus);

/* The system time in ns that this guest reads. Any thread. */
uint64_t vm_now(const struct vm *vm);

/* ---- vm.c ---------------------------------------------------------------------------------------------------------- */
/* Ends the run: every vCPU and the console thread stop. The first call decides code and reason. Any thread. */
void vm_stop(struct vm *vm, int exit_code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The guest did what no guest may: as vm_stop(), with a state dump. On the vCPU's own thread. */
void vcpu_crash(struct vcpu *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- entry.c: into and out of KVM_RUN ------------------------------------------------------------------------------ */
enum gate_event { GATE_EXCEPTION, GATE_SYSCALL_IN, GATE_SYSCALL32_IN, GATE_KICKED, GATE_INTERRUPTED, GATE_FAILED };
struct gate_exit {
	enum gate_event event;
	uint8_t vector;			/* GATE_EXCEPTION */
	uint32_t error_code;
	uint64_t cr2;
	const char *why;		/* GATE_FAILED */
};
/* Runs the guest until something happens. Fills v->regs and *e. */
void vcpu_enter(struct vcpu *v, struct gate_exit *e);
/* Does all kicks that the vCPU owes, without running the guest: before it sleeps. False: they failed, and the VM ends. */
bool vcpu_do_kicks(struct vcpu *v);
/* Puts a fresh vCPU at ring 0 of the gate, with the monitor's tables loaded. 0 or -errno. */
int vcpu_reset(struct vcpu *v);

/* ---- kick.c -------------------------------------------------------------------------------------------------------- */
struct kick_ops {
	const char *name;
	const char *when;		/* the hosts it is right on */
	unsigned table_min;		/* for mmu_config.table_kick_min */
	bool rewrites;			/* needs to be told of every entry; else a TLB flush alone does it */
	/* Drains v's kick list, as far as there is room, into addresses that the gate has to rewrite; returns how
	 * many. 0 with an empty kick list: a TLB flush alone does it. max is at least MMU_ENTRIES. */
	unsigned (*fill)(struct vcpu *v, uint64_t *list, unsigned max);
};
const struct kick_ops *kick_choose(enum vmm_kick wanted, const struct vmm_host *host);

/* ---- monitor.c ----------------------------------------------------------------------------------------------------- */
/* Places everything in the monitor's slot (vm->m2p, vm->pool ...) and says how many frames it needs. Before it is mapped. */
void monitor_layout(struct vm *vm);
/* Fills in gate page, IDT, M2P, page tables. hole: for mmu_config. */
void monitor_build(struct vm *vm, uint64_t hole[2][16]);
void monitor_init_vcpu(struct vcpu *v);
/* Shows the shim one frame of the guest's writable, once: where its map of RAM is read-only. Returns the address. */
uint64_t monitor_map_info(struct vcpu *v, gfn_t gfn);
/* Checks as Xen's check_descriptor() and fixes DPL; false: not allowed. */
bool monitor_descriptor_ok(uint64_t *desc);
uint64_t *monitor_gdt(struct vcpu *v);
uint64_t *monitor_ldt(struct vcpu *v);
void monitor_set_ldt(struct vcpu *v, unsigned entries);

/* The gate pages of both roots, as vm->gates wants them. While no vCPU runs. */
void monitor_build_gates(struct vm *vm);

/* ---- placement.c: NUMA nodes ------------------------------------------------------------------------------------------ */
/* Reads the nodes and says what cannot be had; then, once there is memory and nothing has touched it, says where it is to come
 * from. 0 or -errno after a message. */
int placement_start(struct vm *vm);
int placement_memory(struct vm *vm);
void placement_thread(struct vcpu *v);
/* The vCPU's thread runs on the processors of host node `node` from now on, on shadow tables of that node. Any thread. -EINVAL: it has none; -EAGAIN: the
 * thread has not begun. */
int placement_move_vcpu(struct vm *vm, unsigned vcpu, unsigned node);
/* places.c. Which nodes things move between; memory for what moves. 0 or -errno, the first after a message. */
int places_start(struct vm *vm);
int places_map(struct vm *vm, void *(*map)(uint64_t frames, bool huge));
void places_unmap(struct vm *vm);
/* Pages of this memory come from host node `node` while it has some (mover_pages.c says why no more than that). 0 or -errno. */
int places_prefer(void *at, size_t bytes, unsigned node);
void places_choose(struct vm *vm);	/* where vCPUs start: once they are made, before they run */
void places_thread(struct vcpu *v);
void places_vcpu_moved(struct vcpu *v, unsigned node);
/* The place that frames stand on now, of replicated ones the master, by the host kernel's word; NUMA_NOWHERE. Any thread. */
void placement_nodes(const struct vm *vm, const uint64_t *gfns, unsigned n, uint8_t *places);
unsigned placement_node_of(struct vm *vm, gfn_t gfn);
/* As placement_move_vcpu(), by place. */
int places_move_vcpu(struct vm *vm, unsigned vcpu, unsigned place);

/* numa_machine.c. 0 or -errno; vm->numa stays NULL if nothing moves. */
int machine_manager_create(struct vm *vm);

/* ---- mover.c: frames moved while the guest runs. Without a mover all of it does nothing ----------------------------------- */
#define MOVER_COUNTERS(X) \
	X(batches,		"batches of moves or watches that a vCPU was asked to do") \
	X(moved,		"frames moved") \
	X(replicated,		"frames given copies") \
	X(collapses,		"frames whose copies became one again") \
	X(watched,		"frames watched") \
	X(home_for_pin,		"frames brought home to become page tables") \
	X(busy,			"moves put off: a page table, or somebody else is at it") \
	X(stopped_inside,	"batches put off because a shim was stopped in the middle of a page-table update") \
	X(no_room,		"pages that a node did not have") \
	X(given_back,		"pages given back to the host") \
	X(joined,		"2 MiB regions, moved as a whole, that the host backs with a huge page again") \
	X(move_ns,		"time of vCPU threads spent on moves") \
	X(watch_ns,		"... on watching") \
	X(refill_ns,		"what KVM took to mend its own tables after their kicks, at a guess")

struct mover_counters {
#define X(name, what) uint64_t name;
	MOVER_COUNTERS(X)
#undef X
};

/* Once vm->mmu and vm->nr_places are there, before vCPUs are made. 0 or -ENOMEM. */
int mover_create(struct vm *vm);
void mover_destroy(struct vm *vm);
/* Makes `n` moves; each has a result: 0, -EBUSY: not now, -ENOMEM: the node has no room, -EINVAL. Any thread but a vCPU's; one
 * caller at a time, others wait. -ENOTSUP: nothing can be moved. */
int mover_do(struct vm *vm, struct numa_move *moves, unsigned n);
/* The next accesses to these frames show as hidden faults (mmu_watch()). 0 if that holds for one of them. As mover_do(). */
int mover_watch(struct vm *vm, const uint64_t *gfns, unsigned n);
/* What KVM has spent so far on entries that kicks for the mover's sake took, where it shadows our tables. The manager's thread. */
uint64_t mover_refill_ns(struct vm *vm);
/* Does what others have asked for. On a vCPU's own thread where it holds no pointer to guest memory. */
void mover_serve(struct vcpu *v);
bool mover_wanted(const struct vcpu *v);
/* The frame is to become a page table: it had best be at home. On a vCPU's own thread. 0, -EBUSY: it
 * is being moved, -ENOMEM. */
int mover_bring_home(struct vcpu *v, gfn_t gfn);
/* The frame stays at home from now on: for pointers that are kept, and the shim's. On a vCPU's own thread. 0 or -errno. */
int mover_keep_home(struct vcpu *v, gfn_t gfn);
/* For mmu_config.collapsed; arg: the VM. */
void mover_collapsed(void *arg, gfn_t gfn, mfn_t kept);
void mover_stats(const struct vm *vm, struct mover_counters *out);

/* ---- node_tables.c: shadow tables for each place ------------------------------------------------------------------------ */
/* Once vm->nr_places is known: vm->node_tables and ->pool_pages. `one`: what a single set of tables is given. 0 or -EINVAL after
 * a message. */
int node_tables_start(struct vm *vm, uint32_t one);
/* Once there is an MMU, before anything has touched the pool. 0 or -errno. */
int node_tables_place(struct vm *vm);
/* The vCPU runs on the tables of v->place from now on, if they can be had at once. On its own thread, out of the guest. */
void node_tables_switch(struct vcpu *v);
/* On the vCPU's own thread, on its way in: has it been moved to another place? All begin on the tables of place 0, and bring
 * along from there what the kernel has mapped by then. */
static inline void node_tables_follow(struct vcpu *v)
{
	if (v->vm->node_tables && atomic_load_explicit(&v->place, memory_order_relaxed) != v->tables_place)
		node_tables_switch(v);
}

/* ---- measure.c ------------------------------------------------------------------------------------------------------ */
void measure_transitions(struct vcpu *v);

/* ---- shim.c: hypercalls done inside the guest --------------------------------------------------------------------------- */
struct image;
bool shim_on(const struct vm *vm);
bool shim_wants_fsgsbase(const struct vm *vm);
int shim_install(struct vm *vm, bool by_store);
uint64_t shim_to_user_rip(void);
uint64_t shim_exit_rip(void);
uint64_t shim_measure_rip(void);
void shim_patch_kernel(struct vm *vm, const struct image *img);
void shim_fill_hypercall(uint8_t *p, unsigned nr, bool iret);
void shim_init_vcpu(struct vcpu *v);
void shim_set_info(struct vcpu *v, const void *hva);
void shim_sync_in(struct vcpu *v);
void shim_sync_out(struct vcpu *v);
/* Takes up what other vCPUs' shims have written down. On the thread of `v`; true: there was something. Before anything that
 * the guest may rely on to see another vCPU's finished updates: flushes, loads, pins, true faults. */
bool shim_sync_others(struct vcpu *v);
/* Whether the vCPU may have changed, on behalf of others, what is not in force yet: true while it is out of the guest, but when
 * it sleeps. */
void shim_owes(struct vcpu *v, bool yes);
/* The guest pins or unpins (level 0) a table by a hypercall that the VMM does. 0 or -EINVAL. */
int shim_pin(struct vcpu *v, gfn_t table, unsigned level);
/* From now on no shim uses the frame by its number once shim_wait_outside() has said true. False: the frame is pinned. *was_not:
 * it was not AWAY before. Any thread, as the next two. */
bool shim_set_away(struct vm *vm, gfn_t gfn, bool *was_not);
void shim_clear_away(struct vm *vm, gfn_t gfn);
/* Waits some microseconds for shims that had looked before. False: one was stopped half way, try later. */
bool shim_wait_outside(struct vm *vm);
bool shim_busy(const struct vcpu *v);
void shim_note_site(struct vcpu *v);
void shim_arm_gates(struct vcpu *v);
void shim_find_mode(struct vcpu *v, uint64_t cr3);
bool shim_take_user(struct vcpu *v, uint32_t *error_code, uint64_t *cr2);
bool shim_refused_user(struct vcpu *v, uint64_t rip);
void shim_abort(struct vcpu *v);
uint32_t shim_ring_head(struct vcpu *v);
uint64_t shim_ring_line(struct vcpu *v, uint32_t at);
void shim_ring_watch(struct vcpu *v, bool yes);
uint64_t shim_multicall_done(struct vcpu *v, uint64_t count);

/* ---- feed.c: what the helper thread is told. On the vCPU's thread; cheap without a helper --------------------------------- */
/* Once the vCPUs exist, before they run: starts the helper if it is configured. 0 or -errno. */
int feed_start(struct vm *vm);
void feed_stop(struct vm *vm);		/* the vCPUs have ended */
void feed_update(struct vcpu *v, gfn_t table, unsigned index);
void feed_pin(struct vcpu *v, gfn_t table, unsigned level);	/* level 0: no longer */
void feed_switch(struct vcpu *v, enum mmu_mode mode, gfn_t root);
void feed_fault(struct vcpu *v, uint64_t va, uint32_t access, enum mmu_verdict verdict);
void feed_sync(struct vcpu *v);		/* the shim's ring was taken up */
void feed_line(struct vcpu *v, uint64_t line);	/* of the shim's ring, as the vCPU's thread takes it up */
void feed_mark(struct vcpu *v, uint32_t id);
/* record.c: --trace. Before the helper starts, which is to pass on what it sees; and when nobody records any more. */
int record_start(struct vm *vm, struct helper_config *helper);
void record_stop(struct vm *vm);

/* ---- addresses ------------------------------------------------------------------------------------------------------ */
/* `va` with bit 47 copied up: equal to `va` if that is canonical (SDM vol. 1, 3.3.7.1). */
static inline uint64_t canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16);
}

static inline bool is_canonical(uint64_t va)
{
	return canonical(va) == va;
}

/* In the hypervisor's part of the address space, whatever the guest's tables say there. */
static inline bool in_hole(uint64_t va)
{
	return va >= HOLE_START && va < HOLE_END;
}

/* What a guest may have in RFLAGS at ring 3: no IOPL, VM, VIF, VIP. IF is always 1: the guest's is upcall_mask. */
#define RFLAGS_GUEST	0x254dd5ull
#define RFLAGS_FIXED	0x2ull
#define RFLAGS_IF	0x200ull

/* Exceptions that push an error code (SDM vol. 3A, table 6-1). */
static inline bool has_error_code(unsigned vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30;
}

/* ---- gaccess.c: guest memory by guest address ------------------------------------------------------------------------ */
/* Through the kernel space of `v`, on its thread. 0 or -EFAULT; then nothing or a prefix was copied. */
int guest_read(struct vcpu *v, uint64_t va, void *to, size_t bytes);
int guest_write(struct vcpu *v, uint64_t va, const void *from, size_t bytes);
/* Through the space of the current mode. */
int guest_fetch(struct vcpu *v, uint64_t va, void *to, size_t bytes, size_t *got);
/* hva of a physical range that lies inside one frame of RAM or shared_info; NULL. To read at once; stores go by
 * mmu_write(), unless the frame is kept (paging_ops.keep_writable). */
void *guest_phys(struct vm *vm, uint64_t pa, size_t bytes);
#define guest_get(v, va, p)	guest_read(v, va, p, sizeof *(p))
#define guest_put(v, va, p)	guest_write(v, va, p, sizeof *(p))

/* ---- trap.c, bounce.c ------------------------------------------------------------------------------------------------- */
void trap_exception(struct vcpu *v, const struct gate_exit *e);
void trap_syscall(struct vcpu *v, bool compat);
/* Builds a Xen bounce frame and enters the guest kernel at its handler. */
void bounce_trap(struct vcpu *v, unsigned vector, uint32_t error_code, bool has_error);
void bounce_syscall(struct vcpu *v);
bool bounce_event(struct vcpu *v);	/* delivers a pending upcall if the guest takes one now */

/* ---- debugreg.c: breakpoints ------------------------------------------------------------------------------------------- */
/* Around vcpu_enter(): set and take away what stepping needs. The first may deliver #DB. */
void debugreg_before_run(struct vcpu *v);
void debugreg_after_run(struct vcpu *v, const struct gate_exit *e);
/* The processor raised #DB: delivers it if it is the guest's. */
void debugreg_trap(struct vcpu *v);

/* ---- emulate.c --------------------------------------------------------------------------------------------------------- */
enum emulated { EMUL_DONE, EMUL_NOT_OURS };
/* Emulates the instruction at rip if it is one that a PV kernel may execute. */
enum emulated emulate_privileged(struct vcpu *v);
/* ud2; "xen"; cpuid */
enum emulated emulate_forced(struct vcpu *v);

/* ---- cpuid.c ------------------------------------------------------------------------------------------------------------ */
int cpuid_build(struct vm *vm);
void cpuid_read(struct vm *vm, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
/* The XCR0 bits the guest may set; 0: no XSAVE. */
uint64_t cpuid_xcr0(struct vm *vm);

/* ---- xen_*.c: the PV ABI ------------------------------------------------------------------------------------------------- */
void xen_hypercall(struct vcpu *v);
typedef long xen_handler_fn(struct vcpu *v, const uint64_t a[6]);
const char *xen_hypercall_name(unsigned nr);
xen_handler_fn xen_set_trap_table, xen_mmu_update, xen_set_gdt, xen_stack_switch, xen_set_callbacks, xen_fpu_taskswitch,
	xen_sched_op_compat, xen_set_debugreg, xen_get_debugreg, xen_update_descriptor, xen_memory_op, xen_multicall,
	xen_update_va_mapping, xen_set_timer_op, xen_version_op, xen_console_io, xen_physdev_op, xen_vm_assist, xen_iret,
	xen_vcpu_op, xen_set_segment_base, xen_mmuext_op, xen_sched_op, xen_callback_op, xen_event_channel_op;
long xen_get_vnumainfo(struct vcpu *v, uint64_t info);
/* XENFEAT bits this VM offers (submap 0). */
uint32_t xen_features(const struct vm *vm);
long xen_do_call(struct vcpu *v, unsigned nr, const uint64_t a[6]);
/* CR0.TS is off, in the guest's view and the processor's. */
void xen_fpu_restore(struct vcpu *v);
/* The kernel's root table becomes `l4`. 0 or -EINVAL, Xen's errno. */
int xen_new_baseptr(struct vcpu *v, gfn_t l4);
/* That of its user mode; 0: none. */
int xen_new_user_baseptr(struct vcpu *v, uint64_t l4);
long xen_set_ldt(struct vcpu *v, uint64_t va, uint64_t entries);
void xen_user_gs(struct vcpu *v);

/* xen_smp.c: what a vCPU may do to another */
long xen_vcpu_initialise(struct vcpu *v, struct vcpu *o, uint64_t context);
long xen_vcpu_up(struct vcpu *o);
long xen_vcpu_down(struct vcpu *v);
/* Takes over the context that VCPUOP_initialise left, if there is one. On the vCPU's own thread; false: it cannot run. */
bool xen_vcpu_start(struct vcpu *v);
bool xen_context_ok(struct vcpu *v, const struct vcpu_guest_context *c);
int xen_load_gdt(struct vcpu *v, const uint64_t *frames, uint64_t entries);

/* time */
void xen_time_init(struct vcpu *v);
void xen_time_publish(struct vcpu *v);
void xen_time_publish_info(struct vcpu *v);	/* in its vcpu_info alone; any thread */
void xen_timer_expired(struct vcpu *v);		/* looks at deadlines; may raise VIRQ_TIMER */
void xen_timer_arm(struct vcpu *v);
uint64_t xen_next_deadline(const struct vcpu *v);	/* system time, 0: none */
void vcpu_block(struct vcpu *v);
void xen_runstate(struct vcpu *v, int state);

/* event channels. Lock: evtchn's own; pending bits are atomic */
int evtchn_init(struct vm *vm);
void evtchn_fini(struct vm *vm);
void evtchn_raise_virq(struct vcpu *v, unsigned virq);
void evtchn_raise_port(struct vm *vm, unsigned port);	/* any thread */
int evtchn_make_console(struct vm *vm);			/* returns the port */
bool evtchn_pending(struct vcpu *v);			/* an upcall is due and not masked */

/* ---- build.c: the domain builder ------------------------------------------------------------------------------------------ */
/* Loads kernel and initrd into RAM, makes boot page tables, start_info; sets up vCPU 0. Prints its own message. */
int domain_build(struct vm *vm);
/* Names for a crash dump if there are none yet, from the kernel's own tables. Takes a tenth of a second: not for a crash that
 * may never come. */
void domain_late_symbols(struct vm *vm);

/* ---- console.c (I/O thread) --------------------------------------------------------------------------------------------------- */
int console_start(struct vm *vm);		/* makes the I/O thread; raw tty if stdin is one */
void console_finish(struct vm *vm);		/* vCPUs have ended: drains, joins, restores the terminal. Idempotent */
void console_free(struct vm *vm);		/* after the last console_expect_met() */
/* The shared xencons_interface page in guest RAM, unused so far. NULL: its memory goes away (the domain is built again). */
void console_set_ring(struct vm *vm, void *ring_page);
void console_kick(struct vm *vm);		/* the guest rang the console port. Any thread */
void console_write(struct vm *vm, const char *bytes, size_t n);	/* console_io write. Any thread */
size_t console_read(struct vm *vm, char *bytes, size_t max);	/* console_io read. Any thread */
bool console_expect_met(struct vm *vm);		/* true when there is none */

/* ---- trace.c, dump.c, stats.c ------------------------------------------------------------------------------------------------------ */
void trace_exit(struct vcpu *v, const struct gate_exit *e);
void dump_vcpu(struct vcpu *v, FILE *to);
void stats_sum(struct vm *vm, struct vcpu_counters *c, struct mmu_stats *m);
void stats_mark(struct vcpu *v, uint32_t id);
int stats_write_json(struct vm *vm, const char *path);
void stats_print_table(struct vm *vm, FILE *to);

#endif
