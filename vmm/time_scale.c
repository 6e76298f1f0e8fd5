/* time_scale.c - TSC ticks to ns in the fixed point that guests use (struct vcpu_time_info in xen/xen.h). */
#include "vmm/xen_clock.h"

#define NS_PER_S	1000000000ull

struct time_scale time_scale_from_khz(uint64_t khz)
{
	uint64_t hz = khz * 1000;
	int8_t shift = 0;

	/* mul = 2^32 * 10^9 / (hz * 2^shift) has to fit 32 bits, with as many of them used as can be. */
	while (hz > 2 * NS_PER_S) {
		hz >>= 1;
		shift--;
	}
	while (hz <= NS_PER_S) {
		hz <<= 1;
		shift++;
	}
	return (struct time_scale){ .mul = ((unsigned __int128)NS_PER_S << 32) / hz, .shift = shift };
}

uint64_t time_scale_ns(struct time_scale s, uint64_t ticks)
{
	ticks = s.shift < 0 ? ticks >> -s.shift : ticks << s.shift;
	return (unsigned __int128)ticks * s.mul >> 32;
}
