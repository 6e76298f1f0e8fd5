/*
 * shim.c - the VMM's side of the shim: putting it in place, hooking the kernel's hypercall sites to it, and reading what
 * it left behind. shim_abi.h says who owns which field; nothing read here is trusted.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "vmm/image.h"
#include "vmm/shim_abi.h"
#include "vmm/symbols.h"
#include "vmm/vm.h"

extern const char __start_shim_text[], __stop_shim_text[], shim_call[], shim_call_abort[], shim_iret[], shim_iret_exit[],
	shim_call_return[], shim_user_entry[], shim_syscall_entry[], shim_to_user[], shim_to_user_iret[], shim_exit_call[],
	shim_exit_user[], shim_measure[], shim_call_address[], shim_user_address[];

_Static_assert(offsetof(struct shim_data, saved_rsp) == SD_SAVED_RSP, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, info) == SD_INFO, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, cs) == SD_CS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, ss) == SD_SS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, calls) == SD_CALLS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, rax) == SD_RAX, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, rcx) == SD_RCX, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, rdx) == SD_RDX, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, rsi) == SD_RSI, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, rdi) == SD_RDI, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, r8) == SD_R8, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, r9) == SD_R9, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, r10) == SD_R10, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, r11) == SD_R11, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_rip) == SD_UF_RIP, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_rsp) == SD_UF_RSP, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_flags) == SD_UF_FLAGS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_cr2) == SD_UF_CR2, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, gs_user) == SD_GS_USER, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, gs_kernel) == SD_GS_KERNEL, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, kernel_sp) == SD_KERNEL_SP, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, syscall_to) == SD_SYSCALL_TO, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, fault_to) == SD_FAULT_TO, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, syscall_mask) == SD_SYSCALL_MASK, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, fault_mask) == SD_FAULT_MASK, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, to_user_ok) == SD_TO_USER_OK, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, head) == SD_HEAD, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, tail) == SD_TAIL, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, irets) == SD_IRETS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, syscalls) == SD_SYSCALLS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, faults) == SD_FAULTS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, user_l4) == SD_USER_L4, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_error) == SD_UF_ERROR, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_cs) == SD_UF_CS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, uf_ss) == SD_UF_SS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, ring_watched) == SD_RING_WATCHED, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, frame_flags) == SD_FRAME_FLAGS, "shim_abi.h");
_Static_assert(offsetof(struct shim_data, frame) == SD_FRAME, "shim_abi.h");
_Static_assert(offsetof(struct gate_data, kernel_cr3) == GD_KERNEL_CR3, "layout.h");
_Static_assert(offsetof(struct gate_data, user_cr3) == GD_USER_CR3, "layout.h");
_Static_assert(offsetof(struct gate_data, to_shim) == GD_TO_SHIM, "layout.h");
_Static_assert(offsetof(struct gate_data, syscall_frame) == GD_SYSCALL_FRAME, "layout.h");
_Static_assert(offsetof(struct gate_data, rsp) == GD_RSP, "layout.h");
_Static_assert(offsetof(struct gate_data, rax) == GD_RAX, "layout.h");
_Static_assert(sizeof(struct shim_data) <= 4096, "one page");
_Static_assert(VMM_MAX_VCPUS <= sizeof ((struct shim_shared *)0)->owes, "shim_abi.h");
_Static_assert(SHIM_RING * 8 == SHIM_RING_PAGES * 4096, "the ring's size");

#define INSIDE_LOOKS	2000u	/* at a shim that is inside: some times what its longest stay takes, unless it was stopped there */

static uint64_t va_of(const char *symbol)
{
	return SHIM_VA + (symbol - __start_shim_text);
}

static struct shim_data *data(struct vcpu *v)
{
	return (struct shim_data *)(v->area + AREA_SHIM_DATA * 4096);
}

static struct shim_shared *shared(const struct vm *vm)
{
	return (struct shim_shared *)((char *)vm->mon + MON_SHIM_SHARED * 4096);
}

static struct gate_data *gate_data(struct vcpu *v)
{
	return (struct gate_data *)(v->area + AREA_GATE_DATA * 4096);
}

bool shim_on(const struct vm *vm)
{
	return vm->config->shim != 0;
}

bool shim_wants_fsgsbase(const struct vm *vm)
{
	return (vm->config->shim & SHIM_DOES(segment)) && vm->host.fsgsbase;
}

/* Puts the shim's code in place, and the way it leaves the VM: `by_store`, or by a fetch from the gate page. */
int shim_install(struct vm *vm, bool by_store)
{
	size_t bytes = __stop_shim_text - __start_shim_text;
	char *code = (char *)vm->mon + MON_SHIM_CODE * 4096;
	uint64_t call = by_store ? va_of(shim_exit_call) : GATE_VA + GATE_SYSCALL;
	uint64_t user = by_store ? va_of(shim_exit_user) : GATE_VA + GATE_USER_FAULT;

	if (bytes > SHIM_CODE_PAGES * 4096)
		return -E2BIG;
	memcpy(code, __start_shim_text, bytes);
	memcpy(code + (shim_call_address - __start_shim_text), &call, sizeof call);
	memcpy(code + (shim_user_address - __start_shim_text), &user, sizeof user);
	return 0;
}

uint64_t shim_exit_rip(void)
{
	return va_of(shim_exit_call);
}

uint64_t shim_measure_rip(void)
{
	return va_of(shim_measure);
}

uint64_t shim_to_user_rip(void)
{
	return va_of(shim_to_user) + 1;
}

/* ---- hooking the kernel --------------------------------------------------------------------------------------------- */

/* Eight bytes of padding (int3) for a pointer, near enough for a RIP-relative operand. Kernels pad every function. */
static uint8_t *find_padding(uint8_t *text, size_t size, size_t *from)
{
	size_t run = 0;

	for (size_t i = *from; i < size; i++) {
		run = text[i] == 0xcc ? run + 1 : 0;
		/* One byte more: an int3 that ends an instruction stream (SLS) stays. */
		if (run == 9) {
			*from = i + 1;
			return &text[i - 7];
		}
	}
	return NULL;
}

static bool place_pointer(uint8_t *text, size_t size, size_t *from, uint64_t target, uint8_t *insn, uint8_t op)
{
	uint8_t *slot = find_padding(text, size, from);
	int32_t rel;

	if (!slot)
		return false;
	memcpy(slot, &target, 8);
	rel = slot - (insn + 6);
	insn[0] = 0xff;
	insn[1] = op;
	memcpy(insn + 2, &rel, 4);
	return true;
}

/*
 * Inline `syscall`, as Linux has it since XSA-466. The call function:
 *	push rcx; push r11; syscall; pop r11; pop rcx; <return>
 * becomes `call *ptr(%rip); nop`, its eight bytes exactly, because the kernel itself rewrites the return behind it. And
 * HYPERVISOR_iret: `mov $23, %eax; syscall` becomes `jmp *ptr(%rip)`.
 */
static void patch_text(struct vm *vm, uint8_t *text, size_t size)
{
	static const uint8_t call[] = { 0x51, 0x41, 0x53, 0x0f, 0x05, 0x41, 0x5b, 0x59 };
	static const uint8_t iret[] = { 0x41, 0x53, 0x50, 0xb8, 0x17, 0, 0, 0, 0x0f, 0x05 };
	static const uint8_t insn[] = { 0x0f, 0x05 };
	size_t from = 0;
	uint8_t *p = text, *end = text + size;

	for (; (p = memmem(p, end - p, insn, sizeof insn)); p += sizeof insn) {
		uint8_t *c = p - 3, *r = p - 8;		/* where either pattern would start */

		if (c >= text && end - c >= (ptrdiff_t)sizeof call && !memcmp(c, call, sizeof call)) {
			if (!place_pointer(text, size, &from, va_of(shim_call), c, 0x15))
				return;
			memcpy(c + 6, (uint8_t[]){ 0x66, 0x90 }, 2);
			vm->shim_sites++;
		} else if (r >= text && !memcmp(r, iret, sizeof iret) && (vm->config->shim & SHIM_DOES(iret))) {
			if (!place_pointer(text, size, &from, va_of(shim_iret), r + 3, 0x25))
				return;
			r[9] = 0xcc;
			vm->shim_sites++;
		}
	}
}

/*
 * cmpxchg16b_emu begins with `pushfq; cli; cmp %gs:(%rsi), %rax`. Debian's kernel runs it 5 600 times before it puts the
 * real instruction in, and each cli is an exit that, as under Xen, does nothing.
 */
static void patch_cli(uint8_t *text, size_t size)
{
	static const uint8_t emu[] = { 0x9c, 0xfa, 0x65, 0x48, 0x3b, 0x06 };
	uint8_t *p = text, *end = text + size;

	for (; (p = memmem(p, end - p, emu, sizeof emu)); p += sizeof emu)
		p[1] = 0x90;
}

void shim_patch_kernel(struct vm *vm, const struct image *img)
{
	if (!shim_on(vm))
		return;
	for (unsigned i = 0; i < img->nr_segments; i++) {
		const struct image_segment *s = &img->segments[i];

		patch_text(vm, (uint8_t *)vm->ram + s->pa, s->filesz);
		if (vm->config->shim & SHIM_DOES(misc))
			patch_cli((uint8_t *)vm->ram + s->pa, s->filesz);
	}
}

/* An entry of a hypercall page (build.c): 32 bytes. */
void shim_fill_hypercall(uint8_t *p, unsigned nr, bool iret)
{
	uint64_t target = va_of(iret ? shim_iret : shim_call);

	if (iret) {	/* push rcx; push r11; push rax; jmp *0(%rip) */
		memcpy(p, (uint8_t[]){ 0x51, 0x41, 0x53, 0x50, 0xff, 0x25, 0, 0, 0, 0 }, 10);
		memcpy(p + 10, &target, 8);
	} else {	/* mov $nr, %eax; jmp *0(%rip) */
		memcpy(p, (uint8_t[]){ 0xb8, nr, 0, 0, 0, 0xff, 0x25, 0, 0, 0, 0 }, 11);
		memcpy(p + 11, &target, 8);
	}
}

/* ---- around every run of the guest ------------------------------------------------------------------------------------ */

/*
 * `pins` says what is pinned, for all vCPUs and in their order. Whoever changes a byte of it sees to it that it is applied
 * afterwards, itself or by a line in its ring; whoever applies it takes the byte as it is then.
 */
static uint8_t *pin_byte(struct vm *vm, gfn_t gfn)
{
	return (uint8_t *)vm->mon + (vm->pins.n - vm->mon_first.n) * 4096 + gfn.n;
}

static int apply_pin(struct vcpu *v, gfn_t gfn)
{
	pthread_mutex_t *lock = &v->vm->pin_locks[gfn.n % PIN_LOCKS];
	unsigned level;
	int r;

	vm_lock(lock, &v->counters.vcpu.pin_waits);
	level = __atomic_load_n(pin_byte(v->vm, gfn), __ATOMIC_SEQ_CST) & SHIM_PIN_LEVEL;
	r = level >= 1 && level <= MMU_LEVELS ? mmu_pin(v->mmu, gfn, level) : mmu_unpin(v->mmu, gfn);
	pthread_mutex_unlock(lock);
	return r;
}

int shim_pin(struct vcpu *v, gfn_t table, unsigned level)
{
	uint8_t *byte, old;

	shim_sync_others(v);
	/* A table is best at home, where shims can work on it. One that is not is only slower. */
	if (level)
		mover_bring_home(v, table);
	if (!shim_on(v->vm) || table.n >= v->vm->ram_frames)
		return level ? mmu_pin(v->mmu, table, level) : mmu_unpin(v->mmu, table);
	byte = pin_byte(v->vm, table);
	old = __atomic_load_n(byte, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(byte, &old, (old & SHIM_AWAY) | level, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	return apply_pin(v, table);
}

/* ---- frames that are not at home (shim_abi.h) --------------------------------------------------------------------------- */

bool shim_set_away(struct vm *vm, gfn_t gfn, bool *was_not)
{
	uint8_t *byte, old;

	*was_not = false;
	if (!shim_on(vm))
		return true;
	byte = pin_byte(vm, gfn);
	old = __atomic_load_n(byte, __ATOMIC_RELAXED);
	do
		if (old & ~SHIM_AWAY)
			return false;
	while (!__atomic_compare_exchange_n(byte, &old, SHIM_AWAY, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
	*was_not = !old;
	return true;
}

void shim_clear_away(struct vm *vm, gfn_t gfn)
{
	if (shim_on(vm))
		__atomic_fetch_and(pin_byte(vm, gfn), (uint8_t)~SHIM_AWAY, __ATOMIC_SEQ_CST);
}

bool shim_wait_outside(struct vm *vm)
{
	for (unsigned i = 0; shim_on(vm) && i < vm->nr_vcpus; i++)
		for (unsigned k = 0; __atomic_load_n(&data(&vm->vcpus[i])->inside, __ATOMIC_SEQ_CST); k++) {
			if (k == INSIDE_LOOKS)
				return false;
			__builtin_ia32_pause();
		}
	return true;
}

static void drain_entry(struct vcpu *v, uint64_t e)
{
	gfn_t gfn = { e >> 12 };
	unsigned what = e & 7;

	if (gfn.n >= v->vm->ram_frames)
		return;
	mmu_mark_dirty(v->vm->mmu, gfn);
	feed_line(v, e);
	switch (what) {
	case SHIM_UPDATE:
		mmu_updated(v->mmu, gfn, e >> 3 & 511);
		break;
	case SHIM_PIN1 ... SHIM_UNPIN:
		apply_pin(v, gfn);
		break;
	}
}

/*
 * Takes up what a vCPU's shim has written down, on the thread of `by`. Lines may be taken up in another order than that in
 * which several vCPUs wrote them, because none says what is to be, only where to look: at a table's entry, or at the byte
 * in `pins`. How many there were.
 */
static uint32_t drain(struct vcpu *by, struct vcpu *o)
{
	struct shim_data *d = data(o);
	const uint64_t *ring = (const uint64_t *)(o->area + AREA_SHIM_RING * 4096);
	struct shim_shared *s = shared(o->vm);
	uint32_t head, n, removals;

	if (__atomic_load_n(&d->head, __ATOMIC_ACQUIRE) == __atomic_load_n(&o->shim_tail, __ATOMIC_ACQUIRE) &&
	    __atomic_load_n(&s->removals[o->id], __ATOMIC_ACQUIRE) == __atomic_load_n(&s->seen[o->id], __ATOMIC_RELAXED))
		return 0;
	vm_lock(&o->ring_lock, &by->counters.vcpu.ring_waits);
	removals = __atomic_load_n(&s->removals[o->id], __ATOMIC_ACQUIRE);	/* whose lines are before head */
	head = __atomic_load_n(&d->head, __ATOMIC_ACQUIRE);
	n = head - o->shim_tail;
	if (n > SHIM_RING)	/* scribbled over */
		n = SHIM_RING;
	if (o->vm->paging->guest_tables)	/* nothing is logged: what the guest wrote there itself means nothing */
		n = 0;
	for (uint32_t i = 0; i < n; i++)
		drain_entry(by, __atomic_load_n(&ring[(head - n + i) & (SHIM_RING - 1)], __ATOMIC_RELAXED));
	__atomic_store_n(&o->shim_tail, head, __ATOMIC_RELEASE);
	__atomic_store_n(&d->tail, head, __ATOMIC_RELEASE);
	__atomic_store_n(&s->seen[o->id], removals, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&o->ring_lock);
	by->counters.vcpu.ring_entries += n;
	return n;
}

bool shim_sync_others(struct vcpu *v)
{
	bool any = false;

	for (unsigned i = 0; shim_on(v->vm) && i < v->vm->nr_vcpus; i++)
		if (i != v->id)
			any |= drain(v, &v->vm->vcpus[i]) != 0;
	if (any)
		feed_sync(v);
	return any;
}

/* After an exit, before anything else looks at the guest's tables. */
void shim_sync_in(struct vcpu *v)
{
	struct shim_data *d = data(v);

	if (!shim_on(v->vm))
		return;
	shim_owes(v, true);
	if (drain(v, v))
		feed_sync(v);

	v->deadline = d->deadline;
	if (v->state == VCPU_MID_GATE)	/* perhaps between two modes: it goes on as it is */
		return;
	v->kernel_ss = d->kernel_ss;
	v->kernel_sp = d->kernel_sp;
	/* The GS base that the processor did not have; read_bases() saw the other. */
	if (v->mode == MMU_USER)
		v->gs_base[MMU_KERNEL] = canonical(d->gs_kernel);
	else
		v->gs_base[MMU_USER] = canonical(d->gs_user);
	v->counters.vcpu.invm_syscalls = d->syscalls;
	v->counters.vcpu.invm_irets = d->irets;
	v->counters.vcpu.invm_faults = d->faults;
	memcpy(v->counters.invm_hypercalls, d->calls, sizeof d->calls);
}

void shim_owes(struct vcpu *v, bool yes)
{
	if (!shim_on(v->vm))
		return;
	__atomic_store_n(&shared(v->vm)->owes[v->id], yes, __ATOMIC_SEQ_CST);
	if (yes)
		__atomic_add_fetch(&shared(v->vm)->epoch, 1, __ATOMIC_SEQ_CST);
}

/* A table that goes out of sync is made known before the vCPU whose fault did it is in the guest again. The version keeps
 * who has seen none from wiping out what another has published since. */
static void publish_unsync(struct vm *vm)
{
	uint32_t *word = &shared(vm)->unsync, w = __atomic_load_n(word, __ATOMIC_SEQ_CST);

	if (!mmu_out_of_sync(vm->mmu)) {
		if (w & 1)
			__atomic_compare_exchange_n(word, &w, w & ~1u, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		return;
	}
	while (!__atomic_compare_exchange_n(word, &w, (w + 2) | 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

/* Before the guest runs. */
void shim_sync_out(struct vcpu *v)
{
	struct shim_data *d = data(v);

	if (!shim_on(v->vm))
		return;
	d->deadline = v->deadline;
	d->armed = v->armed > vm_now(v->vm) ? v->armed : 0;
	/* Kicks that wait run on the way in, but not if the guest goes on in the middle of something, or if a list that the
	 * gate has not finished goes first. */
	d->must_flush = v->vm->paging->guest_tables ||
			((v->state == VCPU_MID_GATE || v->nr_kicks) && v->vm->paging->kick_pending(v));
	publish_unsync(v->vm);
	shim_owes(v, v->kicks_out || v->vm->paging->kick_pending(v));
	if (v->state == VCPU_MID_GATE)
		return;
	d->kernel_l4 = v->l4[MMU_KERNEL].n;
	d->kernel_ss = v->kernel_ss;
	d->kernel_sp = v->kernel_sp;
	d->gs_user = v->gs_base[MMU_USER];
	d->gs_kernel = v->gs_base[MMU_KERNEL];
	d->user_l4 = v->l4[MMU_USER].n;
	d->fault_to = v->traps[14].address;
	d->fault_mask = !!TI_GET_IF(&v->traps[14]);
	d->frame_flags = RFLAGS_FIXED |
			 (atomic_load(&v->vm->vm_assist) & 1u << VMASST_TYPE_architectural_iopl ? (uint64_t)v->iopl << 12 : 0);
	d->syscall_to = v->callback[CALLBACKTYPE_syscall];
	d->syscall_mask = v->callback_mask[CALLBACKTYPE_syscall];
	d->ts = v->cr0 >> 3 & 1;
	memcpy(d->debugreg, v->debugreg, sizeof d->debugreg);
}

/* Whether there is a user root, one that can be told from the kernel's. */
static bool has_user(const struct vcpu *v)
{
	return v->l4[MMU_USER].n != MMU_NO_GFN.n && v->root[MMU_USER].n != v->root[MMU_KERNEL].n;
}

/*
 * Whether user mode may be left and entered inside the VM now. A debugged guest's transitions all go through the VMM: what
 * leaves user mode comes to the shim first and is handed over.
 */
static bool gates_ready(struct vcpu *v)
{
	uint64_t cs = monitor_gdt(v)[LINUX_USER_CS / 8];

	if ((cs >> 47 & 1) && !(cs >> 53 & 1))		/* it is there and not 64-bit code */
		return false;
	return v->vm->gates && !(v->debugreg[7] & 0xff) && !v->step.on && has_user(v) &&
	       v->traps[14].address && v->callback[CALLBACKTYPE_syscall] && !v->gs_user_selector;
}

/* Tells the gate which roots there are, and the shim whether user mode is its business. When the vCPU's way in is laid
 * out. */
void shim_arm_gates(struct vcpu *v)
{
	struct gate_data *g = gate_data(v);

	g->kernel_cr3 = v->root[MMU_KERNEL].n << 12;
	g->user_cr3 = v->root[has_user(v) ? MMU_USER : MMU_KERNEL].n << 12;
	if (shim_on(v->vm))
		data(v)->to_user_ok = gates_ready(v);
}

/* After an exit: the mode the guest is in, which may have changed without us. The root tells. */
void shim_find_mode(struct vcpu *v, uint64_t cr3)
{
	if (v->vm->gates)
		v->mode = has_user(v) && cr3 == v->root[MMU_USER].n << 12 ? MMU_USER : MMU_KERNEL;
}

/* The guest left user mode, or failed to enter it, inside the VM, and the VMM is to deal with it: the user's context is in
 * the shim's data. False: there is no user mode, the guest made this up. */
bool shim_take_user(struct vcpu *v, uint32_t *error_code, uint64_t *cr2)
{
	const struct shim_data *d = data(v);

	if (!v->vm->gates || !has_user(v))
		return false;
	v->regs.r.rip = d->uf_rip;
	v->regs.r.rsp = d->uf_rsp;
	v->regs.r.rflags = d->uf_flags;
	v->regs.cs = d->uf_cs | 3;
	v->regs.ss = d->uf_ss | 3;
	*error_code = d->uf_error & (MMU_PF_P | MMU_PF_W | MMU_PF_FETCH);
	*cr2 = d->uf_cr2;
	v->gs_base[MMU_USER] = canonical(d->gs_user);
	vcpu_set_mode(v, MMU_USER);
	return true;
}

/* The shim's last step to user mode was refused: what it was to load is the user's context, RAX included. */
bool shim_refused_user(struct vcpu *v, uint64_t rip)
{
	uint32_t error;
	uint64_t cr2;

	if ((rip != va_of(shim_to_user_iret) && rip != va_of(shim_to_user)) || !shim_take_user(v, &error, &cr2))
		return false;
	v->regs.r.rax = data(v)->rax;
	return true;
}

void shim_init_vcpu(struct vcpu *v)
{
	struct shim_data *d = data(v);
	struct gate_data *g = gate_data(v);
	bool pvm = v->vm->host.kind == VMM_HOST_PVM;

	if (!shim_on(v->vm))
		return;
	d->enabled = v->vm->config->shim;
	if (!v->vm->host.fsgsbase)
		d->enabled &= ~SHIM_DOES(segment);
	d->ram_frames = v->vm->ram_frames;
	d->nr_gfns = v->vm->nr_gfns;
	d->nr_vcpus = v->vm->nr_vcpus;
	d->vcpu = v->id;
	d->moves = v->vm->mover != NULL;
	/* On a PVM host ring 3 runs on the host's own GDT. */
	d->cs = pvm ? 0x33 : FLAT_KERNEL_CS;
	d->ss = pvm ? 0x2b : FLAT_KERNEL_SS;
	g->syscall_frame = VCPU_AREA_VA(v->id) + AREA_GATE_DATA * 4096 + offsetof(struct gate_data, syscall_to_shim);
	memcpy(g->to_shim, (uint64_t[]){ va_of(shim_user_entry), FLAT_KERNEL_CS, RFLAGS_IF | RFLAGS_FIXED,
					 SHIM_STACK_VA + 0x2000, FLAT_KERNEL_SS }, sizeof g->to_shim);
	memcpy(g->syscall_to_shim, g->to_shim, sizeof g->to_shim);
	g->syscall_to_shim[0] = va_of(shim_syscall_entry);
	shim_set_info(v, NULL);
}

/* The guest moved its vcpu_info to guest RAM at `hva`; NULL: it is in shared_info. */
void shim_set_info(struct vcpu *v, const void *hva)
{
	uint64_t pa = (const char *)hva - (const char *)v->vm->ram;

	if (!shim_on(v->vm))
		return;
	if (hva && v->vm->paging->guest_tables)
		data(v)->info = monitor_map_info(v, (gfn_t){ pa >> 12 }) + (pa & 4095);
	else if (hva)
		data(v)->info = RAM_MAP_VA + pa;
	else
		data(v)->info = SHIM_INFO_VA + v->id * sizeof(struct vcpu_info);
}

/* ---- the helper thread's view of the ring ------------------------------------------------------------------------------ */

/* Lines are looked at, not taken; the VMM still takes them. Hostile as all that lies there. */
uint32_t shim_ring_head(struct vcpu *v)
{
	return __atomic_load_n(&data(v)->head, __ATOMIC_ACQUIRE);
}

uint64_t shim_ring_line(struct vcpu *v, uint32_t at)
{
	const uint64_t *ring = (const uint64_t *)(v->area + AREA_SHIM_RING * 4096);

	return __atomic_load_n(&ring[at & (SHIM_RING - 1)], __ATOMIC_RELAXED);
}

void shim_ring_watch(struct vcpu *v, bool yes)
{
	__atomic_store_n(&data(v)->ring_watched, yes, __ATOMIC_SEQ_CST);
}

/* How many entries of a multicall that came from the shim are over already. Consumes the answer. */
uint64_t shim_multicall_done(struct vcpu *v, uint64_t count)
{
	uint32_t done;

	if (!shim_on(v->vm))
		return 0;
	done = __atomic_exchange_n(&data(v)->multicall_done, 0, __ATOMIC_RELAXED);
	return done < count ? done : count;
}

/* ---- the guest stopped inside the shim ----------------------------------------------------------------------------------- */

/* A hypercall that did not come by way of the shim: its site is not one of the patterns. Says so once per site. */
void shim_note_site(struct vcpu *v)
{
	uint64_t rip = v->regs.r.rip - 2;
	char name[128];

	if (!shim_on(v->vm) || (rip >= SHIM_VA && rip < SHIM_VA + SHIM_CODE_PAGES * 4096))
		return;
	for (unsigned i = 0; i < sizeof v->vm->unhooked / sizeof *v->vm->unhooked; i++) {
		if (v->vm->unhooked[i] == rip)
			return;
		if (v->vm->unhooked[i] || !__sync_bool_compare_and_swap(&v->vm->unhooked[i], 0, rip))
			continue;
		if (!v->vm->config->quiet)
			fprintf(stderr, "umbra: hypercalls from %s are not in a form the shim knows: they exit\r\n",
				symbols_name(v->vm->symbols, rip, name, sizeof name));
		return;
	}
}

/* The guest kernel is in the shim's code: no event may be delivered on top of it. A hypercall that the VMM did returns
 * there too, but by then nothing is half done. */
bool shim_busy(const struct vcpu *v)
{
	uint64_t rip = v->regs.r.rip;

	return shim_on(v->vm) && v->mode == MMU_KERNEL && rip >= SHIM_VA && rip < SHIM_VA + SHIM_CODE_PAGES * 4096 &&
	       rip != va_of(shim_call_return);
}

/* A fault that the guest's own pointers caused inside the shim: give the hypercall up, the VMM does it all and reports. */
void shim_abort(struct vcpu *v)
{
	uint64_t sp = data(v)->saved_rsp;

	/* Before it is on its way to user mode, an iret can still be left to the VMM. */
	if (v->regs.r.rip >= va_of(shim_iret) && v->regs.r.rip < va_of(shim_user_entry)) {
		v->regs.r.rip = va_of(shim_iret_exit);
		return;
	}
	if (v->regs.r.rip >= va_of(shim_user_entry) && v->regs.r.rip < va_of(shim_iret_exit)) {
		vcpu_crash(v, "a fault on the way from user mode to the guest kernel, at %#llx: its stack or the shim's memory is not "
			   "what it was", (unsigned long long)v->regs.r.rip);
		return;
	}
	if (!sp || ++v->retries > 64) {
		vcpu_crash(v, "a fault in the shim at %#llx that no hypercall explains: the guest has changed the shim's memory",
			   (unsigned long long)v->regs.r.rip);
		return;
	}
	data(v)->saved_rsp = 0;
	data(v)->inside = 0;
	v->regs.r.rip = va_of(shim_call_abort);
	v->regs.r.rsp = sp;
}
