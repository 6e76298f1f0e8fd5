/*
 * build.c - the domain builder: a PV domain in RAM as its kernel expects to find it.
 *
 * Start-of-day layout of xen/include/public/xen.h, packed at page granularity from the kernel's own address on: kernel,
 * initrd, P2M list, start_info, store and console pages, boot page tables, boot stack; at least 512 KiB of slack, and the
 * whole rounded up to 4 MiB. P2M and M2P are the identity.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/image.h"
#include "vmm/symbols.h"
#include "vmm/vm.h"

#define PT_BITS		(MMU_PTE_P | MMU_PTE_U | MMU_PTE_A | MMU_PTE_D)
#define SLACK		(512ull << 10)
#define STACK_BYTES	4096ull

struct layout {				/* physical = offset from virt_base, in bytes */
	uint64_t base;			/* virt_base */
	uint64_t initrd, initrd_bytes;
	uint64_t p2m, start_info, store, console, tables, nr_tables, stack;
	uint64_t end;			/* what the boot tables map */
	unsigned nr_at[MMU_LEVELS + 1];
};

static uint64_t page_up(uint64_t n)
{
	return (n + 4095) & ~4095ull;
}

/* Tables of `level` that [from, to) of the address space needs. */
static uint64_t tables_at(uint64_t from, uint64_t to, unsigned level)
{
	unsigned shift = 12 + 9 * level;

	return ((to - 1) >> shift) - (from >> shift) + 1;
}

/* Fits the tables, which map themselves, and the stack behind l->tables. False: a 4 MiB boundary lies between them. */
static bool place_tables(struct layout *l, uint64_t round)
{
	for (l->nr_tables = 4;; l->nr_tables++) {
		uint64_t need = 1, tables_end;

		l->stack = l->tables + l->nr_tables * 4096;
		l->end = ((l->base + l->stack + STACK_BYTES + SLACK + round - 1) & ~(round - 1)) - l->base;
		l->nr_at[4] = 1;
		for (unsigned level = 1; level <= 3; level++)
			need += l->nr_at[level] = tables_at(l->base, l->base + l->end, level);
		tables_end = (l->base + l->stack + round - 1) & ~(round - 1);
		if (need <= l->nr_tables)
			return tables_end == l->base + l->end || l->nr_tables * 4096 + STACK_BYTES + SLACK > round;
	}
}

static void place(struct layout *l, const struct image *img, uint64_t initrd_bytes, uint64_t ram_frames)
{
	uint64_t at = page_up(img->pa_end), round = 4ull << 20;

	l->base = img->xen.virt_base;
	l->initrd = at;
	l->initrd_bytes = initrd_bytes;
	l->p2m = at += page_up(initrd_bytes);
	l->start_info = at += page_up(ram_frames * 8);
	l->store = at += 4096;
	l->console = at += 4096;
	l->tables = at += 4096;
	while (!place_tables(l, round)) {
		/* Linux unmaps the boot region up to the 4 MiB boundary behind the tables: the stack and the slack have to
		 * end there as well, or writable and executable pages remain. */
		l->tables = ((l->base + l->tables + l->nr_tables * 4096 + round - 1) & ~(round - 1)) - l->base;
	}
}

static uint64_t *table(struct vm *vm, const struct layout *l, uint64_t n)
{
	return (uint64_t *)((char *)vm->ram + l->tables + n * 4096);
}

/* Tables lie in order of level: L4, L3s, L2s, L1s. They show themselves read-only. */
static void build_tables(struct vm *vm, const struct layout *l)
{
	uint64_t first[MMU_LEVELS + 1];

	first[4] = 0;
	for (unsigned level = 3; level >= 1; level--)
		first[level] = first[level + 1] + l->nr_at[level + 1];
	for (uint64_t pa = 0; pa < l->end; pa += 4096) {
		uint64_t va = l->base + pa, bits = PT_BITS;

		for (unsigned level = 4; level > 1; level--) {
			unsigned above = 12 + 9 * level, below = above - 9;
			uint64_t t = (va >> above) - (l->base >> above), child = (va >> below) - (l->base >> below);

			if (level == 4)
				t = 0;
			table(vm, l, first[level] + t)[va >> below & 511] =
				(l->tables + (first[level - 1] + child) * 4096) | PT_BITS | MMU_PTE_W;
		}
		if (pa < l->tables || pa >= l->tables + l->nr_tables * 4096)
			bits |= MMU_PTE_W;
		table(vm, l, first[1] + (va >> 21) - (l->base >> 21))[va >> 12 & 511] = pa | bits;
	}
}

/* For kernels that still have a hypercall page: 32 bytes per call (Xen's hypercall_page_initialise_ring3_kernel). */
static void fill_hypercall_page(const struct vm *vm, uint8_t *page)
{
	memset(page, 0xcc, 4096);
	for (unsigned i = 0; i < 128; i++) {
		uint8_t *p = page + i * 32;

		if (shim_on(vm)) {
			shim_fill_hypercall(p, i, i == __HYPERVISOR_iret);
			continue;
		}
		if (i == __HYPERVISOR_iret) {
			static const uint8_t iret[] = { 0x51, 0x41, 0x53, 0x50, 0xb8, __HYPERVISOR_iret, 0, 0, 0, 0x0f, 0x05 };

			memcpy(p, iret, sizeof iret);	/* push rcx; push r11; push rax; mov eax,23; syscall */
			continue;
		}
		memcpy(p, (uint8_t[]){ 0x51, 0x41, 0x53, 0xb8, i, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3 }, 14);
	}
}

static int load_segments(struct vm *vm, const struct image *img, struct image_error *err)
{
	uint64_t bytes = vm->ram_frames << 12;

	for (unsigned i = 0; i < img->nr_segments; i++) {
		const struct image_segment *s = &img->segments[i];

		if (s->pa > bytes || s->memsz > bytes - s->pa) {
			snprintf(err->text, sizeof err->text, "the kernel needs memory up to %llu MiB and the guest has %llu: "
				 "give it more with --memory", (unsigned long long)((s->pa + s->memsz) >> 20) + 1,
				 (unsigned long long)bytes >> 20);
			return -ENOSPC;
		}
		memcpy((char *)vm->ram + s->pa, s->data, s->filesz);
		memset((char *)vm->ram + s->pa + s->filesz, 0, s->memsz - s->filesz);
	}
	if (image_has(img, XEN_ELFNOTE_HYPERCALL_PAGE)) {
		uint64_t pa = img->xen.hypercall_page - img->xen.virt_base;

		if (pa & 4095 || pa < img->pa_start || pa + 4096 > img->pa_end) {
			snprintf(err->text, sizeof err->text, "the kernel's hypercall page lies outside the kernel: it is damaged");
			return -EBADMSG;
		}
		fill_hypercall_page(vm, (uint8_t *)vm->ram + pa);
	}
	return 0;
}

static int write_start_info(struct vm *vm, const struct layout *l, struct image_error *err)
{
	const struct vmm_config *c = vm->config;
	struct start_info *si = (struct start_info *)((char *)vm->ram + l->start_info);
	const char *user = c->cmdline ? c->cmdline : "", *added = c->fast_cmdline ? vmm_cmdline_additions(c->vcpus) : "";
	int n;

	memset(si, 0, 4096);
	strcpy(si->magic, "xen-3.0-x86_64");
	si->nr_pages = vm->ram_frames;
	si->shared_info = (vm->mon_first.n + MON_SHARED_INFO) << 12;
	if (c->initdomain) {
		si->flags = SIF_PRIVILEGED | SIF_INITDOMAIN;
	} else {
		si->store_mfn = l->store >> 12;		/* no xenstore behind it: its event channel is 0 */
		si->console.domU.mfn = l->console >> 12;
		si->console.domU.evtchn = vm->console_port;
	}
	si->pt_base = l->base + l->tables;
	si->nr_pt_frames = l->nr_tables;
	si->mfn_list = l->base + l->p2m;
	if (l->initrd_bytes) {
		si->mod_start = l->base + l->initrd;
		si->mod_len = l->initrd_bytes;
	}
	si->first_p2m_pfn = l->p2m >> 12;
	si->nr_p2m_frames = page_up(vm->ram_frames * 8) >> 12;
	/* The user's words last: they win where the kernel takes the last of several. */
	n = snprintf((char *)si->cmd_line, MAX_GUEST_CMDLINE, "%s%s%s", added, *added && *user ? " " : "", user);
	if (n >= MAX_GUEST_CMDLINE) {
		snprintf(err->text, sizeof err->text, "the command line has %d bytes, the Xen ABI takes %d: shorten it, or leave "
			 "out umbra's own words with --no-fast-cmdline", n, MAX_GUEST_CMDLINE - 1);
		return -E2BIG;
	}
	return 0;
}

static int start_vcpu(struct vm *vm, const struct layout *l, const struct image *img)
{
	struct vcpu *v = &vm->vcpus[0];
	gfn_t l4 = { l->tables >> 12 };
	int r;

	r = vm->paging->pin(v, l4, 4);
	if (!r)
		r = xen_new_baseptr(v, l4);
	if (r)
		return r;
	v->mode = MMU_KERNEL;
	v->cr3 = v->root[MMU_KERNEL].n << 12;
	v->kernel_ss = FLAT_KERNEL_SS;
	v->kernel_sp = l->base + l->stack + STACK_BYTES;
	memset(&v->regs, 0, sizeof v->regs);
	v->regs.r.rip = img->virt_entry;
	v->regs.r.rsi = l->base + l->start_info;
	v->regs.r.rsp = l->base + l->stack + STACK_BYTES;
	v->regs.r.rflags = 0x202;
	v->regs.cs = FLAT_KERNEL_CS;
	v->regs.ss = FLAT_KERNEL_SS;
	v->initialised = true;
	atomic_store(&v->up, true);
	atomic_load(&v->info)->evtchn_upcall_mask = 1;
	return vcpu_reset(v);
}

static void load_symbols(struct vm *vm, const struct image *img)
{
	struct image_error err;

	if (vm->symbols)
		return;
	if (!vm->config->symbols)
		symbols_from_image(img, &vm->symbols);	/* best effort: a bzImage has none */
	else if (symbols_load(vm->config->symbols, IMAGE_SIZE_LIMIT, &vm->symbols, &err))
		fprintf(stderr, "umbra: %s; going on without\n", err.text);
	if (!vm->symbols && vm->config->profile)
		symbols_from_kallsyms(img->elf, img->elf_size, &vm->symbols);
}

void domain_late_symbols(struct vm *vm)
{
	struct image_error err;
	struct image *img;

	if (vm->symbols || image_open(vm->config->kernel, IMAGE_SIZE_LIMIT, &img, &err))
		return;
	symbols_from_kallsyms(img->elf, img->elf_size, &vm->symbols);
	image_close(img);
}

int domain_build(struct vm *vm)
{
	const struct vmm_config *c = vm->config;
	struct image *img = NULL;
	struct image_error err = { "" };
	struct layout l = { 0 };
	uint8_t *initrd = NULL;
	size_t initrd_bytes = 0;
	int r;

	r = image_open(c->kernel, IMAGE_SIZE_LIMIT, &img, &err);
	if (!r)
		r = image_check_pv(img, xen_features(vm), &err);
	if (!r && c->initrd)
		r = image_read_file(c->initrd, IMAGE_SIZE_LIMIT, &initrd, &initrd_bytes, &err);
	if (r)
		goto out;
	if (c->verbose)
		fprintf(stderr, "umbra: %s: %s%s%s, entry %#llx\n", img->name, img->how, *img->version ? ", " : "", img->version,
			(unsigned long long)img->virt_entry);
	place(&l, img, initrd_bytes, vm->ram_frames);
	if (l.end > vm->ram_frames << 12) {
		snprintf(err.text, sizeof err.text, "kernel and initrd need %llu MiB to start and the guest has %llu: give it more "
			 "with --memory", (unsigned long long)l.end >> 20, (unsigned long long)vm->ram_frames >> 8);
		r = -ENOSPC;
		goto out;
	}
	r = load_segments(vm, img, &err);
	if (r)
		goto out;
	if (initrd_bytes)
		memcpy((char *)vm->ram + l.initrd, initrd, initrd_bytes);
	for (uint64_t i = 0; i < vm->ram_frames; i++)
		((uint64_t *)((char *)vm->ram + l.p2m))[i] = i;
	shim_patch_kernel(vm, img);
	if (c->verbose && shim_on(vm))
		fprintf(stderr, "umbra: %u hypercall sites lead to the shim\n", vm->shim_sites);
	build_tables(vm, &l);
	r = write_start_info(vm, &l, &err);
	if (r)
		goto out;
	if (!c->initdomain)
		console_set_ring(vm, (char *)vm->ram + l.console);
	load_symbols(vm, img);
	if (!c->initdomain)
		r = vm->paging->keep_writable(&vm->vcpus[0], (gfn_t){ l.console >> 12 });
	if (!r)
		r = start_vcpu(vm, &l, img);
	if (r)
		snprintf(err.text, sizeof err.text, "the first vCPU cannot be set up: %s", strerror(-r));
out:
	if (r)
		fprintf(stderr, "umbra: %s\n", *err.text ? err.text : strerror(-r));
	free(initrd);
	image_close(img);
	return r;
}
