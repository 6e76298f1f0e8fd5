/*
 * monitor.c - what the VMM keeps inside the VM: gate page, IDT, a stack, TSS and GDT per vCPU, the M2P, and the page
 * tables that show them in the hole (layout.h has the map).
 */
#include <errno.h>
#include <string.h>

#include "vmm/vm.h"

extern const char gate_plain[], gate_kernel[], gate_user[];

#define TABLE_GB	(1ull << 30)
#define FRAMES_2M	512ull

static uint64_t align_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint64_t m2p_frames(const struct vm *vm)
{
	return align_up(vm->nr_gfns * 8, 4096) / 4096;
}

static uint64_t pin_frames(const struct vm *vm)
{
	return align_up(vm->ram_frames, 4096) / 4096;
}

static unsigned gate_l1_tables(const struct vm *vm)
{
	return (16 + vm->nr_vcpus * VCPU_AREA_PAGES + 511) / 512;
}

static unsigned l2_tables(uint64_t frames)
{
	return (frames * 4096 + TABLE_GB - 1) / TABLE_GB;
}

/* What the processor walks: our tables or those in guest RAM. */
static uint64_t walked_frames(const struct vm *vm)
{
	return vm->paging->guest_tables ? vm->ram_frames : vm->pool_pages;
}

void monitor_layout(struct vm *vm)
{
	uint64_t at = vm->ram_frames;

	vm->mon_first = (mfn_t){ at };
	vm->nr_gfns = vm->ram_frames + 1;	/* shared_info is the last frame the guest may name */
	at += MON_VCPU_AREAS + vm->nr_vcpus * VCPU_AREA_PAGES;
	vm->mon_tables = (mfn_t){ at };
	/* idle root; L3 and L2 of the M2P; L3, L2 and L1s of the gate, twice; L3 and L2s of what is walked; the pins' L2; the shim's
	 * three per vCPU; L3 and L2s of RAM */
	vm->nr_mon_tables = 1 + 2 + 2 * (2 + gate_l1_tables(vm)) + 1 + l2_tables(walked_frames(vm)) + 1 + 3 * vm->nr_vcpus + 1 +
			    l2_tables(vm->ram_frames);
	at += vm->nr_mon_tables;
	at = align_up(at, FRAMES_2M);		/* both are mapped with 2 MiB entries */
	vm->m2p = (mfn_t){ at };
	at = align_up(at + m2p_frames(vm), FRAMES_2M);
	vm->pins = (mfn_t){ at };
	at += align_up(pin_frames(vm), FRAMES_2M);
	vm->pool = (mfn_t){ at };
	at += align_up(vm->pool_pages, FRAMES_2M);
	vm->mon_frames = at - vm->mon_first.n;
	vm->exit_frame = (mfn_t){ at };
}

static void *mon_hva(const struct vm *vm, mfn_t mfn)
{
	return (char *)vm->mon + (mfn.n - vm->mon_first.n) * 4096;
}

/* One more table from the monitor's own; its address bits. */
static uint64_t *new_table(struct vm *vm, unsigned *used, uint64_t *pa)
{
	mfn_t m = { vm->mon_tables.n + (*used)++ };

	*pa = m.n << 12;
	return mon_hva(vm, m);
}

#define LINK (MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A)

/* An L3 whose first entries lead to `nr_l2` L2 tables, filled with 2 MiB leaves over `frames` from `first`. */
static uint64_t map_2m(struct vm *vm, unsigned *used, mfn_t first, uint64_t frames, uint64_t bits)
{
	uint64_t l3_pa, l2_pa, *l3 = new_table(vm, used, &l3_pa), *l2 = NULL;

	for (uint64_t i = 0; i * FRAMES_2M < frames; i++) {
		if (i % 512 == 0) {
			l2 = new_table(vm, used, &l2_pa);
			l3[i / 512] = l2_pa | LINK;
		}
		l2[i % 512] = (first.n + i * FRAMES_2M) << 12 | bits | MMU_PTE_PS;
	}
	return l3_pa | LINK;
}

static uint64_t map_gate(struct vm *vm, unsigned *used, unsigned gate)
{
	uint64_t l3_pa, l2_pa, l1_pa, *l3 = new_table(vm, used, &l3_pa), *l2 = new_table(vm, used, &l2_pa), *l1 = NULL;
	unsigned pages = 16 + vm->nr_vcpus * VCPU_AREA_PAGES;

	l3[0] = l2_pa | LINK;
	for (unsigned i = 0; i < pages; i++) {
		unsigned in_area = (i - 16) % VCPU_AREA_PAGES;
		uint64_t bits = MMU_PTE_P | MMU_PTE_A | MMU_PTE_D, mfn = vm->mon_first.n;

		if (i % 512 == 0) {
			l1 = new_table(vm, used, &l1_pa);
			l2[i / 512] = l1_pa | LINK;
		}
		if (i == 0)
			mfn += gate;
		else if (i == 1)
			mfn += MON_IDT, bits |= MMU_PTE_NX;
		else if (i >= 16 && in_area != 0)
			mfn += MON_VCPU_AREAS + (i - 16), bits |= MMU_PTE_NX | MMU_PTE_W;
		else
			continue;		/* guard pages */
		l1[i % 512] = mfn << 12 | bits;
	}
	return l3_pa | LINK;
}

/* The L2 table over the pins: they need less than the GiB that one can map (RAM_MAP_MAX). */
static uint64_t map_pins(struct vm *vm, unsigned *used)
{
	uint64_t pa, *l2 = new_table(vm, used, &pa);

	for (uint64_t i = 0; i * FRAMES_2M < pin_frames(vm); i++)
		l2[i] = (vm->pins.n + i * FRAMES_2M) << 12 | MMU_PTE_P | MMU_PTE_W | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D |
			MMU_PTE_NX | MMU_PTE_PS;
	return pa | LINK;
}

/* The shim as the guest kernel sees it on one vCPU: the code, the pins, and memory of its own. */
static uint64_t map_shim(struct vm *vm, unsigned *used, unsigned vcpu, uint64_t pins)
{
	const uint64_t ro = MMU_PTE_P | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D, rw = ro | MMU_PTE_W | MMU_PTE_NX;
	uint64_t l3_pa, l2_pa, l1_pa, *l3 = new_table(vm, used, &l3_pa), *l2 = new_table(vm, used, &l2_pa);
	uint64_t *l1 = new_table(vm, used, &l1_pa), area = vm->mon_first.n + MON_VCPU_AREAS +
							     vcpu * VCPU_AREA_PAGES;

	vm->shim_l1[vcpu] = l1;
	l3[0] = l2_pa | LINK;
	l3[(SHIM_PINS_VA - SHIM_VA) / TABLE_GB] = pins;
	l2[0] = l1_pa | LINK;
	for (unsigned i = 0; i < SHIM_CODE_PAGES; i++)
		l1[i] = (vm->mon_first.n + MON_SHIM_CODE + i) << 12 | ro;
	l1[(SHIM_DATA_VA - SHIM_VA) / 4096] = (area + AREA_SHIM_DATA) << 12 | rw;
	l1[(SHIM_INFO_VA - SHIM_VA) / 4096] = (vm->mon_first.n + MON_SHARED_INFO) << 12 | rw;
	l1[(SHIM_SHARED_VA - SHIM_VA) / 4096] = (vm->mon_first.n + MON_SHIM_SHARED) << 12 | rw;
	for (unsigned i = 0; i < SHIM_RING_PAGES; i++)
		l1[(SHIM_RING_VA - SHIM_VA) / 4096 + i] = (area + AREA_SHIM_RING + i) << 12 | rw;
	for (unsigned i = 0; i < 2; i++) {
		l1[(SHIM_STACK_VA - SHIM_VA) / 4096 + i] = (area + AREA_SHIM_STACK + i) << 12 | rw;
		l1[(SHIM_FRAME_VA - SHIM_VA) / 4096 + i] = (area + AREA_STACK + i) << 12 | ro | MMU_PTE_NX;
	}
	l1[(SHIM_EXIT_VA - SHIM_VA) / 4096] = vm->exit_frame.n << 12 | rw;
	return l3_pa | LINK;
}

uint64_t monitor_map_info(struct vcpu *v, gfn_t gfn)
{
	__atomic_store_n(&v->vm->shim_l1[v->id][(SHIM_VCPU_INFO_VA - SHIM_VA) / 4096],
			 gfn.n << 12 | MMU_PTE_P | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D | MMU_PTE_W | MMU_PTE_NX, __ATOMIC_SEQ_CST);
	return SHIM_VCPU_INFO_VA;
}

static void build_idle_root(struct vm *vm, unsigned *used, const uint64_t hole[16])
{
	uint64_t pa, *l4 = new_table(vm, used, &pa);

	for (unsigned i = 0; i < 16; i++)
		l4[HOLE_SLOT_FIRST + i] = hole[i];
	vm->idle_root = (mfn_t){ pa >> 12 };
}

static void build_idt(struct vm *vm)
{
	uint64_t *idt = mon_hva(vm, (mfn_t){ vm->mon_first.n + MON_IDT });

	for (unsigned v = 0; v < 256; v++) {
		uint64_t to = GATE_VA + (v == 3 ? GATE_BP : v == 14 ? GATE_PF : v * GATE_STUB_SIZE);
		/* INT3 and INTO need DPL 3, int 0x80 has it for speed. Every other `int N` becomes #GP and is looked up
		 * in the guest's trap table there: with DPL 3 here it could forge a frame with an error code. */
		uint64_t dpl = v == 3 || v == 4 || v == 0x80 ? 3 : 0;

		/* 64-bit interrupt gate, SDM vol. 3A, 6.14.1 */
		idt[v * 2] = (to & 0xffff) | (uint64_t)GATE_CS << 16 | (0x8e00ull | dpl << 13) << 32 |
			     (to >> 16 & 0xffff) << 48;
		idt[v * 2 + 1] = to >> 32;
	}
}

void monitor_build_gates(struct vm *vm)
{
	char *kernel = mon_hva(vm, (mfn_t){ vm->mon_first.n + MON_GATE });
	char *user = mon_hva(vm, (mfn_t){ vm->mon_first.n + MON_GATE_USER });
	uint32_t rip = shim_to_user_rip();

	memcpy(kernel, vm->gates ? gate_kernel : gate_plain, GATE_SIZE);
	memcpy(user, vm->gates ? gate_user : gate_plain, GATE_SIZE);
	if (vm->gates)
		memcpy(kernel + GATE_BP_RIP, &rip, sizeof rip);
}

void monitor_build(struct vm *vm, uint64_t hole[2][16])
{
	const bool guest = vm->paging->guest_tables;
	unsigned used = 0;
	uint64_t *m2p = mon_hva(vm, vm->m2p);

	monitor_build_gates(vm);
	build_idt(vm);
	for (uint64_t i = 0; i < m2p_frames(vm) * 512; i++)
		m2p[i] = i < vm->nr_gfns ? i : ~0ull;

	memset(hole, 0, sizeof(uint64_t[2][16]));
	hole[MMU_KERNEL][HOLE_SLOT_M2P - HOLE_SLOT_FIRST] =
		map_2m(vm, &used, vm->m2p, m2p_frames(vm), MMU_PTE_P | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D | MMU_PTE_NX);
	hole[MMU_KERNEL][HOLE_SLOT_GATE - HOLE_SLOT_FIRST] = map_gate(vm, &used, MON_GATE);
	hole[MMU_USER][HOLE_SLOT_GATE - HOLE_SLOT_FIRST] = map_gate(vm, &used, MON_GATE_USER);
	hole[MMU_KERNEL][HOLE_SLOT_POOL - HOLE_SLOT_FIRST] =
		map_2m(vm, &used, guest ? (mfn_t){ 0 } : vm->pool, walked_frames(vm),
		       MMU_PTE_P | MMU_PTE_W | MMU_PTE_A | MMU_PTE_D | MMU_PTE_NX);
	hole[MMU_USER][HOLE_SLOT_POOL - HOLE_SLOT_FIRST] = hole[MMU_KERNEL][HOLE_SLOT_POOL - HOLE_SLOT_FIRST];
	build_idle_root(vm, &used, hole[MMU_USER]);
	if (shim_on(vm)) {
		uint64_t pins = map_pins(vm, &used);

		for (unsigned i = 0; i < vm->nr_vcpus; i++)
			vm->shim_entry[i] = map_shim(vm, &used, i, pins);
		hole[MMU_KERNEL][HOLE_SLOT_SHIM - HOLE_SLOT_FIRST] = vm->shim_entry[0];
		hole[MMU_KERNEL][HOLE_SLOT_RAM - HOLE_SLOT_FIRST] =
			map_2m(vm, &used, (mfn_t){ 0 }, vm->ram_frames, MMU_PTE_P | (guest ? 0 : MMU_PTE_W) | MMU_PTE_U |
			       MMU_PTE_A | MMU_PTE_D | MMU_PTE_NX);
	}
	vm->shared = vm->mon;			/* MON_SHARED_INFO */
}

uint64_t *monitor_gdt(struct vcpu *v)
{
	return (uint64_t *)(v->area + AREA_GDT * 4096);
}

uint64_t *monitor_ldt(struct vcpu *v)
{
	return (uint64_t *)(v->area + AREA_LDT * 4096);
}

/* A system descriptor of 16 bytes (SDM vol. 3A, 7.2.3). */
static void system_descriptor(uint64_t *at, uint64_t base, uint32_t limit, uint64_t type)
{
	at[0] = (limit & 0xffff) | (base & 0xffffff) << 16 | (type | 0x80) << 40 | (uint64_t)(limit >> 16 & 0xf) << 48 |
		(base >> 24 & 0xff) << 56;
	at[1] = base >> 32;
}

void monitor_set_ldt(struct vcpu *v, unsigned entries)
{
	system_descriptor(&monitor_gdt(v)[GATE_LDT / 8], VCPU_AREA_VA(v->id) + AREA_LDT * 4096,
			  entries ? entries * 8 - 1 : 0, 2);
}

void monitor_init_vcpu(struct vcpu *v)
{
	uint64_t va = VCPU_AREA_VA(v->id), *gdt;
	struct {
		uint32_t reserved0;
		uint64_t rsp[3], reserved1, ist[7], reserved2;
		uint16_t reserved3, iomap;
	} __attribute__((packed)) *tss;

	v->area = (char *)v->vm->mon + (MON_VCPU_AREAS + v->id * VCPU_AREA_PAGES) * 4096ull;
	memset(v->area, 0, VCPU_AREA_PAGES * 4096);

	tss = (void *)(v->area + AREA_TSS * 4096);
	tss->rsp[0] = va + (AREA_STACK + 1) * 4096;
	tss->iomap = 0x68;	/* beyond the limit: ring-3 port I/O is a #GP, not an exit of KVM's own */

	gdt = monitor_gdt(v);
	gdt[FLAT_RING3_CS32 / 8] = 0x00cffb000000ffff;
	gdt[FLAT_RING3_DS32 / 8] = 0x00cff3000000ffff;
	gdt[FLAT_RING3_CS64 / 8] = 0x00affb000000ffff;
	gdt[GATE_CS / 8] = 0x00af9b000000ffff;
	gdt[GATE_SS / 8] = 0x00cf93000000ffff;
	system_descriptor(&gdt[GATE_TSS / 8], va + AREA_TSS * 4096, 0x67, 0xb);
	monitor_set_ldt(v, 0);
}

/* The rules of Xen's check_descriptor() (xen/arch/x86/pv/descriptor-tables.c) for 64-bit guests: nothing that could lead
 * out of ring 3. The accessed bit is set so that the processor never writes to our copy. */
bool monitor_descriptor_ok(uint64_t *desc)
{
	uint64_t d = *desc;

	if (!(d >> 47 & 1))			/* not present: harmless */
		return true;
	if (!(d >> 44 & 1))			/* system segments and gates */
		return false;
	d |= 3ull << 45;			/* DPL 3: the guest kernel runs there too */
	d |= 1ull << 40;			/* accessed */
	if ((d >> 43 & 1) && (d >> 53 & 1) && (d >> 54 & 1))	/* code with L and D set is reserved */
		return false;
	*desc = d;
	return true;
}
