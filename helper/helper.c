/*
 * helper.c - the threads: each reads the events of its sources, runs an engine on them, and paces itself. It spins while
 * events flow, yields the core when they do not, and sleeps when nothing has come for long: the window between an update
 * and the guest's use of the entry is a few microseconds, so a thread that sleeps catches none (docs/in-vm.md).
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "helper/engine.h"

#define BATCH		64u
#define WINDOW_NS	100000000ull	/* of so much time awake ... */
#define SHARE_MIN	60u		/* ... the thread wants so many percent on a core, or stands down ... */
#define SWEEP_NS	250000000ull
#define STAND_DOWN_MS	1000		/* ... for so long */
#define LOOKS_PER_CLOCK	64u	/* how often an idle spin looks before it reads the clock */

struct worker {
	struct helper *helper;
	struct engine *engine;
	struct mmu_cpu *cpu;
	unsigned place;			/* serves the sources place, place + nr_workers ... */
	pthread_t thread;
	bool started;
	int wake_fd, stop_fd;
	atomic_bool asleep;
	_Atomic uint64_t rounds;	/* goes up by 2 for each; odd: it sleeps */
	uint64_t window_start, window_ran;	/* for core_is_wanted() */
	uint64_t next_sweep;
	uint64_t random;
	struct helper_stats stats;	/* all but heuristics; the thread's, read by others as it is */
};

struct helper {
	struct mmu *mmu;
	struct helper_source *sources;
	unsigned nr_sources, nr_heuristics;
	void (*tap)(void *arg, unsigned source, const struct helper_event *events, unsigned n);
	void *tap_arg;
	uint64_t spin_ns, yield_ns;
	bool stand_down, settles;
	unsigned delay_us;
	void (*say)(void *arg, const char *line);
	void *say_arg;
	atomic_bool said;
	atomic_bool stop;
	unsigned nr_workers;
	struct worker *workers;
};

/* Counters have one writer; others read them as they are. */
static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- the engine's requests go to the MMU --------------------------------------------------------------------------- */

static enum mmu_prebuilt env_build(void *arg, gfn_t table, unsigned index, unsigned source, unsigned flags)
{
	struct worker *w = arg;

	return mmu_prebuild(w->cpu, table, index, source, flags);
}

static unsigned env_build_tree(void *arg, gfn_t root, enum mmu_mode mode, gva_t first, gva_t last, unsigned source,
			       unsigned flags, unsigned budget)
{
	struct worker *w = arg;

	return mmu_prebuild_tree(w->cpu, root, mode, first, last, source, flags, budget);
}

struct clone {
	struct worker *worker;
	gfn_t root;
	unsigned source, flags, left, built;
};

static bool clone_set(void *arg, const struct mmu_present *set)
{
	struct clone *c = arg;
	unsigned n = mmu_prebuild_set(c->worker->cpu, c->root, MMU_KERNEL, set, c->source, c->flags);

	c->built += n;
	c->left -= n < c->left ? n : c->left;
	return c->left;
}

/* By whole tables: a few more than `budget` may be built. */
static unsigned env_clone(void *arg, gfn_t root, gfn_t parent, gva_t first, gva_t last, unsigned source, unsigned flags,
			  unsigned budget)
{
	struct worker *w = arg;
	struct clone c = { w, root, source, flags, budget, 0 };

	mmu_present_set(w->cpu, parent, MMU_KERNEL, first, last, clone_set, &c);
	return c.built;
}

static void env_use(void *arg, unsigned source, struct heuristic_use *out)
{
	struct worker *w = arg;
	struct mmu_source_stats s;

	memset(out, 0, sizeof *out);
	if (mmu_source_stats(w->helper->mmu, source, &s))
		return;
	*out = (struct heuristic_use){ s.built, s.sampled, s.sampled_used, s.sampled_unused, s.sampled_late, s.removed };
}

static bool env_read_entry(void *arg, gfn_t table, unsigned index, uint64_t *gpte)
{
	struct worker *w = arg;
	const uint64_t *entries = mmu_gfn_hva(w->helper->mmu, table);

	if (!entries)
		return false;
	*gpte = __atomic_load_n(&entries[index], __ATOMIC_RELAXED);
	return true;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

/* Runs the heuristics on what is new. True: there was something. */
static bool look(struct worker *w)
{
	struct helper *h = w->helper;
	struct helper_event events[BATCH];
	bool any = false;

	for (unsigned s = w->place; s < h->nr_sources; s += h->nr_workers) {
		const struct helper_source *src = &h->sources[s];
		uint64_t lost = 0;
		unsigned n = src->read(src->arg, events, BATCH, &lost);

		any |= n != 0;
		count(&w->stats.lost, lost);
		if (n && src->node)	/* out of range: it stays what it was */
			mmu_cpu_set_node(w->cpu, src->node(src->arg));
		if (n && h->tap)
			h->tap(h->tap_arg, s, events, n);
		for (unsigned i = 0; i < n; i++) {
			if (events[i].kind < HELPER_EVENT_KINDS)
				count(&w->stats.events[events[i].kind], 1);
			engine_event(w->engine, &events[i]);
		}
	}
	return any;
}

static void set_watching(struct worker *w, bool yes)
{
	struct helper *h = w->helper;

	for (unsigned s = w->place; s < h->nr_sources; s += h->nr_workers)
		h->sources[s].watching(h->sources[s].arg, yes);
}

/* For --heuristic=auto, between events: samples that were used say so. */
static void settle_samples(struct worker *w)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (now < w->next_sweep)
		return;
	w->next_sweep = now + SWEEP_NS;
	mmu_sample_sweep(w->helper->mmu, false);
}

static void note_cpu_time(struct worker *w)
{
	__atomic_store_n(&w->stats.cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID), __ATOMIC_RELAXED);
}

static void go_to_sleep(struct worker *w)
{
	uint64_t ticket;

	set_watching(w, false);
	atomic_store(&w->asleep, true);
	if (!look(w) && !atomic_load(&w->helper->stop)) {	/* nothing came in between */
		count(&w->stats.sleeps, 1);
		note_cpu_time(w);
		atomic_fetch_add(&w->rounds, 1);
		if (read(w->wake_fd, &ticket, sizeof ticket) == sizeof ticket)
			count(&w->stats.wakes, 1);
		atomic_fetch_add(&w->rounds, 1);
	}
	atomic_store(&w->asleep, false);
	set_watching(w, true);
}

/* The thread got too little of its core of late: others need it more. A vCPU that waits for the core is slower than one that
 * fills its own entries. */
static void stand_down(struct worker *w)
{
	struct helper *h = w->helper;
	uint64_t start = clock_ns(CLOCK_MONOTONIC);
	struct pollfd fd = { .fd = w->stop_fd, .events = POLLIN };

	if (h->say && !atomic_exchange(&h->said, true))
		h->say(h->say_arg, "the helper thread stands down for a while, now and whenever no core is free for it");
	set_watching(w, false);
	look(w);
	atomic_fetch_add(&w->rounds, 1);
	poll(&fd, 1, STAND_DOWN_MS);
	atomic_fetch_add(&w->rounds, 1);
	set_watching(w, true);
	count(&w->stats.stood_down, 1);
	count(&w->stats.stood_down_ns, clock_ns(CLOCK_MONOTONIC) - start);
}

/* Looks at the share of time that the thread ran since the last call. */
static bool core_is_wanted(struct worker *w)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), ran = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	uint64_t wall = now - w->window_start;
	bool wanted;

	if (wall < WINDOW_NS)
		return false;
	wanted = (ran - w->window_ran) * 100 < wall * SHARE_MIN;
	w->window_start = now;
	w->window_ran = ran;
	return wanted;
}

static void begin_window(struct worker *w)
{
	w->window_start = clock_ns(CLOCK_MONOTONIC);
	w->window_ran = clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* A test: the guest gets ahead by a different time at each look. */
static void delay(struct worker *w)
{
	w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
	usleep(w->random >> 33 & 7 ? 0 : (w->random >> 36) % (w->helper->delay_us + 1));
}

static void *worker_thread(void *arg)
{
	struct worker *w = arg;
	struct helper *h = w->helper;
	uint64_t last = clock_ns(CLOCK_MONOTONIC);

	mmu_cpu_bind(w->cpu);
	pthread_setname_np(pthread_self(), "helper");
	begin_window(w);
	set_watching(w, true);
	for (unsigned looks = 0; !atomic_load_explicit(&h->stop, memory_order_relaxed); looks++) {
		uint64_t idle;

		atomic_fetch_add(&w->rounds, 2);
		if (h->delay_us)
			delay(w);
		if (looks % LOOKS_PER_CLOCK == 0 && h->stand_down && core_is_wanted(w)) {
			stand_down(w);
			begin_window(w);
			last = 0;
		}
		if (look(w) || engine_work(w->engine)) {
			last = 0;
			continue;
		}
		__builtin_ia32_pause();
		if (looks % LOOKS_PER_CLOCK != LOOKS_PER_CLOCK - 1)
			continue;
		if (!last)
			last = clock_ns(CLOCK_MONOTONIC);
		if (h->settles && !w->place)
			settle_samples(w);
		idle = clock_ns(CLOCK_MONOTONIC) - last;
		if (idle > h->spin_ns + h->yield_ns) {
			go_to_sleep(w);
			begin_window(w);
			last = 0;
		} else if (idle > h->spin_ns) {
			sched_yield();
		}
	}
	set_watching(w, false);
	note_cpu_time(w);
	return NULL;
}

void helper_note_rounds(struct helper *h, uint64_t *rounds)
{
	for (unsigned i = 0; i < h->nr_workers; i++)
		rounds[i] = atomic_load(&h->workers[i].rounds);
}

bool helper_rounds_passed(struct helper *h, const uint64_t *rounds)
{
	for (unsigned i = 0; i < h->nr_workers; i++)
		if (!(rounds[i] & 1) && atomic_load(&h->workers[i].rounds) == rounds[i])
			return false;
	return true;
}

/* ---- begin and end ------------------------------------------------------------------------------------------------------ */

static int start_worker(struct helper *h, unsigned place, const struct helper_config *config)
{
	struct worker *w = &h->workers[place];
	struct engine_config ec = {
		.env = { .build = env_build, .build_tree = env_build_tree, .clone = env_clone,
			 .read_entry = env_read_entry, .use = env_use, .arg = w },
		.nr_heuristics = config->nr_heuristics, .feedback = config->feedback, .queue = config->queue,
	};
	pthread_attr_t attr;
	cpu_set_t set;
	int r;

	w->helper = h;
	w->place = place;
	w->random = place;
	w->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (w->wake_fd < 0)
		return -errno;
	w->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (w->stop_fd < 0)
		return -errno;
	memcpy(ec.heuristics, config->heuristics, sizeof ec.heuristics);
	r = engine_create(&ec, &w->engine);
	if (r)
		return r;
	r = mmu_cpu_create(config->mmu, &w->cpu);
	if (r)
		return r;
	pthread_attr_init(&attr);
	if (config->nr_cpus) {
		CPU_ZERO(&set);
		CPU_SET(config->cpus[place], &set);
		pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	}
	r = -pthread_create(&w->thread, &attr, worker_thread, w);
	pthread_attr_destroy(&attr);
	w->started = !r;
	return r;
}

/* helper->stop is set. */
static void join_worker(struct worker *w)
{
	uint64_t one = 1;

	if (w->started && write(w->wake_fd, &one, sizeof one) == sizeof one && write(w->stop_fd, &one, sizeof one) == sizeof one)
		pthread_join(w->thread, NULL);
	w->started = false;
}

static void stop_worker(struct worker *w)
{
	join_worker(w);
	if (w->cpu)
		mmu_cpu_destroy(w->cpu);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	if (w->stop_fd >= 0)
		close(w->stop_fd);
	engine_destroy(w->engine);
}

static void release(struct helper *h)
{
	for (unsigned i = 0; i < h->nr_workers; i++)
		stop_worker(&h->workers[i]);
	free(h->workers);
	free(h->sources);
	free(h);
}

int helper_start(const struct helper_config *config, struct helper **out)
{
	struct helper *h;
	unsigned n = config->nr_cpus ? config->nr_cpus : 1;
	int r = -ENOMEM;

	if (!config->nr_sources)
		return -EINVAL;
	if (n > config->nr_sources)
		n = config->nr_sources;
	h = calloc(1, sizeof *h);
	if (!h)
		return -ENOMEM;
	h->mmu = config->mmu;
	h->nr_sources = config->nr_sources;
	h->nr_heuristics = config->nr_heuristics;
	h->stand_down = config->stand_down;
	h->settles = config->feedback.on;
	h->delay_us = config->delay_us;
	h->say = config->say;
	h->say_arg = config->say_arg;
	h->tap = config->tap;
	h->tap_arg = config->tap_arg;
	h->spin_ns = config->spin_us * 1000ull;
	h->yield_ns = config->yield_us * 1000ull;
	h->sources = malloc(config->nr_sources * sizeof *h->sources);
	h->workers = calloc(n, sizeof *h->workers);
	if (!h->sources || !h->workers)
		goto fail;
	memcpy(h->sources, config->sources, config->nr_sources * sizeof *h->sources);
	for (unsigned i = 0; i < n; i++)
		h->workers[i].wake_fd = h->workers[i].stop_fd = -1;
	h->nr_workers = n;		/* before the first of them looks */
	for (unsigned i = 0; i < n; i++) {
		r = start_worker(h, i, config);
		if (r)
			goto fail;
	}
	*out = h;
	return 0;
fail:
	atomic_store(&h->stop, true);
	release(h);
	return r;
}

void helper_wake(struct helper *h)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < h->nr_workers; i++)
		if (atomic_load(&h->workers[i].asleep) && write(h->workers[i].wake_fd, &one, sizeof one) < 0)
			return;		/* the counter is full: awake for certain */
}

void helper_stop(struct helper *h, struct helper_stats *final)
{
	if (!h) {
		memset(final, 0, sizeof *final);
		return;
	}
	atomic_store(&h->stop, true);
	for (unsigned i = 0; i < h->nr_workers; i++)
		join_worker(&h->workers[i]);
	helper_stats(h, final);
	for (unsigned i = 0; i < h->nr_workers; i++)
		final->nr_decisions += engine_decisions(h->workers[i].engine, final->decisions + final->nr_decisions,
							HELPER_DECISIONS - final->nr_decisions);
	release(h);
}

static void add(uint64_t *to, const uint64_t *from, size_t bytes)
{
	for (size_t i = 0; i < bytes / sizeof *to; i++)
		to[i] += __atomic_load_n(from + i, __ATOMIC_RELAXED);
}

/* A thread that runs notes its own seldom. */
static uint64_t cpu_time(const struct worker *w)
{
	clockid_t clock;

	if (!w->started || pthread_getcpuclockid(w->thread, &clock))
		return __atomic_load_n(&w->stats.cpu_ns, __ATOMIC_RELAXED);
	return clock_ns(clock);
}

void helper_stats(struct helper *h, struct helper_stats *out)
{
	uint64_t cpu_ns = 0;

	memset(out, 0, sizeof *out);
	for (unsigned k = 0; k < h->nr_heuristics; k++)
		env_use(&h->workers[0], MMU_SRC_FIRST_HEURISTIC + k, &out->use[k]);
	for (unsigned i = 0; i < h->nr_workers; i++) {
		struct worker *w = &h->workers[i];

		add((uint64_t *)out, (const uint64_t *)&w->stats, offsetof(struct helper_stats, heuristics));
		for (unsigned k = 0; k < h->nr_heuristics; k++) {
			struct heuristic_stats s;

			engine_stats(w->engine, k, &s);
			add((uint64_t *)&out->heuristics[k], (const uint64_t *)&s, sizeof s);
		}
		cpu_ns += cpu_time(w);
	}
	out->cpu_ns = cpu_ns;
}
