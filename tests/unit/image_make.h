/*
 * image_make.h - makes kernels for tests: ELF files by hand, packed with each compression's own library, wrapped into a
 * bzImage. Shared by test_image.c, test_symbols.c and tests/fuzz/fuzz_image.c. Out of memory ends the test.
 */
#ifndef UMBRA_IMAGE_MAKE_H
#define UMBRA_IMAGE_MAKE_H

#include <bzlib.h>
#include <elf.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xen/elfnote.h>
#include <zlib.h>
#include <zstd.h>

struct blob {
	uint8_t *p;
	size_t n;
};

static inline void must(bool ok)
{
	if (!ok)
		abort();
}

/* Appends n bytes, zeroes if `from` is NULL; returns their offset. */
static inline size_t blob_add(struct blob *b, const void *from, size_t n)
{
	size_t at = b->n;

	b->p = realloc(b->p, at + n + 1);
	must(b->p);
	if (from)
		memcpy(b->p + at, from, n);
	else
		memset(b->p + at, 0, n);
	b->n += n;
	return at;
}

static inline void blob_free(struct blob *b)
{
	free(b->p);
	*b = (struct blob){ 0 };
}

static inline void blob_put(struct blob *b, uint64_t v, unsigned bytes, bool big_endian)
{
	uint8_t raw[8];

	for (unsigned i = 0; i < bytes; i++)
		raw[big_endian ? bytes - 1 - i : i] = v >> 8 * i;
	blob_add(b, raw, bytes);
}

/* Half noise, half repetition: packs to something, and to more than a header. */
static inline uint8_t make_byte(uint64_t i)
{
	return i % 64 < 16 ? (uint8_t)((i * 0x9e3779b97f4a7c15ull) >> 56) : (uint8_t)(i / 64);
}

/* ---- ELF --------------------------------------------------------------------------------------------------------- */

struct make_note {
	const char *name;	/* NULL: "Xen" */
	uint32_t type;
	const void *text;	/* desc; NULL: `number`, in `size` bytes */
	uint64_t number;
	uint32_t size;		/* of desc; 0 with text: strlen + 1 */
};

struct make_segment {
	uint64_t vaddr, paddr, filesz, memsz;
};

struct make_symbol {
	const char *name;
	uint64_t addr;
	unsigned char info;
};

struct make_elf {
	uint64_t entry;
	const struct make_segment *segments;	/* up to the one with memsz 0 */
	const struct make_note *notes;		/* up to the one with type and size 0 */
	bool note_sections;			/* notes in an SHT_NOTE section instead of a PT_NOTE segment */
	const char *guest_section;		/* __xen_guest */
	const struct make_symbol *symbols;	/* up to the one without name */
};

static inline void make_notes(struct blob *b, const struct make_note *n)
{
	for (; n && (n->type || n->size || n->text); n++) {
		const char *name = n->name ? n->name : "Xen";
		uint32_t size = n->size ? n->size : (uint32_t)strlen(n->text) + 1;

		blob_put(b, strlen(name) + 1, 4, false);
		blob_put(b, size, 4, false);
		blob_put(b, n->type, 4, false);
		blob_add(b, name, strlen(name) + 1);
		blob_add(b, NULL, -b->n & 3);
		blob_add(b, n->text ? n->text : (const void *)&n->number, size);
		blob_add(b, NULL, -b->n & 3);
	}
}

static inline void make_section(Elf64_Shdr *sh, unsigned *nr, struct blob *names, const char *name, uint32_t type,
				uint64_t offset, uint64_t size)
{
	sh[*nr] = (Elf64_Shdr){ .sh_name = blob_add(names, name, strlen(name) + 1), .sh_type = type,
				.sh_offset = offset, .sh_size = size };
	++*nr;
}

/* Ends with its section headers, so that a file cut anywhere is seen to be. Segment i's byte j is
 * make_byte(paddr + j). */
static inline struct blob make_elf(const struct make_elf *m)
{
	Elf64_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT }, .e_type = ET_EXEC,
			  .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_entry = m->entry,
			  .e_phoff = sizeof(eh), .e_ehsize = sizeof(eh), .e_phentsize = sizeof(Elf64_Phdr),
			  .e_shentsize = sizeof(Elf64_Shdr) };
	struct blob b = { 0 }, notes = { 0 }, names = { 0 }, strings = { 0 }, syms = { 0 };
	const struct make_segment *s;
	Elf64_Shdr sh[8] = { 0 };
	unsigned nr_sh = 1, nr = 0;
	Elf64_Phdr *ph;
	size_t at;

	for (s = m->segments; s && s->memsz; s++)
		nr++;
	make_notes(&notes, m->notes);
	eh.e_phnum = nr + (notes.n && !m->note_sections);
	blob_add(&b, &eh, sizeof(eh));
	blob_add(&b, NULL, eh.e_phnum * sizeof(*ph));
	ph = calloc(eh.e_phnum + 1, sizeof(*ph));
	must(ph);
	for (unsigned i = 0; i < nr; i++) {
		s = &m->segments[i];
		blob_add(&b, NULL, -b.n & 15);
		at = blob_add(&b, NULL, s->filesz);
		for (uint64_t j = 0; j < s->filesz; j++)
			b.p[at + j] = make_byte(s->paddr + j);
		ph[i] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = at, .p_vaddr = s->vaddr,
				      .p_paddr = s->paddr, .p_filesz = s->filesz, .p_memsz = s->memsz,
				      .p_align = 4096 };
	}
	blob_put(&names, 0, 1, false);
	blob_add(&b, NULL, -b.n & 3);
	if (notes.n) {
		at = blob_add(&b, notes.p, notes.n);
		if (m->note_sections)
			make_section(sh, &nr_sh, &names, ".notes", SHT_NOTE, at, notes.n);
		else
			ph[nr] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_flags = PF_R, .p_offset = at, .p_filesz = notes.n,
					       .p_memsz = notes.n, .p_align = 4 };
	}
	if (m->guest_section) {
		at = blob_add(&b, m->guest_section, strlen(m->guest_section) + 1);
		make_section(sh, &nr_sh, &names, "__xen_guest", SHT_PROGBITS, at, strlen(m->guest_section) + 1);
	}
	if (m->symbols) {
		blob_put(&strings, 0, 1, false);
		blob_add(&syms, NULL, sizeof(Elf64_Sym));
		for (const struct make_symbol *y = m->symbols; y->name; y++) {
			Elf64_Sym sym = { .st_name = blob_add(&strings, y->name, strlen(y->name) + 1),
					  .st_info = y->info, .st_shndx = SHN_ABS, .st_value = y->addr };

			blob_add(&syms, &sym, sizeof(sym));
		}
		at = blob_add(&b, strings.p, strings.n);
		make_section(sh, &nr_sh, &names, ".strtab", SHT_STRTAB, at, strings.n);
		at = blob_add(&b, syms.p, syms.n);
		make_section(sh, &nr_sh, &names, ".symtab", SHT_SYMTAB, at, syms.n);
		sh[nr_sh - 1].sh_link = nr_sh - 2;
		sh[nr_sh - 1].sh_entsize = sizeof(Elf64_Sym);
	}
	eh.e_shstrndx = nr_sh;
	make_section(sh, &nr_sh, &names, ".shstrtab", SHT_STRTAB, b.n, 0);
	sh[nr_sh - 1].sh_size = names.n;
	blob_add(&b, names.p, names.n);
	blob_add(&b, NULL, -b.n & 7);
	eh.e_shoff = b.n;
	eh.e_shnum = nr_sh;
	blob_add(&b, sh, nr_sh * sizeof(*sh));
	memcpy(b.p, &eh, sizeof(eh));
	memcpy(b.p + sizeof(eh), ph, eh.e_phnum * sizeof(*ph));
	free(ph);
	blob_free(&notes);
	blob_free(&names);
	blob_free(&strings);
	blob_free(&syms);
	return b;
}

/* A kernel as Linux is: upper half, notes, a bss; `size` bytes of code. */
static inline struct blob make_linux(size_t size)
{
	const struct make_segment segments[] = {
		{ 0xffffffff81000000, 0x1000000, size, size },
		{ 0xffffffff82000000, 0x2000000, 100, 0x5000 },
		{ 0 }
	};
	static const struct make_note notes[] = {
		{ NULL, XEN_ELFNOTE_GUEST_OS, "linux", 0, 0 },
		{ NULL, XEN_ELFNOTE_XEN_VERSION, "xen-3.0", 0, 0 },
		{ NULL, XEN_ELFNOTE_LOADER, "generic", 0, 0 },
		{ NULL, XEN_ELFNOTE_VIRT_BASE, NULL, 0xffffffff80000000, 8 },
		{ NULL, XEN_ELFNOTE_ENTRY, NULL, 0xffffffff81000040, 8 },
		{ 0 }
	};

	return make_elf(&(struct make_elf){ .entry = 0x1000000, .segments = segments, .notes = notes });
}

/* ---- compression ------------------------------------------------------------------------------------------------- */

static inline struct blob pack_gzip(const uint8_t *in, size_t n)
{
	struct blob b = { 0 };
	z_stream s = { 0 };

	must(deflateInit2(&s, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	blob_add(&b, NULL, deflateBound(&s, n) + 64);
	s.next_in = (Bytef *)in;
	s.avail_in = n;
	s.next_out = b.p;
	s.avail_out = b.n;
	must(deflate(&s, Z_FINISH) == Z_STREAM_END);
	b.n = s.total_out;
	deflateEnd(&s);
	return b;
}

static inline struct blob pack_bzip2(const uint8_t *in, size_t n)
{
	struct blob b = { 0 };
	unsigned size = n + n / 100 + 600;

	blob_add(&b, NULL, size);
	must(BZ2_bzBuffToBuffCompress((char *)b.p, &size, (char *)in, n, 9, 0, 0) == BZ_OK);
	b.n = size;
	return b;
}

static inline struct blob pack_with_liblzma(lzma_stream *s, const uint8_t *in, size_t n)
{
	struct blob b = { 0 };

	blob_add(&b, NULL, n + n / 8 + 4096);	/* .lzma has no stored blocks: noise grows */
	s->next_in = in;
	s->avail_in = n;
	s->next_out = b.p;
	s->avail_out = b.n;
	must(lzma_code(s, LZMA_FINISH) == LZMA_STREAM_END);
	b.n = s->total_out;
	lzma_end(s);
	return b;
}

static inline struct blob pack_xz(const uint8_t *in, size_t n)
{
	/* As Linux packs itself (scripts/xz_wrap.sh): x86 filter, CRC32. */
	lzma_options_lzma o;
	lzma_filter filters[] = { { LZMA_FILTER_X86, NULL }, { LZMA_FILTER_LZMA2, &o }, { LZMA_VLI_UNKNOWN, NULL } };
	lzma_stream s = LZMA_STREAM_INIT;

	must(!lzma_lzma_preset(&o, 1));
	must(lzma_stream_encoder(&s, filters, LZMA_CHECK_CRC32) == LZMA_OK);
	return pack_with_liblzma(&s, in, n);
}

static inline struct blob pack_lzma(const uint8_t *in, size_t n)
{
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_options_lzma o;

	must(!lzma_lzma_preset(&o, 1));
	must(lzma_alone_encoder(&s, &o) == LZMA_OK);
	return pack_with_liblzma(&s, in, n);
}

static inline struct blob pack_zstd(const uint8_t *in, size_t n)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	struct blob b = { 0 };

	must(c);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
	blob_add(&b, NULL, ZSTD_compressBound(n));
	b.n = ZSTD_compress2(c, b.p, b.n, in, n);
	must(!ZSTD_isError(b.n));
	ZSTD_freeCCtx(c);
	return b;
}

static inline struct blob pack_lz4(const uint8_t *in, size_t n)
{
	struct blob b = { 0 };

	blob_put(&b, 0x184c2102, 4, false);
	for (size_t at = 0; at < n; at += 8 << 20) {
		int block = n - at < 8 << 20 ? (int)(n - at) : 8 << 20, packed;
		size_t head = blob_add(&b, NULL, 4 + LZ4_compressBound(block));

		packed = LZ4_compress_default((const char *)in + at, (char *)b.p + head + 4, block,
					      LZ4_compressBound(block));
		must(packed > 0);
		memcpy(b.p + head, &packed, 4);
		b.n = head + 4 + packed;
	}
	return b;
}

static inline struct blob pack_lz4_frame(const uint8_t *in, size_t n)
{
	LZ4F_preferences_t prefs = { .frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled };
	struct blob b = { 0 };

	blob_add(&b, NULL, LZ4F_compressFrameBound(n, &prefs));
	b.n = LZ4F_compressFrame(b.p, b.n, in, n, &prefs);
	must(!LZ4F_isError(b.n));
	return b;
}

static inline struct blob pack_lzo(const uint8_t *in, size_t n)
{
	const size_t block = 256 << 10;
	void *work = malloc(LZO1X_1_MEM_COMPRESS);
	struct blob b = { 0 };

	must(work && lzo_init() == LZO_E_OK);
	blob_add(&b, "\x89LZO\0\r\n\x1a\n", 9);
	blob_put(&b, 0x1040, 2, true);	/* version, library version, version needed */
	blob_put(&b, 0x20a0, 2, true);
	blob_put(&b, 0x0940, 2, true);
	blob_put(&b, 1, 1, true);	/* LZO1X-1 */
	blob_put(&b, 5, 1, true);
	blob_put(&b, 1, 4, true);	/* flags: adler32 of the unpacked blocks */
	blob_add(&b, NULL, 12);		/* mode, mtime */
	blob_put(&b, 5, 1, true);
	blob_add(&b, "image", 5);
	blob_put(&b, 0, 4, true);	/* header checksum */
	for (size_t at = 0; at < n; at += block) {
		lzo_uint size = n - at < block ? n - at : block, packed;
		size_t head;

		blob_put(&b, size, 4, true);
		head = b.n;
		blob_put(&b, 0, 4, true);
		blob_put(&b, adler32(1, in + at, size), 4, true);
		blob_add(&b, NULL, size + size / 16 + 67);
		must(lzo1x_1_compress(in + at, size, b.p + head + 8, &packed, work) == LZO_E_OK);
		if (packed >= size) {
			packed = size;
			memcpy(b.p + head + 8, in + at, size);
		}
		for (unsigned i = 0; i < 4; i++)
			b.p[head + i] = packed >> (24 - 8 * i);
		b.n = head + 8 + packed;
	}
	blob_put(&b, 0, 4, true);
	free(work);
	return b;
}

static const struct make_pack {
	const char *name;		/* as image.how says it */
	struct blob (*pack)(const uint8_t *in, size_t n);
	bool own_size;			/* a bzImage appends no size */
	bool checked;			/* the stream has a checksum, so damage is always found */
} make_packs[] = {
	{ "gzip",  pack_gzip,		true,  true },
	{ "bzip2", pack_bzip2,		false, true },
	{ "lzma",  pack_lzma,		false, false },
	{ "xz",    pack_xz,		false, true },
	{ "zstd",  pack_zstd,		false, true },
	{ "lz4",   pack_lz4,		false, false },
	{ "lz4",   pack_lz4_frame,	false, true },
	{ "lzo",   pack_lzo,		false, true },
};

#define MAKE_PACKS	(sizeof(make_packs) / sizeof(make_packs[0]))

/* ---- bzImage ----------------------------------------------------------------------------------------------------- */

#define MAKE_SETUP_SECTS	2u
#define MAKE_BZ_PAYLOAD		((MAKE_SETUP_SECTS + 1) * 512 + 0x30)	/* where the payload starts in the file */

/* `size`: what to append as the unpacked size, if `append`. */
static inline struct blob make_bzimage(const uint8_t *payload, size_t n, bool append, uint32_t size)
{
	static const char version[] = "6.1.0-test (builder@host) #1";
	struct blob b = { 0 };
	uint16_t v16;
	uint32_t v32;

	blob_add(&b, NULL, MAKE_BZ_PAYLOAD);
	b.p[0x1f1] = MAKE_SETUP_SECTS;
	memcpy(b.p + 0x1fe, "\x55\xaa", 2);
	memcpy(b.p + 0x202, "HdrS", 4);
	v16 = 0x020f;
	memcpy(b.p + 0x206, &v16, 2);
	v16 = 0x100;
	memcpy(b.p + 0x20e, &v16, 2);
	memcpy(b.p + 0x300, version, sizeof(version));
	v32 = 0x30;
	memcpy(b.p + 0x248, &v32, 4);
	v32 = n + 4 * append;
	memcpy(b.p + 0x24c, &v32, 4);
	blob_add(&b, payload, n);
	if (append)
		blob_put(&b, size, 4, false);
	return b;
}

static inline struct blob make_packed_bzimage(const struct make_pack *pack, const uint8_t *in, size_t n)
{
	struct blob payload = pack->pack(in, n), b;

	b = make_bzimage(payload.p, payload.n, !pack->own_size, n);
	blob_free(&payload);
	return b;
}

#endif
