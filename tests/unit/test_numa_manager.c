/*
 * test_numa_manager.c - the manager itself: parameters, hosts, log, moves by hand, its thread beside threads that note.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/numa_world.h"

static struct world w;
static const uint8_t place[NUMA_MAX_PLACES] = { 0, 3, 5, 7, 8, 9, 10, 11 };

static void parameters_are_parsed_and_told(void **state)
{
	static const char *const bad[] = { "", ",", "mig", "migrate,", "migrate,hot", "migrate,hot=", "migrate,hot=0", "migrate,hot=x",
					   "migrate,hot=-1", "migrate,hot=201", "migrate,quiet=3", "migrate,seed=1", "off,hot=3", "local,hot=3",
					   "random,harm=3", "migrate,interval=99999999999999999999", "migrate,hot= 3" };
	struct numa_config c = { .preferred = -1, .membind = 5 }, back = { .preferred = -1 };
	char text[NUMA_POLICY_TEXT], again[NUMA_POLICY_TEXT], why[160];

	assert_int_equal(numa_policy_parse("auto,interval=50,hot=7,quiet=9", &c, why, sizeof why), 0);
	assert_string_equal(numa_policy_name(c.policy), "auto");
	assert_true(numa_policy_moves(c.policy));
	assert_int_equal(c.value[NUMA_INTERVAL], 50);
	assert_int_equal(c.value[NUMA_HOT], 7);
	assert_int_equal(c.value[NUMA_QUIET], 9);
	assert_int_equal(c.value[NUMA_HARM], 4);
	assert_int_equal(c.membind, 5);
	numa_policy_text(&c, text);
	assert_non_null(strstr(text, "auto,interval=50,"));
	assert_null(strstr(text, "seed="));
	assert_int_equal(numa_policy_parse(text, &back, why, sizeof why), 0);
	assert_string_equal(numa_policy_text(&back, again), text);
	assert_non_null(numa_policy_param(&c, NUMA_UNDO));
	assert_null(numa_policy_param(&c, NUMA_SEED));

	assert_int_equal(numa_policy_parse("off", &c, why, sizeof why), 0);
	assert_null(c.policy);
	assert_false(numa_policy_moves(c.policy));
	assert_string_equal(numa_policy_text(&c, text), "off");
	assert_int_equal(numa_policy_parse("interleave", &c, why, sizeof why), 0);
	assert_false(numa_policy_moves(c.policy));
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct numa_config was = c;

		why[0] = '\0';
		if (i != 3 && numa_policy_parse(bad[i], &c, why, sizeof why) != -EINVAL)
			fail_msg("'%s' is taken for a policy", bad[i]);
		assert_true(i == 3 || *why);
		assert_memory_equal(&was, &c, sizeof c);
	}
}

static void made_up_hosts(void **state)
{
	struct numa_config config = { .preferred = -1 };
	struct numa_topology t;
	struct numa_machine machine = { .nr_places = 4 };
	uint8_t places[NUMA_MAX_PLACES];
	unsigned cpus = 0;
	cpu_set_t all;

	for (unsigned n = 2; n <= NUMA_MAX_PLACES; n++) {
		assert_int_equal(numa_topology_read(&t), 0);
		assert_false(t.fake);
		assert_int_equal(numa_topology_fake(&t, n), 0);
		assert_true(t.fake);
		assert_int_equal(t.nr_nodes, n);
		assert_int_equal(numa_places(&config, &t, places), n);
		for (unsigned i = 0; i < n; i++) {
			assert_true(t.node[i].nr_cpus > 0);
			assert_int_equal(t.node[i].distance[i], 10);
			for (unsigned k = 0; k < n; k++) {
				assert_int_equal(t.node[i].distance[k], t.node[k].distance[i]);
				assert_true(i == k || t.node[i].distance[k] > 10);
			}
		}
		/* Placed by nobody: there are no such nodes. */
		assert_int_equal(numa_policy_parse("interleave", &config, (char [80]){ "" }, 80), 0);
		assert_int_equal(numa_place(&config, &t, (void *)4096, 4096, false), 0);
		config.policy = NULL;
	}
	assert_int_equal(numa_topology_fake(&t, 1), -EINVAL);
	assert_int_equal(numa_topology_fake(&t, NUMA_MAX_PLACES + 1), -EINVAL);

	/* Six processors, four nodes: each has one or two, and no two share one. */
	memset(&t, 0, sizeof t);
	CPU_ZERO(&all);
	for (unsigned i = 0; i < 6; i++)
		CPU_SET(2 * i, &t.node[i / 3].cpus);
	t.node[0].bytes = 8 << 20;
	assert_int_equal(numa_topology_fake(&t, 4), 0);
	for (unsigned i = 0; i < 4; i++) {
		assert_in_range(t.node[i].nr_cpus, 1, 2);
		cpus += t.node[i].nr_cpus;
		CPU_OR(&all, &all, &t.node[i].cpus);
	}
	assert_int_equal(cpus, 6);
	assert_int_equal(CPU_COUNT(&all), 6);

	config.membind = 0x5;
	assert_int_equal(numa_places(&config, &t, places), 2);
	assert_int_equal(places[0], 0);
	assert_int_equal(places[1], 2);
	machine.nr_places = 2;
	numa_machine_describe(&machine, &t, places);
	assert_int_equal(machine.distance[0][1], 30);
	assert_int_equal(machine.bytes[1], 2 << 20);
	assert_int_equal(machine.cpus[1], t.node[2].nr_cpus);
}

static void a_machine_has_to_make_sense(void **state)
{
	static const unsigned bad[][2] = { { 0, 1 }, { NUMA_MAX_PLACES + 1, 1 }, { 2, 0 }, { 2, NUMA_MAX_VCPUS + 1 } };
	struct numa_config config = { .preferred = -1 };
	struct numa_manager *m;

	world_start(&w, 2, 2, "off", world_private);
	for (unsigned i = 0; i < 4; i++) {
		struct numa_machine machine = w.machine;

		machine.nr_places = bad[i][0];
		machine.nr_vcpus = bad[i][1];
		assert_int_equal(numa_manager_create(&config, &machine, &m), -EINVAL);
	}
	world_end(&w);
}

static void moves_by_hand_are_booked_and_left_alone(void **state)
{
	struct numa_move moves[100];
	struct numa_decision log[8];
	struct numa_stats s;
	unsigned n;

	world_start(&w, 2, 4, "auto", world_private);
	world_run(&w, 5);
	for (unsigned i = 0; i < 100; i++)
		moves[i] = (struct numa_move){ .gfn = 300 + i, .kind = NUMA_MIGRATE, .node = 1 };
	w.frames[310].pinned = true;
	numa_manager_move(w.m, moves, 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(moves[i].result, i == 10 ? -EBUSY : 0);
	numa_manager_stats(w.m, &s);
	assert_int_equal(s.migrated, 99);
	assert_int_equal(s.away, 99);
	n = numa_manager_log(w.m, log, 8);
	assert_int_equal(n, 4);			/* batches of 32 */
	assert_int_equal(log[0].reason, NUMA_WHY_USER);
	assert_int_equal(log[0].frames, 32);
	assert_int_equal(log[0].done, 31);
	assert_int_equal(log[0].error, -EBUSY);
	assert_int_equal(log[0].first, 300);
	assert_int_equal(log[0].last, 331);
	assert_int_equal(log[3].frames, 4);
	world_run(&w, 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(w.frames[300 + i].node, i != 10);
	moves[0] = (struct numa_move){ .gfn = 300, .kind = NUMA_HOME };
	numa_manager_move(w.m, moves, 1);
	assert_int_equal(w.frames[300].node, 0);
	world_end(&w);
}

/* A policy that only places has no books, and moves by hand work all the same. */
static void moves_by_hand_need_no_policy(void **state)
{
	struct numa_move move = { .gfn = 7, .kind = NUMA_MIGRATE, .node = 1 };

	world_start(&w, 2, 2, "local", world_private);
	numa_note(w.m, 0, 7, 0, true, false);
	numa_note_collapsed(w.m, 7);
	numa_manager_move(w.m, &move, 1);
	assert_int_equal(move.result, 0);
	assert_int_equal(w.frames[7].node, 1);
	numa_manager_forget(w.m);
	world_end(&w);
}

static void forgets_when_the_guest_starts_again(void **state)
{
	struct numa_stats s;

	world_start(&w, 2, 4, "migrate", world_hot_cold);
	world_run(&w, 100);
	numa_manager_stats(w.m, &s);
	assert_true(s.away > 100);
	for (unsigned g = 0; g < WORLD_FRAMES; g++)
		w.frames[g].node = w.frames[g].home;
	numa_manager_forget(w.m);
	numa_manager_stats(w.m, &s);
	assert_int_equal(s.away, 0);
	world_run(&w, 300);
	world_clear(&w);
	world_run(&w, 20);
	assert_in_range(world_local(&w), 90, 100);
	world_end(&w);
}

static void notes_out_of_range_are_ignored(void **state)
{
	uint64_t local, remote;
	struct numa_stats s;

	world_start(&w, 2, 2, "migrate", world_private);
	numa_note(w.m, 0, WORLD_FRAMES, 0, true, true);
	numa_note(w.m, 0, ~0ull, 0, true, true);
	numa_note(w.m, 0, 0, 2, true, true);
	numa_note(w.m, 2, 0, 0, true, true);
	numa_note_collapsed(w.m, WORLD_FRAMES);
	numa_manager_tick(w.m);
	numa_manager_stats(w.m, &s);
	assert_int_equal(s.samples, 0);
	numa_note(w.m, 1, 5, 1, true, true);
	numa_note(w.m, 1, 5, 1, false, true);
	numa_manager_tick(w.m);
	numa_note(w.m, 1, 5, 1, false, true);
	numa_note(w.m, 0, 5, 0, false, true);
	numa_manager_tick(w.m);
	numa_manager_stats(w.m, &s);
	assert_int_equal(s.samples, 2);			/* one of each node, until it is watched again */
	assert_int_equal(s.samples_remote, 1);
	assert_int_equal(s.samples_local, 1);
	assert_int_equal(s.samples_distance, 30);
	assert_int_equal(s.caused, 4);
	numa_manager_vcpu(w.m, 1, &local, &remote);
	assert_int_equal(local, 0);
	assert_int_equal(remote, 1);		/* where it stood was not known at first */
	numa_manager_vcpu(w.m, 2, &local, &remote);
	assert_int_equal(local + remote, 0);
	world_end(&w);
}

static void decisions_in_words(void **state)
{
	struct numa_decision d = {
		.time_ns = 1500000000, .act = NUMA_DID_MIGRATE, .reason = NUMA_WHY_HOT, .first = 0x100, .last = 0x1ff, .frames = 12, .from = 0,
		.to = 1, .samples = { 2, 40 }, .uses = { 10, 1200.4 }, .gain_ns = 2500000, .cost_ns = 90000, .done = 11, .error = -EBUSY, .outcome = NUMA_PAID,
		.before = { 42, 820 }, .after = { 20, 200 }, .writers = 2,
	};
	char text[400], small[20];

	numa_decision_text(&d, place, text, sizeof text);
	assert_string_equal(text, "1.500 s: migrate 12 frames of 0x100..0x1ff from node 0 to node 3: used mostly from there; samples "
			    "2 from node 0 (10 uses/s), 40 from node 3 (1200 uses/s); written from 3; expected +2.500 ms; cost 0.090 ms; 11 of 12 done: "
			    "Device or resource busy; paid: distance 19.5 before, 10.0 after");
	numa_decision_text(&d, place, small, sizeof small);
	assert_int_equal(strlen(small), sizeof small - 1);

	d = (struct numa_decision){ .act = NUMA_DID_REPLICATE, .reason = NUMA_WHY_READ_SHARED, .first = 9, .last = 9, .frames = 1, .done = 1,
				    .from = 1, .to = NUMA_NOWHERE, .mask = 7, .outcome = NUMA_PENDING };
	numa_decision_text(&d, place, text, sizeof text);
	assert_string_equal(text, "0.000 s: replicate frame 0x9 from node 3 to nodes 0,3,5: read from several nodes, written by none; cost "
			    "0.000 ms; pending");
	d = (struct numa_decision){ .act = NUMA_DID_MOVE_VCPU, .reason = NUMA_WHY_CPU_LOAD, .first = 2, .last = 2, .frames = 1, .done = 1,
				    .from = 0, .to = 2 };
	numa_decision_text(&d, place, text, sizeof text);
	assert_string_equal(text, "0.000 s: vcpu 2 from node 0 to node 5: processors there are less busy; cost 0.000 ms");
	d = (struct numa_decision){ .act = NUMA_DID_REST, .reason = NUMA_WHY_HARM, .from = NUMA_NOWHERE, .to = NUMA_NOWHERE,
				    .gain_ns = -1000000 };
	numa_decision_text(&d, place, text, sizeof text);
	assert_string_equal(text, "0.000 s: rest: moves cost more than they gained; expected -1.000 ms");
}

static void the_log_keeps_the_last(void **state)
{
	static struct numa_decision log[NUMA_LOG_KEPT + 1];

	world_start(&w, 2, 2, "migrate", world_private);
	assert_int_equal(numa_manager_log(w.m, log, 10), 0);
	for (unsigned i = 0; i < NUMA_LOG_KEPT + 50; i++) {
		struct numa_move move = { .gfn = i, .kind = NUMA_MIGRATE, .node = 1 };

		numa_manager_move(w.m, &move, 1);
	}
	assert_int_equal(numa_manager_log(w.m, log, NUMA_LOG_KEPT + 1), NUMA_LOG_KEPT);
	assert_int_equal(log[0].id, 51);
	for (unsigned i = 0; i < NUMA_LOG_KEPT; i++)
		assert_int_equal(log[i].first, 50 + i);
	assert_int_equal(numa_manager_log(w.m, log, 2), 2);
	assert_int_equal(log[1].id, NUMA_LOG_KEPT + 50);
	world_end(&w);
}

/* ---- with its thread: vCPUs note, a user asks, policies change --------------------------------------------------- */

static atomic_bool done;
static _Atomic uint64_t clock_ns;

static int quiet_watch(void *arg, const uint64_t *gfns, unsigned n)
{
	return 0;
}

static void quiet_move(void *arg, struct numa_move *moves, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		moves[i].result = moves[i].gfn % 7 ? 0 : -EBUSY;
}

static int quiet_move_vcpu(void *arg, unsigned vcpu, unsigned node)
{
	return 0;
}

static unsigned quiet_vcpu_node(void *arg, unsigned vcpu)
{
	return vcpu & 1;
}

static uint64_t quiet_ns(void *arg)
{
	return atomic_fetch_add(&clock_ns, 1000000);
}

static uint64_t quiet_busy(void *arg, unsigned vcpu)
{
	return quiet_ns(arg);
}

static void quiet_nodes(void *arg, const uint64_t *gfns, unsigned n, uint8_t *nodes)
{
	for (unsigned i = 0; i < n; i++)
		nodes[i] = gfns[i] & 1 ? 0 : gfns[i] % 5 ? 1 : NUMA_NOWHERE;
}

static uint64_t quiet_free(void *arg, unsigned node)
{
	return 1 << 30;
}

static const struct numa_machine_ops quiet_ops = {
	.watch = quiet_watch, .move = quiet_move, .move_vcpu = quiet_move_vcpu, .vcpu_node = quiet_vcpu_node,
	.vcpu_busy_ns = quiet_busy, .frame_nodes = quiet_nodes, .node_free = quiet_free, .now_ns = quiet_ns,
};

struct noter {
	struct numa_manager *m;
	unsigned vcpu;
};

static void *note(void *arg)
{
	struct noter *n = arg;
	uint64_t r = n->vcpu + 1;

	while (!atomic_load(&done)) {
		r = r * 6364136223846793005ull + 1442695040888963407ull;
		numa_note(n->m, n->vcpu, r >> 54, n->vcpu & 1, r >> 20 & 1, r >> 21 & 1);
		if (!(r >> 40 & 63))
			numa_note_collapsed(n->m, r >> 54);
		if (!(r >> 40 & 1023))
			sched_yield();
	}
	return NULL;
}

static void threads_beside_each_other(void **state)
{
	static const char *const policies[] = { "auto,interval=1", "random,interval=1", "off", "replicate,interval=1", "interleave", "balance,interval=1" };
	struct numa_machine machine = { .ops = &quiet_ops, .nr_gfns = 1024, .nr_places = 2, .nr_vcpus = 4, .distance = { { 10, 20 }, { 20, 10 } },
					.cpus = { 2, 2 }, .bytes = { 1 << 30, 1 << 30 } };
	struct numa_config config = { .preferred = -1 };
	static struct numa_decision log[64];
	struct noter noters[4];
	pthread_t threads[4];
	struct numa_manager *m;
	struct numa_stats s;
	char why[160];

	assert_int_equal(numa_manager_create(&config, &machine, &m), 0);
	assert_int_equal(numa_manager_start(m), 0);
	for (unsigned i = 0; i < 4; i++) {
		noters[i] = (struct noter){ m, i };
		assert_int_equal(pthread_create(&threads[i], NULL, note, &noters[i]), 0);
	}
	for (unsigned i = 0; i < 18; i++) {
		struct numa_move move = { .gfn = i, .kind = NUMA_REPLICATE, .mask = 3 };
		struct timespec pause = { .tv_nsec = 10000000 };

		assert_int_equal(numa_policy_parse(policies[i % 6], &config, why, sizeof why), 0);
		assert_int_equal(numa_manager_set_policy(m, &config), 0);
		nanosleep(&pause, NULL);
		numa_manager_move(m, &move, 1);
		assert_int_equal(move.result, i % 7 ? 0 : -EBUSY);
		numa_manager_move_vcpu(m, i & 3, i & 1);
		numa_manager_stats(m, &s);
		numa_manager_log(m, log, 64);
		if (i == 9)
			numa_manager_forget(m);
	}
	atomic_store(&done, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	numa_manager_stop(m);
	numa_manager_stop(m);
	numa_manager_stats(m, &s);
	assert_true(s.rounds > 10 && s.samples > 100);
	assert_int_equal(numa_manager_start(m), 0);	/* and again */
	numa_manager_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parameters_are_parsed_and_told),
		cmocka_unit_test(made_up_hosts),
		cmocka_unit_test(a_machine_has_to_make_sense),
		cmocka_unit_test(moves_by_hand_are_booked_and_left_alone),
		cmocka_unit_test(moves_by_hand_need_no_policy),
		cmocka_unit_test(forgets_when_the_guest_starts_again),
		cmocka_unit_test(notes_out_of_range_are_ignored),
		cmocka_unit_test(decisions_in_words),
		cmocka_unit_test(the_log_keeps_the_last),
		cmocka_unit_test(threads_beside_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
