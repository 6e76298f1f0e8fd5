/*
 * kicks.h - what the kick probe's two halves share: VM layout, gate protocol. Included by C and by assembly.
 */
#ifndef UMBRA_TESTS_KICKS_H
#define UMBRA_TESTS_KICKS_H

/* The whole VM is one slot of 4 MiB, mapped linearly and supervisor-only at LINEAR. L4 slot 258: a PVM host keeps the
 * neighbours of slot 256 for itself. */
#define VM_SIZE		0x400000
#define LINEAR		0xffff810000000000

#define SEL_KCODE	0x10
#define SEL_KDATA	0x18
#define SEL_UDATA	0x2b
#define SEL_UCODE	0x33
#define SEL_TSS		0x40

#define PORT_TRAP	0xe0	/* `out` of the exception gate: the stack holds a struct gate_frame */
#define PORT_DONE	0xe1	/* `out` at the end of a kick */

#ifndef __ASSEMBLER__

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define PAGE		4096ul
#define PAGES		256u		/* touched per trial */
#define TABLES		2u		/* leaf tables they lie in: fewer than the 3 writes after which KVM drops a table */
#define PER_TABLE	(PAGES / TABLES)
#define NO_FRAME	UINT64_MAX
#define FAULTED		UINT64_MAX	/* what the guest's result says of a page that faulted */
#define USER_INSN_BYTES	3

/* Flags of an entry: user, writable, present, with A and D preset so that KVM prefetches and never writes them. */
#define PTE_P	0x001ull
#define PTE_W	0x002ull
#define PTE_U	0x004ull
#define PTE_AD	0x060ull
#define USER_RW	(PTE_P | PTE_W | PTE_U | PTE_AD)
#define SUPER_RW (PTE_P | PTE_W | PTE_AD)

/* Frames of the VM. */
enum frame {
	F_ROOT = 1, F_ROOT_OTHER, F_L3_OTHER,	/* a second root; the tables under test may hang below it alone */
	F_L3_USER, F_L2_CODE, F_L1_CODE, F_L3_LINEAR, F_L2_LINEAR, F_L1_LINEAR, F_L1_LINEAR_LAST,
	F_L2_TEST,	/* 512 entries over the test region, [0] and [1] used */
	F_L2_OTHER,	/* a second one */
	F_LEAF,		/* TABLES leaf tables each: the ones in use, ... */
	F_LEAF_FRESH = F_LEAF + TABLES,		/* ... never seen by KVM in this trial, ... */
	F_LEAF_OTHER = F_LEAF_FRESH + TABLES,	/* ... seen by KVM with other contents */
	F_GATE = 0x40, F_USER, F_GDT, F_IDT, F_TSS, F_TSS_LAST, F_STACK, F_STACK_LAST,	/* TSS, stack: per vCPU */
	F_PASSES, F_LISTS, F_LISTS_LAST = F_LISTS + 3, F_VAS, F_RESULTS,
	F_SET_A = 0x100, F_SET_B = 0x200, F_SET_C = 0x300,	/* PAGES data frames each */
};

#define VA_CODE		0x400000ul	/* user code, list of addresses, results: a page each */
#define VA_VAS		(VA_CODE + PAGE)
#define VA_RESULTS	(VA_CODE + 2 * PAGE)
#define VA_TEST		0x40000000ul	/* L3[1] */
#define VA_TEST_ALT	0x80000000ul	/* L3[2]: where "other" tables are shown to KVM before the trial proper */
#define VA_LINEAR(frame, offset) (LINEAR + (uint64_t)(frame) * PAGE + (offset))

#define SPARE_SLOT_GPA	0x10000000ul

struct gate_frame {
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

struct gate_pass {
	uint64_t routine, list, count;
};

struct cpu {
	int fd;
	struct kvm_run *run;
	struct gate_frame *frame;	/* top of its ring-0 stack */
	uint64_t stack_top;
};

struct vm {
	int kvm, fd;
	uint8_t *mem, *spare;
	struct cpu cpu[2];
};

/* A set of addresses a pass works on. */
struct list {
	uint64_t va[PAGES];
	unsigned int n;
};

extern const char gate_start[], gate_end[], gate_iret[], user_start[], user_end[], user_read[], user_load[],
	user_write[], user_store[], kick_next[], kick_done[], kick_or8[], kick_mov8[], kick_or4[], kick_or2[],
	kick_or1[], kick_split8[], kick_copy[], kick_invlpg[], kick_cr3[], kick_load[];

/* All of these end the program with a message when something fails. One thread. */
void die(const char *what) __attribute__((noreturn));
void cpu_die(struct cpu *cpu, const char *what) __attribute__((noreturn));	/* with the vCPU's state */

/* Ends the program with 77 if there is no /dev/kvm. Both vCPUs are left with F_ROOT in CR3. */
void vm_create(struct vm *vm);
void *vm_frame(struct vm *vm, unsigned int frame);
/* Entry `index` of `table` becomes `frame` with `flags`, or 0 if `frame` is NO_FRAME: a plain store, no kick. */
void vm_entry(struct vm *vm, unsigned int table, unsigned int index, uint64_t frame, uint64_t flags);
uint64_t vm_gate_va(const char *symbol);	/* where a symbol of gate_start..gate_end is in the VM */
/* Makes KVM drop all its shadow tables: deleting a memory slot, any slot, does so on every host. */
void vm_forget_shadow(struct vm *vm);

/* Runs at ring 0 from r->rip until the guest does `out`; returns the port. */
unsigned int cpu_run_from(struct cpu *cpu, const struct kvm_regs *r);
/* Touches the listed pages at ring 3 (reads them, or adds 1 to a byte). result[i]: what page i said, or FAULTED. */
void cpu_touch(struct vm *vm, struct cpu *cpu, const struct list *pages, bool write, uint64_t *result);

/* Is A set in the entries that the guest uses, and in no others? Prints a line. */
bool used_probe(struct vm *vm, unsigned int trials);

#endif /* !__ASSEMBLER__ */
#endif
