/*
 * trace_write.c - events to bytes, in a ring per source, and the thread that brings the rings to the file.
 *
 * A source's ring has one writer, who encodes in place of copying, and one reader, the thread. It looks every LOOK_MS;
 * nobody wakes it, so that a vCPU never makes a system call for a trace.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "helper/trace.h"
#include "helper/trace_format.h"

#define ROOM		(8u << 20)	/* seconds of a boot: writing to a file may stall */
#define LOOK_MS		20
#define TABLES_AT_ONCE	64u		/* told of with one event */

struct stream {
	_Alignas(64) _Atomic uint64_t head;	/* the writer's, with the rest of this line */
	struct trace_state state;
	uint64_t records, lost;
	uint64_t lost_untold;
	uint8_t *level;			/* [gfn] of the table there whose contents the trace tells; 0: of none */
	_Alignas(64) _Atomic uint64_t tail;	/* the thread's */
	uint8_t *ring;
};

struct trace {
	struct trace_config config;
	size_t room;			/* a power of two */
	unsigned nr_streams;		/* sources, then the marks' */
	struct stream *streams;
	FILE *file;
	int error;			/* the thread's: writing ended with it */
	uint64_t bytes;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stop;
	pthread_mutex_t mark_lock;
};

/* ---- encoding --------------------------------------------------------------------------------------------------------- */

struct record {
	struct trace_state state;	/* as it will be */
	unsigned n;
	uint8_t bytes[TRACE_RECORD_MAX];
};

static void put_byte(struct record *r, unsigned byte)
{
	r->bytes[r->n++] = byte;
}

static void put(struct record *r, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		put_byte(r, v | 0x80);
	put_byte(r, v);
}

static void put_diff(struct record *r, uint64_t *last, uint64_t now)
{
	put(r, trace_fold(now - *last));
	*last = now;
}

static void put_value(struct record *r, uint64_t value)
{
	put_diff(r, &r->state.value, trace_turn(value));
}

static void begin(const struct stream *s, struct record *r, unsigned kind, unsigned flags, uint64_t time_ns)
{
	uint64_t now = time_ns > s->state.time_ns ? time_ns : s->state.time_ns;

	r->state = s->state;
	r->n = 0;
	put_byte(r, kind | flags << 4);
	put(r, now - r->state.time_ns);
	r->state.time_ns = now;
}

/* ---- into the ring ------------------------------------------------------------------------------------------------------ */

static bool push(struct trace *t, struct stream *s, const struct record *r)
{
	uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
	size_t at = head & (t->room - 1), first = t->room - at;

	if (head + r->n - atomic_load_explicit(&s->tail, memory_order_acquire) > t->room)
		return false;
	if (first > r->n)
		first = r->n;
	memcpy(s->ring + at, r->bytes, first);
	memcpy(s->ring, r->bytes + first, r->n - first);
	s->state = r->state;
	s->records++;
	atomic_store_explicit(&s->head, head + r->n, memory_order_release);
	return true;
}

static void emit(struct trace *t, struct stream *s, struct record *r, uint64_t time_ns)
{
	if (s->lost_untold) {
		struct record lost;

		/* `r` was encoded against the state before this one; LOST changes the time alone, and by nothing. */
		begin(s, &lost, REC_LOST, 0, s->state.time_ns);
		put(&lost, s->lost_untold);
		if (push(t, s, &lost))
			s->lost_untold = 0;
	}
	if (s->lost_untold || !push(t, s, r)) {
		s->lost_untold++;
		s->lost++;
	}
}

/* ---- events ----------------------------------------------------------------------------------------------------------------- */

#define LINE	8u	/* entries */

static bool is_empty(const uint64_t *entries)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < LINE; i++)
		any |= __atomic_load_n(&entries[i], __ATOMIC_RELAXED);
	return !any;
}

static void emit_table(struct trace *t, struct stream *s, gfn_t table, unsigned level, uint64_t time_ns)
{
	const uint64_t *entries = t->config.table(t->config.arg, table);
	unsigned count = 0, last = 0, at;
	struct record r;

	if (!entries || table.n >= t->config.nr_gfns)
		return;
	begin(s, &r, REC_TABLE, 0, time_ns);
	put_diff(&r, &r.state.table, table.n);
	put_byte(&r, level);
	at = r.n;
	r.n += 2;
	for (unsigned i = 0; i < MMU_ENTRIES; i++) {
		uint64_t gpte;

		if (i % LINE == 0 && is_empty(entries + i)) {
			i += LINE - 1;
			continue;
		}
		gpte = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);
		if (!gpte)
			continue;
		put(&r, i - last);
		put_value(&r, gpte);
		last = i;
		count++;
	}
	r.bytes[at] = count | 0x80;	/* in two bytes, whatever it is */
	r.bytes[at + 1] = count >> 7;
	emit(t, s, &r, time_ns);
	s->level[table.n] = level;
}

static bool is_link(uint64_t gpte)
{
	return (gpte & (MMU_PTE_P | MMU_PTE_PS)) == MMU_PTE_P;
}

static gfn_t frame(uint64_t gpte)
{
	return (gfn_t){ (gpte & MMU_PTE_ADDR) >> MMU_PAGE_SHIFT };
}

/*
 * Tables below one that was just told of. Linux pins roots and leaf tables; those between come and go by links alone, so what
 * the trace knows of them is old whenever a root is pinned. Kernel halves are shared and stay. Bounded: `left` tables.
 */
static void emit_below(struct trace *t, struct stream *s, gfn_t table, unsigned level, uint64_t time_ns, unsigned *left)
{
	const uint64_t *entries = t->config.table(t->config.arg, table);

	for (unsigned i = 0; entries && level > 1 && i < MMU_ENTRIES; i++) {
		uint64_t gpte = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);
		gfn_t child = frame(gpte);
		bool old = level == 2 || (level == MMU_LEVELS && i >= MMU_ENTRIES / 2);

		if (!is_link(gpte) || child.n >= t->config.nr_gfns || (old && s->level[child.n] == level - 1))
			continue;
		if (!*left)
			return;
		--*left;
		emit_table(t, s, child, level - 1, time_ns);
		emit_below(t, s, child, level - 1, time_ns, left);
	}
}

/* The tables on the way of a fault, as far as they are new. Whatever the guest has there, it is four loads. */
static void emit_path(struct trace *t, struct stream *s, const struct helper_event *e)
{
	gfn_t table = e->root;

	for (unsigned level = MMU_LEVELS; level >= 1; level--) {
		const uint64_t *entries = table.n < t->config.nr_gfns ? t->config.table(t->config.arg, table) : NULL;
		unsigned index = e->va.a >> (MMU_PAGE_SHIFT + 9 * (level - 1)) & (MMU_ENTRIES - 1);
		uint64_t gpte;

		if (!entries)
			return;
		if (s->level[table.n] != level)
			emit_table(t, s, table, level, e->time_ns);
		gpte = __atomic_load_n(&entries[index], __ATOMIC_RELAXED);
		if (!is_link(gpte))
			return;
		table = frame(gpte);
	}
}

static void encode(const struct stream *s, struct record *r, const struct helper_event *e)
{
	static const uint8_t kinds[] = {
		[HELPER_UPDATE] = REC_UPDATE, [HELPER_PIN] = REC_PIN, [HELPER_UNPIN] = REC_UNPIN, [HELPER_FAULT] = REC_FAULT,
		[HELPER_SWITCH] = REC_SWITCH, [HELPER_USED] = REC_USED, [HELPER_SYNC] = REC_SYNC,
	};

	begin(s, r, kinds[e->kind], e->flags & 15, e->time_ns);
	switch (e->kind) {
	case HELPER_UPDATE:
		put_diff(r, &r->state.table, e->table.n);
		put(r, e->index);
		if (e->flags & HELPER_HAS_OLD)
			put_value(r, e->old);
		break;
	case HELPER_PIN:
		put_diff(r, &r->state.table, e->table.n);
		put_byte(r, e->level);
		return;
	case HELPER_UNPIN:
		put_diff(r, &r->state.table, e->table.n);
		return;
	case HELPER_FAULT:
		put_byte(r, e->fault | e->mode << 2 | e->level << 3);
		put_diff(r, &r->state.table, e->table.n);
		put(r, e->index);
		put_diff(r, &r->state.root, e->root.n);
		put_diff(r, &r->state.va, e->va.a);
		break;
	case HELPER_SWITCH:
		put_byte(r, e->mode);
		put_diff(r, &r->state.root, e->root.n);
		return;
	case HELPER_SYNC:
		return;
	case HELPER_USED:
		put_diff(r, &r->state.table, e->table.n);
		put(r, e->index);
		return;
	}
	if (e->flags & HELPER_HAS_NEW)
		put_value(r, e->new);
}

void trace_event(struct trace *t, unsigned source, const struct helper_event *e)
{
	struct stream *s = &t->streams[source];
	unsigned left = TABLES_AT_ONCE, level;
	struct record r;

	if (e->kind >= HELPER_EVENT_KINDS || e->index >= MMU_ENTRIES || e->level > MMU_LEVELS)
		return;
	if (e->kind == HELPER_FAULT)
		emit_path(t, s, e);
	else if (e->kind == HELPER_UNPIN && e->table.n < t->config.nr_gfns)
		s->level[e->table.n] = 0;
	encode(s, &r, e);
	emit(t, s, &r, e->time_ns);
	if (e->kind == HELPER_PIN) {
		emit_table(t, s, e->table, e->level, e->time_ns);
		emit_below(t, s, e->table, e->level, e->time_ns, &left);
	} else if (e->kind == HELPER_UPDATE && (e->flags & HELPER_HAS_NEW) && e->table.n < t->config.nr_gfns) {
		/* A table that begins, or another one in the same frame. */
		level = s->level[e->table.n];
		if (level > 1 && is_link(e->new)) {
			emit_table(t, s, frame(e->new), level - 1, e->time_ns);
			emit_below(t, s, frame(e->new), level - 1, e->time_ns, &left);
		}
	}
}

void trace_mark(struct trace *t, uint64_t time_ns, uint32_t id)
{
	struct stream *s = &t->streams[t->nr_streams - 1];
	struct record r;

	pthread_mutex_lock(&t->mark_lock);
	begin(s, &r, REC_MARK, 0, time_ns);
	put(&r, id);
	emit(t, s, &r, time_ns);
	pthread_mutex_unlock(&t->mark_lock);
}

/* ---- the thread ------------------------------------------------------------------------------------------------------------ */

static void write_bytes(struct trace *t, const void *data, size_t n)
{
	errno = 0;
	if (!t->error && n && fwrite(data, n, 1, t->file) != 1)
		t->error = errno ? -errno : -EIO;
	t->bytes += n;
}

static void write_chunk(struct trace *t, uint32_t source, const void *a, size_t a_size, const void *b, size_t b_size)
{
	struct trace_chunk c = { .source = source, .bytes = a_size + b_size,
				 .sum = trace_sum(trace_sum(trace_sum(TRACE_SUM, &source, 4), a, a_size), b, b_size) };

	write_bytes(t, &c, sizeof c);
	write_bytes(t, a, a_size);
	write_bytes(t, b, b_size);
}

static void drain(struct trace *t)
{
	for (unsigned i = 0; i < t->nr_streams; i++) {
		struct stream *s = &t->streams[i];
		uint64_t tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
		uint64_t n = atomic_load_explicit(&s->head, memory_order_acquire) - tail;
		size_t at = tail & (t->room - 1), first = t->room - at;

		if (!n)
			continue;
		if (first > n)
			first = n;
		write_chunk(t, i, s->ring + at, first, s->ring, n - first);
		atomic_store_explicit(&s->tail, tail + n, memory_order_release);
	}
}

static void *trace_thread(void *arg)
{
	struct trace *t = arg;
	struct timespec until;

	pthread_setname_np(pthread_self(), "trace");
	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += LOOK_MS * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&t->wake, &t->lock, &until);
		pthread_mutex_unlock(&t->lock);
		drain(t);
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* ---- begin and end ----------------------------------------------------------------------------------------------------------- */

static void release(struct trace *t)
{
	for (unsigned i = 0; t->streams && i < t->nr_streams; i++) {
		free(t->streams[i].ring);
		free(t->streams[i].level);
	}
	free(t->streams);
	free(t);
}

static int make_streams(struct trace *t)
{
	t->streams = aligned_alloc(64, t->nr_streams * sizeof *t->streams);
	if (!t->streams)
		return -ENOMEM;
	memset(t->streams, 0, t->nr_streams * sizeof *t->streams);
	for (unsigned i = 0; i < t->nr_streams; i++) {
		t->streams[i].ring = malloc(t->room);
		t->streams[i].level = calloc(1, t->config.nr_gfns);
		if (!t->streams[i].ring || !t->streams[i].level)
			return -ENOMEM;
	}
	return 0;
}

static void write_header(struct trace *t, const char *config)
{
	struct trace_header h = { .version = TRACE_VERSION, .nr_sources = t->nr_streams, .config_bytes = strlen(config),
				  .config_sum = trace_sum(trace_sum(TRACE_SUM, &t->nr_streams, 4), config, strlen(config)) };

	memcpy(h.magic, TRACE_MAGIC, sizeof h.magic);
	write_bytes(t, &h, sizeof h);
	write_bytes(t, config, h.config_bytes);
}

int trace_create(const struct trace_config *config, struct trace **out)
{
	struct trace *t;
	pthread_condattr_t attr;
	int r = -ENOMEM;

	if (!config->nr_sources || config->nr_sources >= TRACE_SOURCES || strlen(config->config) > TRACE_TEXT_MAX)
		return -EINVAL;
	t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->config = *config;
	t->config.config = NULL;	/* the caller's */
	t->nr_streams = config->nr_sources + 1;
	for (t->room = 2 * TRACE_RECORD_MAX; t->room < (config->room ? config->room : ROOM); )
		t->room *= 2;
	t->room = 1ull << (63 - __builtin_clzll(t->room));
	r = make_streams(t);
	if (r)
		goto fail;
	t->file = fopen(config->path, "wbe");
	if (!t->file) {
		r = -errno;
		goto fail;
	}
	write_header(t, config->config);
	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->mark_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->wake, &attr);
	pthread_condattr_destroy(&attr);
	r = -pthread_create(&t->thread, NULL, trace_thread, t);
	if (r) {
		fclose(t->file);
		goto fail;
	}
	*out = t;
	return 0;
fail:
	release(t);
	return r;
}

int trace_close(struct trace *t, const char *result, struct trace_totals *out)
{
	struct trace_end end = { 0 };
	int r;

	memset(out, 0, sizeof *out);
	if (!t)
		return 0;
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_signal(&t->wake);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	drain(t);
	for (unsigned i = 0; i < t->nr_streams; i++) {
		end.records += t->streams[i].records;
		end.lost += t->streams[i].lost;
	}
	write_chunk(t, TRACE_END, &end, sizeof end, result, strlen(result));
	r = t->error;
	if (fclose(t->file) && !r)
		r = -errno;
	*out = (struct trace_totals){ end.records, end.lost, t->bytes };
	pthread_cond_destroy(&t->wake);
	pthread_mutex_destroy(&t->lock);
	pthread_mutex_destroy(&t->mark_lock);
	release(t);
	return r;
}
