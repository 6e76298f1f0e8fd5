/*
 * mover_run.c - a batch of moves on the thread of a vCPU, which is out of the guest and not between two gates.
 *
 * In this order, for all frames at once, so that the kicks are shared:
 *   AWAY, and no shim inside	no vCPU uses the frame by its home's address any more (shim_abi.h)
 *   mmu_remap_begin()		no sPTE maps it
 *   the kicks			no processor has it cached
 *   commit			copied; faults fill from the new place
 *   AWAY taken off		if that is home
 * Between begin and commit whoever wants the frame waits: a fault comes again, an update is put off.
 */
#include <errno.h>
#include <time.h>

#include "vmm/mover.h"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* The frame was, and is, at home alone. Claimed. */
static void stays_home(struct mover *m, gfn_t gfn)
{
	if (mover_is_home(m->vm, gfn))
		shim_clear_away(m->vm, gfn);
}

static bool moves(const struct batch_item *it)
{
	return !it->result && it->kind != NUMA_COLLAPSE;
}

static void begin(struct vcpu *v, struct mover *m)
{
	for (unsigned i = 0; i < m->nr_items; i++)
		if (moves(&m->items[i]) && !shim_set_away(m->vm, m->items[i].gfn))
			m->items[i].result = -EBUSY;
	if (!shim_wait_outside(m->vm)) {
		m->stopped_inside = true;
		MOVER_COUNT(m, stopped_inside, 1);
	}
	for (unsigned i = 0; i < m->nr_items; i++) {
		struct batch_item *it = &m->items[i];

		if (!it->result)
			it->result = m->stopped_inside ? -EBUSY : mmu_remap_begin(v->mmu, it->gfn);
		if (it->result)
			stays_home(m, it->gfn);
	}
}

static void finish(struct vcpu *v, struct mover *m, bool kicked)
{
	for (unsigned i = 0; i < m->nr_items; i++) {
		struct batch_item *it = &m->items[i];

		if (!moves(it))
			continue;
		if (!kicked)
			it->result = -ESHUTDOWN;
		else
			it->result = mmu_remap_commit(v->mmu, it->gfn, it->to);
		if (it->result)
			mmu_remap_abort(v->mmu, it->gfn);
		else
			MOVER_COUNT(m, moved, 1);
		stays_home(m, it->gfn);
	}
}

void mover_run(struct vcpu *v)
{
	struct mover *m = v->vm->mover;
	uint64_t start = now_ns();

	if (m->watch) {
		for (unsigned i = 0; i < m->nr_items; i++) {
			m->items[i].result = mmu_watch(v->mmu, m->items[i].gfn);
			if (!m->items[i].result)
				MOVER_COUNT(m, watched, 1);
		}
		vcpu_do_kicks(v);
		MOVER_COUNT(m, watch_ns, now_ns() - start);
		return;
	}
	begin(v, m);
	finish(v, m, vcpu_do_kicks(v));
	MOVER_COUNT(m, move_ns, now_ns() - start);
}

int mover_run_home(struct vcpu *v, gfn_t gfn)
{
	struct mover *m = v->vm->mover;
	int r = mmu_remap_begin(v->mmu, gfn);

	if (r)
		return r;
	r = vcpu_do_kicks(v) ? mmu_remap_commit(v->mmu, gfn, (mfn_t){ gfn.n }) : -ESHUTDOWN;
	if (r)
		mmu_remap_abort(v->mmu, gfn);
	else
		MOVER_COUNT(m, home_for_pin, 1);
	stays_home(m, gfn);
	return r;
}
