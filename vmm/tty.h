/*
 * tty.h - the user's terminal: raw while the guest has it, as it was on every way out.
 *
 * A process has one, so its state is global. Suspending the process gives the terminal back, continuing it in the
 * foreground takes it again; a crash of the VMM gives it back before the crash takes its course. (After SIGKILL only
 * `stty sane` helps.)
 */
#ifndef UMBRA_VMM_TTY_H
#define UMBRA_VMM_TTY_H

#include <stdbool.h>

/* Remembers the terminal's settings and installs the signal handlers. Main thread. -ENOTTY: not a terminal. */
int tty_open(int fd);
/* Makes the terminal raw, if it is not, and says whether this process may read it. False: it runs in the background,
 * where reading would stop it. One thread. */
bool tty_claim(void);
/* Puts the settings back. Any thread, and from signal handlers. */
void tty_restore(void);
/* tty_restore(), and the signal handlers go. The thread of tty_claim() has ended. */
void tty_close(void);

/* ---- Ctrl-a commands --------------------------------------------------------------------------------------------- */

#define TTY_ESCAPE	0x01			/* Ctrl-a */
enum {
	TTY_NOTHING = -1,
	TTY_LEAVE = 256,
	TTY_HELP,
	TTY_STATS,
};

/* What a typed byte means: 0..255 a byte for the guest, else one of the above. *escaped: the caller's, first false. */
int tty_key(bool *escaped, unsigned char byte);

#endif
