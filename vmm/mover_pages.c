/*
 * mover_pages.c - the host's pages behind a frame's places: made before a move, given back after a grace period.
 *
 * The slots prefer their node and do not insist on it: a policy that did would have the host kernel kill somebody when the
 * node is full. So what was made is asked for its node, and given back if that is another.
 *
 * A place that was left is given back when no thread can hold on to it: every vCPU's thread has been seen in the guest or asleep
 * since, for it keeps no pointer to guest memory across either (but to fixed frames), and helper threads have begun another
 * round; and, where a frame's copies became one, when the MMU says that no processor may still be reading another.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/mover.h"

#define PATIENCE	100u	/* looks of ... */
#define LOOK_US		50u
#define NUDGE_AT	10u	/* ... at which vCPUs that stay in the guest are asked to come out: kicks count as done then */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25		/* linux/mman.h since 6.1 */
#endif

/* ---- making them -------------------------------------------------------------------------------------------------------- */

#define HOME	NUMA_MAX_PLACES		/* as if it were one more node */

struct page {				/* to be made */
	char *hva;
	uint8_t item, node;
};

static char *place_hva(const struct mover *m, unsigned node, gfn_t gfn)
{
	return (node == HOME ? (char *)m->vm->ram : (char *)m->vm->place_hva[node]) + (gfn.n << 12);
}

static uint16_t word(const struct mover *m, gfn_t gfn)
{
	return __atomic_load_n(&m->frames[gfn.n], __ATOMIC_RELAXED);
}

static bool there(const struct mover *m, unsigned node, gfn_t gfn)
{
	return node == HOME ? !(word(m, gfn) & MOVER_NO_HOME) : word(m, gfn) & MOVER_ON(node);
}

/* Claimed by somebody who is not the caller's thread, perhaps: other bits of the word stay what they are. */
static void set_there(struct mover *m, unsigned node, gfn_t gfn, bool yes)
{
	uint16_t bit = node == HOME ? MOVER_NO_HOME : MOVER_ON(node);

	if (yes == (node != HOME))
		__atomic_fetch_or(&m->frames[gfn.n], bit, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&m->frames[gfn.n], (uint16_t)~bit, __ATOMIC_RELAXED);
}

/* The node that machine frame `mfn` of `gfn` belongs to, or HOME. */
static unsigned node_of_place(const struct mover *m, gfn_t gfn, mfn_t mfn)
{
	for (unsigned i = 0; i < m->vm->nr_places; i++)
		if (mfn.n == mover_place(m, i, gfn).n)
			return i;
	return HOME;
}

static unsigned wanted(struct mover *m, unsigned item, struct page *out)
{
	struct batch_item *it = &m->items[item];
	unsigned n = 0;

	if (it->kind == NUMA_COLLAPSE)
		return 0;
	for (unsigned i = 0; i < (it->kind == NUMA_REPLICATE ? m->vm->nr_places : 1); i++) {
		mfn_t to = it->kind == NUMA_REPLICATE ? it->at[i] : it->to;
		unsigned node = node_of_place(m, it->gfn, to);

		if (to.n != it->from.n && !there(m, node, it->gfn))
			out[n++] = (struct page){ place_hva(m, node, it->gfn), item, node };
	}
	return n;
}

static bool make(char *at, size_t pages)
{
	return !madvise(at, pages << 12, MADV_POPULATE_WRITE);
}

/* Drops those that the kernel has put elsewhere. */
static void check_nodes(struct mover *m, const struct page *p, unsigned n)
{
	struct vm *vm = m->vm;

	for (unsigned at = 0; at < n && !vm->topology.fake; at += NUMA_MAX_BATCH) {
		unsigned some = n - at < NUMA_MAX_BATCH ? n - at : NUMA_MAX_BATCH;
		void *hva[NUMA_MAX_BATCH];
		int nodes[NUMA_MAX_BATCH];

		for (unsigned i = 0; i < some; i++)
			hva[i] = p[at + i].hva;
		if (numa_where(hva, some, nodes))
			return;
		for (unsigned i = 0; i < some; i++) {
			const struct page *q = &p[at + i];

			if (q->node == HOME || nodes[i] == vm->place[q->node] || m->items[q->item].result)
				continue;
			m->items[q->item].result = -ENOMEM;
			MOVER_COUNT(m, no_room, 1);
		}
	}
}

void mover_populate(struct mover *m)
{
	struct page p[NUMA_MAX_BATCH * NUMA_MAX_PLACES];
	unsigned n = 0, run;

	for (unsigned i = 0; i < m->nr_items; i++)
		n += wanted(m, i, p + n);
	for (unsigned i = 0; i < n; i += run) {
		for (run = 1; i + run < n && p[i + run].hva == p[i].hva + run * 4096ull; run++)
			;
		for (unsigned k = i; k < i + run; k++)
			set_there(m, p[k].node, m->items[p[k].item].gfn, true);
		if (make(p[i].hva, run))
			continue;
		for (unsigned k = i; k < i + run; k++)
			if (!make(p[k].hva, 1)) {
				m->items[p[k].item].result = -ENOMEM;
				MOVER_COUNT(m, no_room, 1);
			}
	}
	check_nodes(m, p, n);
}

/* ---- 2 MiB --------------------------------------------------------------------------------------------------------------- */

#define REGION	512u

/* All of the region stands there, so that the MMU has mapped, or will map, it as one. */
static bool stands_whole(const struct mover *m, uint64_t first, unsigned node)
{
	uint64_t base = node == HOME ? 0 : m->vm->node_base[node].n;

	/* Most do not: the last frame before the others. */
	for (unsigned i = REGION; i--;)
		if (mmu_pmap(m->vm->mmu, (gfn_t){ first + i }).n != base + first + i)
			return false;
	return true;
}

void mover_join_pages(struct mover *m)
{
	uint64_t before = ~0ull;

	for (unsigned i = 0; i < m->nr_items && m->vm->config->huge; i++) {
		struct batch_item *it = &m->items[i];
		uint64_t first = it->gfn.n & ~(uint64_t)(REGION - 1);
		unsigned node = node_of_place(m, it->gfn, it->to);
		char *at;

		if (it->result || (it->kind != NUMA_MIGRATE && it->kind != NUMA_HOME) || first == before ||
		    !stands_whole(m, first, node))
			continue;
		before = first;
		at = place_hva(m, node, (gfn_t){ first });
		/* A host that cannot is slower, no more: Linux before 6.1, no huge page to be had. */
		if (!madvise(at, REGION << 12, MADV_HUGEPAGE) && !madvise(at, REGION << 12, MADV_COLLAPSE))
			MOVER_COUNT(m, joined, 1);
	}
}

/* ---- giving them back ----------------------------------------------------------------------------------------------------- */

static void left_add(struct left *l, uint64_t gfn)
{
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 256;
		uint64_t *more = realloc(l->gfns, size * sizeof *more);

		if (!more)
			return;		/* the page stays the host's loss until the frame moves again */
		l->gfns = more;
		l->size = size;
	}
	l->gfns[l->n++] = gfn;
}

void mover_leave(struct mover *m, gfn_t gfn)
{
	pthread_mutex_lock(&m->left_lock);
	left_add(&m->fresh, gfn.n);
	pthread_mutex_unlock(&m->left_lock);
}

static bool any_left(struct mover *m)
{
	bool any;

	pthread_mutex_lock(&m->left_lock);
	any = m->fresh.n;
	pthread_mutex_unlock(&m->left_lock);
	return any || m->waiting.n || atomic_load(&m->any_collapsed);
}

static void take_collapsed(struct mover *m)
{
	if (!atomic_exchange(&m->any_collapsed, false))
		return;
	for (uint64_t i = 0; i < m->vm->ram_frames / 64; i++) {
		uint64_t bits = __atomic_load_n(&m->collapsed[i], __ATOMIC_RELAXED);

		if (!bits)
			continue;
		bits = __atomic_exchange_n(&m->collapsed[i], 0, __ATOMIC_SEQ_CST);
		for (; bits; bits &= bits - 1)
			mover_leave(m, (gfn_t){ i * 64 + __builtin_ctzll(bits) });
	}
}

/* Whether `gfn` stands there, or a copy of it. */
static bool in_use(const struct mover *m, unsigned node, gfn_t gfn)
{
	uint64_t mfn = node == HOME ? gfn.n : mover_place(m, node, gfn).n;

	if (mmu_pmap(m->vm->mmu, gfn).n == mfn)
		return true;
	for (unsigned i = 0; i < m->vm->nr_places; i++)
		if (mmu_pmap_on(m->vm->mmu, gfn, i).n == mfn)
			return true;
	return false;
}

/* Claimed. False: later. */
static bool give_back(struct mover *m, gfn_t gfn)
{
	bool copies = mover_has_copies(m->vm, gfn);

	/* Of a frame with one copy mmu_collapse() says whether all know; and so it stays, for copies are made of claimed frames. */
	if (!copies && mmu_collapse(m->cpu, gfn))
		return false;
	for (unsigned node = 0; node <= HOME; node++) {
		if ((node >= m->vm->nr_places && node != HOME) || !there(m, node, gfn) || in_use(m, node, gfn))
			continue;
		madvise(place_hva(m, node, gfn), 4096, MADV_DONTNEED);
		set_there(m, node, gfn, false);
		MOVER_COUNT(m, given_back, 1);
	}
	if (!copies && mover_is_home(m->vm, gfn))
		shim_clear_away(m->vm, gfn);
	return true;
}

static bool vcpu_passed(const struct mover *m, const struct vcpu *o)
{
	uint32_t then = m->phase[o->id];

	return (then & 1) || atomic_load(&o->phase) != then || atomic_load(&o->blocked);
}

/* Since phase[] and rounds[] were noted. */
static bool all_passed(const struct mover *m)
{
	for (unsigned i = 0; i < m->vm->nr_vcpus; i++)
		if (!vcpu_passed(m, &m->vm->vcpus[i]))
			return false;
	return !m->vm->helper || helper_rounds_passed(m->vm->helper, m->rounds);
}

static void nudge(struct mover *m)
{
	for (unsigned i = 0; i < m->vm->nr_vcpus; i++)
		if (atomic_load(&m->vm->vcpus[i].phase) & 1)
			vcpu_wake(&m->vm->vcpus[i]);
}

static void begin_waiting(struct mover *m)
{
	struct left empty;

	take_collapsed(m);
	pthread_mutex_lock(&m->left_lock);
	empty = m->waiting;
	m->waiting = m->fresh;
	m->fresh = empty;
	pthread_mutex_unlock(&m->left_lock);
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < m->vm->nr_vcpus; i++)
		m->phase[i] = atomic_load(&m->vm->vcpus[i].phase);
	if (m->vm->helper)
		helper_note_rounds(m->vm->helper, m->rounds);
}

static void give_back_waiting(struct mover *m)
{
	for (size_t i = 0; i < m->waiting.n; i++) {
		gfn_t gfn = { m->waiting.gfns[i] };
		bool done = false;

		if (mover_claim(m, gfn)) {
			done = give_back(m, gfn);
			mover_release(m, gfn);
		}
		if (!done)
			mover_leave(m, gfn);
	}
	m->waiting.n = 0;
}

void mover_reap(struct mover *m, bool patience)
{
	for (unsigned looks = 0; !atomic_load(&m->vm->stop); looks++) {
		if (!m->waiting.n)
			begin_waiting(m);
		if (!m->waiting.n)
			return;
		if (all_passed(m))
			give_back_waiting(m);
		if (!patience || looks >= PATIENCE)
			return;
		if (!any_left(m))
			return;
		if (looks == NUDGE_AT)
			nudge(m);
		usleep(LOOK_US);
	}
}

void mover_free_left(struct mover *m)
{
	free(m->fresh.gfns);
	free(m->waiting.gfns);
}
