/*
 * screen.c - the terminal of `umbra top`: a few escape sequences that every terminal since the VT100 knows, or none.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli/top.h"

#define ESC		27
#define CTRL_C		3
#define ANSWER_MS	60000

static struct termios saved;
static bool keys, draws;
static volatile sig_atomic_t leave;

static const int ending[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

static void put(const char *s)
{
	size_t n = strlen(s);

	while (n) {
		ssize_t r = write(STDOUT_FILENO, s, n);

		if (r < 0 && errno != EINTR)
			return;
		if (r > 0)
			s += r, n -= r;
	}
}

/* Both are async-signal-safe. */
static void take_terminal(void)
{
	struct termios t = saved;

	t.c_lflag &= ~(ICANON | ECHO);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	if (keys)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &t);
	if (draws)
		put("\033[?1049h\033[?25l");	/* alternate screen, no cursor */
}

static void give_terminal(void)
{
	if (draws)
		put("\033[?25h\033[?1049l");
	if (keys)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
}

static void on_end(int sig)
{
	leave = 1;
}

/* Ctrl-z: the shell gets its terminal back while we sleep. */
static void on_stop(int sig)
{
	int e = errno;

	give_terminal();
	raise(SIGSTOP);
	take_terminal();
	errno = e;
}

static void on_resize(int sig)
{
}

static bool can_draw(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb");
}

void screen_open(void)
{
	struct sigaction end = { .sa_handler = on_end }, stop = { .sa_handler = on_stop, .sa_flags = SA_RESTART };
	struct sigaction resize = { .sa_handler = on_resize };

	/* In the background a change of the terminal's mode would stop us: no keys then. */
	keys = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp() && !tcgetattr(STDIN_FILENO, &saved);
	draws = can_draw();
	leave = 0;
	for (unsigned i = 0; i < sizeof ending / sizeof *ending; i++)
		sigaction(ending[i], &end, NULL);
	sigaction(SIGWINCH, &resize, NULL);
	if (keys || draws)
		sigaction(SIGTSTP, &stop, NULL);
	signal(SIGPIPE, SIG_IGN);
	take_terminal();
}

void screen_close(void)
{
	give_terminal();
	keys = draws = false;
	signal(SIGTSTP, SIG_DFL);
}

bool screen_can_draw(void)
{
	return draws;
}

bool screen_has_keys(void)
{
	return keys;
}

static struct winsize window(void)
{
	struct winsize w = { 0 };

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !w.ws_row || !w.ws_col)
		w = (struct winsize){ .ws_row = 24, .ws_col = 80 };
	return w;
}

void screen_show(const char *text)
{
	struct winsize w = window();
	unsigned lines = 0;
	char *all;
	size_t size;
	FILE *f;

	if (!draws) {
		put(text);
		return;
	}
	f = open_memstream(&all, &size);
	if (!f)
		return;
	fputs("\033[H", f);
	for (; *text && lines < w.ws_row; lines++) {
		size_t n = strcspn(text, "\n");

		/* Nothing is written to the last column, where terminals differ; the last line has no newline. */
		fprintf(f, "%s%.*s\033[K", lines ? "\r\n" : "", (int)(n < w.ws_col ? n : w.ws_col - 1u), text);
		text += n + (text[n] == '\n');
	}
	fputs("\033[J", f);
	if (!fclose(f))
		put(all);
	free(all);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

int screen_key(int ms)
{
	struct pollfd p = { .fd = keys ? STDIN_FILENO : -1, .events = POLLIN };
	int64_t until = now_ms() + ms, left;
	unsigned char c;
	int r;

	while (!leave) {
		left = until - now_ms();
		r = poll(&p, 1, left > 0 ? left : 0);
		if (r < 0)
			continue;	/* a signal */
		if (!r)
			return 0;
		if (read(STDIN_FILENO, &c, 1) != 1)
			return -1;
		return c;
	}
	return -1;
}

bool screen_ask(const char *question, char *answer, size_t size)
{
	size_t n = 0;
	char line[320];
	int c;

	do {
		answer[n] = 0;
		snprintf(line, sizeof line, draws ? "\033[H%.160s %.100s\033[K" : "\n%.160s %.100s", question, answer);
		put(line);
		c = screen_key(ANSWER_MS);
		if ((c == 127 || c == 8) && n)
			n--;
		else if (c >= ' ' && c <= '~' && n < size - 1)
			answer[n++] = c;
	} while (c > 0 && c != ESC && c != CTRL_C && c != '\n' && c != '\r');
	if (!draws)
		put("\n");
	return c == '\n' || c == '\r';
}
