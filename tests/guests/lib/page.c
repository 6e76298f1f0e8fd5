/*
 * page.c - the page pool and page tables the way Xen wants them: read-only, written by hypercall, roots pinned.
 *
 * The pool lies in the kernel image, so that it is mapped at virt_base + pa from the start, tables included.
 */
#include "lib/guest.h"

static uint8_t pool[PAGE_POOL][4096] __attribute__((aligned(4096)));
static uint16_t freed[PAGE_POOL];
static unsigned nr_freed, nr_used;
static uint64_t *running_root;

static uint64_t boot_end_pfn(void)
{
	return ((start_info->pt_base - PTR(virt_base)) >> 12) + start_info->nr_pt_frames;
}

uint64_t va_to_mfn(const void *va)
{
	const uint64_t *mfn_list = (const uint64_t *)start_info->mfn_list;

	return mfn_list[(PTR(va) - PTR(virt_base)) >> 12];
}

static const uint64_t *m2p(uint64_t *max)
{
	static struct xen_machphys_mapping map;

	if (!map.v_start && hcall2(memory_op, XENMEM_machphys_mapping, PTR(&map))) {
		say("FAIL XENMEM_machphys_mapping");
		guest_end(false);
	}
	*max = map.max_mfn;
	return (const uint64_t *)map.v_start;
}

void *mfn_to_va(uint64_t mfn)
{
	const uint64_t *mfn_list = (const uint64_t *)start_info->mfn_list;
	uint64_t max, pfn;
	const uint64_t *table = m2p(&max);

	if (mfn > max)
		return NULL;
	pfn = table[mfn];
	if (pfn >= boot_end_pfn() || mfn_list[pfn] != mfn)
		return NULL;
	return (void *)(PTR(virt_base) + (pfn << 12));
}

void *page_alloc(void)
{
	uint8_t *page;

	if (nr_freed)
		page = pool[freed[--nr_freed]];
	else if (nr_used < PAGE_POOL)
		page = pool[nr_used++];
	else {
		say("FAIL page pool is empty");
		guest_end(false);
	}
	memset(page, 0, 4096);
	return page;
}

void page_free(void *page)
{
	freed[nr_freed++] = (uint16_t)((PTR(page) - PTR(pool)) >> 12);
}

void page_protect(void *page, uint64_t flags)
{
	long r = update_va(PTR(page), pte_make(va_to_mfn(page), flags), UVMF_INVLPG);

	if (r) {
		say("FAIL remapping a pool page: %ld", r);
		guest_end(false);
	}
}

uint64_t *table_alloc(void)
{
	void *page = page_alloc();

	page_protect(page, PTE_RO_DATA);
	return page;
}

void table_free(uint64_t *table)
{
	page_protect(table, PTE_DATA);
	page_free(table);
}

uint64_t *root_va(void)
{
	if (!running_root)
		running_root = (uint64_t *)start_info->pt_base;
	return running_root;
}

uint64_t *pte_of(uint64_t *root, uint64_t va, unsigned level)
{
	uint64_t *table = root;

	for (unsigned l = 4; ; l--) {
		uint64_t *pte = &table[va >> (12 + 9 * (l - 1)) & 511];

		if (l == level)
			return pte;
		if (!(*pte & PTE_P) || (l < 4 && *pte & PTE_PS))
			return NULL;
		table = mfn_to_va((*pte & PTE_ADDR) >> 12);
		if (!table)
			return NULL;
	}
}

int map_page(uint64_t *root, uint64_t va, uint64_t pte)
{
	for (unsigned l = 4; l > 1; l--) {
		uint64_t *entry = pte_of(root, va, l);
		uint64_t *table;
		long r;

		if (!entry)
			return -XEN_ENOENT;
		if (*entry & PTE_P)
			continue;
		table = table_alloc();
		r = mmu_update_one(mach(entry), pte_make(va_to_mfn(table), PTE_TABLE));
		if (r)
			return (int)r;
	}
	return (int)mmu_update_one(mach(pte_of(root, va, 1)), pte);
}

uint64_t *root_clone(void)
{
	uint64_t *from = root_va(), *root = page_alloc();

	for (unsigned i = 0; i < 512; i++)
		if (i < 256 || i > 271)
			root[i] = from[i];
	page_protect(root, PTE_RO_DATA);
	return root;
}
