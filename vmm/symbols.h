/*
 * symbols.h - names for kernel addresses, for crash dumps. Best effort: no table is no error for a caller who can do
 * without names.
 *
 * Functions return 0 or -errno. A table does not change once made: any number of threads may look up in it.
 */
#ifndef UMBRA_SYMBOLS_H
#define UMBRA_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/image.h"

struct symbols;

/* From the image's .symtab, copied: the image may be closed before the table. -ENOENT: it has none (a bzImage's payload
 * is stripped), -EBADMSG: it has a damaged one, -ENOMEM. */
int symbols_from_image(const struct image *img, struct symbols **out);

/* From a System.map or a copy of /proc/kallsyms: lines of "address type name". Files up to `limit` bytes. Errors as
 * image_read_file(), and -ENOEXEC: a line that is neither, or a file without symbols (Debian's /boot/System.map is a
 * stub; the real one is in linux-image-*-dbg). */
int symbols_load(const char *path, uint64_t limit, struct symbols **out, struct image_error *err);

/* From the kernel's own kallsyms tables in its read-only data, which a stripped kernel has, too: x86-64 Linux 5.10 to 6.12.
 * `image`: its ELF file, or its memory; hostile. -ENOENT: there are none; -ENOMEM. */
int symbols_from_kallsyms(const uint8_t *image, size_t size, struct symbols **out);

void symbols_free(struct symbols *syms);	/* NULL is fine */

size_t symbols_count(const struct symbols *syms);

/* Where the symbol that covers `addr` starts. False: none does, or `syms` is NULL. */
bool symbols_start(const struct symbols *syms, uint64_t addr, uint64_t *start);

/*
 * Writes "name+0x12" for `addr` to buf ("name" where the offset is 0), or "0x<addr>" if no symbol covers it or `syms`
 * is NULL. Always terminated, cut to `size` bytes (at least 1). Returns buf. Never fails or allocates.
 */
const char *symbols_name(const struct symbols *syms, uint64_t addr, char *buf, size_t size);

#endif
