/*
 * test_console_tty.c - the user's terminal: raw while the guest has it, as it was on every way out. Each test runs a
 * child on a pseudo terminal of its own; the parent plays the user and the shell.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

#include <cmocka.h>

#include "vmm/tty.h"
#include "vmm/vm.h"

/* ---- the rest of the VMM, in the child -------------------------------------------------------------------------- */

void vm_stop(struct vm *vm, int exit_code, const char *fmt, ...)
{
	va_list ap;

	if (vm->stop)
		return;
	va_start(ap, fmt);
	vsnprintf(vm->end_reason, sizeof vm->end_reason, fmt, ap);
	va_end(ap);
	vm->exit_code = exit_code;
	vm->stop = true;
	console_kick(vm);
}

void evtchn_raise_port(struct vm *vm, unsigned port)
{
}

void evtchn_raise_virq(struct vcpu *v, unsigned virq)
{
}

void stats_print_table(struct vm *vm, FILE *to)
{
	fprintf(to, "<table>\n");
}

static const int crashes[] = { SIGQUIT, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGILL, SIGFPE };

#define NR_CRASHES	(sizeof crashes / sizeof *crashes)

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* A VM whose guest echoes what is typed, '<' and '>' around each piece, and crashes at 'C'. */
static _Noreturn void child(void)
{
	static struct vmm_config config = { .initdomain = true };
	static struct vcpu vcpu;
	static struct vm vm = { .config = &config, .vcpus = &vcpu, .nr_vcpus = 1 };
	/* A real SIGSEGV: of a NULL pointer, UBSan would make a message and an exit. */
	volatile char *nowhere = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char typed[64];
	size_t n;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	for (unsigned i = 0; i < NR_CRASHES; i++)	/* cmocka has handlers that go on with the next test */
		signal(crashes[i], SIG_DFL);
	if (console_start(&vm))
		_exit(99);
	console_write(&vm, "ready\n", 6);
	while (!vm.stop) {
		n = console_read(&vm, typed, sizeof typed);
		if (n && typed[0] == 'C')
			*nowhere = 0;
		if (n && typed[0] == 'A')
			abort();
		if (n) {
			console_write(&vm, "<", 1);
			console_write(&vm, typed, n);
			console_write(&vm, ">", 1);
		}
		pause_ms(2);
	}
	console_finish(&vm);
	fprintf(stderr, "ended: %s\n", vm.end_reason);
	console_free(&vm);
	exit(vm.exit_code + 10);
}

/* ---- the user --------------------------------------------------------------------------------------------------- */

struct session {
	pid_t pid;
	int fd;
	struct termios before;
	char text[8192];
	size_t n;
};

static void look(struct session *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	ssize_t got;

	while (s->n < sizeof s->text - 1 && poll(&p, 1, 5) > 0 && p.revents & POLLIN) {
		got = read(s->fd, s->text + s->n, sizeof s->text - 1 - s->n);
		if (got <= 0)
			break;
		s->n += got;
		s->text[s->n] = 0;
	}
}

/* Waits until the terminal shows it, 5 s at most. */
static void see(struct session *s, const char *what)
{
	for (int tries = 0; tries < 500; tries++) {
		look(s);
		if (strstr(s->text, what))
			return;
		pause_ms(5);
	}
	fail_msg("the terminal does not show '%s' but '%s'", what, s->text);
}

static bool is_raw(struct session *s)
{
	struct termios now;

	assert_int_equal(tcgetattr(s->fd, &now), 0);
	return !(now.c_lflag & (ICANON | ECHO | ISIG));
}

static bool is_as_before(struct session *s)
{
	struct termios now;

	assert_int_equal(tcgetattr(s->fd, &now), 0);
	return now.c_lflag == s->before.c_lflag && now.c_iflag == s->before.c_iflag &&
	       now.c_oflag == s->before.c_oflag && now.c_cflag == s->before.c_cflag &&
	       !memcmp(now.c_cc, s->before.c_cc, sizeof now.c_cc);
}

#define EVENTUALLY(condition) \
	do { \
		for (int tries = 0; tries < 500 && !(condition); tries++) \
			pause_ms(10); \
		assert_true(condition); \
	} while (0)

/* The terminal stays open on our side, so its settings can be looked at when the child has gone. */
static void start(struct session *s)
{
	int slave;

	memset(s, 0, sizeof *s);
	assert_int_equal(openpty(&s->fd, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(slave, &s->before), 0);
	s->pid = fork();
	if (!s->pid) {
		close(s->fd);
		login_tty(slave);
		child();
	}
	assert_true(s->pid > 0);
	close(slave);
	see(s, "ready");
	assert_true(is_raw(s));
}

static void type(struct session *s, const char *keys, size_t n)
{
	assert_int_equal(write(s->fd, keys, n), n);
}

static int finish(struct session *s)
{
	int status;

	for (int tries = 0; waitpid(s->pid, &status, WNOHANG) != s->pid; tries++) {
		look(s);
		pause_ms(5);
		if (tries > 1000) {
			kill(s->pid, SIGKILL);
			fail_msg("the child does not end: %s", s->text);
		}
	}
	look(s);
	assert_true(is_as_before(s));
	close(s->fd);
	return status;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void leaves_by_key(void **state)
{
	struct session s;
	int status;

	start(&s);
	type(&s, "\x01x", 2);
	status = finish(&s);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 10 + VMM_EXIT_OK);
	assert_non_null(strstr(s.text, "ended: left with Ctrl-a x"));
}

/* Ctrl-c, Ctrl-z and Ctrl-\ are the guest's. */
static void keys_reach_the_guest(void **state)
{
	struct session s;

	start(&s);
	type(&s, "\x03", 1);
	see(&s, "<\x03>");
	type(&s, "\x1a", 1);
	see(&s, "<\x1a>");
	type(&s, "\x1c", 1);
	see(&s, "<\x1c>");
	type(&s, "\r", 1);
	see(&s, "<\r>");
	type(&s, "\x01\x01", 2);
	see(&s, "<\x01>");
	type(&s, "\x01h", 2);
	see(&s, "Ctrl-a x");
	type(&s, "\x01s", 2);
	see(&s, "<table>");
	type(&s, "\x01x", 2);
	finish(&s);
}

static void restored_after_a_signal(void **state)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };

	for (unsigned i = 0; i < 3; i++) {
		struct session s;
		int status;

		start(&s);
		kill(s.pid, numbers[i]);
		status = finish(&s);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 10 + VMM_EXIT_ERROR);
	}
}

/* It dies of the signal as it would without us, with the terminal put right before. */
static void restored_after_a_crash(void **state)
{
	struct session s;
	int status;

	for (unsigned i = 0; i < NR_CRASHES; i++) {
		start(&s);
		kill(s.pid, crashes[i]);
		status = finish(&s);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == crashes[i]);
	}
	start(&s);
	type(&s, "C", 1);
	status = finish(&s);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	start(&s);
	type(&s, "A", 1);
	status = finish(&s);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void suspended_and_continued(void **state)
{
	struct session s;
	int status;

	start(&s);
	kill(s.pid, SIGTSTP);
	assert_int_equal(waitpid(s.pid, &status, WUNTRACED), s.pid);
	assert_true(WIFSTOPPED(status));
	assert_true(is_as_before(&s));
	kill(s.pid, SIGCONT);
	EVENTUALLY(is_raw(&s));
	type(&s, "back", 4);
	see(&s, "back");
	/* stopped without a chance to tidy up, and the shell sets the terminal for itself */
	kill(s.pid, SIGSTOP);
	assert_int_equal(waitpid(s.pid, &status, WUNTRACED), s.pid);
	assert_int_equal(tcsetattr(s.fd, TCSANOW, &s.before), 0);
	kill(s.pid, SIGCONT);
	EVENTUALLY(is_raw(&s));
	type(&s, "\x01x", 2);
	status = finish(&s);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 10 + VMM_EXIT_OK);
}

/* What is typed to the shell while we run in its background is not ours. */
static void background(void **state)
{
	struct session s;
	int slave, ready[2], status;
	pid_t pid;
	char c;

	memset(&s, 0, sizeof s);
	assert_int_equal(openpty(&s.fd, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(slave, &s.before), 0);
	assert_int_equal(pipe(ready), 0);
	s.pid = fork();
	if (!s.pid) {			/* the shell: stays in the foreground for as long as the pipe is open */
		close(s.fd);
		login_tty(slave);
		signal(SIGTTOU, SIG_IGN);
		pid = fork();
		if (!pid) {
			setpgid(0, 0);
			close(ready[0]);
			close(ready[1]);
			child();
		}
		setpgid(pid, pid);
		close(ready[1]);
		if (read(ready[0], &c, 1) == 1)
			tcsetpgrp(0, pid);	/* fg, of a job that runs already */
		waitpid(pid, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 98);
	}
	close(slave);
	close(ready[0]);
	see(&s, "ready");
	type(&s, "ls\n", 3);
	pause_ms(50);
	look(&s);
	assert_true(is_as_before(&s));
	assert_null(strstr(s.text, "<"));
	assert_int_equal(write(ready[1], "f", 1), 1);
	EVENTUALLY(is_raw(&s));
	type(&s, "\x01x", 2);
	status = finish(&s);
	close(ready[1]);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 10 + VMM_EXIT_OK);
}

/* The terminal is closed under us. */
static void hangup(void **state)
{
	struct session s;
	int status;

	start(&s);
	close(s.fd);
	for (int tries = 0; waitpid(s.pid, &status, WNOHANG) != s.pid; tries++) {
		pause_ms(10);
		if (tries > 500) {
			kill(s.pid, SIGKILL);
			fail_msg("the child does not end: %s", s.text);
		}
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 10 + VMM_EXIT_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(leaves_by_key), cmocka_unit_test(keys_reach_the_guest),
		cmocka_unit_test(restored_after_a_signal), cmocka_unit_test(restored_after_a_crash),
		cmocka_unit_test(suspended_and_continued), cmocka_unit_test(background), cmocka_unit_test(hangup),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
