/*
 * xencons.h - the shared page of Xen's PV console (xen/io/console.h), seen from the console daemon's side.
 *
 * The guest writes the page whenever it likes. Its two indices are copied once and checked; ours live here, and their
 * copies in the page are for the guest to read: what it stores over them does not matter.
 */
#ifndef UMBRA_VMM_XENCONS_H
#define UMBRA_VMM_XENCONS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct xencons_interface;

struct xencons {
	struct xencons_interface *page;	/* NULL: no ring */
	uint32_t out_cons, in_prod;
};

/* Takes over a page that nobody has used yet; NULL lets go of it. One thread at a time calls these functions. */
void xencons_attach(struct xencons *ring, void *page);
/* Moves at most `max` bytes of the guest's output into `to`. Returns how many; -EPROTO: the guest's index makes no
 * sense, what the ring held is given up. *fill, if not NULL: the bytes that were waiting. */
ssize_t xencons_take(struct xencons *ring, char *to, size_t max, size_t *fill);
/* Appends input as far as there is room. Returns how many bytes; -EPROTO as above. */
ssize_t xencons_put(struct xencons *ring, const char *from, size_t bytes);
/* Takes input back that the guest has not read: at most `max` bytes, the oldest first; the rest is dropped. */
size_t xencons_unput(struct xencons *ring, char *to, size_t max);

#endif
