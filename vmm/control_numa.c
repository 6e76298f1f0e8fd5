/*
 * control_numa.c - the control socket's `numa`: where memory and vCPUs are, and moving them while the guest runs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "vmm/control_numa.h"
#include "vmm/stats.h"

#define RUNS_MAX	32768u
#define EXPLAIN		20u		/* decisions, unless the request says how many */

int numa_refuse(struct control_call *call, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(call->why, sizeof call->why, fmt, ap);
	va_end(ap);
	return r;
}

int numa_several_nodes(const struct vm *vm, struct control_call *call)
{
	if (!vm->topology.nr_nodes)
		return numa_refuse(call, -ENODEV, "the host's NUMA nodes cannot be read");
	if (vm->topology.nr_nodes < 2)
		return numa_refuse(call, -ENODEV, "this host has one NUMA node: everything is there");
	return 0;
}

bool numa_number(const char *text, uint64_t *out)
{
	uint64_t n = 0;

	if (!*text || strlen(text) > 18)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		n = n * 10 + (*text - '0');
	}
	*out = n;
	return true;
}

int numa_take_frames(const struct vm *vm, struct control_call *call, char *words[2], uint64_t *first, uint64_t *count)
{
	if (!numa_number(words[0], first) || !numa_number(words[1], count) || !*count)
		return numa_refuse(call, -EINVAL, "'%.20s %.20s': want the first frame and how many", words[0], words[1]);
	if (*first >= vm->ram_frames || *count > vm->ram_frames - *first)
		return numa_refuse(call, -ERANGE, "the guest's frames are 0 to %" PRIu64, vm->ram_frames - 1);
	return 0;
}

uint64_t numa_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- show ---------------------------------------------------------------------------------------------------------- */

static int run_show(struct vm *vm, struct control_call *call)
{
	json_t *o = placement_json(vm);
	int r = o ? json_object_update(call->reply, o) : -1;

	json_decref(o);
	return r ? -ENOMEM : 0;
}

/* ---- map ----------------------------------------------------------------------------------------------------------- */

/* The node of each frame from `gfn` on, -1: not allocated. Without a mover all are at home. 0 or -errno. */
int numa_frame_nodes(const struct vm *vm, uint64_t gfn, unsigned n, int *nodes)
{
	void *pages[NUMA_FRAMES_MAX];
	uint64_t gfns[NUMA_FRAMES_MAX] = { gfn };
	uint8_t places[NUMA_FRAMES_MAX];

	for (unsigned i = 0; i < n; i++) {
		gfns[i] = gfn + i;
		pages[i] = (char *)vm->ram + ((gfn + i) << 12);
	}
	if (!vm->mover)
		return numa_where(pages, n, nodes);
	placement_nodes(vm, gfns, n, places);
	for (unsigned i = 0; i < n; i++)
		nodes[i] = places[i] < vm->nr_places ? vm->place[places[i]] : -1;
	return 0;
}

/* Frames in a row that are on one node. */
struct run_list {
	json_t *list;
	uint64_t first, count;		/* the run that may go on */
	int node;			/* negative: not allocated */
};

static void end_run(struct run_list *l)
{
	if (l->count)
		json_array_append_new(l->list, json_pack("[IIo]", (json_int_t)l->first, (json_int_t)l->count,
							 l->node < 0 ? json_null() : json_integer(l->node)));
	l->count = 0;
}

/* False: there is no room for another run. */
static bool add_frame(struct run_list *l, uint64_t gfn, int node)
{
	node = node < 0 ? -1 : node;
	if (l->count && l->node == node) {
		l->count++;
		return true;
	}
	if (json_array_size(l->list) == RUNS_MAX)
		return false;
	end_run(l);
	l->first = gfn;
	l->count = 1;
	l->node = node;
	return true;
}

/* Up to NUMA_FRAMES_MAX frames from `gfn` on; *done: how many there was room for. 0 or -errno. */
static int map_batch(const struct vm *vm, struct run_list *l, uint64_t gfn, unsigned n, unsigned *done)
{
	int node[NUMA_FRAMES_MAX], r = numa_frame_nodes(vm, gfn, n, node);

	for (*done = 0; !r && *done < n && add_frame(l, gfn + *done, node[*done]); ++*done)
		;
	return r;
}

static int run_map(struct vm *vm, struct control_call *call)
{
	struct run_list l = { 0 };
	uint64_t first, count, begun = numa_now_ns(), done = 0;
	unsigned n = 0, some = 0;
	int r = numa_take_frames(vm, call, call->argv + 2, &first, &count);

	if (!r)
		r = numa_several_nodes(vm, call);
	if (r)
		return r;
	l.list = json_array();
	while (!r && n == some && done < count && numa_now_ns() - begun < NUMA_WORK_NS) {
		n = count - done < NUMA_FRAMES_MAX ? count - done : NUMA_FRAMES_MAX;
		r = map_batch(vm, &l, first + done, n, &some);
		done += some;
	}
	end_run(&l);
	if (!r && json_object_set(call->reply, "runs", l.list))
		r = -ENOMEM;
	json_decref(l.list);
	json_object_set_new(call->reply, "first", json_integer(first));
	json_object_set_new(call->reply, "count", json_integer(done));
	return r;
}

/* ---- explain ------------------------------------------------------------------------------------------------------- */

static int run_explain(struct vm *vm, struct control_call *call)
{
	uint64_t n = EXPLAIN;
	json_t *list;

	if (call->argc > 2 && (!numa_number(call->argv[2], &n) || !n || n > NUMA_LOG_KEPT))
		return numa_refuse(call, -EINVAL, "numa explain %.20s: want how many decisions, 1 to %u", call->argv[2], NUMA_LOG_KEPT);
	list = numa_decisions_json(vm, n);
	return json_object_update_new(call->reply, json_pack("{sb so}", "moves_pages", vm->numa != NULL, "decisions", list)) ?
		-ENOMEM : 0;
}

/* ---- policy --------------------------------------------------------------------------------------------------------- */

/* Pages that come from now on; those that are there stay. */
static int place(struct vm *vm, const struct numa_config *c)
{
	const struct numa_topology *t = &vm->topology;
	int r;

	if (t->fake)
		return 0;
	r = c->policy ? numa_place(c, t, vm->ram, vm->ram_frames << 12, false) : numa_unplace(vm->ram, vm->ram_frames << 12);
	if (!r)
		r = c->policy ? numa_place(c, t, vm->mon, vm->mon_frames << 12, true) : numa_unplace(vm->mon, vm->mon_frames << 12);
	return r;
}

static int run_policy(struct vm *vm, struct control_call *call)
{
	struct numa_config c = vm->placed;
	char why[160], text[NUMA_POLICY_TEXT];
	int r;

	if (vm->vnuma.nr_vnodes)
		return numa_refuse(call, -EPERM, "the guest was told where its memory and vCPUs are (--vnuma), and that stays so");
	if (numa_policy_parse(call->argv[2], &c, why, sizeof why) || numa_check(&c, &vm->topology, why, sizeof why))
		return numa_refuse(call, -EINVAL, "%s", why);
	r = numa_several_nodes(vm, call);
	if (r)
		return r;
	if (numa_policy_moves(c.policy) && !vm->numa)
		return numa_refuse(call, -ENOTSUP, "%s moves pages, for which this guest was not started: start it with --numa=%s, or with "
				   "another policy that moves them", numa_policy_name(c.policy), numa_policy_name(c.policy));
	r = place(vm, &c);
	if (!r && vm->numa)
		r = numa_manager_set_policy(vm->numa, &c);
	if (r)
		return numa_refuse(call, r, "the policy stays: %s", strerror(-r));
	vm->placed = c;
	if (vm->numa)
		numa_manager_config(vm->numa, &c);
	return json_object_set_new(call->reply, "policy", json_string(numa_policy_text(&c, text))) ? -ENOMEM : 0;
}

/* ---- all of them ----------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *usage;
	unsigned words_min, words_max;	/* after the name */
	control_fn *run;
} verbs[] = {
	{ "show", "", 0, 0, run_show },
	{ "map", "FIRST COUNT", 2, 2, run_map },
	{ "explain", "nothing, or how many decisions", 0, 1, run_explain },
	{ "move", "vcpu V node N | range FIRST COUNT node N", 0, CONTROL_WORDS_MAX, control_numa_move },
	{ "policy", "NAME[,KEY=N...]", 1, 1, run_policy },
};

#define NR_VERBS	(sizeof verbs / sizeof *verbs)

int control_numa(struct vm *vm, struct control_call *call)
{
	for (unsigned i = 0; call->argc > 1 && i < NR_VERBS; i++) {
		if (strcmp(call->argv[1], verbs[i].name))
			continue;
		if (call->argc - 2 < verbs[i].words_min || call->argc - 2 > verbs[i].words_max)
			return numa_refuse(call, -EINVAL, "numa %s: want %s", verbs[i].name, *verbs[i].usage ? verbs[i].usage : "no arguments");
		return verbs[i].run(vm, call);
	}
	return numa_refuse(call, -EINVAL, "numa: want one of show, map, explain, move, policy");
}
