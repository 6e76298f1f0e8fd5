/*
 * fake_vm.h - a struct vm without KVM, for tests of the PV ABI and the emulator. It defines what they would call in the
 * rest of vmm/: include it in one file per program.
 *
 * Guest memory is one array at FAKE_VA in both address spaces; anything else is -EFAULT.
 */
#ifndef UMBRA_TESTS_FAKE_VM_H
#define UMBRA_TESTS_FAKE_VM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "vmm/profile.h"
#include "vmm/vm.h"

#define FAKE_VA		0xffff888000000000ull
#define FAKE_BYTES	16384u
#define FAKE_VCPUS	2u

static struct {
	struct vm vm;
	struct vmm_config config;
	struct vcpu vcpu[FAKE_VCPUS];
	struct shared_info shared __attribute__((aligned(4096)));
	struct kvm_run run;
	uint8_t memory[FAKE_BYTES] __attribute__((aligned(4096)));
	uint64_t gdt[8192], ldt[8192];

	/* what was called */
	_Atomic unsigned wakes[FAKE_VCPUS];
	unsigned console_kicks, bounces, marks, invlpgs, blocks;
	uint8_t bounced_vector;
	uint32_t bounced_error, marked;
	uint64_t invlpg_va, baseptr;
	const void *shim_info;
	char console[4096];
	size_t console_bytes;
	unsigned parks;
	uint64_t user_baseptr, gdt_entries, ldt_entries;
	long set_debugreg_result;
	bool event_on_block;
} fake;

static void fake_invlpg(struct vcpu *v, gva_t va)
{
	fake.invlpgs++;
	fake.invlpg_va = va.a;
}

static bool fake_may_write(struct vcpu *v, gfn_t gfn)
{
	return true;
}

static int fake_keep_writable(struct vcpu *v, gfn_t gfn)
{
	return 0;
}

static const struct paging_ops fake_paging = {
	.invlpg = fake_invlpg,
	.may_write = fake_may_write,
	.keep_writable = fake_keep_writable,
};

static struct vcpu *fake_reset(void)
{
	memset(&fake, 0, sizeof fake);
	fake.vm.config = &fake.config;
	fake.vm.paging = &fake_paging;
	fake.vm.nr_vcpus = fake.config.vcpus = FAKE_VCPUS;
	fake.vm.vcpus = fake.vcpu;
	fake.vm.shared = &fake.shared;
	fake.vm.ram_frames = FAKE_BYTES >> 12;
	fake.vm.nr_gfns = fake.vm.ram_frames + 1;
	fake.vm.tsc_khz = 2000000;
	fake.vm.host.tsc_constant = true;
	for (unsigned i = 0; i < FAKE_VCPUS; i++) {
		struct vcpu *v = &fake.vcpu[i];

		v->vm = &fake.vm;
		v->id = i;
		v->up = true;
		v->run = &fake.run;
		v->fd = v->wake_fd = -1;
		v->info = &fake.shared.vcpu_info[i];
		v->l4[MMU_KERNEL] = (gfn_t){ 5 };
		v->l4[MMU_USER] = (gfn_t){ 6 };
		v->iopl = 1;
		v->cr0 = 0x80050033;
		v->cr4 = 0x620;
	}
	fake.vcpu[0].thread = pthread_self();
	return &fake.vcpu[0];
}

/* ---- seams ---------------------------------------------------------------------------------------------------- */

static uint8_t *fake_at(uint64_t va, size_t bytes)
{
	return va >= FAKE_VA && va - FAKE_VA < FAKE_BYTES && bytes <= FAKE_BYTES - (va - FAKE_VA) ?
	       fake.memory + (va - FAKE_VA) : NULL;
}

void profile_pause(struct vcpu *v, bool pause)
{
}

int guest_read(struct vcpu *v, uint64_t va, void *to, size_t bytes)
{
	uint8_t *p = fake_at(va, bytes);

	if (!p)
		return -EFAULT;
	memcpy(to, p, bytes);
	return 0;
}

int guest_write(struct vcpu *v, uint64_t va, const void *from, size_t bytes)
{
	uint8_t *p = fake_at(va, bytes);

	if (!p)
		return -EFAULT;
	memcpy(p, from, bytes);
	return 0;
}

int guest_fetch(struct vcpu *v, uint64_t va, void *to, size_t bytes, size_t *got)
{
	for (*got = 0; *got < bytes; ++*got) {
		uint8_t *p = fake_at(va + *got, 1);

		if (!p)
			break;
		((uint8_t *)to)[*got] = *p;
	}
	return *got ? 0 : -EFAULT;
}

void *guest_phys(struct vm *vm, uint64_t pa, size_t bytes)
{
	return pa < FAKE_BYTES && (pa & 4095) + bytes <= 4096 ? fake.memory + pa : NULL;
}

int mmu_translate(struct mmu *mmu, gfn_t l4, enum mmu_mode mode, gva_t va, uint32_t access, struct mmu_walk *out)
{
	out->error_code = 0;
	return -EFAULT;
}

void mmu_mark_dirty(struct mmu *mmu, gfn_t gfn)
{
}

int mmu_write(struct mmu_cpu *cpu, gfn_t gfn, unsigned offset, const void *from, unsigned bytes)
{
	if (gfn.n >= FAKE_BYTES >> 12 || offset + bytes > 4096)
		return -EINVAL;
	memcpy(fake.memory + (gfn.n << 12) + offset, from, bytes);
	return 0;
}

void vcpu_wake(struct vcpu *v)
{
	atomic_fetch_add(&fake.wakes[v->id], 1);
	atomic_store(&v->wake, true);
	if (atomic_load(&v->blocked) && v->wake_fd >= 0)
		eventfd_write(v->wake_fd, 1);
}

void vm_stop(struct vm *vm, int exit_code, const char *fmt, ...)
{
	if (!atomic_exchange(&vm->stop, true))
		vm->exit_code = exit_code;
}

void vcpu_crash(struct vcpu *v, const char *fmt, ...)
{
	vm_stop(v->vm, VMM_EXIT_CRASHED, "%s", fmt);
}

void bounce_trap(struct vcpu *v, unsigned vector, uint32_t error_code, bool has_error)
{
	fake.bounces++;
	fake.bounced_vector = vector;
	fake.bounced_error = error_code;
}

uint64_t *monitor_gdt(struct vcpu *v)
{
	return fake.gdt;
}

uint64_t *monitor_ldt(struct vcpu *v)
{
	return fake.ldt;
}

void console_kick(struct vm *vm)
{
	fake.console_kicks++;
}

void console_write(struct vm *vm, const char *bytes, size_t n)
{
	if (n > sizeof fake.console - fake.console_bytes)
		n = sizeof fake.console - fake.console_bytes;
	memcpy(fake.console + fake.console_bytes, bytes, n);
	fake.console_bytes += n;
}

void shim_set_info(struct vcpu *v, const void *hva)
{
	fake.shim_info = hva;
}

void stats_mark(struct vcpu *v, uint32_t id)
{
	fake.marks++;
	fake.marked = id;
}

void feed_mark(struct vcpu *v, uint32_t id)
{
}

long xen_set_debugreg(struct vcpu *v, const uint64_t a[6])
{
	if (!fake.set_debugreg_result)
		v->debugreg[a[0] & 7] = a[1];
	return fake.set_debugreg_result;
}

long xen_get_debugreg(struct vcpu *v, const uint64_t a[6])
{
	return a[0] < 8 && a[0] != 4 && a[0] != 5 ? (long)v->debugreg[a[0]] : -EINVAL;
}

long xen_fpu_taskswitch(struct vcpu *v, const uint64_t a[6])
{
	v->cr0 = a[0] & 1 ? v->cr0 | 8 : v->cr0 & ~8ull;
	return 0;
}

long xen_set_segment_base(struct vcpu *v, const uint64_t a[6])
{
	switch (a[0]) {
	case SEGBASE_FS:
		v->fs_base = a[1];
		return 0;
	case SEGBASE_GS_USER:
	case SEGBASE_GS_KERNEL:
		v->gs_base[a[0] == SEGBASE_GS_USER ? MMU_USER : MMU_KERNEL] = a[1];
		return 0;
	default:
		return -EINVAL;
	}
}

int xen_new_baseptr(struct vcpu *v, gfn_t l4)
{
	if (l4.n >= v->vm->ram_frames)
		return -EINVAL;
	v->l4[MMU_KERNEL] = l4;
	return 0;
}

int xen_new_user_baseptr(struct vcpu *v, uint64_t l4)
{
	fake.user_baseptr = l4;
	return 0;
}

int xen_load_gdt(struct vcpu *v, const uint64_t *frames, uint64_t entries)
{
	fake.gdt_entries = entries;
	return 0;
}

long xen_set_ldt(struct vcpu *v, uint64_t va, uint64_t entries)
{
	fake.ldt_entries = entries;
	return 0;
}

int vcpu_reset(struct vcpu *v)
{
	return 0;
}

bool vcpu_do_kicks(struct vcpu *v)
{
	return true;
}

bool shim_on(const struct vm *vm)
{
	return vm->config->shim != 0;
}

bool mover_wanted(const struct vcpu *v)
{
	return false;
}

void mover_serve(struct vcpu *v)
{
}

void shim_owes(struct vcpu *v, bool yes)
{
}

bool vcpu_park(struct vcpu *v)
{
	fake.parks++;
	return !atomic_load(&v->vm->stop);
}

#endif
