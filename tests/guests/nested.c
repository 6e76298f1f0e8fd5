/*
 * nested.c - what a guest must not get where the processor walks its own tables (--mmu=nested): no way to a table that can be
 * written unchecked, whatever the order of calls; and stores to tables that are emulated have to do what the processor does.
 * Xen refuses the same things.
 */
#include "lib/shim.h"

#define VA	(TEST_VA + (5ul << 39))
#define EVIL	0x6e7573ul

static uint64_t *leaf_table(uint64_t va)
{
	expect_eq(map_page(root_va(), va, 0), 0);
	return mfn_to_va((*pte_of(root_va(), va, 2) & PTE_ADDR) >> 12);
}

static long flush(void)
{
	return mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
}

TEST(no_writable_mapping_of_a_table)
{
	expect_eq(map_page(root_va(), VA, 0), 0);
	for (unsigned level = 1; level <= 4; level++) {
		uint64_t mfn = va_to_mfn(pte_of(root_va(), VA, level));

		expect_eq(update_va(VA, pte_make(mfn, PTE_DATA), UVMF_INVLPG), -XEN_EINVAL);
		expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 1)), pte_make(mfn, PTE_DATA)), -XEN_EINVAL);
		probe("movq %1, (%0)", :: "r"(pte_of(root_va(), VA, 1)), "r"(pte_make(mfn, PTE_DATA)) : "memory");
		expect_trap(14, PF_P | PF_W);
		expect_eq(*pte_of(root_va(), VA, 1), 0);
		expect_eq(update_va(VA, pte_make(mfn, PTE_RO_DATA), UVMF_INVLPG), 0);
		expect_eq(probe_read(VA, NULL), -1);
		expect_eq(update_va(VA, 0, UVMF_INVLPG), 0);
	}
}

TEST(no_table_with_a_writable_mapping)
{
	void *page = page_alloc();

	for (unsigned level = 0; level < 4; level++)
		expect_eq(mmuext(MMUEXT_PIN_L1_TABLE + level, va_to_mfn(page), 0), -XEN_EINVAL);
	expect_eq(map_page(root_va(), VA, 0), 0);
	expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 2) + 1), pte_make(va_to_mfn(page), PTE_TABLE)), -XEN_EINVAL);
	expect_eq(mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(page), 0), -XEN_EINVAL);
	expect_eq(mmuext(MMUEXT_NEW_USER_BASEPTR, va_to_mfn(page), 0), -XEN_EINVAL);
	*(volatile uint64_t *)page = 1;
	page_free(page);
}

TEST(a_frame_is_a_table_of_one_level)
{
	uint64_t *l1 = leaf_table(VA);

	for (unsigned level = 2; level <= 4; level++) {
		expect_eq(mmuext(MMUEXT_PIN_L1_TABLE + level - 1, va_to_mfn(l1), 0), -XEN_EINVAL);
		expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, level) + 3),
					 pte_make(va_to_mfn(l1), PTE_TABLE)), level == 2 ? 0 : -XEN_EINVAL);
	}
	expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 2) + 3), 0), 0);
	expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 3) + 3), pte_make(va_to_mfn(image_start), PTE_TABLE | PTE_PS)),
		  -XEN_EINVAL);
	expect_eq(flush(), 0);
}

TEST(the_hole_is_not_the_guests)
{
	for (unsigned slot = 256; slot < 272; slot++) {
		uint64_t was = root_va()[slot];

		expect_eq(mmu_update_one(mach(root_va() + slot), 0), -XEN_EINVAL);
		expect_eq(mmu_update_one(mach(root_va() + slot), pte_make(va_to_mfn(root_va()), PTE_TABLE & ~PTE_W)),
			  -XEN_EINVAL);
		expect_eq(root_va()[slot] & ~PTE_A, was & ~PTE_A);
	}
}

TEST(writes_by_frame_number)
{
	uint64_t *l1 = leaf_table(VA), mfn = va_to_mfn(l1), before = l1[7];
	struct vcpu_register_vcpu_info reg = { .mfn = mfn, .offset = 64 };

	expect(mmuext(MMUEXT_CLEAR_PAGE, mfn, 0) < 0, "a table was cleared");
	expect(mmuext(MMUEXT_COPY_PAGE, mfn, va_to_mfn(image_start)) < 0, "a table was copied over");
	expect(hcall2(update_descriptor, mfn << 12 | 7 * 8, 0) < 0, "a descriptor was stored in a table");
	expect(hcall3(vcpu_op, VCPUOP_register_vcpu_info, 0, PTR(&reg)) < 0, "vcpu_info lies in a table");
	expect_eq(l1[7], before);
	/* through a mapping: it is read-only */
	expect(hcall2(xen_version, XENVER_extraversion, PTR(l1)) < 0, "a string was written to a table");
}

/* The way to a table goes, the table becomes plain memory, and what is then written to it must not act as entries. */
static void stale_table(unsigned how)
{
	uint64_t *target = leaf_table(VA), *l1 = leaf_table(VA + 0x200000), *link = pte_of(root_va(), VA + 0x200000, 2);
	uint64_t evil = pte_make(va_to_mfn(target), PTE_DATA), old = *link;
	void *page = page_alloc();

	expect_eq(map_page(root_va(), VA + 0x200000, pte_make(va_to_mfn(page), PTE_DATA)), 0);
	expect_eq(probe_read(VA + 0x200000, NULL), -1);
	expect_eq(mmu_update_one(mach(link), 0), 0);			/* and no flush */
	switch (how) {
	case 0:
		expect_eq(mmu_update_one(mach(l1 + 1), evil), 0);	/* plain memory now: anything goes */
		break;
	case 1:
		expect_eq(mmuext(MMUEXT_CLEAR_PAGE, va_to_mfn(l1), 0), 0);
		break;
	case 2:
		page_protect(l1, PTE_DATA);
		l1[1] = evil;
		page_protect(l1, PTE_RO_DATA);
		break;
	}
	expect_eq(probe_write(VA + 0x201000, EVIL), 14);
	expect_eq(probe_write(VA + 0x200000, EVIL), 14);
	/* linked again: checked again */
	if (how == 1) {
		expect_eq(mmu_update_one(mach(link), old), 0);
		expect_eq(probe_write(VA + 0x200000, EVIL), 14);
		expect_eq(mmu_update_one(mach(link), 0), 0);
	} else {
		expect_eq(mmu_update_one(mach(link), old), -XEN_EINVAL);
	}
	expect(target[0] != EVIL && target[1] != EVIL && *(uint64_t *)page != EVIL, "a stale entry let a write through");
	expect_eq(mmuext(MMUEXT_CLEAR_PAGE, va_to_mfn(l1), 0), 0);
	expect_eq(flush(), 0);
	table_free(l1);
	page_free(page);
}

TEST(stale_table_updated)
{
	stale_table(0);
}

TEST(stale_table_cleared)
{
	stale_table(1);
}

TEST(stale_table_written)
{
	stale_table(2);
}

/* A page loses its last writable mapping, without a flush, and becomes a table: the processor may still know the mapping. */
TEST(stale_writable_mapping)
{
	for (unsigned i = 0; i < 20 && !test_failed(); i++) {
		uint64_t *page = page_alloc(), mfn = va_to_mfn(page);
		uint64_t evil = pte_make(va_to_mfn(root_va()), PTE_DATA);

		expect_eq(map_page(root_va(), VA, pte_make(mfn, PTE_DATA)), 0);
		((volatile uint64_t *)VA)[5] = 0;
		page_protect(page, PTE_RO_DATA);
		expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 1)), pte_make(mfn, PTE_RO_DATA)), 0);
		expect_eq(mmuext(MMUEXT_PIN_L1_TABLE, mfn, 0), 0);
		probe_write(VA + 40, evil);		/* emulated and refused: a fault; never a plain store */
		expect_eq(page[5], 0);
		expect_eq(mmuext(MMUEXT_UNPIN_TABLE, mfn, 0), 0);
		expect_eq(mmu_update_one(mach(pte_of(root_va(), VA, 1)), 0), 0);
		expect_eq(flush(), 0);
		table_free(page);
	}
}

/* In one multicall the root is replaced, given up and overwritten, while the processor is still on it. */
TEST(root_gone_before_it_is_left)
{
	static struct mmuext_op op[3];
	static struct multicall_entry m[3];
	uint64_t *first = root_va(), *second = root_clone(), *third = root_clone();

	expect_eq(mmuext(MMUEXT_PIN_L4_TABLE, va_to_mfn(second), 0), 0);
	expect_eq(mmuext(MMUEXT_NEW_BASEPTR, va_to_mfn(second), 0), 0);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(second), 0), 0);
	op[0] = (struct mmuext_op){ .cmd = MMUEXT_NEW_BASEPTR, .arg1.mfn = va_to_mfn(third) };
	op[1] = (struct mmuext_op){ .cmd = MMUEXT_NEW_BASEPTR, .arg1.mfn = va_to_mfn(first) };
	op[2] = (struct mmuext_op){ .cmd = MMUEXT_CLEAR_PAGE, .arg1.mfn = va_to_mfn(second) };
	for (unsigned i = 0; i < 3; i++)
		m[i] = (struct multicall_entry){ .op = __HYPERVISOR_mmuext_op, .args = { PTR(&op[i]), 1, 0, DOMID_SELF } };
	expect_eq(hcall2(multicall, PTR(m), 3), 0);
	expect_eq(m[0].result, 0);
	expect_eq(m[1].result, 0);
	expect((long)m[2].result < 0, "the root in CR3 was cleared");
	/* by now it is an ordinary page */
	expect_eq(mmuext(MMUEXT_CLEAR_PAGE, va_to_mfn(second), 0), 0);
	expect_eq(second[256 + 3], 0);
	table_free(second);
	table_free(third);
}

TEST(maps_of_ram_are_read_only)
{
	uint64_t *l1 = leaf_table(VA), pa = mach(l1);

	expect_eq(probe_write(POOL_VA + pa, 0), 14);
	expect_eq(probe_read(POOL_VA + pa, NULL), 14);		/* ring 0's */
	expect_eq(probe_write(RAM_MAP_VA + pa, 0), 14);
	if (!shim_there())
		return;
	expect_eq(probe_read(RAM_MAP_VA + pa, NULL), -1);
	/* what the shim logs is not believed here */
	for (unsigned i = 0; i < SHIM_RING; i++)
		((volatile uint64_t *)SHIM_RING_VA)[i] = (pa & ~4095ul) | (i & 511) << 3 | i % 6;
	SHIM_DATA->head += SHIM_RING;
	hcall2(xen_version, XENVER_extraversion, 0);
	expect_eq(mmuext(MMUEXT_UNPIN_TABLE, va_to_mfn(l1), 0), -XEN_EINVAL);
}

TEST(self_map_is_read_only)
{
	uint64_t *entry = root_va() + 301, mfn = va_to_mfn(root_va());

	expect_eq(mmu_update_one(mach(entry), pte_make(mfn, PTE_TABLE)), -XEN_EINVAL);
	expect_eq(mmu_update_one(mach(entry), pte_make(mfn, PTE_TABLE & ~PTE_W)), 0);
	expect_eq(mmu_update_one(mach(entry), 0), 0);
	expect_eq(flush(), 0);
}

/* ---- emulated stores -------------------------------------------------------------------------------------------------------- */

#define ARITH	0x8c5ul		/* OF SF ZF PF CF; AF is undefined after logic */

struct outcome {
	uint64_t memory, rax, rcx, flags;
};

/* `insn` with (%rdi), %rax and %rcx, on `p`. */
#define OUTCOME(name, insn) \
	static struct outcome name(volatile uint64_t *p, uint64_t rax, uint64_t rcx) \
	{ \
		struct outcome o; \
		uint64_t flags; \
\
		seen_clear(); \
		asm volatile("pushq $0x246\n\tpopfq\n\t" PROBED(insn) "\tpushfq\n\tpopq %0" \
			     : "=&r"(flags), "+a"(rax), "+c"(rcx) : "D"(p) : "memory", "cc"); \
		o = (struct outcome){ *p, rax, rcx, flags & ARITH }; \
		return o; \
	}
OUTCOME(do_movb, "movb %%cl, 3(%%rdi)")
OUTCOME(do_movw_imm, "movw $0x1234, 2(%%rdi)")
OUTCOME(do_movl, "movl %%ecx, 4(%%rdi)")
OUTCOME(do_movb_high, "movb %%ch, 5(%%rdi)")
OUTCOME(do_movq_imm, "movq $-2, (%%rdi)")
OUTCOME(do_movnti, "movnti %%rcx, (%%rdi)")
OUTCOME(do_andb, "lock andb $0xfd, 1(%%rdi)")
OUTCOME(do_orq, "lock orq %%rcx, (%%rdi)")
OUTCOME(do_xorl, "xorl %%ecx, (%%rdi)")
OUTCOME(do_addq, "addq %%rcx, (%%rdi)")
OUTCOME(do_subw, "subw %%cx, 4(%%rdi)")
OUTCOME(do_xchgb, "xchgb %%ch, 2(%%rdi)")
OUTCOME(do_xchgq, "xchgq %%rcx, (%%rdi)")
OUTCOME(do_xaddq, "lock xaddq %%rcx, (%%rdi)")
OUTCOME(do_cmpxchgq, "lock cmpxchgq %%rcx, (%%rdi)")
OUTCOME(do_cmpxchgl, "lock cmpxchgl %%ecx, 4(%%rdi)")
OUTCOME(do_btsq_imm, "lock btsq $61, (%%rdi)")
OUTCOME(do_btrl, "lock btrl %%ecx, (%%rdi)")
OUTCOME(do_btcq, "btcq %%rcx, (%%rdi)")

TEST(emulated_stores_are_exact)
{
	static const struct {
		const char *name;
		struct outcome (*fn)(volatile uint64_t *, uint64_t, uint64_t);
		uint64_t rcx_mask;	/* bit numbers stay inside the entry */
	} ops[] = {
		{ "movb", do_movb, ~0ul }, { "movw imm", do_movw_imm, ~0ul }, { "movl", do_movl, ~0ul },
		{ "movb high", do_movb_high, ~0ul }, { "movq imm", do_movq_imm, ~0ul }, { "movnti", do_movnti, ~1ul },
		{ "andb", do_andb, ~0ul }, { "orq", do_orq, ~1ul }, { "xorl", do_xorl, ~1ul }, { "addq", do_addq, ~1ul },
		{ "subw", do_subw, ~0ul }, { "xchgb", do_xchgb, ~0ul }, { "xchgq", do_xchgq, ~1ul }, { "xaddq", do_xaddq, ~1ul },
		{ "cmpxchgq", do_cmpxchgq, ~1ul }, { "cmpxchgl", do_cmpxchgl, ~0ul }, { "btsq imm", do_btsq_imm, ~0ul },
		{ "btrl", do_btrl, 31 }, { "btcq", do_btcq, 62 },
	};
	uint64_t *l1 = leaf_table(VA), *plain = page_alloc(), seed = option_number("seed", 3) | 1;

	for (unsigned round = 0; round < 20 && !test_failed(); round++) {
		for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
			/* absent entries: any other bit may be set */
			uint64_t start = random64(&seed) & ~1ul, rcx = random64(&seed) & ops[i].rcx_mask;
			uint64_t rax = round & 1 ? start : random64(&seed);
			struct outcome want, got;

			if (ops[i].fn == do_cmpxchgl && round & 1)
				rax = start >> 32;
			if (ops[i].fn == do_btcq)
				rcx |= 2;
			plain[9] = start;
			want = ops[i].fn(plain + 9, rax, rcx);
			expect_eq(mmu_update_one(mach(l1 + 9), start), 0);
			got = ops[i].fn(l1 + 9, rax, rcx);
			expect(seen.vector == -1, "%s: trap %d", ops[i].name, seen.vector);
			expect(want.memory == got.memory, "%s of %lx, rcx %lx: %lx, not %lx", ops[i].name, start, rcx, got.memory,
			       want.memory);
			expect(want.rax == got.rax && want.rcx == got.rcx && want.flags == got.flags,
			       "%s of %lx: rax %lx %lx rcx %lx %lx flags %lx %lx", ops[i].name, start, got.rax, want.rax, got.rcx,
			       want.rcx, got.flags, want.flags);
		}
	}
	expect_eq(mmu_update_one(mach(l1 + 9), 0), 0);
	page_free(plain);
}

TEST(stores_across_entries_are_refused)
{
	uint64_t *l1 = leaf_table(VA);

	probe("movq %1, (%0)", :: "r"((char *)(l1 + 9) + 4), "r"(0ul) : "memory");
	expect_trap(14, PF_P | PF_W);
	probe("movdqu %%xmm0, (%0)", :: "r"(l1 + 8) : "memory");
	expect_eq(seen.vector, 14);
	expect_eq(l1[9], 0);
}

/* Locked stores go through; each is checked as a whole. */
TEST(half_an_entry_at_a_time)
{
	uint64_t *l1 = leaf_table(VA), pte = pte_make(va_to_mfn(pte_of(root_va(), VA, 4)), PTE_DATA);

	/* the address first, without P; then the flags that would make it a writable mapping of the root */
	probe("movl %1, 4(%0)", :: "r"(l1 + 9), "r"((uint32_t)(pte >> 32)) : "memory");
	expect_eq(seen.vector, -1);
	probe("movl %1, (%0)", :: "r"(l1 + 9), "r"((uint32_t)pte & ~1u) : "memory");
	expect_eq(seen.vector, -1);
	probe("lock btsq $0, (%0)", :: "r"(l1 + 9) : "memory", "cc");
	expect_trap(14, PF_P | PF_W);
	expect_eq(l1[9] & PTE_P, 0);
	expect_eq(mmu_update_one(mach(l1 + 9), 0), 0);
}
