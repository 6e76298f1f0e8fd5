/*
 * control.h - the control socket: asks a running guest's VMM, from outside. docs/control.md has the protocol.
 *
 * A thread of its own serves it; nothing here makes a vCPU wait. To add a command, write a control_fn and give it a line in
 * control_commands.c.
 */
#ifndef UMBRA_VMM_CONTROL_H
#define UMBRA_VMM_CONTROL_H

#include <stddef.h>

#include <jansson.h>

struct vm;

#define CONTROL_LINE_MAX	1024u	/* bytes of a request, its newline included */
#define CONTROL_WORDS_MAX	32u

/* One request while it is answered. */
struct control_call {
	unsigned argc;				/* at least 1 */
	char *argv[CONTROL_WORDS_MAX];		/* argv[0]: the command */
	json_t *reply;				/* an empty object to fill */
	char why[200];				/* to fill on an error: one line for the user */
};

/*
 * Answers `call`. 0, or -errno with call->why (strerror() if that stays empty). On the control thread, one call at a time,
 * while the vCPUs run; what it reads of theirs may be a little old. The client is hostile: check every argument. Takes no
 * lock that a vCPU waits for, unless for as long as the vCPUs themselves would.
 */
typedef int control_fn(struct vm *vm, struct control_call *call);

struct control_command {
	const char *name;
	const char *usage;			/* arguments, for `help`; "" */
	const char *what;
	control_fn *run;
};

control_fn control_numa;		/* control_numa.c */

extern const struct control_command control_commands[];	/* ends with a NULL name */

/* Splits `line`, `n` bytes with room for a NUL behind them, at blanks. Returns the number of words; -EINVAL: not printable
 * ASCII; -E2BIG: more than `max`. */
int control_split(char *line, size_t n, char *words[], unsigned max);

/* The answer to a request line: JSON and a newline, to be freed. NULL: no memory. */
char *control_answer(struct vm *vm, char *line, size_t n);

/* Makes the socket that the configuration asks for, if any, and its thread. 0 or -errno; prints its own message. Where the
 * user named none, a host without a place for it is no error. */
int control_start(struct vm *vm);
/* Ends the thread, drops its clients, removes the socket. Without one: nothing. Before anything the commands read goes. */
void control_stop(struct vm *vm);

#endif
