/*
 * feed.c - what the helper thread is told of a vCPU, in the order in which it happened.
 *
 * Two streams meet here: the shim's ring, which the guest writes while it runs, and a ring of records that the vCPU's
 * thread writes between runs (faults, root loads, and updates and pins that came by an exit). Each record says how far
 * the shim's ring was when it was written, so the reader can merge the two. Both are lossy: nobody waits for the helper.
 *
 * The records: one writer (the vCPU's thread), one reader (the helper's). Without a helper there are none: then --trace
 * gets the vCPU's events at once, and those of the shim's ring when the vCPU's thread takes them up.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "helper/trace.h"
#include "vmm/shim_abi.h"
#include "vmm/vm.h"

#define RECORDS		1024u	/* a power of two */

struct record {
	struct helper_event event;
	uint32_t shim_head;	/* the shim's ring when it was written */
};

struct feed {
	struct vcpu *v;
	struct record *records;
	uint32_t size;
	_Alignas(64) _Atomic uint32_t head;	/* the writer's */
	uint64_t dropped;	/* atomic: it was full */
	_Alignas(64) _Atomic uint32_t tail;	/* the reader's */
	uint32_t shim_cursor;
	uint64_t dropped_seen;
	bool caught_up;		/* the reader's last look found no record */
};

/* ---- the vCPU's side ---------------------------------------------------------------------------------------------- */

static void put(struct vcpu *v, struct helper_event *e)
{
	struct feed *f = v->feed;
	uint32_t head = atomic_load_explicit(&f->head, memory_order_relaxed);

	e->time_ns = vm_now(v->vm);
	e->vcpu = v->id;
	if (!v->vm->helper) {
		trace_event(v->vm->trace, v->id, e);
		return;
	}
	if (head - atomic_load_explicit(&f->tail, memory_order_acquire) >= f->size) {
		__atomic_store_n(&f->dropped, f->dropped + 1, __ATOMIC_RELAXED);
		return;
	}
	f->records[head & (f->size - 1)] = (struct record){ *e, __atomic_load_n(&v->shim_tail, __ATOMIC_ACQUIRE) };
	atomic_store_explicit(&f->head, head + 1, memory_order_release);
	helper_wake(v->vm->helper);
}

static void read_new(struct vm *vm, struct helper_event *e)
{
	const uint64_t *entries = mmu_gfn_hva(vm->mmu, e->table);

	if (!entries)
		return;
	e->new = __atomic_load_n(&entries[e->index], __ATOMIC_RELAXED);
	e->flags |= HELPER_HAS_NEW;
}

void feed_update(struct vcpu *v, gfn_t table, unsigned index)
{
	struct helper_event e = { .kind = HELPER_UPDATE, .table = table, .index = index };

	if (!v->feed)
		return;
	read_new(v->vm, &e);
	put(v, &e);
}

void feed_pin(struct vcpu *v, gfn_t table, unsigned level)
{
	if (v->feed)
		put(v, &(struct helper_event){ .kind = level ? HELPER_PIN : HELPER_UNPIN, .table = table, .level = level });
}

void feed_switch(struct vcpu *v, enum mmu_mode mode, gfn_t root)
{
	if (v->feed)
		put(v, &(struct helper_event){ .kind = HELPER_SWITCH, .table = root, .root = root, .level = MMU_LEVELS,
					       .mode = mode });
}

void feed_sync(struct vcpu *v)
{
	if (v->feed)
		put(v, &(struct helper_event){ .kind = HELPER_SYNC });
}

void feed_fault(struct vcpu *v, uint64_t va, uint32_t access, enum mmu_verdict verdict)
{
	struct helper_event e = { .kind = HELPER_FAULT, .mode = v->mode, .root = v->l4[v->mode], .va = { va } };
	struct mmu_walk w = { 0 };

	if (!v->feed)
		return;
	switch (verdict) {
	case MMU_HIDDEN:
		e.fault = HELPER_FAULT_HIDDEN;
		break;
	case MMU_PTWRITE:
		e.fault = HELPER_FAULT_PTWRITE;
		break;
	case MMU_TRUE:
		e.fault = HELPER_FAULT_TRUE;
		break;
	default:
		return;
	}
	if (mmu_translate(v->vm->mmu, e.root, v->mode, e.va, 0, &w) == -EINVAL)
		return;
	e.table = w.table;
	e.index = w.index;
	e.level = w.level;
	e.new = w.gpte;
	e.flags = HELPER_HAS_NEW | (access & MMU_PF_W ? HELPER_IS_WRITE : 0);
	put(v, &e);
}

/* ---- the helper's side: struct helper_source ------------------------------------------------------------------------- */

/* A line of the shim's ring, which the guest can write: nothing in it is trusted, and the MMU checks frame numbers. False:
 * no event. */
static bool decode(struct vcpu *v, uint64_t line, struct helper_event *e)
{
	unsigned what = line & 7;

	*e = (struct helper_event){ .time_ns = vm_now(v->vm), .vcpu = v->id, .table = { line >> 12 } };
	switch (what) {
	case SHIM_UPDATE:
		e->kind = HELPER_UPDATE;
		e->index = line >> 3 & 511;
		read_new(v->vm, e);
		return true;
	case SHIM_PIN1 ... SHIM_PIN4:
		e->kind = HELPER_PIN;
		e->level = what - SHIM_PIN1 + 1;
		return true;
	case SHIM_UNPIN:
		e->kind = HELPER_UNPIN;
		return true;
	default:
		return false;
	}
}

/* --trace without a helper: the vCPU's thread takes a line up. */
void feed_line(struct vcpu *v, uint64_t line)
{
	struct helper_event e;

	if (v->vm->trace && !v->vm->helper && decode(v, line, &e))
		trace_event(v->vm->trace, v->id, &e);
}

void feed_mark(struct vcpu *v, uint32_t id)
{
	if (v->vm->trace && id)	/* 0: the guest asks whether anybody counts */
		trace_mark(v->vm->trace, vm_now(v->vm), id);
}

static unsigned read_shim(struct feed *f, uint32_t upto, struct helper_event *out, unsigned max, uint64_t *lost)
{
	uint32_t waiting = upto - f->shim_cursor;
	unsigned n = 0;

	/* A record told already of lines behind the head that was read before it; or the guest set the head back. */
	if ((int32_t)waiting < 0)
		return 0;
	if (waiting > SHIM_RING) {
		*lost += waiting - SHIM_RING;
		f->shim_cursor = upto - SHIM_RING;
	}
	for (; f->shim_cursor != upto && n < max; f->shim_cursor++)
		n += decode(f->v, shim_ring_line(f->v, f->shim_cursor), &out[n]);
	return n;
}

/* How long the oldest record has waited for a reader who had nothing to do: `umbra replay --lag` draws from it. */
static void note_lag(struct feed *f, const struct record *oldest)
{
	uint64_t now = vm_now(f->v->vm), lag = now > oldest->event.time_ns ? now - oldest->event.time_ns : 1;
	unsigned power = 63 - __builtin_clzll(lag);

	__atomic_add_fetch(&f->v->vm->helper_lag[power < HELPER_LAGS ? power : HELPER_LAGS - 1], 1, __ATOMIC_RELAXED);
}

static unsigned feed_read(void *arg, struct helper_event *out, unsigned max, uint64_t *lost)
{
	struct feed *f = arg;
	/* Before `head`: a record that comes later has nothing between itself and this. */
	uint32_t shim_head = shim_on(f->v->vm) ? shim_ring_head(f->v) : 0, head = atomic_load_explicit(&f->head, memory_order_acquire);
	uint32_t tail = atomic_load_explicit(&f->tail, memory_order_relaxed);
	uint64_t dropped = __atomic_load_n(&f->dropped, __ATOMIC_RELAXED);
	unsigned n = 0;

	*lost += dropped - f->dropped_seen;
	f->dropped_seen = dropped;
	if (tail != head && f->caught_up)
		note_lag(f, &f->records[tail & (f->size - 1)]);
	f->caught_up = tail == head;
	for (; n < max && tail != head; tail++) {
		const struct record *r = &f->records[tail & (f->size - 1)];

		/* Behind the cursor: the record came while the reader was past it, or the guest wrote to `head`. */
		if ((int32_t)(r->shim_head - f->shim_cursor) > 0)
			n += read_shim(f, r->shim_head, out + n, max - n, lost);
		if (n == max)
			break;
		out[n++] = r->event;
	}
	atomic_store_explicit(&f->tail, tail, memory_order_release);
	if (tail == head && n < max)
		n += read_shim(f, shim_head, out + n, max - n, lost);
	return n;
}

static void feed_watching(void *arg, bool yes)
{
	struct feed *f = arg;

	if (shim_on(f->v->vm))
		shim_ring_watch(f->v, yes);
}

static unsigned feed_node(void *arg)
{
	const struct feed *f = arg;

	return atomic_load_explicit(&f->v->place, memory_order_relaxed);
}

/* ---- begin and end ---------------------------------------------------------------------------------------------------- */

static void release(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nr_vcpus; i++) {
		struct feed *f = vm->vcpus[i].feed;

		vm->vcpus[i].feed = NULL;
		if (f)
			free(f->records);
		free(f);
	}
}

static int make(struct vcpu *v)
{
	struct feed *f = aligned_alloc(64, sizeof *f);

	if (!f)
		return -ENOMEM;
	memset(f, 0, sizeof *f);
	f->v = v;
	f->size = RECORDS;
	while (v->vm->config->helper_queue && f->size > v->vm->config->helper_queue)
		f->size /= 2;
	f->records = calloc(f->size, sizeof *f->records);
	v->feed = f;
	return f->records ? 0 : -ENOMEM;
}

static void say(void *arg, const char *line)
{
	const struct vm *vm = arg;

	if (!vm->config->quiet)
		fprintf(stderr, "umbra: %s\r\n", line);
}

/* Whether there is a processor for a helper besides those for the vCPUs. */
static bool core_free(struct vm *vm)
{
	char line[160];
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);

	if ((unsigned)n > vm->nr_vcpus)
		return true;
	snprintf(line, sizeof line, "the helper thread stands down: %u vCPU%s on %d processor%s leave it none (--helper=on runs it all "
		 "the same)", vm->nr_vcpus, vm->nr_vcpus == 1 ? "" : "s", n, n == 1 ? "" : "s");
	say(vm, line);
	return false;
}

int feed_start(struct vm *vm)
{
	const struct vmm_config *config = vm->config;
	struct helper_source sources[VMM_MAX_VCPUS];
	struct helper_config c = {
		.mmu = vm->mmu, .sources = sources, .nr_sources = vm->nr_vcpus, .cpus = config->helper_cpus,
		.nr_cpus = config->nr_helper_cpus, .nr_heuristics = config->nr_heuristics, .feedback = config->feedback,
		.stand_down = config->helper == VMM_HELPER_AUTO, .say = say, .say_arg = vm, .queue = config->helper_queue,
		.delay_us = config->helper_delay_us, .spin_us = 200, .yield_us = 20000,
	};
	bool helper = config->helper && vm->paging == &paging_shadow &&
		      (config->helper != VMM_HELPER_AUTO || core_free(vm));
	int r = 0;

	if (config->trace)
		r = record_start(vm, &c);
	if (r || (!helper && !vm->trace))
		return r;
	for (unsigned i = 0; i < vm->nr_vcpus && !r; i++) {
		r = make(&vm->vcpus[i]);
		sources[i] = (struct helper_source){ feed_read, feed_watching, feed_node, vm->vcpus[i].feed };
	}
	memcpy(c.heuristics, config->heuristics, sizeof c.heuristics);
	if (!r && helper)
		r = helper_start(&c, &vm->helper);
	if (r) {
		release(vm);
		if (vm->trace)
			record_stop(vm);
	}
	return r;
}

void feed_stop(struct vm *vm)
{
	const struct helper_stats *s = &vm->helper_stats;
	char line[256];

	mmu_sample_sweep(vm->mmu, true);
	helper_stop(vm->helper, &vm->helper_stats);
	vm->helper = NULL;
	if (vm->trace)
		record_stop(vm);
	release(vm);
	for (unsigned i = 0; i < s->nr_decisions && vm->config->verbose; i++) {
		heuristic_decision_text(&s->decisions[i], vm->config->heuristics[s->decisions[i].place].name, line, sizeof line);
		say(vm, line);
	}
}
