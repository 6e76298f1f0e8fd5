/* sweep.c - `umbra sweep`: many configurations of heuristics over traces, on all cores or as a list of jobs. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/sweep.h"
#include "vmm/vmm.h"

#define TELL_TTY_S	0.5	/* how often progress is told on a terminal ... */
#define TELL_FILE_S	10	/* ... and elsewhere */

enum { OPT_HEURISTIC = 256, OPT_MAYBE, OPT_JSON, OPT_JOBS_OUT, OPT_RESULTS, OPT_MERGE };

struct request {
	struct replay_config model;	/* no heuristics */
	struct grid grid;
	const char **args;		/* traces, or with `merge` results */
	size_t nr_args;
	const char *json, *jobs_out, *results;
	bool merge, quiet;
	unsigned threads;
};

/* ---- here, on all cores ---------------------------------------------------------------------------------------------------- */

struct work {
	const struct request *q;
	struct trace_log *logs;
	struct sweep *results;
	atomic_size_t next;
	pthread_mutex_t lock;		/* of the following, and `results` */
	size_t done;
	int error;
};

static size_t nr_jobs(const struct request *q)
{
	return q->grid.nr * q->nr_args;
}

/* The points of one trace after the other; a thread's job is a point of a trace. */
static struct replay_config job_config(const struct request *q, size_t job)
{
	const struct grid_point *p = &q->grid.points[job % q->grid.nr];
	struct replay_config c = q->model;

	memcpy(c.heuristics, p->heuristics, sizeof c.heuristics);
	c.nr_heuristics = p->nr ? heuristics_resolve(c.heuristics, p->nr, &c.feedback) : 0;
	return c;
}

static int do_job(struct work *w, size_t job)
{
	size_t t = job / w->q->grid.nr;
	struct replay_config c = job_config(w->q, job);
	struct replay_result result;
	json_t *root;
	int r;

	c.log = &w->logs[t];
	r = replay_run(&c, &result);
	if (r)
		return r;
	root = replay_json(w->q->args[t], &c, &result);
	replay_free(&result);
	pthread_mutex_lock(&w->lock);
	r = root ? sweep_add(w->results, root) : -ENOMEM;
	w->done++;
	pthread_mutex_unlock(&w->lock);
	json_decref(root);
	return r == -EEXIST ? 0 : r;	/* two points of the grid that are the same */
}

static void *worker(void *arg)
{
	struct work *w = arg;
	size_t job;

	while ((job = atomic_fetch_add(&w->next, 1)) < nr_jobs(w->q)) {
		int r = do_job(w, job);

		if (!r)
			continue;
		pthread_mutex_lock(&w->lock);
		w->error = r;
		pthread_mutex_unlock(&w->lock);
		atomic_store(&w->next, nr_jobs(w->q));
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Until all is done. What is left is taken to last as long as what was done, job by job. */
static void tell_progress(struct work *w)
{
	bool tty = isatty(STDERR_FILENO), told = false;
	double start = seconds(), last = start;
	size_t done = 0, all = nr_jobs(w->q);
	int error = 0;

	while (done < all && !error) {
		double now;

		usleep(20000);
		pthread_mutex_lock(&w->lock);
		done = w->done;
		error = w->error;
		pthread_mutex_unlock(&w->lock);
		now = seconds();
		if (w->q->quiet || !done || now - last < (tty ? TELL_TTY_S : TELL_FILE_S))
			continue;
		last = now;
		told = true;
		fprintf(stderr, "%sumbra sweep: %zu of %zu, %.0f %%, %.0f s left%s", tty ? "\r" : "", done, all, 100.0 * done / all,
			(now - start) / done * (all - done), tty ? "   " : "\n");
	}
	if (told && tty)
		fputc('\n', stderr);
}

static int load_traces(const struct request *q, struct trace_log *logs)
{
	char why[256];

	for (size_t i = 0; i < q->nr_args; i++) {
		if (trace_load(q->args[i], &logs[i], why, sizeof why)) {
			fprintf(stderr, "umbra sweep: %s: %s\n", q->args[i], why);
			return -EIO;
		}
		replay_warn("umbra sweep", q->args[i], &logs[i], stderr);
	}
	return 0;
}

static int run_here(const struct request *q, struct sweep *results)
{
	unsigned n = q->threads < nr_jobs(q) ? q->threads : nr_jobs(q), started = 0;
	struct work w = { .q = q, .results = results, .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t *threads = calloc(n, sizeof *threads);
	int r = -ENOMEM;

	w.logs = calloc(q->nr_args, sizeof *w.logs);
	if (!threads || !w.logs)
		goto out;
	r = load_traces(q, w.logs);
	if (r)
		goto out;
	json_object_seed(1);	/* before there are threads */
	while (!r && started < n) {
		r = -pthread_create(&threads[started], NULL, worker, &w);
		started += !r;
	}
	if (started) {		/* fewer do as well */
		r = 0;
		tell_progress(&w);
	}
	while (started)
		pthread_join(threads[--started], NULL);
	r = r ? r : w.error;
	if (r)
		fprintf(stderr, "umbra sweep: %s\n", strerror(-r));
out:
	for (size_t i = 0; w.logs && i < q->nr_args; i++)
		trace_free(&w.logs[i]);
	free(w.logs);
	free(threads);
	return r;
}

/* ---- elsewhere ---------------------------------------------------------------------------------------------------------------- */

/* For sh: in single quotes. */
static void quote(const char *text, FILE *to)
{
	fputc('\'', to);
	for (; *text; text++)
		if (*text == '\'')
			fputs("'\\''", to);
		else
			fputc(*text, to);
	fputc('\'', to);
}

static void write_job(const struct request *q, const char *umbra, size_t job, FILE *to)
{
	const struct grid_point *p = &q->grid.points[job % q->grid.nr];
	static const char *const prefetch[] = { [MMU_PREFETCH_KVM8] = "kvm8", [MMU_PREFETCH_XEN32] = "xen32" };
	char text[HEURISTIC_TEXT], name[4200];

	quote(umbra, to);
	fputs(" replay ", to);
	quote(q->args[job / q->grid.nr], to);
	for (unsigned i = 0; i < p->nr; i++) {
		fputs(" --heuristic ", to);
		quote(heuristic_text(&p->heuristics[i], text), to);
	}
	fputs(" --model ", to);
#define X(param, initial, what) fprintf(to, "%s=%" PRIu64 ",", #param, q->model.param);
	REPLAY_PARAMS(X)
#undef X
	if (q->model.lag_file) {
		fputs(" --lag ", to);
		quote(q->model.lag_file, to);
	}
	if (q->model.prefetch == MMU_PREFETCH_AROUND)
		fprintf(to, " --prefetch %u", q->model.prefetch_n);
	else if (q->model.prefetch != MMU_PREFETCH_OFF)
		fprintf(to, " --prefetch %s", prefetch[q->model.prefetch]);
	if (q->model.fill == MMU_FILL_EAGER)
		fputs(" --fill eager", to);
	fputs(" --json ", to);
	snprintf(name, sizeof name, "%s/%06zu.json", q->results, job + 1);
	quote(name, to);
	fputs(" >/dev/null\n", to);
}

static int write_jobs(const struct request *q)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	FILE *f = fopen(q->jobs_out, "we");
	int r;

	self[n > 0 ? n : 0] = '\0';
	if (!f || (mkdir(q->results, 0777) && errno != EEXIST)) {
		r = -errno;
		fprintf(stderr, "umbra sweep: %s: %s\n", f ? q->results : q->jobs_out, strerror(-r));
		if (f)
			fclose(f);
		return r;
	}
	for (size_t job = 0; job < nr_jobs(q); job++)
		write_job(q, n > 0 ? self : "umbra", job, f);
	r = ferror(f) ? -EIO : 0;
	if (fclose(f) && !r)
		r = -errno;
	if (r)
		fprintf(stderr, "umbra sweep: %s: %s\n", q->jobs_out, strerror(-r));
	else if (!q->quiet)
		fprintf(stderr, "umbra sweep: %zu jobs are in %s. Run them with one of\n"
			"  parallel <%s\n"
			"  sbatch --array=1-%zu --wrap 'sed -n \"${SLURM_ARRAY_TASK_ID}p\" %s | sh'\n"
			"and then: umbra sweep --merge %s/*.json\n", nr_jobs(q), q->jobs_out, q->jobs_out, nr_jobs(q), q->jobs_out,
			q->results);
	return r;
}

static int merge(const struct request *q, struct sweep *results)
{
	for (size_t i = 0; i < q->nr_args; i++) {
		json_error_t why;
		json_t *root = json_load_file(q->args[i], 0, &why);
		int r = root ? sweep_add(results, root) : -EINVAL;

		if (r == -EINVAL)
			fprintf(stderr, "umbra sweep: %s: not a result of 'umbra replay --json'%s%s\n", q->args[i], root ? "" : ": ",
				root ? "" : why.text);
		else if (r)
			fprintf(stderr, "umbra sweep: %s: %s\n", q->args[i],
				r == -EEXIST ? "another file has a result of the same configuration and trace" : strerror(-r));
		json_decref(root);
		if (r == -EEXIST)
			continue;
		if (r)
			return r;
	}
	return 0;
}

/* ---- the command ---------------------------------------------------------------------------------------------------------------- */

static const struct argp_option options[] = {
	{ "heuristic", OPT_HEURISTIC, "NAME[,KEY=A/B/...]", 0, "A heuristic, every combination of the values; repeatable; all together", 1 },
	{ "maybe", OPT_MAYBE, "NAME[,KEY=A/B/...]", 0, "The same, and without it", 1 },
	{ "json", OPT_JSON, "FILE", 0, "Write all points as JSON, '-': to stdout in place of the table", 1 },
	{ "jobs", 'j', "N", 0, "Threads (default: one per processor)", 1 },
	{ "jobs-out", OPT_JOBS_OUT, "FILE", 0, "Run nothing, write a shell command per point and trace, for GNU parallel or a Slurm array", 1 },
	{ "results", OPT_RESULTS, "DIR", 0, "Where those put their results (default: FILE.results)", 1 },
	{ "merge", OPT_MERGE, NULL, 0, "The arguments are such results: put them together", 1 },
	{ "quiet", 'q', NULL, 0, "No progress", 1 },
	{ NULL },
};

static error_t add_grid(struct request *q, const char *option, const char *arg, bool maybe)
{
	char why[160];

	if (!grid_add(&q->grid, arg, maybe, why, sizeof why))
		return 0;
	fprintf(stderr, "umbra sweep: --%s=%s: %s\n", option, arg, why);
	return EINVAL;
}

static error_t check(const struct request *q)
{
	if (!q->nr_args)
		fputs(q->merge ? "umbra sweep: --merge needs the files of results\n" :
		      "umbra sweep: a trace is needed: 'umbra run --trace=FILE ...' records one\n", stderr);
	else if (q->merge && (q->jobs_out || q->grid.nr > 1))
		fputs("umbra sweep: --merge only puts results together: no --jobs-out, --heuristic or --maybe with it\n", stderr);
	else if (q->results && !q->jobs_out)
		fputs("umbra sweep: --results is where jobs put their results: it needs --jobs-out\n", stderr);
	else if (q->jobs_out && q->json)
		fputs("umbra sweep: --jobs-out runs nothing, so there is nothing for --json\n", stderr);
	else
		return 0;
	return EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct request *q = state->input;
	uint64_t n;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &q->model;
		return 0;
	case OPT_HEURISTIC:
		return add_grid(q, "heuristic", arg, false);
	case OPT_MAYBE:
		return add_grid(q, "maybe", arg, true);
	case OPT_JSON:
		q->json = arg;
		return 0;
	case OPT_JOBS_OUT:
		q->jobs_out = arg;
		return 0;
	case OPT_RESULTS:
		q->results = arg;
		return 0;
	case OPT_MERGE:
		q->merge = true;
		return 0;
	case 'j':
		if (cli_parse_uint(arg, 1, 1024, &n)) {
			fprintf(stderr, "umbra sweep: --jobs=%s: a number from 1 to 1024 is needed\n", arg);
			return EINVAL;
		}
		q->threads = n;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	case ARGP_KEY_ARG:
		q->args[q->nr_args++] = arg;
		return 0;
	case ARGP_KEY_END:
		return check(q);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int report(const struct request *q, const struct sweep *results)
{
	size_t missing = sweep_incomplete(results);
	int r = 0;

	if (missing)
		fprintf(stderr, "umbra sweep: %zu configurations lack results of some trace: they are not on the front\n", missing);
	if (!q->json || strcmp(q->json, "-"))
		sweep_print(results, stdout);
	if (q->json) {
		r = replay_write(q->json, sweep_json(results));
		if (r)
			fprintf(stderr, "umbra sweep: --json=%s: %s\n", q->json, strerror(-r));
	}
	return r;
}

int cli_sweep(int argc, char **argv)
{
	static const struct argp_child children[] = { { &replay_model_argp, 0, "The model, of every point:", 2 }, { NULL } };
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "TRACE...\n--merge RESULT...",
		.doc = "Replays traces under every combination of heuristics and parameters, and prints the Pareto front: hidden faults left "
		       "against entries built in vain.\vExample: umbra sweep forks.trace --heuristic update "
		       "--maybe window,aligned=1/8,ahead=0/32 --maybe fork,entries=64/512",
		.children = children,
	};
	struct request q = { .threads = sysconf(_SC_NPROCESSORS_ONLN) };
	struct sweep *results = sweep_create();
	char dir[4096];
	int r = -ENOMEM;

	replay_config_init(&q.model, NULL);
	q.args = calloc(argc, sizeof *q.args);
	if (!results || !q.args || grid_init(&q.grid))
		goto out;
	r = -EINVAL;
	if (argp_parse(&argp, argc, argv, 0, NULL, &q))
		goto out;
	if (q.jobs_out && !q.results) {
		if ((size_t)snprintf(dir, sizeof dir, "%s.results", q.jobs_out) >= sizeof dir)
			goto out;
		q.results = dir;
	}
	if (q.jobs_out) {
		r = write_jobs(&q) ? -EIO : 0;
		goto out;
	}
	r = q.merge ? merge(&q, results) : run_here(&q, results);
	if (!r)
		r = report(&q, results);
	r = r ? -EIO : 0;
out:
	grid_free(&q.grid);
	sweep_free(results);
	free(q.args);
	return r == -EINVAL ? VMM_EXIT_USAGE : r ? VMM_EXIT_ERROR : VMM_EXIT_OK;
}
