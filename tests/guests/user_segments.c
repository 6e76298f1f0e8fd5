/*
 * user_segments.c - the guest's own descriptors: GDT frames, LDT, update_descriptor, and what has to be refused.
 */
#include "lib/guest.h"
#include "lib/user_code.h"

#define DESC_DATA(base)	(0x00c0f3000000fffful | ((uint64_t)(base) & 0xffffff) << 16 | ((uint64_t)(base) >> 24) << 56)
#define DESC_DPL0	0x00c093000000fffful	/* data, DPL 0 */
#define DESC_CODE64	0x00affb000000fffful
#define DESC_TSS	0x0000890000000067ul	/* available 64-bit TSS */
#define DESC_LDT	0x000082000000fffful
#define DESC_INT_GATE	0x00008e0000100000ul
#define DESC_CALL_GATE	0x0000ec00e0080000ul	/* to a selector of the hypervisor's, DPL 3 */

/* An index of ours that is behind the host's GDT: a PVM host loads selectors of its own natively. */
#define OWN	40

#define SELECTOR(index, table)	((uint16_t)((index) << 3 | (table) << 2 | 3))

static long load_fs(uint16_t selector)
{
	probe("movw %w0, %%fs", :: "r"((uint32_t)selector));
	return seen.vector;
}

static uint32_t fs_dword(void)
{
	uint32_t v;

	asm volatile("movl %%fs:0, %0" : "=r"(v));
	return v;
}

/* user_data is mapped below 4 GiB in the kernel root, too: a descriptor's base reaches it */
static void prepare(void)
{
	user_init();
	*(uint32_t *)user_data = 0xda7a;
	*(uint32_t *)(user_data + 256) = 0xda7b;
}

TEST(gdt_of_our_own)
{
	uint64_t *gdt = page_alloc(), frame = va_to_mfn(gdt);

	prepare();
	gdt[OWN] = DESC_DATA(USER_DATA);
	gdt[OWN + 1] = DESC_CODE64;
	page_protect(gdt, PTE_RO_DATA);
	expect_eq(hcall2(set_gdt, PTR(&frame), 512), 0);
	expect_eq(load_fs(SELECTOR(OWN, 0)), -1);
	expect_eq(fs_dword(), 0xda7a);
	/* beyond the entries that were given, and code that cannot be read from fs is still loadable */
	expect_eq(load_fs(SELECTOR(600, 0)), 13);
	expect_eq(seen.error, SELECTOR(600, 0) & ~3);
	expect_eq(load_fs(SELECTOR(OWN + 1, 0)), -1);
	expect_eq(load_fs(0), -1);

	/* a live update takes effect with the next load */
	expect_eq(hcall2(update_descriptor, mach(&gdt[OWN]), DESC_DATA(USER_DATA + 256)), 0);
	expect_eq(gdt[OWN] & ~(1ul << 40), DESC_DATA(USER_DATA + 256) & ~(1ul << 40));
	expect_eq(load_fs(SELECTOR(OWN, 0)), -1);
	expect_eq(fs_dword(), 0xda7b);
	expect_eq(load_fs(0), -1);
}

TEST(gdt_is_checked)
{
	static const uint64_t bad[] = { DESC_TSS, DESC_LDT, DESC_INT_GATE, DESC_CALL_GATE };
	uint64_t *gdt = page_alloc(), frame = va_to_mfn(gdt), frames[16];

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		page_protect(gdt, PTE_DATA);
		gdt[3] = bad[i];
		page_protect(gdt, PTE_RO_DATA);
		expect(hcall2(set_gdt, PTR(&frame), 512) == -XEN_EINVAL, "descriptor %lx accepted", bad[i]);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(frames); i++)
		frames[i] = frame;
	expect_eq(hcall2(set_gdt, PTR(frames), FIRST_RESERVED_GDT_ENTRY + 1), -XEN_EINVAL);
	expect_eq(hcall2(set_gdt, PTR(frames), 0xffffffff), -XEN_EINVAL);
	frames[0] = 0xfffffffffful;
	expect_eq(hcall2(set_gdt, PTR(frames), 1), -XEN_EINVAL);
	expect_eq(hcall2(set_gdt, 0, 0), 0);
	expect_eq(load_fs(SELECTOR(OWN, 0)), 13);
}

TEST(flat_selectors_stay)
{
	uint64_t *gdt = page_alloc(), frame = va_to_mfn(gdt);
	struct regs r;

	user_init();
	page_protect(gdt, PTE_RO_DATA);
	expect_eq(hcall2(set_gdt, PTR(&frame), 512), 0);
	expect_eq(user_call(&r, user_exit, 0, 0), GATE_EXIT);
	expect_eq(load_fs(FLAT_USER_DS32), -1);
	expect_eq(load_fs(0), -1);
	expect_eq(hcall2(set_gdt, 0, 0), 0);
}

TEST(update_descriptor_is_checked)
{
	static const uint64_t bad[] = { DESC_TSS, DESC_LDT, DESC_INT_GATE, DESC_CALL_GATE };
	uint64_t *page = page_alloc();

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		expect_eq(hcall2(update_descriptor, mach(&page[8]), bad[i]), -XEN_EINVAL);
		expect_eq(page[8], 0);
	}
	expect_eq(hcall2(update_descriptor, mach(page) + 4, DESC_DATA(0)), -XEN_EINVAL);
	expect(hcall2(update_descriptor, 0xfffffffffful << 12, DESC_DATA(0)) == -XEN_EINVAL, "a frame that is not ours");
	/* not present: harmless, whatever it is */
	expect_eq(hcall2(update_descriptor, mach(&page[9]), DESC_TSS & ~(1ul << 47)), 0);
	/* DPL 0 becomes DPL 3, for that is where the guest kernel runs */
	expect_eq(hcall2(update_descriptor, mach(&page[10]), DESC_DPL0), 0);
	expect_eq(page[10] >> 45 & 3, 3);
	page_free(page);
}

TEST(ldt)
{
	uint64_t *ldt = page_alloc();
	struct regs r;

	prepare();
	ldt[1] = DESC_DATA(USER_DATA);
	page_protect(ldt, PTE_RO_DATA);
	expect_eq(mmuext(MMUEXT_SET_LDT, PTR(ldt), 2), 0);
	expect_eq(load_fs(SELECTOR(1, 1)), -1);
	expect_eq(fs_dword(), 0xda7a);
	expect_eq(load_fs(SELECTOR(2, 1)), 13);
	expect_eq(seen.error, SELECTOR(2, 1) & ~3);
	expect_eq(load_fs(0), -1);
	expect_eq(user_call(&r, user_load_fs, SELECTOR(1, 1), 0), GATE_EXIT);
	expect_eq(r.rax, 0xda7a);
	expect_eq(load_fs(0), -1);

	expect_eq(hcall2(update_descriptor, mach(&ldt[1]), DESC_DATA(USER_DATA + 256)), 0);
	expect_eq(user_call(&r, user_load_fs, SELECTOR(1, 1), 0), GATE_EXIT);
	expect_eq(r.rax, 0xda7b);
	expect_eq(load_fs(0), -1);
	expect_eq(mmuext(MMUEXT_SET_LDT, 0, 0), 0);
	expect_eq(load_fs(SELECTOR(1, 1)), 13);
	expect_eq(user_call(&r, user_load_fs, SELECTOR(1, 1), 0), 13);
	expect_eq(r.error, SELECTOR(1, 1) & ~3);
}

TEST(ldt_is_checked)
{
	static const uint64_t bad[] = { DESC_TSS, DESC_LDT, DESC_INT_GATE, DESC_CALL_GATE };
	uint64_t *ldt;

	expect_eq(mmuext(MMUEXT_SET_LDT, PTR(image_start) + 8, 1), -XEN_EINVAL);
	expect_eq(mmuext(MMUEXT_SET_LDT, PTR(image_start), 8193), -XEN_EINVAL);
	/* whenever it is that a bad descriptor is found, none can be loaded */
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		ldt = page_alloc();
		ldt[1] = bad[i];
		page_protect(ldt, PTE_RO_DATA);
		if (!mmuext(MMUEXT_SET_LDT, PTR(ldt), 8))
			expect(load_fs(SELECTOR(1, 1)) > 0, "descriptor %lx can be loaded", bad[i]);
		mmuext(MMUEXT_SET_LDT, 0, 0);
	}
}
