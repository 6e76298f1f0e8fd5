/* Subtests: fork, exec and what is shared or not between processes. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

#define RW	(PROT_READ | PROT_WRITE)

static void *shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

enum { TREE_FAN = 3, TREE_DEPTH = 4 };	/* 1 + 3 + 9 + 27 + 81 processes */

static uint64_t tree_hash(unsigned node)
{
	return rng_next(&(struct rng){ node });
}

/* Each process of the tree adds its own word, after its children added theirs. Exits non-zero if a child failed. */
static int tree_node(_Atomic uint64_t *sum, unsigned node, unsigned depth)
{
	pid_t pid[TREE_FAN];
	uint64_t heap[64];
	int bad = 0;

	rng_fill(&(struct rng){ node }, heap, sizeof(heap));
	for (unsigned i = 0; depth && i < TREE_FAN; i++) {
		pid[i] = fork();
		if (!pid[i])
			_exit(tree_node(sum, node * TREE_FAN + i + 1, depth - 1));
	}
	for (unsigned i = 0; depth && i < TREE_FAN; i++)
		bad |= child_expect(pid[i], 0) != NULL;
	atomic_fetch_add(sum, heap[0]);
	return bad;
}

static const char *test_fork_tree(struct digest *d)
{
	_Atomic uint64_t *sum = shared(PAGE);
	uint64_t want = 0;
	unsigned nodes = 0;

	for (unsigned level = 0, width = 1; level <= TREE_DEPTH; level++, width *= TREE_FAN)
		nodes += width;
	for (unsigned i = 0; i < nodes; i++)
		want += tree_hash(i);
	CHECK(sum, "mmap: %s", strerror(errno));
	CHECK(!tree_node(sum, 0, TREE_DEPTH), "a process of the tree failed");
	CHECK(*sum == want, "sum over %u processes is %#lx, not %#lx", nodes, *sum, want);
	digest_u64(d, *sum);
	return NULL;
}

enum { COW_PAGES = 640 };

/* A page says whose it is in its first and last word. */
static void cow_write(uint64_t *mem, unsigned page, uint64_t owner)
{
	mem[page * 512] = owner << 32 | page;
	mem[page * 512 + 511] = ~mem[page * 512];
}

static unsigned cow_wrong(const uint64_t *mem, uint64_t (*owner)(unsigned page, unsigned who), unsigned who)
{
	for (unsigned i = 0; i < COW_PAGES; i++) {
		uint64_t want = owner(i, who) << 32 | i;

		if (mem[i * 512] != want || mem[i * 512 + 511] != ~want)
			return i + 1;
	}
	return 0;
}

/* Process `who` rewrites the pages with (page + who) % 3 != 0; the others stay as the ancestor (0) left them. */
static uint64_t cow_owner(unsigned page, unsigned who)
{
	return who && (page + who) % 3 ? who : 0;
}

static void cow_rewrite(uint64_t *mem, unsigned who)
{
	for (unsigned i = 0; i < COW_PAGES; i++)
		if (cow_owner(i, who))
			cow_write(mem, i, who);
}

static const char *test_cow(struct digest *d)
{
	uint64_t *mem = mmap(NULL, COW_PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(mem != MAP_FAILED, "mmap: %s", strerror(errno));
	for (unsigned round = 0; round < 6; round++) {
		int go[2], done[2];
		pid_t first, second;
		unsigned bad;
		char c = 0;

		for (unsigned i = 0; i < COW_PAGES; i++)
			cow_write(mem, i, 0);
		CHECK(!pipe(go) && !pipe(done), "pipe: %s", strerror(errno));
		first = fork();
		if (!first) {	/* waits for the parent to write, must not see it, then writes as well */
			close(go[1]);
			if (round & 1 && read(go[0], &c, 1) != 1)
				_exit(3);
			if (cow_wrong(mem, cow_owner, 0))
				_exit(1);
			cow_rewrite(mem, 2);
			second = fork();	/* a page of three owners */
			if (!second) {
				cow_rewrite(mem, 4);	/* 4 % 3 == 1: other pages than 2 */
				for (unsigned i = 0; i < COW_PAGES; i++) {
					uint64_t want = cow_owner(i, 4) ?: cow_owner(i, 2);

					if (mem[i * 512] != (want << 32 | i))
						_exit(1);
				}
				_exit(0);
			}
			if (child_expect(second, 0) || write(done[1], &c, 1) != 1)
				_exit(4);
			_exit(cow_wrong(mem, cow_owner, 2) ? 2 : 0);
		}
		if (!(round & 1))
			CHECK(read(done[0], &c, 1) == 1, "the child said nothing");
		bad = cow_wrong(mem, cow_owner, 0);
		CHECK(!bad, "round %u: parent sees the child's write in page %u", round, bad - 1);
		cow_rewrite(mem, 1);
		if (round & 1)
			CHECK(write(go[1], &c, 1) == 1, "pipe: %s", strerror(errno));
		TRY(child_expect(first, 0));
		bad = cow_wrong(mem, cow_owner, 1);
		CHECK(!bad, "round %u: page %u of the parent is wrong after the child's exit", round, bad - 1);
		digest_bytes(d, mem, COW_PAGES * PAGE);
		close(go[0]), close(go[1]), close(done[0]), close(done[1]);
	}
	return NULL;
}

/* What fork must *not* copy: a shared map, seen and changed by both sides. */
static const char *test_fork_shared(struct digest *d)
{
	enum { WORDS = 64 * 512, PROCS = 4 };
	_Atomic uint64_t *mem = shared(WORDS * 8);
	pid_t pid[PROCS];

	CHECK(mem, "mmap: %s", strerror(errno));
	for (unsigned p = 0; p < PROCS; p++) {
		pid[p] = fork();
		if (!pid[p]) {
			for (unsigned k = 0; k < 3; k++)
				for (unsigned i = 0; i < WORDS; i += 7)
					atomic_fetch_add(&mem[i], i * (p + 1));
			_exit(0);
		}
	}
	for (unsigned p = 0; p < PROCS; p++)
		TRY(child_expect(pid[p], 0));
	for (unsigned i = 0; i < WORDS; i++)
		CHECK(mem[i] == (i % 7 ? 0 : i * 30ull), "word %u is %lu", i, mem[i]);
	digest_u64(d, mem[7 * 1000]);
	return NULL;
}

/* The child adds `i` in the parent's memory, which waits; odd ones exec. */
static __attribute__((noinline)) pid_t vfork_add(volatile uint64_t *seen, unsigned i)
{
	pid_t pid = vfork();

	if (!pid) {
		*seen += i;
		if (i & 1)
			execl("/proc/self/exe", "workload", "exec-child", "exit", "9", NULL);
		_exit(i & 1 ? 127 : 9);
	}
	return pid;
}

static const char *test_vfork(struct digest *d)
{
	volatile uint64_t seen = 0;

	for (unsigned i = 1; i <= 20; i++)
		TRY(child_expect(vfork_add(&seen, i), 9));
	CHECK(seen == 210, "vfork children wrote %lu, not 210", seen);
	digest_u64(d, seen);
	return NULL;
}

/* ---- exec ------------------------------------------------------------------------------------------------------ */

/*
 * The other side of the exec subtests:
 *   exec-child exit N            exits with N
 *   exec-child chain N           runs itself N times over, then exits with 42
 *   exec-child sum               writes the digest of its arguments, environment and 64 pages of bss to stdout
 */
static uint8_t exec_bss[64 * PAGE];

int exec_child_main(int argc, char **argv)
{
	struct digest d = DIGEST_INIT;
	char left[16];

	if (argc >= 3 && !strcmp(argv[1], "exit"))
		return atoi(argv[2]);
	if (argc >= 3 && !strcmp(argv[1], "chain")) {
		if (!atoi(argv[2]))
			return 42;
		snprintf(left, sizeof(left), "%d", atoi(argv[2]) - 1);
		execl("/proc/self/exe", "workload", "exec-child", "chain", left, NULL);
		return 1;
	}
	if (argc >= 2 && !strcmp(argv[1], "sum")) {
		for (size_t i = 0; i < sizeof(exec_bss); i++)
			if (exec_bss[i])
				return 3;	/* somebody else's page */
		memset(exec_bss, 0x5a, sizeof(exec_bss));
		for (int i = 2; i < argc; i++)
			digest_bytes(&d, argv[i], strlen(argv[i]) + 1);
		for (char **e = environ; *e; e++)
			digest_bytes(&d, *e, strlen(*e) + 1);
		digest_bytes(&d, exec_bss, sizeof(exec_bss));
		return write(1, &d.h, sizeof(d.h)) == sizeof(d.h) ? 0 : 4;
	}
	return 2;
}

static const char *exec_sum(unsigned round, uint64_t *got, uint64_t *want)
{
	enum { ARGS = 40, LEN = 900 };
	static char args[ARGS][LEN + 1];
	char *argv[ARGS + 4] = { "workload", "exec-child", "sum" }, *envp[] = { "A=1", "BB=two", NULL };
	struct digest d = DIGEST_INIT;
	struct rng r = { round };
	int out[2];
	ssize_t n;
	pid_t pid;

	for (unsigned i = 0; i < ARGS; i++) {
		for (unsigned k = 0; k < LEN; k++)
			args[i][k] = 'a' + rng_next(&r) % 26;
		argv[i + 3] = args[i];
		digest_bytes(&d, args[i], LEN + 1);
	}
	for (unsigned i = 0; envp[i]; i++)
		digest_bytes(&d, envp[i], strlen(envp[i]) + 1);
	memset(exec_bss, 0x5a, sizeof(exec_bss));
	digest_bytes(&d, exec_bss, sizeof(exec_bss));
	*want = d.h;

	CHECK(!pipe(out), "pipe: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		dup2(out[1], 1);
		execve("/proc/self/exe", argv, envp);
		_exit(127);
	}
	close(out[1]);
	n = read(out[0], got, sizeof(*got));
	close(out[0]);
	TRY(child_expect(pid, 0));
	CHECK(n == sizeof(*got), "the child wrote %zd bytes", n);
	return NULL;
}

static const char *test_exec(struct digest *d)
{
	uint64_t got, want;
	pid_t pid;

	for (unsigned round = 0; round < 12; round++) {
		TRY(exec_sum(round, &got, &want));
		CHECK(got == want, "round %u: the child saw other arguments", round);
		digest_u64(d, got);
	}
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "workload", "exec-child", "chain", "25", NULL);
		_exit(127);
	}
	TRY(child_expect(pid, 42));
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe/missing", "x", NULL);
		_exit(errno == ENOTDIR ? 17 : 1);	/* a failed exec leaves the process as it was */
	}
	return child_expect(pid, 17);
}

/* A process killed in the middle of everything frees its memory for the next. */
static const char *test_kill(struct digest *d)
{
	for (unsigned i = 0; i < 30; i++) {
		int status, ready[2];
		char c;
		pid_t pid;

		CHECK(!pipe(ready), "pipe: %s", strerror(errno));
		pid = fork();
		if (!pid) {
			volatile uint8_t *p = mmap(NULL, 2048 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

			if (write(ready[1], "", 1) != 1)
				_exit(1);
			for (unsigned k = 0;; k++) {
				if (p[k % 2048 * PAGE] && k < 2048)
					_exit(1);	/* a fresh page that is not zero */
				p[k % 2048 * PAGE] = 1;
			}
		}
		CHECK(pid > 0 && read(ready[0], &c, 1) == 1, "child did not start");
		usleep(i * 300);
		kill(pid, SIGKILL);
		CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
		      "status %#x instead of killed", status);
		close(ready[0]);
		close(ready[1]);
	}
	digest_u64(d, 30);
	return NULL;
}

const struct subtest process_tests[] = {
	{ "fork_tree", test_fork_tree },
	{ "cow", test_cow },
	{ "fork_shared", test_fork_shared },
	{ "vfork", test_vfork },
	{ "exec", test_exec },
	{ "kill", test_kill },
	{ 0 },
};
