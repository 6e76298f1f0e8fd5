/*
 * probe.h - static probes (USDT) of the whole program: PROBE(name, up to 12 integers). docs/perf.md documents each.
 *
 * A probe is one nop and a note in the file's .note.stapsdt; nothing tests whether it is used. Its arguments should be
 * values that the code has at hand anyway: they are kept, not computed. Without <sys/sdt.h> (Debian: systemtap-sdt-dev),
 * or with -DUMBRA_NO_PROBES, a probe is nothing at all. Not for code that runs inside the guest.
 */
#ifndef UMBRA_MMU_PROBE_H
#define UMBRA_MMU_PROBE_H

#if !defined(UMBRA_NO_PROBES) && __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC 1	/* STAP_PROBEV() */
#include <sys/sdt.h>
#define PROBE(name, ...)	STAP_PROBEV(umbra, name, __VA_ARGS__)
#else
#define PROBE(name, ...)	((void)sizeof((unsigned long long[]){ __VA_ARGS__ }))
#endif

#endif
