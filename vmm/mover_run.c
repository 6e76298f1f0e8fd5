/*
 * mover_run.c - a batch of moves on the thread of a vCPU, which is out of the guest and not between two gates.
 *
 * In this order, for all frames at once, so that the kicks are shared:
 *   AWAY, and no shim inside	no vCPU uses the frame by its home's address any more (shim_abi.h)
 *   mmu_remap_begin()		no sPTE maps it
 *   the kicks			no processor has it cached
 *   commit			copied; faults fill from the new place
 *   AWAY taken off		if that is home, and there are no copies elsewhere
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

static bool moves(const struct batch_item *it)
{
	return !it->result && it->kind != NUMA_COLLAPSE;
}

/* Nothing came of it. What was AWAY before is so still: perhaps its copies have just become one, and not all know. */
static void give_up(struct mover *m, struct batch_item *it, int error)
{
	it->result = error;
	if (it->set_away)
		shim_clear_away(m->vm, it->gfn);
	it->set_away = false;
}

static void begin(struct vcpu *v, struct mover *m)
{
	for (unsigned i = 0; i < m->nr_items; i++) {
		struct batch_item *it = &m->items[i];

		if (moves(it) && !shim_set_away(m->vm, it->gfn, &it->set_away))
			it->result = -EBUSY;
	}
	if (!shim_wait_outside(m->vm)) {
		m->stopped_inside = true;
		MOVER_COUNT(m, stopped_inside, 1);
	}
	for (unsigned i = 0; i < m->nr_items; i++) {
		struct batch_item *it = &m->items[i];
		int r = 0;

		if (it->result)
			continue;
		if (it->kind == NUMA_COLLAPSE)
			mmu_collapse(v->mmu, it->gfn);	/* -EAGAIN: until the kicks are done; they follow */
		else
			r = m->stopped_inside ? -EBUSY : mmu_remap_begin(v->mmu, it->gfn);
		if (r)
			give_up(m, it, r);
	}
}

static int commit(struct vcpu *v, struct mover *m, const struct batch_item *it)
{
	int r;

	if (it->kind == NUMA_REPLICATE) {
		r = mmu_replicate(v->mmu, it->gfn, it->at);
		if (!r)
			MOVER_COUNT(m, replicated, 1);
		return r;
	}
	r = mmu_remap_commit(v->mmu, it->gfn, it->to);
	if (r)
		return r;
	MOVER_COUNT(m, moved, 1);
	if (it->to.n == it->gfn.n)
		shim_clear_away(m->vm, it->gfn);
	return 0;
}

static void finish(struct vcpu *v, struct mover *m, bool kicked)
{
	for (unsigned i = 0; i < m->nr_items; i++) {
		struct batch_item *it = &m->items[i];
		int r;

		if (it->kind == NUMA_COLLAPSE && !it->result && kicked)
			mmu_collapse(v->mmu, it->gfn);	/* ... and this says that they were */
		if (!moves(it))
			continue;
		r = kicked ? commit(v, m, it) : -ESHUTDOWN;
		if (r) {
			mmu_remap_abort(v->mmu, it->gfn);
			give_up(m, it, r);
		}
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
	if (!r)
		shim_clear_away(m->vm, gfn);
	return r;
}
