/*
 * symbols.c - address to name, from an ELF symbol table or a System.map.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/image.h"
#include "vmm/symbols_priv.h"

/* Further than this behind a symbol an address has nothing to do with it. Linux's largest function is far below. */
#define REACH		(1ull << 20)
#define UPPER_HALF	(1ull << 63)

int symbols_add(struct symbols *s, uint64_t addr, size_t name, uint32_t rank)
{
	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 4096;
		struct symbol *table = realloc(s->table, room * sizeof(*table));

		if (!table)
			return -ENOMEM;
		s->table = table;
		s->room = room;
	}
	s->table[s->count++] = (struct symbol){ .addr = addr, .name = name, .rank = rank };
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	if (x->addr != y->addr)
		return x->addr < y->addr ? -1 : 1;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

void symbols_finish(struct symbols *s)
{
	size_t kept = 0, i = 0;

	if (!s->count)
		return;
	qsort(s->table, s->count, sizeof(*s->table), compare);
	if (s->table[s->count - 1].addr >= UPPER_HALF)
		while (s->table[i].addr < UPPER_HALF)
			i++;
	for (; i < s->count; i++)
		if (!kept || s->table[i].addr != s->table[kept - 1].addr)
			s->table[kept++] = s->table[i];
	s->count = kept;
}

void symbols_free(struct symbols *syms)
{
	if (!syms)
		return;
	free(syms->names);
	free(syms->table);
	free(syms);
}

size_t symbols_count(const struct symbols *syms)
{
	return syms->count;
}

/* ---- ELF --------------------------------------------------------------------------------------------------------- */

static void section_header(const struct image *img, const Elf64_Ehdr *eh, unsigned i, Elf64_Shdr *out)
{
	memcpy(out, img->elf + eh->e_shoff + i * sizeof(*out), sizeof(*out));
}

static bool inside(const struct image *img, const Elf64_Shdr *sh)
{
	return sh->sh_offset <= img->elf_size && sh->sh_size <= img->elf_size - sh->sh_offset;
}

static int symbols_from_section(const struct image *img, const Elf64_Shdr *symtab, const Elf64_Shdr *strtab,
				struct symbols *s)
{
	int ret = 0;

	if (!inside(img, symtab) || !inside(img, strtab) || strtab->sh_size >= UINT32_MAX)
		return -EBADMSG;
	s->names = malloc(strtab->sh_size + 1);
	if (!s->names)
		return -ENOMEM;
	memcpy(s->names, img->elf + strtab->sh_offset, strtab->sh_size);
	s->names[strtab->sh_size] = 0;
	for (uint64_t i = 0; !ret && i < symtab->sh_size / sizeof(Elf64_Sym); i++) {
		unsigned type;
		Elf64_Sym sym;

		memcpy(&sym, img->elf + symtab->sh_offset + i * sizeof(sym), sizeof(sym));
		type = ELF64_ST_TYPE(sym.st_info);
		if (sym.st_shndx == SHN_UNDEF || type == STT_FILE || type == STT_SECTION || type == STT_TLS ||
		    sym.st_name >= strtab->sh_size || !s->names[sym.st_name])
			continue;
		ret = symbols_add(s, sym.st_value, sym.st_name,
				  2 * (type != STT_FUNC) + (ELF64_ST_BIND(sym.st_info) != STB_GLOBAL));
	}
	return ret;
}

int symbols_from_image(const struct image *img, struct symbols **out)
{
	struct symbols *s;
	Elf64_Shdr sh, strtab;
	Elf64_Ehdr eh;
	unsigned i;
	int ret;

	/* image_open() has checked that the section headers lie inside the file. */
	memcpy(&eh, img->elf, sizeof(eh));
	for (i = 0; i < eh.e_shnum; i++) {
		section_header(img, &eh, i, &sh);
		if (sh.sh_type == SHT_SYMTAB)
			break;
	}
	if (i == eh.e_shnum)
		return -ENOENT;
	if (sh.sh_link >= eh.e_shnum)
		return -EBADMSG;
	section_header(img, &eh, sh.sh_link, &strtab);
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	ret = symbols_from_section(img, &sh, &strtab, s);
	if (ret) {
		symbols_free(s);
		return ret;
	}
	symbols_finish(s);
	*out = s;
	return 0;
}

/* ---- System.map -------------------------------------------------------------------------------------------------- */

static int fail(struct image_error *err, const char *path, int error, const char *text)
{
	if (err)
		snprintf(err->text, sizeof(err->text), "%.160s: %s", path, text);
	return -error;
}

/* "ffffffff81000000 T _text" and, in /proc/kallsyms, "\t[module]" behind it. Returns false on anything else. */
static bool parse_line(char *line, uint64_t *addr, char *type, char **name)
{
	char *end;

	if (!strchr("0123456789abcdefABCDEF", *line))
		return false;
	errno = 0;
	*addr = strtoull(line, &end, 16);
	if (errno || end[0] != ' ' || !end[1] || end[2] != ' ' || !end[3])
		return false;
	*type = end[1];
	*name = end + 3;
	(*name)[strcspn(*name, " \t\r")] = 0;
	return **name;
}

/* Takes the symbols of the text in s->names, which becomes a string of names with gaps between them. */
static int symbols_from_text(struct symbols *s, size_t size)
{
	char *line = s->names, *end = s->names + size;

	while (line < end) {
		char *next = memchr(line, '\n', end - line), *name, type;
		uint64_t addr;
		int ret;

		if (!next)
			next = end;
		*next = 0;
		if (*line) {
			if (!parse_line(line, &addr, &type, &name))
				return -ENOEXEC;
			/* Address 0 is an undefined weak symbol, or a kallsyms that hides its addresses. */
			ret = addr ? symbols_add(s, addr, name - s->names,
						 2 * (type != 'T' && type != 't') + (type != 'T')) : 0;
			if (ret)
				return ret;
		}
		line = next + 1;
	}
	return 0;
}

int symbols_load(const char *path, uint64_t limit, struct symbols **out, struct image_error *err)
{
	struct symbols *s;
	uint8_t *data, *grown;
	size_t size;
	int ret;

	ret = image_read_file(path, limit < UINT32_MAX - 1 ? limit : UINT32_MAX - 1, &data, &size, err);
	if (ret)
		return ret;
	s = calloc(1, sizeof(*s));
	grown = s ? realloc(data, size + 1) : NULL;
	if (!grown) {
		free(data);
		free(s);
		return fail(err, path, ENOMEM, "not enough memory");
	}
	grown[size] = 0;
	s->names = (char *)grown;
	if (size && memchr(grown, 0, size)) {
		ret = fail(err, path, ENOEXEC, "not a System.map but a binary file");
		goto fail;
	}
	ret = symbols_from_text(s, size);
	if (ret) {
		ret = fail(err, path, -ret, ret == -ENOMEM ? "not enough memory" :
			   "not a System.map: it has lines other than 'address type name'");
		goto fail;
	}
	symbols_finish(s);
	if (!s->count) {
		ret = fail(err, path, ENOEXEC, "no addresses in it: read /proc/kallsyms as root, or use the System.map "
			   "that the kernel was built with");
		goto fail;
	}
	if (s->table[0].addr == UINT64_MAX) {	/* "ffffffffffffffff B The real System.map is in ..." */
		ret = fail(err, path, ENOEXEC, "a stub; Debian has the real System.map in linux-image-*-dbg");
		goto fail;
	}
	*out = s;
	return 0;
fail:
	symbols_free(s);
	return ret;
}

/* ---- lookup ------------------------------------------------------------------------------------------------------ */

static const struct symbol *look_up(const struct symbols *syms, uint64_t addr)
{
	size_t lo = 0, hi = syms ? syms->count : 0;

	while (lo < hi) {	/* the first symbol above addr */
		size_t mid = lo + (hi - lo) / 2;

		if (syms->table[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && addr - syms->table[lo - 1].addr < REACH ? &syms->table[lo - 1] : NULL;
}

bool symbols_start(const struct symbols *syms, uint64_t addr, uint64_t *start)
{
	const struct symbol *sym = look_up(syms, addr);

	if (sym)
		*start = sym->addr;
	return sym;
}

const char *symbols_name(const struct symbols *syms, uint64_t addr, char *buf, size_t size)
{
	const struct symbol *sym = look_up(syms, addr);
	int n;

	if (!sym) {
		snprintf(buf, size, "0x%" PRIx64, addr);
		return buf;
	}
	n = snprintf(buf, size, "%s", syms->names + sym->name);
	for (char *p = buf; *p; p++)	/* a hostile name must not reach the terminal */
		if (*p < '!' || *p > '~')
			*p = '?';
	if (addr != sym->addr && n >= 0 && (size_t)n < size)
		snprintf(buf + n, size - n, "+0x%" PRIx64, addr - sym->addr);
	return buf;
}
