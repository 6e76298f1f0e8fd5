/*
 * control_commands.c - the requests of the control socket: splitting, looking up, answering.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/control.h"
#include "vmm/stats.h"

#define SCHEMA	1	/* of answers; docs/control.md */

static int no_arguments(struct control_call *call)
{
	if (call->argc == 1)
		return 0;
	snprintf(call->why, sizeof call->why, "%s takes no arguments", call->argv[0]);
	return -EINVAL;
}

static int run_help(struct vm *vm, struct control_call *call)
{
	if (no_arguments(call))
		return -EINVAL;
	for (const struct control_command *c = control_commands; c->name; c++)
		if (json_object_set_new(call->reply, c->name, json_pack("{s:s, s:s}", "arguments", c->usage, "what", c->what)))
			return -ENOMEM;
	return 0;
}

static int run_info(struct vm *vm, struct control_call *call)
{
	if (no_arguments(call))
		return -EINVAL;
	return stats_info(vm, call->reply);
}

static int run_stats(struct vm *vm, struct control_call *call)
{
	if (no_arguments(call))
		return -EINVAL;
	return stats_live(vm, call->reply);
}

static int run_describe(struct vm *vm, struct control_call *call)
{
	if (no_arguments(call))
		return -EINVAL;
	return stats_describe(call->reply);
}

const struct control_command control_commands[] = {
	{ "help",	"", "the commands",						run_help },
	{ "info",	"", "which guest this is, and how long it has run",		run_info },
	{ "stats",	"", "configuration and counters, as --stats writes them",	run_stats },
	{ "describe",	"", "what each counter counts",					run_describe },
	{ "numa",	"show | map FIRST COUNT | explain [N] | move vcpu V node N | move range FIRST COUNT node N | policy NAME[,KEY=N...]",
		"the NUMA nodes that memory and vCPUs are on, by guest frame; what was moved and why; moving them",	control_numa },
	{ NULL },
};

int control_split(char *line, size_t n, char *words[], unsigned max)
{
	unsigned count = 0;
	bool inside = false;

	for (size_t i = 0; i < n; i++) {
		if (line[i] == ' ' || line[i] == '\t' || (line[i] == '\r' && i == n - 1)) {
			line[i] = 0;
			inside = false;
			continue;
		}
		if (line[i] < '!' || line[i] > '~')
			return -EINVAL;
		if (!inside && count == max)
			return -E2BIG;
		if (!inside)
			words[count++] = line + i;
		inside = true;
	}
	line[n] = 0;
	return count;
}

static int dispatch(struct vm *vm, char *line, size_t n, struct control_call *call)
{
	int words = control_split(line, n, call->argv, CONTROL_WORDS_MAX);

	if (words <= 0) {
		snprintf(call->why, sizeof call->why, "%s; 'help' lists the commands",
			 words == -E2BIG ? "too many words" : words ? "not plain text" : "an empty line");
		return words ? words : -EINVAL;
	}
	call->argc = words;
	for (const struct control_command *c = control_commands; c->name; c++)
		if (!strcmp(c->name, call->argv[0]))
			return c->run(vm, call);
	snprintf(call->why, sizeof call->why, "no command '%.40s'; 'help' lists them", call->argv[0]);
	return -ENOSYS;
}

/* Takes `o` over. */
static char *text_of(json_t *o)
{
	char *text = json_dumps(o, JSON_COMPACT), *line = NULL;
	size_t n = text ? strlen(text) : 0;

	if (text && (line = realloc(text, n + 2)))
		memcpy(line + n, "\n", 2);
	else
		free(text);
	json_decref(o);
	return line;
}

char *control_answer(struct vm *vm, char *line, size_t n)
{
	struct control_call call = { .reply = json_object() };
	int r = call.reply ? dispatch(vm, line, n, &call) : -ENOMEM;

	if (!r)
		return text_of(json_pack("{s:i, s:b, s:o}", "schema", SCHEMA, "ok", 1, "reply", call.reply));
	json_decref(call.reply);
	return text_of(json_pack("{s:i, s:b, s:s}", "schema", SCHEMA, "ok", 0, "error", *call.why ? call.why : strerror(-r)));
}
