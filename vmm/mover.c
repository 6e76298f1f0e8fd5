/*
 * mover.c - frames of a running guest moved between nodes: what callers ask for, and how a batch finds a vCPU to do it.
 *
 * A vCPU that sleeps is the best to ask: its guest loses nothing. Else one that runs is made to look up; a batch costs it an
 * exit and some microseconds per frame.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/mover.h"

#define ASK_NS		2000000u	/* without an answer another vCPU is asked after so long */
#define INSIDE_TRIES	4u		/* for a batch that finds a shim in its way */
#define CLAIM_LOOKS	1000u
#define KEEP_TRIES	10000u

/* ---- the frames' words ------------------------------------------------------------------------------------------------ */

bool mover_claim(struct mover *m, gfn_t gfn)
{
	return !(__atomic_fetch_or(&m->frames[gfn.n], MOVER_CLAIMED, __ATOMIC_ACQUIRE) & MOVER_CLAIMED);
}

void mover_release(struct mover *m, gfn_t gfn)
{
	__atomic_fetch_and(&m->frames[gfn.n], (uint16_t)~MOVER_CLAIMED, __ATOMIC_RELEASE);
}

mfn_t mover_place(const struct mover *m, unsigned node, gfn_t gfn)
{
	return (mfn_t){ m->vm->node_base[node].n + gfn.n };
}

bool mover_is_home(const struct vm *vm, gfn_t gfn)
{
	return mmu_pmap(vm->mmu, gfn).n == gfn.n;
}

bool mover_has_copies(const struct vm *vm, gfn_t gfn)
{
	uint64_t master = mmu_pmap(vm->mmu, gfn).n;

	for (unsigned i = 0; i < vm->nr_places; i++) {
		uint64_t copy = mmu_pmap_on(vm->mmu, gfn, i).n;

		if (copy != master && copy != ~0ull)
			return true;
	}
	return false;
}

/* ---- a batch and its vCPU --------------------------------------------------------------------------------------------- */

static bool ask(struct mover *m)
{
	struct vm *vm = m->vm;
	uint64_t one = 1;

	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *v = &vm->vcpus[(m->next_vcpu + i) % vm->nr_vcpus];

		if (atomic_load(&v->up) && atomic_load(&v->blocked)) {
			m->next_vcpu = v->id + 1;
			return write(v->wake_fd, &one, sizeof one) > 0;	/* not vcpu_wake(): it need not stop sleeping */
		}
	}
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct vcpu *v = &vm->vcpus[(m->next_vcpu + i) % vm->nr_vcpus];

		if (atomic_load(&v->up)) {
			m->next_vcpu = v->id + 1;
			vcpu_wake(v);
			return true;
		}
	}
	return false;
}

/* False: the VM ends, and no vCPU has taken it. */
static bool hand_over(struct mover *m)
{
	struct timespec until;
	bool done;

	if (atomic_load(&m->vm->stop))
		return false;
	atomic_store(&m->state, BATCH_WAITING);
	pthread_mutex_lock(&m->done_lock);
	do {
		ask(m);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += ASK_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		while (!(done = atomic_load(&m->state) == BATCH_DONE) &&
		       pthread_cond_timedwait(&m->done, &m->done_lock, &until) != ETIMEDOUT)
			;
		if (!done && atomic_load(&m->vm->stop)) {
			int waiting = BATCH_WAITING;

			if (atomic_compare_exchange_strong(&m->state, &waiting, BATCH_NONE))
				break;
		}
	} while (!done);
	pthread_mutex_unlock(&m->done_lock);
	atomic_store(&m->state, BATCH_NONE);
	MOVER_COUNT(m, batches, 1);
	return done;
}

void mover_serve(struct vcpu *v)
{
	struct mover *m = v->vm->mover;
	int waiting = BATCH_WAITING;

	/* Between two gates nothing may be run but the gate; nor may a list of kicks be replaced that the gate has not finished. */
	if (!m || atomic_load_explicit(&m->state, memory_order_relaxed) != BATCH_WAITING || v->state == VCPU_MID_GATE ||
	    v->nr_kicks || !atomic_compare_exchange_strong(&m->state, &waiting, BATCH_TAKEN))
		return;
	mover_run(v);
	pthread_mutex_lock(&m->done_lock);
	atomic_store(&m->state, BATCH_DONE);
	pthread_cond_signal(&m->done);
	pthread_mutex_unlock(&m->done_lock);
}

bool mover_wanted(const struct vcpu *v)
{
	const struct mover *m = v->vm->mover;

	return m && atomic_load(&m->state) == BATCH_WAITING;
}

static bool execute(struct mover *m)
{
	bool done;

	for (unsigned tries = 0;; tries++) {
		m->stopped_inside = false;
		done = hand_over(m);
		if (!done || !m->stopped_inside || tries == INSIDE_TRIES)
			return done;
		for (unsigned i = 0; i < m->nr_items; i++)
			if (m->items[i].result == -EBUSY)	/* what has no page has none yet */
				m->items[i].result = 0;
		usleep(200u << tries);
	}
}

/* ---- what callers ask for --------------------------------------------------------------------------------------------- */

/* One copy on each node of `mask`; where the frame stands is one of them already. */
static int choose_copies(struct mover *m, struct batch_item *it, unsigned mask, unsigned stands_on)
{
	struct vm *vm = m->vm;
	bool any = false;

	if (mmu_pmap_on(vm->mmu, it->gfn, vm->nr_places - 1).n == ~0ull)
		return -ENOTSUP;	/* --node-tables=off */
	for (unsigned i = 0; i < vm->nr_places; i++) {
		it->at[i] = mask >> i & 1 && i != stands_on ? mover_place(m, i, it->gfn) : it->from;
		any |= it->at[i].n != it->from.n;
	}
	return any ? 0 : 1;
}

/* Where a move leads. 1: there is nothing to do. A frame at home on the node already stays there. */
static int choose_place(struct mover *m, struct batch_item *it, const struct numa_move *move, unsigned stands_on)
{
	struct vm *vm = m->vm;
	bool copies = mover_has_copies(vm, it->gfn);

	it->from = it->to = mmu_pmap(vm->mmu, it->gfn);
	switch (it->kind) {
	case NUMA_HOME:
		it->to = (mfn_t){ it->gfn.n };
		break;
	case NUMA_MIGRATE:
		if (move->node >= vm->nr_places)
			return -EINVAL;
		if (stands_on != move->node)
			it->to = mover_place(m, move->node, it->gfn);
		break;
	case NUMA_REPLICATE:
		return choose_copies(m, it, move->mask, stands_on);
	case NUMA_COLLAPSE:
		break;
	default:
		return -EINVAL;
	}
	if (it->to.n == it->from.n)
		it->kind = NUMA_COLLAPSE;
	return it->kind == NUMA_COLLAPSE && !copies;
}

/* A batch that a full node refused costs no vCPU anything. */
static bool any_to_do(const struct mover *m)
{
	for (unsigned i = 0; i < m->nr_items; i++)
		if (!m->items[i].result)
			return true;
	return false;
}

/* m->lock held. */
static void move_batch(struct mover *m, struct numa_move *moves, unsigned n)
{
	uint64_t gfns[NUMA_MAX_BATCH];
	uint8_t stands_on[NUMA_MAX_BATCH];
	unsigned of[NUMA_MAX_BATCH];

	m->nr_items = 0;
	m->watch = false;
	for (unsigned i = 0; i < n; i++)
		gfns[i] = moves[i].gfn;
	placement_nodes(m->vm, gfns, n, stands_on);
	for (unsigned i = 0; i < n; i++) {
		struct batch_item *it = &m->items[m->nr_items];
		int r = -EINVAL;

		*it = (struct batch_item){ .gfn = { moves[i].gfn }, .kind = moves[i].kind };
		if (it->gfn.n < m->vm->ram_frames) {
			r = mover_claim(m, it->gfn) ? choose_place(m, it, &moves[i], stands_on[i]) : -EBUSY;
			if (!r)
				of[m->nr_items++] = i;
			else if (r != -EBUSY)
				mover_release(m, it->gfn);
		}
		moves[i].result = r < 0 ? r : 0;
	}
	mover_populate(m);
	if (any_to_do(m) && !execute(m))
		for (unsigned i = 0; i < m->nr_items; i++)
			m->items[i].result = -ESHUTDOWN;
	mover_join_pages(m);
	for (unsigned i = 0; i < m->nr_items; i++) {
		moves[of[i]].result = m->items[i].result;
		mover_leave(m, m->items[i].gfn);	/* the old place, or the new one if nothing came of it */
		mover_release(m, m->items[i].gfn);
		if (m->items[i].result == -EBUSY)
			MOVER_COUNT(m, busy, 1);
	}
}

int mover_do(struct vm *vm, struct numa_move *moves, unsigned n)
{
	struct mover *m = vm->mover;

	if (!m)
		return -ENOTSUP;
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < n; i += NUMA_MAX_BATCH) {
		mover_reap(m, false);
		move_batch(m, moves + i, n - i < NUMA_MAX_BATCH ? n - i : NUMA_MAX_BATCH);
	}
	mover_reap(m, true);
	pthread_mutex_unlock(&m->lock);
	return 0;
}

int mover_watch(struct vm *vm, const uint64_t *gfns, unsigned n)
{
	struct mover *m = vm->mover;
	int r = -EBUSY;

	if (!m)
		return -ENOTSUP;
	pthread_mutex_lock(&m->lock);
	for (unsigned done = 0; done < n; done += m->nr_items) {
		m->nr_items = n - done < NUMA_MAX_BATCH ? n - done : NUMA_MAX_BATCH;
		for (unsigned i = 0; i < m->nr_items; i++)
			m->items[i] = (struct batch_item){ .gfn = { gfns[done + i] } };
		m->watch = true;
		if (!execute(m)) {
			r = -ESHUTDOWN;
			break;
		}
		for (unsigned i = 0; i < m->nr_items; i++)
			if (!m->items[i].result)
				r = 0;
	}
	mover_reap(m, false);
	pthread_mutex_unlock(&m->lock);
	return r;
}

int mover_bring_home(struct vcpu *v, gfn_t gfn)
{
	struct mover *m = v->vm->mover;
	int r = 0;

	if (!m || gfn.n >= v->vm->ram_frames || mover_is_home(v->vm, gfn))
		return 0;
	for (unsigned looks = 0; !mover_claim(m, gfn); looks++) {
		if (looks == CLAIM_LOOKS)
			return -EBUSY;
		mover_serve(v);		/* it may be our turn to move that very frame */
		__builtin_ia32_pause();
	}
	if (!mover_is_home(v->vm, gfn)) {
		if (madvise((char *)v->vm->ram + (gfn.n << 12), 4096, MADV_POPULATE_WRITE))
			r = -ENOMEM;
		else
			r = mover_run_home(v, gfn);
		mover_leave(m, gfn);
	}
	mover_release(m, gfn);
	return r;
}

int mover_keep_home(struct vcpu *v, gfn_t gfn)
{
	int r;

	/* A move takes another vCPU's thread microseconds, unless that has to wait for a processor. */
	for (unsigned i = 0; i < KEEP_TRIES; i++) {
		r = mover_bring_home(v, gfn);
		if (!r)
			r = mmu_fix(v->mmu, gfn);
		if (!r && mover_is_home(v->vm, gfn))
			return 0;
		if (!r)
			mmu_unfix(v->mmu, gfn);		/* it went away again in between */
		if ((r && r != -EAGAIN && r != -EBUSY) || !vcpu_do_kicks(v))
			break;
		sched_yield();
	}
	return r ? r : -EBUSY;
}

void mover_collapsed(void *arg, gfn_t gfn, mfn_t kept)
{
	struct vm *vm = arg;
	struct mover *m = vm->mover;

	if (!m || gfn.n >= vm->ram_frames)
		return;
	__atomic_fetch_or(&m->collapsed[gfn.n / 64], 1ull << (gfn.n % 64), __ATOMIC_SEQ_CST);
	atomic_store(&m->any_collapsed, true);
	MOVER_COUNT(m, collapses, 1);
	if (vm->numa)
		numa_note_collapsed(vm->numa, gfn.n);
}

/* ---- begin and end ------------------------------------------------------------------------------------------------------ */

int mover_create(struct vm *vm)
{
	struct mover *m;
	pthread_condattr_t attr;
	int r;

	if (vm->nr_places < 2)
		return 0;
	m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	vm->mover = m;
	m->vm = vm;
	m->frames = calloc(vm->ram_frames, sizeof *m->frames);
	m->collapsed = calloc(vm->ram_frames / 64, sizeof *m->collapsed);	/* RAM is a multiple of 2 MiB */
	if (!m->frames || !m->collapsed)
		return -ENOMEM;
	r = mmu_cpu_create(vm->mmu, &m->cpu);
	if (r)
		return r;
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->done_lock, NULL);
	pthread_mutex_init(&m->left_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->done, &attr);
	pthread_condattr_destroy(&attr);
	return 0;
}

void mover_destroy(struct vm *vm)
{
	struct mover *m = vm->mover;

	if (!m)
		return;
	mover_free_left(m);
	if (m->cpu)
		mmu_cpu_destroy(m->cpu);
	free(m->frames);
	free(m->collapsed);
	free(m);
	vm->mover = NULL;
}
