/*
 * vnuma.c - XENMEM_get_vnumainfo: what a guest is told of NUMA nodes, and what becomes of calls that make no sense.
 *
 * Command line: vnodes=N (0: it is told nothing), vcpus=N, remote=DISTANCE between two nodes.
 */
#include "lib/guest.h"

#define MAX	64u
#define UNTOUCHED	0xa5a5a5a5u

static struct {
	unsigned distance[MAX * MAX + 1], vnode[MAX + 1];
	struct xen_vmemrange range[MAX + 1];
} out;
static union {
	struct xen_vnuma_topology_info info;
	uint8_t room[sizeof(out)];
} question;
#define info	question.info
static unsigned vnodes, vcpus;

static void prepare(void)
{
	vnodes = (unsigned)option_number("vnodes", 0);
	vcpus = (unsigned)option_number("vcpus", 1);
	memset(&out, 0xa5, sizeof(out));
	memset(&info, 0, sizeof(info));
	info.domid = DOMID_SELF;
	info.nr_vnodes = info.nr_vcpus = info.nr_vmemranges = MAX;
	info.vdistance.h.p = out.distance;
	info.vcpu_to_vnode.h.p = out.vnode;
	info.vmemrange.h.p = out.range;
}

static long ask(void)
{
	return hcall2(memory_op, XENMEM_get_vnumainfo, &info);
}

static void expect_untouched(void)
{
	for (unsigned i = 0; i < sizeof(out) / 4 && !test_failed(); i++)
		expect(((unsigned *)&out)[i] == UNTOUCHED, "word %u was written to", i);
}

static void expect_sizes(void)
{
	expect_eq(info.nr_vnodes, vnodes);
	expect_eq(info.nr_vmemranges, vnodes);
	expect_eq(info.nr_vcpus, vcpus);
}

TEST(asks)
{
	prepare();
	if (!vnodes) {
		expect_eq(ask(), -XEN_EOPNOTSUPP);
		expect_eq(info.nr_vnodes, MAX);
		expect_untouched();
		return;
	}
	expect_eq(ask(), 0);
	expect_sizes();
}

TEST(ranges_cover_all_memory)
{
	uint64_t at = 0;

	prepare();
	if (ask())
		return test_skip("it is told nothing");
	for (unsigned i = 0; i < vnodes; i++) {
		expect_eq(out.range[i].start, at);
		expect(out.range[i].end > at, "range %u ends at %lx", i, out.range[i].end);
		expect_eq(out.range[i].flags, 0);
		expect_eq(out.range[i].nid, i);
		at = out.range[i].end;
	}
	expect_eq(at, start_info->nr_pages << 12);
	expect_eq(out.range[vnodes].nid, UNTOUCHED);
}

TEST(distances)
{
	unsigned remote = (unsigned)option_number("remote", 10);

	prepare();
	if (ask())
		return test_skip("it is told nothing");
	for (unsigned i = 0; i < vnodes * vnodes; i++)
		expect_eq(out.distance[i], i % (vnodes + 1) ? remote : 10);
	expect_eq(out.distance[vnodes * vnodes], UNTOUCHED);
}

TEST(vcpus_in_order)
{
	prepare();
	if (ask())
		return test_skip("it is told nothing");
	for (unsigned i = 0; i < vcpus; i++)
		expect_eq(out.vnode[i], i * vnodes / vcpus);
	expect_eq(out.vnode[vcpus], UNTOUCHED);
}

/* Each number too small in turn: it learns them all, and nothing is written to. Just enough is enough. */
TEST(too_small)
{
	unsigned *const number[] = { &info.nr_vnodes, &info.nr_vcpus, &info.nr_vmemranges };

	prepare();
	if (ask())
		return test_skip("it is told nothing");
	for (unsigned i = 0; i < ARRAY_SIZE(number); i++) {
		for (unsigned zero = 0; zero < 2; zero++) {
			prepare();
			*number[i] = zero ? 0 : i == 1 ? vcpus - 1 : vnodes - 1;
			expect_eq(ask(), -XEN_ENOBUFS);
			expect_sizes();
			expect_untouched();
		}
	}
	expect_eq(ask(), 0);
	prepare();
	info.nr_vnodes = info.nr_vcpus = info.nr_vmemranges = ~0u;
	expect_eq(ask(), 0);
	expect_sizes();
}

TEST(refused)
{
	prepare();
	info.pad = 1;
	expect_eq(ask(), -XEN_EINVAL);
	prepare();
	info.domid = 7;
	expect_eq(ask(), -XEN_ESRCH);
	prepare();
	expect_eq(hcall2(memory_op, XENMEM_get_vnumainfo | 1 << 6, &info), -XEN_EINVAL);
	expect_eq(hcall2(memory_op, XENMEM_get_vnumainfo, 0), -XEN_EFAULT);
	expect_eq(hcall2(memory_op, XENMEM_get_vnumainfo, TEST_VA), -XEN_EFAULT);
	expect_eq(hcall2(memory_op, XENMEM_get_vnumainfo, 0xffff800000000000), -XEN_EFAULT);
	expect_untouched();
}

/* Arrays where nothing is mapped, where nothing may be written, in the hypervisor's part, and half behind the end. */
TEST(bad_arrays)
{
	uint64_t readonly, bad[5];

	prepare();
	if (ask())
		return test_skip("it is told nothing");
	readonly = PTR(page_alloc());
	page_protect((void *)readonly, PTE_RO_DATA);
	map_page(root_va(), TEST_VA, pte_make(va_to_mfn(page_alloc()), PTE_DATA));
	bad[0] = 0;
	bad[1] = readonly;
	bad[2] = TEST_VA + PAGE - 2;
	bad[3] = 0xffff800000000000;
	bad[4] = 0x0000800000000000 - 2;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		for (unsigned which = 0; which < 3; which++) {
			prepare();
			if (which == 0)
				info.vdistance.h.p = (unsigned *)bad[i];
			else if (which == 1)
				info.vcpu_to_vnode.h.p = (unsigned *)bad[i];
			else
				info.vmemrange.h.p = (struct xen_vmemrange *)bad[i];
			expect_eq(ask(), -XEN_EFAULT);
			expect_eq(info.nr_vnodes, MAX);
		}
	}
	for (unsigned i = 0; i < PAGE / 8; i++)
		expect_eq(((uint64_t *)readonly)[i], 0);
}

/* The answer over the question, and over its own arrays: a guest's own trouble, and nobody else's. */
TEST(arrays_on_top_of_each_other)
{
	prepare();
	info.vdistance.h.p = (unsigned *)&info;
	info.vcpu_to_vnode.h.p = (unsigned *)&info;
	info.vmemrange.h.p = (struct xen_vmemrange *)&info;
	expect_eq(ask(), vnodes ? 0 : -XEN_EOPNOTSUPP);
	if (vnodes)
		expect_sizes();
}
