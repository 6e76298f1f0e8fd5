/* Traces: what is written comes back; what is not whole, damaged or made up is refused without harm. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "helper/trace.h"
#include "helper/trace_format.h"

#define FRAMES	64u
#define CONFIG	"{\"schema\":1}"
#define RESULT	"{\"hidden\":7}"

static uint64_t ram[FRAMES][MMU_ENTRIES];

static const uint64_t *table(void *arg, gfn_t gfn)
{
	return gfn.n < FRAMES ? ram[gfn.n] : NULL;
}

static uint64_t rng = 42;

static uint64_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* Only what its kind has. */
static struct helper_event random_event(uint64_t time_ns, unsigned vcpu)
{
	struct helper_event e = { .time_ns = time_ns, .vcpu = vcpu, .kind = next_random() % HELPER_EVENT_KINDS };

	if (e.kind != HELPER_SWITCH && e.kind != HELPER_SYNC)
		e.table.n = next_random() % (FRAMES + 8);
	if (e.kind == HELPER_UPDATE || e.kind == HELPER_FAULT || e.kind == HELPER_USED)
		e.index = next_random() % MMU_ENTRIES;
	if (e.kind == HELPER_UPDATE)
		e.flags = next_random() & (HELPER_HAS_OLD | HELPER_HAS_NEW);
	if (e.kind == HELPER_PIN)
		e.level = 1 + next_random() % MMU_LEVELS;
	if (e.kind == HELPER_FAULT) {
		e.flags = next_random() & (HELPER_HAS_NEW | HELPER_IS_WRITE);
		e.fault = next_random() % 3;
		e.level = 1 + next_random() % MMU_LEVELS;
		e.va.a = next_random();
	}
	if (e.kind == HELPER_FAULT || e.kind == HELPER_SWITCH) {
		e.mode = next_random() & 1;
		e.root.n = next_random() % FRAMES;
	}
	if (e.kind == HELPER_SWITCH) {
		e.table = e.root;
		e.level = MMU_LEVELS;
	}
	if (e.flags & HELPER_HAS_OLD)
		e.old = next_random();
	if (e.flags & HELPER_HAS_NEW)
		e.new = next_random();
	return e;
}

static int setup(void **state)
{
	char *path = strdup("/tmp/umbra-test-trace.XXXXXX");
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	*state = path;
	for (unsigned i = 0; i < FRAMES; i++)
		for (unsigned k = 0; k < MMU_ENTRIES; k++)
			ram[i][k] = next_random() % 4 ? 0 : next_random();
	return 0;
}

static int teardown(void **state)
{
	unlink(*state);
	free(*state);
	return 0;
}

static struct trace *create(const char *path, unsigned sources, size_t room)
{
	struct trace_config c = { .path = path, .config = CONFIG, .nr_sources = sources, .nr_gfns = FRAMES, .table = table,
				  .room = room };
	struct trace *t;

	assert_int_equal(trace_create(&c, &t), 0);
	return t;
}

static struct trace_log load(const char *path)
{
	struct trace_log log;
	char why[256] = "";
	int r = trace_load(path, &log, why, sizeof why);

	if (r)
		fail_msg("%d: %s", r, why);
	return log;
}

static void test_round_trip(void **state)
{
	enum { N = 5000, SOURCES = 3 };
	struct helper_event *wrote = calloc(N * SOURCES, sizeof *wrote);
	size_t at[SOURCES] = { 0 }, marks = 0, tables = 0;
	struct trace *t = create(*state, SOURCES, 0);
	struct trace_totals totals;
	struct trace_log log;
	uint64_t last = 0;

	for (unsigned i = 0; i < N; i++)
		for (unsigned s = 0; s < SOURCES; s++) {
			wrote[s * N + i] = random_event(i * 1000 + next_random() % 1000, s);
			trace_event(t, s, &wrote[s * N + i]);
			if (!(i % 100)) {
				trace_mark(t, i * 1000, i);
				usleep(1000);	/* the file keeps up */
			}
		}
	assert_int_equal(trace_close(t, RESULT, &totals), 0);
	assert_int_equal(totals.lost, 0);
	log = load(*state);
	assert_string_equal(log.config, CONFIG);
	assert_string_equal(log.result, RESULT);
	assert_int_equal(log.nr_sources, SOURCES);
	assert_int_equal(log.lost, 0);
	assert_int_equal(log.nr_items, totals.records);
	for (size_t i = 0; i < log.nr_items; i++) {
		const struct trace_item *item = &log.items[i];
		unsigned s = item->event.vcpu;

		assert_true(item->event.time_ns >= last);
		last = item->event.time_ns;
		if (item->kind == TRACE_EVENT) {
			assert_true(at[s] < N);
			assert_memory_equal(&item->event, &wrote[s * N + at[s]], sizeof item->event);
			at[s]++;
		} else if (item->kind == TRACE_TABLE) {
			uint64_t content[MMU_ENTRIES] = { 0 };

			for (unsigned k = 0; k < item->count; k++)
				content[log.entries[item->first + k].index] = log.entries[item->first + k].gpte;
			assert_memory_equal(content, ram[item->event.table.n], sizeof content);
			tables++;
		} else {
			assert_int_equal(item->kind, TRACE_MARK);
			assert_int_equal(item->id % 100, 0);
			marks++;
		}
	}
	for (unsigned s = 0; s < SOURCES; s++)
		assert_int_equal(at[s], N);
	assert_int_equal(marks, N / 100 * SOURCES);
	assert_true(tables > N / 10);
	trace_free(&log);
	free(wrote);
}

/* A burst that the file cannot take: what came back and what is said to be lost are all there was. */
static void test_lossy(void **state)
{
	struct trace *t = create(*state, 1, 1);
	struct helper_event e = { .kind = HELPER_UPDATE, .table = { 3 }, .flags = HELPER_HAS_NEW };
	uint64_t last = 0, told = 0, came = 0;
	struct trace_totals totals;
	struct trace_log log;
	enum { N = 200000, AFTER = 100 };

	for (unsigned i = 0; i < N; i++) {
		e.time_ns = i;
		e.new = i;
		trace_event(t, 0, &e);
	}
	/* The file catches up in a while, however busy the machine. */
	for (unsigned i = 0; i < AFTER; i++) {
		usleep(10000);
		e.time_ns = e.new = N + i;
		trace_event(t, 0, &e);
	}
	assert_int_equal(trace_close(t, RESULT, &totals), 0);
	assert_true(totals.lost > 0);
	log = load(*state);
	assert_int_equal(log.lost, totals.lost);
	for (size_t i = 0; i < log.nr_items; i++) {
		if (log.items[i].kind == TRACE_LOST) {
			told += log.items[i].count;
			continue;
		}
		came++;
		assert_int_equal(log.items[i].event.new, log.items[i].event.time_ns);
		assert_true(!i || log.items[i].event.new >= last);
		last = log.items[i].event.new;
	}
	assert_int_equal(last, N + AFTER - 1);
	assert_int_equal(told, totals.lost);
	assert_int_equal(came + told, N + AFTER);
	trace_free(&log);
}

/* ---- files that are not what they should be ------------------------------------------------------------------------------ */

struct file {
	size_t size;
	uint8_t *bytes;
};

static struct file small_file(const char *path)
{
	struct trace *t = create(path, 2, 0);
	struct trace_totals totals;
	struct stat st;
	struct file f;
	FILE *in;

	for (unsigned i = 0; i < 60; i++) {
		struct helper_event e = random_event(i * 1000, i & 1);

		trace_event(t, i & 1, &e);
	}
	trace_mark(t, 5, 5);
	assert_int_equal(trace_close(t, RESULT, &totals), 0);
	assert_int_equal(stat(path, &st), 0);
	f.size = st.st_size;
	f.bytes = malloc(f.size);
	in = fopen(path, "r");
	assert_int_equal(fread(f.bytes, f.size, 1, in), 1);
	fclose(in);
	return f;
}

static int parse(const void *bytes, size_t size)
{
	/* Of its own, so that a sanitizer sees a read behind it. */
	void *copy = malloc(size ? size : 1);
	struct trace_log log;
	char why[256] = "";
	int r;

	memcpy(copy, bytes, size);
	r = trace_parse(copy, size, &log, why, sizeof why);
	free(copy);
	if (r)
		assert_true(why[0]);
	else
		trace_free(&log);
	return r;
}

static void test_truncated(void **state)
{
	struct file f = small_file(*state);

	assert_int_equal(parse(f.bytes, f.size), 0);
	for (size_t n = 0; n < f.size; n++)
		assert_int_equal(parse(f.bytes, n), -EPROTO);
	free(f.bytes);
}

static void test_damaged(void **state)
{
	struct file f = small_file(*state);

	for (size_t at = 0; at < f.size; at++) {
		uint8_t was = f.bytes[at];

		f.bytes[at] ^= 1 << next_random() % 8;
		assert_int_equal(parse(f.bytes, f.size), -EPROTO);
		f.bytes[at] = was;
	}
	free(f.bytes);
}

/* Chunks with good sums and any bytes in them: the reader comes to an end, and takes or refuses them. */
static void test_made_up(void **state)
{
	uint8_t file[4096];
	unsigned taken = 0;

	for (unsigned round = 0; round < 20000; round++) {
		struct trace_header h = { .version = TRACE_VERSION, .nr_sources = 2, .config_bytes = 0 };
		struct trace_chunk c = { .source = next_random() % 3, .bytes = next_random() % 64 };
		struct trace_chunk last = { .source = TRACE_END, .bytes = sizeof(struct trace_end) };
		struct trace_end end = { .records = next_random() % 4 };
		uint8_t payload[64];
		size_t n = 0;

		memcpy(h.magic, TRACE_MAGIC, sizeof h.magic);
		h.config_sum = trace_sum(TRACE_SUM, &h.nr_sources, 4);
		for (unsigned i = 0; i < sizeof payload; i++)
			payload[i] = next_random() & (next_random() % 2 ? 0x0f : 0xff);
		c.sum = trace_sum(trace_sum(TRACE_SUM, &c.source, 4), payload, c.bytes);
		last.sum = trace_sum(trace_sum(TRACE_SUM, &last.source, 4), &end, sizeof end);
#define ADD(what, size) (memcpy(file + n, what, size), n += (size))
		ADD(&h, sizeof h);
		ADD(&c, sizeof c);
		ADD(payload, c.bytes);
		ADD(&last, sizeof last);
		ADD(&end, sizeof end);
		taken += !parse(file, n);
	}
	assert_true(taken > 0);
}

static void test_no_file(void **state)
{
	struct trace_config c = { .path = "/nonexistent/trace", .config = CONFIG, .nr_sources = 1, .nr_gfns = 1, .table = table };
	struct trace_log log;
	struct trace *t;
	char why[64] = "";

	assert_int_equal(trace_create(&c, &t), -ENOENT);
	assert_int_equal(trace_load("/nonexistent/trace", &log, why, sizeof why), -ENOENT);
	assert_true(why[0]);
	assert_int_equal(trace_load("/dev/null", &log, why, sizeof why), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lossy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test(test_made_up),
		cmocka_unit_test(test_no_file),
	};

	return cmocka_run_group_tests_name("helper: traces", tests, NULL, NULL);
}
