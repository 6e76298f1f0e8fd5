/*
 * emulate.c - instructions that a PV kernel executes although ring 3 may not: fetched, decoded, looked up in a table.
 *
 * The table says which instructions there are and who may execute them; the handlers are in emulate_*.c.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <x86intrin.h>

#include "vmm/emulate.h"

#define INSN_MAX	15

#define RFLAGS_TF	(1ull << 8)
#define RFLAGS_RF	(1ull << 16)
#define DR6_BS		(1ull << 14)

#define MARK_LEAF	0x4000ff00u
#define MARK_REPLY	0x72626d75u	/* "umbr" */

__u64 *emul_gpr(struct vcpu *v, ZydisRegister r)
{
	struct kvm_regs *g = &v->regs.r;
	__u64 *const by_number[16] = {
		&g->rax, &g->rcx, &g->rdx, &g->rbx, &g->rsp, &g->rbp, &g->rsi, &g->rdi,
		&g->r8, &g->r9, &g->r10, &g->r11, &g->r12, &g->r13, &g->r14, &g->r15,
	};
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);

	if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15)
		return NULL;
	return by_number[whole - ZYDIS_REGISTER_RAX];
}

uint64_t emul_address(struct vcpu *v, const struct emul_insn *in, const ZydisDecodedOperand *op)
{
	const __u64 *base = emul_gpr(v, op->mem.base), *index = emul_gpr(v, op->mem.index);
	uint64_t a = op->mem.disp.has_displacement ? op->mem.disp.value : 0;

	if (base)
		a += *base;
	else if (op->mem.base == ZYDIS_REGISTER_RIP)
		a += v->regs.r.rip + in->i.length;
	if (index)
		a += *index * op->mem.scale;
	if (in->i.address_width == 32)
		a = (uint32_t)a;
	if (op->mem.segment == ZYDIS_REGISTER_FS)
		a += v->fs_base;
	else if (op->mem.segment == ZYDIS_REGISTER_GS)
		a += v->gs_base[v->mode];
	return a;
}

enum emul_step emul_page_fault(struct vcpu *v, uint64_t va, uint32_t access)
{
	struct mmu_walk w = { .error_code = 0 };

	mmu_translate(v->vm->mmu, v->l4[v->mode], v->mode, (gva_t){ va }, access, &w);
	atomic_load(&v->info)->arch.cr2 = va;
	bounce_trap(v, 14, w.error_code | access | (v->mode == MMU_USER ? MMU_PF_U : 0), true);
	return STEP_RAISED;
}

/* Xen runs a guest kernel at ring 1 as far as IOPL goes, or at ring 0 if it asks for that. */
bool emul_iopl_ok(const struct vcpu *v)
{
	unsigned cpl = v->mode == MMU_USER ? 3 : atomic_load(&v->vm->vm_assist) & 1u << VMASST_TYPE_architectural_iopl ? 0 : 1;

	return cpl <= v->iopl;
}

/* ---- the small ones ------------------------------------------------------------------------------------------- */

/* Xen: cli and sti are checked but change nothing, since popf could not be caught. */
static enum emul_step emul_flag(struct vcpu *v, const struct emul_insn *in)
{
	return emul_iopl_ok(v) ? STEP_RETIRE : STEP_REFUSE;
}

/* Beyond Xen, which refuses hlt: sleep until there is an event that the guest takes. With events masked there is none,
 * and small kernels end that way. */
static enum emul_step emul_hlt(struct vcpu *v, const struct emul_insn *in)
{
	if (v->vm->nr_vcpus == 1 && atomic_load(&v->info)->evtchn_upcall_mask) {
		vcpu_crash(v, "the guest has halted with events masked: nothing can wake it");
		return STEP_AGAIN;
	}
	if (!evtchn_pending(v))
		vcpu_block(v);
	return evtchn_pending(v) ? STEP_RETIRE : STEP_AGAIN;
}

/* Nothing of ours bypasses the caches. */
static enum emul_step emul_cache(struct vcpu *v, const struct emul_insn *in)
{
	return STEP_RETIRE;
}

static void put_edx_eax(struct vcpu *v, uint64_t value)
{
	v->regs.r.rax = (uint32_t)value;
	v->regs.r.rdx = value >> 32;
}

static enum emul_step emul_rdtsc(struct vcpu *v, const struct emul_insn *in)
{
	put_edx_eax(v, __rdtsc());	/* the guest's TSC has no offset: vcpu_init() */
	if (in->i.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
		v->regs.r.rcx = 0;
	return STEP_RETIRE;
}

static void do_cpuid(struct vcpu *v)
{
	struct kvm_regs *g = &v->regs.r;
	uint32_t leaf = g->rax, sub = g->rcx, out[4];

	v->counters.emulated.cpuid++;
	if (leaf == MARK_LEAF) {
		stats_mark(v, sub);
		feed_mark(v, sub);
		out[0] = 1;
		out[1] = MARK_REPLY;
		out[2] = out[3] = 0;
	} else {
		cpuid_read(v->vm, leaf, sub, out);
		if (leaf == 0xd && sub <= 1 && out[1])	/* follows XCR0 */
			out[1] = cpuid_xsave_bytes(v->vm, v->xcr0, sub == 1);
	}
	g->rax = out[0];
	g->rbx = out[1];
	g->rcx = out[2];
	g->rdx = out[3];
}

static enum emul_step emul_cpuid(struct vcpu *v, const struct emul_insn *in)
{
	do_cpuid(v);
	return STEP_RETIRE;
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

#define COUNTER(name)	offsetof(struct vcpu_counters, emulated.name)

static const struct emul_desc {
	uint16_t mnemonic;
	bool user;		/* also from user mode; the handler checks IOPL */
	emul_fn *fn;
	size_t counter;		/* in struct vcpu_counters, 0: the handler counts */
} table[] = {
	{ ZYDIS_MNEMONIC_MOV, false, emul_mov, 0 },
	{ ZYDIS_MNEMONIC_CLTS, false, emul_clts, COUNTER(cr) },
	{ ZYDIS_MNEMONIC_LMSW, false, emul_lmsw, COUNTER(cr) },
	{ ZYDIS_MNEMONIC_RDMSR, false, emul_rdmsr, COUNTER(msr) },
	{ ZYDIS_MNEMONIC_WRMSR, false, emul_wrmsr, COUNTER(msr) },
	{ ZYDIS_MNEMONIC_IN, true, emul_in, COUNTER(port) },
	{ ZYDIS_MNEMONIC_OUT, true, emul_out, COUNTER(port) },
	{ ZYDIS_MNEMONIC_INSB, false, emul_ins, COUNTER(port) },
	{ ZYDIS_MNEMONIC_INSW, false, emul_ins, COUNTER(port) },
	{ ZYDIS_MNEMONIC_INSD, false, emul_ins, COUNTER(port) },
	{ ZYDIS_MNEMONIC_OUTSB, false, emul_outs, COUNTER(port) },
	{ ZYDIS_MNEMONIC_OUTSW, false, emul_outs, COUNTER(port) },
	{ ZYDIS_MNEMONIC_OUTSD, false, emul_outs, COUNTER(port) },
	{ ZYDIS_MNEMONIC_CLI, true, emul_flag, COUNTER(flag) },
	{ ZYDIS_MNEMONIC_STI, true, emul_flag, COUNTER(flag) },
	{ ZYDIS_MNEMONIC_CPUID, true, emul_cpuid, 0 },
	{ ZYDIS_MNEMONIC_HLT, false, emul_hlt, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_WBINVD, false, emul_cache, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_INVD, false, emul_cache, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_INVLPG, false, emul_invlpg, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_RDTSC, false, emul_rdtsc, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_RDTSCP, false, emul_rdtsc, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_XGETBV, false, emul_xgetbv, COUNTER(misc) },
	{ ZYDIS_MNEMONIC_XSETBV, false, emul_xsetbv, COUNTER(misc) },
};

static const struct emul_desc *lookup(uint16_t mnemonic)
{
	for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].mnemonic == mnemonic)
			return &table[i];
	return NULL;
}

/* ---- fetch, decode, retire ------------------------------------------------------------------------------------ */

/* A code segment of the guest: what RIP is relative to, and whether it is 64-bit code. */
struct code {
	uint64_t base;
	bool long_mode, wide;		/* wide: 32-bit rather than 16-bit code */
};

static struct code code_segment(struct vcpu *v)
{
	unsigned sel = v->regs.cs, n = sel >> 3;
	uint64_t d;

	if (v->mode == MMU_KERNEL)
		return (struct code){ .long_mode = true };
	d = !(sel & 4) ? monitor_gdt(v)[n] : n < v->ldt_ents ? monitor_ldt(v)[n] : 0;
	if (d >> 53 & 1)
		return (struct code){ .long_mode = true };
	return (struct code){ .base = (d >> 16 & 0xffffff) | (d >> 56) << 24, .wide = d >> 54 & 1 };
}

int emul_decode(struct vcpu *v, struct emul_insn *in, uint64_t *fault)
{
	struct code c = code_segment(v);
	uint64_t at = c.long_mode ? v->regs.r.rip : (uint32_t)(c.base + v->regs.r.rip);
	uint8_t bytes[INSN_MAX];
	ZydisDecoder d;
	ZyanStatus s;
	size_t got;

	if (fault)
		*fault = at;
	if (guest_fetch(v, at, bytes, sizeof bytes, &got))
		return -EFAULT;
	if (c.long_mode)
		ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (c.wide)
		ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
	s = ZydisDecoderDecodeFull(&d, bytes, got, &in->i, in->op);
	if (s == ZYDIS_STATUS_NO_MORE_DATA && got < sizeof bytes) {
		if (fault)
			*fault = at + got;
		return -EFAULT;
	}
	in->long_mode = c.long_mode;
	return ZYAN_SUCCESS(s) ? 0 : -EINVAL;
}

static enum emul_step decode(struct vcpu *v, struct emul_insn *in)
{
	uint64_t fault;

	switch (emul_decode(v, in, &fault)) {
	case 0:
		return STEP_RETIRE;
	case -EFAULT:
		return emul_page_fault(v, fault, MMU_PF_FETCH);
	default:
		return STEP_REFUSE;
	}
}

/* Past an instruction of `length` bytes; a single-stepped one traps now, as it would have on a processor. */
static void retire(struct vcpu *v, unsigned length, bool long_mode)
{
	uint64_t flags = v->regs.r.rflags;

	v->regs.r.rip += length;
	if (!long_mode)
		v->regs.r.rip = (uint32_t)v->regs.r.rip;
	v->regs.r.rflags &= ~RFLAGS_RF;
	if (flags & RFLAGS_TF) {
		v->debugreg[6] |= DR6_BS;
		bounce_trap(v, 1, 0, false);
	}
}

void emul_retire(struct vcpu *v, const struct emul_insn *in)
{
	retire(v, in->i.length, in->long_mode);
}

enum emulated emulate_privileged(struct vcpu *v)
{
	const struct emul_desc *d;
	struct emul_insn in;
	enum emul_step s = decode(v, &in);

	if (s == STEP_RETIRE) {
		d = lookup(in.i.mnemonic);
		if (!d || (v->mode == MMU_USER && !d->user))
			return EMUL_NOT_OURS;
		s = d->fn(v, &in);
		if (s != STEP_REFUSE && d->counter)
			++*(uint64_t *)((char *)&v->counters + d->counter);
	}
	switch (s) {
	case STEP_RETIRE:
		emul_retire(v, &in);
		return EMUL_DONE;
	case STEP_AGAIN:
	case STEP_RAISED:
		return EMUL_DONE;
	case STEP_REFUSE:
		break;
	}
	return EMUL_NOT_OURS;
}

/* ud2; "xen"; cpuid: Xen's forced emulation prefix (xen/arch-x86/xen.h, XEN_CPUID). Works in either mode. */
enum emulated emulate_forced(struct vcpu *v)
{
	static const uint8_t prefixed_cpuid[] = { 0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2 };
	struct code c = code_segment(v);
	uint64_t at = c.long_mode ? v->regs.r.rip : (uint32_t)(c.base + v->regs.r.rip);
	uint8_t bytes[sizeof prefixed_cpuid];
	size_t got;

	if (guest_fetch(v, at, bytes, sizeof bytes, &got) || got < sizeof bytes ||
	    memcmp(bytes, prefixed_cpuid, sizeof bytes))
		return EMUL_NOT_OURS;
	do_cpuid(v);
	retire(v, sizeof bytes, c.long_mode);
	return EMUL_DONE;
}
