/*
 * symbols_priv.h - a table of symbols, for the files that make one.
 */
#ifndef UMBRA_SYMBOLS_PRIV_H
#define UMBRA_SYMBOLS_PRIV_H

#include "vmm/symbols.h"

struct symbol {
	uint64_t addr;
	uint32_t name;		/* offset in symbols.names */
	uint32_t rank;		/* among symbols of one address the lowest is shown: global functions first */
};

struct symbols {
	char *names;		/* terminated by a NUL, whatever the file said */
	struct symbol *table;	/* by address, one per address */
	size_t count;
	size_t room;
};

/* `name`: offset in s->names. 0 or -ENOMEM. */
int symbols_add(struct symbols *s, uint64_t addr, size_t name, uint32_t rank);
/* Sorts, keeps one per address, and drops what can only mislead: a kernel in the upper half has per-CPU offsets and
 * absolute constants as "addresses" in the lower one, which would give a null pointer plus 0x18 a name. */
void symbols_finish(struct symbols *s);

#endif
