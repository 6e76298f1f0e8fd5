/*
 * stats_json.c - configuration, host and counters as JSON. Names carry units; what is not known is null.
 *
 * Schema 1. A change that a reader has to know of gets a new number; new members do not.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "vmm/faultmap.h"
#include "vmm/shim_abi.h"
#include "vmm/stats.h"

#define SCHEMA	1
#define DECISIONS	64	/* of the NUMA manager's, the last ones */

/*
 * Building functions never fail on their own: a value that cannot be made is NULL, json_object_set_new() refuses it,
 * and set() remembers that in ok. Whoever writes the file looks at ok once.
 */
struct builder {
	struct vm *vm;
	bool ok;
	bool live;			/* the guest runs: what takes long or has not happened yet is left out */
};

static void set(struct builder *b, json_t *object, const char *name, json_t *value)
{
	if (json_object_set_new(object, name, value))
		b->ok = false;
}

static void set_u64(struct builder *b, json_t *object, const char *name, uint64_t value)
{
	set(b, object, name, json_integer(value));
}

static void set_bool(struct builder *b, json_t *object, const char *name, bool value)
{
	set(b, object, name, json_boolean(value));
}

/* JSON has no NaN and no infinity; negative says unknown throughout. */
static void set_real(struct builder *b, json_t *object, const char *name, double value)
{
	set(b, object, name, isfinite(value) && value >= 0 ? json_real(value) : json_null());
}

/* Paths, command lines and what a guest says need not be UTF-8; what JSON cannot hold becomes '?'. */
static void set_text(struct builder *b, json_t *object, const char *name, const char *text)
{
	json_t *value = text ? json_string(text) : json_null();
	char *copy;

	if (!value && (copy = strdup(text))) {
		for (char *p = copy; *p; p++)
			if (*p & 0x80)
				*p = '?';
		value = json_string(copy);
		free(copy);
	}
	set(b, object, name, value);
}

static void set_cycles(struct builder *b, json_t *object, const char *name, uint64_t cycles)
{
	double ns = stats_cycles_ns(b->vm, cycles);

	set(b, object, name, ns < 0 ? json_null() : json_integer(ns));
}

/* ---- parts ------------------------------------------------------------------------------------------------------ */

static json_t *shim_json(unsigned shim)
{
	static const char *const names[] = {
#define X(name, what) #name,
		SHIM_FEATURES(X)
#undef X
	};
	json_t *list = json_array();

	for (unsigned i = 0; list && i < SHIM_BITS; i++)
		if (shim >> i & 1)
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static json_t *config_json(struct builder *b)
{
	const struct vmm_config *c = b->vm->config;
	json_t *o = json_object();

	set_text(b, o, "kernel", c->kernel);
	set_text(b, o, "initrd", c->initrd);
	set_text(b, o, "cmdline", c->cmdline);
	set_text(b, o, "cmdline_added", c->fast_cmdline ? vmm_cmdline_additions(c->vcpus) : NULL);
	set_text(b, o, "symbols", c->symbols);
	set_u64(b, o, "memory_bytes", c->memory);
	set_u64(b, o, "vcpus", c->vcpus);
	set_text(b, o, "mmu", b->vm->paging->name);
	set_u64(b, o, "shadow_pages", b->vm->pool_pages);
	set_bool(b, o, "fast_cmdline", c->fast_cmdline);
	set_bool(b, o, "initdomain", c->initdomain);
	set_bool(b, o, "on_reboot_exit", c->on_reboot_exit);
	set_text(b, o, "kick", stats_kick_word(c->kick));
	set_text(b, o, "kick_used", b->vm->kick->name);
	set_text(b, o, "fill", stats_fill_word(c->fill));
	set_text(b, o, "prefetch", stats_prefetch_word(c->prefetch));
	set_u64(b, o, "prefetch_entries", c->prefetch_n);
	set_u64(b, o, "sample_every", c->sample_every);
	set_bool(b, o, "large", c->large);
	set_bool(b, o, "fill_linear", c->fill_linear);
	set_bool(b, o, "link_ahead", c->link_ahead);
	set_bool(b, o, "node_tables", b->vm->node_tables);
	set_text(b, o, "host_pages", c->huge ? "huge" : "small");
	set_bool(b, o, "populate", c->populate);
	set(b, o, "shim", shim_json(c->shim));
	set_text(b, o, "gates", c->gates == VMM_GATES_AUTO ? "auto" : c->gates == VMM_GATES_VMM ? "vmm" : "invm");
	set_bool(b, o, "gates_invm", b->vm->gates);
	set_text(b, o, "helper", stats_helper_word(c->helper));
	if (c->helper)
		set(b, o, "helper_config", stats_helper_config(c));
	set_u64(b, o, "audit", c->audit);
	set_text(b, o, "expect", c->expect);
	set_real(b, o, "timeout_s", c->timeout > 0 ? c->timeout : -1);
	set_u64(b, o, "trace_exits", c->trace_exits);
	set_bool(b, o, "fault_map", c->fault_map);
	return o;
}

static json_t *host_json(struct builder *b)
{
	const struct vmm_host *h = &b->vm->host;
	json_t *o = json_object();

	set_text(b, o, "kvm", vmm_host_kind_name(h->kind));
	set(b, o, "second_level", h->second_level < 0 ? json_null() : json_boolean(h->second_level));
	set_text(b, o, "second_level_name", vmm_second_level_name(h));
	set_u64(b, o, "kvm_api", h->api_version);
	set_u64(b, o, "kvm_max_vcpus", h->max_vcpus);
	set_text(b, o, "kernel", h->kernel);
	set_text(b, o, "cpu", h->cpu);
	set_u64(b, o, "cpus", h->cpus);
	set_u64(b, o, "numa_nodes", h->nodes);
	set_u64(b, o, "memory_bytes", h->memory);
	set(b, o, "transitions", json_pack("{sI sI sI sb}", "exit_by_fetch_ns", (json_int_t)b->vm->costs.fetch_ns,
					   "exit_by_store_ns", (json_int_t)b->vm->costs.store_ns, "gate_ns",
					   (json_int_t)b->vm->costs.gate_ns, "shim_leaves_by_store", b->vm->costs.by_store));
	set(b, o, "tsc_khz", b->vm->tsc_khz ? json_integer(b->vm->tsc_khz) : json_null());
	set_bool(b, o, "tsc_constant", h->tsc_constant);
	return o;
}

static json_t *counters_json(struct builder *b, const struct vcpu_counters *c)
{
	json_t *o = json_object(), *group;
	char spare[STATS_NAME_SIZE];

#define X(name, what) set_u64(b, group, #name, c->exits.name);
	group = json_object();
	set_u64(b, group, "total", stats_exits(c));
	EXIT_COUNTERS(X)
	set(b, o, "exits", group);
#undef X
#define X(name, what) set_u64(b, group, #name, c->emulated.name);
	group = json_object();
	set_u64(b, group, "total", stats_emulated(c));
	EMUL_COUNTERS(X)
	set(b, o, "emulated", group);
#undef X
	group = json_object();
	set_u64(b, group, "total", stats_hypercalls(c));
	for (unsigned i = 0; i < COUNTERS_HYPERCALLS; i++)
		if (c->hypercalls[i])
			set_u64(b, group, stats_hypercall_name(i, spare), c->hypercalls[i]);
	set(b, o, "hypercalls", group);
	group = json_object();
	set_u64(b, group, "total", stats_invm_hypercalls(c));
	for (unsigned i = 0; i < COUNTERS_HYPERCALLS; i++)
		if (c->invm_hypercalls[i])
			set_u64(b, group, stats_hypercall_name(i, spare), c->invm_hypercalls[i]);
	set(b, o, "invm_hypercalls", group);
#define X(name, what) set_u64(b, o, #name, c->vcpu.name);
	VCPU_COUNTERS(X)
#undef X
	set_u64(b, o, "guest_cycles", c->guest_cycles);
	set_u64(b, o, "vmm_cycles", c->vmm_cycles);
	set_u64(b, o, "idle_cycles", c->idle_cycles);
	set_cycles(b, o, "guest_ns", c->guest_cycles);
	set_cycles(b, o, "vmm_ns", c->vmm_cycles);
	set_cycles(b, o, "idle_ns", c->idle_cycles);
	return o;
}

static json_t *mmu_json(struct builder *b, const struct mmu_stats *m)
{
	json_t *o = json_object();

#define X(name, what) set_u64(b, o, #name, m->name);
	MMU_COUNTERS(X)
#undef X
	return o;
}

/* One set of tables for all: empty. */
static json_t *node_usage_json(struct builder *b, const struct mmu_usage *u)
{
	json_t *list = json_array();

	for (unsigned i = 0; u->nr_nodes > 1 && i < u->nr_nodes; i++) {
		json_t *o = json_object();

		set_u64(b, o, "node", b->vm->place[i]);
		set_u64(b, o, "pool_pages", u->node[i].pool_pages);
		set_u64(b, o, "pool_used_pages", u->node[i].pool_used);
		set_u64(b, o, "tables", u->node[i].tables);
		set_u64(b, o, "tables_outside", u->node[i].tables_outside);
		if (json_array_append_new(list, o))
			b->ok = false;
	}
	return list;
}

static json_t *usage_json(struct builder *b)
{
	json_t *o = json_object(), *levels = json_array();
	struct mmu_usage u;
	double mapped;

	if (b->live)
		mmu_pool_usage(b->vm->mmu, &u);
	else
		mmu_usage(b->vm->mmu, &u);
	mapped = (u.leaves * 4096.0 + u.large_leaves * 2097152.0) / (1 << 20);
	set_u64(b, o, "pool_pages", u.pool_pages);
	set_u64(b, o, "pool_used_pages", u.pool_used);
	set_u64(b, o, "pool_peak_pages", u.pool_peak);
	for (unsigned level = 1; level <= MMU_LEVELS; level++)
		if (json_array_append_new(levels, json_integer(u.by_level[level])))
			b->ok = false;
	set(b, o, "tables_by_level", levels);
	set(b, o, "nodes", node_usage_json(b, &u));
	set_u64(b, o, "leaves_4k", u.leaves);
	set_u64(b, o, "leaves_2m", u.large_leaves);
	set_real(b, o, "mapped_mib", mapped);
	set_real(b, o, "pool_pages_per_mapped_mib", u.pool_used / mapped);
	if (!b->live)
		set_u64(b, o, "bookkeeping_bytes", u.bookkeeping_bytes);
	return o;
}

/* A marker, and what was counted since the one before it. */
static json_t *mark_json(struct builder *b, const struct mark *mark, const struct mark *before)
{
	json_t *o = json_object(), *since;
	struct vcpu_counters c = mark->counters;
	struct mmu_stats m = mark->mmu;
	struct kvm_counts k = mark->kvm;

	set_u64(b, o, "id", mark->id);
	set_u64(b, o, "at_ns", mark->ns);
	set(b, o, "counters", counters_json(b, &c));
	set(b, o, "mmu", mmu_json(b, &m));
	if (!before)
		return o;
	stats_subtract(&c, &m, before);
	kvm_stats_subtract(&k, &before->kvm);
	since = json_object();
	set_u64(b, since, "from_id", before->id);
	set_u64(b, since, "wall_ns", mark->ns - before->ns);
	set(b, since, "counters", counters_json(b, &c));
	set(b, since, "mmu", mmu_json(b, &m));
	set(b, since, "ept", stats_ept_json(b->vm, &m, &k));
	set(b, since, "kvm", stats_kvm_json(&k));
	set(b, o, "since_previous", since);
	return o;
}

static json_t *marks_json(struct builder *b)
{
	struct vm *vm = b->vm;
	json_t *list = json_array();

	pthread_mutex_lock(&vm->mark_lock);
	for (unsigned i = 0; i < vm->nr_marks; i++)
		if (json_array_append_new(list, mark_json(b, &vm->marks[i], i ? &vm->marks[i - 1] : NULL)))
			b->ok = false;
	pthread_mutex_unlock(&vm->mark_lock);
	return list;
}

static json_t *vcpus_json(struct builder *b)
{
	json_t *list = json_array(), *o;

	for (unsigned i = 0; i < b->vm->nr_vcpus; i++) {
		struct vcpu_counters c;

		stats_copy(&b->vm->vcpus[i], &c);
		o = counters_json(b, &c);
		set_u64(b, o, "id", i);
		if (json_array_append_new(list, o))
			b->ok = false;
	}
	return list;
}

static json_t *end_json(struct builder *b)
{
	struct vm *vm = b->vm;
	json_t *o = json_object();

	set_u64(b, o, "exit_code", stats_exit_code(vm));
	set_text(b, o, "reason", vm->end_reason);
	set(b, o, "expect_met", vm->config->expect ? json_boolean(console_expect_met(vm)) : json_null());
	set_u64(b, o, "wall_ns", stats_wall_ns(vm));
	return o;
}

/* All vCPUs together, once they have ended. */
static json_t *fault_map_json(struct builder *b)
{
	struct faultmap *sum;
	json_t *o;

	if (!b->vm->config->fault_map)
		return json_null();
	sum = faultmap_new();
	if (!sum)
		return NULL;
	for (unsigned i = 0; i < b->vm->nr_vcpus; i++)
		faultmap_merge(sum, b->vm->vcpus[i].faultmap);
	o = faultmap_json(sum);
	free(sum);
	return o;
}

/* With the end of the decision log; all that is kept of it has the control socket. */
static json_t *numa_json(struct builder *b)
{
	json_t *o = placement_json(b->vm);

	if (b->vm->numa)
		set(b, o, "decisions", numa_decisions_json(b->vm, b->live ? 0 : DECISIONS));
	return o;
}

static void fill_report(struct builder *b, json_t *root)
{
	json_t *o;
	struct vcpu_counters c;
	struct mmu_stats m;
	struct kvm_counts k;

	stats_sum(b->vm, &c, &m);
	set_u64(b, root, "schema", SCHEMA);
	set_text(b, root, "umbra", vmm_version());
	set(b, root, "config", config_json(b));
	set(b, root, "helper", b->vm->config->helper ? stats_helper_json(b->vm) : json_null());
	set(b, root, "host", host_json(b));
	if (b->live)
		set_u64(b, root, "uptime_ns", stats_wall_ns(b->vm));
	else
		set(b, root, "end", end_json(b));
	set(b, root, "total", counters_json(b, &c));
	set(b, root, "vcpus", vcpus_json(b));
	o = mmu_json(b, &m);
	set(b, o, "usage", usage_json(b));
	set(b, root, "mmu", o);
	set(b, root, "locks", stats_locks_json(&c, &m));
	kvm_stats_read(b->vm->kvm_stats, &k);
	o = stats_ept_json(b->vm, &m, &k);
	stats_ept_describe(b->vm, o);
	set(b, root, "ept", o);
	set(b, root, "numa", numa_json(b));
	set(b, root, "kvm", stats_kvm_json(&k));
	set(b, root, "frames", stats_frames_json(b->vm));
	if (b->live)
		return;
	set(b, root, "marks", marks_json(b));
	set(b, root, "fault_map", fault_map_json(b));
}

int stats_live(struct vm *vm, json_t *to)
{
	struct builder b = { .vm = vm, .ok = true, .live = true };

	fill_report(&b, to);
	return b.ok ? 0 : -ENOMEM;
}

int stats_info(struct vm *vm, json_t *to)
{
	struct builder b = { .vm = vm, .ok = true, .live = true };

	set_u64(&b, to, "pid", getpid());
	set_text(&b, to, "umbra", vmm_version());
	set_u64(&b, to, "uptime_ns", stats_wall_ns(vm));
	set(&b, to, "config", config_json(&b));
	return b.ok ? 0 : -ENOMEM;
}

static char *dump(json_t *root, bool ok)
{
	char *text = ok && root ? json_dumps(root, JSON_COMPACT) : NULL;

	json_decref(root);
	return text;
}

char *stats_config_text(struct vm *vm)
{
	struct builder b = { .vm = vm, .ok = true };
	const struct vmm_config *c = vm->config;
	json_t *root = json_object(), *list = json_array();

	set_u64(&b, root, "schema", SCHEMA);
	set_text(&b, root, "umbra", vmm_version());
	set(&b, root, "config", config_json(&b));
	for (unsigned i = 0; c->helper && i < c->nr_heuristics; i++) {
		const struct heuristic_config *h = &c->heuristics[i];
		char text[HEURISTIC_TEXT];

		json_array_append_new(list, json_string(heuristic_text(h, text)));
	}
	set(&b, root, "heuristics", list);
	set(&b, root, "host", host_json(&b));
	return dump(root, b.ok);
}

char *stats_result_text(struct vm *vm)
{
	struct builder b = { .vm = vm, .ok = true };
	json_t *root = json_object();

	fill_report(&b, root);
	return dump(root, b.ok);
}

/* The groups as in the report, a text for each counter. */
int stats_describe(json_t *to)
{
	struct builder b = { .ok = true };
	json_t *total = json_object(), *group;

#define X(name, what) set_text(&b, group, #name, what);
	group = json_object();
	EXIT_COUNTERS(X)
	set(&b, total, "exits", group);
	group = json_object();
	EMUL_COUNTERS(X)
	set(&b, total, "emulated", group);
	group = total;
	VCPU_COUNTERS(X)
	group = json_object();
	MMU_COUNTERS(X)
#undef X
	set(&b, to, "total", total);
	set(&b, to, "mmu", group);
	group = json_object();
	numa_manager_describe(group);
	set(&b, to, "numa", json_pack("{so}", "manager", group));
	return b.ok ? 0 : -ENOMEM;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

static int write_stream(FILE *f, const json_t *root)
{
	int r = 0;

	if (json_dumpf(root, f, JSON_INDENT(2)) || fputc('\n', f) == EOF || fflush(f))
		r = errno ? -errno : -EIO;
	if (fclose(f) && !r)
		r = -errno;
	return r;
}

/* Readers see the old file or the new one, never a part. */
static int write_file(const char *path, const json_t *root)
{
	char name[4096];
	mode_t mask = umask(0);
	int fd, r;
	FILE *f;

	umask(mask);
	if ((size_t)snprintf(name, sizeof name, "%s.XXXXXX", path) >= sizeof name)
		return -ENAMETOOLONG;
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	f = fdopen(fd, "w");
	if (!f) {
		r = -errno;
		close(fd);
		goto unlink;
	}
	fchmod(fd, 0666 & ~mask);
	errno = 0;
	r = write_stream(f, root);
	if (!r && !rename(name, path))
		return 0;
	if (!r)
		r = -errno;
unlink:
	unlink(name);
	return r;
}

int stats_write_json(struct vm *vm, const char *path)
{
	struct builder b = { .vm = vm, .ok = true };
	json_t *root = json_object();
	struct stat st;
	FILE *f;
	int r;

	fill_report(&b, root);
	if (!b.ok || !root) {
		r = -ENOMEM;
	} else if (stat(path, &st) || S_ISREG(st.st_mode)) {
		r = write_file(path, root);
	} else {	/* a pipe, a device: nothing to rename */
		f = fopen(path, "we");
		errno = f ? 0 : errno;
		r = f ? write_stream(f, root) : -errno;
	}
	json_decref(root);
	return r;
}
