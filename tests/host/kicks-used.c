/*
 * kicks-used.c - can the host see in the tables which entries the guest used? umbra installs a sample of its prebuilt
 * entries with A clear (mmu/sample.c): whoever walks our tables has to set A in them for a page that is touched, before
 * the access succeeds, and for no other.
 */
#include <stdio.h>
#include <string.h>

#include "kicks.h"

#define PTE_A	0x020ull

/* What page i of a trial is. An ordinary entry lies beside every three with A clear, as prebuilt ones lie in umbra. */
enum role { READ, WRITTEN, UNTOUCHED, ORDINARY, ROLES };

static uint64_t *leaf_entry(struct vm *vm, unsigned int i)
{
	return (uint64_t *)vm_frame(vm, F_LEAF + i / PER_TABLE) + i % PER_TABLE;
}

static void list_role(struct list *list, enum role role)
{
	list->n = 0;
	for (unsigned int i = role; i < PAGES; i += ROLES)
		list->va[list->n++] = VA_TEST + i / PER_TABLE * 512 * PAGE + i % PER_TABLE * PAGE;
}

/* Adds to seen[] how many pages of each role have A set after some were touched. */
static void trial(struct vm *vm, unsigned int seen[ROLES])
{
	struct cpu *cpu = &vm->cpu[0];
	struct list pages;
	uint64_t result[PAGES];

	memset(vm_frame(vm, F_L2_TEST), 0, PAGE);
	for (unsigned int t = 0; t < TABLES; t++) {
		memset(vm_frame(vm, F_LEAF + t), 0, PAGE);
		vm_entry(vm, F_L2_TEST, t, F_LEAF + t, USER_RW);
	}
	vm_entry(vm, F_L3_USER, VA_TEST >> 30, F_L2_TEST, USER_RW);
	for (unsigned int i = ORDINARY; i < PAGES; i += ROLES)
		vm_entry(vm, F_LEAF + i / PER_TABLE, i % PER_TABLE, F_SET_A + i, USER_RW);
	vm_forget_shadow(vm);
	list_role(&pages, ORDINARY);
	cpu_touch(vm, cpu, &pages, false, result);		/* KVM knows the tables */
	for (unsigned int i = 0; i < PAGES; i++)
		if (i % ROLES != ORDINARY)
			vm_entry(vm, F_LEAF + i / PER_TABLE, i % PER_TABLE, F_SET_A + i, USER_RW & ~PTE_A);
	for (unsigned int role = READ; role <= WRITTEN; role++) {
		list_role(&pages, role);
		cpu_touch(vm, cpu, &pages, role == WRITTEN, result);
		for (unsigned int i = 0; i < pages.n; i++)
			if (result[i] == FAULTED)
				cpu_die(cpu, "a page with A clear cannot be touched");
	}
	for (unsigned int i = 0; i < PAGES; i++)
		seen[i % ROLES] += !!(__atomic_load_n(leaf_entry(vm, i), __ATOMIC_SEQ_CST) & PTE_A);
}

bool used_probe(struct vm *vm, unsigned int trials)
{
	unsigned int seen[ROLES] = { 0 }, all = PAGES / ROLES * trials;
	bool sound;

	for (unsigned int t = 0; t < trials; t++)
		trial(vm, seen);
	sound = seen[READ] == all && seen[WRITTEN] == all && !seen[UNTOUCHED];
	printf("\nentries with A clear in which A was found afterwards: %u of %u read, %u of %u written, %u of %u not touched: "
	       "%s\n", seen[READ], all, seen[WRITTEN], all, seen[UNTOUCHED], all,
	       sound ? "use can be sampled" : "what umbra says of use is wrong here");
	return sound;
}
