/*
 * image_xen.c - what a kernel tells Xen: ELF notes or the older __xen_guest section, and whether that is enough to
 * start it as a PV guest. Follows xen/common/libelf/libelf-dominfo.c, so that what starts under Xen starts here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <xen/elfnote.h>
#include <xen/features.h>

#include "vmm/image_priv.h"

/* libelf's bound (ELF_MAX_TOTAL_NOTE_COUNT): segments may overlap, so the file's size is none. */
#define MAX_NOTES	65536u

/* ---- features ---------------------------------------------------------------------------------------------------- */

static const char *const feature_names[32] = {
#define F(name)	[XENFEAT_##name] = #name
	F(writable_page_tables), F(writable_descriptor_tables), F(auto_translated_physmap), F(supervisor_mode_kernel),
	F(pae_pgdir_above_4gb), F(mmu_pt_update_preserve_ad), F(highmem_assist), F(gnttab_map_avail_bits),
	F(hvm_callback_vector), F(hvm_safe_pvclock), F(hvm_pirqs), F(dom0),
	F(memory_op_vnode_supported), F(ARM_SMCCC_supported), F(linux_rsdp_unrestricted), F(not_direct_mapped),
	F(direct_mapped),
#undef F
};

const char *image_feature_name(unsigned n)
{
	return n < 32 ? feature_names[n] : NULL;
}

/* "!required|supported|...", in the first n bytes of s up to a NUL. */
static void parse_features(struct image_xen *xen, const char *s, size_t n)
{
	n = strnlen(s, n);
	while (n) {
		const char *bar = memchr(s, '|', n);
		size_t len = bar ? (size_t)(bar - s) : n, skip = len && *s == '!';
		unsigned i;

		for (i = 0; i < 32; i++)
			if (feature_names[i] && strlen(feature_names[i]) == len - skip &&
			    !memcmp(feature_names[i], s + skip, len - skip))
				break;
		if (i < 32) {
			xen->features_supported |= 1u << i;
			xen->features_required |= skip ? 1u << i : 0;
		} else if (skip && !xen->unknown_feature[0]) {
			image_copy_string(xen->unknown_feature, sizeof(xen->unknown_feature), s + 1, len - 1);
			if (!xen->unknown_feature[0])
				strcpy(xen->unknown_feature, "!");
		}
		len += bar != NULL;
		s += len;
		n -= len;
	}
}

/* ---- notes ------------------------------------------------------------------------------------------------------- */

static const char *const note_names[32] = {
#define N(name)	[XEN_ELFNOTE_##name] = #name
	N(ENTRY), N(HYPERCALL_PAGE), N(VIRT_BASE), N(PADDR_OFFSET), N(XEN_VERSION), N(GUEST_OS), N(GUEST_VERSION),
	N(LOADER), N(PAE_MODE), N(FEATURES), N(BSD_SYMTAB), N(HV_START_LOW), N(L1_MFN_VALID), N(SUSPEND_CANCEL),
	N(INIT_P2M), N(MOD_START_PFN), N(SUPPORTED_FEATURES), N(PHYS32_ENTRY),
#undef N
};

/* A numeric note of 1, 2, 4 or 8 bytes, as libelf's elf_note_numeric(). */
static bool note_number(const uint8_t *desc, size_t size, uint64_t *out)
{
	*out = 0;
	if (size != 1 && size != 2 && size != 4 && size != 8)
		return false;
	memcpy(out, desc, size);
	return true;
}

static int parse_note(struct image *img, uint32_t type, const uint8_t *desc, size_t size, struct image_error *err)
{
	struct image_xen *xen = &img->xen;
	uint64_t n;
	bool number = note_number(desc, size, &n);

	switch (type) {
#define STRING(note, field) \
	case XEN_ELFNOTE_##note: \
		image_copy_string(xen->field, sizeof(xen->field), desc, size); \
		break
#define NUMBER(note, field) \
	case XEN_ELFNOTE_##note: \
		if (!number) \
			goto bad_size; \
		xen->field = n; \
		break
	STRING(XEN_VERSION, xen_version);
	STRING(GUEST_OS, guest_os);
	STRING(GUEST_VERSION, guest_version);
	STRING(LOADER, loader);
	STRING(PAE_MODE, pae_mode);
	NUMBER(ENTRY, entry);
	NUMBER(HYPERCALL_PAGE, hypercall_page);
	NUMBER(VIRT_BASE, virt_base);
	NUMBER(PADDR_OFFSET, paddr_offset);
	NUMBER(HV_START_LOW, hv_start_low);
	NUMBER(INIT_P2M, init_p2m);
	NUMBER(MOD_START_PFN, mod_start_pfn);
	NUMBER(SUSPEND_CANCEL, suspend_cancel);
	NUMBER(PHYS32_ENTRY, phys32_entry);
#undef STRING
#undef NUMBER
	case XEN_ELFNOTE_BSD_SYMTAB:
		xen->bsd_symtab = size >= 3 && !memcmp(desc, "yes", 3) && (size == 3 || !desc[3]);
		break;
	case XEN_ELFNOTE_FEATURES:
		parse_features(xen, (const char *)desc, size);
		break;
	case XEN_ELFNOTE_SUPPORTED_FEATURES:	/* an array of 32-bit words, XENFEAT_NR_SUBMAPS of which exist */
		if (!size || size % 4)
			goto bad_size;
		xen->features_supported |= image_le32(desc);
		break;
	case XEN_ELFNOTE_L1_MFN_VALID:		/* pairs of page-table entries */
		if (size < 16 || size % 16)
			goto bad_size;
		xen->l1_mfn_mask = image_le64(desc);
		xen->l1_mfn_value = image_le64(desc + 8);
		break;
	default:	/* INFO and what newer kernels may say */
		return 0;
	}
	xen->present |= 1u << type;
	return 0;
bad_size:
	return image_fail(err, img->name, EBADMSG,
			  "Xen note %s has %zu bytes, which no such note has: the file is damaged; "
			  "fetch it again", note_names[type], size);
}

/*
 * The notes in [offset, offset + size) of the file. Everything is aligned to 4 bytes, whatever the segment's alignment
 * says, and a name may be padded: Xen reads them so. A note that runs out of its segment ends it.
 */
static int parse_notes(struct image *img, uint64_t offset, uint64_t size, unsigned *count, struct image_error *err)
{
	const uint8_t *p = img->elf + offset;
	int ret;

	while (size >= sizeof(Elf64_Nhdr) && *count < MAX_NOTES) {
		uint32_t namesz = image_le32(p), descsz = image_le32(p + 4), type = image_le32(p + 8);
		uint64_t name = sizeof(Elf64_Nhdr), desc = name + (((uint64_t)namesz + 3) & ~3ull);
		uint64_t next = desc + (((uint64_t)descsz + 3) & ~3ull);

		if (!image_inside(desc, descsz, size))
			return 0;
		++*count;
		if (desc - name >= sizeof("Xen") && !memcmp(p + name, "Xen", sizeof("Xen"))) {
			img->xen.source = IMAGE_PV_NOTES;
			ret = parse_note(img, type, p + desc, descsz, err);
			if (ret)
				return ret;
		}
		if (next > size)	/* the last one may lack its padding */
			return 0;
		p += next;
		size -= next;
	}
	return 0;
}

/* ---- __xen_guest ------------------------------------------------------------------------------------------------- */

/* The number that fills [s, s + n), as strtoull(,, 0) reads it. */
static bool text_number(const char *s, size_t n, uint64_t *out)
{
	char buf[32], *end;

	if (!n || n >= sizeof(buf) || *s == '-' || *s == '+' || *s == ' ')
		return false;
	memcpy(buf, s, n);
	buf[n] = 0;
	errno = 0;
	*out = strtoull(buf, &end, 0);
	return end == buf + n && !errno;
}

static int parse_pair(struct image *img, const char *name, size_t name_len, const char *value, size_t value_len,
		      struct image_error *err)
{
	static const struct {
		const char *name;
		unsigned note;
	} pairs[] = {
		{ "LOADER", XEN_ELFNOTE_LOADER },		{ "GUEST_OS", XEN_ELFNOTE_GUEST_OS },
		{ "GUEST_VER", XEN_ELFNOTE_GUEST_VERSION },	{ "XEN_VER", XEN_ELFNOTE_XEN_VERSION },
		{ "PAE", XEN_ELFNOTE_PAE_MODE },		{ "BSD_SYMTAB", XEN_ELFNOTE_BSD_SYMTAB },
		{ "VIRT_BASE", XEN_ELFNOTE_VIRT_BASE },		{ "VIRT_ENTRY", XEN_ELFNOTE_ENTRY },
		{ "FEATURES", XEN_ELFNOTE_FEATURES },		{ "HYPERCALL_PAGE", XEN_ELFNOTE_HYPERCALL_PAGE },
		{ "ELF_PADDR_OFFSET", XEN_ELFNOTE_PADDR_OFFSET },
	};
	char shown[IMAGE_STRING];
	uint8_t desc[8];
	uint64_t n;
	size_t i;

	for (i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		if (strlen(pairs[i].name) == name_len && !memcmp(pairs[i].name, name, name_len))
			break;
	if (i == sizeof(pairs) / sizeof(pairs[0]))
		return 0;	/* PT_MODE_WRITABLE and other flags of long ago */
	switch (pairs[i].note) {
	case XEN_ELFNOTE_BSD_SYMTAB:	/* its mere presence says yes */
		return parse_note(img, XEN_ELFNOTE_BSD_SYMTAB, (const uint8_t *)"yes", 3, err);
	case XEN_ELFNOTE_VIRT_BASE:
	case XEN_ELFNOTE_ENTRY:
	case XEN_ELFNOTE_HYPERCALL_PAGE:
	case XEN_ELFNOTE_PADDR_OFFSET:
		if (!text_number(value, value_len, &n)) {
			image_copy_string(shown, sizeof(shown), value, value_len);
			return image_fail(err, img->name, EBADMSG,
					  "section __xen_guest has %s=%s, which is no number: the "
					  "file is damaged or was built wrongly", pairs[i].name, shown);
		}
		memcpy(desc, &n, sizeof(n));
		return parse_note(img, pairs[i].note, desc, sizeof(n), err);
	default:
		return parse_note(img, pairs[i].note, (const uint8_t *)value, value_len, err);
	}
}

/* NAME=value or NAME, separated by commas, up to a NUL or the section's end. */
static int parse_guest_section(struct image *img, const char *s, size_t n, struct image_error *err)
{
	struct image_xen *xen = &img->xen;
	int ret;

	xen->source = IMAGE_PV_SECTION;
	n = strnlen(s, n);
	while (n) {
		const char *comma = memchr(s, ',', n);
		size_t len = comma ? (size_t)(comma - s) : n;
		const char *eq = memchr(s, '=', len);
		size_t name_len = eq ? (size_t)(eq - s) : len, value = eq ? name_len + 1 : len;

		ret = parse_pair(img, s, name_len, s + value, len - value, err);
		if (ret)
			return ret;
		len += comma != NULL;
		s += len;
		n -= len;
	}
	/* Here the hypercall page is given as a page number from VIRT_BASE on. */
	if (image_has(img, XEN_ELFNOTE_HYPERCALL_PAGE))
		xen->hypercall_page = (xen->hypercall_page << 12) + xen->virt_base;
	/* Kernels of that time have virtual addresses in p_paddr. */
	if (!image_has(img, XEN_ELFNOTE_PADDR_OFFSET))
		xen->paddr_offset = xen->virt_base;
	return 0;
}

static int find_guest_section(struct image *img, const Elf64_Ehdr *eh, struct image_error *err)
{
	static const char wanted[] = "__xen_guest";
	Elf64_Shdr names, sh;

	if (eh->e_shstrndx >= eh->e_shnum)
		return 0;
	image_elf_shdr(img, eh->e_shstrndx, &names);
	if (!image_inside(names.sh_offset, names.sh_size, img->elf_size))
		return 0;
	for (unsigned i = 1; i < eh->e_shnum; i++) {
		image_elf_shdr(img, i, &sh);
		if (sh.sh_type == SHT_NOBITS || !image_inside(sh.sh_name, sizeof(wanted), names.sh_size) ||
		    memcmp(img->elf + names.sh_offset + sh.sh_name, wanted, sizeof(wanted)))
			continue;
		if (!image_inside(sh.sh_offset, sh.sh_size, img->elf_size))
			return image_fail(err, img->name, EBADMSG,
					  "section __xen_guest lies outside the ELF file: it is "
					  "truncated or damaged; fetch it again");
		return parse_guest_section(img, (const char *)img->elf + sh.sh_offset, sh.sh_size, err);
	}
	return 0;
}

int image_xen_parse(struct image *img, struct image_error *err)
{
	unsigned count = 0;
	Elf64_Ehdr eh;
	int ret;

	image_elf_ehdr(img, &eh);
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		Elf64_Phdr ph;

		image_elf_phdr(img, i, &ph);
		/* Offset 0: binutils that did not set it (libelf). */
		if (ph.p_type != PT_NOTE || !ph.p_offset)
			continue;
		if (!image_inside(ph.p_offset, ph.p_filesz, img->elf_size))
			return image_fail(err, img->name, EBADMSG,
					  "note segment %u lies outside the ELF file: it is truncated "
					  "or damaged; fetch it again", i);
		ret = parse_notes(img, ph.p_offset, ph.p_filesz, &count, err);
		if (ret)
			return ret;
	}
	if (img->xen.source != IMAGE_PV_NONE)
		return 0;
	for (unsigned i = 1; i < eh.e_shnum; i++) {
		Elf64_Shdr sh;

		image_elf_shdr(img, i, &sh);
		if (sh.sh_type != SHT_NOTE || !image_inside(sh.sh_offset, sh.sh_size, img->elf_size))
			continue;
		ret = parse_notes(img, sh.sh_offset, sh.sh_size, &count, err);
		if (ret)
			return ret;
	}
	if (img->xen.source != IMAGE_PV_NONE)
		return 0;
	return find_guest_section(img, &eh, err);
}

/* ---- would Xen start it ------------------------------------------------------------------------------------------ */

#define NO_PV_ADVICE	"Debian's linux-image-cloud-amd64 and linux-image-amd64 have it"

static int check_notes(const struct image *img, uint32_t features, struct image_error *err)
{
	const struct image_xen *xen = &img->xen;
	/* Every PV Linux requires writable_page_tables, and every Xen starts it without announcing that feature. */
	uint32_t missing = xen->features_required & ~(features | 1u << XENFEAT_writable_page_tables);

	if (xen->source == IMAGE_PV_NONE)
		return image_fail(err, img->name, ENOTSUP,
				  "kernel has no Xen PV notes: it was built without CONFIG_XEN_PV; "
				  NO_PV_ADVICE);
	/* Linux gives PHYS32_ENTRY for PVH and ENTRY for PV, each if built for it. */
	if (image_has(img, XEN_ELFNOTE_PHYS32_ENTRY) && !image_has(img, XEN_ELFNOTE_ENTRY))
		return image_fail(err, img->name, ENOTSUP,
				  "kernel has Xen notes for PVH but not for PV: it was built without "
				  "CONFIG_XEN_PV; " NO_PV_ADVICE);
	if (strncmp(xen->loader, "generic", 7) && strncmp(xen->guest_os, "linux", 5))
		return image_fail(err, img->name, ENOTSUP,
				  "kernel is neither for Xen's generic loader nor Linux (LOADER '%s', "
				  "GUEST_OS '%s'): only its own loader can start it", xen->loader, xen->guest_os);
	if (strncmp(xen->xen_version, "xen-3.0", 7))
		return image_fail(err, img->name, ENOTSUP,
				  "kernel wants the Xen ABI '%s', umbra has xen-3.0 (which every Xen "
				  "since has)", xen->xen_version);
	if (xen->unknown_feature[0])
		return image_fail(err, img->name, ENOTSUP,
				  "kernel requires the Xen feature '%s', which umbra does not know",
				  xen->unknown_feature);
	if (missing) {
		const char *name = image_feature_name(__builtin_ctz(missing));

		return image_fail(err, img->name, ENOTSUP,
				  "kernel requires the Xen feature '%s', which umbra does not have",
				  name ? name : "?");
	}
	return 0;
}

/* Whether [from, to] lies in one of the two halves that 48-bit addresses make. */
static bool one_half(uint64_t from, uint64_t to)
{
	return to < 1ull << 47 || (from >= -(1ull << 47) && to >= from);
}

static int check_addresses(const struct image *img, struct image_error *err)
{
	const struct image_xen *xen = &img->xen;

	if (image_has(img, XEN_ELFNOTE_PADDR_OFFSET) && !image_has(img, XEN_ELFNOTE_VIRT_BASE))
		return image_fail(err, img->name, EBADMSG,
				  "kernel gives PADDR_OFFSET but not VIRT_BASE: it was built wrongly");
	if (img->virt_kstart > img->virt_kend || xen->virt_base > img->virt_kstart)
		return image_fail(err, img->name, EBADMSG,
				  "kernel at %#" PRIx64 "-%#" PRIx64 " lies below its VIRT_BASE %#"
				  PRIx64 " or wraps: it was built wrongly", img->virt_kstart, img->virt_kend,
				  xen->virt_base);
	if (!one_half(xen->virt_base, img->virt_kend))
		return image_fail(err, img->name, EBADMSG,
				  "kernel at %#" PRIx64 "-%#" PRIx64 " (VIRT_BASE %#" PRIx64 ") lies "
				  "outside the 48-bit address space: it was built wrongly", img->virt_kstart,
				  img->virt_kend, xen->virt_base);
	if (img->virt_entry < img->virt_kstart || img->virt_entry > img->virt_kend)
		return image_fail(err, img->name, EBADMSG,
				  "entry point %#" PRIx64 " (%s) lies outside the kernel at %#" PRIx64
				  "-%#" PRIx64 ": it was built without CONFIG_XEN_PV, or wrongly", img->virt_entry,
				  image_has(img, XEN_ELFNOTE_ENTRY) ? "Xen note" : "ELF header", img->virt_kstart,
				  img->virt_kend);
	if (image_has(img, XEN_ELFNOTE_INIT_P2M) && xen->init_p2m >= img->virt_kstart && xen->init_p2m < img->virt_kend)
		return image_fail(err, img->name, EBADMSG,
				  "INIT_P2M %#" PRIx64 " lies inside the kernel at %#" PRIx64 "-%#"
				  PRIx64 ": it was built wrongly", xen->init_p2m, img->virt_kstart, img->virt_kend);
	return 0;
}

int image_check_pv(const struct image *img, uint32_t features, struct image_error *err)
{
	int ret = check_notes(img, features, err);

	return ret ? ret : check_addresses(img, err);
}
