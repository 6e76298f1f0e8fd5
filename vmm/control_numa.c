/*
 * control_numa.c - the control socket's `numa`: where memory and vCPUs are, and moving them while the guest runs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "vmm/control.h"
#include "vmm/stats.h"

/* One request keeps the thread for about so long; the reply says how far it got, and the client asks for the rest. */
#define WORK_NS		500000000ull
#define RUNS_MAX	32768u
#define BATCH		512u

static int refuse(struct control_call *call, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int refuse(struct control_call *call, int r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(call->why, sizeof call->why, fmt, ap);
	va_end(ap);
	return r;
}

static int several_nodes(const struct vm *vm, struct control_call *call)
{
	if (!vm->topology.nr_nodes)
		return refuse(call, -ENODEV, "the host's NUMA nodes cannot be read");
	if (vm->topology.nr_nodes < 2)
		return refuse(call, -ENODEV, "this host has one NUMA node: everything is there");
	return 0;
}

/* Decimal digits only. */
static bool number(const char *text, uint64_t *out)
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

/* Two words: the first frame, and how many. */
static int take_frames(const struct vm *vm, struct control_call *call, char *words[2], uint64_t *first, uint64_t *count)
{
	if (!number(words[0], first) || !number(words[1], count) || !*count)
		return refuse(call, -EINVAL, "'%.20s %.20s': want the first frame and how many", words[0], words[1]);
	if (*first >= vm->ram_frames || *count > vm->ram_frames - *first)
		return refuse(call, -ERANGE, "the guest's frames are 0 to %" PRIu64, vm->ram_frames - 1);
	return 0;
}

static uint64_t now_ns(void)
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

static void *hva_of(const struct vm *vm, uint64_t gfn)
{
	mfn_t at = mmu_pmap(vm->mmu, (gfn_t){ gfn });

	return (char *)vm->ram + (at.n << 12);
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

/* Up to BATCH frames from `gfn` on; *done: how many there was room for. 0 or -errno. */
static int map_batch(const struct vm *vm, struct run_list *l, uint64_t gfn, unsigned n, unsigned *done)
{
	void *pages[BATCH];
	int node[BATCH], r;

	for (unsigned i = 0; i < n; i++)
		pages[i] = hva_of(vm, gfn + i);
	r = numa_where(pages, n, node);
	for (*done = 0; !r && *done < n && add_frame(l, gfn + *done, node[*done]); ++*done)
		;
	return r;
}

static int run_map(struct vm *vm, struct control_call *call)
{
	struct run_list l = { 0 };
	uint64_t first, count, begun = now_ns(), done = 0;
	unsigned n = 0, some = 0;
	int r = take_frames(vm, call, call->argv + 2, &first, &count);

	if (!r)
		r = several_nodes(vm, call);
	if (r)
		return r;
	l.list = json_array();
	while (!r && n == some && done < count && now_ns() - begun < WORK_NS) {
		n = count - done < BATCH ? count - done : BATCH;
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

/* ---- move ---------------------------------------------------------------------------------------------------------- */

static int move_range(struct vm *vm, struct control_call *call, unsigned node)
{
	uint64_t first, count, begun = now_ns(), done = 0;
	struct numa_moved m = { 0 };
	int r = take_frames(vm, call, call->argv + 3, &first, &count);

	if (r)
		return r;
	if (!(vm->topology.with_memory >> node & 1))
		return refuse(call, -EINVAL, "node %u has no memory here", node);
	for (uint64_t n; !r && done < count && now_ns() - begun < WORK_NS; done += n) {
		n = BATCH - (first + done) % BATCH;	/* huge pages move as a whole */
		n = n < count - done ? n : count - done;
		r = numa_move_range(hva_of(vm, first + done), n << 12, node, &m);
	}
	if (r)
		return refuse(call, r, "the kernel moves nothing: %s", strerror(-r));
	return json_object_update_new(call->reply, json_pack("{sI sI sI sI sI sI sI so}", "first", (json_int_t)first,
		"count", (json_int_t)done, "node", (json_int_t)node, "moved", (json_int_t)m.moved,
		"there_already", (json_int_t)m.there, "not_allocated", (json_int_t)m.absent, "failed", (json_int_t)m.failed,
		"error", m.failed ? json_string(strerror(-m.error)) : json_null())) ? -ENOMEM : 0;
}

static int move_vcpu(struct vm *vm, struct control_call *call, unsigned node)
{
	uint64_t id;
	int r;

	if (!number(call->argv[3], &id) || id >= vm->nr_vcpus)
		return refuse(call, -EINVAL, "no vCPU %.20s: the guest has vCPUs 0 to %u", call->argv[3], vm->nr_vcpus - 1);
	if (!(vm->topology.with_cpus >> node & 1))
		return refuse(call, -EINVAL, "node %u has no processor that umbra may use", node);
	r = placement_move_vcpu(vm, id, node);
	if (r)
		return refuse(call, r, "vCPU %u cannot be moved: %s", (unsigned)id, strerror(-r));
	return json_object_update_new(call->reply, json_pack("{sI sI}", "vcpu", (json_int_t)id, "node", (json_int_t)node)) ?
		-ENOMEM : 0;
}

/* numa move WHAT ... node N: what is to move, and how many words that takes. */
static const struct {
	const char *name;
	unsigned words;
	int (*run)(struct vm *vm, struct control_call *call, unsigned node);
} movables[] = {
	{ "vcpu", 1, move_vcpu },
	{ "range", 2, move_range },
};

static int run_move(struct vm *vm, struct control_call *call)
{
	for (unsigned i = 0; i < sizeof movables / sizeof *movables; i++) {
		char **words = call->argv + 3 + movables[i].words;
		uint64_t node;
		int r;

		if (call->argc != 5 + movables[i].words || strcmp(call->argv[2], movables[i].name) || strcmp(words[0], "node"))
			continue;
		r = several_nodes(vm, call);
		if (r)
			return r;
		if (vm->vnuma.nr_vnodes)
			return refuse(call, -EPERM, "the guest was told where its memory and vCPUs are (--vnuma), and that stays so");
		if (!number(words[1], &node) || node >= NUMA_MAX_NODES || !vm->topology.node[node].exists)
			return refuse(call, -EINVAL, "no node '%.20s': nodes 0 to %u exist", words[1], vm->topology.highest);
		return movables[i].run(vm, call, node);
	}
	return refuse(call, -EINVAL, "want 'vcpu V node N' or 'range FIRST COUNT node N'");
}

/* ---- all of them ----------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *usage;
	unsigned words_min, words_max;	/* after the name */
	control_fn *run;
} verbs[] = {
	{ "show", "", 0, 0, run_show },
	{ "map", "FIRST COUNT", 2, 2, run_map },
	{ "move", "vcpu V node N | range FIRST COUNT node N", 0, CONTROL_WORDS_MAX, run_move },
};

#define NR_VERBS	(sizeof verbs / sizeof *verbs)

int control_numa(struct vm *vm, struct control_call *call)
{
	for (unsigned i = 0; call->argc > 1 && i < NR_VERBS; i++) {
		if (strcmp(call->argv[1], verbs[i].name))
			continue;
		if (call->argc - 2 < verbs[i].words_min || call->argc - 2 > verbs[i].words_max)
			return refuse(call, -EINVAL, "numa %s: want %s", verbs[i].name, *verbs[i].usage ? verbs[i].usage : "no arguments");
		return verbs[i].run(vm, call);
	}
	return refuse(call, -EINVAL, "numa: want one of show, map, move");
}
