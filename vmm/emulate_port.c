/*
 * emulate_port.c - port I/O. There are no devices behind ports: reads are all ones, writes go nowhere, but for the
 * debug console at 0xe9 (as Bochs and QEMU have it).
 */
#include "vmm/emulate.h"

#define PORT_DEBUG	0xe9
#define PORT_PIT_FIRST	0x40
#define PORT_PIT_LAST	0x43
#define REP_CHUNK	256u	/* elements per exit: the guest's events are looked at in between */
#define RFLAGS_DF	(1ull << 10)

/* Kernels calibrate against the PIT by waiting while a counter reads 0xff; one that reads as 0 is dead at once. */
static uint8_t read_byte(unsigned port)
{
	if (port >= PORT_PIT_FIRST && port <= PORT_PIT_LAST)
		return 0;
	return port == PORT_DEBUG ? PORT_DEBUG : 0xff;
}

static uint32_t read_port(uint16_t port, unsigned bytes)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint32_t)read_byte((uint16_t)(port + i)) << i * 8;
	return value;
}

static void write_port(struct vcpu *v, uint16_t port, const void *value, unsigned bytes)
{
	if (port == PORT_DEBUG)
		console_write(v->vm, value, bytes);
}

/* By IOPL, or by the I/O bitmap that the guest kernel has named (PHYSDEVOP_set_iobitmap): a clear bit permits. */
static bool permitted(struct vcpu *v, uint16_t port, unsigned bytes)
{
	uint8_t map[2] = { 0xff, 0xff };

	if (emul_iopl_ok(v))
		return true;
	if ((unsigned)port + bytes > v->iobmp_ports)
		return false;
	if (guest_read(v, v->iobmp.a + port / 8, map, 2))
		guest_read(v, v->iobmp.a + port / 8, map, 1);
	return !((map[0] | map[1] << 8) >> port % 8 & ((1u << bytes) - 1));
}

/* The port operand: an immediate or DX. */
static uint16_t port_of(struct vcpu *v, const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? op->imm.value.u : v->regs.r.rdx;
}

enum emul_step emul_in(struct vcpu *v, const struct emul_insn *in)
{
	uint16_t port = port_of(v, &in->op[1]);
	unsigned bytes = in->op[0].size / 8;
	uint32_t value;

	if (!permitted(v, port, bytes))
		return STEP_REFUSE;
	value = read_port(port, bytes);
	if (bytes == 4)
		v->regs.r.rax = value;
	else
		v->regs.r.rax = (v->regs.r.rax & ~((1ull << bytes * 8) - 1)) | value;
	return STEP_RETIRE;
}

enum emul_step emul_out(struct vcpu *v, const struct emul_insn *in)
{
	uint16_t port = port_of(v, &in->op[0]);
	unsigned bytes = in->op[1].size / 8;
	uint32_t value = v->regs.r.rax;

	if (!permitted(v, port, bytes))
		return STEP_REFUSE;
	write_port(v, port, &value, bytes);
	return STEP_RETIRE;
}

/* ---- strings. Kernel mode, 64-bit code ------------------------------------------------------------------------ */

static uint64_t width_mask(const struct emul_insn *in)
{
	return in->i.address_width == 64 ? ~0ull : ~0u;
}

/* `pointer` is RSI or RDI. Elements one by one, so that a fault leaves the registers at the element that faulted. */
static enum emul_step string_io(struct vcpu *v, const struct emul_insn *in, const ZydisDecodedOperand *mem,
				__u64 *pointer, bool to_memory)
{
	bool rep = in->i.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
	uint64_t mask = width_mask(in);
	__u64 *count = &v->regs.r.rcx;
	unsigned bytes = mem->size / 8;
	int64_t step = v->regs.r.rflags & RFLAGS_DF ? -(int64_t)bytes : bytes;
	uint16_t port = v->regs.r.rdx;

	if (!in->long_mode || !permitted(v, port, bytes))
		return STEP_REFUSE;
	for (unsigned i = 0; i < REP_CHUNK && (!rep || *count & mask); i++) {
		uint64_t at = emul_address(v, in, mem);
		uint32_t value = read_port(port, bytes);

		if (to_memory ? guest_write(v, at, &value, bytes) : guest_read(v, at, &value, bytes))
			return emul_page_fault(v, at, to_memory ? MMU_PF_W : 0);
		if (!to_memory)
			write_port(v, port, &value, bytes);
		*pointer = (*pointer + step) & mask;
		if (!rep)
			return STEP_RETIRE;
		*count = (*count - 1) & mask;
	}
	return *count & mask ? STEP_AGAIN : STEP_RETIRE;
}

enum emul_step emul_ins(struct vcpu *v, const struct emul_insn *in)
{
	return string_io(v, in, &in->op[0], &v->regs.r.rdi, true);
}

enum emul_step emul_outs(struct vcpu *v, const struct emul_insn *in)
{
	return string_io(v, in, &in->op[1], &v->regs.r.rsi, false);
}
