/*
 * test_numa_policies.c - what may be asked of placement, on made-up hosts; the census on this one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "numa/numa.h"

/* Nodes 0, 1 and 3; 3 has memory alone, 1 has processors alone. */
static struct numa_topology host(void)
{
	struct numa_topology t = { .nr_nodes = 3, .highest = 3, .with_memory = 0x9, .with_cpus = 0x3 };

	for (unsigned i = 0; i < 4; i++)
		t.node[i].exists = i != 2;
	CPU_SET(0, &t.node[0].cpus);
	CPU_SET(1, &t.node[0].cpus);
	CPU_SET(2, &t.node[1].cpus);
	return t;
}

static void lists_of_nodes(void **state)
{
	static const char *const bad[] = { "", ",", "1,", "-1", "1-", "2-1", "64", "0-64", "x", "1 ", " 1", "1,,2", "0x1", "all,1", "100" };
	uint64_t mask = 5;

	assert_int_equal(numa_parse_nodes("0", &mask), 0);
	assert_int_equal(mask, 1);
	assert_int_equal(numa_parse_nodes("0,2-3,63", &mask), 0);
	assert_true(mask == (0xdull | 1ull << 63));
	assert_int_equal(numa_parse_nodes("all", &mask), 0);
	assert_true(mask == ~0ull);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		mask = 5;
		if (!numa_parse_nodes(bad[i], &mask))
			fail_msg("'%s' is taken for nodes", bad[i]);
		assert_int_equal(mask, 5);
	}
}

static bool allowed(const struct numa_config *c, const char *about)
{
	struct numa_topology t = host();
	char why[128] = "";
	bool ok = !numa_check(c, &t, why, sizeof why);

	if (about)
		assert_non_null(strstr(why, about));
	assert_int_equal(ok, !*why);
	return ok;
}

static void what_may_be_asked(void **state)
{
	const struct numa_policy *bind = numa_policy_find("bind"), *local = numa_policy_find("local");

	assert_non_null(bind);
	assert_null(numa_policy_find("off"));
	assert_null(numa_policy_find("bin"));
	assert_string_equal(numa_policy_name(NULL), "off");
	assert_true(allowed(&(struct numa_config){ .policy = local, .preferred = -1 }, NULL));
	assert_false(allowed(&(struct numa_config){ .policy = bind, .preferred = -1 }, "needs"));
	assert_true(allowed(&(struct numa_config){ .policy = bind, .preferred = 3 }, NULL));
	assert_false(allowed(&(struct numa_config){ .policy = bind, .preferred = 1 }, "no memory"));
	assert_false(allowed(&(struct numa_config){ .policy = bind, .preferred = 63 }, "no memory"));
	assert_true(allowed(&(struct numa_config){ .policy = bind, .preferred = -1, .membind = 0x9 }, NULL));
	assert_false(allowed(&(struct numa_config){ .policy = bind, .preferred = -1, .membind = 0x5 }, "node 2"));
	assert_true(allowed(&(struct numa_config){ .policy = bind, .preferred = -1, .membind = ~0ull }, NULL));
	assert_false(allowed(&(struct numa_config){ .policy = bind, .preferred = 0, .membind = 1 }, "exclude"));
	assert_false(allowed(&(struct numa_config){ .policy = bind, .preferred = -1, .cpunodebind = 8 }, "no processor"));
	assert_true(allowed(&(struct numa_config){ .policy = bind, .preferred = -1, .cpunodebind = 3 }, NULL));
}

static void processors(void **state)
{
	struct numa_config c = { .preferred = -1 };
	struct numa_topology t = host();
	cpu_set_t cpus;

	assert_false(numa_cpus(&c, &t, &cpus));
	c.cpunodebind = 2;
	assert_true(numa_cpus(&c, &t, &cpus));
	assert_int_equal(CPU_COUNT(&cpus), 1);
	assert_true(CPU_ISSET(2, &cpus));
	c.cpunodebind = ~0ull;
	assert_false(numa_cpus(&c, &t, &cpus));
}

static void census_finds_what_is_there(void **state)
{
	enum { PAGES = 3000 };
	char *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t pages[NUMA_MAX_NODES], absent, sum = 0;

	assert_true(p != MAP_FAILED);
	madvise(p, PAGES * 4096, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < PAGES; i += 3)
		p[i * 4096] = 1;
	if (numa_census(p, PAGES * 4096, pages, &absent))
		skip();				/* a kernel without move_pages(2) */
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++)
		sum += pages[i];
	assert_int_equal(sum, PAGES / 3);
	assert_int_equal(absent, PAGES - PAGES / 3);
	munmap(p, PAGES * 4096);
}

static void this_host(void **state)
{
	struct numa_topology t;
	cpu_set_t mine;
	unsigned cpus = 0;

	assert_int_equal(numa_topology_read(&t), 0);
	assert_true(t.nr_nodes >= 1 && t.with_memory && t.with_cpus);
	assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
	for (unsigned i = 0; i < NUMA_MAX_NODES; i++)
		cpus += t.node[i].nr_cpus;
	assert_int_equal(cpus, CPU_COUNT(&mine));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists_of_nodes),
		cmocka_unit_test(what_may_be_asked),
		cmocka_unit_test(processors),
		cmocka_unit_test(census_finds_what_is_there),
		cmocka_unit_test(this_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
