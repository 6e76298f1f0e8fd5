/*
 * console.c - the guest's console and the thread that serves it.
 *
 * Two ways lead to the console: the shared ring (xencons.h), which Linux uses as a domU, and the console_io hypercall,
 * which it uses as the initial domain and for early output. Output of both goes to stdout in the order in which this
 * thread finds it; input from stdin goes to the ring, or waits for console_io if the guest is the initial domain or has
 * ever asked that way.
 *
 * The thread also ends the run: at the timeout, at SIGINT, SIGTERM and SIGHUP, at Ctrl-a x and when stdout is closed.
 *
 * Nothing here blocks on stdout but a vCPU whose console_io output fills the buffer: it waits as a real console would
 * make it wait, until there is room or the run ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vmm/expect.h"
#include "vmm/tty.h"
#include "vmm/vm.h"
#include "vmm/xencons.h"

#define OUT_SIZE	16384u
#define IN_SIZE		4096u
#define TX_SIZE		PIPE_BUF	/* a pipe that polls writable takes this much without blocking (pipe(7)) */
#define RING_NUDGE	1024u		/* see take_output() */
#define SETTLE_MS	10		/* pause in the output after which an unfinished line is matched */
#define BACKGROUND_MS	500		/* how often a background process looks whether it may read the terminal */
#define HURRY_NS	2000000000ll	/* what stdout is given to take the rest when the run was cut short */

struct console {
	struct vm *vm;
	pthread_t thread;
	int wake_fd, timer_fd;
	int out_fd;			/* stdout, or a non-blocking opening of the same thing */
	bool out_is_socket;

	pthread_mutex_t lock;		/* of the following */
	pthread_cond_t progress;	/* out_len became smaller, or the run ends */
	struct xencons ring;
	char out[OUT_SIZE];		/* console_io output that the thread has not taken yet */
	size_t out_len;
	char in[IN_SIZE];		/* input that the guest has not got yet */
	size_t in_len;
	bool io_input;			/* input is for console_io */
	bool ring_blamed;		/* the guest's ring index made no sense; it was said once */
	bool finishing;			/* all output is there: write it, then end */

	/* the thread's own */
	char tx[TX_SIZE];
	size_t tx_at, tx_len;
	struct expect *expect;
	bool tty, escaped, in_eof, out_dead;
	bool hurry;			/* timeout or signal: do not wait for stdout for long */
	int64_t give_up;		/* CLOCK_MONOTONIC in ns, 0: not yet */
};

/* For the handler of the signals that end the run; one VM per process. */
static atomic_int end_signal, end_signal_fd = -1;
static const int end_signals[] = { SIGINT, SIGTERM, SIGHUP };
static struct sigaction end_signal_old[3];

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void ring_eventfd(int fd)
{
	ssize_t r = write(fd, &(uint64_t){ 1 }, 8);

	(void)r;	/* EAGAIN: it is set already */
}

/* ---- signals ---------------------------------------------------------------------------------------------------- */

/* The first one ends the run in an orderly way, the second one at once. */
static void on_end_signal(int sig)
{
	int saved_errno = errno;

	if (end_signal) {
		tty_restore();
		signal(sig, SIG_DFL);
		raise(sig);
	}
	end_signal = sig;
	if (end_signal_fd >= 0)
		ring_eventfd(end_signal_fd);
	errno = saved_errno;
}

static void install_end_signals(int fd)
{
	struct sigaction action = { .sa_handler = on_end_signal, .sa_flags = SA_RESTART };

	end_signal = 0;
	end_signal_fd = fd;
	for (unsigned i = 0; i < 3; i++) {
		sigaction(end_signals[i], NULL, &end_signal_old[i]);
		if (end_signal_old[i].sa_handler != SIG_IGN)	/* nohup, or a shell's background job */
			sigaction(end_signals[i], &action, NULL);
	}
}

static void remove_end_signals(void)
{
	for (unsigned i = 0; i < 3; i++)
		sigaction(end_signals[i], &end_signal_old[i], NULL);
	end_signal_fd = -1;
}

/* ---- output ----------------------------------------------------------------------------------------------------- */

static void blame_ring(struct console *c)
{
	if (!c->ring_blamed)
		fputs("umbra: an index in the guest's console ring makes no sense; what it held is lost\n", stderr);
	c->ring_blamed = true;
}

/* Under the lock: fills tx from the buffer, then from the ring. True: the guest should be told that there is room. */
static bool take_output(struct console *c)
{
	size_t n = c->out_len < TX_SIZE ? c->out_len : TX_SIZE, fill;
	ssize_t taken;

	memcpy(c->tx, c->out, n);
	c->out_len -= n;
	memmove(c->out, c->out + n, c->out_len);
	if (n)
		pthread_cond_broadcast(&c->progress);
	taken = xencons_take(&c->ring, c->tx + n, TX_SIZE - n, &fill);
	if (taken < 0)
		blame_ring(c);
	c->tx_at = 0;
	c->tx_len = n + (taken > 0 ? taken : 0);
	/* An event costs the guest some exits. Only a writer that met a full ring waits for one. */
	return taken > 0 && fill >= RING_NUDGE;
}

static void output_failed(struct console *c, int error)
{
	c->out_dead = true;
	vm_stop(c->vm, VMM_EXIT_ERROR, "the console's output cannot be written to stdout: %s", strerror(error));
}

/* Writes tx as far as stdout takes it without blocking. */
static void write_output(struct console *c)
{
	while (c->tx_at < c->tx_len && !c->out_dead) {
		size_t n = c->tx_len - c->tx_at;
		ssize_t r = c->out_is_socket ? send(c->out_fd, c->tx + c->tx_at, n, MSG_DONTWAIT | MSG_NOSIGNAL)
					     : write(c->out_fd, c->tx + c->tx_at, n);

		if (r >= 0) {
			c->tx_at += r;
			/* A blocking stdout has promised room once, not twice. */
			if (c->out_fd == STDOUT_FILENO && c->tx_at < c->tx_len)
				return;
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR) {
			output_failed(c, errno);
		}
	}
	c->tx_at = c->tx_len = 0;
}

static bool out_writable(const struct console *c)
{
	struct pollfd p = { .fd = c->out_fd, .events = POLLOUT };

	return c->out_dead || poll(&p, 1, 0) > 0;
}

/* Moves output until there is none or stdout is full. True: none is left. */
static bool pump_output(struct console *c)
{
	bool nudge;

	for (;;) {
		if (c->tx_len) {
			if (!out_writable(c))
				return false;
			write_output(c);
			if (c->tx_len)
				return false;
		}
		pthread_mutex_lock(&c->lock);
		nudge = take_output(c);
		pthread_mutex_unlock(&c->lock);
		if (nudge && !c->vm->stop)
			evtchn_raise_port(c->vm, c->vm->console_port);
		if (!c->tx_len)
			return true;
		if (c->expect)
			expect_feed(c->expect, c->tx, c->tx_len);
	}
}

/* stdout may be shared with other processes, whose writes O_NONBLOCK would break: it is a property of the opening, so
 * this opens the terminal or pipe again. Where that is refused, writes stay small and follow a poll. */
static void open_output(struct console *c)
{
	struct stat st;
	int fd = -1;

	c->out_fd = STDOUT_FILENO;
	if (fstat(STDOUT_FILENO, &st))
		return;
	c->out_is_socket = S_ISSOCK(st.st_mode);
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0)
		c->out_fd = fd;
}

/* ---- input ------------------------------------------------------------------------------------------------------ */

/* Gives the guest what there is for it; `fresh`: some of it has just arrived. The ring is written under the lock, the
 * event is raised outside it. */
static void push_input(struct console *c, bool fresh)
{
	struct vm *vm = c->vm;
	bool io, event;
	ssize_t n = 0;

	pthread_mutex_lock(&c->lock);
	io = c->io_input;
	if (io) {
		event = fresh && c->in_len;
	} else {
		n = xencons_put(&c->ring, c->in, c->in_len);
		if (n < 0)
			blame_ring(c);
		event = n > 0;
		if (event) {
			c->in_len -= n;
			memmove(c->in, c->in + n, c->in_len);
		}
	}
	pthread_mutex_unlock(&c->lock);
	if (!event || vm->stop)
		return;
	if (!io)
		evtchn_raise_port(vm, vm->console_port);
	else
		evtchn_raise_virq(&vm->vcpus[0], VIRQ_CONSOLE);
}

static void do_command(struct console *c, int command)
{
	switch (command) {
	case TTY_LEAVE:
		vm_stop(c->vm, VMM_EXIT_OK, "left with Ctrl-a x");
		break;
	case TTY_STATS:
		fputc('\n', stderr);
		stats_print_table(c->vm, stderr);
		break;
	case TTY_HELP:
		fputs("\numbra: Ctrl-a x: end the run; Ctrl-a s: counters so far; Ctrl-a Ctrl-a: a Ctrl-a for it\n",
		      stderr);
		break;
	default:
		break;
	}
}

static void read_input(struct console *c)
{
	char bytes[IN_SIZE];
	size_t room, n = 0;
	ssize_t got;

	pthread_mutex_lock(&c->lock);
	room = IN_SIZE - c->in_len;	/* only this thread makes it smaller */
	pthread_mutex_unlock(&c->lock);
	if (!room)
		return;
	got = read(STDIN_FILENO, bytes, room);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		c->in_eof = true;
		return;
	}
	for (ssize_t i = 0; i < got; i++) {
		int key = c->tty ? tty_key(&c->escaped, bytes[i]) : (unsigned char)bytes[i];

		if (key >= 0 && key < 256)
			bytes[n++] = key;
		else
			do_command(c, key);
	}
	pthread_mutex_lock(&c->lock);
	memcpy(c->in + c->in_len, bytes, n);
	c->in_len += n;
	pthread_mutex_unlock(&c->lock);
	push_input(c, true);
}

static bool input_has_room(struct console *c)
{
	bool room;

	pthread_mutex_lock(&c->lock);
	room = c->in_len < IN_SIZE;
	pthread_mutex_unlock(&c->lock);
	return room;
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

/* Looks at what ends the run. True: everything is written and console_finish() waits. */
static bool look_at_end(struct console *c, bool drained)
{
	bool finishing;

	if (end_signal && !c->hurry) {
		c->hurry = true;
		vm_stop(c->vm, VMM_EXIT_ERROR, "stopped by signal: SIG%s", sigabbrev_np(end_signal));
	}
	pthread_mutex_lock(&c->lock);
	if (c->vm->stop)
		pthread_cond_broadcast(&c->progress);
	finishing = c->finishing;
	pthread_mutex_unlock(&c->lock);
	if (!finishing)
		return false;
	if (drained)
		return true;
	if (c->hurry && !c->give_up)
		c->give_up = now_ns() + HURRY_NS;
	if (!c->give_up || now_ns() < c->give_up)
		return false;
	fprintf(stderr, "umbra: stdout takes no more; the end of the guest's output is lost\n");
	return true;
}

static int poll_timeout(const struct console *c, bool background)
{
	int64_t left;

	if (c->give_up) {
		left = c->give_up - now_ns();
		return left > 0 ? left / 1000000 + 1 : 0;
	}
	if (c->expect && expect_unsettled(c->expect))
		return SETTLE_MS;
	return background ? BACKGROUND_MS : -1;
}

static void *console_thread(void *arg)
{
	enum { IN, OUT, WAKE, TIMER, NR };
	struct console *c = arg;
	bool drained, reads, background;
	uint64_t count;
	int r;

	pthread_setname_np(pthread_self(), "console");
	for (;;) {
		drained = pump_output(c);
		if (look_at_end(c, drained))
			break;
		reads = !c->in_eof && !c->vm->stop && input_has_room(c);
		background = reads && c->tty && !tty_claim();

		struct pollfd p[NR] = {
			[IN] = { .fd = reads && !background ? STDIN_FILENO : -1, .events = POLLIN },
			[OUT] = { .fd = drained ? -1 : c->out_fd, .events = POLLOUT },
			[WAKE] = { .fd = c->wake_fd, .events = POLLIN },
			[TIMER] = { .fd = c->timer_fd, .events = POLLIN },
		};

		r = poll(p, NR, poll_timeout(c, background));
		if (!r && c->expect)
			expect_settle(c->expect);
		if (r <= 0)
			continue;
		if (p[TIMER].revents && read(c->timer_fd, &count, 8) == 8) {
			c->hurry = true;
			vm_stop(c->vm, VMM_EXIT_TIMEOUT, "timeout: the run did not end within %g s",
				c->vm->config->timeout);
		}
		if (p[WAKE].revents && read(c->wake_fd, &count, 8) == 8)
			push_input(c, false);
		if (p[IN].revents)
			read_input(c);
	}
	if (c->expect)
		expect_settle(c->expect);
	return NULL;
}

static int make_timer(double seconds)
{
	struct itimerspec t = { .it_value = { seconds, (seconds - (time_t)seconds) * 1e9 } };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (timerfd_settime(fd, 0, &t, NULL)) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

/* Signals are for the handlers, on whatever thread; the exception is SIGPIPE, which EPIPE says better. */
static int start_thread(struct console *c)
{
	sigset_t pipe, old;
	int r;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &old);
	r = -pthread_create(&c->thread, NULL, console_thread, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

int console_start(struct vm *vm)
{
	struct console *c = calloc(1, sizeof *c);
	char why[128];
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct console){ .vm = vm, .timer_fd = -1, .io_input = vm->config->initdomain };
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->progress, NULL);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0) {
		r = -errno;
		goto free;
	}
	if (vm->config->timeout > 0) {
		r = c->timer_fd = make_timer(vm->config->timeout);
		if (r < 0)
			goto close_wake;
	}
	if (vm->config->expect) {
		r = expect_create(vm->config->expect, &c->expect, why, sizeof why);
		if (r == -EINVAL)
			fprintf(stderr, "umbra: the regular expression to expect: %s\n", why);
		if (r)
			goto close_timer;
	}
	open_output(c);
	install_end_signals(c->wake_fd);
	c->tty = !tty_open(STDIN_FILENO);
	if (c->tty)
		tty_claim();	/* before anything is printed */
	r = start_thread(c);
	if (r)
		goto restore;
	vm->console = c;
	return 0;

restore:
	tty_close();
	remove_end_signals();
	if (c->out_fd != STDOUT_FILENO)
		close(c->out_fd);
	expect_destroy(c->expect);
close_timer:
	if (c->timer_fd >= 0)
		close(c->timer_fd);
close_wake:
	close(c->wake_fd);
free:
	pthread_cond_destroy(&c->progress);
	pthread_mutex_destroy(&c->lock);
	free(c);
	return r;
}

void console_finish(struct vm *vm)
{
	struct console *c = vm->console;

	if (!c || c->finishing)
		return;
	pthread_mutex_lock(&c->lock);
	c->finishing = true;
	pthread_mutex_unlock(&c->lock);
	ring_eventfd(c->wake_fd);
	pthread_join(c->thread, NULL);
	tty_close();
	remove_end_signals();
	if (c->out_fd != STDOUT_FILENO)
		close(c->out_fd);
	xencons_attach(&c->ring, NULL);
}

void console_free(struct vm *vm)
{
	struct console *c = vm->console;

	if (!c)
		return;
	console_finish(vm);
	vm->console = NULL;
	expect_destroy(c->expect);
	if (c->timer_fd >= 0)
		close(c->timer_fd);
	close(c->wake_fd);
	pthread_cond_destroy(&c->progress);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* ---- what the vCPUs call ---------------------------------------------------------------------------------------- */

/* Under the lock: appends to the buffer, waiting for room. What does not fit when the run ends is dropped. */
static void append_output(struct console *c, const char *bytes, size_t n)
{
	while (n) {
		size_t room = OUT_SIZE - c->out_len, part = n < room ? n : room;

		memcpy(c->out + c->out_len, bytes, part);
		c->out_len += part;
		bytes += part;
		n -= part;
		if (!n)
			return;
		if (c->vm->stop || c->finishing)
			return;
		ring_eventfd(c->wake_fd);
		pthread_cond_wait(&c->progress, &c->lock);
	}
}

void console_set_ring(struct vm *vm, void *ring_page)
{
	struct console *c = vm->console;
	char rest[sizeof ((struct xencons_interface *)0)->out];
	ssize_t n;

	pthread_mutex_lock(&c->lock);
	n = xencons_take(&c->ring, rest, sizeof rest, NULL);
	if (n > 0)
		append_output(c, rest, n);
	xencons_attach(&c->ring, ring_page);
	pthread_mutex_unlock(&c->lock);
	ring_eventfd(c->wake_fd);
}

void console_kick(struct vm *vm)
{
	if (vm->console)
		ring_eventfd(vm->console->wake_fd);
}

void console_write(struct vm *vm, const char *bytes, size_t n)
{
	struct console *c = vm->console;

	pthread_mutex_lock(&c->lock);
	append_output(c, bytes, n);
	pthread_mutex_unlock(&c->lock);
	ring_eventfd(c->wake_fd);
}

size_t console_read(struct vm *vm, char *bytes, size_t max)
{
	struct console *c = vm->console;
	char unread[IN_SIZE];
	bool was_full;
	size_t n;

	pthread_mutex_lock(&c->lock);
	if (!c->io_input) {
		c->io_input = true;
		n = xencons_unput(&c->ring, unread, IN_SIZE - c->in_len);
		memmove(c->in + n, c->in, c->in_len);
		memcpy(c->in, unread, n);
		c->in_len += n;
	}
	was_full = c->in_len == IN_SIZE;
	n = c->in_len < max ? c->in_len : max;
	memcpy(bytes, c->in, n);
	c->in_len -= n;
	memmove(c->in, c->in + n, c->in_len);
	pthread_mutex_unlock(&c->lock);
	if (was_full && n)
		ring_eventfd(c->wake_fd);
	return n;
}

bool console_expect_met(struct vm *vm)
{
	return !vm->config->expect || (vm->console && vm->console->expect && expect_met(vm->console->expect));
}
