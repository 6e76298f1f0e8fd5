/*
 * emulate.h - between the files that emulate instructions. Not for others.
 *
 * What is accepted, and from which mode, follows Xen (xen/arch/x86/pv/emul-priv-op.c); exceptions are
 * named where they are.
 */
#ifndef UMBRA_VMM_EMULATE_H
#define UMBRA_VMM_EMULATE_H

#include <Zydis/Zydis.h>

#include "vmm/vm.h"

enum emul_step {
	STEP_RETIRE,		/* done: the instruction pointer moves on */
	STEP_AGAIN,		/* partly done: the instruction is to be executed once more */
	STEP_REFUSE,		/* not for the guest: the exception that brought us here stands */
	STEP_RAISED,		/* another exception was delivered instead */
};

struct emul_insn {
	ZydisDecodedInstruction i;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	bool long_mode;
};

typedef enum emul_step emul_fn(struct vcpu *v, const struct emul_insn *in);

emul_fn emul_mov, emul_clts, emul_lmsw, emul_invlpg, emul_xsetbv, emul_xgetbv;	/* emulate_cr.c */
emul_fn emul_rdmsr, emul_wrmsr;							/* emulate_msr.c */
emul_fn emul_in, emul_out, emul_ins, emul_outs;					/* emulate_port.c */

/* Decodes the instruction at rip. 0; -EFAULT: it cannot be fetched, *fault (may be NULL) is where; -EINVAL: it is none. */
int emul_decode(struct vcpu *v, struct emul_insn *in, uint64_t *fault);
/* It is done: on to the next one, by way of #DB if it was stepped. */
void emul_retire(struct vcpu *v, const struct emul_insn *in);
/* The guest's register that `r`, of any width, is part of. NULL: not a general one. */
__u64 *emul_gpr(struct vcpu *v, ZydisRegister r);
/* The linear address of a memory operand, in 64-bit code. */
uint64_t emul_address(struct vcpu *v, const struct emul_insn *in, const ZydisDecodedOperand *op);
/* Delivers #PF at `va`; STEP_RAISED. access: MMU_PF_W or MMU_PF_FETCH or 0. */
enum emul_step emul_page_fault(struct vcpu *v, uint64_t va, uint32_t access);
/* Whether the guest's IOPL lets the running mode do I/O and cli/sti. */
bool emul_iopl_ok(const struct vcpu *v);

/* ---- cpuid.c -------------------------------------------------------------------------------------------------- */

/* Size of an XSAVE area with these features, standard or compacted format (SDM vol. 1, 13.4). */
uint32_t cpuid_xsave_bytes(struct vm *vm, uint64_t xcr0, bool compacted);

#endif
