/*
 * profile_set.c - a hash table of stacks, and its contents as folded lines.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/profile.h"
#include "vmm/profile_vmm.h"
#include "vmm/symbols.h"

#define STACKS_MAX	(1u << 16)	/* different ones: at most 32 MiB, touched as needed */
#define SLOTS		(2 * STACKS_MAX)

struct entry {
	uint64_t times;
	struct profile_stack stack;
};

struct profile_set {
	struct entry *entries;		/* STACKS_MAX, `n` of them used */
	uint32_t *slots;		/* place in entries + 1; 0: free */
	uint32_t n;
	uint64_t samples, lost;
};

struct profile_set *profile_set_create(void)
{
	struct profile_set *set = calloc(1, sizeof *set);

	if (!set)
		return NULL;
	set->entries = calloc(STACKS_MAX, sizeof *set->entries);
	set->slots = calloc(SLOTS, sizeof *set->slots);
	if (set->entries && set->slots)
		return set;
	profile_set_destroy(set);
	return NULL;
}

void profile_set_destroy(struct profile_set *set)
{
	if (!set)
		return;
	free(set->entries);
	free(set->slots);
	free(set);
}

static uint32_t hash(const struct profile_stack *s)
{
	uint64_t h = s->depth * 2 + s->user;

	for (uint32_t i = 0; i < s->depth; i++)
		h = (h ^ s->frame[i].addr ^ s->frame[i].place) * 0x9e3779b97f4a7c15;
	return h >> 40;
}

static bool equal(const struct profile_stack *a, const struct profile_stack *b)
{
	return a->depth == b->depth && a->user == b->user && !memcmp(a->frame, b->frame, a->depth * sizeof *a->frame);
}

void profile_set_add(struct profile_set *set, const struct profile_stack *stack, uint64_t times)
{
	uint32_t slot = hash(stack) % SLOTS;
	struct entry *e;

	set->samples += times;
	for (; set->slots[slot]; slot = (slot + 1) % SLOTS) {
		e = &set->entries[set->slots[slot] - 1];
		if (equal(&e->stack, stack)) {
			e->times += times;
			return;
		}
	}
	if (set->n == STACKS_MAX) {
		set->lost += times;
		return;
	}
	e = &set->entries[set->n++];
	e->times = times;
	e->stack.depth = stack->depth;
	e->stack.user = stack->user;
	memcpy(e->stack.frame, stack->frame, stack->depth * sizeof *stack->frame);
	set->slots[slot] = set->n;
}

void profile_set_merge(struct profile_set *to, const struct profile_set *from)
{
	for (uint32_t i = 0; i < from->n; i++)
		profile_set_add(to, &from->entries[i].stack, from->entries[i].times);
	to->samples += from->lost;
	to->lost += from->lost;
}

uint64_t profile_set_samples(const struct profile_set *set)
{
	return set->samples;
}

uint64_t profile_set_lost(const struct profile_set *set)
{
	return set->lost;
}

/* ---- folded lines -------------------------------------------------------------------------------------------------- */

static void print_frame(FILE *f, const struct profile_frame *frame, const struct symbols *syms)
{
	char name[128];

	switch (frame->place) {
	case PROFILE_KERNEL:
		symbols_name(syms, frame->addr, name, sizeof name);
		for (char *p = name; *p; p++)	/* what separates frames is in no name of C */
			if (*p == ';' || *p == ' ')
				*p = '?';
		fputs(name, f);
		break;
	case PROFILE_USER:
		fprintf(f, "0x%" PRIx64, frame->addr);
		break;
	case PROFILE_GATE:
		fputs("[gate]", f);
		break;
	case PROFILE_SHIM:
		fputs("[shim]", f);
		break;
	default:
		fprintf(f, "[umbra:%s]", profile_vmm_name(frame->addr, name, sizeof name));
	}
}

static void print_stack(FILE *f, const struct entry *e, const struct symbols *syms)
{
	fputs(e->stack.user ? "user" : "kernel", f);
	for (uint32_t i = e->stack.depth; i--; ) {
		fputc(';', f);
		print_frame(f, &e->stack.frame[i], syms);
	}
	fputc('\n', f);
}

struct line {
	char *text;
	uint64_t times;
};

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->text, ((const struct line *)b)->text);
}

/* Lines that read the same are one: functions may share a name, and 'lost' is one more. */
static char *join(struct line *lines, uint32_t n, uint64_t lost)
{
	size_t size;
	char *out = NULL;
	FILE *f = open_memstream(&out, &size);

	if (!f)
		return NULL;
	qsort(lines, n, sizeof *lines, by_text);
	for (uint32_t i = 0, next; i < n; i = next) {
		uint64_t times = 0;

		for (next = i; next < n && !strcmp(lines[i].text, lines[next].text); next++)
			times += lines[next].times;
		fprintf(f, "%s %" PRIu64 "\n", lines[i].text, times);
	}
	if (lost)
		fprintf(f, "lost %" PRIu64 "\n", lost);
	if (!fclose(f))
		return out;
	free(out);
	return NULL;
}

char *profile_set_folded(const struct profile_set *set, const struct symbols *syms)
{
	struct line *lines = calloc(set->n ? set->n : 1, sizeof *lines);
	char *text = NULL, *at, *out = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!lines || !f)
		goto out;
	for (uint32_t i = 0; i < set->n; i++)
		print_stack(f, &set->entries[i], syms);
	if (fclose(f)) {
		f = NULL;
		goto out;
	}
	f = NULL;
	at = text;
	for (uint32_t i = 0; i < set->n; i++) {
		lines[i] = (struct line){ at, set->entries[i].times };
		at += strcspn(at, "\n");
		*at++ = 0;
	}
	out = join(lines, set->n, set->lost);
out:
	if (f)
		fclose(f);
	free(text);
	free(lines);
	return out;
}
