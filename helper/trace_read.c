/*
 * trace_read.c - a file to a struct trace_log. The file may be anything: every length and number is checked before it is
 * used, and a trace that is not whole is refused, for half a run would give wrong counts without a word.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "helper/trace.h"
#include "helper/trace_format.h"

struct bytes {
	const uint8_t *at, *end;
};

struct parser {
	struct trace_log *log;
	struct trace_state state[TRACE_SOURCES];
	size_t room_items, room_entries;
	uint64_t records;	/* read so far */
	char *why;
	size_t why_size;
};

__attribute__((format(printf, 3, 4)))
static int fail(struct parser *p, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->why, p->why_size, fmt, ap);
	va_end(ap);
	return err;
}

static const void *take(struct bytes *b, size_t n)
{
	const void *at = b->at;

	if ((size_t)(b->end - b->at) < n)
		return NULL;
	b->at += n;
	return at;
}

/* ---- numbers: false at the end of the bytes, or for one that is too long ---------------------------------------------- */

static bool get_byte(struct bytes *b, unsigned *out)
{
	if (b->at == b->end)
		return false;
	*out = *b->at++;
	return true;
}

static bool get(struct bytes *b, uint64_t *out)
{
	unsigned byte;

	*out = 0;
	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (!get_byte(b, &byte))
			return false;
		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return shift < 63 || byte <= 1;
	}
	return false;
}

static bool get_diff(struct bytes *b, uint64_t *last)
{
	uint64_t d;

	if (!get(b, &d))
		return false;
	*last += trace_unfold(d);
	return true;
}

static bool get_value(struct bytes *b, struct trace_state *s, uint64_t *out)
{
	if (!get_diff(b, &s->value))
		return false;
	*out = trace_unturn(s->value);
	return true;
}

static bool get_index(struct bytes *b, uint16_t *out)
{
	uint64_t n;

	if (!get(b, &n) || n >= MMU_ENTRIES)
		return false;
	*out = n;
	return true;
}

static bool get_level(struct bytes *b, uint8_t *out)
{
	unsigned n;

	if (!get_byte(b, &n) || n < 1 || n > MMU_LEVELS)
		return false;
	*out = n;
	return true;
}

static bool get_table(struct bytes *b, struct trace_state *s, gfn_t *out)
{
	if (!get_diff(b, &s->table))
		return false;
	out->n = s->table;
	return true;
}

static bool get_root(struct bytes *b, struct trace_state *s, gfn_t *out)
{
	if (!get_diff(b, &s->root))
		return false;
	out->n = s->root;
	return true;
}

/* ---- records -------------------------------------------------------------------------------------------------------------- */

/* Room for one more element of `size`; NULL: no memory. */
static void *grow(void *array, size_t n, size_t *room, size_t size)
{
	if (n < *room)
		return array;
	*room = *room ? *room * 2 : 1024;
	return reallocarray(array, *room, size);
}

static bool get_event(struct bytes *b, struct trace_state *s, unsigned kind, struct helper_event *e)
{
	unsigned byte;

	switch (kind) {
	case REC_UPDATE:
		e->kind = HELPER_UPDATE;
		return get_table(b, s, &e->table) && get_index(b, &e->index) &&
		       (!(e->flags & HELPER_HAS_OLD) || get_value(b, s, &e->old)) &&
		       (!(e->flags & HELPER_HAS_NEW) || get_value(b, s, &e->new));
	case REC_PIN:
		e->kind = HELPER_PIN;
		return get_table(b, s, &e->table) && get_level(b, &e->level);
	case REC_UNPIN:
		e->kind = HELPER_UNPIN;
		return get_table(b, s, &e->table);
	case REC_FAULT:
		e->kind = HELPER_FAULT;
		if (!get_byte(b, &byte) || (byte & 3) > HELPER_FAULT_PTWRITE || byte >> 3 > MMU_LEVELS)
			return false;
		e->fault = byte & 3;
		e->mode = byte >> 2 & 1;
		e->level = byte >> 3;
		if (!get_table(b, s, &e->table) || !get_index(b, &e->index) || !get_root(b, s, &e->root) || !get_diff(b, &s->va))
			return false;
		e->va.a = s->va;
		return !(e->flags & HELPER_HAS_NEW) || get_value(b, s, &e->new);
	case REC_SWITCH:
		e->kind = HELPER_SWITCH;
		if (!get_byte(b, &byte) || byte > MMU_USER || !get_root(b, s, &e->root))
			return false;
		e->mode = byte;
		e->level = MMU_LEVELS;
		e->table = e->root;
		return true;
	case REC_SYNC:
		e->kind = HELPER_SYNC;
		return true;
	case REC_USED:
		e->kind = HELPER_USED;
		return get_table(b, s, &e->table) && get_index(b, &e->index);
	}
	return false;
}

static int get_entries(struct parser *p, struct bytes *b, struct trace_state *s, struct trace_item *item)
{
	struct trace_log *log = p->log;
	uint64_t count, index = 0, gap;

	if (!get_table(b, s, &item->event.table) || !get_level(b, &item->event.level) || !get(b, &count) || count > MMU_ENTRIES)
		return -EPROTO;
	item->first = log->nr_entries;
	item->count = count;
	for (uint64_t i = 0; i < count; i++) {
		struct trace_entry *grown = grow(log->entries, log->nr_entries, &p->room_entries, sizeof *grown), *e;

		if (!grown)
			return -ENOMEM;
		log->entries = grown;
		e = &log->entries[log->nr_entries++];
		if (!get(b, &gap) || gap >= MMU_ENTRIES || (i && !gap) || (index += gap) >= MMU_ENTRIES || !get_value(b, s, &e->gpte))
			return -EPROTO;
		e->index = index;
	}
	return 0;
}

static int get_record(struct parser *p, unsigned source, struct bytes *b)
{
	struct trace_log *log = p->log;
	struct trace_state *s = &p->state[source];
	struct trace_item *items = grow(log->items, log->nr_items, &p->room_items, sizeof *items), *item;
	unsigned head, kind;
	uint64_t n;

	if (!items)
		return -ENOMEM;
	log->items = items;
	item = &items[log->nr_items];
	*item = (struct trace_item){ 0 };
	if (!get_byte(b, &head) || !get(b, &n) || s->time_ns + n < s->time_ns)
		return -EPROTO;
	s->time_ns += n;
	kind = head & 15;
	item->event.time_ns = s->time_ns;
	item->event.vcpu = source < log->nr_sources ? source : 0;
	item->event.flags = head >> 4;
	switch (kind) {
	case REC_TABLE:
		item->kind = TRACE_TABLE;
		n = get_entries(p, b, s, item);
		if (n)
			return n;
		break;
	case REC_MARK:
		item->kind = TRACE_MARK;
		if (!get(b, &n) || n > UINT32_MAX)
			return -EPROTO;
		item->id = n;
		break;
	case REC_LOST:
		item->kind = TRACE_LOST;
		if (!get(b, &n))
			return -EPROTO;
		item->count = n < UINT32_MAX ? n : UINT32_MAX;
		break;
	default:
		item->kind = TRACE_EVENT;
		if (!get_event(b, s, kind, &item->event))
			return -EPROTO;
	}
	log->nr_items++;
	p->records++;
	return 0;
}

/* ---- the file ----------------------------------------------------------------------------------------------------------------- */

static int get_header(struct parser *p, struct bytes *b)
{
	const struct trace_header *at = take(b, sizeof *at);
	struct trace_header h;
	const char *text;

	if (!at || memcmp(at->magic, TRACE_MAGIC, sizeof at->magic))
		return fail(p, -EPROTO, "this is no trace of umbra");
	memcpy(&h, at, sizeof h);
	if (h.version != TRACE_VERSION)
		return fail(p, -EPROTO, "a trace of version %u; this umbra reads version %u", h.version, TRACE_VERSION);
	text = h.config_bytes <= TRACE_TEXT_MAX ? take(b, h.config_bytes) : NULL;
	if (!text || h.nr_sources < 2 || h.nr_sources > TRACE_SOURCES ||
	    trace_sum(trace_sum(TRACE_SUM, &h.nr_sources, 4), text, h.config_bytes) != h.config_sum)
		return fail(p, -EPROTO, "the header is damaged");
	p->log->nr_sources = h.nr_sources - 1;
	p->log->config = strndup(text, h.config_bytes);
	return p->log->config ? 0 : fail(p, -ENOMEM, "no memory");
}

static int get_end(struct parser *p, struct bytes chunk, const struct bytes *rest)
{
	const void *at = take(&chunk, sizeof(struct trace_end));
	struct trace_end end;

	if (!at || rest->at != rest->end)
		return fail(p, -EPROTO, "damaged at its end");
	memcpy(&end, at, sizeof end);
	if (end.records != p->records)
		return fail(p, -EPROTO, "%" PRIu64 " records are there, %" PRIu64 " were written", p->records, end.records);
	p->log->lost = end.lost;
	p->log->result = strndup((const char *)chunk.at, chunk.end - chunk.at);
	return p->log->result ? 0 : fail(p, -ENOMEM, "no memory");
}

/* 1: that was the end. */
static int get_chunk(struct parser *p, struct bytes *b, size_t offset)
{
	const void *at = take(b, sizeof(struct trace_chunk));
	struct trace_chunk c;
	struct bytes chunk;
	int r = 0;

	if (at)
		memcpy(&c, at, sizeof c);
	chunk.at = at ? take(b, c.bytes) : NULL;
	if (!chunk.at)
		return fail(p, -EPROTO, "truncated: it ends within the chunk at byte %zu. The run that wrote it did not end well",
			    offset);
	chunk.end = chunk.at + c.bytes;
	if (c.zero || trace_sum(trace_sum(TRACE_SUM, &c.source, 4), chunk.at, c.bytes) != c.sum)
		return fail(p, -EPROTO, "damaged: the chunk at byte %zu is not what was written", offset);
	if (c.source == TRACE_END) {
		r = get_end(p, chunk, b);
		return r ? r : 1;
	}
	if (c.source > p->log->nr_sources)
		return fail(p, -EPROTO, "damaged: the chunk at byte %zu is of no source", offset);
	while (!r && chunk.at < chunk.end)
		r = get_record(p, c.source, &chunk);
	if (r == -EPROTO)
		return fail(p, r, "damaged: a record in the chunk at byte %zu makes no sense", offset);
	return r ? fail(p, r, "no memory") : 0;
}

static bool not_later(const struct trace_item *a, const struct trace_item *b)
{
	return a->event.time_ns <= b->event.time_ns;
}

/* By time, and stable, so that a table stays beside the event it belongs to. */
static int sort(struct trace_log *log)
{
	struct trace_item *from = log->items, *to, *swap;
	size_t n = log->nr_items;

	to = n ? reallocarray(NULL, n, sizeof *to) : NULL;
	if (n && !to)
		return -ENOMEM;
	for (size_t width = 1; width < n; width *= 2) {
		for (size_t i = 0; i < n; i += 2 * width) {
			size_t mid = i + width < n ? i + width : n, end = i + 2 * width < n ? i + 2 * width : n;
			size_t a = i, c = mid;

			for (size_t k = i; k < end; k++)
				to[k] = a < mid && (c == end || not_later(&from[a], &from[c])) ? from[a++] : from[c++];
		}
		swap = from;
		from = to;
		to = swap;
	}
	log->items = from;
	free(to);
	return 0;
}

int trace_parse(const void *data, size_t size, struct trace_log *out, char *why, size_t why_size)
{
	struct parser *p = calloc(1, sizeof *p);
	struct bytes b = { data, (const uint8_t *)data + size };
	int r;

	memset(out, 0, sizeof *out);
	if (!p) {
		snprintf(why, why_size, "no memory");
		return -ENOMEM;
	}
	p->log = out;
	p->why = why;
	p->why_size = why_size;
	out->bytes = size;
	r = get_header(p, &b);
	while (!r)
		r = get_chunk(p, &b, (const char *)b.at - (const char *)data);
	if (r == 1)
		r = sort(out) ? fail(p, -ENOMEM, "no memory") : 0;
	free(p);
	if (r)
		trace_free(out);
	return r;
}

int trace_load(const char *path, struct trace_log *out, char *why, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct stat st;
	void *data;

	memset(out, 0, sizeof *out);
	if (fd < 0 || fstat(fd, &st)) {
		r = -errno;
		snprintf(why, size, "%s", strerror(-r));
		if (fd >= 0)
			close(fd);
		return r;
	}
	data = S_ISREG(st.st_mode) && st.st_size ? mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	close(fd);
	if (data == MAP_FAILED) {
		snprintf(why, size, "%s", S_ISREG(st.st_mode) ? "this is no trace of umbra" : "not a file");
		return -EPROTO;
	}
	r = trace_parse(data, st.st_size, out, why, size);
	munmap(data, st.st_size);
	return r;
}

void trace_free(struct trace_log *log)
{
	free(log->config);
	free(log->result);
	free(log->items);
	free(log->entries);
	memset(log, 0, sizeof *log);
}
