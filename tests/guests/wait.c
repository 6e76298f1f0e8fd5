/*
 * wait.c - a guest that goes on until the run is ended from outside: wait=block, spin or print; or, with wait=echo, until it
 * reads the line `quit`: every line of the console comes back, through the ring or, in the initial domain, console_io.
 */
#include "lib/events.h"
#include "lib/guest.h"

static volatile struct xencons_interface *ring;

static size_t read_console(char *to, size_t size)
{
	size_t n = 0;

	if (!ring) {
		long r = hcall3(console_io, CONSOLEIO_read, size, PTR(to));

		if (r < 0)
			test_fail("CONSOLEIO_read: %ld", r);
		return r < 0 ? 0 : (size_t)r;
	}
	while (n < size && ring->in_cons != ring->in_prod) {
		to[n++] = ring->in[ring->in_cons % sizeof(ring->in)];
		asm volatile("" ::: "memory");
		ring->in_cons++;
	}
	if (n)
		event_send(start_info->console.domU.evtchn);
	return n;
}

static void echo(void)
{
	char line[256], buf[64];
	size_t len = 0;

	if (start_info->flags & SIF_INITDOMAIN) {
		event_bind_virq(VIRQ_CONSOLE);
	} else {
		ring = mfn_to_va(start_info->console.domU.mfn);
		events_init();
		event_mask_port(start_info->console.domU.evtchn, false);
	}
	while (!test_failed()) {
		size_t n = read_console(buf, sizeof(buf));

		for (size_t i = 0; i < n; i++) {
			if (buf[i] != '\n' && len < sizeof(line) - 1) {
				line[len++] = buf[i];
				continue;
			}
			line[len] = 0;
			len = 0;
			say("echo: %s", line);
			if (!strcmp(line, "quit"))
				return;
		}
		if (!n)		/* an event that came since the read ends this at once */
			hcall2(sched_op, SCHEDOP_block, 0);
		events_mask();
	}
}

TEST(wait)
{
	const char *how = option("wait");
	bool spin = how && !strcmp(how, "spin"), print = how && !strcmp(how, "print");

	say("waiting");
	if (how && !strcmp(how, "echo"))
		return echo();
	for (uint64_t n = 0;; n++) {
		if (print)
			say("line %lu of a guest that does not stop printing", n);
		else if (!spin)
			hcall2(sched_op, SCHEDOP_block, 0);
	}
}
