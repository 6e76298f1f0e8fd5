/* numa_world.c - the simulated machine. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/numa_world.h"

#define LOCAL_NS	90u
#define ROUND_NS	100000000u
#define SET		256u

uint64_t world_random(struct world *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

/* ---- what the manager asks for ----------------------------------------------------------------------------------- */

/* A vCPU does it, and does not run meanwhile. */
static void work(struct world *w, uint64_t ns)
{
	w->owed_ns[w->round % w->machine.nr_vcpus] += ns;
	w->now_ns += ns;
}

/* Everybody's cached translations are gone. */
static void kick(struct world *w)
{
	for (unsigned v = 0; v < w->machine.nr_vcpus; v++)
		w->owed_ns[v] += w->kick_ns;
	w->refill_ns += w->machine.nr_vcpus * w->kick_ns;
}

static int op_watch(void *arg, const uint64_t *gfns, unsigned n)
{
	struct world *w = arg;

	assert_in_range(n, 1, NUMA_MAX_BATCH);
	for (unsigned i = 0; i < n; i++) {
		struct world_frame *f = &w->frames[gfns[i]];

		assert_true(gfns[i] < w->machine.nr_gfns);
		if (f->pinned)
			continue;
		f->mapped = f->writable = 0;
		f->watched = true;
	}
	w->watched += n;
	kick(w);
	work(w, n * w->watch_ns);
	return 0;
}

static int place_frame(struct world *w, const struct numa_move *move)
{
	struct world_frame *f = &w->frames[move->gfn];
	uint8_t to = move->kind == NUMA_MIGRATE ? 1u << move->node : move->kind == NUMA_REPLICATE ? move->mask : 0;

	assert_true(move->gfn < w->machine.nr_gfns);
	assert_true(move->node < w->machine.nr_places && !(to >> w->machine.nr_places));
	if (w->refuse)
		return w->refuse;
	if (f->pinned)
		return -EBUSY;
	for (unsigned i = 0; i < w->machine.nr_places; i++)
		if (to >> i & 1 && i != f->node && !w->room[i])
			return -ENOMEM;
	for (unsigned i = 0; i < w->machine.nr_places; i++)
		if (to >> i & 1 && i != f->node && w->room[i] != ~0ull)
			w->room[i]--;
	f->mapped = f->writable = f->copies = 0;
	f->watched = false;
	if (move->kind == NUMA_REPLICATE)
		f->copies = move->mask | 1u << f->node;
	if (move->kind == NUMA_MIGRATE)
		f->node = move->node;
	if (move->kind == NUMA_HOME)
		f->node = f->home;
	f->moves++;
	w->moved++;
	return 0;
}

static void op_move(void *arg, struct numa_move *moves, unsigned n)
{
	struct world *w = arg;

	assert_in_range(n, 1, NUMA_MAX_BATCH);
	for (unsigned i = 0; i < n; i++) {
		moves[i].result = place_frame(w, &moves[i]);
		w->refused += moves[i].result == -ENOMEM;
	}
	kick(w);
	work(w, n * w->move_ns);
}

static int op_move_vcpu(void *arg, unsigned vcpu, unsigned node)
{
	struct world *w = arg;

	assert_true(vcpu < w->machine.nr_vcpus && node < w->machine.nr_places);
	w->vcpu_at[vcpu] = node;
	w->vcpu_moves++;
	return 0;
}

static unsigned op_vcpu_node(void *arg, unsigned vcpu)
{
	return ((struct world *)arg)->vcpu_at[vcpu];
}

static uint64_t op_vcpu_busy(void *arg, unsigned vcpu)
{
	const struct world *w = arg;

	return w->busy_ns[vcpu] + w->ran_ns[vcpu];
}

static void op_frame_nodes(void *arg, const uint64_t *gfns, unsigned n, uint8_t *nodes)
{
	for (unsigned i = 0; i < n; i++)
		nodes[i] = ((struct world *)arg)->frames[gfns[i]].node;
}

static uint64_t op_node_free(void *arg, unsigned node)
{
	return ((struct world *)arg)->free_bytes[node];
}

static uint64_t op_now(void *arg)
{
	return ((struct world *)arg)->now_ns;
}

static uint64_t op_fault_ns(void *arg)
{
	return ((struct world *)arg)->fault_ns;
}

static uint64_t op_refill_ns(void *arg)
{
	return ((struct world *)arg)->refill_ns;
}

static const struct numa_machine_ops ops = {
	.watch = op_watch,
	.move = op_move,
	.move_vcpu = op_move_vcpu,
	.vcpu_node = op_vcpu_node,
	.vcpu_busy_ns = op_vcpu_busy,
	.frame_nodes = op_frame_nodes,
	.node_free = op_node_free,
	.now_ns = op_now,
	.fault_ns = op_fault_ns,
	.refill_ns = op_refill_ns,
};

/* ---- what the guest does ----------------------------------------------------------------------------------------- */

/* Returns the ns it took. */
static uint64_t fault(struct world *w, unsigned vcpu, uint64_t gfn, bool write)
{
	struct world_frame *f = &w->frames[gfn];
	uint8_t node = 1u << w->vcpu_at[vcpu];

	if (write && f->copies) {
		f->copies = f->mapped = f->writable = 0;
		numa_note_collapsed(w->m, gfn);
		kick(w);
	}
	numa_note(w->m, vcpu, gfn, w->vcpu_at[vcpu], write, f->watched);
	if (write)
		f->watched = false;
	f->mapped |= node;
	if (!f->watched && !f->copies)
		f->writable |= node;
	w->faults++;
	return w->fault_ns;
}

static uint64_t step(struct world *w, unsigned vcpu)
{
	bool write = false;
	uint64_t gfn = w->pattern(w, vcpu, &write), took = 0;
	struct world_frame *f = &w->frames[gfn];
	unsigned at = w->vcpu_at[vcpu], distance = 255;

	if (write)
		f->writers |= 1u << at;
	if (!(f->mapped >> at & 1) || (write && !(f->writable >> at & 1)))
		took = fault(w, vcpu, gfn, write);
	for (unsigned i = 0; i < w->machine.nr_places; i++)
		if ((f->copies ? f->copies : 1u << f->node) >> i & 1 && w->machine.distance[at][i] < distance)
			distance = w->machine.distance[at][i];
	w->steps++;
	w->local += distance == 10;
	w->distance += distance;
	return took + WORLD_ACCESSES * LOCAL_NS * (w->uniform ? 10 : distance) / 10;
}

/* vCPUs of one node share its processors in turn. */
static uint64_t slice_ns(const struct world *w, unsigned vcpu)
{
	unsigned busy = 0, cpus = w->machine.cpus[w->vcpu_at[vcpu]];

	for (unsigned i = 0; i < w->machine.nr_vcpus; i++)
		busy += w->vcpu_at[i] == w->vcpu_at[vcpu] && !w->vcpu_idle[i];
	return busy <= cpus ? ROUND_NS : (uint64_t)ROUND_NS * cpus / busy;
}

void world_run(struct world *w, unsigned rounds)
{
	for (unsigned r = 0; r < rounds; r++) {
		uint64_t start = w->now_ns, end = start + ROUND_NS;

		for (unsigned v = 0; v < w->machine.nr_vcpus; v++) {
			uint64_t slice = w->vcpu_idle[v] ? 0 : slice_ns(w, v), ran = w->owed_ns[v];

			while (ran < slice) {
				w->ran_ns[v] = ran;
				ran += step(w, v);
			}
			w->ran_ns[v] = 0;
			w->owed_ns[v] = ran - slice;
			if (w->vcpu_idle[v])
				w->owed_ns[v] = 0;
			w->busy_ns[v] += slice;
		}
		w->now_ns = end;
		w->round++;
		if (w->m)
			numa_manager_tick(w->m);
		if (w->now_ns < end)
			w->now_ns = end;
		w->now_ns = end;	/* what the manager did took a vCPU's time, not the world's */
	}
}

uint64_t world_hot_cold(struct world *w, unsigned vcpu, bool *write)
{
	uint64_t r = world_random(w);
	unsigned n = w->machine.nr_places, at = vcpu * n / w->machine.nr_vcpus;

	*write = r % 3 == 0;
	if ((r >> 8) % 10)
		return world_block(w, (at + 1) % n) + vcpu * SET % (WORLD_FRAMES / n) + (r >> 16) % SET;
	return world_block(w, at) + (r >> 16) % (WORLD_FRAMES / n);
}

uint64_t world_private(struct world *w, unsigned vcpu, bool *write)
{
	uint64_t r = world_random(w);
	unsigned n = w->machine.nr_places, at = vcpu * n / w->machine.nr_vcpus;

	*write = r % 3 == 0;
	return world_block(w, at) + SET + (r >> 16) % (WORLD_FRAMES / n - SET);
}

uint64_t world_read_shared(struct world *w, unsigned vcpu, bool *write)
{
	return (world_random(w) >> 16) % (2 * SET);
}

uint64_t world_write_shared(struct world *w, unsigned vcpu, bool *write)
{
	uint64_t r = world_random(w);

	*write = r & 1;
	return (r >> 16) % (2 * SET);
}

uint64_t world_uniform(struct world *w, unsigned vcpu, bool *write)
{
	uint64_t r = world_random(w);

	*write = r % 3 == 0;
	return (r >> 16) % WORLD_FRAMES;
}

uint64_t world_phases(struct world *w, unsigned vcpu, bool *write)
{
	unsigned vcpus = w->machine.nr_vcpus;

	return world_hot_cold(w, w->round < 200 ? vcpu : (vcpu + vcpus / w->machine.nr_places) % vcpus, write);
}

uint64_t world_ping_pong(struct world *w, unsigned vcpu, bool *write)
{
	unsigned turn = w->round / 25 % w->machine.nr_places;

	if (w->vcpu_at[vcpu] != turn)
		return world_private(w, vcpu, write);
	return world_write_shared(w, vcpu, write) % SET;
}

uint64_t world_written_sometimes(struct world *w, unsigned vcpu, bool *write)
{
	/* A vCPU makes about 1000 steps in a round. */
	*write = !(world_random(w) % (50 * 1000 * w->machine.nr_vcpus / (2 * SET)));
	return world_read_shared(w, vcpu, write);
}

/* ---- set-up ------------------------------------------------------------------------------------------------------ */

unsigned world_block(const struct world *w, unsigned place)
{
	return place * (WORLD_FRAMES / w->machine.nr_places);
}

static struct numa_config parsed(const char *policy)
{
	struct numa_config config = { .preferred = -1 };
	char why[160];

	if (numa_policy_parse(policy, &config, why, sizeof why))
		fail_msg("%s", why);
	config.value[NUMA_WEIGHT] = WORLD_ACCESSES;
	return config;
}

void world_start(struct world *w, unsigned places, unsigned vcpus, const char *policy, world_pattern *pattern)
{
	struct numa_config config = parsed(policy);

	memset(w, 0, sizeof *w);
	w->machine = (struct numa_machine){ .ops = &ops, .arg = w, .nr_gfns = WORLD_FRAMES, .nr_places = places, .nr_vcpus = vcpus };
	for (unsigned i = 0; i < places; i++) {
		w->machine.cpus[i] = vcpus / places ? vcpus / places : 1;
		w->machine.bytes[i] = 1ull << 30;
		w->free_bytes[i] = 1ull << 29;
		w->room[i] = ~0ull;
		for (unsigned k = 0; k < places; k++) {
			unsigned hops = i > k ? i - k : k - i;

			w->machine.distance[i][k] = 10 + 10 * (hops < places - hops ? hops : places - hops);
		}
	}
	for (unsigned g = 0; g < WORLD_FRAMES; g++)
		w->frames[g].node = w->frames[g].home = g / (WORLD_FRAMES / places);
	for (unsigned v = 0; v < vcpus; v++)
		w->vcpu_at[v] = v * places / vcpus;
	w->pattern = pattern;
	w->random = 1;
	w->now_ns = 1;
	w->fault_ns = 2000;
	w->move_ns = 5000;
	w->watch_ns = 500;
	assert_int_equal(numa_manager_create(&config, &w->machine, &w->m), 0);
}

void world_set_policy(struct world *w, const char *policy)
{
	struct numa_config config = parsed(policy);

	assert_int_equal(numa_manager_set_policy(w->m, &config), 0);
}

void world_end(struct world *w)
{
	numa_manager_destroy(w->m);
}

void world_clear(struct world *w)
{
	w->steps = w->local = w->distance = 0;
}

double world_local(const struct world *w)
{
	return w->steps ? 100.0 * w->local / w->steps : 0;
}

double world_distance(const struct world *w)
{
	return w->steps ? (double)w->distance / w->steps : 0;
}
