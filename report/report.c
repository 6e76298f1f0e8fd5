/* Files in, a page out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/runs.h"
#include "report/page.h"
#include "report/report.h"

#define FILE_MAX	(64 << 20)	/* a result is a few MB at most */

struct files {
	const char *program;
	const char *const *in;
	json_t **root;			/* [n] */
	unsigned n;
};

static int read_file(const char *program, const char *path, json_t **out)
{
	json_error_t e;
	struct stat st;

	if (stat(path, &st)) {
		fprintf(stderr, "%s: %s: %s\n", program, path, strerror(errno));
		return -errno;
	}
	if (S_ISREG(st.st_mode) && st.st_size > FILE_MAX) {
		fprintf(stderr, "%s: %s: larger than any result of umbra: %lld bytes\n", program, path, (long long)st.st_size);
		return -EFBIG;
	}
	*out = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
	if (!*out) {
		fprintf(stderr, "%s: %s:%d: %s\n", program, path, e.line > 0 ? e.line : 1, e.text);
		return -EINVAL;
	}
	return 0;
}

static int bad_file(const struct files *f, unsigned i, const char *why)
{
	fprintf(stderr, "%s: %s: %s\n", f->program, f->in[i], why);
	return -EINVAL;
}

static bool is_run(const json_t *root)
{
	return json_object_get(root, "total") && json_object_get(root, "mmu") && json_object_get(root, "end");
}

/* Of a schema that we know, and of a kind. */
static int check_file(const struct files *f, unsigned i)
{
	const json_t *root = f->root[i], *schema = json_object_get(root, "schema");
	char why[100];

	if (!json_is_object(root) || !json_is_integer(schema))
		return bad_file(f, i, "no result of umbra: it has no schema number");
	if (json_integer_value(schema) != 1) {
		snprintf(why, sizeof why, "schema %lld: this umbra knows 1", (long long)json_integer_value(schema));
		return bad_file(f, i, why);
	}
	if (!is_run(root) && !json_object_get(root, "compared"))
		return bad_file(f, i, "neither of umbra compare or bench --json nor of umbra run --stats");
	return 0;
}

static int put_part(const struct files *f, struct text *t, const json_t *root, const char *source)
{
	struct model *m = malloc(sizeof *m);
	char why[200] = "";
	int r;

	if (!m)
		return -ENOMEM;
	r = model_make(m, root, why, sizeof why);
	if (!r) {
		page_part(t, m, source);
		model_release(m);
	} else {
		fprintf(stderr, "%s: %s: %s\n", f->program, source, r == -EINVAL ? why : strerror(-r));
	}
	free(m);
	return r;
}

/* All single runs in one part, as if each were a mode. */
static int put_runs(const struct files *f, struct text *t)
{
	const json_t *reports[RUNS_MAX];
	const char *names[RUNS_MAX], *slash;
	char source[40];
	unsigned n = 0;
	json_t *root;
	int r;

	for (unsigned i = 0; i < f->n; i++) {
		if (!is_run(f->root[i]))
			continue;
		if (n == RUNS_MAX)
			return bad_file(f, i, "too many single runs for one page");
		slash = strrchr(f->in[i], '/');
		names[n] = slash ? slash + 1 : f->in[i];
		reports[n++] = f->root[i];
	}
	if (!n)
		return 0;
	root = runs_compared(reports, names, n);
	if (!root)
		return -ENOMEM;
	snprintf(source, sizeof source, "%u of umbra run --stats", n);
	r = put_part(f, t, root, source);
	json_decref(root);
	return r;
}

static int write_page(const char *program, const struct text *t, const char *out)
{
	FILE *f = strcmp(out, "-") ? fopen(out, "we") : stdout;
	int r = f ? 0 : -errno;

	errno = 0;
	if (f && (fwrite(t->at, 1, t->len, f) != t->len || fflush(f)))
		r = errno ? -errno : -EIO;
	if (f && f != stdout && fclose(f) && !r)
		r = -errno;
	if (r)
		fprintf(stderr, "%s: %s: %s\n", program, out, strerror(-r));
	return r;
}

int report_write(const char *program, const char *const *in, unsigned n, const char *out)
{
	struct files f = { .program = program, .in = in, .n = n, .root = calloc(n, sizeof(json_t *)) };
	struct text t = { NULL };
	int r = f.root ? 0 : -ENOMEM;

	for (unsigned i = 0; i < n && !r; i++) {
		r = read_file(program, in[i], &f.root[i]);
		if (!r)
			r = check_file(&f, i);
	}
	if (r)
		goto out;
	page_begin(&t, "umbra report");
	for (unsigned i = 0; i < n && !r; i++)
		if (!is_run(f.root[i]))
			r = put_part(&f, &t, f.root[i], in[i]);
	if (!r)
		r = put_runs(&f, &t);
	page_end(&t);
	if (!r && t.failed)
		r = -ENOMEM;
	if (r == -ENOMEM)
		fprintf(stderr, "%s: %s\n", program, strerror(ENOMEM));
	if (!r)
		r = write_page(program, &t, out);
out:
	for (unsigned i = 0; f.root && i < n; i++)
		json_decref(f.root[i]);
	free(f.root);
	text_free(&t);
	return r;
}
