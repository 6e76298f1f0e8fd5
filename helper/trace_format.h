/*
 * trace_format.h - the bytes of a trace, for its writer and its reader. All numbers are little-endian.
 *
 *	file	header, config text, chunks, end chunk
 *	chunk	chunk header, payload: whole records of one source
 *	record	head byte (kind in the low half, HELPER_* flags in the high), varint of ns since the source's last, then
 *		UPDATE	table, index, [old], [new]
 *		PIN	table, level		UNPIN	table
 *		FAULT	byte (class | mode << 2 | level << 3), table, index, root, va, [new]
 *		SWITCH	mode, root		USED	table, index
 *		TABLE	table, level, count, then count times (index since the last, value)
 *		SYNC	nothing
 *		MARK	id			LOST	count
 *
 * Numbers are varints of 7 bits a byte, the lowest first. Tables, roots, addresses and values are differences to the last of
 * their kind in the stream, folded so that small ones of either sign are short. A value is turned left by one bit first:
 * NX is then the lowest.
 */
#ifndef UMBRA_HELPER_TRACE_FORMAT_H
#define UMBRA_HELPER_TRACE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_MAGIC	"UMBRATRC"
#define TRACE_END	0xffffffffu	/* the source of the end chunk */
#define TRACE_TEXT_MAX	(1u << 20)	/* config and result */
#define TRACE_SOURCES	65u		/* at most, the marks' included */
#define TRACE_RECORD_MAX (64u + 512 * 13)	/* bytes */

enum {
	REC_UPDATE, REC_PIN, REC_UNPIN, REC_FAULT, REC_SWITCH, REC_USED, REC_SYNC,
	REC_TABLE = 8, REC_MARK, REC_LOST,
};

struct trace_header {
	char magic[8];
	uint32_t version, nr_sources;
	uint32_t config_bytes, config_sum;	/* the sum of nr_sources and the text */
};

struct trace_chunk {
	uint32_t source, bytes;
	uint32_t sum, zero;	/* sum: of source and payload */
};

struct trace_end {		/* then the result text */
	uint64_t records, lost;
};

/* What differences are taken to. */
struct trace_state {
	uint64_t time_ns, table, root, va, value;
};

/* FNV-1a. */
static inline uint32_t trace_sum(uint32_t sum, const void *data, size_t n)
{
	const uint8_t *p = data;

	while (n--)
		sum = (sum ^ *p++) * 16777619u;
	return sum;
}
#define TRACE_SUM	2166136261u

static inline uint64_t trace_fold(uint64_t d)
{
	return d << 1 ^ -(d >> 63);
}

static inline uint64_t trace_unfold(uint64_t n)
{
	return n >> 1 ^ -(n & 1);
}

static inline uint64_t trace_turn(uint64_t v)
{
	return v << 1 | v >> 63;
}

static inline uint64_t trace_unturn(uint64_t v)
{
	return v >> 1 | v << 63;
}

#endif
