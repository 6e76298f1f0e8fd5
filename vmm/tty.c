/*
 * tty.c - the user's terminal.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/tty.h"

static struct {
	int fd;
	struct termios saved, raw;
	atomic_bool is_open, is_raw;
	struct sigaction old[NSIG];
} tty = { .fd = -1 };

/* A crash: the terminal first, then whoever had the signal before (a sanitizer, or the default). */
static const int crash_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGQUIT };

#define NR_CRASH_SIGNALS	(sizeof crash_signals / sizeof *crash_signals)

static bool in_foreground(void)
{
	return tcgetpgrp(tty.fd) == getpgrp();
}

/* SIGTTOU stops a background process that sets a terminal, unless it is blocked (POSIX, tcsetattr). Errors are of no
 * use here: the terminal may be gone. */
static void set_quietly(const struct termios *to)
{
	sigset_t ttou, old;
	int saved_errno = errno;

	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	tcsetattr(tty.fd, TCSANOW, to);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	errno = saved_errno;
}

void tty_restore(void)
{
	if (atomic_exchange(&tty.is_raw, false))
		set_quietly(&tty.saved);
}

bool tty_claim(void)
{
	if (!atomic_load(&tty.is_open) || !in_foreground())
		return false;
	if (!atomic_exchange(&tty.is_raw, true))
		set_quietly(&tty.raw);
	return true;
}

static void on_crash(int sig, siginfo_t *info, void *context)
{
	tty_restore();
	sigaction(sig, &tty.old[sig], NULL);
	if (info->si_code <= 0)		/* sent, not caused by an instruction that runs again */
		raise(sig);
}

static void on_stop(int sig)
{
	int saved_errno = errno;

	tty_restore();
	raise(SIGSTOP);
	errno = saved_errno;
}

static void on_continue(int sig)
{
	int saved_errno = errno;

	atomic_store(&tty.is_raw, false);	/* the shell has set the terminal meanwhile */
	tty_claim();
	errno = saved_errno;
}

static void install(int sig, struct sigaction *action)
{
	sigaction(sig, action, &tty.old[sig]);
}

int tty_open(int fd)
{
	static bool at_exit;

	if (!isatty(fd) || tcgetattr(fd, &tty.saved))
		return -ENOTTY;
	tty.fd = fd;
	tty.raw = tty.saved;
	cfmakeraw(&tty.raw);
	/* Our own messages end in \n; the guest's \r\n becomes \r\r\n, which looks the same. */
	tty.raw.c_oflag |= tty.saved.c_oflag & (OPOST | ONLCR);
	atomic_store(&tty.is_open, true);

	for (unsigned i = 0; i < NR_CRASH_SIGNALS; i++)
		install(crash_signals[i], &(struct sigaction){
			.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK,
		});
	install(SIGTSTP, &(struct sigaction){ .sa_handler = on_stop, .sa_flags = SA_RESTART });
	install(SIGCONT, &(struct sigaction){ .sa_handler = on_continue, .sa_flags = SA_RESTART });
	if (!at_exit)
		at_exit = !atexit(tty_restore);
	return 0;
}

void tty_close(void)
{
	if (!atomic_exchange(&tty.is_open, false))
		return;
	tty_restore();
	for (unsigned i = 0; i < NR_CRASH_SIGNALS; i++)
		sigaction(crash_signals[i], &tty.old[crash_signals[i]], NULL);
	sigaction(SIGTSTP, &tty.old[SIGTSTP], NULL);
	sigaction(SIGCONT, &tty.old[SIGCONT], NULL);
}

int tty_key(bool *escaped, unsigned char byte)
{
	if (!*escaped) {
		*escaped = byte == TTY_ESCAPE;
		return *escaped ? TTY_NOTHING : byte;
	}
	*escaped = false;
	switch (byte) {
	case TTY_ESCAPE:
	case 'a':
		return TTY_ESCAPE;
	case 'x':
		return TTY_LEAVE;
	case 's':
		return TTY_STATS;
	case 'h':
	case '?':
		return TTY_HELP;
	default:
		return TTY_NOTHING;
	}
}
