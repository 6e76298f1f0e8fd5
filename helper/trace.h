/*
 * trace.h - what the heuristics saw, as a file: written while a guest runs, read by `umbra replay`.
 *
 * The file: a header with the configuration as JSON text, chunks of records, one stream per source, and an end with totals and
 * the run's counters. docs/replay.md has the format. A file without its end, or with a chunk that is not what was
 * written, is refused.
 *
 * Beside events there are tables: what a guest table holds when it is pinned or first met, for the guest fills tables before
 * it says that they are tables. So a replay can answer heuristic_read() and knows what a tree of tables maps.
 */
#ifndef UMBRA_HELPER_TRACE_H
#define UMBRA_HELPER_TRACE_H

#include "helper/helper.h"

#define TRACE_VERSION	1u

/* ---- writing ------------------------------------------------------------------------------------------------------ */

struct trace_config {
	const char *path;
	const char *config;	/* JSON text: the effective configuration */
	unsigned nr_sources;	/* vCPUs */
	uint64_t nr_gfns;	/* tables lie below */
	const uint64_t *(*table)(void *arg, gfn_t table);	/* its 512 entries, or NULL. Called by trace_event() */
	void *arg;
	size_t room;		/* bytes a source may be ahead of the file; 0: the default */
};

struct trace;

/* Creates the file and starts the thread that writes it. -errno. */
int trace_create(const struct trace_config *config, struct trace **out);
/* One thread per source at a time. Never blocks: what finds no room is lost, and counted in the file. */
void trace_event(struct trace *t, unsigned source, const struct helper_event *event);
/* A mark of the guest's workload. Any thread. */
void trace_mark(struct trace *t, uint64_t time_ns, uint32_t id);

struct trace_totals {
	uint64_t records, lost, bytes;
};

/* Writes the rest, the end with `result` (JSON text), and frees. No trace_event() runs any more. NULL is fine. -errno: the
 * file is not whole. */
int trace_close(struct trace *t, const char *result, struct trace_totals *out);

/* ---- reading ------------------------------------------------------------------------------------------------------ */

enum trace_kind {
	TRACE_EVENT,	/* `event` */
	TRACE_TABLE,	/* `event.table`, `event.level`; entries[first .. first + count - 1]; the others are zero */
	TRACE_MARK,	/* `id` */
	TRACE_LOST,	/* `count` records found no room here */
};

struct trace_item {
	uint8_t kind;		/* enum trace_kind */
	struct helper_event event;	/* of all: time_ns and vcpu */
	uint32_t id, count;
	uint64_t first;
};

struct trace_entry {
	uint64_t gpte;
	uint16_t index;
};

/* A whole trace in memory; read-only, so threads may share it. */
struct trace_log {
	char *config, *result;		/* JSON text */
	struct trace_item *items;	/* by time */
	size_t nr_items;
	struct trace_entry *entries;
	size_t nr_entries;
	uint64_t lost, bytes;		/* of the file */
	unsigned nr_sources;
};

/* 0; or -errno with a line in `why`: -EPROTO for a file that is no whole trace of this version. */
int trace_load(const char *path, struct trace_log *out, char *why, size_t size);
/* The same from memory, which is not kept. */
int trace_parse(const void *data, size_t size, struct trace_log *out, char *why, size_t why_size);
void trace_free(struct trace_log *log);

#endif
