/*
 * shim_code.c - hypercalls done inside the guest, at ring 3: page-table updates and the like are stores to memory that the
 * guest owns anyway, plus a line in a ring that tells the VMM which shadow entries to look at.
 *
 * This file does not run in the VMM. Its functions lie in section shim_text, are copied to SHIM_VA and see the guest
 * kernel's address space: RAM_MAP_VA shows all of guest RAM by physical address, SHIM_DATA_VA the vCPU's struct
 * shim_data. No data, no calls out of the section, no vector registers (module.mk has the flags).
 *
 * Whatever the shim cannot finish it gives up, and the VMM does the whole hypercall again: stores of the same entry are
 * idempotent. Pins are not, so an mmuext_op is looked through before anything is done, and a multicall says how many of
 * its entries are over.
 */
#include <stdbool.h>
#include <stddef.h>

#include "vmm/layout.h"
#include "vmm/shim_abi.h"
#include "vmm/xen.h"

#define SHIM	__attribute__((section("shim_text")))
#define INLINE	static inline __attribute__((always_inline))
#define D	((volatile struct shim_data *)SHIM_DATA_VA)
#define S	((volatile struct shim_shared *)SHIM_SHARED_VA)
#define PINS	((volatile uint8_t *)SHIM_PINS_VA)
#define RING	((volatile uint64_t *)SHIM_RING_VA)

#define PTE_P	1ull
#define PTE_W	2ull
#define PTE_U	4ull
#define PTE_A	0x20ull
#define PTE_D	0x40ull
#define PTE_PS	0x80ull
#define PTE_NX	(1ull << 63)
#define PF_P	1u
#define PF_W	2u
#define PF_U	4u
#define PF_FETCH 16u
#define ADDR	0x000ffffffffff000ull

struct shim_regs {			/* as shim_entry.S pushes them */
	uint64_t rax, rdi, rsi, rdx, r10, r8, r9, r11, rcx, rbx;
};

uint64_t shim_dispatch(struct shim_regs *r);
uint64_t shim_user_allowed(uint64_t error, uint64_t va);

INLINE bool ring_full(unsigned more)
{
	return D->head - D->tail > SHIM_RING - more;
}

INLINE void log_entry(uint64_t e)
{
	RING[D->head & (SHIM_RING - 1)] = e;
	__atomic_store_n(&D->head, D->head + 1, __ATOMIC_RELEASE);
}

INLINE bool entry_ok(uint64_t gpte)
{
	return !(gpte & PTE_P) || (gpte & ADDR) >> 12 < D->nr_gfns;
}

/* Around every use of frames by their numbers (shim_abi.h). Not nested. Returns D->moves, for the others. */
INLINE uint32_t go_inside(void)
{
	uint32_t moves = D->moves;

	if (moves)
		(void)__atomic_exchange_n(&D->inside, 1, __ATOMIC_SEQ_CST);
	return moves;
}

INLINE void leave_inside(uint32_t moves)
{
	if (moves)
		__atomic_store_n(&D->inside, 0, __ATOMIC_RELEASE);
}

/* Inside only, or as a hint. */
INLINE bool is_away(uint64_t gfn, uint32_t moves)
{
	return moves && (__atomic_load_n(&PINS[gfn], __ATOMIC_SEQ_CST) & SHIM_AWAY);
}

INLINE uint64_t *at(uint64_t pa)
{
	return (uint64_t *)(RAM_MAP_VA + pa);
}

/* Whether a translation that `old` allowed is not, or not so, allowed by `new`: then a flush has work to do. Cleared A and D
 * count, for the processor is to set them again (SDM vol. 3A, 4.8). */
INLINE bool weaker(uint64_t old, uint64_t new)
{
	const uint64_t rights = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D;

	return (old & PTE_P) && ((old & ~new & rights) || (~old & new & PTE_NX) || ((old ^ new) & ~(rights | PTE_NX)));
}

INLINE void count_removal(void)
{
	S->removals[D->vcpu]++;
}

/* The store the guest asked for. A/D that the processor (the VMM, for us) sets meanwhile must survive PRESERVE_AD. Inside; false:
 * the table is AWAY, nothing was stored. */
INLINE bool store_inside(uint64_t pa, uint64_t gpte, bool preserve_ad, uint64_t *was, uint32_t moves)
{
	uint64_t *p = at(pa), old, new;

	if (is_away(pa >> 12, moves))
		return false;
	old = __atomic_load_n(p, __ATOMIC_RELAXED);
	do
		new = preserve_ad ? gpte | (old & 0x60) : gpte;
	while (!__atomic_compare_exchange_n(p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
	*was = old;
	return true;
}

/* Logged only after leaving: the VMM comes by the number of the table, wherever that is by then. */
INLINE void log_store(uint64_t pa, uint64_t old, uint64_t new)
{
	log_entry((pa & ~0xfffull) | (pa & 0xff8) | SHIM_UPDATE);
	if (weaker(old, new))
		count_removal();
}

INLINE bool store(uint64_t pa, uint64_t gpte, bool preserve_ad)
{
	uint32_t moves = go_inside();
	uint64_t old;
	bool done = store_inside(pa, gpte, preserve_ad, &old, moves);

	leave_inside(moves);
	if (done)
		log_store(pa, old, preserve_ad ? gpte | (old & 0x60) : gpte);
	return done;
}

/*
 * A flush has something to do only if a present entry changed, or a table is out of sync. must_flush comes last: a signal
 * may stop the vCPU amid this look, and the VMM then takes up what the vCPU has written down, but can do the kicks only at
 * the next exit. That nobody has left the guest meanwhile makes of the look a moment at which all of it was true.
 */
SHIM static bool flush_idle(void)
{
	unsigned n = D->nr_vcpus, me = D->vcpu;
	uint32_t epoch = __atomic_load_n(&S->epoch, __ATOMIC_ACQUIRE);

	if (n > 1)	/* stores of ours before, direct ones to page tables included */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < n; i++)
		if (S->removals[i] != S->seen[i])
			return false;
	for (unsigned i = 0; i < n; i++)
		if (i != me && S->owes[i])
			return false;
	return !(S->unsync & 1) && S->epoch == epoch && !D->must_flush;
}

SHIM static bool do_mmu_update(const struct mmu_update *u, uint64_t count, uint32_t *done, uint64_t domain)
{
	if (domain != DOMID_SELF || count > 64 || ring_full(count))
		return false;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t ptr = u[i].ptr, val = u[i].val, what = ptr & 7;

		if ((what != MMU_NORMAL_PT_UPDATE && what != MMU_PT_UPDATE_PRESERVE_AD) || ptr >> 12 >= D->ram_frames ||
		    !entry_ok(val))
			return false;
		if (!store(ptr & ~7ull, val, what == MMU_PT_UPDATE_PRESERVE_AD))
			return false;
	}
	if (done)
		*done = count;
	return true;
}

/* The address of the level-1 entry for `va` in the running kernel's tables. Inside; 0: the walk does not get there. */
INLINE uint64_t leaf_entry(uint64_t va, uint32_t moves)
{
	uint64_t table = D->kernel_l4;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t e;

		if (table >= D->ram_frames || is_away(table, moves))
			return 0;
		e = *at(table << 12 | (va >> shift & 511) << 3);
		if (!(e & PTE_P) || (e & PTE_PS))
			return 0;
		table = (e & ADDR) >> 12;
	}
	return table < D->ram_frames ? table << 12 | (va >> 12 & 511) << 3 : 0;
}

SHIM static bool do_update_va_mapping(uint64_t va, uint64_t val, uint64_t flags)
{
	uint64_t pa, old;
	uint32_t moves;
	bool done;

	if ((uint64_t)((int64_t)(va << 16) >> 16) != va || !entry_ok(val) || ring_full(1) || (flags && !flush_idle()))
		return false;
	moves = go_inside();
	pa = leaf_entry(va, moves);
	done = pa && store_inside(pa, val, false, &old, moves);
	leave_inside(moves);
	if (!done)
		return false;
	log_store(pa, old, val);
	return !flags || flush_idle();
}

INLINE bool is_flush(uint32_t cmd)
{
	return cmd == MMUEXT_TLB_FLUSH_LOCAL || cmd == MMUEXT_INVLPG_LOCAL || cmd == MMUEXT_TLB_FLUSH_ALL ||
	       cmd == MMUEXT_INVLPG_ALL;
}

/* The set of vCPUs has to be readable, or the VMM refuses the call. */
INLINE bool is_multi_flush(const struct mmuext_op *op)
{
	if (op->cmd != MMUEXT_TLB_FLUSH_MULTI && op->cmd != MMUEXT_INVLPG_MULTI)
		return false;
	(void)*(volatile const uint64_t *)op->arg2.vcpumask.p;
	return true;
}

/* AWAY is the VMM's and stays. */
INLINE void set_pin(uint64_t gfn, uint8_t level)
{
	uint8_t old;

	if (!D->moves) {
		PINS[gfn] = level;
		return;
	}
	old = PINS[gfn];
	while (!__atomic_compare_exchange_n(&PINS[gfn], &old, (old & SHIM_AWAY) | level, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_RELAXED))
		;
}

/* Pins take effect when the VMM reads the ring, which it does before it looks at anything else. */
SHIM static bool do_mmuext(const struct mmuext_op *op, uint64_t count, uint32_t *done, uint64_t domain)
{
	bool unpins = false;

	if (domain != DOMID_SELF || count > 64 || ring_full(count))
		return false;
	for (uint64_t i = 0; i < count; i++) {
		uint32_t cmd = op[i].cmd;
		bool table_op = cmd <= MMUEXT_UNPIN_TABLE;

		/* An AWAY frame is brought home before it becomes a table: the VMM's. */
		if (table_op ? op[i].arg1.mfn >= D->ram_frames ||
				       (cmd != MMUEXT_UNPIN_TABLE && is_away(op[i].arg1.mfn, D->moves)) :
			       !((is_flush(cmd) || is_multi_flush(&op[i])) && flush_idle() && !unpins))
			return false;
		unpins |= cmd == MMUEXT_UNPIN_TABLE;
	}
	for (uint64_t i = 0; i < count; i++) {
		uint64_t gfn = op[i].arg1.mfn;
		uint32_t cmd = op[i].cmd;

		if (cmd > MMUEXT_UNPIN_TABLE || gfn >= D->ram_frames)
			continue;
		/* What other vCPUs' lines about the table lead to as well, so first. */
		set_pin(gfn, cmd == MMUEXT_UNPIN_TABLE ? 0 : cmd - MMUEXT_PIN_L1_TABLE + 1);
		/* An unpin gives a later flush nothing to do: until the VMM reads the ring the frame stays write-protected,
		 * so the guest cannot change the table without an exit, and that drops the shadows. */
		log_entry(gfn << 12 | (cmd == MMUEXT_UNPIN_TABLE ? SHIM_UNPIN : SHIM_PIN1 + (cmd - MMUEXT_PIN_L1_TABLE)));
	}
	if (done)
		*done = count;
	return true;
}

SHIM static bool do_segment_base(uint64_t which, uint64_t base)
{
	if ((uint64_t)((int64_t)(base << 16) >> 16) != base)
		return false;
	switch (which) {
	case SEGBASE_FS:
		__asm__ volatile("wrfsbase %0" : : "r"(base));
		return true;
	case SEGBASE_GS_USER:
		D->gs_user = base;
		return true;
	case SEGBASE_GS_KERNEL:
		__asm__ volatile("wrgsbase %0" : : "r"(base));
		return true;
	default:
		return false;
	}
}

SHIM static bool do_vcpu_op(uint64_t cmd, uint64_t vcpu, const uint64_t *arg, uint64_t *ret)
{
	if (cmd == VCPUOP_is_up && (D->enabled & SHIM_DOES(misc))) {
		*ret = vcpu == D->vcpu ? 1 : (uint64_t)-2 /* ENOENT */;
		return vcpu == D->vcpu || vcpu >= D->nr_vcpus;
	}
	if (cmd == VCPUOP_set_singleshot_timer && vcpu == D->vcpu && (D->enabled & SHIM_DOES(timer))) {
		const struct vcpu_set_singleshot_timer *t = (const void *)arg;
		uint64_t when = t->timeout_abs_ns;

		if (!D->armed || when < D->armed || t->flags)
			return false;
		D->deadline = when;
		*ret = 0;
		/* A signal before that store has had the VMM arm its timer for another deadline, or for none. */
		return D->armed && when >= D->armed;
	}
	return false;
}

SHIM static bool call(uint64_t nr, const uint64_t *a, uint64_t *ret)
{
	uint32_t does = D->enabled;
	const struct vcpu_info *info = (const void *)D->info;

	*ret = 0;
	switch (nr) {
	case __HYPERVISOR_mmu_update:
		return (does & SHIM_DOES(mmu)) && do_mmu_update((const void *)a[0], a[1], (uint32_t *)a[2], a[3]);
	case __HYPERVISOR_update_va_mapping:
		return (does & SHIM_DOES(mmu)) && do_update_va_mapping(a[0], a[1], a[2]);
	case __HYPERVISOR_mmuext_op:
		return (does & SHIM_DOES(mmuext)) && do_mmuext((const void *)a[0], a[1], (uint32_t *)a[2], a[3]);
	case __HYPERVISOR_stack_switch:
		if (!(does & SHIM_DOES(stack)))
			return false;
		D->kernel_ss = a[0];
		D->kernel_sp = a[1];
		return true;
	case __HYPERVISOR_set_segment_base:
		return (does & SHIM_DOES(segment)) && do_segment_base(a[0], a[1]);
	case __HYPERVISOR_vcpu_op:
		return do_vcpu_op(a[0], a[1], (const void *)a[2], ret);
	case __HYPERVISOR_xen_version:		/* 0 is Linux's way to have pending events delivered */
		*ret = 4 << 16 | 17;
		return (does & SHIM_DOES(misc)) && a[0] == XENVER_version &&
		       (info->evtchn_upcall_mask || !info->evtchn_upcall_pending);
	case __HYPERVISOR_fpu_taskswitch:	/* no change: nothing to do */
		return (does & SHIM_DOES(misc)) && a[0] == D->ts;
	case __HYPERVISOR_get_debugreg:
		*ret = D->debugreg[a[0] & 7];
		return (does & SHIM_DOES(misc)) && (a[0] < 4 || a[0] == 6 || a[0] == 7);
	default:
		return false;
	}
}

SHIM static bool do_multicall(struct multicall_entry *list, uint64_t count)
{
	if (count > 256)
		return false;
	for (uint64_t i = 0; i < count; i++) {
		const uint64_t a[4] = { list[i].args[0], list[i].args[1], list[i].args[2], list[i].args[3] };
		uint64_t ret, nr = list[i].op;

		if (nr == __HYPERVISOR_multicall || !call(nr, a, &ret))
			return false;
		list[i].result = ret;
		D->calls[nr & 63]++;
		D->multicall_done = i + 1;
	}
	return true;
}

/* 1: done, the result is in r->rax. 0: the VMM's. */
SHIM uint64_t shim_dispatch(struct shim_regs *r)
{
	const uint64_t a[4] = { r->rdi, r->rsi, r->rdx, r->r10 };
	uint64_t ret = 0, nr = r->rax;

	if (nr == __HYPERVISOR_multicall) {
		D->multicall_done = 0;
		if (!(D->enabled & SHIM_DOES(multicall)) || !do_multicall((void *)a[0], (uint32_t)a[1]))
			return 0;
		D->multicall_done = 0;
	} else if (nr == __HYPERVISOR_mmu_update || nr == __HYPERVISOR_mmuext_op) {
		const uint64_t b[4] = { a[0], (uint32_t)a[1], a[2], a[3] };

		if (!call(nr, b, &ret))
			return 0;
	} else if (!call(nr, a, &ret)) {
		return 0;
	}
	D->calls[nr & 63]++;
	r->rax = ret;
	return 1;
}

/*
 * A page fault of user mode: what the guest's tables say. Returns the error code to reflect, or -1 if they allow the
 * access (a hidden fault) or this walk does not understand them: both are for the VMM. Intel SDM vol. 3A, 4.5 and 4.7.
 */
INLINE uint64_t walk_user(uint64_t error, uint64_t va, uint32_t moves)
{
	uint64_t table = D->user_l4, rights = PTE_W | PTE_U, nx = 0;

	error &= PF_W | PF_FETCH;
	for (unsigned shift = 39; shift >= 12; shift -= 9) {
		uint64_t e;

		if (table >= D->ram_frames || is_away(table, moves))
			return -1;
		e = __atomic_load_n(at(table << 12 | (va >> shift & 511) << 3), __ATOMIC_RELAXED);
		if (!(e & PTE_P))
			return error | PF_U;
		if (shift > 12 && (e & PTE_PS))
			return -1;
		rights &= e;
		nx |= e >> 63;
		table = (e & ADDR) >> 12;
	}
	if (table >= D->nr_gfns)
		return -1;
	if (!(rights & PTE_U) || ((error & PF_W) && !(rights & PTE_W)) || ((error & PF_FETCH) && nx))
		return error | PF_U | PF_P;
	return -1;
}

SHIM uint64_t shim_user_allowed(uint64_t error, uint64_t va)
{
	uint32_t moves;
	uint64_t r;

	if (!D->fault_to || (va >> 47 && va < 0xffff880000000000))
		return -1;
	moves = go_inside();
	r = walk_user(error, va, moves);
	leave_inside(moves);
	return r;
}
