/*
 * events.h - a handler for event upcalls that counts per port.
 */
#ifndef TESTS_GUESTS_EVENTS_H
#define TESTS_GUESTS_EVENTS_H

#include "lib/guest.h"

void events_init(void);				/* installs the handler; idempotent */
void event_reset(void);				/* counts to 0; events_init() included */
unsigned event_count(uint32_t port);
extern struct regs event_frame;			/* the last upcall's */
extern uint8_t event_mask_inside;		/* evtchn_upcall_mask as the handler found it */

uint32_t event_bind_ipi(void);			/* a new port, unmasked */
uint32_t event_bind_virq(uint32_t virq);	/* the port of a virq, unmasked; bound once */
long event_send(uint32_t port);
long event_close(uint32_t port);
void event_mask_port(uint32_t port, bool masked);
void event_clear_pending(uint32_t port);
void event_owned(uint32_t port);		/* remembers it for event_close_owned() */
void event_close_owned(void);

#endif
