/*
 * control_numa_move.c - `numa move`: what a user moves by hand. Where there is a NUMA manager it does it, so that its books
 * and its log are right; what the pmap does not move, and everything where there is none, the host kernel moves where it lies.
 */
#include <errno.h>
#include <string.h>

#include "vmm/control_numa.h"

static unsigned place_of(const struct vm *vm, unsigned node)
{
	for (unsigned i = 0; i < vm->nr_places; i++)
		if (vm->place[i] == node)
			return i;
	return NUMA_NOWHERE;
}

/* ---- frames --------------------------------------------------------------------------------------------------------- */

/* Frame g at its home, if it stands there. Page tables always do. */
static int move_at_home(struct vm *vm, uint64_t gfn, unsigned node, struct numa_moved *out)
{
	if (vm->topology.fake || mmu_pmap(vm->mmu, (gfn_t){ gfn }).n != gfn)
		return -EBUSY;
	return numa_move_range((char *)vm->ram + (gfn << 12), 4096, node, out);
}

/* By the pmap, those that stand elsewhere. */
static int move_by_pmap(struct vm *vm, uint64_t gfn, unsigned n, unsigned node, struct numa_moved *out)
{
	struct numa_move list[NUMA_FRAMES_MAX];
	int nodes[NUMA_FRAMES_MAX], r = numa_frame_nodes(vm, gfn, n, nodes);
	unsigned nr = 0;

	for (unsigned i = 0; !r && i < n; i++) {
		out->absent += nodes[i] < 0;
		out->there += nodes[i] == (int)node;
		if (nodes[i] >= 0 && nodes[i] != (int)node)
			list[nr++] = (struct numa_move){ .gfn = gfn + i, .kind = NUMA_MIGRATE, .node = place_of(vm, node) };
	}
	if (r || !nr)
		return r;
	numa_manager_move(vm->numa, list, nr);
	for (unsigned i = 0; i < nr; i++) {
		if (!list[i].result) {
			out->moved++;
			continue;
		}
		if (!move_at_home(vm, list[i].gfn, node, out))
			continue;
		out->failed++;
		if (!out->error)
			out->error = list[i].result;
	}
	return 0;
}

static int move_frames(struct vm *vm, uint64_t gfn, unsigned n, unsigned node, struct numa_moved *out)
{
	return vm->numa ? move_by_pmap(vm, gfn, n, node, out) :
		numa_move_range((char *)vm->ram + (gfn << 12), (uint64_t)n << 12, node, out);
}

static int move_range(struct vm *vm, struct control_call *call, unsigned node)
{
	uint64_t first, count, begun = numa_now_ns(), done = 0;
	struct numa_moved m = { 0 };
	int r = numa_take_frames(vm, call, call->argv + 3, &first, &count);

	if (r)
		return r;
	if (!(vm->topology.with_memory >> node & 1))
		return numa_refuse(call, -EINVAL, "node %u has no memory here", node);
	if (vm->topology.fake && !vm->numa)
		return numa_refuse(call, -ENOTSUP, "the nodes are made up (--numa-fake): only a policy that moves pages can move them");
	if (vm->numa && place_of(vm, node) == NUMA_NOWHERE)
		return numa_refuse(call, -EINVAL, "node %u is not among those that the guest was started on", node);
	for (uint64_t n; !r && done < count && numa_now_ns() - begun < NUMA_WORK_NS; done += n) {
		n = NUMA_FRAMES_MAX - (first + done) % NUMA_FRAMES_MAX;		/* huge pages move as a whole */
		n = n < count - done ? n : count - done;
		r = move_frames(vm, first + done, n, node, &m);
	}
	if (r)
		return numa_refuse(call, r, "the kernel moves nothing: %s", strerror(-r));
	return json_object_update_new(call->reply, json_pack("{sI sI sI sI sI sI sI so}", "first", (json_int_t)first,
		"count", (json_int_t)done, "node", (json_int_t)node, "moved", (json_int_t)m.moved,
		"there_already", (json_int_t)m.there, "not_allocated", (json_int_t)m.absent, "failed", (json_int_t)m.failed,
		"error", m.failed ? json_string(strerror(-m.error)) : json_null())) ? -ENOMEM : 0;
}

/* ---- vCPUs ---------------------------------------------------------------------------------------------------------- */

static int move_vcpu(struct vm *vm, struct control_call *call, unsigned node)
{
	unsigned place = place_of(vm, node);
	uint64_t id;
	int r;

	if (!numa_number(call->argv[3], &id) || id >= vm->nr_vcpus)
		return numa_refuse(call, -EINVAL, "no vCPU %.20s: the guest has vCPUs 0 to %u", call->argv[3], vm->nr_vcpus - 1);
	if (!(vm->topology.with_cpus >> node & 1))
		return numa_refuse(call, -EINVAL, "node %u has no processor that umbra may use", node);
	/* A node that the manager does not know has no memory: it need not know of the vCPU either. */
	r = vm->numa && place != NUMA_NOWHERE ? numa_manager_move_vcpu(vm->numa, id, place) : placement_move_vcpu(vm, id, node);
	if (r)
		return numa_refuse(call, r, "vCPU %u cannot be moved: %s", (unsigned)id, strerror(-r));
	return json_object_update_new(call->reply, json_pack("{sI sI}", "vcpu", (json_int_t)id, "node", (json_int_t)node)) ?
		-ENOMEM : 0;
}

/* ---- either --------------------------------------------------------------------------------------------------------- */

/* numa move WHAT ... node N: what is to move, and how many words that takes. */
static const struct {
	const char *name;
	unsigned words;
	int (*run)(struct vm *vm, struct control_call *call, unsigned node);
} movables[] = {
	{ "vcpu", 1, move_vcpu },
	{ "range", 2, move_range },
};

int control_numa_move(struct vm *vm, struct control_call *call)
{
	for (unsigned i = 0; i < sizeof movables / sizeof *movables; i++) {
		char **words = call->argv + 3 + movables[i].words;
		uint64_t node;
		int r;

		if (call->argc != 5 + movables[i].words || strcmp(call->argv[2], movables[i].name) || strcmp(words[0], "node"))
			continue;
		r = numa_several_nodes(vm, call);
		if (r)
			return r;
		if (vm->vnuma.nr_vnodes)
			return numa_refuse(call, -EPERM, "the guest was told where its memory and vCPUs are (--vnuma), and that stays so");
		if (!numa_number(words[1], &node) || node >= NUMA_MAX_NODES || !vm->topology.node[node].exists)
			return numa_refuse(call, -EINVAL, "no node '%.20s': nodes 0 to %u exist", words[1], vm->topology.highest);
		return movables[i].run(vm, call, node);
	}
	return numa_refuse(call, -EINVAL, "want 'vcpu V node N' or 'range FIRST COUNT node N'");
}
