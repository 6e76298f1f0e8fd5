/*
 * kicks-vm.c - the probe's VM: 4 MiB, two vCPUs, ring-3 code behind a gate. docs/coherence-hosts.md
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kicks.h"

struct tss64 {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint8_t reserved1[72];
	uint16_t reserved2, iomap_base;
} __attribute__((packed));

void die(const char *what)
{
	fprintf(stderr, "kick-probe: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
	exit(1);
}

void *vm_frame(struct vm *vm, unsigned int frame)
{
	return vm->mem + frame * PAGE;
}

void vm_entry(struct vm *vm, unsigned int table, unsigned int index, uint64_t frame, uint64_t flags)
{
	uint64_t *entry = (uint64_t *)vm_frame(vm, table) + index;

	__atomic_store_n(entry, frame == NO_FRAME ? 0 : frame * PAGE | flags, __ATOMIC_SEQ_CST);
}

uint64_t vm_gate_va(const char *symbol)
{
	return VA_LINEAR(F_GATE, symbol - gate_start);
}

static void vm_slot(struct vm *vm, unsigned int slot, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size, .userspace_addr = (uintptr_t)hva,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
		die("KVM_SET_USER_MEMORY_REGION");
}

void vm_forget_shadow(struct vm *vm)
{
	vm_slot(vm, 1, SPARE_SLOT_GPA, 0, vm->spare);
	vm_slot(vm, 1, SPARE_SLOT_GPA, PAGE, vm->spare);
}

static void vm_build_memory(struct vm *vm)
{
	uint64_t *gdt = vm_frame(vm, F_GDT);

	vm_entry(vm, F_ROOT, 0, F_L3_USER, USER_RW);
	vm_entry(vm, F_ROOT, LINEAR >> 39 & 511, F_L3_LINEAR, SUPER_RW);
	vm_entry(vm, F_ROOT_OTHER, 0, F_L3_OTHER, USER_RW);
	vm_entry(vm, F_ROOT_OTHER, LINEAR >> 39 & 511, F_L3_LINEAR, SUPER_RW);
	vm_entry(vm, F_L3_OTHER, 0, F_L2_CODE, USER_RW);
	vm_entry(vm, F_L3_LINEAR, 0, F_L2_LINEAR, SUPER_RW);
	vm_entry(vm, F_L2_LINEAR, 0, F_L1_LINEAR, SUPER_RW);
	vm_entry(vm, F_L2_LINEAR, 1, F_L1_LINEAR_LAST, SUPER_RW);
	for (unsigned int i = 0; i < VM_SIZE / PAGE; i++)
		vm_entry(vm, F_L1_LINEAR + i / 512, i % 512, i, SUPER_RW);
	vm_entry(vm, F_L3_USER, 0, F_L2_CODE, USER_RW);
	vm_entry(vm, F_L2_CODE, VA_CODE >> 21, F_L1_CODE, USER_RW);
	vm_entry(vm, F_L1_CODE, 0, F_USER, USER_RW);
	vm_entry(vm, F_L1_CODE, 1, F_VAS, USER_RW);
	vm_entry(vm, F_L1_CODE, 2, F_RESULTS, USER_RW);

	memcpy(vm_frame(vm, F_GATE), gate_start, gate_end - gate_start);
	memcpy(vm_frame(vm, F_USER), user_start, user_end - user_start);

	gdt[SEL_KCODE / 8] = 0x00af9b000000ffff;
	gdt[SEL_KDATA / 8] = 0x00cf93000000ffff;
	gdt[SEL_UDATA / 8] = 0x00cff3000000ffff;
	gdt[SEL_UCODE / 8] = 0x00affb000000ffff;
	for (unsigned int v = 0; v < 32; v++) {
		uint64_t *gate = (uint64_t *)vm_frame(vm, F_IDT) + 2 * v, entry = VA_LINEAR(F_GATE, 16 * v);

		gate[0] = (entry & 0xffff) | (uint64_t)SEL_KCODE << 16 | 0x8e00ull << 32 | (entry >> 16 & 0xffff) << 48;
		gate[1] = entry >> 32;
	}
}

static struct kvm_segment vm_segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .dpl = selector & 3,
		.s = 1, .l = code, .db = !code, .g = 1,
	};
}

static void cpu_set_registers(struct vm *vm, unsigned int index)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	struct cpu *cpu = &vm->cpu[index];
	struct tss64 *tss = vm_frame(vm, F_TSS + index);
	struct kvm_sregs s;

	if (!cpuid)
		die("calloc");
	cpuid->nent = 256;
	if (ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) || ioctl(cpu->fd, KVM_SET_CPUID2, cpuid))
		die("KVM_SET_CPUID2");
	free(cpuid);
	tss->rsp[0] = cpu->stack_top;
	tss->iomap_base = sizeof(*tss);		/* no bitmap: ring 3 has no ports */
	if (ioctl(cpu->fd, KVM_GET_SREGS, &s))
		die("KVM_GET_SREGS");
	s.cs = vm_segment(SEL_KCODE, 11, true);
	s.ss = s.ds = s.es = s.fs = s.gs = vm_segment(SEL_KDATA, 3, false);
	/* No descriptor in the GDT stands behind this one: nothing here loads TR. */
	s.tr = (struct kvm_segment){ .base = VA_LINEAR(F_TSS + index, 0), .limit = sizeof(*tss) - 1,
				     .selector = SEL_TSS, .type = 11, .present = 1 };
	s.gdt = (struct kvm_dtable){ .base = VA_LINEAR(F_GDT, 0), .limit = SEL_TSS + 15 };
	s.idt = (struct kvm_dtable){ .base = VA_LINEAR(F_IDT, 0), .limit = 32 * 16 - 1 };
	s.cr0 = 0x80010033;	/* PG WP NE ET MP PE */
	s.cr3 = F_ROOT * PAGE;
	s.cr4 = 0x20;		/* PAE */
	s.efer = 0xd00;		/* NXE LMA LME */
	if (ioctl(cpu->fd, KVM_SET_SREGS, &s))
		die("KVM_SET_SREGS");
}

static void cpu_create(struct vm *vm, unsigned int index)
{
	struct cpu *cpu = &vm->cpu[index];
	int run_size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	cpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, index);
	if (cpu->fd < 0 || run_size < 0)
		die("KVM_CREATE_VCPU");
	cpu->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
	if (cpu->run == MAP_FAILED)
		die("mmap of kvm_run");
	cpu->stack_top = VA_LINEAR(F_STACK + index + 1, 0);
	cpu->frame = (struct gate_frame *)vm_frame(vm, F_STACK + index + 1) - 1;
	cpu_set_registers(vm, index);
}

void vm_create(struct vm *vm)
{
	int memfd;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0) {
		fprintf(stderr, "kick-probe: /dev/kvm: %s (scripts/testbed has one inside)\n", strerror(errno));
		exit(77);
	}
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->fd < 0)
		die("KVM_CREATE_VM");
	/* Intel needs three pages for its own use; harmless elsewhere. */
	if (ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul) && errno != ENOTTY && errno != EINVAL)
		die("KVM_SET_TSS_ADDR");
	memfd = memfd_create("kick-probe", MFD_CLOEXEC);
	if (memfd < 0 || ftruncate(memfd, VM_SIZE))
		die("memfd_create");
	vm->mem = mmap(NULL, VM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memfd, 0);
	vm->spare = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->mem == MAP_FAILED || vm->spare == MAP_FAILED)
		die("mmap");
	close(memfd);
	vm_slot(vm, 0, 0, VM_SIZE, vm->mem);
	vm_slot(vm, 1, SPARE_SLOT_GPA, PAGE, vm->spare);
	vm_build_memory(vm);
	for (unsigned int i = 0; i < 2; i++)
		cpu_create(vm, i);
}

void cpu_die(struct cpu *cpu, const char *what)
{
	const struct gate_frame *f = cpu->frame;
	struct kvm_regs r = { 0 };
	struct kvm_sregs s = { 0 };

	ioctl(cpu->fd, KVM_GET_REGS, &r);
	ioctl(cpu->fd, KVM_GET_SREGS, &s);
	fprintf(stderr, "kick-probe: %s; exit reason %u, rip %llx rsp %llx cs %x cr2 %llx cr3 %llx\n"
		"  last exception: vector %llu error %llx rip %llx cs %llx rsp %llx\n", what, cpu->run->exit_reason,
		r.rip, r.rsp, s.cs.selector, s.cr2, s.cr3, (unsigned long long)f->vector,
		(unsigned long long)f->error, (unsigned long long)f->rip, (unsigned long long)f->cs,
		(unsigned long long)f->rsp);
	exit(1);
}

static unsigned int cpu_run(struct cpu *cpu)
{
	for (;;) {
		if (ioctl(cpu->fd, KVM_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			cpu_die(cpu, strerror(errno));
		}
		if (cpu->run->exit_reason == KVM_EXIT_INTR)
			continue;
		if (cpu->run->exit_reason != KVM_EXIT_IO)
			cpu_die(cpu, "unexpected exit");
		return cpu->run->io.port;
	}
}

unsigned int cpu_run_from(struct cpu *cpu, const struct kvm_regs *r)
{
	if (ioctl(cpu->fd, KVM_SET_REGS, r))
		die("KVM_SET_REGS");
	return cpu_run(cpu);
}

void cpu_touch(struct vm *vm, struct cpu *cpu, const struct list *pages, bool write, uint64_t *result)
{
	struct gate_frame *f = cpu->frame;
	uint64_t insn = VA_CODE + ((write ? user_store : user_load) - user_start);
	struct kvm_regs r = {
		.rip = vm_gate_va(gate_iret), .rsp = cpu->stack_top - sizeof(*f), .rflags = 2,
		.rsi = VA_VAS, .rdi = VA_RESULTS, .rcx = pages->n,
	};

	*f = (struct gate_frame){ .rip = VA_CODE + ((write ? user_write : user_read) - user_start), .cs = SEL_UCODE,
				  .rflags = 2, .rsp = VA_CODE, .ss = SEL_UDATA };
	memcpy(vm_frame(vm, F_VAS), pages->va, sizeof(pages->va));
	memset(vm_frame(vm, F_RESULTS), 0x55, PAGE);
	for (;;) {
		if (cpu_run_from(cpu, &r) != PORT_TRAP)
			cpu_die(cpu, "unexpected port");
		if (f->vector == 6)		/* ud2: done */
			break;
		if (f->vector != 14 || f->rip != insn)
			cpu_die(cpu, "unexpected exception");
		if (ioctl(cpu->fd, KVM_GET_REGS, &r))
			die("KVM_GET_REGS");
		r.rax = FAULTED;
		r.rip = vm_gate_va(gate_iret);
		f->rip += USER_INSN_BYTES;
	}
	memcpy(result, vm_frame(vm, F_RESULTS), pages->n * sizeof(*result));
}

