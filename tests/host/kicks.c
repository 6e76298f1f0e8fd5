/*
 * kicks.c - kick-probe: what makes a changed page-table entry take effect on this host?
 *
 * umbra changes tables that the guest's CR3 points at from outside the VM. With EPT/NPT the processor walks those very
 * tables; where KVM shadows them (ept=0, npt=0, PVM) KVM does not see a host store, and something has to tell it. This
 * program tries every method on every kind of change in a VM of its own and prints which ones worked.
 *
 * One trial: ring-3 code reads 256 pages through tables built here, so that KVM has shadowed them; the host changes
 * entries; ring-0 code in the VM performs the kick; ring-3 code touches the pages again. A page that shows what the
 * tables held before is stale. A page that shows anything else ends the program: that would be a bug here or in KVM.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kicks.h"

#define MAX_TRIALS	1000

/* What changed behind KVM's back, as linear addresses; `pages` are the test region's own addresses. */
struct changed {
	struct list entries;	/* entries changed in tables that are linked */
	struct list tables;	/* every table whose contents changed, recycled ones included */
	struct list recycled;	/* only the recycled ones */
	struct list pages;
};

/* ---- kick methods --------------------------------------------------------------------------------------------- */

enum target { T_NONE, T_ENTRIES, T_TABLES, T_RECYCLED, T_PAGES };

/* What umbra relies on. A kick that makes a claim has to work on the changes that need it. */
enum claim { ENTRIES = 1, WHOLE_TABLE = 2 };

struct kick {
	const char *name;
	unsigned int claims;
	struct {
		const char *routine;	/* in the guest, NULL ends the list */
		enum target target;
		unsigned int offset;	/* added to each address */
	} pass[4];
	void (*host)(struct vm *vm);	/* done by the VMM before the passes; optional */
};

#define PASS(r, ...)	{ .routine = (r), __VA_ARGS__ }
#define KICK(n, ...)	{ .name = (n), .pass = { __VA_ARGS__ } }
#define CLAIM(n, c, ...) { .name = (n), .claims = (c), .pass = { __VA_ARGS__ } }
#define EACH(r)		PASS(r, .target = T_ENTRIES)
#define TABLE(r, off)	PASS(r, .target = T_TABLES, .offset = (off))
#define INVLPG		PASS(kick_invlpg, .target = T_PAGES)
#define CR3		PASS(kick_cr3)
#define LAST		(511 * 8)	/* an entry no trial uses: a write there says nothing about the changed ones */
#define RECYCLED	PASS(kick_or2, .target = T_RECYCLED, .offset = LAST + 2)

/* The two that umbra uses: entries (rule 4), and a table that is recycled (rule 5); and a switch of roots. */
static const struct kick kick_entries = KICK("or8 each, cr3", EACH(kick_or8), CR3);
static const struct kick kick_recycled = KICK("or2 recycled, cr3", RECYCLED, CR3);
static const struct kick kick_reload = KICK("cr3", CR3);
static const struct kick kick_root = KICK("load root", PASS(kick_load, .target = T_PAGES));

static const struct kick kicks[] = {
	KICK("nothing"),
	KICK("invlpg each", INVLPG),
	KICK("cr3", CR3),
	KICK("or8 each", EACH(kick_or8)),
	KICK("or8 each, invlpg each", EACH(kick_or8), INVLPG),
	CLAIM("or8 each, cr3", ENTRIES, EACH(kick_or8), CR3),
	KICK("mov8 each, cr3", EACH(kick_mov8), CR3),
	KICK("or2 table", TABLE(kick_or2, LAST + 2)),
	KICK("or2 table, invlpg each", TABLE(kick_or2, LAST + 2), INVLPG),
	CLAIM("or2 table, cr3", WHOLE_TABLE, TABLE(kick_or2, LAST + 2), CR3),
	KICK("or1 table, cr3", TABLE(kick_or1, LAST), CR3),
	KICK("or4 table, cr3", TABLE(kick_or4, LAST), CR3),
	KICK("or8 table, cr3", TABLE(kick_or8, LAST), CR3),
	KICK("split8 table, cr3", TABLE(kick_split8, LAST - 8), CR3),
	KICK("copy table, cr3", TABLE(kick_copy, 0), CR3),
	KICK("or2 recycled, cr3", RECYCLED, CR3),
	KICK("or8 each, or2 recycled, cr3", EACH(kick_or8), RECYCLED, CR3),
	{ .name = "memory slot re-added", .host = vm_forget_shadow },
};

/* Returns the microseconds it took, entry into the VM and exit from it included. */
static double kick_run(struct vm *vm, struct cpu *cpu, const struct kick *kick, const struct changed *changed)
{
	const struct list *lists[] = { [T_ENTRIES] = &changed->entries, [T_TABLES] = &changed->tables,
				       [T_RECYCLED] = &changed->recycled, [T_PAGES] = &changed->pages };
	struct gate_pass *pass = vm_frame(vm, F_PASSES);
	struct kvm_regs r = { .rip = vm_gate_va(kick_next), .rsp = cpu->stack_top, .rflags = 2,
			      .rbx = VA_LINEAR(F_PASSES, 0) };
	struct timespec begin, end;

	for (unsigned int i = 0; kick->pass[i].routine; i++) {
		const struct list *list = lists[kick->pass[i].target];
		uint64_t *copy = vm_frame(vm, F_LISTS + i);

		if (list && !list->n)
			continue;
		*pass = (struct gate_pass){ .routine = vm_gate_va(kick->pass[i].routine), .list = VA_LINEAR(F_LISTS + i, 0) };
		for (unsigned int e = 0; list && e < list->n; e++)
			copy[pass->count++] = list->va[e] + kick->pass[i].offset;
		pass++;
	}
	*pass = (struct gate_pass){ .routine = vm_gate_va(kick_done) };
	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (kick->host)
		kick->host(vm);
	if (cpu_run_from(cpu, &r) != PORT_DONE)
		cpu_die(cpu, "the kick did not end");
	clock_gettime(CLOCK_MONOTONIC, &end);
	return (end.tv_sec - begin.tv_sec) * 1e6 + (end.tv_nsec - begin.tv_nsec) / 1e3;
}

static void root_load(struct vm *vm, struct cpu *cpu, unsigned int root)
{
	kick_run(vm, cpu, &kick_root, &(struct changed){ .pages = { { root * PAGE }, 1 } });
}

/* ---- changes --------------------------------------------------------------------------------------------------- */

/* Who touches the pages, before and after. The kick is always done by vCPU 0 with the first root loaded. */
enum view {
	VIEW_SAME,
	VIEW_OTHER_ROOT,	/* vCPU 0 with the second root, the only one that links the tables */
	VIEW_OTHER_CPU,		/* vCPU 1, which does nothing at all about the change */
	VIEW_OTHER_CPU_CR3,	/* vCPU 1, which reloads CR3 after vCPU 0's kick */
};

struct change {
	const char *name, *about;
	unsigned int claims;	/* the kicks that have to work here */
	enum view view;
	/* Prepares before the pages are first touched; optional. */
	void (*prepare)(struct vm *vm);
	/* Makes the change and lists it. */
	void (*make)(struct vm *vm, struct changed *changed);
	bool write;		/* touch by writing */
	uint64_t expect;	/* the data set to be seen, or FAULTED */
};

static void list_add(struct list *list, uint64_t va)
{
	list->va[list->n++] = va;
}

static void leaf_fill(struct vm *vm, unsigned int leaf, uint64_t set, uint64_t flags)
{
	for (unsigned int i = 0; i < PAGES; i++)
		vm_entry(vm, leaf + i / PER_TABLE, i % PER_TABLE, set == NO_FRAME ? NO_FRAME : set + i, flags);
}

static void leaf_change(struct vm *vm, struct changed *c, uint64_t set, uint64_t flags)
{
	leaf_fill(vm, F_LEAF, set, flags);
	for (unsigned int i = 0; i < PAGES; i++)
		list_add(&c->entries, VA_LINEAR(F_LEAF + i / PER_TABLE, i % PER_TABLE * 8));
	for (unsigned int t = 0; t < TABLES; t++)
		list_add(&c->tables, VA_LINEAR(F_LEAF + t, 0));
}

static void leaf_remap(struct vm *vm, struct changed *c)
{
	leaf_change(vm, c, F_SET_B, USER_RW);
}

static void leaf_clear(struct vm *vm, struct changed *c)
{
	leaf_change(vm, c, NO_FRAME, 0);
}

static void leaf_protect(struct vm *vm, struct changed *c)
{
	leaf_change(vm, c, F_SET_A, USER_RW & ~PTE_W);
}

/* Links the leaf tables at `leaf` (or none) into the test region. */
static void upper_link(struct vm *vm, unsigned int table, uint64_t leaf)
{
	for (unsigned int t = 0; t < TABLES; t++)
		vm_entry(vm, table, t, leaf == NO_FRAME ? NO_FRAME : leaf + t, USER_RW);
}

static void upper_change(struct vm *vm, struct changed *c, uint64_t leaf)
{
	upper_link(vm, F_L2_TEST, leaf);
	for (unsigned int t = 0; t < TABLES; t++)
		list_add(&c->entries, VA_LINEAR(F_L2_TEST, t * 8));
	list_add(&c->tables, VA_LINEAR(F_L2_TEST, 0));
}

static void upper_clear(struct vm *vm, struct changed *c)
{
	upper_change(vm, c, NO_FRAME);
}

static void upper_fresh(struct vm *vm, struct changed *c)
{
	leaf_fill(vm, F_LEAF_FRESH, F_SET_B, USER_RW);
	upper_change(vm, c, F_LEAF_FRESH);
}

/* Lets KVM see F_L2_OTHER at VA_TEST_ALT with set C below it, then takes it out of the tree again. */
static void recycled_prepare(struct vm *vm)
{
	struct changed c = { .entries.n = 0 };
	uint64_t result[PAGES];

	leaf_fill(vm, F_LEAF_OTHER, F_SET_C, USER_RW);
	upper_link(vm, F_L2_OTHER, F_LEAF_OTHER);
	vm_entry(vm, F_L3_USER, VA_TEST_ALT >> 30, F_L2_OTHER, USER_RW);
	for (unsigned int i = 0; i < PAGES; i++)
		list_add(&c.pages, VA_TEST_ALT + i / PER_TABLE * 512 * PAGE + i % PER_TABLE * PAGE);
	cpu_touch(vm, &vm->cpu[0], &c.pages, false, result);
	for (unsigned int i = 0; i < PAGES; i++)
		if (result[i] != F_SET_C + i)
			cpu_die(&vm->cpu[0], "a table that is to be recycled does not show its own contents");
	vm_entry(vm, F_L3_USER, VA_TEST_ALT >> 30, NO_FRAME, 0);
	list_add(&c.entries, VA_LINEAR(F_L3_USER, (VA_TEST_ALT >> 30) * 8));
	kick_run(vm, &vm->cpu[0], &kick_entries, &c);
}

static void recycled_add(struct changed *c, unsigned int table)
{
	list_add(&c->recycled, VA_LINEAR(table, 0));
	list_add(&c->tables, VA_LINEAR(table, 0));
}

/* A leaf table KVM knew with set C now holds set B and is linked in place of the old one. */
static void recycled_leaf(struct vm *vm, struct changed *c)
{
	leaf_fill(vm, F_LEAF_OTHER, F_SET_B, USER_RW);
	upper_change(vm, c, F_LEAF_OTHER);
	for (unsigned int t = 0; t < TABLES; t++)
		recycled_add(c, F_LEAF_OTHER + t);
}

/* The same as rule 5 does it: zero, kick the table, fill by plain stores, link. */
static void recycled_leaf_rule5(struct vm *vm, struct changed *c)
{
	struct changed zeroed = { .entries.n = 0 };

	for (unsigned int t = 0; t < TABLES; t++)
		recycled_add(&zeroed, F_LEAF_OTHER + t);
	leaf_fill(vm, F_LEAF_OTHER, NO_FRAME, 0);
	kick_run(vm, &vm->cpu[0], &kick_recycled, &zeroed);
	leaf_fill(vm, F_LEAF_OTHER, F_SET_B, USER_RW);
	upper_change(vm, c, F_LEAF_OTHER);
}

static void recycled_upper_link(struct vm *vm, struct changed *c)
{
	leaf_fill(vm, F_LEAF_FRESH, F_SET_B, USER_RW);
	upper_link(vm, F_L2_OTHER, F_LEAF_FRESH);
	vm_entry(vm, F_L3_USER, VA_TEST >> 30, F_L2_OTHER, USER_RW);
	list_add(&c->entries, VA_LINEAR(F_L3_USER, (VA_TEST >> 30) * 8));
	list_add(&c->tables, VA_LINEAR(F_L3_USER, 0));
}

/* An L2 table KVM knew with other leaf tables below it. */
static void recycled_upper(struct vm *vm, struct changed *c)
{
	recycled_upper_link(vm, c);
	recycled_add(c, F_L2_OTHER);
}

static void recycled_upper_rule5(struct vm *vm, struct changed *c)
{
	struct changed zeroed = { .entries.n = 0 };

	recycled_add(&zeroed, F_L2_OTHER);
	upper_link(vm, F_L2_OTHER, NO_FRAME);
	kick_run(vm, &vm->cpu[0], &kick_recycled, &zeroed);
	recycled_upper_link(vm, c);
}

#define ANY (ENTRIES | WHOLE_TABLE)

static const struct change changes[] = {
	{ "A->B", "leaf entry: another frame", ANY, VIEW_SAME, NULL, leaf_remap, false, F_SET_B },
	{ "P->0", "leaf entry: present -> not present", ANY, VIEW_SAME, NULL, leaf_clear, false, FAULTED },
	{ "W->RO", "leaf entry: writable -> read-only", ANY, VIEW_SAME, NULL, leaf_protect, true, FAULTED },
	{ "up->0", "L2 entry: present -> not present", ANY, VIEW_SAME, NULL, upper_clear, false, FAULTED },
	{ "up->new", "L2 entry: a leaf table never used before", ANY, VIEW_SAME, NULL, upper_fresh, false, F_SET_B },
	{ "up->rec1", "L2 entry: a recycled leaf table", WHOLE_TABLE, VIEW_SAME, recycled_prepare, recycled_leaf,
	  false, F_SET_B },
	{ "up->rec2", "L3 entry: a recycled L2 table", WHOLE_TABLE, VIEW_SAME, recycled_prepare, recycled_upper,
	  false, F_SET_B },
	{ "r5 leaf", "up->rec1, table zeroed and kicked (or2, cr3) before it was filled", ANY, VIEW_SAME,
	  recycled_prepare, recycled_leaf_rule5, false, F_SET_B },
	{ "r5 L2", "up->rec2, table zeroed and kicked (or2, cr3) before it was filled", ANY, VIEW_SAME,
	  recycled_prepare, recycled_upper_rule5, false, F_SET_B },
	/* second block */
	{ "A->B r", "A->B in tables that only another root links; seen after loading that root", ANY, VIEW_OTHER_ROOT,
	  NULL, leaf_remap, false, F_SET_B },
	{ "P->0 r", "P->0, likewise", ANY, VIEW_OTHER_ROOT, NULL, leaf_clear, false, FAULTED },
	{ "up->new r", "up->new, likewise", ANY, VIEW_OTHER_ROOT, NULL, upper_fresh, false, F_SET_B },
	{ "A->B v", "A->B, seen by another vCPU that does nothing", 0, VIEW_OTHER_CPU, NULL, leaf_remap, false, F_SET_B },
	{ "up->new v", "up->new, likewise", 0, VIEW_OTHER_CPU, NULL, upper_fresh, false, F_SET_B },
	{ "A->B vc", "A->B, seen by another vCPU that reloads CR3 after the kick", ANY, VIEW_OTHER_CPU_CR3,
	  NULL, leaf_remap, false, F_SET_B },
	{ "P->0 vc", "P->0, likewise", ANY, VIEW_OTHER_CPU_CR3, NULL, leaf_clear, false, FAULTED },
	{ "up->new vc", "up->new, likewise", ANY, VIEW_OTHER_CPU_CR3, NULL, upper_fresh, false, F_SET_B },
};

/* ---- trials ---------------------------------------------------------------------------------------------------- */

/* Returns how many of the PAGES were stale; *us: what the kick took. */
static unsigned int trial(struct vm *vm, const struct change *change, const struct kick *kick, double *us)
{
	bool other_root = change->view == VIEW_OTHER_ROOT;
	struct cpu *kicker = &vm->cpu[0], *eye = &vm->cpu[change->view >= VIEW_OTHER_CPU];
	struct changed c = { .entries.n = 0 };
	uint64_t result[PAGES];
	unsigned int stale = 0;

	memset(vm_frame(vm, F_L2_TEST), 0, PAGE);
	memset(vm_frame(vm, F_L2_OTHER), 0, PAGE);
	leaf_fill(vm, F_LEAF, F_SET_A, USER_RW);
	upper_link(vm, F_L2_TEST, F_LEAF);
	vm_entry(vm, F_L3_USER, VA_TEST >> 30, other_root ? NO_FRAME : F_L2_TEST, USER_RW);
	vm_entry(vm, F_L3_OTHER, VA_TEST >> 30, other_root ? F_L2_TEST : NO_FRAME, USER_RW);
	vm_entry(vm, F_L3_USER, VA_TEST_ALT >> 30, NO_FRAME, 0);
	vm_forget_shadow(vm);
	if (change->prepare)
		change->prepare(vm);
	for (unsigned int i = 0; i < PAGES; i++)
		list_add(&c.pages, VA_TEST + i / PER_TABLE * 512 * PAGE + i % PER_TABLE * PAGE);
	if (eye != kicker)
		cpu_touch(vm, kicker, &c.pages, true, result);
	if (other_root)
		root_load(vm, eye, F_ROOT_OTHER);
	cpu_touch(vm, eye, &c.pages, true, result);
	cpu_touch(vm, eye, &c.pages, false, result);
	for (unsigned int i = 0; i < PAGES; i++)
		if (result[i] != F_SET_A + i)
			cpu_die(eye, "the tables do not show their first contents");
	if (other_root)
		root_load(vm, eye, F_ROOT);

	change->make(vm, &c);
	*us = kick_run(vm, kicker, kick, &c);
	if (other_root)
		root_load(vm, eye, F_ROOT_OTHER);
	if (change->view == VIEW_OTHER_CPU_CR3)
		kick_run(vm, eye, &kick_reload, &c);
	cpu_touch(vm, eye, &c.pages, change->write, result);
	if (other_root)
		root_load(vm, eye, F_ROOT);
	for (unsigned int i = 0; i < PAGES; i++) {
		uint64_t expect = change->expect == FAULTED ? FAULTED : change->expect + i;
		uint64_t old = change->write ? 0 : F_SET_A + i, older = F_SET_C + i;

		if (result[i] == expect)
			continue;
		if (result[i] != old && result[i] != older)
			cpu_die(eye, "a page shows what no table ever held");
		stale++;
	}
	return stale;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static const char *read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");

	buf[0] = 0;
	if (f) {
		if (fgets(buf, size, f))
			buf[strcspn(buf, "\n")] = 0;
		fclose(f);
	}
	return buf[0] ? buf : NULL;
}

static void print_host(void)
{
	char line[128];

	printf("host: Linux %s, ", read_line("/proc/sys/kernel/osrelease", line, sizeof(line)) ? line : "?");
	if (!access("/sys/module/kvm_pvm", F_OK))
		printf("PVM (KVM shadows our tables)\n");
	else if (read_line("/sys/module/kvm_intel/parameters/ept", line, sizeof(line)))
		printf("kvm_intel ept=%s\n", line);
	else if (read_line("/sys/module/kvm_amd/parameters/npt", line, sizeof(line)))
		printf("kvm_amd npt=%s\n", line);
	else
		printf("KVM module unknown\n");
}

static void usage(FILE *out)
{
	fputs("usage: kick-probe [-n TRIALS]\n"
	      "Which way of announcing a changed page-table entry works on this host's KVM.\n"
	      "  -n TRIALS  per cell (default 5); a cell says ok only if no page was stale in any of them\n"
	      "  -h         this text\n"
	      "Exit code: 0 the kicks umbra uses work, 1 they do not (or an error), 2 usage, 77 no /dev/kvm.\n", out);
}

/* Tries every kick on changes[first..end-1] and prints a line each. Returns whether all claims held. */
static bool print_block(struct vm *vm, unsigned int first, unsigned int end, unsigned int trials)
{
	bool sound = true;

	printf("\n");
	for (unsigned int c = first; c < end; c++)
		printf("  %-10s %s\n", changes[c].name, changes[c].about);
	printf("\n%-28s", "kick");
	for (unsigned int c = first; c < end; c++)
		printf(" %-10s", changes[c].name);
	printf("       us\n");
	for (unsigned int k = 0; k < sizeof(kicks) / sizeof(kicks[0]); k++) {
		double us[MAX_TRIALS], median = 0;

		printf("%-28s", kicks[k].name);
		for (unsigned int c = first; c < end; c++) {
			unsigned int worst = 0;

			for (unsigned int t = 0; t < trials; t++) {
				unsigned int stale = trial(vm, &changes[c], &kicks[k], &us[t]);

				if (stale > worst)
					worst = stale;
			}
			qsort(us, trials, sizeof(us[0]), compare_double);
			if (c == first)
				median = us[trials / 2];
			if (worst && kicks[k].claims & changes[c].claims) {
				sound = false;
				printf(" FAIL%-6u", worst);
			} else if (worst) {
				printf(" stale%-5u", worst);
			} else {
				printf(" %-10s", "ok");
			}
		}
		printf(" %8.1f\n", median);
		fflush(stdout);
	}
	return sound;
}

int main(int argc, char **argv)
{
	enum { END = sizeof(changes) / sizeof(changes[0]) };
	unsigned int trials = 5, second = 0;
	struct vm vm;
	bool sound;
	int opt;

	while ((opt = getopt(argc, argv, "n:h")) != -1) {
		char *end = NULL;

		if (opt == 'h') {
			usage(stdout);
			return 0;
		}
		if (opt == 'n')
			trials = strtoul(optarg, &end, 10);
		if (opt != 'n' || *end || trials < 1 || trials > MAX_TRIALS) {
			usage(stderr);
			return 2;
		}
	}
	if (optind != argc) {
		usage(stderr);
		return 2;
	}

	vm_create(&vm);
	for (unsigned int i = 0; i < PAGES; i++) {
		*(uint64_t *)vm_frame(&vm, F_SET_A + i) = F_SET_A + i;
		*(uint64_t *)vm_frame(&vm, F_SET_B + i) = F_SET_B + i;
		*(uint64_t *)vm_frame(&vm, F_SET_C + i) = F_SET_C + i;
	}
	print_host();
	printf("%u pages in %u leaf tables, %u trials per cell. staleN: N pages showed the old contents; FAIL: and umbra\n"
	       "relies on this kick. us: median of one whole kick for the first column's change, exit included.\n",
	       PAGES, TABLES, trials);
	while (changes[second].view == VIEW_SAME)
		second++;
	sound = print_block(&vm, 0, second, trials);
	sound &= print_block(&vm, second, END, trials);
	used_probe(&vm, trials);
	printf("\n%s\n", sound ? "ok: umbra's kicks work on this host" : "FAIL: a kick umbra relies on does not work here");
	return sound ? 0 : 1;
}
