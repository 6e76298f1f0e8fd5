/*
 * hello.c - what the domain builder promises (xen/xen.h, "startofday"), and both consoles.
 *
 * Command line: pages=N initrd=BYTES initdomain=0|1 say what to expect.
 */
#include "lib/guest.h"

static uint64_t boot_pages_end(void)
{
	return start_info->pt_base + start_info->nr_pt_frames * PAGE;
}

TEST(entry_state)
{
	expect(start_rsp > boot_pages_end() && start_rsp <= boot_pages_end() + PAGE,
	       "rsp %lx is not in the page behind the page tables, which end at %lx", start_rsp, boot_pages_end());
	expect(!(start_rflags & RFLAGS_DF), "DF is set");
	expect(PTR(start_info) >= PTR(image_end) && PTR(start_info) < start_info->pt_base, "start_info at %lx",
	       PTR(start_info));
}

TEST(magic)
{
	expect(!strncmp(start_info->magic, "xen-3.0-x86_64", 14), "magic is %s", start_info->magic);
}

TEST(nr_pages)
{
	uint64_t want = option_number("pages", start_info->nr_pages);

	expect_eq(start_info->nr_pages, want);
	expect(start_info->nr_pages * PAGE >= boot_pages_end() - PTR(virt_base), "boot region lies outside of RAM");
}

TEST(bss_is_zero)
{
	static uint8_t big[65536];

	for (unsigned i = 0; i < sizeof(big); i++)
		if (*(volatile uint8_t *)&big[i]) {
			test_fail("byte %u is %x", i, big[i]);
			return;
		}
}

TEST(command_line)
{
	const char *s = option("hello");

	expect(s && !strcmp(s, "world"), "hello=world is not on the command line: %s",
	       (const char *)start_info->cmd_line);
	expect(strlen((const char *)start_info->cmd_line) < MAX_GUEST_CMDLINE, "unterminated");
}

TEST(initrd)
{
	uint64_t want = option_number("initrd", 0);
	const uint8_t *initrd = (const uint8_t *)start_info->mod_start;

	expect_eq(start_info->mod_len, want);
	if (!want) {
		expect_eq(start_info->mod_start, 0);
		return;
	}
	expect(!(start_info->flags & SIF_MOD_START_PFN), "mod_start is a frame number: nobody asked for that");
	expect(!(start_info->mod_start & 4095), "mod_start %lx is not at a page", (uint64_t)start_info->mod_start);
	expect(start_info->mod_start >= PTR(image_end), "mod_start %lx", (uint64_t)start_info->mod_start);
	for (uint64_t i = 0; i < want && !test_failed(); i++)
		expect(initrd[i] == (uint8_t)(i * 7 + i / 251), "byte %lu is %x", i, initrd[i]);
}

TEST(flags)
{
	bool initdomain = option_number("initdomain", 0);

	expect_eq(!!(start_info->flags & SIF_INITDOMAIN), initdomain);
	expect_eq(!!(start_info->flags & SIF_PRIVILEGED), initdomain);
}

TEST(boot_map)
{
	uint64_t end = (boot_pages_end() + PAGE + (512 << 10) + 0x3fffff) & ~0x3ffffful;

	for (uint64_t va = PTR(image_start); va < end; va += PAGE) {
		uint64_t *pte = pte_of(root_va(), va, 1);

		if (!pte || !(*pte & PTE_P)) {
			test_fail("%lx is not mapped; the boot region ends at %lx", va, end);
			return;
		}
		if (va == PTR(shared_info))		/* remapped by guest_main() */
			continue;
		expect((*pte & PTE_ADDR) >> 12 == va_to_mfn((void *)va), "%lx maps mfn %lx, not %lx", va,
		       (*pte & PTE_ADDR) >> 12, va_to_mfn((void *)va));
		if (va >= start_info->pt_base && va < boot_pages_end())
			expect(!(*pte & PTE_W), "page table at %lx is mapped writable", va);
		else
			expect(*pte & PTE_W, "%lx is read-only", va);
	}
}

TEST(mfn_list)
{
	const uint64_t *list = (const uint64_t *)start_info->mfn_list;
	struct xen_machphys_mapping map;

	expect_eq(hcall2(memory_op, XENMEM_machphys_mapping, PTR(&map)), 0);
	for (uint64_t pfn = 0; pfn < start_info->nr_pages && !test_failed(); pfn++) {
		if (on_umbra())
			expect(list[pfn] == pfn, "pfn %lu is mfn %lu: not the identity", pfn, list[pfn]);
		expect(list[pfn] <= map.max_mfn, "pfn %lu is mfn %lx, but max_mfn is %lx", pfn, list[pfn],
		       (uint64_t)map.max_mfn);
		if (!test_failed())
			expect(((uint64_t *)map.v_start)[list[pfn]] == pfn, "M2P[%lx] is %lx, not %lx", list[pfn],
			       ((uint64_t *)map.v_start)[list[pfn]], pfn);
	}
}

TEST(m2p_is_read_only)
{
	struct xen_machphys_mapping map;

	expect_eq(hcall2(memory_op, XENMEM_machphys_mapping, PTR(&map)), 0);
	expect_eq(probe_write(map.v_start, 1), 14);
	expect(seen.error & PF_P && seen.error & PF_W, "error code %lx", seen.error);
}

TEST(all_memory_is_usable)
{
	const uint64_t *list = (const uint64_t *)start_info->mfn_list;
	uint64_t step = start_info->nr_pages / 64 | 1;

	for (uint64_t pfn = start_info->nr_pages - 1; pfn > (boot_pages_end() + 0x800000 - PTR(virt_base)) >> 12; pfn -= step) {
		volatile uint64_t *p = (volatile uint64_t *)TEST_VA;

		expect_eq(map_page(root_va(), TEST_VA, pte_make(list[pfn], PTE_DATA)), 0);
		mmuext(MMUEXT_INVLPG_LOCAL, TEST_VA, 0);
		if (on_umbra())
			expect(!p[0] && !p[511], "pfn %lx does not begin as zeroes", pfn);
		p[0] = pfn;
		p[511] = ~pfn;
		expect(p[0] == pfn && p[511] == ~pfn, "pfn %lx does not keep its contents", pfn);
		if (pfn < step || test_failed())
			break;
	}
	map_page(root_va(), TEST_VA, 0);
	mmuext(MMUEXT_INVLPG_LOCAL, TEST_VA, 0);
}

TEST(memory_map)
{
	static struct e820entry { uint64_t addr, size; uint32_t type; } __attribute__((packed)) map[64];
	struct xen_memory_map arg = { .nr_entries = ARRAY_SIZE(map) };
	uint64_t ram = 0;

	set_xen_guest_handle(arg.buffer, map);
	expect_eq(hcall2(memory_op, on_umbra() ? XENMEM_memory_map : XENMEM_machine_memory_map, PTR(&arg)), 0);
	for (unsigned i = 0; i < arg.nr_entries; i++)
		if (map[i].type == 1)
			ram += map[i].size;
	if (on_umbra())
		expect_eq(ram, start_info->nr_pages * PAGE);
	expect(ram, "no RAM in the map");
}

TEST(xen_version)
{
	struct xen_feature_info features = { .submap_idx = 0 };
	char extra[XEN_EXTRAVERSION_LEN] = "";
	long v = hcall2(xen_version, XENVER_version, 0);

	expect(v >> 16 == 4, "version is %lx", v);
	expect_eq(hcall2(xen_version, XENVER_extraversion, PTR(extra)), 0);
	expect(extra[0], "empty extraversion");
	expect_eq(hcall2(xen_version, XENVER_get_features, PTR(&features)), 0);
	expect(features.submap >> XENFEAT_mmu_pt_update_preserve_ad & 1, "features %x lack preserve_ad", features.submap);
	expect_eq(features.submap >> XENFEAT_dom0 & 1, !!(start_info->flags & SIF_INITDOMAIN));
	expect_eq(hcall2(xen_version, XENVER_pagesize, 0), 4096);
}

TEST(start_shared_info)
{
	expect_eq(this_vcpu()->evtchn_upcall_mask, 1);
	expect(this_vcpu()->time.tsc_to_system_mul && !(this_vcpu()->time.version & 1), "no time in vcpu_info");
	expect(shared_info->wc_sec > 1500000000 || shared_info->wc_sec_hi, "wallclock says %u s", shared_info->wc_sec);
}

TEST(console_io)
{
	char line[] = "console_io says hello\n";

	expect_eq(hcall3(console_io, CONSOLEIO_write, sizeof(line) - 1, PTR(line)), 0);
	expect_eq(hcall3(console_io, CONSOLEIO_write, 0, PTR(line)), 0);
	expect_eq(hcall3(console_io, CONSOLEIO_write, 8, TEST_VA), -XEN_EFAULT);
	expect_eq(hcall3(console_io, 77, 8, PTR(line)), -XEN_ENOSYS);
}

TEST(console_ring)
{
	static const char line[] = "console ring says hello\n";
	struct evtchn_send send;
	volatile struct xencons_interface *ring;
	uint64_t deadline;

	if (start_info->flags & SIF_INITDOMAIN) {
		test_skip("the initial domain has no console ring");
		return;
	}
	expect(start_info->console.domU.mfn && start_info->console.domU.evtchn, "no console in start_info");
	ring = mfn_to_va(start_info->console.domU.mfn);
	if (!ring) {
		test_fail("the console page %lx is not in the boot region", (uint64_t)start_info->console.domU.mfn);
		return;
	}
	/* more than the ring holds: the other side has to drain it */
	for (unsigned n = 0; n < 200; n++) {
		for (const char *s = line; *s; s++) {
			deadline = system_time() + 2000000000;
			while (ring->out_prod - ring->out_cons >= sizeof(ring->out)) {
				send.port = start_info->console.domU.evtchn;
				expect_eq(hcall2(event_channel_op, EVTCHNOP_send, PTR(&send)), 0);
				hcall2(sched_op, SCHEDOP_yield, 0);
				if (system_time() > deadline || test_failed()) {
					test_fail("nobody drains the ring");
					return;
				}
			}
			ring->out[ring->out_prod % sizeof(ring->out)] = *s;
			asm volatile("" ::: "memory");
			ring->out_prod++;
		}
	}
	send.port = start_info->console.domU.evtchn;
	expect_eq(hcall2(event_channel_op, EVTCHNOP_send, PTR(&send)), 0);
}
