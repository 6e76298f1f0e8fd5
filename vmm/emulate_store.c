/*
 * emulate_store.c - instructions that store to a page table which the guest kernel maps read-only. What Linux and Xen's other
 * guests use on page-table entries: moves, locked logic and bit operations, exchanges (SDM vol. 2). Always atomic, prefixed
 * or not: frames_exchange() compares.
 */
#include <errno.h>

#include "vmm/emulate.h"
#include "vmm/nested.h"

#define F_CF	(1ull << 0)
#define F_PF	(1ull << 2)
#define F_AF	(1ull << 4)
#define F_ZF	(1ull << 6)
#define F_SF	(1ull << 7)
#define F_OF	(1ull << 11)
#define F_ARITH	(F_CF | F_PF | F_AF | F_ZF | F_SF | F_OF)

#define TRIES	64u		/* the processor may set A and D in between; nobody else can */

/* What the instruction makes of the operand `old`. */
struct effect {
	uint64_t memory;	/* to be stored */
	bool stores;		/* false: a cmpxchg that found something else */
	ZydisRegister to;	/* a register that is written too ... */
	uint64_t reg;		/* ... with this; ZYDIS_REGISTER_NONE: none */
	uint64_t flags, flags_mask;
};

struct operand {
	const ZydisDecodedOperand *memory, *other;	/* other: NULL if there is one operand */
	uint64_t va;
	unsigned bytes;
	uint64_t mask, sign;
	unsigned bit;		/* of bts and its like */
};

static bool is_high_byte(ZydisRegister r)
{
	return r == ZYDIS_REGISTER_AH || r == ZYDIS_REGISTER_BH || r == ZYDIS_REGISTER_CH || r == ZYDIS_REGISTER_DH;
}

static uint64_t reg_get(struct vcpu *v, ZydisRegister r, uint64_t mask)
{
	const __u64 *at = emul_gpr(v, r);

	return at ? (is_high_byte(r) ? *at >> 8 : *at) & mask : 0;
}

static void reg_set(struct vcpu *v, ZydisRegister r, uint64_t value, unsigned bytes)
{
	__u64 *at = emul_gpr(v, r);

	if (!at)
		return;
	if (bytes == 8)
		*at = value;
	else if (bytes == 4)
		*at = (uint32_t)value;
	else if (bytes == 2)
		*at = (*at & ~0xffffull) | (value & 0xffff);
	else if (is_high_byte(r))
		*at = (*at & ~0xff00ull) | (value & 0xff) << 8;
	else
		*at = (*at & ~0xffull) | (value & 0xff);
}

/* ---- flags (SDM vol. 1, 3.4.3.1) --------------------------------------------------------------------------------------- */

static uint64_t result_flags(const struct operand *o, uint64_t r)
{
	return (r & o->mask ? 0 : F_ZF) | (r & o->sign ? F_SF : 0) | (__builtin_parity(r & 0xff) ? 0 : F_PF);
}

static uint64_t add_flags(const struct operand *o, uint64_t a, uint64_t b)
{
	uint64_t r = (a + b) & o->mask;

	return result_flags(o, r) | (r < a ? F_CF : 0) | (~(a ^ b) & (a ^ r) & o->sign ? F_OF : 0) | ((a ^ b ^ r) & F_AF);
}

static uint64_t sub_flags(const struct operand *o, uint64_t a, uint64_t b)
{
	uint64_t r = (a - b) & o->mask;

	return result_flags(o, r) | (a < b ? F_CF : 0) | ((a ^ b) & (a ^ r) & o->sign ? F_OF : 0) | ((a ^ b ^ r) & F_AF);
}

/* ---- what each does ---------------------------------------------------------------------------------------------------- */

static uint64_t other_value(struct vcpu *v, const struct operand *o)
{
	if (!o->other)
		return 0;
	if (o->other->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return o->other->imm.value.u & o->mask;
	return reg_get(v, o->other->reg.value, o->mask);
}

static bool logic(const struct operand *o, uint64_t result, struct effect *e)
{
	e->memory = result;
	e->flags = result_flags(o, result);
	e->flags_mask = F_ARITH & ~F_AF;
	return true;
}

static bool bit_operation(const struct operand *o, uint64_t old, uint64_t result, struct effect *e)
{
	e->memory = result & o->mask;
	e->flags = old >> o->bit & 1 ? F_CF : 0;
	e->flags_mask = F_CF;
	return true;
}

static bool compare_exchange(struct vcpu *v, const struct operand *o, uint64_t old, uint64_t value, struct effect *e)
{
	uint64_t acc = reg_get(v, ZYDIS_REGISTER_RAX, o->mask);

	e->flags = sub_flags(o, acc, old);
	e->flags_mask = F_ARITH;
	e->memory = value;
	if (acc != old) {
		e->stores = false;
		e->to = ZYDIS_REGISTER_RAX;
		e->reg = old;
	}
	return true;
}

/* False: not an instruction for page tables. */
static bool perform(struct vcpu *v, ZydisMnemonic mnemonic, const struct operand *o, uint64_t old, struct effect *e)
{
	uint64_t value = other_value(v, o), bit = 1ull << o->bit;

	*e = (struct effect){ .stores = true, .to = ZYDIS_REGISTER_NONE };
	switch (mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVNTI:
		e->memory = value;
		return true;
	case ZYDIS_MNEMONIC_XCHG:
		e->memory = value;
		e->to = o->other->reg.value;
		e->reg = old;
		return true;
	case ZYDIS_MNEMONIC_CMPXCHG:
		return compare_exchange(v, o, old, value, e);
	case ZYDIS_MNEMONIC_AND:
		return logic(o, old & value, e);
	case ZYDIS_MNEMONIC_OR:
		return logic(o, old | value, e);
	case ZYDIS_MNEMONIC_XOR:
		return logic(o, old ^ value, e);
	case ZYDIS_MNEMONIC_BTS:
		return bit_operation(o, old, old | bit, e);
	case ZYDIS_MNEMONIC_BTR:
		return bit_operation(o, old, old & ~bit, e);
	case ZYDIS_MNEMONIC_BTC:
		return bit_operation(o, old, old ^ bit, e);
	case ZYDIS_MNEMONIC_XADD:
		e->to = o->other->reg.value;
		e->reg = old;
		/* fall through */
	case ZYDIS_MNEMONIC_ADD:
		e->memory = (old + value) & o->mask;
		e->flags = add_flags(o, old, value);
		e->flags_mask = F_ARITH;
		return true;
	case ZYDIS_MNEMONIC_SUB:
		e->memory = (old - value) & o->mask;
		e->flags = sub_flags(o, old, value);
		e->flags_mask = F_ARITH;
		return true;
	default:
		return false;
	}
}

/* ---- the operand ------------------------------------------------------------------------------------------------------- */

static bool is_bit_operation(ZydisMnemonic m)
{
	return m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
}

/* A bit number in a register reaches beyond the operand. */
static void place_bit(struct vcpu *v, struct operand *o)
{
	int64_t n;

	if (o->other->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		o->bit = o->other->imm.value.u & (o->bytes * 8 - 1);
		return;
	}
	n = reg_get(v, o->other->reg.value, o->mask);
	if (o->bytes < 8)
		n = o->bytes == 4 ? (int64_t)(int32_t)n : (int64_t)(int16_t)n;
	o->va += (n >> (o->bytes == 8 ? 6 : o->bytes == 4 ? 5 : 4)) * o->bytes;
	o->bit = n & (o->bytes * 8 - 1);
}

static bool find_operand(struct vcpu *v, const struct emul_insn *in, struct operand *o)
{
	unsigned n = in->i.operand_count_visible;
	bool first = n && in->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

	if (!n || n > 2 || !in->long_mode || (in->i.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPNE)))
		return false;
	*o = (struct operand){ .memory = &in->op[first ? 0 : n - 1], .other = n == 2 ? &in->op[first ? 1 : 0] : NULL };
	if (o->memory->type != ZYDIS_OPERAND_TYPE_MEMORY || o->memory->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
	    !(o->memory->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) || !o->other ||
	    (o->other->type != ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	     (o->other->type != ZYDIS_OPERAND_TYPE_REGISTER || !emul_gpr(v, o->other->reg.value))))
		return false;
	o->bytes = o->memory->size / 8;
	if (o->bytes != 1 && o->bytes != 2 && o->bytes != 4 && o->bytes != 8)
		return false;
	o->mask = o->bytes == 8 ? ~0ull : (1ull << (o->bytes * 8)) - 1;
	o->sign = 1ull << (o->bytes * 8 - 1);
	o->va = emul_address(v, in, o->memory);
	if (is_bit_operation(in->i.mnemonic))
		place_bit(v, o);
	return true;
}

enum emulated emulate_table_store(struct vcpu *v, uint64_t va, gfn_t table)
{
	struct frames *frames = v->vm->nested->frames;
	unsigned index = (va & 4095) / 8, shift;
	struct emul_insn in;
	struct operand o;
	struct effect e;
	uint64_t entry;
	int r = -EAGAIN;

	if (emul_decode(v, &in, NULL) || !find_operand(v, &in, &o))
		return EMUL_NOT_OURS;
	if (o.va >> 3 != va >> 3 || (o.va & 7) + o.bytes > 8)	/* an entry is the least that can be checked, and the most */
		return EMUL_NOT_OURS;
	shift = (o.va & 7) * 8;
	for (unsigned i = 0; r == -EAGAIN && i < TRIES; i++) {
		entry = frames_read(frames, table, index);
		if (!perform(v, in.i.mnemonic, &o, entry >> shift & o.mask, &e))
			return EMUL_NOT_OURS;
		r = !e.stores ? 0 : frames_exchange(frames, table, index, entry,
						    (entry & ~(o.mask << shift)) | (e.memory & o.mask) << shift, v);
	}
	if (r)
		return EMUL_NOT_OURS;
	if (e.to != ZYDIS_REGISTER_NONE)
		reg_set(v, e.to, e.reg, o.bytes);
	v->regs.r.rflags = (v->regs.r.rflags & ~e.flags_mask) | (e.flags & e.flags_mask);
	emul_retire(v, &in);
	return EMUL_DONE;
}
