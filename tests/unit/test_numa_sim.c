/*
 * test_numa_sim.c - what the policies make of guests that use their memory in known ways, on a simulated machine: where accesses
 * go before and after, what is left alone, what it costs. Everything is deterministic.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/numa_world.h"

#define SLOW_NS	100000u		/* a fault on a host that is a guest itself */

static struct world w;

static struct numa_stats stats(void)
{
	struct numa_stats s;

	numa_manager_stats(w.m, &s);
	return s;
}

static unsigned most_moves(void)
{
	unsigned most = 0;

	for (unsigned g = 0; g < WORLD_FRAMES; g++)
		if (w.frames[g].moves > most)
			most = w.frames[g].moves;
	return most;
}

static void slow_host(void)
{
	w.fault_ns = SLOW_NS;
	w.move_ns = 2 * SLOW_NS;
}

/* Steps that a guest gets done in so many rounds. */
static uint64_t work_done(unsigned places, const char *policy, world_pattern *pattern, unsigned rounds, bool slow)
{
	uint64_t steps;

	world_start(&w, places, 4, policy, pattern);
	if (slow)
		slow_host();
	world_run(&w, rounds);
	steps = w.steps;
	if (!strcmp(policy, "off"))
		world_end(&w);
	return steps;
}

/* Local share of accesses in the last 20 of so many rounds. */
static double local_after(unsigned rounds)
{
	world_run(&w, rounds - 20);
	world_clear(&w);
	world_run(&w, 20);
	return world_local(&w);
}

static void hot_pages_follow_the_node_that_uses_them(void **state)
{
	static const unsigned places[] = { 2, 4 };

	for (unsigned i = 0; i < 2; i++) {
		world_start(&w, places[i], 4, "off", world_hot_cold);
		world_run(&w, 10);
		assert_in_range(world_local(&w), 5, 15);
		world_set_policy(&w, "migrate");
		assert_in_range(local_after(300), 92, 100);
		assert_in_range(stats().migrated, 930, 1100);
		assert_int_equal(stats().replicated, 0);
		assert_in_range(most_moves(), 1, 3);
		assert_true(stats().paid > 10 && stats().paid > 20 * stats().unpaid);
		world_end(&w);
	}
}

static void they_do_so_on_a_slow_host_too(void **state)
{
	uint64_t base = work_done(2, "off", world_hot_cold, 400, true);

	assert_true(work_done(2, "auto", world_hot_cold, 400, true) > base * 14 / 10);
	assert_in_range(local_after(20), 90, 100);
	world_end(&w);
}

static void pages_that_are_only_read_get_copies(void **state)
{
	world_start(&w, 4, 4, "off", world_read_shared);
	world_run(&w, 10);
	assert_in_range(world_local(&w), 20, 60);
	world_set_policy(&w, "replicate");
	world_run(&w, 150);
	world_clear(&w);
	world_run(&w, 20);
	assert_true(world_local(&w) > 99.9);
	assert_int_equal(stats().copies, 512);
	assert_int_equal(stats().collapsed, 0);
	assert_int_equal(stats().migrated, 0);
	for (unsigned g = 0; g < 512; g++)
		assert_int_equal(w.frames[g].copies, 0xf);
	world_end(&w);
}

/* The most that any policy may do to pages that several nodes write is nothing. */
static void pages_that_several_nodes_write_stay(void **state)
{
	static const char *const policies[] = { "migrate", "replicate", "balance", "auto" };
	uint64_t base = work_done(2, "off", world_write_shared, 300, true);

	for (unsigned i = 0; i < 4; i++) {
		uint64_t steps = work_done(2, policies[i], world_write_shared, 300, true);

		assert_int_equal(w.moved, 0);
		assert_true(steps > base * 99 / 100);
		assert_true(stats().samples > 100);
		world_end(&w);
	}
}

static void what_is_local_stays(void **state)
{
	uint64_t base = work_done(2, "off", world_private, 300, true);

	assert_true(work_done(2, "auto", world_private, 300, true) > base * 99 / 100);
	assert_int_equal(w.moved, 0);
	world_end(&w);
}

/* A write in 50 rounds: copies pay for a while, then less and less often, because each write doubles the wait. */
static void copies_end_with_a_write(void **state)
{
	uint64_t base = work_done(2, "off", world_written_sometimes, 400, false), then;

	assert_true(work_done(2, "replicate", world_written_sometimes, 400, false) > base * 102 / 100);
	assert_true(stats().collapsed > 500);
	for (unsigned g = 0; g < WORLD_FRAMES; g++)
		assert_true(!w.frames[g].copies || !w.frames[g].writable);
	then = stats().replicated;
	world_run(&w, 400);
	assert_true(stats().replicated - then < then * 3 / 4);
	world_end(&w);
}

static void phases_are_followed(void **state)
{
	world_start(&w, 2, 4, "auto", world_phases);
	assert_in_range(local_after(200), 95, 100);
	world_clear(&w);
	world_run(&w, 5);
	assert_in_range(world_local(&w), 0, 20);
	assert_in_range(local_after(400), 80, 100);	/* the pages used now and then are still remote */
	assert_true(most_moves() <= 4);
	world_end(&w);
}

static void ping_pong_is_bounded(void **state)
{
	uint64_t base = work_done(2, "off", world_ping_pong, 300, false);

	/* 300 rounds are one freeze=, 12 turns. */
	assert_true(work_done(2, "migrate,max-moves=3", world_ping_pong, 300, false) > base * 95 / 100);
	assert_in_range(most_moves(), 1, 3);
	world_end(&w);
}

/* Watching and moving cost no more than harm= of the guest's time, whatever the guest does; measured as what the manager
 * owns up to, and as work not done. */
static void harm_is_limited(void **state)
{
	static world_pattern *const patterns[] = { world_uniform, world_write_shared, world_private, world_written_sometimes, world_hot_cold };
	static const unsigned limits[] = { 1, 4 };

	for (unsigned p = 0; p < 5; p++) {
		uint64_t base = work_done(4, "off", patterns[p], 300, true);

		for (unsigned i = 0; i < 2; i++) {
			char policy[32];
			uint64_t steps;

			snprintf(policy, sizeof policy, "auto,harm=%u", limits[i]);
			steps = work_done(4, policy, patterns[p], 300, true);
			assert_true(stats().guest_ns >= 300ull * 3 * 100000000);
			assert_true(stats().cost_ns * 100 <= stats().guest_ns * limits[i] * 11 / 10);
			assert_true(steps >= base * (100 - limits[i]) / 100);
			world_end(&w);
		}
	}
}

/* The same where far memory is as fast as near memory, so that nothing is ever gained, and each kick costs 200 us a vCPU. */
static void harm_is_limited_where_there_is_no_gain(void **state)
{
	static world_pattern *const patterns[] = { world_written_sometimes, world_read_shared, world_hot_cold };

	for (unsigned p = 0; p < 3; p++) {
		uint64_t steps[2];

		for (unsigned i = 0; i < 2; i++) {
			world_start(&w, 2, 4, i ? "auto" : "off", patterns[p]);
			slow_host();
			w.uniform = true;
			w.kick_ns = 200000;
			world_run(&w, 300);
			steps[i] = w.steps;
			if (i)
				assert_true(stats().cost_ns * 100 <= stats().guest_ns * 9 / 2);
			world_end(&w);
		}
		print_message("no gain: %.2f %% less work\n", 100 - 100.0 * steps[1] / steps[0]);
		assert_true(steps[1] * 100 >= steps[0] * 955 / 10);
	}
}

/* Writes that come to any page: what one page has to learn its neighbours need not. */
static void copies_that_end_early_are_not_made_again(void **state)
{
	uint64_t first;

	world_start(&w, 2, 4, "auto", world_written_sometimes);
	world_run(&w, 300);
	first = stats().replicated;
	assert_in_range(first, 100, 1100);
	world_run(&w, 300);
	assert_true(stats().replicated - first < first / 2);
	world_end(&w);
}

static void an_idle_guest_is_left_alone(void **state)
{
	world_start(&w, 2, 4, "auto", world_hot_cold);
	for (unsigned v = 0; v < 4; v++)
		w.vcpu_idle[v] = true;
	world_run(&w, 100);
	assert_int_equal(w.watched + w.moved, 0);
	world_end(&w);
}

/* Each page is used from wherever it is not. */
static uint64_t adversary(struct world *world, unsigned vcpu, bool *write)
{
	for (unsigned i = 0; i < 64; i++) {
		uint64_t gfn = world_random(world) % 512;

		if (world->frames[gfn].node != world->vcpu_at[vcpu])
			return gfn;
	}
	return world_private(world, vcpu, write);
}

static void what_does_not_pay_is_undone_and_then_it_rests(void **state)
{
	struct numa_decision log[64];
	unsigned n, rests = 0;
	uint64_t moved;

	world_start(&w, 2, 4, "auto", adversary);
	slow_host();
	world_run(&w, 300);
	assert_true(stats().undone > 0);
	assert_int_equal(stats().undone, stats().unpaid);
	assert_true(stats().rests > 0);
	n = numa_manager_log(w.m, log, 64);
	for (unsigned i = 0; i < n; i++)
		rests += log[i].act == NUMA_DID_REST;
	assert_true(rests > 0);
	/* It gives up on the whole, too. */
	moved = w.moved;
	world_run(&w, 300);
	assert_true(w.moved - moved < moved * 5 / 4);
	world_end(&w);

	world_start(&w, 2, 4, "auto,undo=0", adversary);
	world_run(&w, 300);
	assert_true(stats().unpaid > 0);
	assert_int_equal(stats().undone + stats().rests, 0);
	world_end(&w);
}

static void a_full_node_takes_no_more(void **state)
{
	unsigned there = 0;

	world_start(&w, 2, 4, "migrate", world_hot_cold);
	w.room[0] = 100;
	world_run(&w, 150);
	assert_int_equal(w.room[0], 0);
	/* The batch that found it full, then one frame at a time, less and less often. */
	assert_in_range(stats().no_room, 1, 64 + 4);
	assert_int_equal(stats().no_room, w.refused);
	for (unsigned g = world_block(&w, 1); g < WORLD_FRAMES; g++)
		there += w.frames[g].node == 0;
	assert_int_equal(there, 100);
	w.room[0] = ~0ull;
	assert_in_range(local_after(400), 95, 100);
	world_end(&w);
}

static void random_asks_a_full_node_seldom(void **state)
{
	world_start(&w, 2, 4, "random", world_uniform);
	w.room[0] = w.room[1] = 0;
	world_run(&w, 200);
	assert_in_range(stats().no_room, 1, 2 * (32 + 6));
	w.room[0] = w.room[1] = ~0ull;
	world_run(&w, 400);
	assert_true(stats().migrated > 1000);
	world_end(&w);
}

static void a_busy_frame_is_tried_later_and_less_often(void **state)
{
	uint64_t first, later;

	world_start(&w, 2, 4, "migrate", world_hot_cold);
	w.refuse = -EBUSY;
	world_run(&w, 100);
	first = stats().busy;
	assert_true(first > 100);
	assert_int_equal(stats().migrated, 0);
	world_run(&w, 100);
	later = stats().busy - first;
	assert_true(later < first);
	w.refuse = 0;
	assert_in_range(local_after(400), 95, 100);
	world_end(&w);
}

static void a_frame_that_cannot_be_moved_is_left_alone(void **state)
{
	world_start(&w, 2, 4, "migrate", world_hot_cold);
	w.refuse = -EINVAL;
	world_run(&w, 250);
	assert_in_range(stats().failed, 100, 1100);
	assert_int_equal(stats().away, 0);
	world_end(&w);
}

static unsigned away(void)
{
	unsigned n = 0;

	for (unsigned g = 0; g < WORLD_FRAMES; g++)
		n += w.frames[g].node != w.frames[g].home || w.frames[g].copies;
	return n;
}

static void off_brings_everything_home(void **state)
{
	unsigned pinned = 0;

	world_start(&w, 2, 4, "auto", world_hot_cold);
	world_run(&w, 150);
	assert_true(away() > 900);
	assert_true(stats().away >= away());
	while (w.frames[pinned].node == w.frames[pinned].home)
		pinned++;
	w.frames[pinned].pinned = true;
	world_set_policy(&w, "off");
	world_run(&w, 20);
	assert_int_equal(away(), 1);
	assert_int_equal(stats().away, 1);
	w.frames[pinned].pinned = false;
	world_run(&w, 5);
	assert_int_equal(away(), 0);
	assert_int_equal(stats().away, 0);
	world_clear(&w);
	w.watched = 0;
	world_run(&w, 20);
	assert_in_range(world_local(&w), 5, 15);
	assert_int_equal(w.watched, 0);
	world_set_policy(&w, "migrate");
	assert_in_range(local_after(400), 90, 100);
	world_end(&w);
}

static void vcpus_leave_a_crowded_node_and_their_pages_follow(void **state)
{
	unsigned at[2] = { 0, 0 };

	world_start(&w, 2, 4, "balance", world_hot_cold);
	for (unsigned v = 0; v < 4; v++)
		w.vcpu_at[v] = 0;
	world_run(&w, 200);
	for (unsigned v = 0; v < 4; v++)
		at[w.vcpu_at[v]]++;
	assert_int_equal(at[0], 2);
	assert_int_equal(at[1], 2);
	assert_int_equal(w.vcpu_moves, 2);
	assert_in_range(local_after(200), 90, 100);
	world_set_policy(&w, "off");		/* home is where they were when the manager came */
	world_run(&w, 20);
	for (unsigned v = 0; v < 4; v++)
		assert_int_equal(w.vcpu_at[v], v / 2);
	world_end(&w);
}

static void vcpus_stay_where_there_is_a_processor_for_each(void **state)
{
	world_start(&w, 2, 4, "auto", world_private);
	world_run(&w, 100);
	assert_int_equal(w.vcpu_moves, 0);
	world_end(&w);
}

static void a_vcpu_that_somebody_moved_is_followed(void **state)
{
	world_start(&w, 2, 2, "auto", world_private);
	world_run(&w, 60);
	assert_int_equal(w.moved, 0);
	assert_int_equal(numa_manager_move_vcpu(w.m, 0, 1), 0);
	assert_int_equal(numa_manager_move_vcpu(w.m, 1, 0), 0);
	assert_int_equal(numa_manager_move_vcpu(w.m, 2, 0), -EINVAL);
	assert_int_equal(numa_manager_move_vcpu(w.m, 0, 2), -EINVAL);
	world_run(&w, 5);
	world_clear(&w);
	world_run(&w, 5);
	assert_in_range(world_local(&w), 0, 30);
	world_run(&w, 2000);		/* 8000 pages, each used by one vCPU every eight rounds */
	world_clear(&w);
	world_run(&w, 20);
	assert_in_range(world_local(&w), 80, 100);
	world_end(&w);
}

/* Half of node 0 is used. */
static uint64_t half(struct world *world, unsigned vcpu, bool *write)
{
	return world_random(world) % (WORLD_FRAMES / 4);
}

static void cold_pages_leave_a_node_without_memory(void **state)
{
	unsigned hot = 0, cold = 0;

	world_start(&w, 2, 2, "balance", half);
	w.vcpu_idle[1] = true;		/* the one that would use it from elsewhere */
	world_run(&w, 20);
	assert_int_equal(w.moved, 0);
	w.free_bytes[0] = 1 << 20;
	world_run(&w, 400);
	for (unsigned g = 0; g < WORLD_FRAMES / 2; g++)
		*(g < WORLD_FRAMES / 4 ? &hot : &cold) += w.frames[g].node == 1;
	assert_true(cold > 200);
	assert_true(hot < cold / 10);
	w.free_bytes[0] = 1 << 29;
	w.moved = 0;
	world_run(&w, 100);
	assert_int_equal(w.moved, 0);
	world_end(&w);
}

static void random_does_everything_and_the_same_again(void **state)
{
	uint64_t counts[2][4];

	for (unsigned i = 0; i < 2; i++) {
		world_start(&w, 4, 4, "random,seed=7,rate=3000,vcpus=1", world_write_shared);
		world_run(&w, 50);
		assert_in_range(w.moved, 10000, 16000);
		assert_true(w.vcpu_moves > 0 && w.watched > 0);
		counts[i][0] = stats().migrated;
		counts[i][1] = stats().replicated;
		counts[i][2] = stats().collapsed;
		counts[i][3] = stats().homed;
		for (unsigned k = 0; k < 4; k++)
			assert_true(counts[i][k] > 100);
		world_set_policy(&w, "off");
		world_run(&w, 50);
		assert_int_equal(away(), 0);
		world_end(&w);
	}
	assert_memory_equal(counts[0], counts[1], sizeof counts[0]);
}

/* The table of docs/numa.md; what auto costs where there is nothing to gain, and at most where it follows what flees. */
static void the_table_of_the_documents(void **state)
{
	static const struct {
		const char *name;
		world_pattern *pattern;
		unsigned least;			/* percent of the work done without */
	} rows[] = {
		{ "hot/cold", world_hot_cold, 140 }, { "read-shared", world_read_shared, 115 },
		{ "... written now and then", world_written_sometimes, 97 }, { "phases", world_phases, 85 },
		{ "write-shared", world_write_shared, 99 }, { "private", world_private, 99 }, { "uniform", world_uniform, 96 },
		{ "ping-pong", world_ping_pong, 94 },
	};

	print_message("table: %-26s %-9s %6s %6s %8s %7s %7s\n", "", "fault", "before", "after", "work", "cost", "moves");
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		for (unsigned slow = 0; slow < 2; slow++) {
			uint64_t base = work_done(2, "off", rows[i].pattern, 400, slow), steps;
			double before = world_local(&w);

			steps = work_done(2, "auto", rows[i].pattern, 400, slow);
			print_message("table: %-26s %6u us %5.0f %% %5.0f %% %+6.1f %% %5.2f %% %7u\n", rows[i].name, slow ? 100 : 2, before,
				      local_after(20), 100.0 * steps / base - 100, 100.0 * stats().cost_ns / stats().guest_ns,
				      (unsigned)w.moved);
			assert_true(steps * 100 >= base * rows[i].least);
			world_end(&w);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hot_pages_follow_the_node_that_uses_them),
		cmocka_unit_test(they_do_so_on_a_slow_host_too),
		cmocka_unit_test(pages_that_are_only_read_get_copies),
		cmocka_unit_test(pages_that_several_nodes_write_stay),
		cmocka_unit_test(what_is_local_stays),
		cmocka_unit_test(copies_end_with_a_write),
		cmocka_unit_test(phases_are_followed),
		cmocka_unit_test(ping_pong_is_bounded),
		cmocka_unit_test(harm_is_limited),
		cmocka_unit_test(harm_is_limited_where_there_is_no_gain),
		cmocka_unit_test(copies_that_end_early_are_not_made_again),
		cmocka_unit_test(an_idle_guest_is_left_alone),
		cmocka_unit_test(what_does_not_pay_is_undone_and_then_it_rests),
		cmocka_unit_test(a_full_node_takes_no_more),
		cmocka_unit_test(random_asks_a_full_node_seldom),
		cmocka_unit_test(a_busy_frame_is_tried_later_and_less_often),
		cmocka_unit_test(a_frame_that_cannot_be_moved_is_left_alone),
		cmocka_unit_test(off_brings_everything_home),
		cmocka_unit_test(vcpus_leave_a_crowded_node_and_their_pages_follow),
		cmocka_unit_test(vcpus_stay_where_there_is_a_processor_for_each),
		cmocka_unit_test(a_vcpu_that_somebody_moved_is_followed),
		cmocka_unit_test(cold_pages_leave_a_node_without_memory),
		cmocka_unit_test(random_does_everything_and_the_same_again),
		cmocka_unit_test(the_table_of_the_documents),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
