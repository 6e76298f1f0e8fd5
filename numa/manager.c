/*
 * manager.c - the manager: its life, its thread, and the order of things in a round.
 *
 * manager->lock is held for a whole round, machine ops included: whoever asks for moves waits for it. Counters and log are read
 * without it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "numa/internal.h"

static bool moves(const struct numa_manager *m)
{
	return numa_policy_moves(m->config.policy);
}

int numa_manager_create(const struct numa_config *config, const struct numa_machine *machine, struct numa_manager **out)
{
	struct numa_manager *m;
	pthread_condattr_t attr;
	int r;

	if (!machine->nr_gfns || !machine->nr_places || machine->nr_places > NUMA_MAX_PLACES || !machine->nr_vcpus ||
	    machine->nr_vcpus > NUMA_MAX_VCPUS)
		return -EINVAL;
	m = calloc(1, sizeof *m);
	if (!m)
		return -ENOMEM;
	m->machine = *machine;
	m->value = m->config.value;
	m->config.preferred = -1;
	m->vcpus = aligned_alloc(_Alignof(struct heat_vcpu), machine->nr_vcpus * sizeof *m->vcpus);
	r = m->vcpus ? 0 : -ENOMEM;
	if (r)
		goto free_manager;
	memset(m->vcpus, 0, machine->nr_vcpus * sizeof *m->vcpus);
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_init(&m->wake_lock, NULL);
	pthread_mutex_init(&m->log.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->wake, &attr);
	pthread_condattr_destroy(&attr);
	m->start_ns = machine->ops->now_ns(machine->arg);
	for (unsigned i = 0; i < machine->nr_vcpus; i++)
		m->home_node[i] = machine->ops->vcpu_node(machine->arg, i);
	r = numa_manager_set_policy(m, config);
	if (r)
		goto free_manager;
	*out = m;
	return 0;
free_manager:
	free(m->vcpus);
	free(m);
	return r;
}

void numa_manager_destroy(struct numa_manager *m)
{
	if (!m)
		return;
	numa_manager_stop(m);
	heat_destroy(m);
	free(m->vcpus);
	free(m);
}

/* ---- rounds ------------------------------------------------------------------------------------------------------ */

static void tick(struct numa_manager *m)
{
	if (!moves(m) && !m->homing)
		return;
	m->round++;
	manager_count(&m->stats.rounds, 1);
	budget_round(m);
	if (m->machine.ops->sample)
		m->machine.ops->sample(m->machine.arg, m);
	m->nr_wishes = 0;
	heat_collect(m);
	if (m->homing)
		act_home(m);
	if (!moves(m))
		return;
	judge_round(m);
	if (m->config.policy->round)
		m->config.policy->round(m);
	act_round(m);
	if (manager_has(m, NUMA_GROUP_SAMPLES))
		scan_round(m);
	__atomic_store_n(&m->stats.resting, judge_resting(m), __ATOMIC_RELAXED);
}

void numa_manager_tick(struct numa_manager *m)
{
	pthread_mutex_lock(&m->lock);
	tick(m);
	pthread_mutex_unlock(&m->lock);
}

/* ms until the next round; 0: until woken. */
static uint64_t pause_ms(struct numa_manager *m)
{
	uint64_t ms;

	pthread_mutex_lock(&m->lock);
	ms = moves(m) || m->homing ? m->value[NUMA_INTERVAL] : 0;
	pthread_mutex_unlock(&m->lock);
	return ms;
}

static void *run(void *arg)
{
	struct numa_manager *m = arg;
	bool stop = false;

	while (!stop) {
		uint64_t ms = pause_ms(m);
		struct timespec t;

		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_nsec += ms % 1000 * 1000000;
		t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
		t.tv_nsec %= 1000000000;
		pthread_mutex_lock(&m->wake_lock);
		while (!m->stop && !m->woken)
			if ((ms ? pthread_cond_timedwait(&m->wake, &m->wake_lock, &t) : pthread_cond_wait(&m->wake, &m->wake_lock)))
				break;
		m->woken = false;
		stop = m->stop;
		pthread_mutex_unlock(&m->wake_lock);
		if (!stop)
			numa_manager_tick(m);
	}
	return NULL;
}

int numa_manager_start(struct numa_manager *m)
{
	int r = pthread_create(&m->thread, NULL, run, m);

	if (!r)
		pthread_setname_np(m->thread, "numa");
	m->started = !r;
	return -r;
}

static void wake(struct numa_manager *m, bool stop)
{
	pthread_mutex_lock(&m->wake_lock);
	m->woken = true;
	m->stop |= stop;
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->wake_lock);
}

void numa_manager_stop(struct numa_manager *m)
{
	if (!m->started)
		return;
	wake(m, true);
	pthread_join(m->thread, NULL);
	m->started = m->stop = false;
}

/* ---- what others ask of it --------------------------------------------------------------------------------------- */

int numa_manager_set_policy(struct numa_manager *m, const struct numa_config *config)
{
	bool will = numa_policy_moves(config->policy), did;
	int r = 0;

	pthread_mutex_lock(&m->lock);
	did = moves(m);
	if (will)
		r = heat_create(m);
	if (!r) {
		if (m->frames)
			judge_forget(m);
		m->config = *config;
		for (unsigned i = 0; i < NUMA_NR_PARAMS; i++)
			if (m->config.value[i] < numa_params[i].min)	/* never parsed */
				m->config.value[i] = numa_params[i].initial;
		m->homing = !will && (did || m->homing);
		m->random = 0;
		if (will)
			budget_start(m);
	}
	pthread_mutex_unlock(&m->lock);
	wake(m, false);
	return r;
}

void numa_manager_config(struct numa_manager *m, struct numa_config *out)
{
	pthread_mutex_lock(&m->lock);
	*out = m->config;
	pthread_mutex_unlock(&m->lock);
}

void numa_manager_move(struct numa_manager *m, struct numa_move *list, unsigned n)
{
	const struct numa_decision why = { .reason = NUMA_WHY_USER, .from = NUMA_NOWHERE };

	pthread_mutex_lock(&m->lock);
	act_now(m, list, n, &why);
	for (unsigned i = 0; m->frames && i < n; i++)
		if (!list[i].result && list[i].gfn < m->machine.nr_gfns)
			act_freeze(m, list[i].gfn);
	pthread_mutex_unlock(&m->lock);
}

int numa_manager_move_vcpu(struct numa_manager *m, unsigned vcpu, unsigned node)
{
	const struct numa_decision why = { .reason = NUMA_WHY_USER };
	int r = -EINVAL;

	if (vcpu >= m->machine.nr_vcpus || node >= m->machine.nr_places)
		return r;
	pthread_mutex_lock(&m->lock);
	r = act_move_vcpu(m, vcpu, node, &why);
	if (!r)
		m->home_node[vcpu] = node;
	pthread_mutex_unlock(&m->lock);
	return r;
}

void numa_manager_forget(struct numa_manager *m)
{
	pthread_mutex_lock(&m->lock);
	if (m->frames) {
		judge_forget(m);
		heat_forget(m);
	}
	m->focus_n = 0;
	manager_count(&m->stats.away, -(int64_t)m->stats.away);
	manager_count(&m->stats.copies, -(int64_t)m->stats.copies);
	pthread_mutex_unlock(&m->lock);
}

void numa_manager_stats(struct numa_manager *m, struct numa_stats *out)
{
#define X(name, what) out->name = __atomic_load_n(&m->stats.name, __ATOMIC_RELAXED);
	NUMA_COUNTERS(X)
#undef X
	out->recent = __atomic_load_n(&m->stats.recent, __ATOMIC_RELAXED);
	out->recent_local = __atomic_load_n(&m->stats.recent_local, __ATOMIC_RELAXED);
	out->resting = __atomic_load_n(&m->stats.resting, __ATOMIC_RELAXED);
}

void numa_manager_vcpu(struct numa_manager *m, unsigned vcpu, uint64_t *local, uint64_t *remote)
{
	*local = *remote = 0;
	if (vcpu >= m->machine.nr_vcpus)
		return;
	*local = atomic_load_explicit(&m->vcpus[vcpu].local, memory_order_relaxed);
	*remote = atomic_load_explicit(&m->vcpus[vcpu].remote, memory_order_relaxed);
}
