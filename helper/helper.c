/*
 * helper.c - the thread: reads updates, runs the heuristics on them, and paces itself. It spins while updates flow,
 * yields the core when they do not, and sleeps when nothing has come for long: the window between an update and the
 * guest's use of the entry is a few microseconds, so a thread that sleeps catches none (docs/in-vm.md).
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "helper/heuristic.h"

#define BATCH		64u
#define LOOKS_PER_CLOCK	64u	/* how often an idle spin looks before it reads the clock */

/* Counters have one writer; others read them as they are. */
static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

struct helper {
	struct helper_config config;
	struct helper_source *sources;
	uint32_t *cursors;
	struct mmu_cpu *cpu;
	pthread_t thread;
	int wake_fd;
	atomic_bool stop, asleep;
	struct helper_stats stats;	/* the thread's; read by others as it is */
};

void heuristic_build(struct heuristic_ctx *c, gfn_t table, unsigned index)
{
	count(&c->stats->issued, 1);
	switch (mmu_prebuild(c->cpu, table, index, c->source)) {
	case MMU_PB_BUILT:
		count(&c->stats->built, 1);
		break;
	case MMU_PB_PRESENT:
		count(&c->stats->present, 1);
		break;
	case MMU_PB_NO_SHADOW:
		count(&c->stats->nowhere, 1);
		break;
	case MMU_PB_NOTHING:
		count(&c->stats->nothing, 1);
		break;
	}
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* Runs the heuristics on what is new. True: there was something. */
static bool work(struct helper *h)
{
	struct helper_update u[BATCH];
	bool any = false;

	for (unsigned s = 0; s < h->config.nr_sources; s++) {
		struct helper_source *src = &h->sources[s];
		uint64_t lost = 0;
		unsigned n = src->read(src->arg, &h->cursors[s], u, BATCH, &lost);

		any |= n != 0;
		count(&h->stats.updates, n);
		count(&h->stats.lost, lost);
		for (unsigned i = 0; i < h->config.nr_heuristics; i++) {
			const struct heuristic_config *hc = &h->config.heuristics[i];
			struct heuristic_ctx c = { h->cpu, hc->value, &h->stats.heuristics[i], MMU_SRC_FIRST_HEURISTIC + i };

			for (unsigned k = 0; k < n; k++)
				hc->ops->on_update(&c, u[k].table, u[k].index);
		}
	}
	return any;
}

static void set_watching(struct helper *h, bool yes)
{
	for (unsigned s = 0; s < h->config.nr_sources; s++)
		h->sources[s].watching(h->sources[s].arg, yes);
}

static void go_to_sleep(struct helper *h)
{
	uint64_t ticket;

	set_watching(h, false);
	atomic_store(&h->asleep, true);
	if (!work(h) && !atomic_load(&h->stop)) {	/* nothing came in between */
		count(&h->stats.sleeps, 1);
		__atomic_store_n(&h->stats.cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID), __ATOMIC_RELAXED);
		if (read(h->wake_fd, &ticket, sizeof ticket) == sizeof ticket)
			count(&h->stats.wakes, 1);
	}
	atomic_store(&h->asleep, false);
	set_watching(h, true);
}

static void *helper_thread(void *arg)
{
	struct helper *h = arg;
	uint64_t last = clock_ns(CLOCK_MONOTONIC), spin = h->config.spin_us * 1000ull;
	uint64_t yield = spin + h->config.yield_us * 1000ull;

	set_watching(h, true);
	for (unsigned looks = 0; !atomic_load_explicit(&h->stop, memory_order_relaxed); looks++) {
		uint64_t idle;

		if (work(h)) {
			looks = 0;
			last = 0;
			continue;
		}
		__builtin_ia32_pause();
		if (looks % LOOKS_PER_CLOCK != LOOKS_PER_CLOCK - 1)
			continue;
		if (!last)
			last = clock_ns(CLOCK_MONOTONIC);
		idle = clock_ns(CLOCK_MONOTONIC) - last;
		if (idle > yield) {
			go_to_sleep(h);
			last = 0;
		} else if (idle > spin) {
			sched_yield();
		}
	}
	set_watching(h, false);
	__atomic_store_n(&h->stats.cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID), __ATOMIC_RELAXED);
	return NULL;
}

int helper_start(const struct helper_config *config, struct helper **out)
{
	struct helper *h;
	pthread_attr_t attr;
	cpu_set_t set;
	int r = -ENOMEM;

	if (!config->nr_sources || !config->nr_heuristics || config->nr_heuristics > HELPER_MAX_HEURISTICS)
		return -EINVAL;
	h = calloc(1, sizeof *h);
	if (!h)
		return -ENOMEM;
	h->config = *config;
	h->sources = malloc(config->nr_sources * sizeof *h->sources);
	h->cursors = calloc(config->nr_sources, sizeof *h->cursors);
	h->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (!h->sources || !h->cursors || h->wake_fd < 0)
		goto fail;
	memcpy(h->sources, config->sources, config->nr_sources * sizeof *h->sources);
	r = mmu_cpu_create(config->mmu, &h->cpu);
	if (r)
		goto fail;
	pthread_attr_init(&attr);
	if (config->cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(config->cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	}
	r = -pthread_create(&h->thread, &attr, helper_thread, h);
	pthread_attr_destroy(&attr);
	if (r)
		goto fail;
	*out = h;
	return 0;
fail:
	if (h->cpu)
		mmu_cpu_destroy(h->cpu);
	if (h->wake_fd >= 0)
		close(h->wake_fd);
	free(h->cursors);
	free(h->sources);
	free(h);
	return r;
}

void helper_wake(struct helper *h)
{
	uint64_t one = 1;

	if (atomic_load(&h->asleep) && write(h->wake_fd, &one, sizeof one) < 0)
		return;		/* the counter is full: awake for certain */
}

void helper_stop(struct helper *h, struct helper_stats *final)
{
	uint64_t one = 1;

	if (!h) {
		memset(final, 0, sizeof *final);
		return;
	}
	atomic_store(&h->stop, true);
	if (write(h->wake_fd, &one, sizeof one) == sizeof one)
		pthread_join(h->thread, NULL);
	*final = h->stats;
	mmu_cpu_destroy(h->cpu);
	close(h->wake_fd);
	free(h->cursors);
	free(h->sources);
	free(h);
}

void helper_stats(struct helper *h, struct helper_stats *out)
{
	const uint64_t *from = (const uint64_t *)&h->stats;

	for (size_t i = 0; i < sizeof *out / 8; i++)
		((uint64_t *)out)[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
}
