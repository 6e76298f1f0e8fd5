/*
 * stats_table.c - the counters as a table for people, 100 columns wide. What is zero is left out.
 *
 * When the guest set exactly one marker 1 (begin) and later exactly one marker 2 (end), a column shows what lay between
 * them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/ept.h"
#include "vmm/nested.h"
#include "vmm/stats.h"

#define MARK_BEGIN	1
#define MARK_END	2
#define WIDTH		100u
#define ROWS_MAX	64u

struct row {
	const char *name;		/* NULL: `spare` */
	const char *what;
	uint64_t all, part;		/* the whole run; between the markers */
	char spare[STATS_NAME_SIZE];
};

struct sample {
	struct vcpu_counters c;
	struct mmu_stats m;
	struct kvm_counts k;
	uint64_t ns;
};

struct table {
	struct vm *vm;
	FILE *to;
	struct sample all, part;
	bool has_part;
	struct row rows[ROWS_MAX];	/* of the section being collected */
	unsigned nr_rows;
};

static const char *time_text(double ns, char to[static VMM_NUMBER_TEXT])
{
	if (ns < 0)
		snprintf(to, VMM_NUMBER_TEXT, "?");
	else if (ns < 1e6)
		snprintf(to, VMM_NUMBER_TEXT, "%.1f us", ns / 1e3);
	else if (ns < 1e9)
		snprintf(to, VMM_NUMBER_TEXT, "%.2f ms", ns / 1e6);
	else
		snprintf(to, VMM_NUMBER_TEXT, "%.3f s", ns / 1e9);
	return to;
}

/* ---- sections of rows ------------------------------------------------------------------------------------------- */

/* Prints without the blanks at the end. */
static void print_trimmed(FILE *to, const char *line)
{
	size_t n = strlen(line);

	while (n && line[n - 1] == ' ')
		n--;
	fprintf(to, "%.*s\n", (int)n, line);
}

static void print_line(struct table *t, const char *name, const char *all, const char *share, const char *part,
		       const char *what)
{
	char line[256];
	int n = snprintf(line, sizeof line, "  %-18.24s %13s %6s", name, all, share);

	if (t->has_part)
		n += snprintf(line + n, sizeof line - n, " %13s", part);
	if (n + 2 < (int)WIDTH)
		snprintf(line + n, sizeof line - n, "  %.*s", vmm_phrase_length(what, WIDTH - 2 - n), what);
	print_trimmed(t->to, line);
}

static void print_head(struct table *t, const char *title, const char *share)
{
	char line[128];

	fputc('\n', t->to);
	snprintf(line, sizeof line, "%-20s %13s %6s %13s", title, "whole run", share,
		 t->has_part ? "marks 1 to 2" : "");
	print_trimmed(t->to, line);
}

/* The row, for a name of its own; NULL: it counts nothing. */
static struct row *add_row(struct table *t, const char *name, const char *what, uint64_t all, uint64_t part)
{
	struct row *r = &t->rows[t->nr_rows];

	if (!all || t->nr_rows == ROWS_MAX)
		return NULL;
	t->nr_rows++;
	*r = (struct row){ .name = name, .what = what, .all = all, .part = part };
	return r;
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return (x->all < y->all) - (x->all > y->all);
}

enum { SORTED = 1, SUMMED = 2 };	/* most first; parts of a whole, so shares and a sum mean something */

/* Prints the rows collected so far under a title and forgets them. */
static void end_section(struct table *t, const char *title, unsigned how)
{
	char all[VMM_NUMBER_TEXT], part[VMM_NUMBER_TEXT], share[16] = "";
	uint64_t sum = 0, part_sum = 0;
	unsigned n = t->nr_rows;

	t->nr_rows = 0;
	if (!n)
		return;
	for (unsigned i = 0; i < n; i++) {
		sum += t->rows[i].all;
		part_sum += t->rows[i].part;
	}
	if (how & SORTED)
		qsort(t->rows, n, sizeof *t->rows, compare_rows);
	print_head(t, title, how & SUMMED ? "share" : "");
	for (unsigned i = 0; i < n; i++) {
		const struct row *r = &t->rows[i];

		if (how & SUMMED)
			snprintf(share, sizeof share, "%.1f%%", 100.0 * r->all / sum);
		print_line(t, r->name ? r->name : r->spare, vmm_number_text(r->all, all), share, vmm_number_text(r->part, part),
			   r->what);
	}
	if (how & SUMMED && n > 1)
		print_line(t, "all", vmm_number_text(sum, all), "", vmm_number_text(part_sum, part), "");
}

/* ---- the sections ----------------------------------------------------------------------------------------------- */

#define ROW(member, label, what)	add_row(t, label, what, t->all.member, t->part.member)

static void print_time_line(struct table *t, const char *name, double all, double part, const char *what)
{
	char all_text[VMM_NUMBER_TEXT], part_text[VMM_NUMBER_TEXT], share[16] = "";

	if (all >= 0 && t->all.ns)
		snprintf(share, sizeof share, "%.1f%%", 100 * all / (t->all.ns * (double)t->vm->nr_vcpus));
	print_line(t, name, time_text(all, all_text), share, time_text(part, part_text), what);
}

static void print_time(struct table *t)
{
	char all[VMM_NUMBER_TEXT], part[VMM_NUMBER_TEXT];

	print_head(t, "time", "share");
	print_line(t, "wall", time_text(t->all.ns, all), "", time_text(t->part.ns, part), "");
#define LINE(member, name, what) \
	print_time_line(t, name, stats_cycles_ns(t->vm, t->all.c.member), stats_cycles_ns(t->vm, t->part.c.member), \
			what)
	LINE(guest_cycles, "guest", "inside KVM_RUN, KVM's share of exits included");
	LINE(vmm_cycles, "vmm", "between an exit and the next KVM_RUN");
	LINE(idle_cycles, "idle", "nothing to do");
#undef LINE
}

static void print_faults(struct table *t)
{
	ROW(m.hidden, "hidden", "guest allows it, shadow absent or weaker");
	ROW(m.true_faults, "true", "guest forbids it: reflected into the guest");
	ROW(c.vcpu.invm_faults, "true, in VM", "the same, reflected by the shim without an exit");
	ROW(m.pt_write, "PT-write", "write to a page-table page");
	ROW(m.spurious, "spurious", "shadow allowed it already");
	ROW(m.bad, "bad", "frame not the guest's, or reserved bits");
	ROW(m.again, "again", "put off: pool dry or frame moving");
	end_section(t, "faults", SUMMED);
}

/* Not beside the faults: these are of another machine, or of another table. */
static void print_ept(struct table *t)
{
	static const char *const what[] = {
		[EPT_MEASURED] = "by KVM, umbra's own frames included",
		[EPT_MODELLED] = "one per distinct frame touched, page tables included",
	};
	char all_text[VMM_NUMBER_TEXT], part_text[VMM_NUMBER_TEXT];
	struct ept all, part = { 0 };

	ept_count(t->vm, &t->all.m, &t->all.k, &all);
	if (all.kind == EPT_NONE)
		return;
	if (t->has_part)
		ept_count(t->vm, &t->part.m, &t->part.k, &part);
#define LINE(name, member, text) \
	print_line(t, name, vmm_number_text(all.member, all_text), "", vmm_number_text(part.member, part_text), text)
	print_head(t, "EPT violations", "");
	LINE(ept_kind_name(all.kind), violations, what[all.kind]);
	if (all.kind == EPT_MEASURED && t->all.k.pages_4k >= 0 && t->all.k.pages_2m >= 0) {
		fprintf(t->to, "  by now KVM maps %s pages of 4 KiB", vmm_number_text(t->all.k.pages_4k, all_text));
		fprintf(t->to, " and %s of 2 MiB (--host-pages)\n", vmm_number_text(t->all.k.pages_2m, all_text));
	}
	if (all.kind == EPT_MODELLED) {
		LINE("  page tables", tables, "of them");
		LINE("  2 MiB entries", violations_2m, "if the second level had these");
		if (all.at_most != (uint64_t)all.violations)
			LINE("  at most", at_most, "if all that was prebuilt was used");
	}
#undef LINE
}

static void print_exits(struct table *t)
{
#define X(name, what) ROW(c.exits.name, #name, what);
	EXIT_COUNTERS(X)
#undef X
	end_section(t, "exits", SORTED | SUMMED);
}

/* Names the row of hypercall `nr`; NULL rows have nothing to show. */
static void name_hypercall(struct row *r, unsigned nr)
{
	const char *name;

	if (!r)
		return;
	name = stats_hypercall_name(nr, r->spare);
	r->name = name == r->spare ? NULL : name;	/* sorting moves the row */
}

static void print_hypercalls(struct table *t)
{
	for (unsigned i = 0; i < COUNTERS_HYPERCALLS; i++)
		name_hypercall(ROW(c.hypercalls[i], NULL, ""), i);
	end_section(t, "hypercalls", SORTED | SUMMED);
	for (unsigned i = 0; i < COUNTERS_HYPERCALLS; i++)
		name_hypercall(ROW(c.invm_hypercalls[i], NULL, ""), i);
	end_section(t, "in-VM calls", SORTED | SUMMED);
}

static void print_emulated(struct table *t)
{
#define X(name, what) ROW(c.emulated.name, #name, what);
	EMUL_COUNTERS(X)
#undef X
	end_section(t, "emulated", SORTED | SUMMED);
}

static void print_vcpu(struct table *t)
{
#define X(name, what) ROW(c.vcpu.name, #name, what);
	VCPU_COUNTERS(X)
#undef X
	end_section(t, "vCPU", 0);
}

/* What the fault classes do not show already. */
static bool is_fault_class(const char *name)
{
	static const char *const classes[] = { "hidden", "true_faults", "pt_write", "spurious", "bad", "again" };

	for (unsigned i = 0; i < sizeof classes / sizeof *classes; i++)
		if (!strcmp(name, classes[i]))
			return true;
	return false;
}

static void print_mmu(struct table *t)
{
#define X(name, what) if (!is_fault_class(#name)) ROW(m.name, #name, what);
	MMU_COUNTERS(X)
#undef X
	end_section(t, t->vm->paging->guest_tables ? "tables" : "shadow MMU", 0);
}

/* Mode nested: no shadow, but every table was looked through. */
static void print_frames(struct table *t)
{
	char n[4][VMM_NUMBER_TEXT];
	struct frames_stats s;

	frames_stats(t->vm->nested->frames, &s);
	fprintf(t->to, "\npage tables of the guest\n  %s validated, %s stores checked, %s refused; %s changes of a frame's type "
		"took a TLB flush\n", vmm_number_text(s.validated, n[0]), vmm_number_text(s.checked, n[1]),
		vmm_number_text(s.refused, n[2]), vmm_number_text(s.retyped, n[3]));
}

static void print_usage(struct table *t)
{
	char n[3][VMM_NUMBER_TEXT];
	struct mmu_usage u;
	double mapped;

	mmu_usage(t->vm->mmu, &u);
	mapped = u.leaves / 256.0 + u.large_leaves * 2.0;
	fprintf(t->to, "\nshadow pool\n");
	fprintf(t->to, "  %s of %s pages in use, %s at most; tables: L4 %u, L3 %u, L2 %u, L1 %u\n",
		vmm_number_text(u.pool_used, n[0]), vmm_number_text(u.pool_pages, n[1]), vmm_number_text(u.pool_peak, n[2]),
		u.by_level[4], u.by_level[3], u.by_level[2], u.by_level[1]);
	for (unsigned i = 0; u.nr_nodes > 1 && i < u.nr_nodes; i++) {
		fprintf(t->to, "  node %u: %s tables in %s pages", t->vm->place[i], vmm_number_text(u.node[i].tables, n[0]),
			vmm_number_text(u.node[i].pool_pages, n[1]));
		fprintf(t->to, u.node[i].tables_outside ? ", %s of them elsewhere\n" : "\n",
			vmm_number_text(u.node[i].tables_outside, n[0]));
	}
	fprintf(t->to, "  %.1f MiB mapped by %s 4 KiB and %s 2 MiB entries", mapped, vmm_number_text(u.leaves, n[0]),
		vmm_number_text(u.large_leaves, n[1]));
	if (mapped > 0)
		fprintf(t->to, ": %.2f pages per MiB", u.pool_used / mapped);
	fprintf(t->to, "\n  %.1f MiB of bookkeeping\n", u.bookkeeping_bytes / 1048576.0);
}

static void print_title(struct table *t)
{
	const struct vmm_config *c = t->vm->config;
	char text[VMM_NUMBER_TEXT], prefetch[32];

	snprintf(prefetch, sizeof prefetch, "%s", stats_prefetch_word(c->prefetch));
	if (c->prefetch == MMU_PREFETCH_AROUND)
		snprintf(prefetch, sizeof prefetch, "+-%u", c->prefetch_n);
	fprintf(t->to, "\numbra %s: %s, %" PRIu64 " MiB, %u vCPU%s, %s on %s, kick %s\n", vmm_version(),
		time_text(t->all.ns, text), c->memory >> 20, t->vm->nr_vcpus, t->vm->nr_vcpus == 1 ? "" : "s",
		t->vm->paging->guest_tables ? "the guest's tables" : "shadow tables", vmm_host_kind_name(t->vm->host.kind),
		t->vm->kick->name);
	fprintf(t->to, "second level: %s; %.0f %% of the guest's memory was populated before it ran\n",
		vmm_second_level_name(&t->vm->host), 100.0 * t->vm->populated / (t->vm->ram_frames ? t->vm->ram_frames : 1));
	if (t->vm->paging->guest_tables)
		return;
	fprintf(t->to, "fill %s, prefetch %s, large pages %s, audit %u\n", stats_fill_word(c->fill), prefetch,
		c->large ? "on" : "off", c->audit);
}

/* The marker of that id if there is exactly one. Under mark_lock. */
static const struct mark *only_mark(const struct vm *vm, uint32_t id)
{
	const struct mark *found = NULL;

	for (unsigned i = 0; i < vm->nr_marks; i++) {
		if (vm->marks[i].id != id)
			continue;
		if (found)
			return NULL;
		found = &vm->marks[i];
	}
	return found;
}

static void find_part(struct table *t)
{
	struct vm *vm = t->vm;
	const struct mark *begin, *end;

	pthread_mutex_lock(&vm->mark_lock);
	begin = only_mark(vm, MARK_BEGIN);
	end = only_mark(vm, MARK_END);
	if (begin && end && begin < end) {
		t->has_part = true;
		t->part = (struct sample){ .c = end->counters, .m = end->mmu, .k = end->kvm, .ns = end->ns - begin->ns };
		stats_subtract(&t->part.c, &t->part.m, begin);
		kvm_stats_subtract(&t->part.k, &begin->kvm);
	}
	pthread_mutex_unlock(&vm->mark_lock);
}

void stats_print_table(struct vm *vm, FILE *to)
{
	struct table *t = calloc(1, sizeof *t);

	if (!t) {
		fprintf(to, "umbra: no memory for the table\n");
		return;
	}
	t->vm = vm;
	t->to = to;
	stats_sum(vm, &t->all.c, &t->all.m);
	kvm_stats_read(vm->kvm_stats, &t->all.k);
	t->all.ns = stats_wall_ns(vm);
	find_part(t);
	print_title(t);
	print_time(t);
	print_faults(t);
	print_ept(t);
	print_exits(t);
	print_hypercalls(t);
	print_emulated(t);
	print_vcpu(t);
	print_mmu(t);
	if (vm->nested)
		print_frames(t);
	else
		print_usage(t);
	fputc('\n', to);
	free(t);
}
