/*
 * test_stats.c - sums, markers, the table and the JSON report, of a bare struct vm with made-up counters.
 */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "vmm/ept.h"
#include "vmm/stats.h"

/* ---- the rest of the VMM ---------------------------------------------------------------------------------------- */

static struct mmu_stats mmu_counters;
static struct mmu_usage usage;
static uint64_t now;
static bool expectation;

void mmu_stats(struct mmu *mmu, struct mmu_stats *out)
{
	*out = mmu_counters;
}

void mmu_usage(struct mmu *mmu, struct mmu_usage *out)
{
	*out = usage;
}

/* What reports of one node do not ask for. */
void placement_nodes(const struct vm *vm, const uint64_t *gfns, unsigned n, uint8_t *places)
{
	fail();
}

void mmu_pool_part(struct mmu *mmu, unsigned node, mfn_t *first, uint32_t *count)
{
	fail();
}

void mmu_pool_usage(struct mmu *mmu, struct mmu_usage *out)
{
	*out = usage;
	out->bookkeeping_bytes = 0;
}

void helper_stats(struct helper *h, struct helper_stats *out)
{
	*out = (struct helper_stats){ .events = { [HELPER_UPDATE] = 42 } };
}

uint64_t vm_now(const struct vm *vm)
{
	return now;
}

bool console_expect_met(struct vm *vm)
{
	return expectation;
}

const char *xen_hypercall_name(unsigned nr)
{
	return nr == 1 ? "mmu_update" : nr == 26 ? "mmuext_op" : NULL;
}

const char *vmm_cmdline_additions(unsigned vcpus)
{
	return "added";
}

const char *vmm_version(void)
{
	return "1.2-test";
}

const char *vmm_second_level_name(const struct vmm_host *host)
{
	return "NPT";
}

const char *vmm_host_kind_name(enum vmm_host_kind kind)
{
	return "PVM";
}

/* ---- a VM that has run ------------------------------------------------------------------------------------------ */

static void add_stats(struct vm *vm, struct mmu_stats *m)
{
}

static const struct paging_ops paging = { .name = "shadow", .add_stats = add_stats };

static struct vmm_config config;
static struct vcpu vcpus[2];
static const struct kick_ops kick = { .name = "table" };
static struct vm vm;
static char dir[] = "/tmp/umbra-test-stats-XXXXXX", path[64];

static int set_up(void **state)
{
	config = (struct vmm_config){ .kernel = "vmlinuz", .memory = 512ull << 20, .vcpus = 2, .prefetch_n = 0,
				      .fast_cmdline = true, .timeout = 1.5 };
	memset(vcpus, 0, sizeof vcpus);
	vm = (struct vm){ .config = &config, .vcpus = vcpus, .nr_vcpus = 2, .kick = &kick, .paging = &paging, .pool_pages = 1000,
			  .tsc_khz = 2000000, .end_lock = PTHREAD_MUTEX_INITIALIZER,
			  .mark_lock = PTHREAD_MUTEX_INITIALIZER, .host.second_level = -1 };
	vcpus[0].vm = vcpus[1].vm = &vm;
	mmu_counters = (struct mmu_stats){ .hidden = 300, .true_faults = 100, .updates = 7 };
	usage = (struct mmu_usage){ .pool_pages = 1000, .pool_used = 50, .pool_peak = 60, .leaves = 2560,
				    .large_leaves = 5 };
	now = 5000000000;
	expectation = true;
	vcpus[0].counters.exits.page_fault = 10;
	vcpus[1].counters.exits.page_fault = 5;
	vcpus[0].counters.exits.hypercall = 85;
	vcpus[0].counters.hypercalls[1] = 80;
	vcpus[1].counters.hypercalls[60] = 3;
	vcpus[0].counters.guest_cycles = 4000000000;		/* 2 s */
	vcpus[0].counters.vcpu.irets = 4;
	return 0;
}

static int tear_down(void **state)
{
	free(vm.marks);
	unlink(path);
	return 0;
}

static json_t *report(void)
{
	json_error_t error;
	json_t *root;

	assert_int_equal(stats_write_json(&vm, path), 0);
	root = json_load_file(path, 0, &error);
	if (!root)
		fail_msg("%s:%d: %s", path, error.line, error.text);
	return root;
}

/* "a.b.c" of a report; dies if there is no such member. A number is an index. */
static json_t *at(json_t *root, const char *where)
{
	char name[32];
	size_t n;

	for (const char *p = where; *p; p += n + (p[n] == '.')) {
		n = strcspn(p, ".");
		snprintf(name, sizeof name, "%.*s", (int)n, p);
		root = json_is_array(root) ? json_array_get(root, atoi(name)) : json_object_get(root, name);
		if (!root)
			fail_msg("the report has no %s", where);
	}
	return root;
}

#define assert_json_int(root, where, value)	assert_int_equal(json_integer_value(at(root, where)), value)
#define assert_json_text(root, where, value)	assert_string_equal(json_string_value(at(root, where)), value)

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void sums(void **state)
{
	struct vcpu_counters c;
	struct mmu_stats m;

	stats_sum(&vm, &c, &m);
	assert_int_equal(c.exits.page_fault, 15);
	assert_int_equal(stats_exits(&c), 100);
	assert_int_equal(stats_hypercalls(&c), 83);
	assert_int_equal(stats_emulated(&c), 0);
	assert_int_equal(m.hidden, 300);
}

/* Modelled where we shadow; measured where KVM has a second level to the guest's own tables; else no number at all. */
static void ept_kinds(void **state)
{
	static const struct paging_ops nested = { .name = "nested", .guest_tables = true, .add_stats = add_stats };
	struct kvm_counts none, some = { .pf_taken = 4711 };
	struct mmu_stats m = { .touched = 100, .touched_tables = 9, .touched_2m = 7, .reachable = 130 };
	struct ept e;

	kvm_stats_read(NULL, &none);
	assert_int_equal(none.pf_taken, -1);
	ept_count(&vm, &m, &some, &e);
	assert_int_equal(e.kind, EPT_MODELLED);
	assert_int_equal(e.violations, 100);
	assert_int_equal(e.tables, 9);
	assert_int_equal(e.violations_2m, 7);
	assert_int_equal(e.at_most, 130);
	vm.paging = &nested;
	for (int level = -1; level <= 1; level++) {
		vm.host.second_level = level;
		ept_count(&vm, &m, &some, &e);
		assert_int_equal(e.kind, level == 1 ? EPT_MEASURED : EPT_NONE);
		assert_int_equal(e.violations, level == 1 ? 4711 : -1);
		ept_count(&vm, &m, &none, &e);
		assert_int_equal(e.kind, EPT_NONE);
	}
}

static void kvm_counts_of_a_part(void **state)
{
	struct kvm_counts c = { .pf_taken = 10, .pf_fixed = -1, .exits = 5, .pages_4k = 7 };
	const struct kvm_counts from = { .pf_taken = 4, .pf_fixed = -1, .exits = -1, .pages_4k = 9 };

	kvm_stats_subtract(&c, &from);
	assert_int_equal(c.pf_taken, 6);
	assert_int_equal(c.pf_fixed, -1);
	assert_int_equal(c.exits, -1);
	assert_int_equal(c.pages_4k, 7);	/* how many there are, not how often */
}

static void json_members(void **state)
{
	json_t *r;

	vm.exit_code = VMM_EXIT_OK;
	vm.end_ns = 3000000000;
	strcpy(vm.end_reason, "powered off");
	r = report();
	assert_json_int(r, "schema", 1);
	assert_json_text(r, "umbra", "1.2-test");
	assert_json_int(r, "config.memory_bytes", 512 << 20);
	assert_json_int(r, "config.shadow_pages", 1000);
	assert_json_text(r, "config.kick", "auto");
	assert_json_text(r, "config.kick_used", "table");
	assert_true(json_real_value(at(r, "config.timeout_s")) == 1.5);
	assert_true(json_is_null(at(r, "config.initrd")) && json_is_null(at(r, "config.expect")));
	assert_true(json_is_null(at(r, "host.second_level")) && json_is_null(at(r, "end.expect_met")));
	assert_json_int(r, "total.exits.total", 100);
	assert_json_int(r, "total.exits.page_fault", 15);
	assert_json_int(r, "total.hypercalls.mmu_update", 80);
	assert_json_int(r, "total.hypercalls.hypercall_60", 3);
	assert_json_int(r, "total.guest_ns", 2000000000);
	assert_json_int(r, "vcpus.0.exits.page_fault", 10);
	assert_json_int(r, "vcpus.1.id", 1);
	assert_json_int(r, "mmu.hidden", 300);
	assert_json_text(r, "ept.kind", "modelled");
	assert_json_int(r, "ept.violations", 0);
	assert_true(json_is_null(at(r, "kvm.pf_taken")) && json_is_null(at(r, "frames")));
	assert_json_int(r, "mmu.usage.leaves_2m", 5);
	assert_int_equal(json_array_size(at(r, "mmu.usage.nodes")), 0);
	assert_true(fabs(json_real_value(at(r, "mmu.usage.mapped_mib")) - 20) < 1e-9);
	assert_true(fabs(json_real_value(at(r, "mmu.usage.pool_pages_per_mapped_mib")) - 2.5) < 1e-9);
	assert_json_int(r, "end.wall_ns", 3000000000);
	assert_json_int(r, "end.exit_code", 0);
	assert_json_text(r, "end.reason", "powered off");
	assert_int_equal(json_array_size(at(r, "marks")), 0);
	json_decref(r);
}

/* Shadow tables for each of two nodes, which the host calls 3 and 1. */
static void json_node_tables(void **state)
{
	json_t *r;

	vm.place[0] = 3;
	vm.place[1] = 1;
	usage.nr_nodes = 2;
	usage.node[0] = (struct mmu_node_usage){ .pool_pages = 500, .pool_used = 30, .tables = 20, .tables_outside = 2 };
	usage.node[1] = (struct mmu_node_usage){ .pool_pages = 500, .pool_used = 20, .tables = 19 };
	r = report();
	assert_int_equal(json_array_size(at(r, "mmu.usage.nodes")), 2);
	assert_json_int(r, "mmu.usage.nodes.0.node", 3);
	assert_json_int(r, "mmu.usage.nodes.1.node", 1);
	assert_json_int(r, "mmu.usage.nodes.0.tables", 20);
	assert_json_int(r, "mmu.usage.nodes.0.tables_outside", 2);
	assert_json_int(r, "mmu.usage.nodes.1.pool_used_pages", 20);
	json_decref(r);
}

/* What the control socket says while the guest runs. */
static void json_live(void **state)
{
	json_t *r = json_object(), *what = json_object();

	config.helper = VMM_HELPER_ON;
	vm.helper = (struct helper *)&vm;
	assert_int_equal(stats_live(&vm, r), 0);
	assert_int_equal(stats_describe(what), 0);
	assert_json_int(r, "uptime_ns", 5000000000);
	assert_json_int(r, "total.exits.total", 100);
	assert_json_int(r, "helper.events.update", 42);
	assert_json_int(r, "mmu.usage.pool_used_pages", 50);
	assert_null(json_object_get(r, "end"));
	assert_null(json_object_get(r, "marks"));
	assert_true(json_string_length(at(what, "total.exits.page_fault")) > 0);
	assert_true(json_string_length(at(what, "total.irets")) > 0);
	assert_true(json_string_length(at(what, "mmu.hidden")) > 0);
	json_decref(r);
	json_decref(what);
	r = json_object();
	assert_int_equal(stats_info(&vm, r), 0);
	assert_json_int(r, "pid", getpid());
	json_decref(r);
}

/* Nothing mapped, no frequency, bytes that are not UTF-8: null and '?' rather than no report. */
static void json_unknowns(void **state)
{
	json_t *r;

	usage = (struct mmu_usage){ 0 };
	vm.tsc_khz = 0;
	config.cmdline = "quiet \xff\xfe";
	strcpy(vm.end_reason, "panic: \"\x80\"\n");
	r = report();
	assert_true(json_is_null(at(r, "mmu.usage.pool_pages_per_mapped_mib")));
	assert_true(json_is_null(at(r, "total.guest_ns")) && json_is_null(at(r, "host.tsc_khz")));
	assert_json_int(r, "total.guest_cycles", 4000000000);
	assert_json_text(r, "config.cmdline", "quiet ??");
	assert_json_text(r, "end.reason", "panic: \"?\"\n");
	json_decref(r);
}

static void json_exit_codes(void **state)
{
	json_t *r;

	config.expect = "x";
	expectation = false;
	r = report();
	assert_json_int(r, "end.exit_code", VMM_EXIT_NOT_EXPECTED);
	assert_true(json_is_false(at(r, "end.expect_met")));
	json_decref(r);
	vm.exit_code = VMM_EXIT_TIMEOUT;
	r = report();
	assert_json_int(r, "end.exit_code", VMM_EXIT_TIMEOUT);
	json_decref(r);
}

static void markers(void **state)
{
	json_t *r;

	now = 1000;
	stats_mark(&vcpus[0], 1);
	now = 4000;
	vcpus[1].counters.exits.page_fault += 20;
	mmu_counters.hidden += 11;
	stats_mark(&vcpus[1], 2);
	r = report();
	assert_json_int(r, "marks.0.id", 1);
	assert_json_int(r, "marks.0.at_ns", 1000);
	assert_json_int(r, "marks.0.counters.exits.page_fault", 15);
	assert_null(json_object_get(at(r, "marks.0"), "since_previous"));
	assert_json_int(r, "marks.1.since_previous.from_id", 1);
	assert_json_int(r, "marks.1.since_previous.wall_ns", 3000);
	assert_json_int(r, "marks.1.since_previous.counters.exits.total", 20);
	assert_json_int(r, "marks.1.since_previous.mmu.hidden", 11);
	assert_json_int(r, "marks.1.mmu.hidden", 311);
	json_decref(r);
}

/* The guest decides how many it makes, not how much memory they take. */
static void markers_are_bounded(void **state)
{
	for (unsigned i = 0; i < 10000; i++)
		stats_mark(&vcpus[0], i + 1);
	assert_in_range(vm.nr_marks, 1000, 5000);
	for (unsigned i = 0; i < vm.nr_marks; i++)
		assert_int_equal(vm.marks[i].id, i + 1);
}

static unsigned files_in(const char *name)
{
	DIR *d = opendir(name);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void json_file(void **state)
{
	char name[96];
	struct stat st;
	mode_t mask = umask(022);

	assert_int_equal(stats_write_json(&vm, path), 0);
	assert_int_equal(stats_write_json(&vm, path), 0);	/* over the old one */
	umask(mask);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	assert_int_equal(files_in(dir), 1);
	snprintf(name, sizeof name, "%s/none/x.json", dir);
	assert_int_equal(stats_write_json(&vm, name), -ENOENT);
	assert_int_equal(stats_write_json(&vm, "/dev/full"), -ENOSPC);
	assert_int_equal(stats_write_json(&vm, "/dev/null"), 0);
	assert_int_equal(files_in(dir), 1);
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static char *table(void)
{
	char *text;
	size_t n;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	stats_print_table(&vm, f);
	fclose(f);
	return text;
}

/* The line that begins with "  NAME ", as words joined by one blank. */
static const char *line_of(const char *text, const char *name)
{
	static char line[256];
	char begin[64];
	size_t n = 0;

	snprintf(begin, sizeof begin, "\n  %s ", name);
	text = strstr(text, begin);
	if (!text)
		fail_msg("the table has no line '%s'", name);
	for (text += 3; *text && *text != '\n' && n < sizeof line - 1; text++)
		if (*text != ' ' || (n && line[n - 1] != ' '))
			line[n++] = *text;
	line[n] = 0;
	return line;
}

static void assert_width(const char *text)
{
	for (size_t n; *text; text += n + 1) {
		n = strcspn(text, "\n");
		if (n > 100 || (n && text[n - 1] == ' '))
			fail_msg("%zu columns: '%.*s'", n, (int)n, text);
	}
}

static void table_lines(void **state)
{
	char *text;

	vcpus[0].counters.exits.interrupted = 12345678900;
	text = table();
	assert_width(text);
	assert_string_equal(line_of(text, "hidden"), "hidden 300 75.0% guest allows it, shadow absent or weaker");
	assert_string_equal(line_of(text, "true"), "true 100 25.0% guest forbids it: reflected into the guest");
	assert_non_null(strstr(line_of(text, "interrupted"), "12 345 678 900 100.0%"));
	assert_string_equal(line_of(text, "mmu_update"), "mmu_update 80 96.4%");
	assert_string_equal(line_of(text, "hypercall_60"), "hypercall_60 3 3.6%");
	assert_non_null(strstr(line_of(text, "guest"), "2.000 s 20.0%"));	/* of 2 vCPUs' 5 s */
	assert_non_null(strstr(text, "50 of 1 000 pages in use, 60 at most"));
	assert_null(strstr(text, "  node "));
	assert_non_null(strstr(text, "20.0 MiB mapped by 2 560 4 KiB and 5 2 MiB entries: 2.50 pages per MiB"));
	assert_null(strstr(text, "spurious"));		/* none */
	assert_null(strstr(text, "marks"));
	free(text);
}

static void table_node_tables(void **state)
{
	char *text;

	vm.place[0] = 3;
	vm.place[1] = 1;
	usage.nr_nodes = 2;
	usage.node[0] = (struct mmu_node_usage){ .pool_pages = 500, .tables = 20, .tables_outside = 2 };
	usage.node[1] = (struct mmu_node_usage){ .pool_pages = 500, .tables = 19 };
	text = table();
	assert_width(text);
	assert_non_null(strstr(text, "  node 3: 20 tables in 500 pages, 2 of them elsewhere\n"));
	assert_non_null(strstr(text, "  node 1: 19 tables in 500 pages\n"));
	free(text);
}

static void table_interval(void **state)
{
	char *text;

	stats_mark(&vcpus[0], 0);			/* a probe: not kept */
	stats_mark(&vcpus[0], 7);
	stats_mark(&vcpus[0], 1);
	assert_int_equal(vm.nr_marks, 2);
	vcpus[1].counters.exits.page_fault += 20;
	mmu_counters.hidden += 11;
	stats_mark(&vcpus[0], 2);
	mmu_counters.hidden += 89;
	text = table();
	assert_width(text);
	assert_string_equal(line_of(text, "hidden"), "hidden 400 80.0% 11 guest allows it, shadow absent or weaker");
	assert_string_equal(line_of(text, "page_fault"), "page_fault 35 29.2% 20 #PF");
	free(text);
	stats_mark(&vcpus[0], 2);			/* no longer one of each */
	text = table();
	assert_null(strstr(text, "marks"));
	free(text);
	vm.marks[0].id = 2;				/* one of each, but the end comes first */
	vm.nr_marks = 2;
	text = table();
	assert_null(strstr(text, "marks"));
	free(text);
}

/* Every counter at its largest: nothing overflows a column's buffer or the width, though columns give way. */
static void table_of_giants(void **state)
{
	char *text;

	memset(&vcpus[0].counters, 0x11, sizeof vcpus[0].counters);
	memset(&mmu_counters, 0x11, sizeof mmu_counters);
	text = table();
	assert_non_null(strstr(text, "1 229 782 938 247 303 441"));
	free(text);
}

static void table_of_nothing(void **state)
{
	char *text;

	memset(vcpus, 0, sizeof vcpus);
	mmu_counters = (struct mmu_stats){ 0 };
	usage = (struct mmu_usage){ 0 };
	vm.tsc_khz = 0;
	now = 0;
	text = table();
	assert_width(text);
	assert_null(strstr(text, "nan"));
	assert_null(strstr(text, "inf"));
	free(text);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sums), TEST(ept_kinds), TEST(kvm_counts_of_a_part), TEST(json_members), TEST(json_node_tables), TEST(json_live), TEST(json_unknowns), TEST(json_exit_codes), TEST(markers),
		TEST(markers_are_bounded), TEST(json_file), TEST(table_lines), TEST(table_node_tables), TEST(table_interval),
		TEST(table_of_giants), TEST(table_of_nothing),
	};
	int r;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof path, "%s/run.json", dir);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return r;
}
