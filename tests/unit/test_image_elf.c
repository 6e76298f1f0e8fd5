/*
 * test_image_elf.c - kernel images as ELF files: segments, hostile tables, Xen notes, __xen_guest, and what Xen would
 * start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <errno.h>
#include <cmocka.h>
#include <xen/features.h>

#include "tests/unit/image_check.h"

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static void test_elf_segments(void **state)
{
	struct blob b = make_linux(5000);
	struct image *img = must_open(&b);

	assert_string_equal(img->how, "ELF");
	assert_int_equal(img->elf_size, b.n);
	assert_int_equal(img->nr_segments, 2);
	assert_int_equal(img->segments[0].pa, 0x1000000);
	assert_int_equal(img->segments[0].va, 0xffffffff81000000);
	assert_int_equal(img->segments[0].memsz, 5000);
	assert_int_equal(img->segments[1].filesz, 100);
	assert_int_equal(img->segments[1].memsz, 0x5000);
	for (unsigned s = 0; s < 2; s++)
		for (uint64_t i = 0; i < img->segments[s].filesz; i++)
			assert_int_equal(img->segments[s].data[i], make_byte(img->segments[s].pa + i));
	assert_int_equal(img->pa_start, 0x1000000);
	assert_int_equal(img->pa_end, 0x2005000);
	assert_int_equal(img->virt_kstart, 0xffffffff81000000);
	assert_int_equal(img->virt_kend, 0xffffffff82005000);
	assert_int_equal(img->virt_entry, 0xffffffff81000040);
	assert_int_equal(image_check_pv(img, 0, NULL), 0);
	image_close(img);
	blob_free(&b);
}

/* ---- hostile ELF tables ------------------------------------------------------------------------------------------ */

#define EH(field)	offsetof(Elf64_Ehdr, field), sizeof(((Elf64_Ehdr *)0)->field)
#define PH(i, field)	sizeof(Elf64_Ehdr) + (i) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field), \
			sizeof(((Elf64_Phdr *)0)->field)

static void test_hostile_tables(void **state)
{
	static const struct {
		size_t at, bytes;
		uint64_t value;
		int error;
		const char *says;
	} changes[] = {
		{ EH(e_phoff), UINT64_MAX, EBADMSG, "program headers" },
		{ EH(e_phoff), UINT64_MAX - 100, EBADMSG, "program headers" },
		{ EH(e_phnum), 0xffff, EBADMSG, "program headers" },
		{ EH(e_phnum), 0, ENOEXEC, "without program headers" },
		{ EH(e_phentsize), 0, EBADMSG, "header is damaged" },
		{ EH(e_phentsize), 57, EBADMSG, "header is damaged" },
		{ EH(e_shentsize), 1, EBADMSG, "header is damaged" },
		{ EH(e_shoff), UINT64_MAX - 63, EBADMSG, "section headers" },
		{ EH(e_shnum), 0xffff, EBADMSG, "section headers" },
		{ PH(0, p_offset), UINT64_MAX - 1, EBADMSG, "segment 0" },
		{ PH(0, p_offset), 1ull << 40, EBADMSG, "segment 0" },
		{ PH(0, p_filesz), UINT64_MAX, EBADMSG, "segment 0" },
		{ PH(0, p_memsz), 1, EBADMSG, "more bytes in the file" },
		{ PH(0, p_memsz), UINT64_MAX, EBADMSG, "wraps" },
		{ PH(1, p_memsz), 0xffffffff00000000, EBADMSG, "wraps" },
		{ PH(0, p_paddr), 0xffffffffffffff00, EBADMSG, "wraps" },
		{ PH(1, p_paddr), 1ull << 63, EBADMSG, "wraps" },
		{ PH(2, p_offset), 1ull << 62, EBADMSG, "note segment 2" },
		{ PH(2, p_filesz), UINT64_MAX, EBADMSG, "note segment 2" },
	};

	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
		struct blob elf = make_linux(100);

		memcpy(elf.p + changes[i].at, &changes[i].value, changes[i].bytes);
		must_fail(&elf, changes[i].error, changes[i].says);
		blob_free(&elf);
	}
}

static void test_segment_choice(void **state)
{
	static const struct make_segment s[] = { { 1 << 20, 1 << 20, 10, 10 }, { 2 << 20, 2 << 20, 10, 10 }, { 0 } };
	struct make_segment many[IMAGE_MAX_SEGMENTS + 2] = { 0 };
	struct blob b = make_elf(&(struct make_elf){ .segments = s });
	struct image *img;
	uint32_t none = 0, note = PT_GNU_STACK;

	memcpy(b.p + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_flags), &none, 4);	/* no permission: not loaded */
	img = must_open(&b);
	assert_int_equal(img->nr_segments, 1);
	assert_int_equal(img->pa_start, 2 << 20);
	image_close(img);
	memcpy(b.p + sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, p_type), &note, 4);
	must_fail(&b, ENOEXEC, "without loadable segments");
	blob_free(&b);

	b = make_elf(&(struct make_elf){ .segments = s });
	memset(b.p + sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, p_filesz), 0, 16);	/* and p_memsz: nothing in it */
	img = must_open(&b);
	assert_int_equal(img->nr_segments, 1);
	assert_int_equal(img->pa_start, 2 << 20);
	image_close(img);
	blob_free(&b);

	for (unsigned i = 0; i < IMAGE_MAX_SEGMENTS; i++)
		many[i] = (struct make_segment){ i << 12, i << 12, 8, 8 };
	b = make_elf(&(struct make_elf){ .segments = many });
	img = must_open(&b);
	assert_int_equal(img->nr_segments, IMAGE_MAX_SEGMENTS);
	image_close(img);
	blob_free(&b);
	many[IMAGE_MAX_SEGMENTS] = many[0];
	b = make_elf(&(struct make_elf){ .segments = many });
	must_fail(&b, ENOTSUP, "loadable segments");
	blob_free(&b);
}

/* 60000 note segments that each cover the same 1 MB of notes: linear work, not 60000 times a megabyte. */
static void test_overlapping_notes(void **state)
{
	const unsigned nr = 60000, size = 1 << 20;
	struct blob b = { 0 };
	Elf64_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT }, .e_type = ET_EXEC,
			  .e_machine = EM_X86_64, .e_phoff = sizeof(eh), .e_phnum = nr,
			  .e_phentsize = sizeof(Elf64_Phdr) };
	Elf64_Phdr ph = { .p_type = PT_NOTE, .p_offset = sizeof(eh) + nr * sizeof(ph), .p_filesz = size };

	blob_add(&b, &eh, sizeof(eh));
	blob_add(&b, NULL, nr * sizeof(ph));
	for (unsigned i = 0; i < nr; i++)
		memcpy(b.p + sizeof(eh) + i * sizeof(ph), &ph, sizeof(ph));
	blob_add(&b, NULL, size);	/* empty notes of 12 bytes */
	must_fail(&b, ENOEXEC, "without loadable segments");
	blob_free(&b);
}

/* ---- notes ------------------------------------------------------------------------------------------------------- */

static const struct make_segment one_segment[] = { { 0, 0x100000, 64, 0x1000 }, { 0 } };

static void check_all_notes(bool sections)
{
	static const uint64_t l1[] = { 0x11, 0x10, 0x22, 0x20 };
	static const struct make_note notes[] = {
		{ "GNU", XEN_ELFNOTE_ENTRY, NULL, 0xbad, 8 },
		{ NULL, XEN_ELFNOTE_INFO, "INFO=x", 0, 0 },
		{ NULL, XEN_ELFNOTE_ENTRY, NULL, 0x40100010, 4 },
		{ NULL, XEN_ELFNOTE_HYPERCALL_PAGE, NULL, 0x40100800, 4 },
		{ NULL, XEN_ELFNOTE_VIRT_BASE, NULL, 0x40000000, 8 },
		{ NULL, XEN_ELFNOTE_PADDR_OFFSET, NULL, 0x80000, 8 },
		{ NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 },
		{ "Xen2", XEN_ELFNOTE_XEN_VERSION, "xen-9.9", 0, 0 },
		{ NULL, XEN_ELFNOTE_GUEST_OS, "Mini\033OS", 0, 0 },
		{ NULL, XEN_ELFNOTE_GUEST_VERSION, "12345 not terminated", 0, 5 },
		{ NULL, XEN_ELFNOTE_LOADER, "generic", 0, 0 },
		{ NULL, XEN_ELFNOTE_PAE_MODE, "yes", 0, 0 },
		{ NULL, XEN_ELFNOTE_FEATURES, "!writable_page_tables|pae_pgdir_above_4gb||dom0", 0, 0 },
		{ NULL, XEN_ELFNOTE_SUPPORTED_FEATURES, NULL, 1 << XENFEAT_mmu_pt_update_preserve_ad, 4 },
		{ NULL, XEN_ELFNOTE_BSD_SYMTAB, "yes", 0, 0 },
		{ NULL, XEN_ELFNOTE_HV_START_LOW, NULL, 0xffff800000000000, 8 },
		{ NULL, XEN_ELFNOTE_L1_MFN_VALID, l1, 0, sizeof(l1) },
		{ NULL, XEN_ELFNOTE_SUSPEND_CANCEL, NULL, 1, 4 },
		{ NULL, XEN_ELFNOTE_INIT_P2M, NULL, 0x8000000000, 8 },
		{ NULL, XEN_ELFNOTE_MOD_START_PFN, NULL, 1, 8 },
		{ NULL, XEN_ELFNOTE_PHYS32_ENTRY, NULL, 0x100020, 4 },
		{ NULL, 0x7777, "unknown", 0, 0 },
		{ 0 }
	};
	struct blob b = make_elf(&(struct make_elf){ .entry = 0x1234, .segments = one_segment, .notes = notes,
						     .note_sections = sections });
	struct image *img = must_open(&b);
	const struct image_xen *x = &img->xen;

	assert_int_equal(x->source, IMAGE_PV_NOTES);
	assert_int_equal(x->present, (2u << XEN_ELFNOTE_MAX) - 1 - 1);	/* 1 .. XEN_ELFNOTE_MAX */
	assert_int_equal(x->entry, 0x40100010);
	assert_int_equal(x->hypercall_page, 0x40100800);
	assert_int_equal(x->virt_base, 0x40000000);
	assert_int_equal(x->paddr_offset, 0x80000);
	assert_string_equal(x->xen_version, "xen-3.0");
	assert_string_equal(x->guest_os, "Mini?OS");
	assert_string_equal(x->guest_version, "12345");
	assert_string_equal(x->loader, "generic");
	assert_string_equal(x->pae_mode, "yes");
	assert_int_equal(x->features_required, 1 << XENFEAT_writable_page_tables);
	assert_int_equal(x->features_supported, 1 << XENFEAT_writable_page_tables | 1 << XENFEAT_pae_pgdir_above_4gb |
			 1 << XENFEAT_dom0 | 1 << XENFEAT_mmu_pt_update_preserve_ad);
	assert_string_equal(x->unknown_feature, "");
	assert_true(x->bsd_symtab);
	assert_int_equal(x->hv_start_low, 0xffff800000000000);
	assert_int_equal(x->l1_mfn_mask, 0x11);
	assert_int_equal(x->l1_mfn_value, 0x10);
	assert_true(x->suspend_cancel);
	assert_int_equal(x->init_p2m, 0x8000000000);
	assert_true(x->mod_start_pfn);
	assert_int_equal(x->phys32_entry, 0x100020);

	assert_int_equal(img->segments[0].pa, 0x80000);
	assert_int_equal(img->segments[0].va, 0x40080000);
	assert_int_equal(img->virt_kstart, 0x40080000);
	assert_int_equal(img->virt_kend, 0x40081000);
	assert_int_equal(img->virt_entry, 0x40100010);
	image_close(img);
	blob_free(&b);
}

static void test_all_notes(void **state)
{
	check_all_notes(false);
	check_all_notes(true);
}

/* No VIRT_BASE: 0. No ENTRY: e_entry. A kernel in the lower half. */
static void test_note_defaults(void **state)
{
	static const struct make_note notes[] = {
		{ NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 },
		{ NULL, XEN_ELFNOTE_LOADER, "generic", 0, 0 },
		{ 0 }
	};
	struct blob b = make_elf(&(struct make_elf){ .entry = 0x100030, .segments = one_segment, .notes = notes });
	struct image *img = must_open(&b);

	assert_int_equal(img->xen.virt_base, 0);
	assert_int_equal(img->xen.paddr_offset, 0);
	assert_false(image_has(img, XEN_ELFNOTE_VIRT_BASE));
	assert_false(image_has(img, XEN_ELFNOTE_ENTRY));
	assert_false(image_has(img, 32));
	assert_int_equal(img->segments[0].va, 0x100000);
	assert_int_equal(img->virt_entry, 0x100030);
	assert_int_equal(image_check_pv(img, 0, NULL), 0);
	image_close(img);
	blob_free(&b);
}

static void test_bad_notes(void **state)
{
	static const struct make_note bad[] = {
		{ NULL, XEN_ELFNOTE_ENTRY, NULL, 0, 3 },
		{ NULL, XEN_ELFNOTE_VIRT_BASE, "16 bytes are bad", 0, 16 },
		{ NULL, XEN_ELFNOTE_L1_MFN_VALID, NULL, 0, 8 },
		{ NULL, XEN_ELFNOTE_SUPPORTED_FEATURES, NULL, 0, 2 },
	};
	static const uint32_t lengths[] = { 0xffffffff, 0xfffffffd, 0x80000000, 0x10000 };
	struct make_note notes[2] = { 0 };
	struct blob b;
	struct image *img;
	Elf64_Phdr ph;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		notes[0] = bad[i];
		b = make_elf(&(struct make_elf){ .segments = one_segment, .notes = notes });
		must_fail(&b, EBADMSG, "which no such note has");
		blob_free(&b);
	}
	/* A note that claims to be longer than its segment, in either field, is no note. */
	notes[0] = (struct make_note){ NULL, XEN_ELFNOTE_ENTRY, NULL, 1, 8 };
	for (unsigned i = 0; i < 2 * sizeof(lengths) / sizeof(lengths[0]); i++) {
		b = make_elf(&(struct make_elf){ .segments = one_segment, .notes = notes });
		memcpy(&ph, b.p + sizeof(Elf64_Ehdr) + sizeof(ph), sizeof(ph));
		assert_int_equal(ph.p_type, PT_NOTE);
		memcpy(b.p + ph.p_offset + 4 * (i & 1), &lengths[i / 2], 4);
		img = must_open(&b);
		assert_int_equal(img->xen.source, IMAGE_PV_NONE);
		image_close(img);
		blob_free(&b);
	}
}

/* One note at the very end of the file and of its segment: with its last padding, without, and cut. */
static void test_note_at_the_end(void **state)
{
	static const struct make_note notes[] = { { NULL, XEN_ELFNOTE_GUEST_OS, "linux", 0, 5 }, { 0 } };
	const unsigned whole = sizeof(Elf64_Nhdr) + 4 + 8;

	for (unsigned size = 0; size <= whole; size++) {
		struct blob note = { 0 }, b = make_elf(&(struct make_elf){ .segments = one_segment, .notes = notes });
		Elf64_Phdr ph;
		struct image *img;

		make_notes(&note, notes);
		assert_int_equal(note.n, whole);
		memset(b.p + offsetof(Elf64_Ehdr, e_shoff), 0, 8);
		memset(b.p + offsetof(Elf64_Ehdr, e_shnum), 0, 2);
		memcpy(&ph, b.p + sizeof(Elf64_Ehdr) + sizeof(ph), sizeof(ph));
		assert_int_equal(ph.p_type, PT_NOTE);
		ph.p_offset = blob_add(&b, note.p, size);
		ph.p_filesz = size;
		memcpy(b.p + sizeof(Elf64_Ehdr) + sizeof(ph), &ph, sizeof(ph));
		img = must_open(&b);
		if (size >= whole - 3) {	/* 5 bytes of 8 */
			assert_int_equal(img->xen.source, IMAGE_PV_NOTES);
			assert_string_equal(img->xen.guest_os, "linux");
		} else {
			assert_int_equal(img->xen.source, IMAGE_PV_NONE);
		}
		image_close(img);
		blob_free(&note);
		blob_free(&b);
	}
}

/* libelf compares names up to their NUL: the length may count padding, or leave out the NUL. */
static void test_note_name_length(void **state)
{
	static const struct make_note notes[] = { { NULL, XEN_ELFNOTE_VIRT_BASE, NULL, 1 << 20, 8 }, { 0 } };
	static const struct {
		uint32_t namesz;
		enum image_pv source;
	} cases[] = { { 4, IMAGE_PV_NOTES }, { 3, IMAGE_PV_NOTES }, { 1, IMAGE_PV_NOTES }, { 0, IMAGE_PV_NONE } };

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct blob b = make_elf(&(struct make_elf){ .segments = one_segment, .notes = notes });
		struct image *img;
		Elf64_Phdr ph;

		memcpy(&ph, b.p + sizeof(Elf64_Ehdr) + sizeof(ph), sizeof(ph));
		memcpy(b.p + ph.p_offset, &cases[i].namesz, 4);
		img = must_open(&b);
		assert_int_equal(img->xen.source, cases[i].source);
		assert_int_equal(img->xen.virt_base, cases[i].source == IMAGE_PV_NOTES ? 1 << 20 : 0);
		image_close(img);
		blob_free(&b);
	}
}

/* ---- __xen_guest ------------------------------------------------------------------------------------------------- */

static const struct make_segment upper_segment[] = { { 0, 0xffffffff80100000, 64, 0x1000 }, { 0 } };

static void test_guest_section(void **state)
{
	struct blob b = make_elf(&(struct make_elf){
		.entry = 0xffffffff80100010, .segments = upper_segment,
		.guest_section = "GUEST_OS=linux,GUEST_VER=2.6,XEN_VER=xen-3.0,VIRT_BASE=0xffffffff80000000,"
				 "HYPERCALL_PAGE=0x101,FEATURES=writable_page_tables|!pae_pgdir_above_4gb,"
				 "LOADER=generic,PAE=yes[extended-cr3],BSD_SYMTAB,PT_MODE_WRITABLE" });
	struct image *img = must_open(&b);
	const struct image_xen *x = &img->xen;

	assert_int_equal(x->source, IMAGE_PV_SECTION);
	assert_string_equal(x->guest_os, "linux");
	assert_string_equal(x->guest_version, "2.6");
	assert_string_equal(x->xen_version, "xen-3.0");
	assert_string_equal(x->loader, "generic");
	assert_string_equal(x->pae_mode, "yes[extended-cr3]");
	assert_true(x->bsd_symtab);
	assert_int_equal(x->features_required, 1 << XENFEAT_pae_pgdir_above_4gb);
	assert_int_equal(x->features_supported, 1 << XENFEAT_pae_pgdir_above_4gb | 1 << XENFEAT_writable_page_tables);
	assert_int_equal(x->hypercall_page, 0xffffffff80101000);
	assert_false(image_has(img, XEN_ELFNOTE_PADDR_OFFSET));
	assert_int_equal(x->paddr_offset, 0xffffffff80000000);
	assert_int_equal(img->segments[0].pa, 0x100000);
	assert_int_equal(img->segments[0].va, 0xffffffff80100000);
	assert_int_equal(img->virt_entry, 0xffffffff80100010);
	assert_int_equal(image_check_pv(img, 1 << XENFEAT_pae_pgdir_above_4gb, NULL), 0);
	image_close(img);
	blob_free(&b);

	b = make_elf(&(struct make_elf){ .segments = one_segment,
		.guest_section = "XEN_VER=xen-3.0,VIRT_BASE=0x40000000,ELF_PADDR_OFFSET=0,VIRT_ENTRY=1074790400,"
				 "LOADER=generic" });
	img = must_open(&b);
	assert_int_equal(img->segments[0].pa, 0x100000);
	assert_int_equal(img->segments[0].va, 0x40100000);
	assert_int_equal(img->virt_entry, 0x40100000);
	assert_int_equal(image_check_pv(img, 0, NULL), 0);
	image_close(img);
	blob_free(&b);
}

static void test_guest_section_wins_only_without_notes(void **state)
{
	static const struct make_note notes[] = { { NULL, XEN_ELFNOTE_VIRT_BASE, NULL, 0x1000, 8 }, { 0 } };
	struct blob b = make_elf(&(struct make_elf){ .segments = one_segment, .notes = notes,
						     .guest_section = "VIRT_BASE=0x2000" });
	struct image *img = must_open(&b);

	assert_int_equal(img->xen.source, IMAGE_PV_NOTES);
	assert_int_equal(img->xen.virt_base, 0x1000);
	image_close(img);
	blob_free(&b);
}

/* A file of debug information only: the section has a size, but its bytes are elsewhere. */
static void test_guest_section_without_bytes(void **state)
{
	struct blob b = make_elf(&(struct make_elf){ .segments = one_segment, .guest_section = "VIRT_BASE=0x1000" });
	uint32_t nobits = SHT_NOBITS;
	struct image *img;
	Elf64_Ehdr eh;

	memcpy(&eh, b.p, sizeof(eh));
	memcpy(b.p + eh.e_shoff + sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, sh_type), &nobits, sizeof(nobits));
	img = must_open(&b);
	assert_int_equal(img->xen.source, IMAGE_PV_NONE);
	image_close(img);
	blob_free(&b);
}

static void test_bad_guest_section(void **state)
{
	static const char *const bad[] = {
		"VIRT_BASE=", "VIRT_BASE", "VIRT_BASE=0x12zz", "VIRT_BASE=-1", "VIRT_ENTRY=0x11112222333344445",
		"HYPERCALL_PAGE=\033[2J", "ELF_PADDR_OFFSET=0000000000000000000000000000000000000000001",
	};
	static const char *const fine[] = { "", ",,,", "=", "=,=", "X=Y", "LOADER=generic,LOADER", "FEATURES=|!|" };
	struct blob b;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		b = make_elf(&(struct make_elf){ .segments = one_segment, .guest_section = bad[i] });
		must_fail(&b, EBADMSG, "which is no number");
		blob_free(&b);
	}
	for (unsigned i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
		struct image *img;

		b = make_elf(&(struct make_elf){ .segments = one_segment, .guest_section = fine[i] });
		img = must_open(&b);
		assert_int_equal(img->xen.source, IMAGE_PV_SECTION);
		assert_int_equal(image_check_pv(img, ~0u, NULL), -ENOTSUP);
		image_close(img);
		blob_free(&b);
	}
	/* Physical addresses in p_paddr below the default offset. */
	b = make_elf(&(struct make_elf){ .segments = one_segment, .guest_section = "VIRT_BASE=0xffffffff80000000" });
	must_fail(&b, EBADMSG, "PADDR_OFFSET");
	blob_free(&b);
}

/* ---- would Xen start it ------------------------------------------------------------------------------------------ */

#define COMMON \
	{ NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 }, { NULL, XEN_ELFNOTE_LOADER, "generic", 0, 0 }
#define BASE(v)		{ NULL, XEN_ELFNOTE_VIRT_BASE, NULL, v, 8 }
#define ENTRY(v)	{ NULL, XEN_ELFNOTE_ENTRY, NULL, v, 8 }

static void test_check_pv(void **state)
{
	static const struct {
		int error;
		const char *says;
		uint32_t features;
		struct make_note notes[7];
	} cases[] = {
		{ ENOTSUP, "no Xen PV notes: it was built without CONFIG_XEN_PV; Debian's", 0, { { 0 } } },
		{ ENOTSUP, "for PVH but not for PV", 0, { { NULL, XEN_ELFNOTE_PHYS32_ENTRY, NULL, 16, 4 } } },
		{ ENOTSUP, "generic loader", 0, { { NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 },
			ENTRY(0x100000) } },
		{ ENOTSUP, "LOADER 'own', GUEST_OS 'BSD'", 0, { { NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 },
			{ NULL, XEN_ELFNOTE_LOADER, "own", 0, 0 }, { NULL, XEN_ELFNOTE_GUEST_OS, "BSD", 0, 0 } } },
		{ ENOTSUP, "Xen ABI 'xen-2.0'", 0, { { NULL, XEN_ELFNOTE_XEN_VERSION, "xen-2.0", 0, 0 },
			{ NULL, XEN_ELFNOTE_LOADER, "generic", 0, 0 } } },
		{ ENOTSUP, "feature 'time_travel', which umbra does not know", 0, { COMMON, ENTRY(0x100000),
			{ NULL, XEN_ELFNOTE_FEATURES, "dom0|!time_travel", 0, 0 } } },
		{ ENOTSUP, "feature 'auto_translated_physmap', which umbra does not have", 0, { COMMON, ENTRY(0x100000),
			{ NULL, XEN_ELFNOTE_FEATURES, "!auto_translated_physmap", 0, 0 } } },
		{ 0, NULL, 1 << XENFEAT_auto_translated_physmap, { COMMON, ENTRY(0x100000),
			{ NULL, XEN_ELFNOTE_FEATURES, "!auto_translated_physmap", 0, 0 } } },
		{ 0, NULL, 0, { COMMON, ENTRY(0x100000),
			{ NULL, XEN_ELFNOTE_FEATURES, "!writable_page_tables", 0, 0 } } },
		{ 0, NULL, 0, { COMMON, ENTRY(0x101000) } },	/* the end is let through, by Xen too */
		{ EBADMSG, "entry point 0x101001 (Xen note)", 0, { COMMON, ENTRY(0x101001) } },
		{ EBADMSG, "entry point 0x777 (ELF header)", 0, { COMMON } },
		{ EBADMSG, "not VIRT_BASE", 0, { COMMON, { NULL, XEN_ELFNOTE_PADDR_OFFSET, NULL, 0, 8 } } },
		{ EBADMSG, "48-bit", 0, { COMMON, BASE(0x800000000000), ENTRY(0x800000100000) } },
		{ EBADMSG, "48-bit", 0, { COMMON, BASE(0x7ffffff00000), ENTRY(0x800000000000) } },
		{ 0, NULL, 0, { COMMON, BASE(0x7fff00000000), ENTRY(0x7fff00100000) } },
		{ 0, NULL, 0, { COMMON, BASE(0xffff800000000000), ENTRY(0xffff800000100000) } },
		{ EBADMSG, "INIT_P2M", 0, { COMMON, ENTRY(0x100000),
			{ NULL, XEN_ELFNOTE_INIT_P2M, NULL, 0x100fff, 8 } } },
		{ 0, NULL, 0, { COMMON, ENTRY(0x100000), { NULL, XEN_ELFNOTE_INIT_P2M, NULL, 0x101000, 8 } } },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct blob b = make_elf(&(struct make_elf){ .entry = 0x777, .segments = one_segment,
							     .notes = cases[i].notes });
		struct image *img = must_open(&b);
		struct image_error err = { "" };
		int ret = image_check_pv(img, cases[i].features, &err);

		if (cases[i].error)
			check_error(ret, &err, cases[i].error, cases[i].says);
		else if (ret)
			fail_msg("case %u: %d %s", i, ret, err.text);
		image_close(img);
		blob_free(&b);
	}
}

static void test_feature_names(void **state)
{
	assert_string_equal(image_feature_name(XENFEAT_writable_page_tables), "writable_page_tables");
	assert_string_equal(image_feature_name(XENFEAT_dom0), "dom0");
	assert_null(image_feature_name(31));
	assert_null(image_feature_name(32));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_elf_segments),
		cmocka_unit_test(test_hostile_tables),
		cmocka_unit_test(test_segment_choice),
		cmocka_unit_test(test_overlapping_notes),
		cmocka_unit_test(test_all_notes),
		cmocka_unit_test(test_note_defaults),
		cmocka_unit_test(test_bad_notes),
		cmocka_unit_test(test_note_at_the_end),
		cmocka_unit_test(test_note_name_length),
		cmocka_unit_test(test_guest_section),
		cmocka_unit_test(test_guest_section_without_bytes),
		cmocka_unit_test(test_guest_section_wins_only_without_notes),
		cmocka_unit_test(test_bad_guest_section),
		cmocka_unit_test(test_check_pv),
		cmocka_unit_test(test_feature_names),
	};

	return cmocka_run_group_tests_name("image_elf", tests, NULL, NULL);
}
