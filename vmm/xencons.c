/*
 * xencons.c - the shared page of Xen's PV console.
 */
#include <errno.h>

#include "vmm/xen.h"
#include "vmm/xencons.h"

#define OUT_SIZE	(sizeof ((struct xencons_interface *)0)->out)
#define IN_SIZE		(sizeof ((struct xencons_interface *)0)->in)

static uint32_t guest_index(const XENCONS_RING_IDX *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* Ordered after the bytes that it covers were copied. */
static void publish(XENCONS_RING_IDX *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

void xencons_attach(struct xencons *ring, void *page)
{
	*ring = (struct xencons){ .page = page };
	if (!page)
		return;
	publish(&ring->page->out_cons, 0);
	publish(&ring->page->in_prod, 0);
}

ssize_t xencons_take(struct xencons *ring, char *to, size_t max, size_t *fill)
{
	struct xencons_interface *page = ring->page;
	uint32_t prod, waiting, n;

	if (fill)
		*fill = 0;
	if (!page)
		return 0;
	prod = guest_index(&page->out_prod);
	waiting = prod - ring->out_cons;
	if (waiting > OUT_SIZE) {
		ring->out_cons = prod;
		publish(&page->out_cons, prod);
		return -EPROTO;
	}
	n = waiting < max ? waiting : max;
	for (uint32_t i = 0; i < n; i++)
		to[i] = page->out[MASK_XENCONS_IDX(ring->out_cons + i, page->out)];
	ring->out_cons += n;
	if (n)
		publish(&page->out_cons, ring->out_cons);
	if (fill)
		*fill = waiting;
	return n;
}

ssize_t xencons_put(struct xencons *ring, const char *from, size_t bytes)
{
	struct xencons_interface *page = ring->page;
	uint32_t cons, room, n;

	if (!page)
		return 0;
	cons = guest_index(&page->in_cons);
	if (ring->in_prod - cons > IN_SIZE) {
		ring->in_prod = cons;
		publish(&page->in_prod, cons);
		return -EPROTO;
	}
	room = IN_SIZE - (ring->in_prod - cons);
	n = bytes < room ? bytes : room;
	for (uint32_t i = 0; i < n; i++)
		page->in[MASK_XENCONS_IDX(ring->in_prod + i, page->in)] = from[i];
	ring->in_prod += n;
	if (n)
		publish(&page->in_prod, ring->in_prod);
	return n;
}

size_t xencons_unput(struct xencons *ring, char *to, size_t max)
{
	struct xencons_interface *page = ring->page;
	uint32_t cons, unread, n;

	if (!page)
		return 0;
	cons = guest_index(&page->in_cons);
	unread = ring->in_prod - cons;
	if (unread > IN_SIZE)
		unread = 0;
	n = unread < max ? unread : max;
	for (uint32_t i = 0; i < n; i++)
		to[i] = page->in[MASK_XENCONS_IDX(cons + i, page->in)];
	ring->in_prod = cons;
	publish(&page->in_prod, cons);
	return n;
}
