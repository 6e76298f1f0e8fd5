/*
 * stats.c - counters summed and marked. A reader may see another thread's counters a little old, never torn.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/stats.h"

#define MARK_PROBE	0u		/* a guest that asks whether anybody counts: answered, not kept */
#define MARKS_MAX	4096u		/* the guest makes them: it may not have all our memory */

/* Counters are structs of nothing but uint64_t, so they can be walked as arrays. */
#define WORDS(type)	(sizeof(type) / sizeof(uint64_t))
_Static_assert(sizeof(struct vcpu_counters) % sizeof(uint64_t) == 0, "uint64_t members only");
_Static_assert(sizeof(struct mmu_stats) % sizeof(uint64_t) == 0, "uint64_t members only");

/*
 * A counter has one writer, which adds with plain instructions, and nothing but its own value depends on it: an aligned word
 * read beside that is a little old at worst. So this one reader is left out of what ThreadSanitizer looks at.
 */
__attribute__((noinline, no_sanitize("thread")))
static void add_words(void *to, const void *from, size_t words)
{
	for (size_t i = 0; i < words; i++)
		((uint64_t *)to)[i] += *((const volatile uint64_t *)from + i);
}

static void subtract_words(void *to, const void *from, size_t words)
{
	for (size_t i = 0; i < words; i++)
		((uint64_t *)to)[i] -= ((const uint64_t *)from)[i];
}

static uint64_t sum_words(const void *from, size_t words)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < words; i++)
		sum += ((const uint64_t *)from)[i];
	return sum;
}

uint64_t stats_exits(const struct vcpu_counters *c)
{
	return sum_words(&c->exits, WORDS(c->exits));
}

uint64_t stats_emulated(const struct vcpu_counters *c)
{
	return sum_words(&c->emulated, WORDS(c->emulated));
}

uint64_t stats_hypercalls(const struct vcpu_counters *c)
{
	return sum_words(c->hypercalls, COUNTERS_HYPERCALLS);
}

uint64_t stats_invm_hypercalls(const struct vcpu_counters *c)
{
	return sum_words(c->invm_hypercalls, COUNTERS_HYPERCALLS);
}

void stats_copy(const struct vcpu *v, struct vcpu_counters *c)
{
	memset(c, 0, sizeof *c);
	add_words(c, &v->counters, WORDS(*c));
}

void stats_sum(struct vm *vm, struct vcpu_counters *c, struct mmu_stats *m)
{
	memset(c, 0, sizeof *c);
	for (unsigned i = 0; i < vm->nr_vcpus; i++)
		add_words(c, &vm->vcpus[i].counters, WORDS(*c));
	mmu_stats(vm->mmu, m);
	vm->paging->add_stats(vm, m);
}

void stats_subtract(struct vcpu_counters *c, struct mmu_stats *m, const struct mark *from)
{
	subtract_words(c, &from->counters, WORDS(*c));
	subtract_words(m, &from->mmu, WORDS(*m));
}

/* The array's room is the next power of two. Under mark_lock; NULL: no memory, or enough marks. */
static struct mark *new_mark(struct vm *vm)
{
	unsigned n = vm->nr_marks;
	struct mark *grown;

	if (n >= MARKS_MAX)
		return NULL;
	if (!(n & (n - 1))) {
		grown = realloc(vm->marks, (n ? 2 * n : 1) * sizeof *grown);
		if (!grown)
			return NULL;
		vm->marks = grown;
	}
	vm->nr_marks++;
	return &vm->marks[n];
}

void stats_mark(struct vcpu *v, uint32_t id)
{
	struct vm *vm = v->vm;
	struct mark mark = { .id = id, .ns = vm_now(vm) }, *place;

	if (id == MARK_PROBE)
		return;
	stats_sum(vm, &mark.counters, &mark.mmu);
	kvm_stats_read(vm->kvm_stats, &mark.kvm);
	pthread_mutex_lock(&vm->mark_lock);
	place = new_mark(vm);
	if (place)
		*place = mark;
	pthread_mutex_unlock(&vm->mark_lock);
	if (!place && vm->config->verbose)
		fprintf(stderr, "umbra: marker %u of the guest is one too many: not kept\n", id);
}

uint64_t stats_wall_ns(struct vm *vm)
{
	uint64_t end;

	pthread_mutex_lock(&vm->end_lock);
	end = vm->end_ns;
	pthread_mutex_unlock(&vm->end_lock);
	return end ? end : vm_now(vm);
}

double stats_cycles_ns(const struct vm *vm, uint64_t cycles)
{
	return vm->tsc_khz ? cycles * 1e6 / vm->tsc_khz : -1;
}

const char *stats_hypercall_name(unsigned nr, char spare[static STATS_NAME_SIZE])
{
	const char *name = xen_hypercall_name(nr);

	if (name)
		return name;
	snprintf(spare, STATS_NAME_SIZE, "hypercall_%u", nr);
	return spare;
}

const char *stats_kick_word(enum vmm_kick kick)
{
	static const char *const words[] = {
		[VMM_KICK_AUTO] = "auto", [VMM_KICK_FLUSH] = "flush", [VMM_KICK_REWRITE] = "rewrite",
		[VMM_KICK_TABLE] = "table",
	};

	return words[kick];
}

const char *stats_fill_word(enum mmu_fill fill)
{
	return fill == MMU_FILL_EAGER ? "eager" : "lazy";
}

const char *stats_prefetch_word(enum mmu_prefetch_kind kind)
{
	static const char *const words[] = {
		[MMU_PREFETCH_OFF] = "off", [MMU_PREFETCH_KVM8] = "kvm8", [MMU_PREFETCH_XEN32] = "xen32",
		[MMU_PREFETCH_AROUND] = "around",
	};

	return words[kind];
}

int stats_exit_code(struct vm *vm)
{
	if (vm->exit_code == VMM_EXIT_OK && !console_expect_met(vm))
		return VMM_EXIT_NOT_EXPECTED;
	return vm->exit_code;
}
