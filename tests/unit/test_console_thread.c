/*
 * test_console_thread.c - the I/O thread as a guest, a user and a shell pipeline see it. stdin and stdout are pipes,
 * the VM is a bare struct, and what the thread asks of the rest of the VMM is recorded here.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/vm.h"

static atomic_uint port_events, virqs;

/* ---- the rest of the VMM ---------------------------------------------------------------------------------------- */

void vm_stop(struct vm *vm, int exit_code, const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&vm->end_lock);
	if (!vm->stop) {
		va_start(ap, fmt);
		vsnprintf(vm->end_reason, sizeof vm->end_reason, fmt, ap);
		va_end(ap);
		vm->exit_code = exit_code;
		vm->stop = true;
		console_kick(vm);
	}
	pthread_mutex_unlock(&vm->end_lock);
}

void evtchn_raise_port(struct vm *vm, unsigned port)
{
	assert_int_equal(port, vm->console_port);
	port_events++;
}

void evtchn_raise_virq(struct vcpu *v, unsigned virq)
{
	assert_int_equal(virq, VIRQ_CONSOLE);
	virqs++;
}

void stats_print_table(struct vm *vm, FILE *to)
{
}

/* ---- a VM with a console ---------------------------------------------------------------------------------------- */

static struct vmm_config config;
static struct vm vm;
static struct vcpu vcpu;
static union {
	struct xencons_interface ring;
	uint8_t bytes[4096];
} page;
static int in_fd, out_fd;		/* our ends of the console's stdin and stdout */
static int saved_in, saved_out;

static void open_console(void)
{
	int in[2], out[2];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	saved_in = dup(STDIN_FILENO);
	saved_out = dup(STDOUT_FILENO);
	fflush(stdout);
	dup2(in[0], STDIN_FILENO);
	dup2(out[1], STDOUT_FILENO);
	close(in[0]);
	close(out[1]);
	in_fd = in[1];
	out_fd = out[0];
	vcpu = (struct vcpu){ .vm = &vm };
	vm = (struct vm){ .config = &config, .vcpus = &vcpu, .nr_vcpus = 1, .console_port = 3,
			  .end_lock = PTHREAD_MUTEX_INITIALIZER };
	memset(&page, 0, sizeof page);
	port_events = virqs = 0;
	assert_int_equal(console_start(&vm), 0);
	if (!config.initdomain)
		console_set_ring(&vm, &page);
}

/* As vmm_run() ends. Our stdout stays open until the console has let go of its own. */
static void finish_console(void)
{
	console_finish(&vm);
	dup2(saved_in, STDIN_FILENO);
	dup2(saved_out, STDOUT_FILENO);
	close(saved_in);
	close(saved_out);
}

static void free_console(void)
{
	console_free(&vm);
	if (in_fd >= 0)
		close(in_fd);
	if (out_fd >= 0)
		close(out_fd);
	config = (struct vmm_config){ 0 };
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Waits, 5 s at most. */
#define EVENTUALLY(condition) \
	do { \
		for (int tries = 0; tries < 500 && !(condition); tries++) \
			pause_ms(10); \
		assert_true(condition); \
	} while (0)

/* The guest's driver: waits for room like Linux's, by looking again. */
static void guest_print(const char *text, size_t n)
{
	struct xencons_interface *r = &page.ring;

	while (n) {
		uint32_t cons = __atomic_load_n(&r->out_cons, __ATOMIC_ACQUIRE), prod = r->out_prod;

		while (n && prod - cons < sizeof r->out) {
			r->out[MASK_XENCONS_IDX(prod, r->out)] = *text++;
			prod++;
			n--;
		}
		__atomic_store_n(&r->out_prod, prod, __ATOMIC_RELEASE);
		console_kick(&vm);
		if (n)
			pause_ms(1);
	}
}

/* Prints into a fresh ring and rings no bell. */
static void guest_leave(const char *text, size_t n)
{
	memcpy(page.ring.out, text, n);
	__atomic_store_n(&page.ring.out_prod, n, __ATOMIC_RELEASE);
}

static size_t guest_typed(char *to, size_t max)
{
	struct xencons_interface *r = &page.ring;
	uint32_t prod = __atomic_load_n(&r->in_prod, __ATOMIC_ACQUIRE), cons = r->in_cons;
	size_t n = 0;

	while (n < max && cons != prod) {
		to[n++] = r->in[MASK_XENCONS_IDX(cons, r->in)];
		cons++;
	}
	__atomic_store_n(&r->in_cons, cons, __ATOMIC_RELEASE);
	console_kick(&vm);
	return n;
}

/* Reads everything until the console closes its end; slowly if `slow`. */
struct reader {
	pthread_t thread;
	char text[300000];
	size_t n;
	bool slow;
};

static void *read_all(void *arg)
{
	struct reader *r = arg;
	ssize_t got;

	while ((got = read(out_fd, r->text + r->n, r->slow ? 700 : sizeof r->text - r->n)) > 0) {
		r->n += got;
		if (r->slow)
			pause_ms(1);
	}
	return NULL;
}

static char *make_text(size_t n)
{
	char *text = malloc(n + 1);

	assert_non_null(text);
	for (size_t i = 0; i < n; i++)
		text[i] = i % 61 == 60 ? '\n' : '0' + (i * 7 + i / 61) % 75;
	text[n] = 0;
	return text;
}

/* ---- output ----------------------------------------------------------------------------------------------------- */

/* Everything that was printed before the end comes out, in order, whoever is slow. */
static void output_drains(void **state)
{
	static struct reader reader;
	char *text = make_text(100000);

	for (int slow = 0; slow < 2; slow++) {
		reader = (struct reader){ .slow = slow };
		open_console();
		assert_int_equal(pthread_create(&reader.thread, NULL, read_all, &reader), 0);
		guest_print(text, 100000);
		vm_stop(&vm, VMM_EXIT_OK, "powered off");
		finish_console();
		pthread_join(reader.thread, NULL);
		free_console();
		assert_int_equal(reader.n, 100000);
		assert_memory_equal(reader.text, text, 100000);
	}
	free(text);
}

/* console_io waits for room, then for nobody once the run has ended. */
static void console_io_output(void **state)
{
	static struct reader reader;
	char *text = make_text(200000);

	reader = (struct reader){ .slow = true };
	open_console();
	assert_int_equal(pthread_create(&reader.thread, NULL, read_all, &reader), 0);
	for (size_t at = 0; at < 200000; at += 1000)
		console_write(&vm, text + at, 1000);
	finish_console();
	pthread_join(reader.thread, NULL);
	free_console();
	assert_int_equal(reader.n, 200000);
	assert_memory_equal(reader.text, text, 200000);
	free(text);
}

static void *print_too_much(void *arg)
{
	char *text = make_text(200000);

	console_write(&vm, text, 200000);
	free(text);
	return NULL;
}

static void blocked_vcpu_is_freed(void **state)
{
	static struct reader reader;
	pthread_t thread;

	reader = (struct reader){ 0 };
	open_console();
	assert_int_equal(pthread_create(&thread, NULL, print_too_much, NULL), 0);
	pause_ms(100);				/* nobody reads: pipe and buffer are full */
	vm_stop(&vm, VMM_EXIT_OK, "powered off");
	pthread_join(thread, NULL);
	assert_int_equal(pthread_create(&reader.thread, NULL, read_all, &reader), 0);
	finish_console();
	pthread_join(reader.thread, NULL);
	free_console();
	assert_in_range(reader.n, 65536, 199999);
}

/* A ring that goes away with its domain is emptied first. */
static void ring_changes_hands(void **state)
{
	static struct reader reader;

	reader = (struct reader){ 0 };
	open_console();
	guest_leave("old domain\n", 11);
	console_set_ring(&vm, NULL);
	memset(&page, 0xff, sizeof page);
	pause_ms(20);
	memset(&page, 0, sizeof page);
	console_set_ring(&vm, &page);
	guest_print("new domain\n", 11);
	assert_int_equal(pthread_create(&reader.thread, NULL, read_all, &reader), 0);
	finish_console();
	pthread_join(reader.thread, NULL);
	free_console();
	assert_int_equal(reader.n, 22);
	assert_memory_equal(reader.text, "old domain\nnew domain\n", 22);
}

static void closed_stdout_ends_the_run(void **state)
{
	open_console();
	close(out_fd);
	out_fd = -1;
	guest_print("anyone?\n", 8);
	EVENTUALLY(vm.stop);
	assert_int_equal(vm.exit_code, VMM_EXIT_ERROR);
	assert_non_null(strstr(vm.end_reason, "Broken pipe"));
	finish_console();
	free_console();
}

/* stdout is shared with the shell that started us: its file status flags stay. */
static void stdout_stays_blocking(void **state)
{
	open_console();
	assert_int_equal(fcntl(STDOUT_FILENO, F_GETFL) & O_NONBLOCK, 0);
	finish_console();
	free_console();
}

/* ---- input ------------------------------------------------------------------------------------------------------ */

/* More than the ring and the buffer hold arrives whole, whatever bytes it has: only a terminal has commands. */
static void input_arrives(void **state)
{
	char *text = make_text(9000), got[9000];
	size_t n = 0;

	memcpy(text, "\x01x", 2);
	open_console();
	assert_int_equal(write(in_fd, text, 9000), 9000);
	for (int tries = 0; n < sizeof got && tries < 2000; tries++) {
		n += guest_typed(got + n, sizeof got - n < 300 ? sizeof got - n : 300);
		pause_ms(1);
	}
	assert_int_equal(n, 9000);
	assert_memory_equal(got, text, 9000);
	assert_true(port_events > 0 && !virqs && !vm.stop);
	close(in_fd);				/* end of file ends nothing */
	in_fd = -1;
	pause_ms(30);
	assert_false(vm.stop);
	finish_console();
	free_console();
	free(text);
}

static void initdomain_input(void **state)
{
	char got[16];

	config.initdomain = true;
	open_console();
	assert_int_equal(write(in_fd, "hello", 5), 5);
	EVENTUALLY(virqs == 1);
	assert_int_equal(console_read(&vm, got, 2), 2);
	assert_int_equal(console_read(&vm, got + 2, sizeof got - 2), 3);
	assert_memory_equal(got, "hello", 5);
	assert_int_equal(console_read(&vm, got, sizeof got), 0);
	assert_int_equal(port_events, 0);
	finish_console();
	free_console();
}

/* A guest that asks by console_io gets what had gone to the ring, too. */
static void guest_changes_its_mind(void **state)
{
	char got[16];

	open_console();
	assert_int_equal(write(in_fd, "abc", 3), 3);
	EVENTUALLY(port_events == 1);
	assert_int_equal(console_read(&vm, got, sizeof got), 3);
	assert_memory_equal(got, "abc", 3);
	assert_int_equal(write(in_fd, "de", 2), 2);
	EVENTUALLY(virqs == 1);
	assert_int_equal(console_read(&vm, got, sizeof got), 2);
	finish_console();
	free_console();
}

/* ---- the end of a run ------------------------------------------------------------------------------------------- */

static void expectations(void **state)
{
	static const struct {
		const char *expect, *prints;
		bool met;
	} cases[] = {
		{ NULL, "anything", true },
		{ "^result [0-9]+$", "x\r\nresult 42\r\n", true },
		{ "login: $", "Debian\nlogin: ", true },
		{ "^result$", "no result\n", false },
	};

	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		config.expect = cases[i].expect;
		open_console();
		guest_print(cases[i].prints, strlen(cases[i].prints));
		finish_console();
		assert_int_equal(console_expect_met(&vm), cases[i].met);
		free_console();
	}
}

static void prompt_is_seen_while_running(void **state)
{
	config.expect = "login: $";
	open_console();
	guest_print("login: ", 7);
	EVENTUALLY(console_expect_met(&vm));
	finish_console();
	free_console();
}

static void timeout(void **state)
{
	config.timeout = 0.05;
	open_console();
	EVENTUALLY(vm.stop);
	assert_int_equal(vm.exit_code, VMM_EXIT_TIMEOUT);
	finish_console();
	free_console();
}

/* A reader that has stalled does not keep a run alive that was cut short. */
static void timeout_with_stalled_reader(void **state)
{
	struct timespec from, to;
	pthread_t thread;

	config.timeout = 0.1;
	open_console();
	assert_int_equal(pthread_create(&thread, NULL, print_too_much, NULL), 0);
	EVENTUALLY(vm.stop);
	pthread_join(thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &from);
	finish_console();
	clock_gettime(CLOCK_MONOTONIC, &to);
	free_console();
	assert_in_range(to.tv_sec - from.tv_sec, 1, 4);
}

static void signals(void **state)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };

	for (unsigned i = 0; i < 3; i++) {
		open_console();
		raise(numbers[i]);
		EVENTUALLY(vm.stop);
		assert_int_equal(vm.exit_code, VMM_EXIT_ERROR);
		assert_non_null(strstr(vm.end_reason, sigabbrev_np(numbers[i])));
		finish_console();
		free_console();
	}
}

static void finish_twice(void **state)
{
	open_console();
	finish_console();
	console_finish(&vm);
	free_console();
	console_free(&vm);
	console_finish(&vm);
	console_kick(&vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(output_drains), cmocka_unit_test(console_io_output),
		cmocka_unit_test(blocked_vcpu_is_freed), cmocka_unit_test(ring_changes_hands),
		cmocka_unit_test(closed_stdout_ends_the_run), cmocka_unit_test(stdout_stays_blocking),
		cmocka_unit_test(input_arrives), cmocka_unit_test(initdomain_input),
		cmocka_unit_test(guest_changes_its_mind), cmocka_unit_test(expectations),
		cmocka_unit_test(prompt_is_seen_while_running), cmocka_unit_test(timeout),
		cmocka_unit_test(timeout_with_stalled_reader), cmocka_unit_test(signals),
		cmocka_unit_test(finish_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
