/*
 * live_prometheus.c - a `stats` reply in the text format of Prometheus, version 0.0.4 (prometheus.io/docs/instrumenting/
 * exposition_formats). Counters end in _total and are in base units; a group of counters is one metric with a label.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/live.h"

struct out {
	FILE *to;
	pid_t pid;
	char metric[96];		/* the one whose head was printed last */
};

/* A metric or label name: [a-z0-9_] of whatever it was. Returns `to`. */
static const char *name_text(const char *from, char *to, size_t size)
{
	size_t n = 0;

	for (; *from && n < size - 1; from++) {
		char c = *from >= 'A' && *from <= 'Z' ? *from + 'a' - 'A' : *from;

		if ((c < 'a' || c > 'z') && (c < '0' || c > '9'))
			c = '_';
		if (c != '_' || (n && to[n - 1] != '_'))
			to[n++] = c;
	}
	to[n] = 0;
	return to;
}

static void print_escaped(FILE *to, const char *text, bool quotes)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", to);
		else if (*text == '\\' || (quotes && *text == '"'))
			fprintf(to, "\\%c", *text);
		else if (*text >= ' ' && *text <= '~')
			fputc(*text, to);
		else
			fputc('?', to);
	}
}

static void head(struct out *o, const char *metric, const char *type, const char *help)
{
	if (!strcmp(o->metric, metric))
		return;
	snprintf(o->metric, sizeof o->metric, "%s", metric);
	if (*help) {
		fprintf(o->to, "# HELP %s ", metric);
		print_escaped(o->to, help, false);
		fputc('\n', o->to);
	}
	fprintf(o->to, "# TYPE %s %s\n", metric, type);
}

/* `label` NULL: none but the pid. */
static void sample(struct out *o, const char *label, const char *value, double n)
{
	fprintf(o->to, "%s{pid=\"%d\"", o->metric, o->pid);
	if (label) {
		fprintf(o->to, ",%s=\"", label);
		print_escaped(o->to, value, true);
		fputc('"', o->to);
	}
	fprintf(o->to, n == (double)(uint64_t)n ? "} %.0f\n" : "} %.9g\n", n);
}

static void info(struct out *o, const json_t *stats)
{
	static const char *const labels[][2] = {
		{ "version", "umbra" }, { "kernel", "config.kernel" }, { "mmu", "config.mmu" }, { "kvm", "host.kvm" },
	};

	head(o, "umbra_info", "gauge", "a running guest");
	fprintf(o->to, "umbra_info{pid=\"%d\"", o->pid);
	for (unsigned i = 0; i < sizeof labels / sizeof *labels; i++) {
		fprintf(o->to, ",%s=\"", labels[i][0]);
		print_escaped(o->to, live_text(stats, labels[i][1], ""), true);
		fputc('"', o->to);
	}
	fputs("} 1\n", o->to);
}

static void gauges(struct out *o, const json_t *stats)
{
	char name[64], metric[96];
	const json_t *value;
	const char *key;

	head(o, "umbra_uptime_seconds", "gauge", "since the guest was started");
	sample(o, NULL, NULL, live_number(stats, "uptime_ns", 0) / 1e9);
	head(o, "umbra_memory_bytes", "gauge", "the guest's memory");
	sample(o, NULL, NULL, live_number(stats, "config.memory_bytes", 0));
	head(o, "umbra_vcpus", "gauge", "virtual processors");
	sample(o, NULL, NULL, live_number(stats, "config.vcpus", 0));
	json_object_foreach((json_t *)live_at(stats, "mmu.usage"), key, value) {
		if (!json_is_number(value))
			continue;
		snprintf(metric, sizeof metric, "umbra_mmu_%s", name_text(key, name, sizeof name));
		head(o, metric, "gauge", "");
		sample(o, NULL, NULL, json_number_value(value));
	}
}

static void seconds(struct out *o, const json_t *stats, const char *part, const char *help)
{
	char where[32], metric[64];
	double ns;

	snprintf(where, sizeof where, "total.%s_ns", part);
	snprintf(metric, sizeof metric, "umbra_%s_seconds_total", part);
	ns = live_number(stats, where, -1);
	if (ns < 0)
		return;
	head(o, metric, "counter", help);
	sample(o, NULL, NULL, ns / 1e9);
}

/* Groups that are one metric; the others are a metric per row. */
static const struct {
	const char *metric, *label, *help;
} families[LIVE_GROUPS] = {
	[LIVE_FAULTS] = { "umbra_faults_total", "class", "page faults by class" },
	[LIVE_PREBUILDS] = { "umbra_prebuilds_total", "kind", "shadow entries built before a fault on them, and what became of them" },
	[LIVE_EXITS] = { "umbra_exits_total", "cause", "exits from KVM_RUN by cause" },
	[LIVE_HYPERCALLS] = { "umbra_hypercalls_total", "call", "hypercalls that exited, by name" },
	[LIVE_INVM] = { "umbra_invm_hypercalls_total", "call", "hypercalls done inside the guest, by name" },
	[LIVE_EMULATED] = { "umbra_emulated_total", "instruction", "emulated instructions by kind" },
};

static void counters(struct out *o, const struct live_rows *rows, enum live_group group)
{
	char name[64], metric[96];

	for (unsigned i = 0; i < rows->n; i++) {
		const struct live_row *r = &rows->row[i];

		if (r->group != group)
			continue;
		if (families[group].metric) {
			head(o, families[group].metric, "counter", families[group].help);
			sample(o, families[group].label, name_text(r->name, name, sizeof name), r->value);
			continue;
		}
		/* Of a kind not known, it may be a level as well as a count. */
		snprintf(metric, sizeof metric, "umbra_%s%s%s", group == LIVE_MMU ? "mmu_" : "",
			 name_text(r->name, name, sizeof name), group == LIVE_OTHER ? "" : "_total");
		head(o, metric, group == LIVE_OTHER ? "untyped" : "counter", r->what);
		sample(o, NULL, NULL, r->value);
	}
}

void live_print_prometheus(FILE *to, const json_t *stats, const json_t *describe, pid_t pid)
{
	struct live_rows *rows = malloc(sizeof *rows);
	struct out o = { .to = to, .pid = pid };

	info(&o, stats);
	gauges(&o, stats);
	seconds(&o, stats, "guest", "vCPU time inside KVM_RUN");
	seconds(&o, stats, "vmm", "vCPU time between an exit and the next KVM_RUN");
	seconds(&o, stats, "idle", "vCPU time with nothing to do");
	if (rows) {
		live_rows_take(rows, stats, describe);
		for (unsigned group = 0; group < LIVE_GROUPS; group++)
			counters(&o, rows, group);
	}
	free(rows);
}
