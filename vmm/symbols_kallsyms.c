/*
 * symbols_kallsyms.c - the table of symbols that Linux carries for its own use, found without symbols.
 *
 * scripts/kallsyms.c of Linux writes it, each part aligned to 8 bytes:
 *
 *	until 6.3	offsets, relative_base, num_syms, names, markers, (6.2: seqs_of_names,) token_table, token_index
 *	from 6.4	num_syms, names, markers, token_table, token_index, offsets, relative_base, seqs_of_names
 *
 * names has an entry per symbol: its length (one byte, or two if bit 7 of the first is set), then so many tokens. A token is
 * a string of token_table; the first character is the symbol's type as in System.map. markers[i] is the offset of entry
 * 256 * i. What is found by its form is believed only if markers and token_index agree with it in every entry.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/symbols_priv.h"

#define TOKENS		256u
#define PER_MARKER	256u
#define SYMS_MIN	64u
#define SYMS_MAX	(4u << 20)
#define REACH_BACK	(64u << 20)		/* names are some MiB */
#define BUDGET		(1u << 27)		/* steps of looking; a real kernel takes less than a million */
#define NAME_MAX_SIZE	512u			/* Linux: KSYM_NAME_LEN */
#define TEXT_START	0xffffffff80000000ull	/* __START_KERNEL_map */

struct kallsyms {
	const uint8_t *image;
	size_t size;
	size_t token_table, token_index;	/* offsets in the image */
	size_t num_syms, names, markers, offsets;
	uint32_t count;
	uint64_t base;
	uint32_t budget;
	uint16_t token[TOKENS];			/* offset of each in token_table */
};

static uint16_t get16(const uint8_t *p)
{
	uint16_t n;

	memcpy(&n, p, sizeof n);
	return n;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t n;

	memcpy(&n, p, sizeof n);
	return n;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t n;

	memcpy(&n, p, sizeof n);
	return n;
}

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

/* False: enough was done for an image that only looks as if it had tables. */
static bool spend(struct kallsyms *k, uint32_t steps)
{
	if (k->budget < steps)
		return false;
	k->budget -= steps;
	return true;
}

/* Digits stand for themselves, so the token table has "0", "1" ... one after the other, at index '0'. */
static bool tokens_at(struct kallsyms *k, size_t digits)
{
	size_t at = digits, index, end;

	if (!spend(k, TOKENS))
		return false;
	for (unsigned i = '0'; i < TOKENS; i++) {	/* where the table ends */
		const uint8_t *nul = memchr(k->image + at, 0, k->size - at);

		if (!nul || nul - (k->image + at) > (ptrdiff_t)NAME_MAX_SIZE)
			return false;
		at = nul + 1 - k->image;
	}
	end = at;
	index = align8(end);
	if (index + TOKENS * 2 > k->size)
		return false;
	at = get16(k->image + index + 2 * '0');
	if (at > digits || (digits - at) % 8)
		return false;
	k->token_table = digits - at;
	k->token_index = index;
	at = k->token_table;
	for (unsigned i = 0; i < TOKENS; i++) {
		k->token[i] = get16(k->image + index + 2 * i);
		if (at >= end || k->token[i] != at - k->token_table)
			return false;
		at += strlen((const char *)k->image + at) + 1;	/* ends at `end` at the latest */
	}
	return at == end;
}

/* The entry at *at: its tokens and their number; moves *at behind it. False: it does not lie before `end`. */
static bool next_name(const struct kallsyms *k, size_t *at, size_t end, const uint8_t **tokens, unsigned *n)
{
	if (*at + 2 > end)
		return false;
	*n = k->image[(*at)++];
	if (*n & 0x80)
		*n = (*n & 0x7f) | k->image[(*at)++] << 7;
	*tokens = k->image + *at;
	*at += *n;
	return *n && *at <= end;
}

static bool names_at(struct kallsyms *k, size_t num_syms)
{
	uint32_t count = get32(k->image + num_syms);
	size_t at = num_syms + 8, marker;
	const uint8_t *tokens;
	unsigned n;

	k->names = at;
	for (uint32_t i = 0; i < count; i++)
		if (!spend(k, 1) || !next_name(k, &at, k->token_table, &tokens, &n))
			return false;
	k->markers = align8(at);
	if (k->markers + (count + PER_MARKER - 1) / PER_MARKER * 4 > k->token_table)
		return false;
	at = k->names;
	marker = k->markers;
	for (uint32_t i = 0; i < count; i++) {
		if (i % PER_MARKER == 0) {
			if (get32(k->image + marker) != at - k->names)
				return false;
			marker += 4;
		}
		next_name(k, &at, k->token_table, &tokens, &n);
	}
	k->num_syms = num_syms;
	k->count = count;
	return true;
}

static bool find_names(struct kallsyms *k)
{
	size_t lowest = k->token_table > REACH_BACK ? k->token_table - REACH_BACK : 0;

	for (size_t at = k->token_table; at >= lowest + 8; at -= 8) {
		uint64_t n = get64(k->image + at - 8);

		if (!spend(k, 1))
			return false;
		if (n >= SYMS_MIN && n <= SYMS_MAX && names_at(k, at - 8))
			return true;
	}
	return false;
}

/* Of per-CPU symbols the value itself, of all others the distance to the base, negative minus one. */
static uint64_t address(const struct kallsyms *k, uint32_t i, bool percpu)
{
	int32_t offset = get32(k->image + k->offsets + 4ull * i);

	if (!percpu)
		return k->base + (uint32_t)offset;
	return offset >= 0 ? (uint64_t)offset : k->base - 1 - offset;
}

static bool any_negative(const struct kallsyms *k)
{
	for (uint32_t i = 0; i < k->count; i++)
		if ((int32_t)get32(k->image + k->offsets + 4ull * i) < 0)
			return true;
	return false;
}

/* Symbols are sorted by address, per-CPU ones first. */
static bool offsets_at(struct kallsyms *k, size_t offsets, size_t base)
{
	uint64_t last = 0, addr;
	bool percpu;

	if (offsets + 4ull * k->count > k->size || base + 8 > k->size)
		return false;
	k->offsets = offsets;
	k->base = get64(k->image + base);
	if (k->base < TEXT_START || k->base > UINT64_MAX - SYMS_MAX)
		return false;
	percpu = any_negative(k);
	for (uint32_t i = 0; i < k->count; i++, last = addr) {
		addr = address(k, i, percpu);
		if (addr < last)
			return false;
	}
	return true;
}

static bool find_offsets(struct kallsyms *k)
{
	size_t bytes = align8(4ull * k->count), behind = k->token_index + TOKENS * 2;

	if (k->num_syms >= bytes + 8 && offsets_at(k, k->num_syms - 8 - bytes, k->num_syms - 8))
		return true;
	return offsets_at(k, behind, behind + bytes);
}

/* Writes the name to `to`, terminated, and its type to *type; returns its length, 0: too long. */
static size_t expand(const struct kallsyms *k, const uint8_t *tokens, unsigned n, char *type, char to[NAME_MAX_SIZE])
{
	size_t length = 0;

	for (unsigned i = 0; i < n; i++) {
		const char *t = (const char *)k->image + k->token_table + k->token[tokens[i]];
		size_t l = strlen(t);

		if (length + l >= NAME_MAX_SIZE)
			return 0;
		memcpy(to + length, t, l);
		length += l;
	}
	if (length < 2)
		return 0;
	*type = to[0];
	memmove(to, to + 1, --length);
	to[length] = 0;
	return length;
}

static int take_symbols(const struct kallsyms *k, struct symbols *s)
{
	size_t at = k->names, used = 0, room = 0;
	bool percpu = any_negative(k);
	char name[NAME_MAX_SIZE], type, *grown;
	const uint8_t *tokens;
	unsigned n;

	for (uint32_t i = 0; i < k->count; i++) {
		size_t length;

		next_name(k, &at, k->token_table, &tokens, &n);
		length = expand(k, tokens, n, &type, name);
		if (!length)
			continue;
		if (used + length + 1 > room) {
			room = room ? 2 * room : 1u << 20;
			grown = realloc(s->names, room);
			if (!grown)
				return -ENOMEM;
			s->names = grown;
		}
		memcpy(s->names + used, name, length + 1);
		if (symbols_add(s, address(k, i, percpu), used, 2 * (type != 'T' && type != 't') + (type != 'T')))
			return -ENOMEM;
		used += length + 1;
	}
	return 0;
}

static bool find_all(struct kallsyms *k)
{
	static const char digits[] = "0\0" "1\0" "2\0" "3\0" "4\0" "5\0" "6\0" "7\0" "8\0" "9";
	size_t at = 0;
	const uint8_t *p;

	while (at < k->size && (p = memmem(k->image + at, k->size - at, digits, sizeof digits))) {
		at = p - k->image;
		if (tokens_at(k, at) && find_names(k) && find_offsets(k))
			return true;
		at++;
	}
	return false;
}

int symbols_from_kallsyms(const uint8_t *image, size_t size, struct symbols **out)
{
	struct kallsyms k = { .image = image, .size = size, .budget = BUDGET };
	struct symbols *s;
	int r;

	if (!find_all(&k))
		return -ENOENT;
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	r = take_symbols(&k, s);
	if (!r) {
		symbols_finish(s);
		r = s->count ? 0 : -ENOENT;
	}
	if (r) {
		symbols_free(s);
		return r;
	}
	*out = s;
	return 0;
}
