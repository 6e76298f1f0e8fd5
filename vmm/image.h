/*
 * image.h - kernel images: from a file to loadable ELF64 segments and what the kernel told Xen about itself.
 *
 * Reads vmlinux and other PV64 ELF kernels, bzImages (boot protocol 2.08 and later) and either of them compressed as a
 * whole, with gzip, bzip2, lzma, xz, zstd, lz4 or lzop.
 *
 * Every byte of the file is hostile: sizes are bounded by the caller's limit, offsets are checked before use. Nothing
 * in a file makes these functions crash or loop, or use more memory than a few times the limit and 160 MiB.
 *
 * Functions return 0 or -errno. All state is in the objects passed: any thread, one thread per object at a time;
 * several threads may read one image at once.
 */
#ifndef UMBRA_IMAGE_H
#define UMBRA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What went wrong and what to do about it: one line for the user, no newline, begins with the file's name. Filled in
 * whenever a function that takes one fails. */
struct image_error {
	char text[512];
};

#define IMAGE_SIZE_LIMIT	(1ull << 30)	/* a sensible `limit`: no kernel or initrd comes near it */
#define IMAGE_MAX_SEGMENTS	32u		/* Linux has 4 or 5 */
#define IMAGE_STRING		64u		/* bytes kept of a note's string, its NUL included */

/* A PT_LOAD segment. Load in the order given, each wholly, as Xen does: a later one wins where two overlap. */
struct image_segment {
	uint64_t pa;		/* pseudo-physical address in the guest's RAM: gfn << 12 plus offset. Any alignment */
	uint64_t va;		/* where the initial page tables show it: pa + xen.virt_base */
	uint64_t memsz;		/* bytes, not 0; pa + memsz and va + memsz do not wrap. No limit bounds it: check pa_end
				 * against the guest's RAM */
	uint64_t filesz;	/* bytes at `data`, at most memsz; the rest is zeroes */
	const uint8_t *data;	/* inside image.elf */
};

enum image_pv {
	IMAGE_PV_NONE,		/* says nothing to Xen */
	IMAGE_PV_NOTES,		/* ELF notes named "Xen" */
	IMAGE_PV_SECTION,	/* the older __xen_guest section, one string of NAME=value pairs */
};

/* What the kernel says to Xen; <xen/elfnote.h> has the meanings. Values that `present` lacks hold the default given. */
struct image_xen {
	enum image_pv source;
	uint32_t present;		/* bit n: XEN_ELFNOTE number n was given; see image_has() */
	uint64_t virt_base;		/* the virtual address of pa 0; 0 */
	uint64_t paddr_offset;		/* p_paddr minus pa; 0, or virt_base where the source is IMAGE_PV_SECTION */
	uint64_t entry;			/* as given; what to use is image.virt_entry */
	uint64_t hypercall_page;	/* virtual address, in both sources; 0 */
	uint64_t hv_start_low;		/* 0 */
	uint64_t init_p2m;		/* virtual address; 0 */
	uint64_t phys32_entry;		/* 0 */
	uint64_t l1_mfn_mask;		/* first mask/value pair; 0, 0 */
	uint64_t l1_mfn_value;
	bool mod_start_pfn;		/* start_info.mod_start may be a frame number and the initrd unmapped; false */
	bool suspend_cancel;		/* false */
	bool bsd_symtab;		/* asks for its symbol table behind the kernel; false */
	uint32_t features_supported;	/* bit n: XENFEAT number n of <xen/features.h>; required ones are in here too */
	uint32_t features_required;
	char unknown_feature[IMAGE_STRING];	/* first required feature whose name no header knows; "" */
	char guest_os[IMAGE_STRING];	/* strings: "" */
	char guest_version[IMAGE_STRING];
	char xen_version[IMAGE_STRING];
	char loader[IMAGE_STRING];
	char pae_mode[IMAGE_STRING];
};

/* A kernel. Read-only for everyone but image*.c. */
struct image {
	char *name;			/* as passed to image_open(), for messages */
	char how[64];			/* "bzImage, lz4", "ELF", "ELF, gzip": for the log */
	char version[128];		/* a bzImage's version string, "6.1.0-56-cloud-amd64 (...)"; else "" */
	uint8_t *elf;			/* the unpacked file */
	size_t elf_size;
	unsigned nr_segments;		/* at least 1 */
	struct image_segment segments[IMAGE_MAX_SEGMENTS];
	uint64_t pa_start, pa_end;	/* the span of all segments; pa_end is exclusive */
	uint64_t virt_kstart;		/* pa_start and pa_end as virtual addresses */
	uint64_t virt_kend;
	uint64_t virt_entry;		/* first instruction: note ENTRY, else e_entry */
	struct image_xen xen;
};

/*
 * Opens the kernel at `path`. Neither the file nor anything unpacked from it may exceed `limit` bytes.
 *
 *   -ENOENT, -EACCES, ...	what open() or read() said; -EISDIR: a directory
 *   -ENOEXEC			not a kernel
 *   -EBADMSG			a kernel, but damaged: truncated, or contents that contradict each other
 *   -ENOTSUP			a kernel of another machine, or in a form umbra does not read
 *   -EFBIG			over the limit
 *   -ENOMEM
 *
 * Any x86-64 ELF kernel opens, Xen or not: call image_check_pv() before building a domain from it.
 */
int image_open(const char *path, uint64_t limit, struct image **out, struct image_error *err);

/* The same for `size` bytes at `data`, which are copied; `name` is used in messages. */
int image_open_memory(const char *name, const void *data, size_t size, uint64_t limit, struct image **out,
		      struct image_error *err);

void image_close(struct image *img);	/* NULL is fine */

/*
 * Whether Xen's domain builder would start `img` as a PV64 guest, under a Xen that offers `features` (bit n: XENFEAT
 * number n; writable_page_tables is taken as offered, as Xen does). The rules are those of elf_xen_note_check() and
 * elf_xen_addr_calc_check(), xen/common/libelf.
 *
 *   -ENOTSUP	not a PV kernel, for another loader or Xen version, or requires a feature that is not offered
 *   -EBADMSG	its addresses contradict each other
 *
 * On 0: virt_base <= virt_kstart <= virt_entry <= virt_kend, all in one canonical half of the address space.
 */
int image_check_pv(const struct image *img, uint32_t features, struct image_error *err);

/* Whether note `n` (XEN_ELFNOTE_*) was given, by either source. */
static inline bool image_has(const struct image *img, unsigned n)
{
	return n < 32 && (img->xen.present >> n & 1);
}

/* Name of an XENFEAT number, without the prefix; NULL if it has none. */
const char *image_feature_name(unsigned n);

/*
 * Reads a whole file or pipe of up to `limit` bytes (an initrd, say) to a buffer that the caller frees. Errors: as
 * image_open() has them for reading, -EFBIG and -ENOMEM. An empty file gives 0 bytes and a buffer to free.
 */
int image_read_file(const char *path, uint64_t limit, uint8_t **data, size_t *size, struct image_error *err);

#endif
