/*
 * vmm/node_tables.c over a real MMU: the size of the pool, who gets which part, and a vCPU that changes its node.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "vmm/vm.h"

#define RAM	64u
#define POOL	256u
#define L4	5u
#define USER_L4	6u

static struct vmm_config config;
static struct vm vm;
static struct vcpu vcpu;
static bool busy, dry;
static unsigned loads;

static struct {
	void *at;
	size_t bytes;
	unsigned node;
} preferred[NUMA_MAX_PLACES];
static unsigned nr_preferred;

/* ---- the rest of vmm/ ---------------------------------------------------------------------------------------------- */

bool shim_busy(const struct vcpu *v)
{
	return busy;
}

int places_prefer(void *at, size_t bytes, unsigned node)
{
	preferred[nr_preferred].at = at;
	preferred[nr_preferred].bytes = bytes;
	preferred[nr_preferred++].node = node;
	return 0;
}

static int load(struct vcpu *v, enum mmu_mode mode, gfn_t l4, mfn_t *root)
{
	loads++;
	return dry && mode == MMU_USER ? -EAGAIN : mmu_load(v->mmu, mode, l4, root);
}

static const struct paging_ops paging = { .name = "shadow", .load = load };

/* ---- the tests ------------------------------------------------------------------------------------------------------- */

static void start(unsigned places)
{
	config = (struct vmm_config){ .node_tables = true };
	vm = (struct vm){ .config = &config, .paging = &paging, .nr_places = places, .place = { 3, 1 } };
	nr_preferred = loads = 0;
	busy = dry = false;
}

static void test_pool(void **state)
{
	start(1);
	assert_int_equal(node_tables_start(&vm, 5000), 0);
	assert_false(vm.node_tables);
	assert_int_equal(vm.pool_pages, 5000);		/* to the page what it was */
	start(3);
	assert_int_equal(node_tables_start(&vm, 5000), 0);
	assert_true(vm.node_tables);
	assert_int_equal(vm.pool_pages, 3 * 5120);	/* parts of whole 2 MiB */
	assert_int_equal(node_tables_start(&vm, 1u << 20), 0);
	assert_true(vm.pool_pages <= 1u << 20);
	assert_int_equal(vm.pool_pages % (3 * 512), 0);
	config.node_tables = false;
	assert_int_equal(node_tables_start(&vm, 5000), 0);
	assert_false(vm.node_tables);
	assert_int_equal(vm.pool_pages, 5000);
	/* A size that was asked for is for all nodes together. */
	config = (struct vmm_config){ .node_tables = true, .shadow_pages = 3 * MMU_POOL_MIN };
	assert_int_equal(node_tables_start(&vm, 5000), 0);
	assert_int_equal(vm.pool_pages, 3 * MMU_POOL_MIN);
	config.shadow_pages--;
	assert_int_equal(node_tables_start(&vm, 5000), -EINVAL);
}

static void open_mmu(uint8_t **mem)
{
	static struct mmu_region region;
	struct mmu_config c = { .regions = &region, .nr_regions = 1, .nr_gfns = RAM, .pool = { RAM }, .pool_pages = POOL,
				.nr_nodes = 2, .nx = true };
	mfn_t root;

	*mem = mmap(NULL, (RAM + POOL) * MMU_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(*mem != MAP_FAILED);
	region = (struct mmu_region){ { 0 }, RAM + POOL, *mem };
	start(2);
	vm.node_tables = true;
	assert_int_equal(mmu_create(&c, &vm.mmu), 0);
	vcpu = (struct vcpu){ .vm = &vm, .state = VCPU_IN_GATE, .l4 = { { L4 }, { USER_L4 } } };
	assert_int_equal(mmu_cpu_create(vm.mmu, &vcpu.mmu), 0);
	assert_int_equal(load(&vcpu, MMU_KERNEL, vcpu.l4[MMU_KERNEL], &root), 0);
	vcpu.root[MMU_KERNEL] = root;
	assert_int_equal(load(&vcpu, MMU_USER, vcpu.l4[MMU_USER], &root), 0);
	vcpu.root[MMU_USER] = root;
	loads = 0;
}

static void close_mmu(uint8_t *mem)
{
	mmu_cpu_destroy(vcpu.mmu);
	mmu_destroy(vm.mmu);
	munmap(mem, (RAM + POOL) * MMU_PAGE_SIZE);
}

static void test_place(void **state)
{
	uint8_t *mem;

	open_mmu(&mem);
	assert_int_equal(node_tables_place(&vm), 0);
	assert_int_equal(nr_preferred, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_ptr_equal(preferred[i].at, mem + (RAM + i * POOL / 2) * MMU_PAGE_SIZE);
		assert_int_equal(preferred[i].bytes, POOL / 2 * MMU_PAGE_SIZE);
		assert_int_equal(preferred[i].node, vm.place[i]);	/* the host's number */
	}
	vm.topology.fake = true;
	assert_int_equal(node_tables_place(&vm), 0);
	assert_int_equal(nr_preferred, 2);
	close_mmu(mem);
}

static bool on_node(mfn_t root, unsigned node)
{
	uint32_t count;
	mfn_t first;

	mmu_pool_part(vm.mmu, node, &first, &count);
	return root.n - first.n < count;
}

static void test_follow(void **state)
{
	uint8_t *mem;

	open_mmu(&mem);
	node_tables_follow(&vcpu);
	assert_int_equal(loads, 0);		/* it is where it was */
	atomic_store(&vcpu.place, 1);

	/* Not where the root in CR3 matters to code of ours. */
	vcpu.state = VCPU_MID_GATE;
	node_tables_follow(&vcpu);
	vcpu.state = VCPU_AT_GUEST;
	busy = true;
	node_tables_follow(&vcpu);
	assert_int_equal(loads, 0);
	busy = false;

	/* One root cannot be had: it serves on, and is asked for again. */
	dry = true;
	node_tables_follow(&vcpu);
	assert_true(on_node(vcpu.root[MMU_KERNEL], 1));
	assert_true(on_node(vcpu.root[MMU_USER], 0));
	assert_int_equal(vcpu.counters.vcpu.node_switches, 0);
	dry = false;
	node_tables_follow(&vcpu);
	assert_true(on_node(vcpu.root[MMU_USER], 1));
	assert_int_equal(vcpu.counters.vcpu.node_switches, 1);
	loads = 0;
	node_tables_follow(&vcpu);
	assert_int_equal(loads, 0);

	/* Without a user root, none is loaded. */
	vcpu.l4[MMU_USER] = MMU_NO_GFN;
	atomic_store(&vcpu.place, 0);
	node_tables_follow(&vcpu);
	assert_int_equal(loads, 1);
	assert_true(on_node(vcpu.root[MMU_KERNEL], 0));
	close_mmu(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pool),
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_follow),
	};

	return cmocka_run_group_tests_name("vmm: shadow tables per node", tests, NULL, NULL);
}
