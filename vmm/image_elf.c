/*
 * image_elf.c - ELF64 headers and segments of an unpacked kernel (System V ABI, "ELF Header", "Program Header").
 */
#include <errno.h>
#include <xen/elfnote.h>

#include "vmm/image_priv.h"

bool image_is_elf(const uint8_t *data, size_t size)
{
	return size >= SELFMAG && !memcmp(data, ELFMAG, SELFMAG);
}

void image_elf_ehdr(const struct image *img, Elf64_Ehdr *out)
{
	memcpy(out, img->elf, sizeof(*out));
}

void image_elf_phdr(const struct image *img, unsigned i, Elf64_Phdr *out)
{
	Elf64_Ehdr eh;

	image_elf_ehdr(img, &eh);
	memcpy(out, img->elf + eh.e_phoff + i * sizeof(*out), sizeof(*out));
}

void image_elf_shdr(const struct image *img, unsigned i, Elf64_Shdr *out)
{
	Elf64_Ehdr eh;

	image_elf_ehdr(img, &eh);
	memcpy(out, img->elf + eh.e_shoff + i * sizeof(*out), sizeof(*out));
}

static const char *machine_name(unsigned machine)
{
	switch (machine) {
	case EM_386:		return "i386 (32 bit)";
	case EM_ARM:		return "arm";
	case EM_AARCH64:	return "arm64";
	case EM_PPC64:		return "ppc64";
	case EM_RISCV:		return "riscv";
	case EM_S390:		return "s390";
	case EM_MIPS:		return "mips";
	case 258:		return "loongarch";
	default:		return NULL;
	}
}

static int check_ident(const struct image *img, struct image_error *err)
{
	unsigned machine, type;
	const char *name;

	if (img->elf_size < EI_NIDENT + 4)
		return image_fail(err, img->name, EBADMSG, "ELF file ends in its header, at byte %zu: the file is "
				  "truncated; fetch it again", img->elf_size);
	if (img->elf[EI_DATA] != ELFDATA2LSB && img->elf[EI_DATA] != ELFDATA2MSB)
		return image_fail(err, img->name, EBADMSG, "ELF header is damaged (byte order %u): fetch it again",
				  img->elf[EI_DATA]);
	/* e_type and e_machine stand in the same place in both classes. */
	type = image_le16(img->elf + EI_NIDENT);
	machine = image_le16(img->elf + EI_NIDENT + 2);
	if (img->elf[EI_DATA] == ELFDATA2MSB) {
		type = __builtin_bswap16(type);
		machine = __builtin_bswap16(machine);
	}
	name = machine_name(machine);
	if (machine != EM_X86_64 && name)
		return image_fail(err, img->name, ENOTSUP, "compiled for %s; umbra runs x86-64 kernels: take the amd64 "
				  "package", name);
	if (machine != EM_X86_64 || img->elf[EI_DATA] != ELFDATA2LSB)
		return image_fail(err, img->name, ENOTSUP,
				  "compiled for ELF machine %u; umbra runs x86-64 kernels: take "
				  "the amd64 package", machine);
	if (img->elf[EI_CLASS] != ELFCLASS64)
		return image_fail(err, img->name, ENOTSUP,
				  "x86-64 code in a 32-bit ELF file, as multiboot loaders want "
				  "it: use the 64-bit ELF file it was made from");
	if (type == ET_REL)
		return image_fail(err, img->name, ENOEXEC, "an object file or kernel module, not a linked kernel");
	if (type == ET_CORE)
		return image_fail(err, img->name, ENOEXEC, "a memory dump (core file), not a kernel");
	if (type != ET_EXEC && type != ET_DYN)
		return image_fail(err, img->name, ENOEXEC, "ELF file of type %u, not a kernel", type);
	return 0;
}

static int check_tables(const struct image *img, struct image_error *err)
{
	Elf64_Ehdr eh;

	if (img->elf_size < sizeof(eh))
		return image_fail(err, img->name, EBADMSG, "ELF file ends in its header, at byte %zu: the file is "
				  "truncated; fetch it again", img->elf_size);
	image_elf_ehdr(img, &eh);
	if (!eh.e_phnum)
		return image_fail(err, img->name, ENOEXEC, "ELF file without program headers: not a linked kernel");
	if (eh.e_phentsize != sizeof(Elf64_Phdr) || (eh.e_shnum && eh.e_shentsize != sizeof(Elf64_Shdr)))
		return image_fail(err, img->name, EBADMSG,
				  "ELF header is damaged (table entries of %u and %u bytes, not "
				  "%zu and %zu): fetch it again", eh.e_phentsize, eh.e_shentsize, sizeof(Elf64_Phdr),
				  sizeof(Elf64_Shdr));
	if (!image_inside(eh.e_phoff, eh.e_phnum * sizeof(Elf64_Phdr), img->elf_size))
		return image_fail(err, img->name, EBADMSG, "program headers at byte %#llx lie outside the %zu bytes of "
				  "the ELF file: it is truncated or damaged; fetch it again",
				  (unsigned long long)eh.e_phoff, img->elf_size);
	if (eh.e_shnum && !image_inside(eh.e_shoff, eh.e_shnum * sizeof(Elf64_Shdr), img->elf_size))
		return image_fail(err, img->name, EBADMSG, "section headers at byte %#llx lie outside the %zu bytes of "
				  "the ELF file: it is truncated or damaged; fetch it again",
				  (unsigned long long)eh.e_shoff, img->elf_size);
	return 0;
}

/* Fills segment `seg` from program header `i`; its addresses need img->xen. */
static int load_segment(const struct image *img, unsigned i, const Elf64_Phdr *ph, struct image_segment *seg,
			struct image_error *err)
{
	const struct image_xen *xen = &img->xen;

	if (!image_inside(ph->p_offset, ph->p_filesz, img->elf_size))
		return image_fail(err, img->name, EBADMSG,
				  "segment %u (%#llx bytes from %#llx) lies outside the %zu bytes "
				  "of the ELF file: it is truncated or damaged; fetch it again", i,
				  (unsigned long long)ph->p_filesz, (unsigned long long)ph->p_offset, img->elf_size);
	if (ph->p_filesz > ph->p_memsz)
		return image_fail(err, img->name, EBADMSG,
				  "segment %u has more bytes in the file (%#llx) than in memory "
				  "(%#llx): the file is damaged; fetch it again", i,
				  (unsigned long long)ph->p_filesz, (unsigned long long)ph->p_memsz);
	if (ph->p_paddr < xen->paddr_offset)
		return image_fail(err, img->name, EBADMSG,
				  "segment %u at %#llx lies below the kernel's own PADDR_OFFSET "
				  "%#llx: the kernel was linked wrongly or the file is damaged", i,
				  (unsigned long long)ph->p_paddr, (unsigned long long)xen->paddr_offset);
	seg->pa = ph->p_paddr - xen->paddr_offset;
	seg->va = seg->pa + xen->virt_base;
	seg->memsz = ph->p_memsz;
	seg->filesz = ph->p_filesz;
	seg->data = img->elf + ph->p_offset;
	/* pa <= va where va does not wrap, so pa's end needs no look of its own. */
	if (seg->va < xen->virt_base || seg->va + seg->memsz < seg->va)
		return image_fail(err, img->name, EBADMSG,
				  "segment %u (%#llx bytes at %#llx, VIRT_BASE %#llx) wraps round "
				  "the end of the address space: the file is damaged; fetch it again", i,
				  (unsigned long long)seg->memsz, (unsigned long long)seg->pa,
				  (unsigned long long)xen->virt_base);
	return 0;
}

int image_elf_parse(struct image *img, struct image_error *err)
{
	bool interpreter = false;
	Elf64_Ehdr eh;
	int ret;

	ret = check_ident(img, err);
	if (!ret)
		ret = check_tables(img, err);
	if (!ret)
		ret = image_xen_parse(img, err);
	if (ret)
		return ret;

	image_elf_ehdr(img, &eh);
	img->pa_start = UINT64_MAX;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		struct image_segment *seg = &img->segments[img->nr_segments];
		Elf64_Phdr ph;

		image_elf_phdr(img, i, &ph);
		interpreter |= ph.p_type == PT_INTERP;
		/* libelf, elf_phdr_is_loadable(): without any permission it is not loaded. */
		if (ph.p_type != PT_LOAD || !(ph.p_flags & (PF_R | PF_W | PF_X)) || !ph.p_memsz)
			continue;
		if (img->nr_segments == IMAGE_MAX_SEGMENTS)
			return image_fail(err, img->name, ENOTSUP,
					  "more than %u loadable segments: not a kernel umbra knows",
					  IMAGE_MAX_SEGMENTS);
		ret = load_segment(img, i, &ph, seg, err);
		if (ret)
			return ret;
		if (seg->pa < img->pa_start)
			img->pa_start = seg->pa;
		if (seg->pa + seg->memsz > img->pa_end)
			img->pa_end = seg->pa + seg->memsz;
		img->nr_segments++;
	}
	if (interpreter && img->xen.source == IMAGE_PV_NONE)
		return image_fail(err, img->name, ENOEXEC, "a program for Linux, not a kernel");
	if (!img->nr_segments)
		return image_fail(err, img->name, ENOEXEC, "ELF file without loadable segments: not a linked kernel");
	img->virt_kstart = img->pa_start + img->xen.virt_base;
	img->virt_kend = img->pa_end + img->xen.virt_base;
	img->virt_entry = image_has(img, XEN_ELFNOTE_ENTRY) ? img->xen.entry : eh.e_entry;
	return 0;
}
